"""Lists and resolvers that fail: nobody's mail is lost by it, and nobody waits for long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from mailhost.clients import SAMPLE_CLIENTS
from mailhost.lists import ListServer, Zone
from mailhost.policies import SAMPLE_LISTS, sample_policy
from mailhost.process import wait_until
from mailhost.resolver import Resolver
from mailhost.site import ARRIVING, MESSAGE, RECIPIENT, SENDER, Site
from mailhost.smtp import Client

OpenSite = Callable[..., Site]

FOLDER = Path("/run/mailhost")
CLEAN, LISTED, DEFERRED, QUARANTINED = "198.51.100.7", "198.51.100.12", "198.51.100.20", "198.51.100.21"
REJECTED, DISCARDED = "198.51.100.25", "198.51.100.26"
NEW = [f"203.0.113.{number}" for number in range(100, 250)]  # clients that no list but slow ever holds
DEADLINE = 0.6
# A list that may make a client's mail tagged, and so is worth waiting for.
SLOW = {"name": "slow", "zone": "slow.example", "weight": 4}
# Answered by nobody: the list server refuses what it does not serve.
ABSENT = {"name": "absent", "zone": "absent.example"}
SOFT = {"codes": [{"match": "127.0.0.[1..3]", "weight": -2}]}
STRONG = {"codes": [{"match": "127.0.0.[1..3]", "weight": -10}, {"match": "127.0.0.3", "weight": -3}]}


@pytest.fixture(scope="module")
def slow() -> Iterator[ListServer]:
    """Serve a list that may be made to fall silent."""
    listed = (f"{NEW[-1]} :127.0.0.2:listed",)
    zones = (Zone("slow.example", "ip4set", listed), Zone("slow-dnswl.example", "ip4set"))
    server = ListServer(FOLDER / "slow", zones, "127.0.0.3")
    yield server
    server.stop()


@pytest.fixture
def unbound(lists: ListServer, slow: ListServer) -> Iterator[Resolver]:
    """Run a resolver of the milter's own; Sendmail has another."""
    server = Resolver(FOLDER / "resolver-of-milter", [lists, slow], address="127.0.0.4", max_ttl=0, max_negative_ttl=0)
    yield server
    server.stop()


def policy(
    lists: Sequence[dict[str, object]], nameservers: Sequence[str] = ("127.0.0.4",), **actions: float | None
) -> str:
    # One worker, for each has its own experience with a list.
    dns = {"nameservers": nameservers, "deadline": DEADLINE, "retry": 0.2}
    return sample_policy([*SAMPLE_LISTS, *lists], milter={"workers": 1}, dns=dns, actions=actions)


def ask(site: Site, source: str) -> tuple[dict[str, object], float]:
    """Send a message; return the decision about it and the seconds that its recipient took."""
    before = len(site.decisions())
    with Client(source) as client:
        client.ehlo()
        client.mail(SENDER)
        start = time.monotonic()
        reply = client.rcpt(RECIPIENT)
        took = time.monotonic() - start
        if reply.positive:
            client.data()
            assert client.message(MESSAGE).positive
    site.daemon.wait_until_idle()  # what became of the questions counts from the end of the session on
    (decision,) = site.decisions()[before:]
    return decision, took


def waited(decision: dict[str, object]) -> float:
    """Return the seconds that the milter says it waited."""
    return float(str(decision["wait_ms"])) / 1000


def unknown(decision: dict[str, object]) -> dict[str, str]:
    """Return the lists that said nothing, each with the reason."""
    return dict(each.split(":") for each in str(decision["unknown"]).split(",") if each)


def test_a_silent_list_delays_three_clients_and_is_back_when_it_answers(
    open_site: OpenSite, slow: ListServer, unbound: Resolver
) -> None:
    site = open_site(policy([SLOW]), fresh=True)
    decision, _ = ask(site, NEW[0])
    assert unknown(decision) == {"refusing": "blocked"}

    slow.pause()
    try:
        for source in NEW[1:4]:
            decision, took = ask(site, source)
            assert unknown(decision) == {"refusing": "blocked", "slow": "timeout"}
            assert DEADLINE - 0.2 < waited(decision) < DEADLINE + 0.4
            assert DEADLINE - 0.2 < took < DEADLINE + 0.6
            assert (decision["action"], decision["score"]) == ("accept", "0")
            # The same client does not wait for the same list again.
            decision, took = ask(site, source)
            assert (unknown(decision)["slow"], decision["cached"]) == ("timeout", "yes")
            assert took < DEADLINE / 2
        for source in NEW[4:9]:
            decision, took = ask(site, source)
            assert unknown(decision) == {"refusing": "blocked", "slow": "left-alone"}
            assert took < DEADLINE / 2
            assert waited(decision) < DEADLINE / 2
        # What the others say counts meanwhile.
        decision, _ = ask(site, LISTED)
        assert (decision["enforced"], decision["score"]) == ("tag", "5")
        assert len(site.received()) == 3 * 2 + 5 + 1 + 1
    finally:
        slow.resume()

    fresh = iter(NEW[9:-1])
    wait_until(lambda: "slow" not in unknown(ask(site, next(fresh))[0]), 15, "the list counts again")
    decision, _ = ask(site, NEW[-1])
    assert (decision["enforced"], decision["lists"]) == ("tag", "slow:127.0.0.2:4")
    assert unknown(decision) == {"refusing": "blocked"}


