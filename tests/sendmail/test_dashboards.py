"""Every query of every dashboard, alert and recording rule, asked of a real Prometheus that watches the real milter at work."""

from __future__ import annotations

import json
import math
import re
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from mailhost.clients import SAMPLE_CLIENTS
from mailhost.policies import sample_policy
from mailhost.process import Process, program, wait_until
from mailhost.site import Site

OpenSite = Callable[..., Site]

CONTRIB = Path(__file__).parents[2] / "contrib"
FOLDER = Path("/run/mailhost/prometheus")
PROMETHEUS, MILTER = "127.0.0.1:9099", "127.0.0.1:10784"
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((CONTRIB / "grafana" / "dashboards").glob("*.json"))}
SCRAPES = 12  # one a second

# As Grafana fills them in for a day of one host, whose traffic here has lasted for seconds.
FILLED = {"$__rate_interval": "10s", "$__range": "5m", "$instance": ".*", "$list": "zen", "$datasource": "prometheus"}

QUERIES = [
    pytest.param(target["expr"], panel["type"], id=f"{name}: {panel['title']} {target['refId']}")
    for name, dashboard in DASHBOARDS.items()
    for panel in dashboard["panels"]
    for target in panel.get("targets", ())
]
VARIABLES = [
    pytest.param(variable["query"], id=f"{name}: {variable['name']}")
    for name, dashboard in DASHBOARDS.items()
    for variable in dashboard["templating"]["list"]
    if variable["type"] == "query"
]
ANNOTATIONS = [
    pytest.param(annotation["expr"], id=f"{name}: {annotation['name']}")
    for name, dashboard in DASHBOARDS.items()
    for annotation in dashboard["annotations"]["list"]
]
RECORDED = re.findall(r"- record: (\S+)", (CONTRIB / "prometheus" / "recording.yml").read_text())
ALERTS = re.findall(r"- alert: (\S+)", (CONTRIB / "prometheus" / "alerts.yml").read_text())

CONFIGURATION = f"""\
global: {{ scrape_interval: 1s, evaluation_interval: 1s }}
rule_files: [recording.yml, alerts.yml]
scrape_configs:
  - job_name: dnsbl-milter
    static_configs: [{{ targets: ["{MILTER}"] }}]
"""


def ask(path: str, **parameters: str) -> Any:
    """Ask Prometheus; return the data of its answer, and raise AssertionError with what it complains about."""
    try:
        with urlopen(f"http://{PROMETHEUS}/api/v1/{path}?{urlencode(parameters)}", timeout=10) as answer:
            document = json.load(answer)
    except HTTPError as refused:
        with refused:
            raise AssertionError(refused.read().decode()) from None
    assert document["status"] == "success"
    return document["data"]


def fill(query: str) -> str:
    for name, value in FILLED.items():
        query = query.replace(name, value)
    assert "$" not in query
    return query


def values(query: str) -> list[float]:
    """Return every value that a query has had since Prometheus was started, but for those that are no number."""
    now = time.time()
    found = ask("query_range", query=query, start=str(now - 60), end=str(now), step="1")
    return [float(value) for series in found["result"] for _, value in series["values"] if not math.isnan(float(value))]


