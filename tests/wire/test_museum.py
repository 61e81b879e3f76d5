"""The museum of incidents: every well-known disaster of blackhole lists, on a daemon that runs.

One test a row. The name server behaves as the real one did; meanwhile 200 innocent clients come by, who are on no
list or on one healthy list, and none may fare worse than the healthy lists alone would have it. The list comes back by
itself, and its word counts again.
"""

from dataclasses import dataclass, field
from itertools import chain

import pytest
from faulty import NXDOMAIN, REFUSED, SERVFAIL, SILENCE, clear, failure, listed
from museum import BAD, GUILTY, HEALTHY, INNOCENTS, TAGGED, Museum, entries, healthy, until

from dnsbl_policy.shares import ENOUGH_CLIENTS

ZONE = "bad.example"
PARKED = "203.0.113.80"


@dataclass
class Row:
    """An incident: what the list answers meanwhile, and what is found out about it."""

    name: str
    answers: object
    why: str
    """The symptom, or the worst of several."""
    bad: str = "weight = 12"
    more: str = ""
    """Other lists of the configuration."""
    zones: dict = field(default_factory=dict)


ROWS = [
    Row("lists the world: Osirusoft 2003, ORDB 2008, SpamCop 2021", listed("127.0.0.2"), "lists-the-world"),
    Row("lists the world with any code", listed("127.0.0.4", "127.0.0.2"), "lists-the-world"),
    Row("a parked domain answers a web address for everything", listed(PARKED), "foreign-answer"),
    Row("a parked domain answers that beside a code", listed(PARKED, "127.0.0.2"), "foreign-answer"),
    Row("is emptied: SORBS 2024", clear(), "emptied"),
    Row("refuses: public resolver, 127.255.255.254", listed("127.255.255.254"), "refuses"),
    Row("refuses: too many queries, 127.255.255.255", listed("127.255.255.255"), "refuses"),
    Row("a typing error in the zone, 127.255.255.252", listed("127.255.255.252"), "refuses"),
    Row("an allow-list over quota answers 127.0.0.255", listed("127.0.0.255"), "refuses", bad="weight = -4"),
    Row("name servers that never answer: NJABL", SILENCE, "silent"),
    Row("SERVFAIL only", failure(SERVFAIL), "silent"),
    Row("REFUSED only", failure(REFUSED), "silent"),
]


def expected(client):
    """Return what the healthy lists alone would do."""
    return "tag" if client == TAGGED else "accept"


def strangers():
    """Return clients without end who are on no list, and have not been here."""
    return (f"198.18.{upper}.{lower}" for upper in range(256) for lower in range(1, 255))


def pass_by(house, clients=INNOCENTS):
    """Let clients pass by."""
    for client in clients:
        assert house.told(client) == "accept", (client, house.decision(client))


def count_until_noticed(house, record_property, name=BAD, clients=INNOCENTS):
    """Let clients pass by, and strangers after them, and record how many it took until the list, or the resolver, was suspected."""
    noticed = None
    for number, client in enumerate(chain(clients, strangers()), 1):
        pass_by(house, [client])
        if noticed is None and (set(house.moves(name)) - {"ok"} or house.events("resolver at fault")):
            noticed = number
            record_property("clients until noticed", noticed)
        if noticed is not None and number >= len(clients):
            return


def nobody_was_hurt(house, clients=INNOCENTS):
    """Look at every decision so far: none is harder than healthy lists would have it."""
    done = {event["client"]: event["enforced"] for event in house.events("decision")}
    hurt = {client: action for client, action in done.items() if client in clients and action in ("defer", "quarantine", "reject", "discard")}
    assert hurt == {}
    assert set(clients) <= set(done)


