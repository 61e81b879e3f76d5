"""Lists on probation: every transition a row, every symptom a row, and no clock or flapping list upsets it."""

import math
from dataclasses import replace
from ipaddress import ip_address
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsbl_policy.answers import Clear, Listed, Unknown, Why
from dnsbl_policy.health import CLEAN_ROUNDS, CLEAN_ROUNDS_AGAIN, TOLERANCE, TRANSITIONS, Record, Sign, State, step
from dnsbl_policy.lists import DnsList, Expect, Rule
from dnsbl_policy.shares import ENOUGH_CLIENTS, Baseline, Live, is_deaf, learned, rose
from dnsbl_policy.symptoms import (
    Fault,
    Round,
    Symptom,
    diagnose,
    is_clean,
    operator,
    resolver_fault,
    rfc_entries,
    rfc_entry,
)

OK, SUSPECT, SUSPENDED, PROBATION = State
NOISE, CLEAN, ENOUGH, HINT, DOUBT, CERTAIN = Sign


def number(address):
    return int(ip_address(address))


TWO, TEN, WEB = number("127.0.0.2"), number("127.0.0.10"), number("203.0.113.80")
LISTED, NOT = Listed((TWO,), 300), Clear(60)
TIMEOUT, SERVFAIL, NO = Unknown(Why.TIMEOUT), Unknown(Why.SERVFAIL), Unknown(Why.REFUSED)
PARKED = Unknown(Why.INVALID, (WEB,))
UNREADABLE = Unknown(Why.INVALID)
BLOCKED = Unknown(Why.BLOCKED, (number("127.255.255.254"),))

SANE = Round(LISTED, (NOT, NOT))
MAD = Round(LISTED, (LISTED, LISTED))
PARKED_ROUND = Round(PARKED, (PARKED, PARKED))
REFUSING = Round(BLOCKED, (BLOCKED, BLOCKED))
DEAD = Round(TIMEOUT, (TIMEOUT, TIMEOUT))
EMPTY = Round(NOT, (NOT, NOT))


def run(record, *symptoms, now=0.0):
    """Step through symptoms; None stands for a clean round, and "noise" for one that says nothing."""
    for symptom in symptoms:
        noise = symptom == "noise"
        record = step(record, None if noise else symptom, not noise and symptom is None, now)
    return record


# --- the table


EXPECTED = [
    # from, sign, to
    (OK, NOISE, OK),
    (OK, CLEAN, OK),
    (OK, ENOUGH, OK),
    (OK, HINT, OK),
    (OK, DOUBT, SUSPECT),
    (OK, CERTAIN, SUSPENDED),
    (SUSPECT, NOISE, SUSPECT),
    (SUSPECT, CLEAN, SUSPECT),
    (SUSPECT, ENOUGH, OK),
    (SUSPECT, HINT, SUSPECT),
    (SUSPECT, DOUBT, SUSPECT),
    (SUSPECT, CERTAIN, SUSPENDED),
    (SUSPENDED, NOISE, SUSPENDED),
    (SUSPENDED, CLEAN, SUSPENDED),
    (SUSPENDED, ENOUGH, PROBATION),
    (SUSPENDED, HINT, SUSPENDED),
    (SUSPENDED, DOUBT, SUSPENDED),
    (SUSPENDED, CERTAIN, SUSPENDED),
    (PROBATION, NOISE, PROBATION),
    (PROBATION, CLEAN, PROBATION),
    (PROBATION, ENOUGH, OK),
    (PROBATION, HINT, PROBATION),
    (PROBATION, DOUBT, SUSPENDED),
    (PROBATION, CERTAIN, SUSPENDED),
]


def round_with(sign, record):
    """Return the arguments of a step that come to a sign, and the record that it takes."""
    match sign:
        case Sign.NOISE:
            return record, None, False
        case Sign.CLEAN:
            return record, None, True
        case Sign.ENOUGH:
            return replace(record, clean=CLEAN_ROUNDS[record.state] - 1), None, True
        case Sign.HINT:
            return record, Symptom.SILENT, False
        case Sign.DOUBT:
            return replace(record, strikes=1), Symptom.SILENT, False
        case Sign.CERTAIN:
            return record, Symptom.LISTS_THE_WORLD, False