@pytest.fixture(scope="module")
def watched(keeper: Any) -> Iterator[Site]:
    """A mail host with all kinds of clients, that Prometheus has watched for a while, through a reload."""
    policy = sample_policy(
        metrics={"listen": MILTER},
        memory={"url": f"sqlite://{FOLDER}/memory.db", "delay": 1},
        health={"enabled": True, "proof": True, "interval": 1},
    )
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    for name in ("recording.yml", "alerts.yml"):
        # Here a minute is a second: what waits for the next evaluation would wait for long.
        (FOLDER / name).write_text((CONTRIB / "prometheus" / name).read_text().replace("interval: 1m", "interval: 1s"))
    (FOLDER / "prometheus.yml").write_text(CONFIGURATION)
    site: Site = keeper.open_site(policy, fresh=True)
    prometheus = Process(
        [
            program("prometheus", "prometheus"),
            f"--config.file={FOLDER}/prometheus.yml",
            f"--storage.tsdb.path={FOLDER}/data",
            f"--web.listen-address={PROMETHEUS}",
        ],
        FOLDER / "prometheus.log",
        is_ready,
        deadline=30,
    )
    try:
        reloaded = False
        with ThreadPoolExecutor(4) as pool:
            while scrapes() < SCRAPES:
                list(pool.map(lambda client: site.send(client.address), SAMPLE_CLIENTS))
                if not reloaded and scrapes() > SCRAPES // 2:
                    reloaded = True
                    site.daemon.process.hang_up()
                    site.daemon.wait_for_log("reloaded", 20)
        # So that what happened last has been seen too.
        last = scrapes()
        wait_until(lambda: scrapes() >= last + 2, 20, "Prometheus has scraped once more")
        yield site
    finally:
        prometheus.stop()
        keeper.close_daemon()


def is_ready() -> bool:
    try:
        with urlopen(f"http://{PROMETHEUS}/-/ready", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def scrapes() -> int:
    found = ask("query", query='sum(count_over_time(up{job="dnsbl-milter"}[5m]))')["result"]
    return int(found[0]["value"][1]) if found else 0


def test_no_scrape_failed(watched: Site) -> None:
    assert set(values('up{job="dnsbl-milter"}')) == {1.0}
    (target,) = ask("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")


@pytest.mark.parametrize(("query", "kind"), QUERIES)
def test_every_query_of_every_panel_returns_data(watched: Site, query: str, kind: str) -> None:
    found = values(fill(query))
    assert found, "it is understood, and there is nothing"
    if kind == "state-timeline":
        assert set(found) <= {0, 1, 2, 3}


@pytest.mark.parametrize("query", VARIABLES)
def test_every_variable_has_values(watched: Site, query: str) -> None:
    found = re.fullmatch(r"label_values\((.+), (\w+)\)", query)
    assert found
    names = ask(f"label/{found[2]}/values", **{"match[]": fill(found[1])})
    assert names == ([MILTER] if found[2] == "instance" else sorted(names))
    assert names
    if found[2] == "list":
        assert {"zen", "spamcop", "dnswl", "v6"} <= set(names)


@pytest.mark.parametrize("query", ANNOTATIONS)
def test_the_reload_is_marked(watched: Site, query: str) -> None:
    assert values(fill(query))


@pytest.mark.parametrize("name", RECORDED)
def test_every_recording_rule_records(watched: Site, name: str) -> None:
    assert values(name)


def test_every_alert_is_evaluated_and_the_healthy_host_is_quiet(watched: Site) -> None:
    rules = {rule["name"]: rule for group in ask("rules", type="alert")["groups"] for rule in group["rules"]}
    assert sorted(rules) == sorted(ALERTS)
    assert {name: rule["lastError"] for name, rule in rules.items() if rule["health"] != "ok"} == {}
    # The list that refuses everybody is meant to fail, and the empty one to look ill; nothing else is wrong.
    firing = {(name, alert["labels"].get("list")) for name, rule in rules.items() for alert in rule["alerts"] if alert["state"] == "firing"}
    assert {(name, one) for name, one in firing if one not in ("refusing", "empty")} == set()


def test_the_panels_show_what_happened(watched: Site) -> None:
    """Beyond that there is data: the numbers are those of the traffic."""
    for action in ("accept", "tag", "quarantine", "reject", "discard"):
        assert max(values(f'sum(rate(dnsbl_recipients_total{{action="{action}"}}[10s]))')) > 0, action
    assert max(values('sum(increase(dnsbl_decisive_total{list="zen"}[5m]))')) > 0
    assert max(values("histogram_quantile(0.95, sum by (le) (rate(dnsbl_wait_seconds_bucket[10s])))")) > 0
    assert max(values('sum(rate(dnsbl_cache_lookups_total{result="hit"}[10s]))')) > 0
    assert max(values('sum(rate(dnsbl_score_bucket{le="-5.0"}[10s]))')) > 0
