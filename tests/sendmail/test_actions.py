"""Every action: what the client is told, what becomes of the message, and what the log says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from mailhost.clients import SAMPLE_CLIENTS
from mailhost.lists import ListServer, Zone
from mailhost.policies import SAMPLE_LISTS, sample_policy
from mailhost.site import ARRIVING, FORGED, FORGING, MESSAGE, RECIPIENT, SENDER, Site
from mailhost.smtp import Client, Reply, send_message

OpenSite = Callable[..., Site]

NAMES = {client.address: client for client in SAMPLE_CLIENTS}
# Sendmail's :: takes IPv4 clients too, in IPv6 dress; on port 25 it would be in the way of 0.0.0.0.
BOTH_FAMILIES = "DAEMON_OPTIONS(`Family=inet6, Name=MTA-both, Addr=::, Port=2525, Listen=128')dnl"


@dataclass(frozen=True)
class Case:
    """One client: what the address plan and the sample policy's weights make of it."""

    source: str
    action: str
    score: str
    parts: str = ""  # of the score, as the header has them
    accusers: str = ""  # strongest first, then the way the tables of lists are ordered
    url: str = ""  # where to look up the first of them
    decisive: str = ""

    @property
    def listed(self) -> str:
        """The parts as the log has them: a code where there is no label."""
        parts = (part.replace("+", "").split("=") for part in self.parts.split())
        return ",".join(f"{name}:{rest if ':' in rest else f'127.0.0.2:{rest}'}" for name, rest in parts)