def test_the_table_is_whole():
    assert [(state, sign) for state, sign, _ in EXPECTED] == list(product(State, Sign))
    assert all(len(row) == len(Sign) for row in TRANSITIONS.values())


@pytest.mark.parametrize(("before", "sign", "after"), EXPECTED)
def test_a_transition(before, sign, after):
    assert TRANSITIONS[before][sign] is after
    if (before, sign) == (SUSPENDED, CLEAN):
        return  # one clean round is enough there
    record, symptom, clean = round_with(sign, Record(before, since=5.0))
    stepped = step(record, symptom, clean, 9.0)
    assert stepped.state is after
    assert stepped.since == (5.0 if after is before else 9.0)


# --- symptoms


SYMPTOMS = [
    # evidence, expected code, what it says
    (SANE, None, None),
    (Round(LISTED, (NOT, NOT), disproved=True), None, Symptom.FAILED_PROOF),
    (MAD, None, Symptom.LISTS_THE_WORLD),
    (Round(LISTED, (LISTED, NOT)), None, Symptom.LISTS_THE_WORLD),
    (Round(LISTED, (NOT, LISTED)), None, Symptom.LISTS_THE_WORLD),
    (Round(LISTED, (TIMEOUT, LISTED)), None, Symptom.LISTS_THE_WORLD),
    (PARKED_ROUND, None, Symptom.FOREIGN),
    (Round(LISTED, (NOT, PARKED)), None, Symptom.FOREIGN),
    (Round(PARKED, (NOT, NOT)), None, Symptom.FOREIGN),
    (REFUSING, None, Symptom.REFUSES),
    (Round(LISTED, (BLOCKED, NOT)), None, Symptom.REFUSES),
    (Round(TIMEOUT, (BLOCKED, TIMEOUT)), None, Symptom.REFUSES),
    (DEAD, None, Symptom.SILENT),
    (Round(SERVFAIL, (SERVFAIL, SERVFAIL)), None, Symptom.SILENT),
    (Round(NO, (NO, NO)), None, Symptom.SILENT),
    (Round(UNREADABLE, (TIMEOUT, SERVFAIL)), None, Symptom.SILENT),
    (Round(None, (TIMEOUT,)), None, Symptom.SILENT),
    (replace(SANE, deaf=True), None, Symptom.SILENT),
    (EMPTY, None, Symptom.EMPTIED),
    (Round(NOT, ()), None, Symptom.EMPTIED),
    (Round(None, (NOT,)), None, None),
    (Round(LISTED, ()), None, None),
    (Round(), None, None),
    (SANE, "127.0.0.2", None),
    (SANE, "127.0.0.[2..4]", None),
    (SANE, "127.0.0.10", Symptom.WRONG_CODE),
    (Round(Listed((TWO, TEN), 1), (NOT,)), "127.0.0.10", None),
    (SANE, "none", None),
    (replace(SANE, rose=True), None, Symptom.HIT_RATE),
    (replace(EMPTY, rose=True), None, Symptom.EMPTIED),
    (replace(SANE, rose=True), "127.0.0.10", Symptom.HIT_RATE),
    (replace(MAD, disproved=True), None, Symptom.FAILED_PROOF),
    (Round(LISTED, (TIMEOUT, NOT)), None, None),
    (Round(TIMEOUT, (NOT, NOT)), None, None),
]


@pytest.mark.parametrize(("evidence", "expected", "symptom"), SYMPTOMS)
def test_a_symptom(evidence, expected, symptom):
    assert diagnose(evidence, expected, None) is symptom


