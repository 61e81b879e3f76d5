"""The rules and alerts: Prometheus takes them, they fire and stay quiet where they should, and each has its runbook."""

import re
import subprocess
from pathlib import Path

import pytest

from dnsbl_milter import configuration, metrics, watch
from dnsbl_milter.board import facts
from dnsbl_milter.standing import Standing
from mailhost.process import program

FOLDER = Path(__file__).parents[2] / "contrib" / "prometheus"
RECORDING, ALERTS, TESTS, RUNBOOK = (
    (FOLDER / name).read_text() for name in ("recording.yml", "alerts.yml", "alerts.test.yml", "RUNBOOK.md")
)
README = (FOLDER.parents[1] / "README.md").read_text()
NAMES = re.findall(r"- alert: (\w+)", ALERTS)
RECORDED = re.findall(r"- record: (\S+)", RECORDING)

WANTED = {
    # what the issue asks for, and the alert that it is
    "milter down": "DnsblMilterDown",
    "no worker": "DnsblNoWorker",
    "a list suspended": "DnsblListSuspended",
    "lookups failing": "DnsblLookupsFailing",
    "a drop-rate jump against its own day before": "DnsblDropRateJump",
    "a list that is decisive for too much": "DnsblListTooDecisive",
    "reload failed": "DnsblReloadFailed",
    "recipients waiting": "DnsblRecipientsWaiting",
    "DNS all unknown": "DnsblDnsAllUnknown",
}


def promtool(*arguments):
    return subprocess.run(
        [program("promtool", "prometheus"), *arguments], cwd=FOLDER, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("file", ["recording.yml", "alerts.yml"])
def test_the_rules_are_valid(file):
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_example_loads_them():
    done = promtool("check", "config", "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(NAMES)} rules found" in done.stdout
    assert f"{len(RECORDED)} rules found" in done.stdout


def test_alerts_fire_and_stay_quiet():
    done = promtool("test", "rules", "alerts.test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_their_test_would_notice_a_difference(tmp_path):
    for name, text in (("recording.yml", RECORDING), ("alerts.test.yml", TESTS)):
        (tmp_path / name).write_text(text)
    for before, after in (("for: 2m", "for: 20m"), ("> 0.95", "> 0.3"), ("offset 1d", "offset 1h"), (">= 50", ">= 5000")):
        assert before in ALERTS
        (tmp_path / "alerts.yml").write_text(ALERTS.replace(before, after))
        assert promtool("test", "rules", str(tmp_path / "alerts.test.yml")).returncode == 1, before


@pytest.mark.parametrize("name", WANTED.values(), ids=WANTED)
def test_what_was_asked_for_is_there(name):
    assert name in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_alert_is_shown_to_fire_and_to_stay_quiet(name):
    quiet = re.findall(rf"^      - {{ eval_time: \w+, alertname: {name} }}", TESTS, re.MULTILINE)
    fires = re.findall(rf"alertname: {name}\n +exp_alerts:\n +- exp_labels:", TESTS)
    assert quiet
    assert fires


MUTANTS = [
    # what is done to the condition of an alert, and the condition then
    ("it never holds", "vector(1) > 1"),
    ("it always holds", "vector(1)"),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("condition", [row[1] for row in MUTANTS], ids=[row[0] for row in MUTANTS])
def test_each_alert_that_never_or_always_fires_is_noticed(tmp_path, name, condition):
    changed, count = re.subn(
        rf"(- alert: {name}\n +expr: )(.*?)(\n +(?:for|labels):)", rf"\g<1>{condition}\g<3>", ALERTS, flags=re.DOTALL
    )
    assert count == 1
    # A day's worth of another alert takes long.
    head, *cases = re.split(r"(?m)^(?=  - name:)", TESTS)
    concerned = head + "".join(case for case in cases if f"alertname: {name}" in case)
    for file, text in (("recording.yml", RECORDING), ("alerts.yml", changed), ("alerts.test.yml", concerned)):
        (tmp_path / file).write_text(text)
    done = promtool("test", "rules", str(tmp_path / "alerts.test.yml"))
    assert done.returncode == 1
    assert set(re.findall(r"alertname: (\w+)", done.stdout + done.stderr)) == {name}


@pytest.mark.parametrize("name", NAMES)
def test_each_alert_has_its_line_in_the_readme(name):
    assert len(re.findall(rf"^\| `{name}` \| .+ \| .+ \|$", README, re.MULTILINE)) == 1


@pytest.mark.parametrize("name", NAMES)
def test_each_alert_has_its_runbook(name):
    (entry,) = re.findall(rf"- alert: {name}\n(.*?)(?=\n      - alert:|\Z)", ALERTS, re.DOTALL)
    assert f'runbook: "RUNBOOK.md#{name.lower()}"' in entry
    assert re.search(r"severity: (page|ticket)", entry)
    (section,) = re.findall(rf"^## {name}\n\n(.*?)(?=\n## |\Z)", RUNBOOK, re.DOTALL | re.MULTILINE)
    assert len(section.split()) > 15


def test_the_runbook_has_no_section_for_an_alert_that_is_not_there():
    assert set(re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE)) == set(NAMES)
    assert set(re.findall(r"^\| `(Dnsbl\w+)`", README, re.MULTILINE)) == set(NAMES)


def exported(tmp_path):
    """Return the names of all series that the daemon exports."""
    loaded = configuration.parse('[[list]]\nzone = "one.example"\nweight = 1\n', "a test")
    names = set()
    for family in metrics.Metrics(loaded.policy.lists)._registry.collect():
        names |= {sample.name for sample in family.samples}
    watched = watch.Watch(loaded, facts(), Standing(loaded.policy.lists), tmp_path).gauges()
    return names | {f"dnsbl_{gauge.name}" + "_total" * gauge.counter for gauge in watched}


def test_every_series_that_they_ask_for_exists(tmp_path):
    expressions = re.sub(r'"[^"]*"', "", "\n".join(re.findall(r"expr:(.*?)\n +(?:for|labels|- |annotations)", RECORDING + ALERTS + "\n- ", re.DOTALL)))
    asked = set(re.findall(r"(?<![\w:])dnsbl_\w+", expressions))
    assert len(asked) > 10
    assert asked - exported(tmp_path) == set()
    assert set(re.findall(r"\w+:dnsbl_\w+:\w+", expressions)) <= set(RECORDED)