# tag 3, defer 6, quarantine 8, reject 12, discard 16
# psbl +3.5, spamcop +4, zen SBL +5, CSS +4, XBL +5, PBL +3 and at most 14; dnswl low -1, medium -4, high -10; v6 +6.5
CASES = (
    Case("198.51.100.7", "accept", "0"),
    Case("198.51.100.10", "tag", "3", "zen=PBL:+3", decisive="zen"),
    Case("198.51.100.11", "tag", "4", "spamcop=+4", decisive="spamcop"),
    Case("198.51.100.12", "tag", "5", "zen=SBL:+5", decisive="zen"),
    Case("198.51.100.13", "tag", "4", "zen=CSS:+4", decisive="zen"),
    Case("198.51.100.14", "tag", "5", "zen=XBL:+5", decisive="zen"),
    Case("198.51.100.15", "tag", "3.5", "psbl=+3.5", decisive="psbl"),
    Case("198.51.100.16", "quarantine", "8", "zen=XBL:+5 zen=PBL:+3", "zen", decisive="zen"),
    Case("198.51.100.17", "quarantine", "10", "zen=SBL:+5 zen=XBL:+5", "zen", decisive="zen"),
    # 17, which would be discarded, but for the group's cap of 14
    Case(
        "198.51.100.18",
        "reject",
        "14",
        "zen=SBL:+5 zen=CSS:+4 zen=XBL:+5 zen=PBL:+3",
        "zen",
        "https://zen.example/query/198.51.100.18",
        decisive="zen",
    ),
    Case(
        "198.51.100.20",
        "defer",
        "7",
        "spamcop=+4 zen=PBL:+3",
        "spamcop, zen",
        "https://spamcop.example/bl?198.51.100.20",
        decisive="spamcop,zen",
    ),
    Case("198.51.100.21", "quarantine", "9", "spamcop=+4 zen=SBL:+5", "zen, spamcop", decisive="spamcop,zen"),
    Case("198.51.100.22", "quarantine", "9", "spamcop=+4 zen=XBL:+5", "zen, spamcop", decisive="spamcop,zen"),
    Case(
        "198.51.100.23",
        "defer",
        "7.5",
        "psbl=+3.5 spamcop=+4",
        "spamcop, psbl",
        "https://spamcop.example/bl?198.51.100.23",
        decisive="psbl,spamcop",
    ),
    Case(
        "198.51.100.24",
        "quarantine",
        "10.5",
        "psbl=+3.5 spamcop=+4 zen=PBL:+3",
        "spamcop, psbl, zen",
        decisive="psbl,spamcop,zen",
    ),
    Case(
        "198.51.100.25",
        "reject",
        "12.5",
        "psbl=+3.5 spamcop=+4 zen=SBL:+5",
        "zen, spamcop, psbl",
        "https://zen.example/query/198.51.100.25",
        decisive="psbl,spamcop,zen",
    ),
    Case(
        "198.51.100.26",
        "discard",
        "21.5",
        "psbl=+3.5 spamcop=+4 zen=SBL:+5 zen=CSS:+4 zen=XBL:+5 zen=PBL:+3",
        "zen, spamcop, psbl",
        decisive="zen",
    ),
    Case("198.51.100.30", "accept", "0"),
    Case("198.51.100.31", "accept", "-1", "dnswl=low:-1"),
    Case("198.51.100.34", "tag", "3", "zen=PBL:+3", decisive="zen"),
    Case("198.51.100.35", "accept", "2", "dnswl=low:-1 zen=PBL:+3"),
    Case("198.51.100.36", "accept", "0", "dnswl=medium:-4 spamcop=+4"),
    Case("198.51.100.37", "accept", "-1", "dnswl=high:-10 spamcop=+4 zen=SBL:+5"),
    Case("198.51.100.38", "accept", "2.5", "dnswl=high:-10 psbl=+3.5 spamcop=+4 zen=SBL:+5"),
    # It calls itself by a friend's name, which does not lead back to it.
    Case("198.51.100.40", "quarantine", "9", "spamcop=+4 zen=SBL:+5", "zen, spamcop", decisive="spamcop,zen"),
    Case("198.51.100.41", "accept", "0"),
    Case("198.51.100.42", "accept", "0"),
    Case(
        "198.51.100.43",
        "defer",
        "7",
        "spamcop=+4 zen=PBL:+3",
        "spamcop, zen",
        "https://spamcop.example/bl?198.51.100.43",
        decisive="spamcop,zen",
    ),
    # The rest of 127/8 is not the host itself. The test entry: 127.0.10.0 speaks for nobody.
    Case(
        "127.0.0.2",
        "reject",
        "12.5",
        "psbl=+3.5 spamcop=+4 zen=SBL:+5",
        "zen, spamcop, psbl",
        "https://zen.example/query/127.0.0.2",
        decisive="psbl,spamcop,zen",
    ),
    Case("2001:db8::7", "accept", "0"),
    Case(
        "2001:db8::10",
        "defer",
        "6.5",
        "v6=+6.5",
        "v6",
        "https://v6.example/bl?2001:db8::10",
        decisive="v6",
    ),
    Case(
        "2001:db8::40",
        "defer",
        "6.5",
        "v6=+6.5",
        "v6",
        "https://v6.example/bl?2001:db8::40",
        decisive="v6",
    ),
    Case("2001:db8::41", "accept", "0"),
)
LISTED = "198.51.100.12"
QUARANTINED, REJECTED, DISCARDED = "198.51.100.21", "198.51.100.25", "198.51.100.26"

# source, why it is exempt
EXEMPT = (
    ("192.168.0.9", "network"),
    ("2001:db8:1::9", "network"),
    ("198.51.100.50", "host"),
    ("198.51.100.51", "host"),
    ("2001:db8::50", "host"),
    ("127.0.0.1", "local"),
    ("::1", "local"),
)


@pytest.fixture
def site(open_site: OpenSite) -> Site:
    return open_site(sample_policy())


def logged(decision: dict[str, object]) -> dict[str, object]:
    """Return what a decision says but for what differs from run to run."""
    return {name: value for name, value in decision.items() if name not in ("queue", "wait_ms", "cached")}


def verdict(case: Case, **changes: str) -> dict[str, object]:
    """Return what the log must say about a client."""
    client = NAMES.get(case.source)
    named = client is not None and client.name and client.forward
    # The list that only ever says "not to you" counts for nothing; had it listed the client, it were 9 more.
    refused = ":" not in case.source
    high = f"{float(case.score) + 9:g}" if refused else case.score
    said: dict[str, object] = {
        "event": "decision",
        "client": case.source,
        "host": client.name if client and named else f"[{case.source if refused else ipv6(case.source)}]",
        "helo": "client.example",
        "sender": SENDER,
        "recipient": RECIPIENT,
        "action": case.action,
        "enforced": case.action,
        "score": case.score,
        "low": case.score,
        "high": high,
        "lists": case.listed,
        "observed": "",
        "unknown": "refusing:blocked" if refused else "",
        "exempt": "",
        "decisive": case.decisive,
        "memory": "",
    }
    return said | changes