@pytest.mark.parametrize(("evidence", "fault", "clean"), [
    (SANE, None, True),
    (SANE, Fault.DOWN, True),
    (SANE, Fault.REFUSED, True),
    (SANE, Fault.REWRITES, False),
    (Round(LISTED, (TIMEOUT, NOT)), None, False),
    (Round(TIMEOUT, (NOT,)), None, False),
    (Round(), None, False),
    (Round(None, (NOT,)), None, True),
])  # fmt: skip
def test_a_clean_round_is_one_where_all_was_answered(evidence, fault, clean):
    assert is_clean(evidence, fault) is clean


# --- how often


@pytest.mark.parametrize(("symptom", "states"), [
    (Symptom.FAILED_PROOF, [SUSPENDED]),
    (Symptom.LISTS_THE_WORLD, [SUSPENDED]),
    (Symptom.FOREIGN, [SUSPENDED]),
    (Symptom.REFUSES, [SUSPECT, SUSPENDED]),
    (Symptom.SILENT, [OK, SUSPECT, SUSPENDED]),
    (Symptom.EMPTIED, [SUSPECT, SUSPECT, SUSPENDED]),
    (Symptom.WRONG_CODE, [SUSPECT] * 50),
    (Symptom.HIT_RATE, [SUSPECT] * 50),
])  # fmt: skip
def test_a_symptom_that_stays(symptom, states):
    record, seen = Record(), []
    for _ in states:
        record = step(record, symptom, False, 0.0)
        seen.append(record.state)
    assert seen == states
    assert set(TOLERANCE) == set(Symptom)


@pytest.mark.parametrize("lost", range(3))
def test_one_lost_packet_changes_nothing(lost):
    answers = [LISTED, NOT, NOT]
    answers[lost] = TIMEOUT
    evidence = Round(answers[0], tuple(answers[1:]))
    for record in (Record(), Record(SUSPECT, strikes=1), Record(SUSPENDED), Record(PROBATION, clean=2)):
        assert step(record, diagnose(evidence, None, None), is_clean(evidence, None), 1.0) == record


def test_one_round_of_silence_changes_nothing_even_for_a_list_with_a_single_probe():
    assert run(Record(), diagnose(Round(None, (TIMEOUT,)), None, None)).state is OK


def test_a_symptom_that_comes_and_goes_adds_up():
    assert run(Record(), *[Symptom.EMPTIED, None] * 2, Symptom.EMPTIED).state is SUSPENDED


def test_two_clean_rounds_in_a_row_clear_a_suspect():
    suspect = run(Record(), Symptom.EMPTIED, Symptom.EMPTIED)
    assert run(suspect, None).state is SUSPECT
    assert run(suspect, None, Symptom.EMPTIED).state is SUSPENDED
    cleared = run(suspect, None, None)
    assert (cleared.state, cleared.strikes, cleared.symptom) == (OK, 0, None)


def test_silence_long_ago_is_forgotten():
    assert run(Record(), Symptom.SILENT, None, None, Symptom.SILENT).state is OK
    assert run(Record(), Symptom.SILENT, Symptom.SILENT).state is SUSPECT


def rounds_until_ok(record):
    rounds = 0
    while record.state is not OK:
        record = run(record, None)
        rounds += 1
    return rounds, record


def test_a_list_returns_by_way_of_probation():
    fallen = run(Record(), Symptom.LISTS_THE_WORLD)
    states = []
    for _ in range(4):
        fallen = run(fallen, None)
        states.append(fallen.state)
    assert states == [PROBATION, PROBATION, PROBATION, OK]


def test_a_list_that_falls_again_takes_six_clean_rounds_and_never_more():
    record = Record()
    taken = []
    for _ in range(6):
        rounds, record = rounds_until_ok(run(record, Symptom.LISTS_THE_WORLD))
        taken.append(rounds)
    assert taken == [4, 6, 6, 6, 6, 6]
    assert 1 + CLEAN_ROUNDS_AGAIN == 6


def test_a_list_that_has_been_good_for_long_is_forgiven():
    _, record = rounds_until_ok(run(Record(), Symptom.FOREIGN))
    assert rounds_until_ok(run(record, *[None] * 11, Symptom.FOREIGN))[0] == 6
    assert rounds_until_ok(run(record, *[None] * 12, Symptom.FOREIGN))[0] == 4


