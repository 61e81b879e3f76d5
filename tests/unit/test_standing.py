"""What the monitor writes is what workers obey, and what a reload carries over."""

import time
from dataclasses import replace
from ipaddress import ip_address

import pytest

from dnsbl_milter.standing import Standing
from dnsbl_policy.answers import PENDING, Clear, Listed, Unknown, Why
from dnsbl_policy.health import Record, State
from dnsbl_policy.lists import DnsList, Rule
from dnsbl_policy.shares import Baseline
from dnsbl_policy.symptoms import Fault, Symptom

CLIENT = ip_address("192.0.2.7")
SUSPENDED = Unknown(Why.SUSPENDED)
KNOWN = [Listed((0x7F000002,), 300), Clear(60), PENDING]
FALLEN = Record(State.SUSPENDED, 7.0, Symptom.LISTS_THE_WORLD, 3, 1, 2)


def lists(**options):
    return [DnsList(f"list{place}", f"list{place}.example", (Rule(400),), **options) for place in range(3)]


def evidence(standing, version=4, known=None):
    given = list(KNOWN if known is None else known)
    standing.withhold(version, given)
    return given


def test_a_list_starts_as_ok_and_nothing_is_withheld():
    standing = Standing(lists())
    assert [standing.record(place, version) for place in range(3) for version in (4, 6)] == [Record()] * 6
    assert evidence(standing) == evidence(standing, 6) == KNOWN
    assert standing.fault is None


def test_a_suspended_list_is_not_asked_and_not_believed_from_the_cache():
    standing = Standing(lists())
    standing.publish(0, 4, FALLEN, 3600)
    standing.publish(2, 4, FALLEN, 3600)
    assert evidence(standing) == [SUSPENDED, KNOWN[1], SUSPENDED]
    assert evidence(standing, 6) == KNOWN
    assert standing.record(0, 4) == FALLEN


@pytest.mark.parametrize(("state", "withheld"), [
    (State.OK, False), (State.SUSPECT, False), (State.SUSPENDED, True), (State.PROBATION, True),
])  # fmt: skip
def test_which_states_withhold(state, withheld):
    standing = Standing(lists())
    standing.publish(1, 6, Record(state), 3600)
    assert (evidence(standing, 6)[1] == SUSPENDED) is withheld


def test_what_a_list_said_before_its_suspension_is_not_believed_after_it(monkeypatch):
    standing, now = Standing(lists()), time.monotonic()
    standing.publish(0, 4, FALLEN, 100)
    standing.publish(0, 4, Record(State.PROBATION), 100)
    assert evidence(standing)[0] == SUSPENDED
    standing.publish(0, 4, Record(), 100)
    assert evidence(standing) == [PENDING, KNOWN[1], PENDING]
    monkeypatch.setattr(time, "monotonic", lambda: now + 200)
    assert evidence(standing) == KNOWN
    standing.publish(0, 4, Record(), 100)
    assert evidence(standing) == KNOWN


def test_a_suspect_is_believed_from_the_cache():
    standing = Standing(lists())
    standing.publish(0, 4, Record(State.SUSPECT), 3600)
    standing.publish(0, 4, Record(), 3600)
    assert evidence(standing) == KNOWN


def test_a_list_that_may_serve_ipv6_is_asked_once_it_is_known_to():
    standing = Standing(lists(ipv6=None))
    assert evidence(standing) == KNOWN
    assert evidence(standing, 6, [PENDING] * 3) == [Clear(0)] * 3
    assert not standing.serves(1, 6)
    standing.discover(1, 6)
    assert evidence(standing, 6, [PENDING] * 3) == [Clear(0), PENDING, Clear(0)]
    assert standing.serves(1, 6)
    standing.publish(1, 6, FALLEN, 1)
    assert evidence(standing, 6, [PENDING] * 3)[1] == SUSPENDED