def is_sound(house):
    """See that all is well before, or again."""
    assert house.told(GUILTY) == 550
    assert (house.told(TAGGED), house.decision(TAGGED)["enforced"]) == ("accept", "tag")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_an_incident(row, tmp_path, record_property):
    allow = "-" in row.bad
    with Museum(tmp_path, bad=row.bad, cache="error_ttl = 1") as house:
        house.wait_for_rounds(1)
        if not allow:
            is_sound(house)
        house.server.zones[ZONE] = row.answers
        count_until_noticed(house, record_property)
        event = house.wait_for(BAD, "suspended")
        nobody_was_hurt(house)
        assert event["why"] in (row.why, "failed-proof")
        assert not any(house.moves(name) for name in HEALTHY)
        assert house.told(TAGGED) == "accept"
        assert "bad:suspended" in house.decision(TAGGED)["unknown"]
        assert house.health()[0] == 200
        house.server.zones[ZONE] = healthy()[ZONE]
        house.wait_for(BAD, "ok")
        assert house.moves()[-2:] == ["probation", "ok"]
        until(lambda: house.told(INNOCENTS[0]) == "accept", "an innocent passes")
        if allow:
            house.told(TAGGED)
            assert "bad" not in house.decision(TAGGED)["unknown"]
        else:
            is_sound(house)
        nobody_was_hurt(house)


def test_the_resolver_rewrites(tmp_path, record_property):
    """A provider's resolver answers an advertisement for whatever does not exist: the fault of no list."""
    with Museum(tmp_path, cache="error_ttl = 1") as house:
        house.wait_for_rounds(1)

        def rewritten(question):
            zone = house.server.zones.get(question.zone)
            exists = isinstance(zone, dict) and question.client in zone
            return None if exists else listed(PARKED)

        house.server.handler = rewritten
        count_until_noticed(house, record_property)
        house.daemon.wait_for_log('"fault": "rewrites"')
        house.wait_for_rounds(3)
        pass_by(house, INNOCENTS[:50])
        nobody_was_hurt(house)
        assert house.events("list") == []
        assert len(house.events("resolver at fault")) == 1
        assert house.metrics("dnsbl_resolver_fault")['{fault="rewrites"}'] == 1
        assert house.health()[1]["resolver"] == "rewrites"
        house.server.handler = None
        house.daemon.wait_for_log("resolver is fine again")
        is_sound(house)


def test_the_resolver_rewrites_and_a_list_goes_mad(tmp_path):
    with Museum(tmp_path) as house:
        house.wait_for_rounds(1)
        house.server.zones |= {ZONE: listed("127.0.0.2"), "": listed(PARKED)}
        house.wait_for(BAD, "suspended")
        assert not any(house.moves(name) for name in HEALTHY)


def test_the_resolver_is_refused_by_the_operators(tmp_path, record_property):
    """A public resolver: several operators, one after the other, answer that they will not."""
    with Museum(tmp_path) as house:
        house.wait_for_rounds(1)
        house.server.zones |= {name: listed("127.255.255.254") for name in house.server.zones if name}
        count_until_noticed(house, record_property)
        house.daemon.wait_for_log('"fault": "refused"')
        house.wait_for_rounds(3)
        nobody_was_hurt(house)
        assert not any(set(house.moves(name)) - {"suspect"} for name in (BAD, *HEALTHY, "friend"))
        assert len(house.events("resolver at fault")) == 1
        house.server.zones |= healthy()
        house.daemon.wait_for_log("resolver is fine again")
        until(lambda: house.told(GUILTY) == 550, "the guilty are refused again")
        until(lambda: not any(house.moves(name)[-1:] == ["suspect"] for name in (BAD, *HEALTHY, "friend")), "all lists are well")


def test_the_resolver_is_gone(tmp_path, record_property):
    with Museum(tmp_path, cache="error_ttl = 1") as house:
        house.wait_for_rounds(1)
        house.server.handler = lambda question: SILENCE
        count_until_noticed(house, record_property, clients=INNOCENTS[:20])
        house.daemon.wait_for_log('"fault": "down"')
        pass_by(house)
        house.wait_for_rounds(3)
        nobody_was_hurt(house)
        assert not any(set(house.moves(name)) - {"suspect"} for name in (BAD, *HEALTHY))
        assert len(house.events("resolver at fault")) == 1
        house.server.handler = None
        house.daemon.wait_for_log("resolver is fine again")
        until(lambda: house.told(GUILTY) == 550, "the guilty are refused again")


def test_a_list_flaps(tmp_path):
    """Mad every other while: never asked before it has been sane for some rounds in a row."""
    with Museum(tmp_path) as house:
        house.wait_for_rounds(1)
        for _ in range(3):
            house.server.zones[ZONE] = listed("127.0.0.2")
            pass_by(house, INNOCENTS[:70])
            house.wait_for_rounds(1)
            house.server.zones[ZONE] = healthy()[ZONE]
            pass_by(house, INNOCENTS[70:140])
            house.wait_for_rounds(1)
        pass_by(house)
        nobody_was_hurt(house)
        assert "ok" not in house.moves()
        assert set(house.moves()) <= {"suspended", "probation"}
        house.wait_for(BAD, "ok")
        is_sound(house)