def test_why_a_list_is_not_ok_is_remembered_until_it_is():
    record = run(Record(), Symptom.EMPTIED, Symptom.EMPTIED, Symptom.LISTS_THE_WORLD, None)
    assert (record.state, record.symptom) == (PROBATION, Symptom.LISTS_THE_WORLD)
    assert rounds_until_ok(record)[1].symptom is None


def test_a_relapse_on_probation_suspends_at_once_but_not_for_a_lost_packet():
    probation = run(Record(), Symptom.LISTS_THE_WORLD, None)
    assert run(probation, Symptom.EMPTIED).state is SUSPENDED
    assert run(probation, Symptom.SILENT).state is PROBATION
    assert run(probation, Symptom.SILENT, Symptom.SILENT).state is SUSPENDED
    assert run(probation, "noise", "noise").state is PROBATION


BLEMISHES = [Symptom.HIT_RATE, Symptom.WRONG_CODE]


@pytest.mark.parametrize("blemish", BLEMISHES)
def test_what_never_suspends_adds_no_strikes(blemish):
    """A list that is suspect for months is not suspended for two lost packets."""
    suspect = run(Record(), *[blemish] * 50)
    assert (suspect.state, suspect.symptom, suspect.strikes) == (SUSPECT, blemish, 0)
    assert run(suspect, Symptom.SILENT, Symptom.SILENT).state is SUSPECT
    assert run(suspect, *[Symptom.SILENT] * 3).state is SUSPENDED


@pytest.mark.parametrize("blemish", BLEMISHES)
def test_what_never_suspends_keeps_no_list_suspended(blemish):
    """SORBS comes back with another code for its test entry: as soon as any other list, and as a suspect."""
    record, states = run(Record(), *[Symptom.EMPTIED] * 3), []
    for _ in range(6):
        record = step(record, blemish, True, 0.0)
        states.append(record.state)
    assert states == [PROBATION, PROBATION, PROBATION, OK, SUSPECT, SUSPECT]
    assert record.symptom is blemish
    fallen = run(Record(), Symptom.FOREIGN)
    assert step(fallen, blemish, False, 0.0) == fallen


def test_a_blemish_is_forgiven_after_two_clean_rounds_in_a_row():
    suspect = run(Record(), Symptom.HIT_RATE, None, Symptom.HIT_RATE, None)
    assert suspect.state is SUSPECT
    assert run(suspect, None).state is OK


@pytest.mark.parametrize(("rounds", "doubted"), [
    ([Symptom.HIT_RATE], True),
    ([Symptom.HIT_RATE, None], True),
    ([Symptom.HIT_RATE, "noise"], True),
    ([Symptom.HIT_RATE, Symptom.SILENT], True),  # a lost packet does not set it free
    ([Symptom.HIT_RATE, None, None], False),
    ([Symptom.HIT_RATE, Symptom.EMPTIED], False),
    ([Symptom.WRONG_CODE], False),
    ([Symptom.EMPTIED], False),
    ([], False),
])  # fmt: skip
def test_whose_word_may_keep_nobody_out(rounds, doubted):
    assert run(Record(), *rounds).doubted is doubted


symptoms = st.lists(st.one_of(st.none(), st.just("noise"), st.sampled_from(Symptom)), max_size=80)
moments = st.floats(allow_nan=True, allow_infinity=True)


@given(symptoms, st.lists(moments, min_size=1))
def test_a_clock_that_jumps_changes_no_state(events, clock):
    steady = jumping = Record()
    for place, event in enumerate(events):
        noise = event == "noise"
        symptom, clean = (None, not noise) if noise or event is None else (event, False)
        steady = step(steady, symptom, clean, float(place))
        jumping = step(jumping, symptom, clean, clock[place % len(clock)])
        assert replace(jumping, since=0) == replace(steady, since=0)
        assert math.isnan(jumping.since) or jumping.since in (*clock, 0.0)


