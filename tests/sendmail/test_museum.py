"""The first six of the museum of incidents on a real Sendmail, a real rbldnsd, and a caching unbound between them.

A list that was fine a moment ago breaks while its old answers still lie in the resolver's cache. Of 200 innocent clients
none may be deferred, quarantined or rejected; the list must be noticed, and come back by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mailhost.daemon import Daemon
from mailhost.events import read_event
from mailhost.lists import ListServer, Zone
from mailhost.policies import sample_policy
from mailhost.process import wait_until
from mailhost.resolver import Resolver
from mailhost.sendmail import MailHost
from mailhost.smtp import send_message

FOLDER = Path("/run/mailhost/museum")
ALICE = "alice@acme123.com"
GUILTY = "203.0.113.66"
INNOCENTS = [f"198.51.100.{last}" for last in range(1, 201)]
EVERYBODY = "0.0.0.0/0 :{code}:anything"
BLOCK = ("127.0.0.2 :127.0.0.2:test entry", f"{GUILTY} :127.0.0.2:caught")
ALLOW = ("127.0.0.2 :127.0.10.0:test entry",)

ROWS = [
    # what happened, what the list answers, the list's weight and its data before, what is thought of it
    ("lists the world: Osirusoft, ORDB, SpamCop", (EVERYBODY.format(code="127.0.0.2"),), 12, BLOCK, {"lists-the-world", "failed-proof"}),
    ("a parked domain", (EVERYBODY.format(code="203.0.113.80"),), 12, BLOCK, {"foreign-answer"}),
    ("is emptied: SORBS", (), 12, BLOCK, {"emptied"}),
    ("refuses by 127.255.255.254", (EVERYBODY.format(code="127.255.255.254"),), 12, BLOCK, {"refuses"}),
    ("a typing error, 127.255.255.252", (EVERYBODY.format(code="127.255.255.252"),), 12, BLOCK, {"refuses"}),
    ("an allow-list over quota", (EVERYBODY.format(code="127.0.0.255"),), -4, ALLOW, {"refuses"}),
]


class House:
    """Two lists of which one is about to break, a resolver that remembers, the daemon and Sendmail."""

    def __init__(self, weight: int, lines: tuple[str, ...]) -> None:
        zones = [
            Zone("bad.example", "ip4trie", lines, ttl=2, negative_ttl=2),
            Zone("sane.example", "ip4trie", BLOCK, ttl=2, negative_ttl=2),
        ]
        self.lists = ListServer(FOLDER / "lists", zones, address="127.0.0.7")
        self.resolver = Resolver(FOLDER / "resolver", [self.lists], address="127.0.0.8")
        listed = {"expect": {"listed": "127.0.10.0"}} if weight < 0 else {}
        policy = sample_policy(
            [{"name": "bad", "zone": "bad.example", "weight": weight, **listed}, {"name": "sane", "zone": "sane.example", "weight": 12}],
            dns={"nameservers": ["127.0.0.8"], "deadline": 5, "retry": 2},
            actions={"tag": 3, "defer": 6, "quarantine": 8, "reject": 12, "discard": None},
            cache={"min_ttl": 0, "max_ttl": 2},
            health={"enabled": True, "interval": 1},
        )
        self.daemon = Daemon(FOLDER / "daemon", policy)
        self.host = MailHost(FOLDER / "sendmail", self.daemon.socket)

    def told(self, client: str) -> int:
        return send_message(client, "someone@sender.example", ALICE).recipients[ALICE].code

    def states(self) -> list[tuple[object, object]]:
        """Return what was thought of the list, and why, at each change."""
        events = [read_event(line) for line in self.daemon.log()]
        return [(event["to"], event["why"]) for event in events if event["event"] == "list" and event["list"] == "bad"]

    def stop(self) -> None:
        self.host.stop()
        self.daemon.kill()
        self.resolver.stop()
        self.lists.stop()


@pytest.fixture
def open_house(keeper) -> Iterator[object]:
    keeper.close()
    opened: list[House] = []

    def start(weight: int, lines: tuple[str, ...]) -> House:
        opened.append(House(weight, lines))
        return opened[-1]

    yield start
    for house in opened:
        house.stop()


@pytest.mark.parametrize(("broken", "weight", "lines", "why"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_no_innocent_is_kept_out(open_house, record_property, broken, weight, lines, why) -> None:
    house = open_house(weight, lines)
    assert house.told(GUILTY) == 550
    assert house.told(INNOCENTS[0]) == 250
    house.lists.replace("bad.example", broken)
    codes, seen = [], []
    for client in INNOCENTS:
        codes.append(house.told(client))
        seen.append(bool(house.states()))
    assert codes == [250] * len(INNOCENTS)
    record_property("clients until noticed", seen.index(True) + 1 if any(seen) else f"more than {len(seen)}")
    assert house.host.quarantined() == []
    assert [message["X-DNSBL-Action"] for message in house.host.messages("alice")] == [None] * (len(INNOCENTS) + 1)
    # The healthy list's word still counts: it is enough to refuse, or, 4 points short of it while an allow-list that
    # might speak for the client does not say, to hold the message.
    meanwhile = 250 if weight < 0 else 550
    wait_until(lambda: house.told(GUILTY) == meanwhile, 10, "what the list said of the guilty before is forgotten")
    held = {entry.reason for entry in house.host.quarantined()}
    assert held == ({"dnsbl-milter score=12 lists=sane"} if weight < 0 else set())
    wait_until(lambda: any(state == "suspended" for state, _ in house.states()), 20, "the list is suspended")
    assert why & {reason for _, reason in house.states()}
    house.lists.replace("bad.example", lines)
    wait_until(lambda: house.states()[-1][0] == "ok", 30, "the list is back")
    wait_until(lambda: house.told(GUILTY) == 550, 10, "the guilty are refused")
