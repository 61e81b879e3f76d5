"""Five hundred clients, fifty of them at once: each gets what the table says, and all are counted once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from mailhost.lists import ListServer, Zone
from mailhost.policies import sample_policy
from mailhost.site import ARRIVING, FORGING, SENDER, Site
from mailhost.smtp import Client, Outcome

OpenSite = Callable[..., Site]

CLIENTS, AT_ONCE = 500, 50
SOURCES = [f"{net}.{host}" for net in ("192.0.2", "203.0.113") for host in range(1, 255) if host != 25][:CLIENTS]
WEIGHTS = {"a": 3, "b": 6, "c": 8}
# Which lists hold every sixth client, what that adds up to, and what is done: tag 3, defer 6, quarantine 8, reject 12,
# discard 16.
OUTCOMES = (
    ("", "0", "accept"),
    ("a", "3", "tag"),
    ("b", "6", "defer"),
    ("c", "8", "quarantine"),
    ("bc", "14", "reject"),
    ("abc", "17", "discard"),
)
CODES = {"defer": 451, "reject": 550}


@pytest.fixture
def crowd() -> Iterator[ListServer]:
    """Serve three lists that hold the five hundred."""
    zones = [
        Zone(
            f"{name}.example",
            "ip4set",
            tuple(f"{source} :2:" for place, source in enumerate(SOURCES) if name in OUTCOMES[place % 6][0]),
        )
        for name in WEIGHTS
    ]
    server = ListServer(Path("/run/mailhost/crowd"), zones, "127.0.0.5")
    yield server
    server.stop()


def test_five_hundred_clients_get_what_the_table_says(open_site: OpenSite, crowd: ListServer) -> None:
    lists = [{"name": name, "zone": f"{name}.example", "weight": weight} for name, weight in WEIGHTS.items()]
    site = open_site(sample_policy(lists, dns={"nameservers": ["127.0.0.5"]}))
    shares: Counter[int] = Counter()
    most: list[int] = []

    def look() -> None:
        # It is called while so many wait for each other, each with a session.
        sessions = site.daemon.sessions()
        shares.update(sessions)
        most.append(sum(sessions.values()))

    together = Barrier(AT_ONCE, look, timeout=60)

    def send(source: str) -> Outcome:
        with Client(source) as client:
            client.ehlo()
            together.wait()
            return client.send_message(SENDER, f"user-{source}@acme123.com", FORGING)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = list(pool.map(send, SOURCES))

    decisions = {str(decision["client"]): decision for decision in site.decisions()}
    assert len(site.decisions()) == len(decisions) == CLIENTS
    held = {entry.recipients: entry for entry in site.host.quarantined()}
    for place, (source, outcome) in enumerate(zip(SOURCES, outcomes, strict=True)):
        _, score, action = OUTCOMES[place % 6]
        recipient = f"user-{source}@acme123.com"
        assert outcome.recipients[recipient].code == CODES.get(action, 250), source
        assert outcome.accepted is (action not in CODES), source
        decision = decisions[source]
        assert (decision["action"], decision["enforced"]) == (action, action), decision
        assert (decision["recipient"], decision["cached"]) == (recipient, "no")
        if outcome.accepted:
            assert decision["queue"] == outcome.queue_id
        if action == "tag":
            told = ["X-DNSBL-Score: 3 (a=+3)", "X-DNSBL-Action: tag"]
            assert site.delivered(recipient) == [(ARRIVING, told)]
        else:
            assert site.delivered(recipient) == [(ARRIVING, [])] * (action == "accept")
        if action == "quarantine":
            assert (held[recipient,].id, held[recipient,].reason) == (
                outcome.queue_id,
                f"dnsbl-milter score={score} lists=c",
            )
    # By hand: 500 = 6 * 83 + 2, so there is one more of the first two.
    assert Counter(str(decision["action"]) for decision in site.decisions()) == Counter(
        accept=84, tag=84, defer=83, quarantine=83, reject=83, discard=83
    )
    assert len(held) == 83
    assert site.host.queue() == []
    assert most == [AT_ONCE] * (CLIENTS // AT_ONCE)
    # Two workers share the load; neither sits idle while the other works.
    assert len(shares) == 2
    assert min(shares.values()) > CLIENTS // 10, shares


def test_long_connections_leave_nothing_behind(open_site: OpenSite) -> None:
    site = open_site(sample_policy())
    tagged = ["X-DNSBL-Score: 5 (zen=SBL:+5)", "X-DNSBL-Action: tag"]

    def send_all(connections: int, messages: int) -> dict[int, int]:
        def send(number: int) -> None:
            with Client("198.51.100.12") as client:
                for _ in range(messages):
                    assert client.send_message(SENDER, f"user{number}@acme123.com", FORGING).accepted

        with ThreadPoolExecutor(connections) as pool:
            list(pool.map(send, range(connections)))
        site.daemon.wait_until_idle()
        return site.daemon.descriptors()

    before = send_all(10, 1)
    site.forget()
    after = send_all(10, 40)
    for number in range(10):
        assert site.delivered(f"user{number}@acme123.com") == [(ARRIVING, tagged)] * 40
    assert Counter(str(decision["enforced"]) for decision in site.decisions()) == {"tag": 400}
    assert after == before