@given(symptoms)
def test_whatever_happened_six_clean_rounds_are_enough(events):
    assert rounds_until_ok(run(Record(), *events))[0] <= 6


@given(symptoms)
def test_nothing_uncertain_suspends_before_it_has_come_twice(events):
    uncertain = [event for event in events if event in (None, "noise", Symptom.SILENT, Symptom.EMPTIED, Symptom.HIT_RATE)]
    record, bad = Record(), 0
    for event in uncertain:
        before, record = record, run(record, event)
        bad += event not in (None, "noise")
        if before.state is not SUSPENDED and record.state is SUSPENDED and before.state is not PROBATION:
            assert bad >= 3
            bad = 0


@given(st.lists(st.booleans(), max_size=100))
def test_a_list_that_flaps_is_asked_only_after_four_clean_rounds_in_a_row(mad):
    record, clean, fell = Record(), 0, False
    for each in mad:
        record = run(record, Symptom.LISTS_THE_WORLD if each else None)
        clean = 0 if each else clean + 1
        fell |= each
        assert not record.state.trusted or not fell or clean >= 4


# --- the resolver


LISTS = ["spamhaus", "spamcop", "surriel", "uceprotect", "barracudacentral"]


def rounds(**bad):
    return [(name, bad.get(name, SANE)) for name in LISTS]


@pytest.mark.parametrize(("control", "latest", "fault"), [
    ((NOT,), rounds(), None),
    ((), rounds(), None),
    ((NO, NO), rounds(), None),
    ((TIMEOUT, SERVFAIL), rounds(), None),
    ((PARKED, NOT), rounds(), Fault.REWRITES),
    ((NOT, PARKED), rounds(), Fault.REWRITES),
    ((LISTED,), rounds(), Fault.REWRITES),
    ((PARKED,), [], Fault.REWRITES),
    ((NOT,), rounds(spamcop=PARKED_ROUND), None),
    ((NOT,), rounds(spamcop=REFUSING), None),
    ((NOT,), rounds(spamcop=REFUSING, spamhaus=REFUSING), None),
    ((NOT,), rounds(spamcop=REFUSING, spamhaus=REFUSING, surriel=REFUSING), Fault.REFUSED),
    ((NOT,), rounds(spamcop=REFUSING, spamhaus=REFUSING)[:3], Fault.REFUSED),
    ((NOT,), [("spamhaus", REFUSING)] * 5, None),
    ((NOT,), rounds(spamcop=DEAD), None),
    ((TIMEOUT,), rounds(spamcop=DEAD), None),
    ((TIMEOUT,), [(name, DEAD) for name in LISTS], Fault.DOWN),
    ((NOT,), [(name, DEAD) for name in LISTS], Fault.DOWN),
    ((TIMEOUT,), [("spamcop", DEAD)], Fault.DOWN),
    ((NOT,), [("spamcop", DEAD)], None),
    ((TIMEOUT,), [], None),
    ((TIMEOUT,), [("spamcop", Round())], None),
])  # fmt: skip
def test_a_fault_of_the_resolver(control, latest, fault):
    assert resolver_fault(control, latest) is fault