def ipv6(address: str) -> str:
    """Write an address as Sendmail does: no zeros in front, and none left out."""
    head, _, tail = address.partition("::")
    middle = ["0"] * (8 - len(head.split(":")) - len(tail.split(":")))
    return "IPv6:" + ":".join([*head.split(":"), *middle, *tail.split(":")])


def verdict_headers(case: Case) -> list[str]:
    """Return the two header fields that tell about a verdict."""
    parts = f" ({case.parts})" if case.parts else ""
    return [f"X-DNSBL-Score: {case.score}{parts}", f"X-DNSBL-Action: {case.action}"]


def assert_refusal(reply: Reply, case: Case, code: int, enhanced: str) -> None:
    assert reply.code == code
    assert reply.text.startswith(f"{enhanced} ")
    assert case.source in reply.text
    assert reply.text.endswith(f"listed by {case.accusers}; see {case.url}")
    assert "\n" not in reply.text
    assert reply.text.isascii()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.source}-{case.action}")
def test_every_client_gets_what_its_score_asks_for(site: Site, case: Case) -> None:
    outcome = site.send(case.source, content=FORGING)
    told = outcome.recipients[RECIPIENT]
    (decision,) = site.decisions()
    assert logged(decision) == verdict(case)

    if case.action == "reject":
        assert_refusal(told, case, 550, "5.7.1")
    elif case.action == "defer":
        assert_refusal(told, case, 451, "4.7.1")
    else:
        assert told.code == 250
        # What the log names is what Sendmail's own log names.
        assert decision["queue"] == outcome.queue_id

    # What came from outside under our names is gone, and all else is as it was.
    through = {"accept": [(ARRIVING, [])], "tag": [(ARRIVING, verdict_headers(case))]}
    assert site.delivered() == through.get(case.action, [])
    held = site.host.quarantined()
    if case.action == "quarantine":
        (entry,) = held
        assert (entry.id, entry.sender, entry.recipients) == (outcome.queue_id, SENDER, (RECIPIENT,))
        assert entry.reason == f"dnsbl-milter score={case.score} lists={case.accusers.replace(' ', '')}"
        assert "dnsbl-milter" in site.host.mailq("-qQ")
        site.host.release(entry.id)
        assert site.delivered() == [(ARRIVING, verdict_headers(case))]
    else:
        assert held == []
    assert site.host.queue() == []


@pytest.mark.parametrize(("source", "why"), EXEMPT)
def test_the_mail_of_an_exempt_client_is_not_touched(site: Site, source: str, why: str) -> None:
    with Client(source, source if why == "local" else "") as client:
        for _ in range(2):
            assert client.send_message(SENDER, RECIPIENT, FORGING).accepted
    assert site.received() == [[*FORGED, *ARRIVING]] * 2
    assert site.host.quarantined() == []
    (decision,) = site.decisions()  # for the connection, for nothing more is heard of it
    assert (decision["client"], decision["exempt"]) == (source, why)
    assert (decision["action"], decision["enforced"], decision["score"]) == ("accept", "accept", "0")
    assert (decision["lists"], decision["unknown"]) == ("", "")


def test_mail_without_a_network_is_local(site: Site) -> None:
    message = FORGING.decode() + "."
    replies = site.host.talk("EHLO here", f"MAIL FROM:<{SENDER}>", f"RCPT TO:<{RECIPIENT}>", "DATA", message, "QUIT")
    assert [reply[:3] for reply in replies] == ["220", "250", "250", "250", "354", "250", "221"]
    assert site.received() == [[*FORGED, *ARRIVING]]
    (decision,) = site.decisions()
    assert (decision["client"], decision["exempt"], decision["action"]) == ("", "local", "accept")


