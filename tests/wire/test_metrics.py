"""What is counted is what happened, whoever reads it gets all of it, and nobody is named."""

import ast
import os
import re
import signal
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pytest
from faulty import REFUSED, SERVFAIL, SILENCE, NameServer, clear, failure, listed
from mta import ACCEPT, Session, action
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from service import Service, policy, read_samples

from mailhost.daemon import children, command
from mailhost.process import program, wait_until

ROOT = Path(__file__).parents[2]
ACTIONS = ("accept", "tag", "defer", "quarantine", "reject", "discard")
DROPS = ACTIONS[2:]
OUTCOMES = ("listed", "clear", "timeout", "servfail", "refused", "blocked", "invalid")
LISTS = """[
    { name = "zen", zone = "zen.example", codes = [
        { match = "127.0.0.2", weight = 5, label = "SBL" }, { match = "127.0.0.4", weight = 4 } ] },
    { name = "spamcop", zone = "spamcop.example", weight = 4 },
    { name = "dnswl", zone = "dnswl.example", weight = -2 },
]"""
TIERS = "{ tag = 3, defer = 5, quarantine = 8, reject = 12, discard = 13 }"
NAMES = ("zen", "spamcop", "dnswl")

# The contract's table: every metric, and the values of its labels.
TABLE = {
    "connections_total": {},
    "exempt_total": {"reason": ("network", "host", "authenticated", "recipient", "local")},
    "recipients_total": {"action": ACTIONS},
    "messages_total": {"action": ACTIONS},
    "drops_total": {"action": DROPS, "list": NAMES},
    "decisive_total": {"action": ACTIONS[1:], "list": NAMES},
    "observed_total": {"action": ACTIONS},
    "lookups_total": {"list": NAMES, "outcome": OUTCOMES},
    "lookup_seconds_count": {"list": NAMES},
    "wait_seconds_count": {},
    "score_count": {},
    "memory_total": {"result": ("deferred", "early", "passed", "known", "unavailable")},
    "cache_lookups_total": {"result": ("hit", "miss")},
    "paused": {"list": (*NAMES, "*")},
    "proofs_total": {"list": NAMES, "result": ("sane", "failed", "unanswered")},
    "worker_restarts_total": {},
    "resolver_fault": {"fault": ("rewrites", "refused", "down")},
    "callback_errors_total": {
        "callback": ("negotiate", "connect", "hello", "envfrom", "envrcpt", "header", "eom", "abort", "close")
    },
}
BORN = {
    (f"dnsbl_{name}", tuple(sorted(zip(labels, values, strict=True))))
    for name, labels in TABLE.items()
    for values in product(*labels.values())
} | {
    ("dnsbl_list_hits_total", (("label", label), ("list", name)))
    for name, label in [("zen", "SBL"), ("zen", ""), ("spamcop", ""), ("dnswl", "")]
} | {
    ("dnsbl_softened_total", (("from", hard), ("to", mild)))
    for place, hard in enumerate(DROPS)
    for mild in ("tag", *DROPS[:place])
}  # fmt: skip


@pytest.fixture
def name_server():
    with NameServer({f"{name}.example": {} for name in NAMES}) as server:
        yield server


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "milter.sock")


@pytest.fixture
def service(tmp_path, name_server, path):
    with Service(tmp_path, policy(name_server.text, path, actions=TIERS, lists=LISTS)) as started:
        yield started


# --- that it is there


def test_every_metric_is_born_at_zero(service):
    found = service.metrics()
    missing = BORN - found.keys()
    assert not missing
    assert {key: found[key] for key in BORN if found[key]} == {}


def test_what_is_not_a_counter_tells_how_it_is(service):
    found = service.metrics()
    assert found["dnsbl_workers", (("state", "serving"),)] == 2
    assert found["dnsbl_workers", (("state", "draining"),)] == 0
    assert found["dnsbl_config_last_reload_successful", ()] == 1
    states = {(labels["list"], labels["family"], labels["state"]): value for name, pairs in found
              if name == "dnsbl_list_state" for labels, value in [(dict(pairs), found[name, pairs])]}  # fmt: skip
    assert {key[2] for key in states} == {"ok", "suspect", "suspended", "probation"}
    assert {key[0] for key in states} == set(NAMES)
    # A list starts as ok.
    assert all(value == (key[2] == "ok") for key, value in states.items())
    loaded = found["dnsbl_config_last_reload_success_timestamp_seconds", ()]
    assert service.configuration.stat().st_mtime - 1 <= loaded <= (service.folder / "log").stat().st_mtime + 1
    (labels,) = [dict(labels) for name, labels in found if name == "dnsbl_build_info"]
    assert labels.keys() == {"version", "python", "libmilter"}
    assert all(re.fullmatch(r"\d+\.\d+\.\d+\S*", value) for value in labels.values())