@pytest.mark.parametrize(("evidence", "fault", "symptom"), [
    (PARKED_ROUND, Fault.REWRITES, None),
    (Round(LISTED, (PARKED, PARKED)), Fault.REWRITES, None),
    (Round(LISTED, (Listed((WEB,), 9), NOT)), Fault.REWRITES, None),
    (Round(LISTED, (PARKED,), disproved=True), Fault.REWRITES, None),
    (MAD, Fault.REWRITES, Symptom.LISTS_THE_WORLD),
    (EMPTY, Fault.REWRITES, Symptom.EMPTIED),
    (REFUSING, Fault.REWRITES, Symptom.REFUSES),
    (REFUSING, Fault.REFUSED, None),
    (Round(LISTED, (BLOCKED,), disproved=True), Fault.REFUSED, None),
    (PARKED_ROUND, Fault.REFUSED, Symptom.FOREIGN),
    (MAD, Fault.REFUSED, Symptom.LISTS_THE_WORLD),
    (DEAD, Fault.DOWN, None),
    (replace(DEAD, deaf=True), Fault.DOWN, None),
    (replace(SANE, deaf=True), Fault.REWRITES, None),
    (replace(SANE, deaf=True), Fault.REFUSED, None),
    (replace(SANE, rose=True), Fault.REWRITES, None),
    (replace(SANE, rose=True), Fault.REFUSED, None),
    (DEAD, Fault.REFUSED, Symptom.SILENT),
    (MAD, Fault.DOWN, Symptom.LISTS_THE_WORLD),
])  # fmt: skip
def test_the_resolver_s_fault_is_held_against_no_list(evidence, fault, symptom):
    assert diagnose(evidence, None, fault, {WEB}) is symptom


def test_a_rewriting_resolver_may_lie_inside_127_too():
    evidence = Round(LISTED, (Listed((TEN,), 1), NOT))
    assert diagnose(evidence, None, Fault.REWRITES, {TEN}) is None
    assert diagnose(evidence, None, Fault.REWRITES, {WEB}) is Symptom.LISTS_THE_WORLD


# --- what is asked


def a_list(zone="bl.example.net", listed=None, clear=None):
    return DnsList("name", zone, (Rule(400),), expect=Expect(listed, clear))


def test_the_test_entries_are_those_of_the_standard():
    assert rfc_entries(a_list(), 4) == (ip_address("127.0.0.2"), ip_address("127.0.0.1"))
    assert rfc_entries(a_list(), 6) == (ip_address("::ffff:7f00:2"), ip_address("::ffff:7f00:1"))
    assert rfc_entry(6, 2).version == 6


@pytest.mark.parametrize(("listed", "clear", "entries"), [
    ("none", None, (None, ip_address("127.0.0.1"))),
    ("127.0.10.0", None, (ip_address("127.0.0.2"), ip_address("127.0.0.1"))),
    (None, "none", (ip_address("127.0.0.2"), None)),
    (None, "127.128.0.0/9", (ip_address("127.0.0.2"), None)),
])  # fmt: skip
def test_exceptions_hold(listed, clear, entries):
    assert rfc_entries(a_list(listed=listed, clear=clear), 4) == entries


@pytest.mark.parametrize(("zone", "name"), [
    ("zen.spamhaus.org", "spamhaus"),
    ("key.zen.dq.spamhaus.net", "spamhaus"),
    ("bl.spamcop.net", "spamcop"),
    ("zen.example", "zen"),
    ("bip.virusfree.cz", "virusfree"),
    ("bl.lists.co.uk", "lists"),
    ("Z.MailSpike.net", "mailspike"),
])  # fmt: skip
def test_an_operator_is_known_by_the_zone(zone, name):
    assert operator(a_list(zone)) == name


# --- live evidence


QUIET, BUSY = Baseline(0.02, 200), Baseline(0.4, 300)
AS_EVER = [(QUIET, Live(30, 1))]