def one_in_three(question):
    last = question.client.rpartition(".")[2]
    listing = question.zone == ZONE and question.client.startswith("198.51.100.") and int(last) % 3 == 0
    return listed("127.0.0.2") if listing else None


MOST_HURT = (2 * ENOUGH_CLIENTS + 2) // 3
"""Of twice as many clients as it takes to judge a share; that the first come together with some from before it rose."""


@pytest.mark.parametrize(("weight", "most"), [(5, 0), (12, MOST_HURT)], ids=["by its word one is tagged", "by its word one is rejected"])
def test_a_list_starts_to_list_one_client_in_three(weight, most, tmp_path, record_property):
    """Test entries, unused space and proofs are as they should be: only the share of clients that it lists betrays it.

    Of the first ones nobody can tell that they are innocent; it is the one harm that the design allows, and to lists alone
    whose single word is enough to keep somebody out. From then on its word tags, and no more.
    """
    with Museum(tmp_path, bad=f"weight = {weight}") as house:
        house.wait_for_rounds(1)
        strange = strangers()
        pass_by(house, [next(strange) for _ in range(59)])
        house.wait_for_rounds(2)
        house.server.handler = one_in_three
        hurt, noticed = [], None
        for number, client in enumerate(INNOCENTS, 1):
            if house.told(client) != "accept":
                hurt.append(number)
            if noticed is None and number % ENOUGH_CLIENTS == 0:
                house.wait_for_rounds(1)
                noticed = number if house.moves() else None
        record_property("clients until noticed", noticed)
        record_property("clients hurt", len(hurt))
        assert noticed is not None
        assert noticed <= 2 * ENOUGH_CLIENTS
        assert len(hurt) <= most
        assert max(hurt, default=0) <= noticed
        assert house.moves() == ["suspect"]
        assert {event["why"] for event in house.events("list")} == {"hit-rate"}
        assert not any(house.moves(name) for name in HEALTHY)
        last = house.decision(INNOCENTS[197])
        assert (last["enforced"], "bad:doubted" in last["unknown"].split(",")) == ("tag", True)
        # Not beyond what the healthy lists alone would do, and not less.
        house.told(GUILTY)
        assert house.decision(GUILTY)["enforced"] == "quarantine"
        house.server.handler = None
        until(lambda: house.told(next(strange)) == "accept" and house.moves()[-1] == "ok", "the list is back")
        is_sound(house)


def test_a_wave_of_spam_puts_no_list_in_doubt(tmp_path):
    """Nine clients of ten are on three lists, all at once; each knows its own part of them."""
    with Museum(tmp_path) as house:
        house.wait_for_rounds(1)
        strange = strangers()
        pass_by(house, [next(strange) for _ in range(59)])
        house.wait_for_rounds(2)

        def wave(question):
            last = question.client.rpartition(".")[2]
            spam = question.client.startswith("198.51.100.") and int(last) % 10
            unknown_to = {ZONE: 1, "one.example": 2, "two.example": 3}
            return listed("127.0.0.2") if spam and question.zone in unknown_to and int(last) % 10 != unknown_to[question.zone] else None

        house.server.handler = wave
        for number, client in enumerate(INNOCENTS, 1):
            told = house.told(client)
            # On the two lists beside the heavy one: quarantined, and so told nothing.
            assert told == (550 if number % 10 not in (0, 1) else "accept"), (number, house.decision(client))
            if number % ENOUGH_CLIENTS == 0:
                house.wait_for_rounds(1)
        assert house.events("list") == []