@pytest.mark.parametrize("accept", ["", "text/plain", "application/openmetrics-text; version=1.0.0", "*/*"])
def test_it_speaks_what_its_reader_asks_for(service, accept):
    status, kind, text = service.page(accept=accept)
    assert status == 200
    if "openmetrics" in accept:
        assert kind.startswith("application/openmetrics-text")
        assert text.endswith("# EOF\n")
        found = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
        # Forbidden there beside buckets below zero; the last bucket has the same number.
        found.add("dnsbl_score_count")
        assert 'dnsbl_score_bucket{le="+Inf"} 0.0' in text
    else:
        assert kind.startswith("text/plain")
        found = {name for name, _ in read_samples(text)}
    assert {name for name, _ in BORN} <= found


def test_prometheus_finds_nothing_to_complain_about(service):
    text = service.page()[2]
    done = subprocess.run(
        [program("promtool", "prometheus"), "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("request_path", ["/metrics/", "/nothing", "/../etc/passwd", "/%2e%2e/etc/passwd"])
def test_other_pages_are_not_there(service, request_path):
    status, _, text = service.page(request_path)
    assert status == 404
    assert "root:" not in text


# --- that it is true


SESSIONS = [
    # client, codes by list, what its recipient is told, what is done with its message
    ("192.0.2.1", {}, ACCEPT, "accept"),
    ("192.0.2.2", {"spamcop": "127.0.0.2"}, ACCEPT, "tag"),
    ("192.0.2.3", {"zen": "127.0.0.2"}, 451, None),
    ("192.0.2.4", {"zen": "127.0.0.4", "spamcop": "127.0.0.2"}, ACCEPT, "quarantine"),
    ("192.0.2.5", {"zen": ("127.0.0.2", "127.0.0.4"), "spamcop": "127.0.0.2"}, ACCEPT, "discard"),
    ("192.0.2.6", {"zen": "127.0.0.2", "dnswl": "127.0.0.3"}, ACCEPT, "tag"),
    ("127.0.0.1", {}, None, None),
]


def test_the_counters_are_the_sum_of_what_was_answered(service, name_server, path):
    for client, codes, _, _ in SESSIONS:
        for name, code in codes.items():
            name_server.zones[f"{name}.example"][client] = listed(*((code,) if isinstance(code, str) else code))
    rounds, parallel = 12, 6
    seen = Counter()

    def play(row):
        client, _, told, done = row
        if told is None:
            with pytest.raises(Exception, match="unexpected response: a"), Session(path, client):
                pass  # accepted whole, at connect
            return Counter({"local": 1})
        with Session(path, client) as session:
            answer = session.recipient()
            assert answer == told, client
            if answer != ACCEPT:
                return Counter({f"recipient {answer}": 1})
            message = action(session.message(("Subject", "hello")))
            assert message == done, client
            return Counter({f"recipient {message}": 1, f"message {message}": 1})

    with ThreadPoolExecutor(parallel) as pool:
        for each in pool.map(play, SESSIONS * rounds):
            seen += each
    counts = service.metrics()

    def counted(name, **labels):
        return counts[f"dnsbl_{name}", tuple(sorted(labels.items()))]

    assert counted("connections_total") == rounds * len(SESSIONS)
    assert counted("exempt_total", reason="local") == seen["local"] == rounds
    recipients = {name: counted("recipients_total", action=name) for name in ACTIONS}
    assert recipients == {
        "accept": seen["recipient accept"],
        "tag": seen["recipient tag"],
        "defer": seen["recipient 451"],
        "quarantine": seen["recipient quarantine"],
        "reject": 0,
        "discard": seen["recipient discard"],
    }
    messages = {name: counted("messages_total", action=name) for name in ACTIONS}
    assert messages == {name: seen[f"message {name}"] for name in ACTIONS}
    assert {
        (name, one): counted("drops_total", action=name, list=one) for name in DROPS for one in NAMES
    } == dict.fromkeys(product(DROPS, NAMES), 0) | {
        ("defer", "zen"): rounds,
        ("quarantine", "zen"): rounds,
        ("quarantine", "spamcop"): rounds,
        ("discard", "zen"): rounds,
        ("discard", "spamcop"): rounds,
    }
    assert counted("decisive_total", action="tag", list="spamcop") == rounds
    assert counted("decisive_total", action="tag", list="zen") == rounds
    assert counted("decisive_total", action="tag", list="dnswl") == 0
    # Clients, not questions: what the cache knew was heard of too.
    assert counted("list_hits_total", list="zen", label="SBL") == 3 * rounds
    assert counted("list_hits_total", list="zen", label="") == 2 * rounds
    assert counted("list_hits_total", list="spamcop", label="") == 3 * rounds
    assert counted("list_hits_total", list="dnswl", label="") == rounds
    hits, misses = (counted("cache_lookups_total", result=result) for result in ("hit", "miss"))
    asked = rounds * (len(SESSIONS) - 1)
    assert hits + misses == asked
    # Only what is not known is asked, and each list's answer is counted once.
    for name in NAMES:
        outcomes = {outcome: counted("lookups_total", list=name, outcome=outcome) for outcome in OUTCOMES}
        assert sum(outcomes.values()) == outcomes["clear"] + outcomes["listed"]
        assert sum(outcomes.values()) == counted("lookup_seconds_count", list=name)
        # Every question is counted, unless its answer was not waited for, because it could change nothing.
        asked_about = sum(question.zone == f"{name}.example" for question in name_server.questions)
        assert asked_about <= misses
        assert sum(outcomes.values()) == asked_about or (name == "dnswl" and sum(outcomes.values()) < asked_about)
    assert counted("score_count") == sum(count for what, count in seen.items() if what.startswith("recipient"))
    assert counted("wait_seconds_count") == asked


TROUBLE = [
    ("timeout", SILENCE),
    ("servfail", failure(SERVFAIL)),
    ("refused", failure(REFUSED)),
    ("blocked", listed("127.255.255.254")),
    ("invalid", listed("198.51.100.1")),
    ("clear", clear()),
    ("listed", listed("127.0.0.2")),
]


@pytest.mark.parametrize(("outcome", "behaviour"), TROUBLE, ids=[row[0] for row in TROUBLE])
def test_every_outcome_of_a_lookup_is_told_apart(tmp_path, name_server, path, outcome, behaviour):
    name_server.zones["zen.example"] = behaviour
    text = policy(name_server.text, path, actions=TIERS, lists=LISTS).replace("deadline = 10", "deadline = 0.4, retry = 0.2")
    with Service(tmp_path, text) as service:
        with Session(path, "192.0.2.9") as session:
            assert session.recipient() in (ACCEPT, 451)
        wait_until(
            lambda: service.metrics()["dnsbl_lookups_total", (("list", "zen"), ("outcome", outcome))] == 1, 5, "it counts"
        )
        found = {dict(labels)["outcome"] for (name, labels), value in service.metrics().items()
                 if name == "dnsbl_lookups_total" and dict(labels)["list"] == "zen" and value}  # fmt: skip
        assert found == {outcome}


# --- that it does not grow


def test_files_are_bounded_by_the_processes_that_live_together(tmp_path, name_server, path):
    """Fifty reloads and fifty deaths: as many files as processes ever lived at once, and no count lost."""
    peak = sessions = 0
    with Service(tmp_path, policy(name_server.text, path, actions=TIERS, lists=LISTS)) as service:

        def live():
            return len(children(service.process.pid))

        (folder,) = service.runtime.iterdir()
        for _ in range(50):
            service.reload_and_wait()
            peak = max(peak, live())
            with Session(path, "192.0.2.1") as session:
                assert session.recipient() == ACCEPT
            sessions += 1
            assert service.metrics()["dnsbl_connections_total", ()] == sessions
            dead = len(service.events("worker died"))
            os.kill(serving(service), signal.SIGKILL)
            service.wait_until(lambda n=dead: len(service.events("worker died")) > n, "a worker has died")
            service.wait_until(lambda: service.health()[1]["workers"]["serving"] == 2, "it is replaced")
        service.wait_until(lambda: service.health()[1]["workers"] == {"serving": 2, "draining": 0}, "all is calm", 40)
        assert service.metrics()["dnsbl_worker_restarts_total", ()] == 50
        assert service.metrics()["dnsbl_connections_total", ()] == sessions
        numbers = {int(re.search(r"_(\d+)\.db$", file.name)[1]) for file in folder.glob("*.db")}
        # One more than lived when we looked may have lived just before.
        assert len(numbers) <= peak + 2
        assert max(numbers) <= peak + 2
        assert peak < 30
        assert len(list(folder.iterdir())) <= 2 * len(numbers) + 1


def serving(service):
    """Return a worker of the generation that serves: the youngest of all."""
    return max((age, pid) for pid in service.workers() if (age := started(pid)))[1]


def started(pid):
    """Return when a process was started, in the kernel's ticks; 0 if it has just ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().split()[21])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def test_no_worker_serves(tmp_path, name_server, path):
    with Service(tmp_path, policy(name_server.text, path, workers=1)) as service:
        deaths = 0
        # Each death doubles the time until the next try.
        while not service.events("worker died") or float(service.events("worker died")[-1]["restart_in"]) < 1:
            service.wait_until(lambda: len(service.workers()) == 1, "there is a worker")
            os.kill(service.workers()[0], signal.SIGKILL)
            deaths += 1
            service.wait_until(lambda n=deaths: len(service.events("worker died")) == n, "it has died")
        status, said = service.health()
        assert (status, said["status"]) == (503, "no worker serves")
        assert service.metrics()["dnsbl_workers", (("state", "serving"),)] == 0
        service.wait_until(lambda: service.health()[0] == 200, "a worker serves again")
        assert service.metrics()["dnsbl_worker_restarts_total", ()] == deaths


# --- that it names nobody


HOSTILE = ['a"b', "a\nb", "a\\b", "a{b}", "a b", "a=b", "<b>", "a,b", "é", "", "-", "a" * 65, "%s", "*"]


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_hostile_name_of_a_list_is_refused(tmp_path, name_server, path, name):
    written = re.sub(r'name = "one"', lambda _: f"name = {toml(name)}", policy(name_server.text, path))
    file = tmp_path / "hostile.toml"
    file.write_text(written.replace("{web}", "127.0.0.1:1"))
    done = command("config", "check", "--config", file)
    assert done.returncode == 2
    assert "list[0].name" in done.stderr
    assert all(character.isprintable() or character == "\n" for character in done.stderr)


def toml(text):
    """Write any text as TOML does."""
    return '"' + "".join(c if c.isalnum() else f"\\u{ord(c):04x}" for c in text) + '"'


def test_every_character_that_a_name_may_have_is_safe(tmp_path, name_server, path):
    name = "A9._+/-z"
    text = policy(name_server.text, path).replace('name = "one"', f'name = "{name}"')
    name_server.zones["one.example"] = {"192.0.2.1": listed("127.0.0.2")}
    with Service(tmp_path, text) as service:
        with Session(path, "192.0.2.1") as session:
            assert session.recipient() == 451
            assert f"listed by {name}" in session.text
        assert service.metrics()["dnsbl_drops_total", (("action", "defer"), ("list", name))] == 1
        assert name in service.page("/")[2]


KEY = "q7vd3kxz2mneoa5w"  # what a subscriber's own zone holds
CLIENT6 = "2001:db8::bad"


def everything(service):
    """Return all that a run has shown or written, by where; the configuration and the key's own file left out."""
    shown = {path: service.page(path)[2] for path in ("/metrics", "/", "/healthz")}
    shown["openmetrics"] = service.page(accept="application/openmetrics-text")[2]
    for words in (("config", "show"), ("config", "show", "--json"), ("config", "check"), ("explain", "192.0.2.1"),
                  ("explain", "192.0.2.1", "--json"), ("explain", "192.0.2.3"), ("lists",), ("lists", "--json"), ("doctor",), ("doctor", "--json")):  # fmt: skip
        done = command(*words, "--config", service.configuration)
        shown[" ".join(words)] = done.stdout + done.stderr
    for file in service.folder.rglob("*"):
        if file.is_file() and file.name not in ("key", service.configuration.name):
            shown[str(file)] = file.read_bytes().decode("latin-1")
    return shown


KEYED = [
    ("in a file", '{ name = "paid", zone = "{key}.zen.example", key_file = "KEY_FILE", weight = 4 }', "zen.example"),
    ("in the zone", f'{{ zone = "{KEY}.zen.dq.spamhaus.net" }}', "zen.dq.spamhaus.net"),
]


@pytest.mark.parametrize(("entry", "zone"), [row[1:] for row in KEYED], ids=[row[0] for row in KEYED])
def test_a_key_is_shown_nowhere(tmp_path, name_server, path, entry, zone):
    (tmp_path / "key").write_text(f"{KEY}\n")
    zone = f"{KEY}.{zone}"
    name_server.zones[zone] = {
        "192.0.2.1": listed("127.0.0.2"),
        "192.0.2.2": failure(SERVFAIL),
        "192.0.2.3": listed("127.255.255.254"),
        "192.0.2.4": SILENCE,
        "192.0.2.5": listed("127.0.0.2", truncated=True),
        "192.0.2.6": listed("198.51.100.1"),
    }
    entry = entry.replace("KEY_FILE", str(tmp_path / "key"))
    text = policy(name_server.text, path, actions="{ tag = 1, defer = 3 }", lists=f"[{entry}]").replace(
        "deadline = 10", "deadline = 0.4, retry = 0.2"
    )
    told = []
    with Service(tmp_path, text.replace("milter =", 'log.level = "debug"\nmilter =')) as service:
        for last in range(1, 7):
            with Session(path, f"192.0.2.{last}") as session:
                session.recipient()
                told.append(session.text)
        assert "listed by" in told[0]
        assert any(question.zone == zone for question in name_server.questions), "the key was not used at all"
        # A reload that changes the key, and one that is refused.
        (tmp_path / "key").write_text(f"{KEY}x\n")
        service.reload_and_wait()
        (tmp_path / "key").write_text(f"{KEY} and more\n")
        service.write(text + '\nlist = 3\n[[list]]\nzone = "' + KEY + '.zen.dq.spamhaus.net"\nweight = "x"\n')
        service.reload_and_wait()
        service.write(text.replace("tag = 1, defer = 3", "tag = 1"))
        (tmp_path / "key").write_text(f"{KEY}\n")
        service.reload_and_wait()
        with Session(path, "192.0.2.1") as session:
            assert session.recipient() == ACCEPT
            told.append(str(session.message(("Subject", "hello"))))
        assert "X-DNSBL-Action" in told[-1]
        shown = everything(service) | {"replies": "\n".join(told)}
        assert len(shown) > 12
        assert [where for where, what in shown.items() if KEY in what.lower()] == []
        assert service.stop() == 0
        assert KEY not in service.log()
        # What was searched is what was written: the client is in the log, and the list's name in the metrics.
        assert "client=192.0.2.1" in service.log()
        assert 'list="' in shown["/metrics"]


def test_no_label_holds_a_client(tmp_path, name_server, path):
    text = policy(name_server.text, path, actions=TIERS, lists=LISTS.replace('"spamcop.example"', '"spamcop.example", ipv6 = true'))
    name_server.zones["spamcop.example"] = listed("127.0.0.2")
    with Service(tmp_path, text) as service:
        for client in ("192.0.2.77", CLIENT6):
            with Session(path, client) as session:
                session.recipient("someone@acme123.com", "other@sender.example")
        status = service.page("/")[2]
        values = {value for _, labels in service.metrics() for _, value in labels}
        for text in (*values, status):
            assert "192.0.2" not in text
            assert "2001:db8" not in text
            assert "someone@" not in text
            assert "acme123" not in text
            assert "sender.example" not in text


def test_every_metric_is_declared_in_one_module():
    """And nobody else makes names that begin with ours: but for the gauges that the monitor fills in."""
    found = set()
    for file in (ROOT / "milter" / "dnsbl_milter").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
            if text.startswith("dnsbl_") and not text.startswith(("dnsbl_milter", "dnsbl_policy")):
                found.add(file.name)
    assert found == {"metrics.py"}