@pytest.mark.parametrize("case", [case for case in CASES if case.source in ("198.51.100.20", "198.51.100.7")])
def test_an_ipv4_client_in_ipv6_dress_is_an_ipv4_client(open_site: OpenSite, case: Case) -> None:
    site = open_site(sample_policy(), extra=BOTH_FAMILIES)
    outcome = send_message(case.source, SENDER, RECIPIENT, MESSAGE, port=2525)
    (decision,) = site.decisions()
    assert logged(decision) == verdict(case)
    told = outcome.recipients[RECIPIENT]
    if case.action == "defer":
        assert_refusal(told, case, 451, "4.7.1")
        assert site.received() == []
    else:
        assert told.code == 250
        assert site.received() == [ARRIVING]


def test_a_network_exempts_an_ipv4_client_in_ipv6_dress(open_site: OpenSite) -> None:
    site = open_site(sample_policy(), extra=BOTH_FAMILIES)
    assert send_message("192.168.0.9", SENDER, RECIPIENT, FORGING, port=2525).accepted
    assert site.received() == [[*FORGED, *ARRIVING]]
    (decision,) = site.decisions()
    assert (decision["client"], decision["exempt"]) == ("192.168.0.9", "network")


# what is configured, what the client's action is, whether its message tells of it
HEADERS = (
    ("always", "198.51.100.7", True),
    ("always", LISTED, True),
    ("always", QUARANTINED, True),
    ("tagged", "198.51.100.35", False),
    ("tagged", LISTED, True),
    ("never", LISTED, False),
    ("never", QUARANTINED, False),
)


@pytest.mark.parametrize(("add", "source", "told"), HEADERS)
def test_headers_are_added_as_configured(open_site: OpenSite, add: str, source: str, told: bool) -> None:
    site = open_site(sample_policy(headers={"add": add}))
    case = next(case for case in CASES if case.source == source)
    assert site.send(source, content=FORGING).accepted
    for entry in site.host.quarantined():
        site.host.release(entry.id)
    # Whatever is configured, what came from outside under our names is gone.
    assert site.delivered() == [(ARRIVING, verdict_headers(case) if told else [])]
    (decision,) = site.decisions()
    assert logged(decision) == verdict(case)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.source}-{case.action}")
def test_an_observer_touches_nothing(open_site: OpenSite, case: Case) -> None:
    site = open_site(sample_policy(actions={"mode": "observe"}, headers={"add": "always"}))
    assert site.send(case.source, [RECIPIENT, "postmaster@acme123.com"], FORGING).accepted
    assert site.received() == site.received("postmaster") == [[*FORGED, *ARRIVING]]
    assert site.host.quarantined() == site.host.queue() == []
    would, exempt = site.decisions()
    assert logged(would) == verdict(case, enforced="accept")
    assert (exempt["recipient"], exempt["exempt"]) == ("postmaster@acme123.com", "recipient")


def test_a_list_on_observation_adds_nothing(open_site: OpenSite) -> None:
    lists = [entry | {"observe": entry["name"] == "zen"} for entry in SAMPLE_LISTS]
    site = open_site(sample_policy(lists))
    # 12.5 without the observation; spamcop +4, psbl +3.5
    outcome = site.send(REJECTED)
    case = Case(
        REJECTED,
        "defer",
        "7.5",
        "psbl=+3.5 spamcop=+4",
        "spamcop, psbl",
        f"https://spamcop.example/bl?{REJECTED}",
        "psbl,spamcop",
    )
    assert_refusal(outcome.recipients[RECIPIENT], case, 451, "4.7.1")
    # 5 without the observation
    assert site.send(LISTED).accepted
    assert site.received() == [ARRIVING]
    first, second = site.decisions()
    assert logged(first) == verdict(case, observed="zen:SBL:5")
    assert logged(second) == verdict(Case(LISTED, "accept", "0"), observed="zen:SBL:5")


def test_a_look_up_address_arrives_as_it_was_written(open_site: OpenSite) -> None:
    url = "https://zen.example/q?client={client}&back=%2Flist%2F%25s%n&x=100%"
    lists = [entry | ({"url": url} if entry["name"] == "zen" else {}) for entry in SAMPLE_LISTS]
    site = open_site(sample_policy(lists))
    outcome = site.send(REJECTED)
    told = outcome.recipients[RECIPIENT]
    assert told.code == 550
    assert told.text.endswith(f"; see https://zen.example/q?client={REJECTED}&back=%2Flist%2F%25s%n&x=100%")
    assert site.received() == []