def test_clients_that_come_at_once_wait_once(open_site: OpenSite, slow: ListServer, unbound: Resolver) -> None:
    site = open_site(policy([SLOW]), fresh=True)
    slow.pause()
    try:
        clients = [site.connect(source) for source in NEW[:20]]
        start = time.monotonic()
        for client in clients:
            client.ehlo()
            client.mail(SENDER)
            client.send(f"RCPT TO:<{RECIPIENT}>")
        assert [client.read_reply().code for client in clients] == [250] * 20
        took = time.monotonic() - start
    finally:
        slow.resume()
    assert took < 2 * DEADLINE + 0.5  # and not twenty times
    assert [decision["enforced"] for decision in site.decisions()] == ["accept"] * 20


def test_nobody_waits_for_a_list_that_cannot_matter(open_site: OpenSite, slow: ListServer, unbound: Resolver) -> None:
    site = open_site(policy([SLOW | {"weight": 2.5}]), fresh=True)
    slow.pause()
    try:
        # 0 or 2.5 is accepted, 5 or 7.5 is two actions, 8 and 10.5 are one.
        for source, action, waits in (
            (CLEAN, "accept", False),
            (LISTED, "tag", True),
            ("198.51.100.16", "quarantine", False),
        ):
            decision, took = ask(site, source)
            assert decision["action"] == action
            assert (took > DEADLINE - 0.2) is waits
            assert unknown(decision)["slow"] == ("timeout" if waits else "pending")
    finally:
        slow.resume()


def test_a_client_that_leaves_while_it_waits_leaves_nothing_behind(
    open_site: OpenSite, slow: ListServer, unbound: Resolver
) -> None:
    site = open_site(policy([SLOW]), fresh=True)
    ask(site, CLEAN)
    before = site.daemon.descriptors()
    slow.pause()
    try:
        for source in NEW[:10]:
            client = site.connect(source)
            client.ehlo()
            client.mail(SENDER)
            client.send(f"RCPT TO:<{RECIPIENT}>")
            client.close()
        site.daemon.wait_until_idle()
        assert site.daemon.descriptors() == before
    finally:
        slow.resume()


# label, allow-list, thresholds changed, source, score, low, action
SOFTENED = (
    ("reject", STRONG, {}, REJECTED, "12.5", "-0.5", "defer"),
    ("quarantine", STRONG, {}, QUARANTINED, "9", "-4", "defer"),
    # 8.5 is enough to hold what would be discarded.
    ("discard as far as it carries", STRONG, {}, DISCARDED, "21.5", "8.5", "quarantine"),
    ("reject as far as it carries", SOFT, {}, REJECTED, "12.5", "10.5", "quarantine"),
    ("quarantine, carried", SOFT, {}, "198.51.100.17", "10", "8", "quarantine"),
    ("reject without a threshold for defer", STRONG, {"defer": None}, REJECTED, "12.5", "-0.5", "defer"),
    ("quarantine without a threshold for defer", STRONG, {"defer": None}, QUARANTINED, "9", "-4", "defer"),
    ("defer as it is", STRONG, {}, DEFERRED, "7", "-6", "defer"),
    ("tag as it is", STRONG, {}, LISTED, "5", "-8", "tag"),
    ("accept as it is", STRONG, {}, CLEAN, "0", "-13", "accept"),
)


@pytest.mark.parametrize(
    ("dnswl", "changes", "source", "score", "low", "action"),
    [row[1:] for row in SOFTENED],
    ids=[row[0] for row in SOFTENED],
)
def test_without_an_allow_list_nobody_loses_mail(
    open_site: OpenSite,
    dnswl: dict[str, object],
    changes: dict[str, float | None],
    source: str,
    score: str,
    low: str,
    action: str,
) -> None:
    site = open_site(policy([ABSENT | dnswl], ["127.0.0.2"], **changes))
    outcome = site.send(source)
    told = outcome.recipients[RECIPIENT]
    (decision,) = site.decisions()
    assert (decision["action"], decision["enforced"]) == (action, action)
    assert (decision["score"], decision["low"]) == (score, low)
    assert set(unknown(decision)) == {"refusing", "absent"}
    assert (told.code, told.text[:5]) == ((451, "4.7.1") if action == "defer" else (250, "2.1.5"))
    if action == "defer":
        # Who is listed is told where, softened or not.
        first = {REJECTED: "zen", QUARANTINED: "zen", DEFERRED: "spamcop"}[source]
        assert f"listed by {first}, " in told.text
    assert len(site.received()) == (action in ("accept", "tag"))
    assert [entry.reason for entry in site.host.quarantined()] == (
        [f"dnsbl-milter score={score} lists={'zen,spamcop,psbl' if score != '10' else 'zen'}"]
        * (action == "quarantine")
    )