def test_places_are_those_of_the_family_s_panel():
    first, second, third = lists()
    standing = Standing([replace(first, ipv4=False), second, replace(third, ipv6=False)])
    standing.publish(1, 4, FALLEN, 1)
    standing.publish(0, 6, FALLEN, 1)
    assert evidence(standing, 4, KNOWN[:2]) == [SUSPENDED, KNOWN[1]]
    assert evidence(standing, 6, KNOWN[:2]) == [SUSPENDED, KNOWN[1]]


def test_a_reload_carries_over_what_is_known_under_name_and_zone():
    before = Standing(lists(ipv6=None))
    before.publish(1, 4, FALLEN, 1)
    before.discover(2, 6)
    before.keep_baseline(1, Baseline(0.25, 90))
    before.fault = Fault.REWRITES
    first, second, third = lists(ipv6=None)
    other = replace(first, zone="other.example")
    after = Standing([third, second, other], before)
    assert after.record(1, 4) == FALLEN
    assert after.baseline(1) == Baseline(0.25, 90)
    assert evidence(after) == [KNOWN[0], SUSPENDED, PENDING]
    assert evidence(after, 6, [PENDING] * 3) == [PENDING, Clear(0), Clear(0)]
    assert after.fault is Fault.REWRITES
    moved = Standing([other, replace(second, name="new")], after)
    assert moved.record(1, 4) == Record()


def test_configuration_wins_over_what_was_found_out():
    before = Standing(lists(ipv6=None))
    after = Standing(lists(ipv6=True), before)
    assert evidence(after, 6, [PENDING] * 3) == [PENDING] * 3
    found = Standing(lists(ipv6=None))
    found.discover(0, 6)
    assert Standing(lists(ipv6=None), found).serves(0, 6)


def test_without_lists_nothing_is_withheld():
    given = []
    Standing([]).withhold(4, given)
    assert given == []


def test_a_list_in_doubt_is_named_by_its_place_in_the_family_s_panel():
    first, second, third = lists()
    standing = Standing([replace(first, ipv4=False), second, third])
    doubt = Record(State.SUSPECT, symptom=Symptom.HIT_RATE)
    assert standing.doubted(4) == standing.doubted(6) == ()
    standing.publish(2, 4, doubt, 1)
    assert (standing.doubted(4), standing.doubted(6)) == ((1,), ())
    assert evidence(standing, 4, KNOWN[:2]) == KNOWN[:2]
    standing.publish(1, 4, FALLEN, 1)
    assert standing.doubted(4) == (1,)
    assert Standing(standing.lists, standing).doubted(4) == (1,)
    standing.publish(2, 4, replace(doubt, symptom=Symptom.EMPTIED), 1)
    assert standing.doubted(4) == ()
    standing.publish(2, 4, Record(), 1)
    assert evidence(standing, 4, KNOWN[:2]) == [SUSPENDED, KNOWN[1]]


def test_a_failed_proof_is_of_one_family_and_outlasts_a_reload():
    first, second, third = lists()
    standing = Standing([replace(first, ipv6=False), second, third])
    before = time.monotonic()
    standing.disprove(0, 6)
    assert [standing.disproved(place, version) > 0 for place in range(3) for version in (4, 6)] == [False, False, False, True, False, False]
    assert before <= standing.disproved(1, 6) <= time.monotonic()
    assert Standing(standing.lists, standing).disproved(1, 6) == standing.disproved(1, 6)
    # It is for the monitor to draw the conclusion.
    assert evidence(standing, 6, KNOWN[1:]) == KNOWN[1:]


@pytest.mark.parametrize("record", [
    Record(state, 1.5, symptom, strikes, clean, falls)
    for state in State for symptom in (None, *Symptom) for strikes, clean, falls in [(0, 0, 0), (1_000_000, 12, 2)]
])  # fmt: skip
def test_a_record_is_kept_as_it_is(record):
    standing = Standing(lists())
    standing.publish(2, 6, record, 1)
    assert standing.record(2, 6) == record
    assert standing.record(2, 4) == Record()


@pytest.mark.parametrize("fault", [None, *Fault])
def test_a_fault_is_kept_as_it_is(fault):
    standing = Standing([])
    standing.fault = fault
    assert standing.fault is fault
