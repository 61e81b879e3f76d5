"""The dashboards are what their code makes, and every panel says what it shows, in which unit, of what."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "contrib" / "grafana"
DASHBOARDS = {path.name: json.loads(path.read_text()) for path in sorted((FOLDER / "dashboards").glob("*.json"))}
PANELS = [
    pytest.param(panel, id=f"{name}: {panel['title']}")
    for name, dashboard in DASHBOARDS.items()
    for panel in dashboard["panels"]
    if panel["type"] != "row"
]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}

WANTED = {
    # what was asked for: the dashboard, the panel, its kind, and the metric that it shows
    "drops by action and list": ("fleet.json", "Drops by action and list", "timeseries", "dnsbl_drops_total"),
    "decisive lists": ("fleet.json", "Decisive lists", "bargauge", "dnsbl_decisive_total"),
    "score distribution": ("fleet.json", "Scores", "heatmap", "dnsbl_score_bucket"),
    "what recipients waited": ("fleet.json", "What recipients waited", "timeseries", "dnsbl_wait_seconds_bucket"),
    "lookups by outcome": ("fleet.json", "Lookups by outcome", "timeseries", "dnsbl_lookups_total"),
    "cache hit ratio": ("fleet.json", "Cache hit ratio", "timeseries", "dnsbl_cache_lookups_total"),
    "list states": ("fleet.json", "States of lists", "state-timeline", "dnsbl_list_state"),
    "one list's state": ("list.json", "State", "state-timeline", "dnsbl_list_state"),
}


def test_there_are_two():
    assert sorted(DASHBOARDS) == ["fleet.json", "list.json"]


def test_they_are_what_their_code_makes():
    done = subprocess.run([sys.executable, FOLDER / "dashboards.py", "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_difference_would_be_noticed(tmp_path):
    tmp_path /= "grafana"
    tmp_path.mkdir()
    for file in ("dashboards.py", "panels.py"):
        (tmp_path / file).write_text((FOLDER / file).read_text().replace("Kept out", "Dropped"))
    (tmp_path / "dashboards").mkdir()
    for path in (FOLDER / "dashboards").iterdir():
        (tmp_path / "dashboards" / path.name).write_text(path.read_text())
    done = subprocess.run([sys.executable, tmp_path / "dashboards.py", "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "fleet.json is not what dashboards.py makes: run it\n")


@pytest.mark.parametrize(("dashboard", "title", "kind", "metric"), WANTED.values(), ids=WANTED)
def test_what_was_asked_for_is_there(dashboard, title, kind, metric):
    (panel,) = [panel for panel in DASHBOARDS[dashboard]["panels"] if panel["title"] == title]
    assert panel["type"] == kind
    assert all(metric in target["expr"] for target in panel["targets"])


@pytest.mark.parametrize("panel", PANELS)
def test_every_panel_explains_itself(panel):
    assert len(panel["description"].split()) >= 5
    assert panel["description"].endswith((".", "%."))
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == SOURCE
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["legendFormat"]
        assert target["datasource"] == SOURCE
        assert target["refId"]
        assert 'instance=~"$instance"' in target["expr"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    # A legend that names a label gets it only if the expression keeps it.
    for target in panel["targets"]:
        for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
            assert re.search(rf"by \([^)]*\b{label}\b", target["expr"]) or "by (" not in target["expr"]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_panel_has_its_place(name):
    numbers = [panel["id"] for panel in DASHBOARDS[name]["panels"]]
    assert len(set(numbers)) == len(numbers)
    assert min(numbers) > 0
    taken = set()
    for panel in DASHBOARDS[name]["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_dashboard_can_be_turned_to_another_host_and_list(name):
    variables = {each["name"]: each for each in DASHBOARDS[name]["templating"]["list"]}
    assert list(variables) == ["datasource", "instance", "list"]
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    for each in ("instance", "list"):
        assert variables[each]["type"] == "query"
        assert variables[each]["datasource"] == SOURCE
    assert variables["list"]["multi"] is (name == "fleet.json")
    used = set(re.findall(r"\$(?!__)\{?(\w+)", json.dumps(DASHBOARDS[name]["panels"])))
    assert used == set(variables)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_dashboard_marks_reloads(name):
    (annotation,) = DASHBOARDS[name]["annotations"]["list"]
    assert annotation["name"] == "Reloads"
    assert "dnsbl_config_last_reload_success_timestamp_seconds" in annotation["expr"]


def test_they_have_an_identity_that_lasts():
    assert [DASHBOARDS[name]["uid"] for name in sorted(DASHBOARDS)] == ["dnsbl-milter-fleet", "dnsbl-milter-list"]


def test_every_metric_of_the_readme_is_on_a_dashboard():
    readme = (FOLDER.parents[1] / "README.md").read_text()
    shown = json.dumps(DASHBOARDS)
    missing = {name for name in re.findall(r"^\| `(dnsbl_\w+)`", readme, re.MULTILINE) if name not in shown}
    assert missing == set()