def test_a_reply_that_would_be_too_long_ends_with_how_many_more(open_site: OpenSite) -> None:
    names = [f"a-list-with-quite-a-long-name-{number:02}" for number in range(40)]
    url = "https://long.example/" + "%41" * 90
    zones = [Zone(f"{name}.example", "ip4set", (f"{LISTED} :2:listed",)) for name in names]
    server = ListServer(Path("/run/mailhost/long"), zones, "127.0.0.3")
    try:
        entries = [{"name": name, "zone": f"{name}.example", "weight": 1, "url": url} for name in names]
        site = open_site(sample_policy(entries, dns={"nameservers": ["127.0.0.3"]}, actions={"discard": None}))
        told = site.send(LISTED).recipients[RECIPIENT]
    finally:
        server.stop()
    assert (told.code, told.text[:6]) == (550, "5.7.1 ")
    assert len(f"{told.code} {told.text}") <= 900
    shown, _, rest = told.text.partition("listed by ")[2].partition(" and ")
    assert shown.split(", ") == names[: len(shown.split(", "))]
    assert rest == f"{40 - len(shown.split(', '))} more; see {url}"
    (decision,) = site.decisions()
    assert (decision["action"], decision["score"]) == ("reject", "40")


@pytest.mark.parametrize("delivery", ["background", "queueonly"])
def test_other_ways_of_delivery_make_no_difference(open_site: OpenSite, delivery: str) -> None:
    site = open_site(sample_policy(), delivery=delivery)
    assert site.send(LISTED, content=FORGING).accepted
    assert site.send(QUARANTINED, content=FORGING).accepted
    if delivery == "queueonly":
        site.host.run_queue()
    site.host.wait_for_messages("alice")
    tagged = next(case for case in CASES if case.source == LISTED)
    assert site.delivered() == [(ARRIVING, verdict_headers(tagged))]
    (entry,) = site.host.quarantined()
    assert entry.reason == "dnsbl-milter score=9 lists=zen,spamcop"


def test_a_second_connection_is_judged_by_what_is_known(open_site: OpenSite) -> None:
    site = open_site(sample_policy(milter={"workers": 1}), fresh=True)
    for _ in range(2):
        assert site.send(LISTED).accepted
        site.daemon.wait_until_idle()  # what was learnt is kept when a session ends
    case = next(case for case in CASES if case.source == LISTED)
    first, second = site.decisions()
    assert logged(first) == logged(second) == verdict(case)
    assert (first["cached"], second["cached"]) == ("no", "yes")


def test_what_lists_said_is_kept_though_nobody_asked(open_site: OpenSite, lists: ListServer) -> None:
    site = open_site(sample_policy(milter={"workers": 1}), fresh=True)
    with site.connect(LISTED) as client:
        client.ehlo()
        client.mail(SENDER)
        # It answers one question after the other, so those of the milter are answered too.
        assert lists.look_up(LISTED, "zen.example", timeout=10).values == ("127.0.0.2",)
    site.daemon.wait_until_idle()
    assert site.send(LISTED).accepted
    case = next(case for case in CASES if case.source == LISTED)
    (decision,) = site.decisions()
    assert logged(decision) == verdict(case)
    assert (decision["cached"], decision["wait_ms"]) == ("yes", "0.0")


def test_unbound_may_stand_between(open_site: OpenSite) -> None:
    site = open_site(sample_policy(dns={"nameservers": ["127.0.0.1"]}))
    for source in ("198.51.100.7", LISTED, "198.51.100.20", QUARANTINED, REJECTED):
        case = next(case for case in CASES if case.source == source)
        site.forget()
        outcome = site.send(source)
        assert outcome.last.code == {"defer": 451, "reject": 550}.get(case.action, 250)
        (decision,) = site.decisions()
        assert (decision["action"], decision["score"], decision["lists"]) == (case.action, case.score, case.listed)
        assert len(site.received()) == (case.action in ("accept", "tag"))
        assert len(site.host.quarantined()) == (case.action == "quarantine")