def test_a_softened_client_gets_what_it_deserves_once_the_allow_list_answers(
    open_site: OpenSite, slow: ListServer, unbound: Resolver
) -> None:
    site = open_site(
        policy([{"name": "slow-dnswl", "zone": "slow-dnswl.example"} | STRONG]) + "[cache]\nerror_ttl = 1\n", fresh=True
    )
    slow.pause()
    try:
        decision, took = ask(site, REJECTED)
        assert (decision["enforced"], unknown(decision)["slow-dnswl"]) == ("defer", "timeout")
        assert took > DEADLINE - 0.2
    finally:
        slow.resume()
    wait_until(lambda: ask(site, REJECTED)[0]["enforced"] == "reject", 15, "the client is rejected")


# label, nameservers that do not answer: one where nobody listens, and one that is silent
GONE = (("closed", ["127.0.0.9"]), ("two closed", ["127.0.0.9", "127.0.0.10#5353"]), ("closed, IPv6", ["::1#5399"]))


@pytest.mark.parametrize("nameservers", [row[1] for row in GONE], ids=[row[0] for row in GONE])
def test_mail_flows_at_once_while_nobody_resolves(open_site: OpenSite, nameservers: list[str]) -> None:
    site = open_site(policy([], nameservers), fresh=True)
    for source in (CLEAN, LISTED, DEFERRED, QUARANTINED, REJECTED, DISCARDED, "2001:db8::10"):
        decision, took = ask(site, source)
        assert (decision["enforced"], decision["score"], decision["lists"]) == ("accept", "0", "")
        assert set(unknown(decision)) == (
            {"v6"} if ":" in source else {"refusing", "empty", "dnswl", "psbl", "spamcop", "zen"}
        )
        assert took < DEADLINE / 2
    assert site.delivered() == [(ARRIVING, [])] * 7


def test_mail_flows_while_the_resolver_is_silent(open_site: OpenSite, unbound: Resolver) -> None:
    site = open_site(policy([]), fresh=True)
    unbound.pause()
    try:
        times = []
        for source in (QUARANTINED, REJECTED, DISCARDED, DEFERRED, LISTED, "198.51.100.22"):
            decision, took = ask(site, source)
            assert (decision["enforced"], decision["score"]) == ("accept", "0")
            times.append(took)
    finally:
        unbound.resume()
    assert all(took < DEADLINE + 0.6 for took in times[:3])
    assert all(took < DEADLINE / 2 for took in times[3:])
    assert site.delivered() == [(ARRIVING, [])] * 6
    others = iter(client.address for client in SAMPLE_CLIENTS if client.address.startswith("198.51.100.2"))
    wait_until(lambda: not set(unknown(ask(site, next(others))[0])) - {"refusing"}, 15, "lists count again")
    decision, _ = ask(site, "198.51.100.17")
    assert (decision["enforced"], decision["lists"]) == ("quarantine", "zen:SBL:5,zen:XBL:5")


@pytest.mark.parametrize("gone", ["silent", "closed"])
def test_the_next_nameserver_answers_for_one_that_does_not(open_site: OpenSite, unbound: Resolver, gone: str) -> None:
    site = open_site(policy([], ["127.0.0.4" if gone == "silent" else "127.0.0.9", "127.0.0.2"]), fresh=True)
    unbound.pause()
    try:
        for source, action in ((REJECTED, "reject"), (LISTED, "tag"), (QUARANTINED, "quarantine")):
            decision, took = ask(site, source)
            assert (decision["enforced"], unknown(decision)) == (action, {"refusing": "blocked"})
            assert took < DEADLINE
    finally:
        unbound.resume()


def test_mail_flows_while_neither_has_a_resolver(open_site: OpenSite, resolver: Resolver) -> None:
    site = open_site(policy([], ["127.0.0.1"]), fresh=True)
    resolver.pause()
    try:
        for source in (REJECTED, CLEAN):
            decision, _ = ask(site, source)
            # Sendmail could not tell the client's name, and does not call it verified.
            assert (decision["enforced"], decision["host"]) == ("accept", f"[{source}]")
        # A friend is known by name, and has none now: it is looked up, and accepted for lack of evidence.
        decision, _ = ask(site, "198.51.100.50")
        assert (decision["enforced"], decision["exempt"]) == ("accept", "")
    finally:
        resolver.resume()
    assert site.delivered() == [(ARRIVING, [])] * 3
