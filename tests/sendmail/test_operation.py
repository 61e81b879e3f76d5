"""A day in production on a real Sendmail: reloads under open sessions, a worker that dies, and counters that stay true."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mailhost.policies import sample_policy
from mailhost.process import wait_until
from mailhost.sendmail import PASSWORD, USER
from mailhost.site import MESSAGE, RECIPIENT, SENDER, Site
from mailhost.smtp import Client

OpenSite = Callable[..., Site]

WEB = "127.0.0.1:10783"
ACTIONS = ("accept", "tag", "defer", "quarantine", "reject", "discard")
# In the sample policy: 0, 3 (zen), 4 (spamcop), 7 (zen, spamcop), 9 (zen, spamcop), 12.5 (all three), 22.5 (everything)
CLEAN, WEAK, TAGGED, DEFERRED = "198.51.100.7", "198.51.100.10", "198.51.100.11", "198.51.100.20"
QUARANTINED, REJECTED, DISCARDED = "198.51.100.21", "198.51.100.25", "198.51.100.26"
HOUSE, FRIEND = "192.168.0.9", "198.51.100.50"


def policy(**actions: float) -> str:
    return sample_policy(metrics={"listen": WEB}, actions=actions)


@pytest.fixture
def site(open_site: OpenSite) -> Site:
    """A daemon of its own, for it will not be as it was."""
    return open_site(policy(), fresh=True)


def metrics() -> dict[tuple[str, tuple[str, ...]], float]:
    """Return every sample by its name without prefix and its label values in the order of the labels' names."""
    with urlopen(f"http://{WEB}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name.removeprefix("dnsbl_"), tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def reload(site: Site, text: str) -> None:
    """Write a configuration, ask for a reload, and return once it has been done or refused."""

    def outcomes() -> int:
        return sum(event["event"] in ("reloaded", "reload refused") for event in site.events())

    before = outcomes()
    site.daemon.configuration.write_text(text)
    site.daemon.process.hang_up()
    wait_until(lambda: outcomes() > before, 20, "the reload has ended")


def begin(site: Site, source: str, recipient: str = RECIPIENT) -> Client:
    """Open a session and go as far as MAIL."""
    client = site.connect(source)
    client.ehlo()
    assert client.mail(SENDER).positive
    return client


def test_sighup_during_fifty_open_sessions(site: Site) -> None:
    earlier = len(site.host.log())  # other tests kill milters on this host, and Sendmail says so
    clients = [begin(site, TAGGED) for _ in range(50)]
    early, late = clients[::2], clients[1::2]
    assert {client.rcpt(RECIPIENT).code for client in early} == {250}
    reload(site, policy(reject=4.0, tag=1.0, defer=2.0, quarantine=3.0))
    # New ones get the new policy, while fifty know the old one.
    assert site.send(TAGGED).last.code == 550
    assert {client.rcpt(RECIPIENT).code for client in late} == {250}
    for client in clients:
        assert client.data().code == 354
        assert client.message(MESSAGE).code == 250
        assert client.quit().code == 221
    delivered = site.host.messages("alice")
    assert [message["X-DNSBL-Action"] for message in delivered] == ["tag"] * 50
    wait_until(lambda: metrics()["workers", ("draining",)] == 0, 20, "the old workers have left")
    assert metrics()["workers", ("serving",)] == 2
    assert metrics()["callback_errors_total", ("envrcpt",)] == 0
    assert not [line for line in site.host.log()[earlier:] if "Milter (dnsbl-milter): error" in line or "to error state" in line]


def test_sighup_with_a_broken_file(site: Site) -> None:
    site.excused.add("reload refused")
    client = begin(site, REJECTED)
    reload(site, policy().replace("[actions]", "[actions]\nrejct = 1"))
    (refused,) = [event for event in site.events() if event["event"] == "reload refused"]
    assert "actions.rejct" in str(refused["fault"])
    assert metrics()["config_last_reload_successful", ()] == 0
    assert client.rcpt(RECIPIENT).code == 550
    assert site.send(REJECTED).last.code == 550
    reload(site, policy())
    assert metrics()["config_last_reload_successful", ()] == 1


def test_ten_sighups_in_two_seconds(site: Site) -> None:
    stopped = threading.Event()

    def send() -> Counter[int]:
        seen: Counter[int] = Counter()
        while not stopped.is_set():
            seen[site.send(REJECTED).last.code] += 1
        return seen

    with ThreadPoolExecutor(2) as pool:
        senders = [pool.submit(send) for _ in range(2)]
        try:
            for number in range(10):
                ticks = threading.Event()
                ticks.wait(0.2)  # the pace of what is tested, and not the wait for anything
                site.daemon.configuration.write_text(policy(reject=12.0 + number / 100))
                site.daemon.process.hang_up()
            wait_until(lambda: any("12.09" in str(event) for event in site.events()), 20, "the last is in force")
        finally:
            stopped.set()
        seen = sum((each.result() for each in senders), Counter[int]())
    assert set(seen) == {550}
    wait_until(lambda: metrics()["workers", ("draining",)] == 0, 20, "the old workers have left")
    assert metrics()["recipients_total", ("reject",)] == seen[550]
    assert len(site.daemon.workers()) == 3  # with the monitor


# --- counted exactly


@dataclass(frozen=True)
class Seen:
    """What one SMTP client was told, and what has become of its message."""

    source: str
    recipient: str
    rcpt: int
    message: int | None


MIX = (CLEAN, WEAK, TAGGED, DEFERRED, QUARANTINED, REJECTED, DISCARDED, HOUSE, FRIEND, "authenticated", "postmaster")
SESSIONS = 500
HELD = 8


def play(number: int) -> Seen:
    kind = MIX[number % len(MIX)]
    source = REJECTED if kind in ("authenticated", "postmaster") else kind
    recipient = "postmaster@acme123.com" if kind == "postmaster" else f"u{number}@acme123.com"
    with Client(source) as client:
        outcome = client.send_message(
            SENDER, recipient, MESSAGE, auth=(USER, PASSWORD) if kind == "authenticated" else None
        )
    return Seen(kind, recipient, outcome.recipients[recipient].code, outcome.message.code if outcome.message else None)


def test_the_counters_are_what_the_clients_saw(site: Site) -> None:
    site.excused.add("worker died")
    third = (SESSIONS - HELD) // 3
    with ThreadPoolExecutor(8) as pool:
        first = [pool.submit(play, number) for number in range(third * 2)]
        wait_until(lambda: sum(each.done() for each in first) > third, 120, "a third is done")
        # In the middle of the run: who scores 3 is tagged before, and accepted after.
        reload(site, policy(tag=3.5))
        seen = [each.result() for each in first]
        # A worker dies that has sessions: their recipients were answered, and the rest of them it will not know.
        held = {f"h{number}@acme123.com": begin(site, TAGGED) for number in range(HELD)}
        assert {client.rcpt(recipient).code for recipient, client in held.items()} == {250}
        wait_until(lambda: len(site.daemon.sessions()) == 3, 20, "one generation is left")
        victim, lost = max(site.daemon.sessions().items(), key=lambda each: each[1])
        assert lost > 0
        os.kill(victim, signal.SIGKILL)
        for client in held.values():
            assert client.data().code == 354
            assert client.message(MESSAGE).code == 250
            client.quit()
        wait_until(lambda: metrics()["workers", ("serving",)] == 2, 20, "the worker is replaced")
        seen += pool.map(play, range(third * 2, SESSIONS - HELD))
    site.hang_up()
    site.daemon.wait_until_idle()
    held_actions = [site.host.messages(recipient)[0]["X-DNSBL-Action"] for recipient in held]
    assert held_actions.count(None) == lost

    quarantined = {recipient for entry in site.host.quarantined() for recipient in entry.recipients}

    def fate(one: Seen) -> str:
        """Say what was done, by what can be seen from outside."""
        if one.rcpt != 250:
            return {451: "defer", 550: "reject"}[one.rcpt]
        if one.recipient in quarantined:
            return "quarantine"
        messages = site.host.messages(one.recipient)
        return str(messages[0]["X-DNSBL-Action"] or "accept") if messages else "discard"

    exempt = {HOUSE: "network", FRIEND: "host", "authenticated": "authenticated", "postmaster": "recipient"}
    fates = Counter(fate(one) for one in seen if one.source not in exempt)
    passed = Counter(exempt[one.source] for one in seen if one.source in exempt)
    assert all(one.message == 250 for one in seen if one.source in exempt)
    counts = metrics()
    assert counts["connections_total", ()] == SESSIONS
    assert {reason: counts["exempt_total", (reason,)] for reason in set(exempt.values())} == passed
    # What goes to postmaster is a recipient too, who is accepted.
    recipients = fates + Counter(tag=HELD, accept=passed["recipient"])
    assert {name: counts["recipients_total", (name,)] for name in ACTIONS} == {name: recipients[name] for name in ACTIONS}
    assert fates.keys() == set(ACTIONS), "the run was not mixed"
    messages = fates + Counter(tag=HELD - lost, accept=passed["recipient"]) - Counter(
        defer=fates["defer"], reject=fates["reject"]
    )
    assert {name: counts["messages_total", (name,)] for name in ACTIONS} == {name: messages[name] for name in ACTIONS}
    assert counts["worker_restarts_total", ()] == 1
    drops = {
        (action, name): counts["drops_total", (action, name)]
        for action in ("defer", "quarantine", "reject", "discard")
        for name in ("zen", "spamcop", "psbl")
    }
    assert drops == {
        **{("defer", name): fates["defer"] for name in ("zen", "spamcop")},
        **{("quarantine", name): fates["quarantine"] for name in ("zen", "spamcop")},
        **{(action, name): fates[action] for action in ("reject", "discard") for name in ("zen", "spamcop", "psbl")},
        ("defer", "psbl"): 0,
        ("quarantine", "psbl"): 0,
    }
    decisions = Counter(str(event["enforced"]) for event in site.decisions() if not event["exempt"])
    assert decisions == fates + Counter(tag=HELD)