def test_a_list_comes_back_with_another_code_for_its_test_entry(tmp_path):
    """For good: it is sane in all else, so it is back like any other, and what is to be done stands in the log."""
    with Museum(tmp_path, bad='weight = 12\nexpect = { listed = "127.0.0.2" }') as house:
        house.wait_for_rounds(1)
        house.server.zones[ZONE] = clear()
        house.wait_for(BAD, "suspended")
        house.server.zones[ZONE] = entries("127.0.0.9", GUILTY)
        event = house.wait_for(BAD, "suspect")
        assert house.moves()[-4:] == ["suspended", "probation", "ok", "suspect"]
        assert event["why"] == "wrong-code"
        assert event["advice"].endswith('expected: if that is right, set expect = { listed = "127.0.0.9" }')
        until(lambda: house.told(GUILTY) == 550, "its word counts")
        house.wait_for_rounds(4)
        assert house.moves()[-1] == "suspect"
        house.reconfigure(bad='weight = 12\nexpect = { listed = "127.0.0.9" }')
        house.wait_for(BAD, "ok")
        pass_by(house)
        nobody_was_hurt(house)


SIBLINGS = """
[[list]]
name = "sibling-a"
zone = "a.operator.example"
weight = 3
[[list]]
name = "sibling-b"
zone = "b.operator.example"
weight = 3
[[list]]
name = "sibling-c"
zone = "c.operator.example"
weight = 12
"""


@pytest.mark.parametrize("answers", [listed("127.0.0.2"), listed("127.255.255.254"), SILENCE], ids=["mad", "refusing", "silent"])
def test_one_list_of_a_group_fails_while_its_siblings_are_fine(answers, tmp_path, record_property):
    with Museum(tmp_path, more=SIBLINGS) as house:
        house.server.zones |= {f"{name}.operator.example": entries() for name in "abc"}
        house.wait_for_rounds(1)
        house.server.zones["c.operator.example"] = answers
        count_until_noticed(house, record_property, "sibling-c")
        house.wait_for("sibling-c", "suspended")
        house.wait_for_rounds(2)
        nobody_was_hurt(house)
        assert not any(house.moves(name) for name in (*HEALTHY, "sibling-a", "sibling-b", BAD))
        assert house.events("resolver at fault") == []
        house.server.zones["c.operator.example"] = entries()
        house.wait_for("sibling-c", "ok")


HOSTKARMA = """
[[list]]
name = "hostkarma"
zone = "hostkarma.junkemailfilter.com"
"""


def test_a_list_that_lists_127_0_0_1_by_design(tmp_path):
    """The catalog says so of hostkarma; of another list it would be the end."""
    by_design = entries("127.0.0.2", "127.0.0.1")
    with Museum(tmp_path, more=HOSTKARMA) as house:
        house.server.zones |= {"hostkarma.junkemailfilter.com": by_design, "one.example": by_design | healthy()["one.example"]}
        house.wait_for("one", "suspended")
        house.wait_for_rounds(3)
        pass_by(house)
        nobody_was_hurt(house)
        assert house.moves("hostkarma") == []
        house.server.zones["hostkarma.junkemailfilter.com"] = listed("127.0.0.2")
        house.wait_for("hostkarma", "suspended")
        house.server.zones["hostkarma.junkemailfilter.com"] = by_design
        house.wait_for("hostkarma", "ok")


CLOCK = """
import pathlib, sys, time
real = time.time
time.time = lambda: real() + float(pathlib.Path(sys.argv[-1]).with_name("clock").read_text())
from dnsbl_milter.cli import main
main()
"""


def test_the_clock_jumps(tmp_path):
    """A year ahead, and two years back: no state changes by it, no list is left unwatched."""
    jump = tmp_path / "clock"
    jump.write_text("0")
    with Museum(tmp_path, wrapper=CLOCK) as house:
        house.wait_for_rounds(1)
        pass_by(house, INNOCENTS[:50])
        for seconds in (3e7, -6e7):
            jump.write_text(str(seconds))
            house.wait_for_rounds(2)
            pass_by(house, INNOCENTS[:50])
            assert house.moves() == []
        house.server.zones[ZONE] = listed("127.0.0.2")
        house.wait_for(BAD, "suspended")
        jump.write_text("3e7")
        house.wait_for_rounds(2)
        pass_by(house)
        nobody_was_hurt(house)
        assert "ok" not in house.moves()
        house.server.zones[ZONE] = healthy()[ZONE]
        house.wait_for(BAD, "ok")
        is_sound(house)


def test_rewritten_names_are_nxdomain_to_nobody_else():
    """The rows above rely on it: a name in no zone does not exist."""
    assert healthy()[""].rcode == NXDOMAIN