@pytest.mark.parametrize(("baseline", "live", "others", "jumped"), [
    (QUIET, Live(30, 10), AS_EVER, True),
    (QUIET, Live(30, 30), AS_EVER, True),
    (QUIET, Live(30, 2), AS_EVER, False),
    (QUIET, Live(ENOUGH_CLIENTS, 7), AS_EVER, True),  # one in three
    (QUIET, Live(ENOUGH_CLIENTS - 1, 19), AS_EVER, False),
    (QUIET, Live(40, 10, failed=30), AS_EVER, False),
    (Baseline(), Live(30, 30), AS_EVER, False),
    (Baseline(0.0, 19), Live(30, 30), AS_EVER, False),
    (BUSY, Live(30, 14), AS_EVER, False),
    (BUSY, Live(30, 26), AS_EVER, True),
    (Baseline(0.95, 300), Live(30, 30), AS_EVER, False),
    # a wave of spam: the others rise too, each as far as it knows the wave
    (QUIET, Live(30, 15), [(QUIET, Live(30, 14))], False),
    (BUSY, Live(30, 27), [(BUSY, Live(30, 25))], False),
    (BUSY, Live(30, 27), [(Baseline(0.1, 300), Live(30, 7))], False),
    (BUSY, Live(30, 27), [(Baseline(0.1, 300), Live(30, 7)), (QUIET, Live(30, 1)), (QUIET, Live(30, 2))], False),
    (BUSY, Live(30, 27), [(Baseline(0.1, 300), Live(30, 3)), (QUIET, Live(30, 1)), (QUIET, Live(30, 0))], True),
    (QUIET, Live(30, 15), [(QUIET, Live(30, 1))], True),
    (QUIET, Live(30, 15), [(QUIET, Live(30, 1)), (QUIET, Live(30, 0)), (QUIET, Live(30, 14))], True),
    # nobody to compare with: a lone list is not disarmed by every attack
    (QUIET, Live(30, 30), [], False),
    (QUIET, Live(30, 15), [(Baseline(), Live(30, 1)), (QUIET, Live(3, 0))], False),
])  # fmt: skip
def test_a_hit_rate_that_jumps(baseline, live, others, jumped):
    assert rose(baseline, live, others) is jumped


@given(st.floats(0.15, 0.9), st.lists(st.floats(0.25, 1.0), min_size=2, max_size=6), st.integers(40, 400))
def test_no_list_rises_by_itself_in_a_wave_of_spam(spam, coverages, clients):
    """Nine connections in ten are spam at once, and each list knows its own part of it."""
    usual = [Baseline(spam * coverage, 400) for coverage in coverages]
    wave = [Live(clients, round(0.9 * coverage * clients)) for coverage in coverages]
    lists = list(zip(usual, wave, strict=True))
    for place, (baseline, live) in enumerate(lists):
        assert not rose(baseline, live, lists[:place] + lists[place + 1 :])


@given(st.integers(20, 200), st.floats(0, 1))
def test_a_rate_at_its_usual_level_never_jumps(asked, share):
    listed = round(asked * share)
    assert not rose(Baseline(listed / asked, 200), Live(asked, listed), AS_EVER)


@pytest.mark.parametrize(("live", "deaf"), [
    (Live(30, 0, 30), True), (Live(30, 0, 27), True), (Live(30, 0, 26), False), (Live(5, 0, 5), False), (Live(), False),
])  # fmt: skip
def test_a_list_that_gives_clients_nothing(live, deaf):
    assert is_deaf(live) is deaf


def test_a_baseline_learns_and_forgets():
    baseline = Baseline().learn(Live(100, 10))
    assert baseline == Baseline(0.1, 100)
    assert baseline.learn(Live(100, 30)).share == pytest.approx(0.2)
    assert Baseline().learn(Live(5, 0, 5)) == Baseline()
    old = Baseline(0.1, 1e6).learn(Live(1, 0))
    assert old.clients == 400


def test_a_jump_hardly_moves_the_baseline_but_a_lasting_level_becomes_usual():
    baseline = QUIET
    assert learned(baseline, Live(30, 10), risen=True).share < 0.03
    assert rose(baseline, Live(30, 10), AS_EVER)
    for _ in range(200):
        baseline = learned(baseline, Live(30, 10), rose(baseline, Live(30, 10), AS_EVER))
    assert not rose(baseline, Live(30, 10), AS_EVER)


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0, 1), st.floats(0, 1)), max_size=30))
def test_a_baseline_is_always_a_share(windows):
    baseline = Baseline()
    for asked, of_answered, of_asked in windows:
        failed = int(asked * of_asked)
        baseline = baseline.learn(Live(asked, int((asked - failed) * of_answered), failed))
        assert 0 <= baseline.share <= 1 + 1e-9
        assert 0 <= baseline.clients <= 400
