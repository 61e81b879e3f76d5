"""Asking lists over real sockets, of name servers that do all that name servers do."""

import gc
import os
import resource
import select
import socket
import threading
import time
from ipaddress import ip_address
from pathlib import Path

import pytest
from faulty import FORMERR, NOTIMP, REFUSED, SERVFAIL, SILENCE, NameServer, Reply, clear, failure, listed

from dnsbl_milter import breaker as breaker_module
from dnsbl_milter import resolver as module
from dnsbl_milter.breaker import Breaker
from dnsbl_milter.inquiry import Inquiry, Lookup, ask
from dnsbl_milter.nameserver import Nameserver, parse_nameserver
from dnsbl_milter.resolver import Resolver
from dnsbl_policy.answers import PENDING, Clear, Listed, Unknown, Why
from dnsbl_policy.lists import DnsList, Rule

CLIENT = ip_address("192.0.2.7")
OTHERS = [ip_address(f"198.51.100.{last}") for last in range(1, 200)]
TWO, FOUR, TEN = 0x7F000002, 0x7F000004, 0x7F00000A

TIMEOUT = Unknown(Why.TIMEOUT)
LEFT_ALONE = Unknown(Why.LEFT_ALONE)

SHORT = 0.3
"""The deadline, in seconds, of a test that waits for it."""
LONG = 8.0
"""The deadline of a test in which nobody should wait for it; and of a retry that should not come."""
SOON = 3.0
"""Seconds that are generous for what should happen at once, and still far from `LONG`."""


def panel(count, **options):
    return [DnsList(f"list{place}", f"list{place}.example", (Rule(400),), **options) for place in range(count)]


def zones(count, behaviour):
    return {f"list{place}.example": behaviour for place in range(count)}


def resolver(*servers, count=1, deadline=LONG, retry=LONG, lists=None):
    """Make a resolver that asks these servers about so many lists."""
    nameservers = [parse_nameserver(getattr(server, "text", server)) for server in servers]
    return Resolver(nameservers, lists or panel(count), deadline=deadline, retry=retry)


def never(evidence):
    """Be satisfied with nothing less than an answer of every list."""
    return False


def at_once(evidence):
    """Be satisfied with what is known."""
    return True


def begin(house, client=CLIENT):
    return ask(house, client, [PENDING] * len(house.lists))


def look_up(house, client=CLIENT, settled=never):
    """Ask every list, wait, close; return the evidence, the seconds that it took, and what became of the questions."""
    start = time.monotonic()
    inquiry = begin(house, client)
    inquiry.wait(settled)
    took = time.monotonic() - start
    lookups = inquiry.close()
    return inquiry.evidence, took, lookups


def until(condition):
    """Wait for a condition."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "in vain"
        time.sleep(0.002)


def talk(seconds):
    """Let the client talk for so long: where time alone is what matters, that it has passed is the condition."""
    time.sleep(seconds)


def readable(inquiry):
    """Tell whether something lies in a socket of the inquiry."""
    poll = select.poll()
    for udp in inquiry._sockets.values():
        poll.register(udp, select.POLLIN)
    return bool(poll.poll(0))


def descriptors():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture(autouse=True)
def _no_descriptor_is_left():
    """Count descriptors before the servers start and after they have stopped."""
    before = descriptors()
    yield
    gc.collect()  # what nobody closed makes a ResourceWarning, and that is an error
    assert descriptors() == before


@pytest.fixture
def dead(start_name_server):
    """Start a name server that hears and never answers."""
    return start_name_server(handler=lambda _: SILENCE)


# --- asking


def test_every_list_is_asked_at_once_from_one_socket_and_before_anyone_waits(name_server):
    inquiry = begin(resolver(name_server, count=8))
    questions = name_server.wait_for(8)
    assert [question.name for question in questions] == [f"7.2.0.192.list{place}.example" for place in range(8)]
    assert {question.kind for question in questions} == {"A"}
    assert len({question.source for question in questions}) == 1
    assert len({question.identifier for question in questions}) == 8
    inquiry.close()


def test_an_ipv6_client_is_asked_about_in_nibbles(start_name_server):
    server = start_name_server({"list0.example": {"2001:db8::7": listed("127.0.0.4")}})
    evidence, _, _ = look_up(resolver(server), ip_address("2001:db8::7"))
    assert evidence == [Listed((FOUR,), 300)]
    assert server.questions[0].name == "7" + 23 * ".0" + ".8.b.d.0.1.0.0.2.list0.example"


def test_ports_and_identifiers_are_drawn_anew_for_each_client(name_server):
    house = resolver(name_server)
    inquiries = [begin(house, client) for client in OTHERS[:50]]
    questions = name_server.wait_for(50)
    for inquiry in inquiries:
        inquiry.close()
    assert len({question.source for question in questions}) == 50
    identifiers = [question.identifier for question in questions]
    assert len(set(identifiers)) > 40
    assert max(identifiers) - min(identifiers) > 10_000


def test_a_resolver_may_be_asked_over_ipv6(start_name_server):
    server = start_name_server(zones(2, listed()), address="::1")
    evidence, _, _ = look_up(resolver(server, count=2))
    assert evidence == [Listed((TWO,), 300)] * 2


def test_only_lists_without_an_answer_are_asked(start_name_server):
    server = start_name_server(zones(4, listed()))
    house = resolver(server, count=4)
    known = [Clear(50), PENDING, Unknown(Why.SUSPENDED), PENDING]
    inquiry = ask(house, CLIENT, known)
    inquiry.wait(never)
    assert [lookup.place for lookup in inquiry.close()] == [1, 3]
    assert inquiry.evidence == [Clear(50), Listed((TWO,), 300), Unknown(Why.SUSPENDED), Listed((TWO,), 300)]
    assert [question.zone for question in server.questions] == ["list1.example", "list3.example"]
    assert known[1] is PENDING, "the caller's own list stays as it was"


def test_nothing_is_opened_when_everything_is_known(name_server):
    house = resolver(name_server, count=2)
    before = descriptors()
    inquiry = ask(house, CLIENT, [Clear(50), Unknown(Why.TIMEOUT)])
    assert descriptors() == before
    assert not inquiry.pending
    assert inquiry.wait(never) < SOON
    assert inquiry.close() == []
    assert inquiry.evidence == [Clear(50), TIMEOUT]


# --- what is answered

ANSWERS = {
    "listed": (listed("127.0.0.2"), Listed((TWO,), 300)),
    "several codes": (listed("127.0.0.10", "127.0.0.2", "127.0.0.4", ttl=77), Listed((TWO, FOUR, TEN), 77)),
    "not listed": (clear(), Clear(60)),
    "not listed, no SOA": (clear(negative_ttl=None), Clear(0)),
    "a name without addresses": (Reply(negative_ttl=90), Clear(90)),
    "an alias": (listed("127.0.0.4", alias="elsewhere.example."), Listed((FOUR,), 300)),
    "another case": (listed(mixed_case=True), Listed((TWO,), 300)),
    "late": (listed(delay=0.1), Listed((TWO,), 300)),
    "servfail": (failure(SERVFAIL), Unknown(Why.SERVFAIL)),
    "servfail that does not repeat the question": (
        failure(SERVFAIL, without_question=True),
        Unknown(Why.SERVFAIL),
    ),
    "refused": (failure(REFUSED), Unknown(Why.REFUSED)),
    "a failure with addresses": (failure(SERVFAIL, codes=("127.0.0.2",)), Unknown(Why.SERVFAIL)),
    "a failure of format": (failure(FORMERR), Unknown(Why.INVALID)),
    "not implemented": (failure(NOTIMP), Unknown(Why.INVALID)),
    "outside 127/8": (listed("203.0.113.5"), Unknown(Why.INVALID, (0xCB007105,))),
    "outside 127/8 beside a code": (
        listed("127.0.0.2", "203.0.113.5"),
        Unknown(Why.INVALID, (TWO, 0xCB007105)),
    ),
    "an operator's error code": (listed("127.255.255.254"), Unknown(Why.BLOCKED, (0x7FFFFFFE,))),
    "octets after the end": (listed(junk=b"junk"), Unknown(Why.INVALID)),
    "octets after the end of not listed": (clear(junk=b"\0"), Unknown(Why.INVALID)),
    "cut short, and whole over TCP": (listed("127.0.0.4", truncated=True), Listed((FOUR,), 300)),
    "cut short, and not listed over TCP": (clear(truncated=True), Clear(60)),
    "cut short, and a failure over TCP": (failure(SERVFAIL, truncated=True, codes=()), Unknown(Why.SERVFAIL)),
    "very many codes over TCP": (
        listed(*(f"127.0.1.{last}" for last in range(200)), truncated=True),
        Listed(tuple(0x7F000100 + last for last in range(200)), 300),
    ),
    "the same reply twice": ((listed(), listed()), Listed((TWO,), 300)),
}


@pytest.mark.parametrize(("behaviour", "expected"), ANSWERS.values(), ids=ANSWERS.keys())
def test_what_a_list_answers(start_name_server, behaviour, expected):
    server = start_name_server(zones(1, behaviour))
    evidence, waited, lookups = look_up(resolver(server))
    found = evidence[0]
    if isinstance(found, Unknown):
        found = Unknown(found.why, tuple(sorted(found.codes)))
    assert found == expected
    assert waited < SOON
    assert [(lookup.place, lookup.answer) for lookup in lookups] == [(0, evidence[0])]
    assert lookups[0].seconds is not None
    assert 0 <= lookups[0].seconds < SOON


def test_of_two_replies_the_first_counts(start_name_server):
    server = start_name_server(zones(2, (listed(), clear(), failure(SERVFAIL), listed(junk=b"junk"))))
    inquiry = begin(resolver(server, count=2))
    server.wait_for(2)
    server.stop()  # its thread has ended, so everything has been sent
    inquiry.wait(never)
    lookups = inquiry.close()
    assert inquiry.evidence == [Listed((TWO,), 300)] * 2
    assert [lookup.answer for lookup in lookups] == inquiry.evidence


def test_a_list_hears_answers_its_own_way(start_name_server):
    server = start_name_server(zones(1, listed("127.0.0.255")))
    advocate = DnsList("allow", "list0.example", (Rule(-400),))
    evidence, _, lookups = look_up(resolver(server, lists=[advocate]))
    assert evidence == [Unknown(Why.BLOCKED, (0x7F0000FF,))]
    assert lookups[0].answer == evidence[0]


def test_each_list_gets_its_own_answer(start_name_server):
    server = start_name_server({f"list{place}.example": listed(f"127.0.0.{place + 2}") for place in range(8)})
    evidence, _, lookups = look_up(resolver(server, count=8))
    assert evidence == [Listed((TWO + place,), 300) for place in range(8)]
    assert [lookup.place for lookup in lookups] == list(range(8))


# --- forgeries

FORGED = {
    "another identifier": listed("127.0.0.4", wrong_identifier=True),
    "another question": listed("127.0.0.4", wrong_question=True),
    "another source": listed("127.0.0.4", wrong_source=True),
    "another question, cut short": listed(wrong_question=True, truncated=True),
    "another question, a failure": failure(SERVFAIL, wrong_question=True),
    "no question": listed("127.0.0.4", without_question=True),
    "garbage": Reply(raw=b"\xff" * 60),
    "less than a header": Reply(raw=b"\0\0\0"),
    "a single octet": Reply(raw=b"\0"),
}
forged = pytest.mark.parametrize("forgery", FORGED.values(), ids=FORGED.keys())


@forged
def test_what_is_no_reply_to_us_is_ignored_and_the_true_one_still_counts(start_name_server, forgery):
    server = start_name_server(zones(2, (forgery, clear(delay=0.1))))
    evidence, _, lookups = look_up(resolver(server, count=2))
    assert evidence == [Clear(60)] * 2
    assert all(lookup.seconds is not None and lookup.seconds > 0.09 for lookup in lookups)


@forged
def test_what_is_no_reply_to_us_is_no_answer(start_name_server, forgery):
    server = start_name_server(zones(1, forgery))
    evidence, waited, _ = look_up(resolver(server, deadline=SHORT))
    assert evidence == [TIMEOUT]
    assert waited >= SHORT


# --- waiting


def test_what_has_come_is_gathered_without_waiting(start_name_server, monkeypatch):
    server = start_name_server(zones(8, listed()))
    inquiry = begin(resolver(server, count=8))
    server.wait_for(8)
    server.stop()  # its thread has ended, so the replies have been sent
    monkeypatch.setattr(Inquiry, "_poll", lambda *_: pytest.fail("waited"))
    inquiry.wait(never)
    assert len(inquiry.close()) == 8
    assert inquiry.evidence == [Listed((TWO,), 300)] * 8


def test_there_is_one_deadline_for_all_lists(dead):
    house = resolver(dead, count=6, deadline=SHORT)
    evidence, waited, lookups = look_up(house)
    assert evidence == [TIMEOUT] * 6
    assert SHORT <= waited < 4 * SHORT
    assert lookups == [Lookup(place, TIMEOUT, None) for place in range(6)]


def test_the_deadline_counts_from_the_moment_of_waiting(dead):
    inquiry = begin(resolver(dead, deadline=SHORT))
    talk(SHORT + 0.1)
    assert inquiry.pending
    assert inquiry.wait(never) >= SHORT
    assert inquiry.evidence == [TIMEOUT]
    inquiry.close()


def test_who_answers_in_time_is_not_hurt_by_who_does_not(start_name_server):
    server = start_name_server(zones(4, listed()) | {"list2.example": SILENCE})
    evidence, waited, lookups = look_up(resolver(server, count=4, deadline=SHORT))
    assert evidence == [Listed((TWO,), 300), Listed((TWO,), 300), TIMEOUT, Listed((TWO,), 300)]
    assert waited >= SHORT
    assert [lookup.seconds is None for lookup in lookups] == [False, False, True, False]


def test_waiting_ends_as_soon_as_enough_is_known(start_name_server):
    server = start_name_server({"list0.example": SILENCE, "list1.example": listed(delay=0.1)})
    inquiry = begin(resolver(server, count=2))
    assert inquiry.wait(lambda evidence: isinstance(evidence[1], Listed)) < SOON
    assert inquiry.evidence == [PENDING, Listed((TWO,), 300)]
    assert inquiry.pending
    inquiry.close()


def test_nobody_waits_when_enough_is_known_from_the_start(dead):
    inquiry = begin(resolver(dead))
    assert inquiry.wait(at_once) < SOON
    assert inquiry.evidence == [PENDING]
    inquiry.close()


def test_a_second_wait_finds_what_the_first_left_out(start_name_server):
    server = start_name_server(zones(1, listed(delay=0.1)))
    inquiry = begin(resolver(server))
    inquiry.wait(at_once)
    inquiry.wait(never)
    assert inquiry.evidence == [Listed((TWO,), 300)]
    assert inquiry.wait(never) < SOON
    inquiry.close()


def test_a_list_may_have_less_time_than_the_deadline(start_name_server):
    server = start_name_server({"list0.example": SILENCE, "list1.example": listed(delay=0.4)})
    lists = [*panel(1, timeout=0.1), panel(2)[1]]
    moments = []

    def settled(evidence):
        if evidence[0] == TIMEOUT and not moments:
            moments.append(time.monotonic())
        return False

    start = time.monotonic()
    evidence, waited, _ = look_up(resolver(server, lists=lists), settled=settled)
    assert evidence == [TIMEOUT, Listed((TWO,), 300)]
    assert waited < SOON
    # It was given up while the other was still out.
    assert 0.1 <= moments[0] - start < waited


def test_a_lists_own_time_counts_from_when_it_was_asked(dead):
    inquiry = begin(resolver(dead, lists=panel(1, timeout=0.1)))
    talk(0.15)
    assert inquiry.wait(never) < SOON
    assert inquiry.evidence == [TIMEOUT]
    inquiry.close()


def test_an_answer_that_is_there_counts_though_its_time_is_over(start_name_server):
    server = start_name_server(zones(1, listed(delay=0.1)))
    inquiry = begin(resolver(server, lists=panel(1, timeout=0.02)))
    until(lambda: readable(inquiry))
    inquiry.wait(never)
    assert inquiry.evidence == [Listed((TWO,), 300)]
    inquiry.close()


def test_latency_is_the_kernels_and_not_the_readers(start_name_server):
    server = start_name_server({"list0.example": listed(), "list1.example": listed(delay=0.2)})
    inquiry = begin(resolver(server, count=2))
    server.wait_for(2)
    talk(2.0)
    inquiry.wait(never)
    first, second = inquiry.close()
    assert first.seconds is not None
    assert second.seconds is not None
    assert 0 < first.seconds < 1.7
    assert 0.19 < second.seconds < 1.9


def test_the_kernel_stamps_replies_for_as_long_as_there_is_a_resolver(name_server):
    """Else it would begin a moment after the first question, and the first replies would look slow."""
    before = descriptors()
    house = resolver(name_server)
    assert descriptors() == before + 1
    del house
    assert descriptors() == before


# --- retry and failing over


def test_the_next_nameserver_is_asked_after_a_silence(start_name_server, dead):
    other = start_name_server(zones(3, listed()))
    evidence, waited, lookups = look_up(resolver(dead, other, count=3, retry=0.2))
    assert evidence == [Listed((TWO,), 300)] * 3
    assert 0.2 <= waited < SOON
    assert all(lookup.seconds > 0.19 for lookup in lookups)
    assert len(dead.questions) == len(other.questions) == 3
    assert min(question.arrived for question in other.questions) - dead.questions[0].arrived > 0.15
    assert len({question.source for question in other.questions}) == 1


def test_nameservers_are_asked_in_turn_until_the_deadline(start_name_server, dead):
    other = start_name_server(handler=lambda _: SILENCE)
    _, _, lookups = look_up(resolver(dead, other, deadline=1.0, retry=0.1))
    assert [lookup.answer for lookup in lookups] == [TIMEOUT]
    assert len(dead.questions) >= 2
    assert len(other.questions) >= 2
    assert len(dead.questions) + len(other.questions) <= 11
    # One socket for each, however often they were asked.
    assert len({question.source for question in dead.questions}) == 1
    assert len({question.source for question in other.questions}) == 1


def test_an_only_nameserver_is_asked_again(start_name_server):
    lost = []

    def lose_the_first(question):
        if question.zone == "list1.example" and not lost:
            lost.append(question)
            return SILENCE
        return None

    server = start_name_server(zones(3, listed()), lose_the_first)
    evidence, waited, _ = look_up(resolver(server, count=3, retry=0.1))
    assert evidence == [Listed((TWO,), 300)] * 3
    assert 0.1 <= waited < SOON
    # Only what was lost is asked again.
    assert [question.zone for question in server.questions[3:]] == ["list1.example"]


def test_the_first_nameserver_may_still_answer_after_the_retry(start_name_server, dead):
    slow = start_name_server(zones(1, listed(delay=0.4)))
    evidence, _, _ = look_up(resolver(slow, dead, retry=0.1))
    assert evidence == [Listed((TWO,), 300)]
    assert len(dead.questions) >= 1


@pytest.mark.parametrize("rcode", [SERVFAIL, REFUSED])
def test_the_first_nameserver_may_still_answer_after_the_second_failed(start_name_server, rcode):
    slow = start_name_server(zones(1, listed(delay=0.4)))
    failing = start_name_server(zones(1, failure(rcode)))
    evidence, _, _ = look_up(resolver(slow, failing, retry=0.1))
    assert evidence == [Listed((TWO,), 300)]


@pytest.mark.parametrize("rcode", [SERVFAIL, REFUSED])
def test_a_failure_is_passed_to_the_next_nameserver_at_once(start_name_server, rcode):
    failing = start_name_server(zones(4, failure(rcode)))
    good = start_name_server(zones(4, clear()))
    evidence, waited, lookups = look_up(resolver(failing, good, count=4))
    assert evidence == [Clear(60)] * 4
    assert waited < SOON
    assert [lookup.answer for lookup in lookups] == [Clear(60)] * 4
    assert len(good.questions) == 4
    assert len({question.source for question in good.questions}) == 1


def test_a_nameserver_that_only_points_elsewhere_has_refused(start_name_server):
    """A server that does not ask for us sends us to the root: nobody has said "not listed"."""
    good = start_name_server(zones(1, listed()))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as lame:
        lame.bind(("127.0.0.1", 0))
        inquiry = begin(resolver(f"127.0.0.1#{lame.getsockname()[1]}", good))
        query, client = lame.recvfrom(512)
        referral = query[:2] + b"\x81\x00\x00\x01\x00\x00\x00\x01\x00\x00" + query[12:]
        lame.sendto(referral + b"\x00\x00\x02\x00\x01\x00\x00\x0e\x10\x00\x06\x01a\x02ns\x00", client)
        assert inquiry.wait(never) < SOON
    assert inquiry.evidence == [Listed((TWO,), 300)]
    inquiry.close()


def test_when_all_nameservers_fail_nobody_waits_longer(start_name_server):
    first = start_name_server(zones(2, failure(SERVFAIL)))
    second = start_name_server(zones(2, failure(REFUSED)))
    evidence, waited, lookups = look_up(resolver(first, second, count=2))
    assert {answer.why for answer in evidence} <= {Why.SERVFAIL, Why.REFUSED}
    assert waited < SOON
    assert [lookup.answer for lookup in lookups] == evidence
    assert len(first.questions) == len(second.questions) == 2


def test_a_failure_is_remembered_where_the_next_nameserver_is_silent(start_name_server, dead):
    failing = start_name_server(zones(1, failure(SERVFAIL)))
    house = resolver(failing, dead, deadline=SHORT)
    for client in OTHERS[:3]:
        evidence, waited, lookups = look_up(house, client)
        assert evidence == [Unknown(Why.SERVFAIL)]
        assert waited >= SHORT
        assert [lookup.answer for lookup in lookups] == evidence
    assert house.breakers[0].open


def test_a_failure_is_not_passed_on_while_the_next_nameserver_is_being_asked(start_name_server):
    failing = start_name_server(zones(1, failure(SERVFAIL, delay=0.6)))
    second = start_name_server(zones(1, listed(delay=0.25)))
    third = start_name_server(zones(1, listed("127.0.0.4")))
    evidence, _, _ = look_up(resolver(failing, second, third, retry=0.5))
    assert evidence == [Listed((TWO,), 300)]
    assert third.questions == ()


def test_a_late_failure_of_a_list_given_up_is_not_passed_on(start_name_server):
    failing = start_name_server({"list0.example": failure(SERVFAIL, delay=0.2), "list1.example": listed(delay=0.4)})
    second = start_name_server(zones(2, listed()))
    inquiry = begin(resolver(failing, second, lists=[*panel(1, timeout=0.1), panel(2)[1]]))
    inquiry.wait(never)
    inquiry.close()
    assert inquiry.evidence == [Unknown(Why.SERVFAIL), Listed((TWO,), 300)]
    assert second.questions == ()


def test_each_question_goes_to_its_own_next_nameserver(start_name_server):
    """One failed over at once, the other is silent: the retry swaps them, and both are answered."""
    first = start_name_server({"list0.example": SILENCE, "list1.example": failure(SERVFAIL)})
    second = start_name_server({"list0.example": listed(), "list1.example": SILENCE})
    inquiry = begin(resolver(first, second, count=2, retry=0.3))
    until(lambda: inquiry.gather() or second.questions)
    first.zones["list1.example"] = listed("127.0.0.4")
    inquiry.wait(never)
    inquiry.close()
    assert inquiry.evidence == [Listed((TWO,), 300), Listed((FOUR,), 300)]
    assert [question.zone for question in second.questions] == ["list1.example", "list0.example"]
    assert [question.zone for question in first.questions] == ["list0.example", "list1.example", "list1.example"]


def test_a_client_that_paused_long_is_owed_one_retry_and_not_many(start_name_server, dead):
    other = start_name_server(zones(1, listed(delay=0.05)))
    inquiry = begin(resolver(dead, other, retry=0.2))
    talk(0.9)
    inquiry.wait(never)
    assert inquiry.evidence == [Listed((TWO,), 300)]
    inquiry.close()
    assert len(dead.questions) == len(other.questions) == 1


# --- nameservers where nobody listens


@pytest.mark.parametrize("count", [1, 8])
def test_an_only_nameserver_where_nobody_listens_is_given_up_at_once(nobody, count):
    evidence, waited, lookups = look_up(resolver(nobody, count=count))
    assert evidence == [TIMEOUT] * count
    assert waited < SOON
    assert lookups == [Lookup(place, TIMEOUT, None) for place in range(count)]


@pytest.mark.parametrize("count", [1, 8])
def test_from_where_nobody_listens_the_next_nameserver_is_asked_at_once(start_name_server, nobody, count):
    good = start_name_server(zones(count, listed()))
    evidence, waited, _ = look_up(resolver(nobody, good, count=count))
    assert evidence == [Listed((TWO,), 300)] * count
    assert waited < SOON
    assert len(good.questions) == count
    assert len({question.source for question in good.questions}) == 1


def test_three_nameservers_of_which_only_the_last_listens(start_name_server, nobody):
    good = start_name_server(zones(4, listed()))
    evidence, waited, _ = look_up(resolver(nobody, nobody, good, count=4))
    assert evidence == [Listed((TWO,), 300)] * 4
    assert waited < SOON


def test_nobody_listens_anywhere(nobody):
    evidence, waited, lookups = look_up(resolver(nobody, nobody, nobody, count=4))
    assert evidence == [TIMEOUT] * 4
    assert waited < SOON
    assert len(lookups) == 4


@pytest.mark.parametrize("slow_first", [True, False])
def test_a_slow_nameserver_is_waited_for_though_nobody_listens_at_the_other(start_name_server, nobody, slow_first):
    slow = start_name_server(zones(4, listed(delay=0.4)))
    servers = (slow, nobody) if slow_first else (nobody, slow)
    evidence, waited, _ = look_up(resolver(*servers, count=4, retry=0.1))
    assert evidence == [Listed((TWO,), 300)] * 4
    assert 0.3 < waited < SOON


def test_a_nameserver_that_goes_away_does_not_take_its_answers_with_it(start_name_server):
    server = start_name_server({"list0.example": listed(), "list1.example": SILENCE})
    inquiry = begin(resolver(server, count=2))
    server.wait_for(2)
    server.stop()
    # The kernel tells of the refusal first, though the reply came before it.
    inquiry._sockets[0].send(b"anyone?")
    until(lambda: inquiry._sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) and readable(inquiry))
    assert inquiry.wait(never) < SOON
    assert inquiry.evidence == [Listed((TWO,), 300), TIMEOUT]
    assert len(inquiry.close()) == 2


def test_a_nameserver_that_nothing_may_be_sent_to_is_given_up_at_once(name_server):
    broadcast = "255.255.255.255"
    name_server.zones["list0.example"] = listed()
    assert look_up(resolver(broadcast))[:1] == ([TIMEOUT],)
    evidence, waited, _ = look_up(resolver(broadcast, name_server))
    assert evidence == [Listed((TWO,), 300)]
    assert waited < SOON


def test_without_a_socket_there_is_no_answer_and_no_exception(monkeypatch, name_server):
    def exhausted(self):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Nameserver, "connect", exhausted)
    evidence, waited, lookups = look_up(resolver(name_server, name_server, count=3))
    assert evidence == [TIMEOUT] * 3
    assert waited < SOON
    assert len(lookups) == 3


# --- which nameserver comes first


def test_a_dead_first_nameserver_delays_one_client_and_not_all(start_name_server, dead):
    good = start_name_server(zones(4, listed()))
    house = resolver(dead, good, count=4, retry=0.3)
    assert look_up(house)[1] >= 0.3
    before = len(dead.questions)
    for client in OTHERS[:5]:
        evidence, _, _ = look_up(house, client)
        assert evidence == [Listed((TWO,), 300)] * 4
    assert len(dead.questions) == before
    assert len(good.questions) == 6 * 4


def test_a_preferred_nameserver_that_dies_is_left_for_the_first(start_name_server, dead):
    good = start_name_server(zones(1, listed()))
    house = resolver(dead, good, retry=0.1)
    look_up(house)
    good.handler = lambda _: SILENCE
    dead.handler = lambda _: clear()
    assert look_up(house)[0] == [Clear(60)]
    assert house.preferred == 0


def test_one_lost_packet_is_no_verdict_on_a_nameserver(start_name_server):
    first = start_name_server({"list0.example": listed(), "list1.example": SILENCE})
    second = start_name_server(zones(2, listed()))
    house = resolver(first, second, count=2, retry=0.1)
    assert look_up(house)[0] == [Listed((TWO,), 300)] * 2
    assert house.preferred == 0
    second.forget()
    begin(house).close()
    assert second.questions == ()


def test_a_list_that_fails_everywhere_does_not_move_anyone_to_another_nameserver(start_name_server):
    first = start_name_server({"list0.example": failure(SERVFAIL), "list1.example": SILENCE})
    second = start_name_server({"list0.example": failure(SERVFAIL), "list1.example": SILENCE})
    house = resolver(first, second, count=2, deadline=SHORT)
    look_up(house)
    assert house.preferred == 0


def test_the_first_nameserver_is_tried_again_by_one_client_and_welcome_back(start_name_server, dead, monkeypatch):
    good = start_name_server(zones(1, listed()))
    house = resolver(dead, good, retry=0.05)
    look_up(house)
    assert house.preferred == 1
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + module.FAITH)
    assert [house.first(time.monotonic()) for _ in range(3)] == [0, 1, 1]
    monkeypatch.undo()
    assert house.preferred == 1
    # Its answer brings it back; and who still asks the other one does not undo that.
    dead.handler = lambda _: clear()
    late = begin(house, OTHERS[0])
    monkeypatch.setattr(house, "_look_back_at", 0.0)
    assert look_up(house, OTHERS[1])[0] == [Clear(60)]
    assert house.preferred == 0
    late.wait(never)
    late.close()
    assert house.preferred == 0


# --- over TCP


def test_a_reply_cut_short_is_asked_for_again_over_tcp(start_name_server):
    server = start_name_server(zones(3, listed()) | {"list1.example": listed("127.0.0.4", truncated=True)})
    evidence, _, lookups = look_up(resolver(server, count=3))
    assert evidence == [Listed((TWO,), 300), Listed((FOUR,), 300), Listed((TWO,), 300)]
    assert [question.zone for question in server.questions if question.over_tcp] == ["list1.example"]
    assert len(lookups) == 3


def test_several_replies_cut_short(start_name_server):
    server = start_name_server(zones(8, listed(truncated=True)))
    evidence, waited, _ = look_up(resolver(server, count=8))
    assert evidence == [Listed((TWO,), 300)] * 8
    assert waited < SOON


def test_a_nameserver_that_refuses_tcp_has_failed_at_once(start_name_server):
    server = start_name_server(zones(2, listed(truncated=True)), tcp=False)
    evidence, waited, lookups = look_up(resolver(server, count=2))
    assert evidence == [TIMEOUT] * 2
    assert waited < SOON
    assert lookups == [Lookup(place, TIMEOUT, None) for place in range(2)]


def test_a_nameserver_that_fails_over_tcp_is_no_reason_not_to_ask_the_next(start_name_server):
    server = start_name_server(zones(2, listed(truncated=True)), tcp=False)
    other = start_name_server(zones(2, listed("127.0.0.4")))
    evidence, waited, _ = look_up(resolver(server, other, count=2))
    assert evidence == [Listed((FOUR,), 300)] * 2
    assert waited < SOON


def test_a_nameserver_that_hangs_up_has_failed_at_once(start_name_server):
    server = start_name_server(zones(2, listed(truncated=True, over_tcp="hang up")))
    evidence, waited, _ = look_up(resolver(server, count=2))
    assert evidence == [TIMEOUT] * 2
    assert waited < SOON


def test_silence_over_tcp_delays_the_others_no_longer_than_a_retry(start_name_server):
    server = start_name_server(
        {"list0.example": listed(truncated=True, over_tcp="silence"), "list1.example": listed(delay=0.1)}
    )
    evidence, waited, _ = look_up(resolver(server, count=2, retry=0.3))
    assert evidence == [TIMEOUT, Listed((TWO,), 300)]
    assert 0.3 <= waited < SOON


def test_silence_over_tcp_keeps_to_the_deadline(start_name_server):
    server = start_name_server(zones(8, listed(truncated=True, over_tcp="silence")))
    evidence, waited, _ = look_up(resolver(server, count=8, deadline=SHORT))
    assert evidence == [TIMEOUT] * 8
    assert SHORT <= waited < 4 * SHORT


def test_silence_over_tcp_keeps_to_the_lists_own_time(start_name_server):
    server = start_name_server(zones(1, listed(truncated=True, over_tcp="silence")))
    evidence, waited, _ = look_up(resolver(server, lists=panel(1, timeout=0.2)))
    assert evidence == [TIMEOUT]
    assert waited < SOON


@pytest.mark.parametrize(
    "behaviour",
    [listed(truncated=True, junk=b"junk"), listed(truncated=True, wrong_identifier=True)],
    ids=["unreadable", "of another question"],
)
def test_what_is_no_reply_over_tcp_is_no_answer(start_name_server, behaviour):
    def over_udp(question):
        return None if question.over_tcp else listed(truncated=True)

    server = start_name_server(zones(1, behaviour), over_udp)
    evidence, waited, _ = look_up(resolver(server, deadline=SHORT))
    assert evidence == [TIMEOUT]
    assert waited < SOON


def test_over_tcp_nothing_is_asked_that_is_not_waited_for(start_name_server):
    server = start_name_server(zones(1, listed(truncated=True)))
    inquiry = begin(resolver(server))
    until(lambda: readable(inquiry))
    inquiry.wait(at_once)
    assert inquiry.close() == []
    assert not any(question.over_tcp for question in server.questions)


# --- closing


def test_what_comes_late_is_gathered_at_close(start_name_server):
    server = start_name_server({"list0.example": listed(), "list1.example": clear(delay=0.1)})
    inquiry = begin(resolver(server, count=2))
    inquiry.wait(lambda evidence: isinstance(evidence[0], Listed))
    assert inquiry.evidence == [Listed((TWO,), 300), PENDING]
    until(lambda: readable(inquiry))
    lookups = inquiry.close()
    assert inquiry.evidence == [Listed((TWO,), 300), Clear(60)]
    assert [(lookup.place, lookup.answer) for lookup in lookups] == [(0, Listed((TWO,), 300)), (1, Clear(60))]
    assert lookups[1].seconds > 0.09


def test_an_answer_after_the_deadline_takes_the_place_of_the_timeout(start_name_server):
    server = start_name_server(zones(1, listed(delay=SHORT + 0.2)))
    house = resolver(server, deadline=SHORT)
    for client in OTHERS[:3]:
        inquiry = begin(house, client)
        inquiry.wait(never)
        assert inquiry.evidence == [TIMEOUT]
        until(lambda inquiry=inquiry: readable(inquiry))
        lookups = inquiry.close()
        assert inquiry.evidence == [Listed((TWO,), 300)]
        assert [lookup.answer for lookup in lookups] == inquiry.evidence
        assert lookups[0].seconds > SHORT


def test_a_client_that_leaves_early_says_nothing_against_a_list(dead):
    house = resolver(dead, count=2)
    for client in OTHERS[:10]:
        inquiry = begin(house, client)
        assert inquiry.close() == []
        assert inquiry.evidence == [PENDING] * 2
    assert not house.breakers[0].open


def test_a_client_that_leaves_while_one_nameserver_has_failed_says_nothing_either(start_name_server, dead):
    failing = start_name_server(zones(1, failure(SERVFAIL)))
    house = resolver(failing, dead)
    for client in OTHERS[:4]:
        inquiry = begin(house, client)
        until(lambda inquiry=inquiry: readable(inquiry))
        assert inquiry.close() == []
    assert not house.breakers[0].open
    assert dead.questions == (), "nothing is sent that nobody will read"


def test_closing_twice_waiting_after_it_and_gathering_after_it(start_name_server):
    server = start_name_server(zones(2, SILENCE))
    house = resolver(server, count=2)
    before = descriptors()
    inquiry = begin(house)
    assert inquiry.close() == []
    assert descriptors() == before
    assert inquiry.close() == []
    assert not inquiry.pending
    assert inquiry.wait(never) < SOON
    inquiry.gather()
    assert descriptors() == before


def test_no_descriptor_is_left_whatever_happened(start_name_server, nobody):
    good = start_name_server(zones(4, listed()))
    failing = start_name_server(zones(4, failure(SERVFAIL)))
    silent = start_name_server(zones(4, SILENCE))
    short = start_name_server(zones(4, listed(truncated=True)), tcp=False)
    ways = [(good,), (failing, good), (silent, good), (nobody, good), (nobody, silent), (nobody,), (short, failing)]
    houses = [resolver(*servers, count=4, deadline=SHORT, retry=0.05) for servers in ways]
    before = descriptors()
    inquiries = []
    for house in houses:
        for number, client in enumerate(OTHERS[:5]):
            inquiry = begin(house, client)
            inquiries.append(inquiry)  # so that nothing is closed for want of an owner
            if number % 2:
                inquiry.wait(never if number == 1 else at_once)
            inquiry.close()
            inquiry.close()
    assert descriptors() == before


def test_descriptors_may_be_numbered_above_1023(start_name_server):
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limit[0], 4096), limit[1]))
    server = start_name_server(zones(4, listed(delay=0.05)))
    held = [os.dup(0) for _ in range(1100)]
    try:
        inquiry = begin(resolver(server, count=4))
        assert min(udp.fileno() for udp in inquiry._sockets.values()) > 1023
        inquiry.wait(never)
        assert inquiry.evidence == [Listed((TWO,), 300)] * 4
        inquiry.close()
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)


# --- leaving lists alone


def disappoint(house, clients):
    for client in clients:
        assert isinstance(look_up(house, client)[0][0], Unknown)


@pytest.fixture
def half_dead(start_name_server):
    """Start a server for two lists of which the first never answers."""
    return start_name_server({"list0.example": SILENCE, "list1.example": listed()})


def asked(server, zone="list0.example"):
    return [question.client for question in server.questions if question.zone == zone]


def test_a_list_that_gave_three_clients_nothing_is_left_alone(half_dead):
    house = resolver(half_dead, count=2, deadline=0.2)
    disappoint(house, OTHERS[:3])
    trying = begin(house, OTHERS[3])
    # The first thereafter tries it, and does not wait.
    assert trying.evidence[0] == LEFT_ALONE
    assert trying.wait(never) < SOON
    assert trying.evidence == [LEFT_ALONE, Listed((TWO,), 300)]
    half_dead.wait_for(8)
    assert asked(half_dead)[3:] == [str(OTHERS[3])]
    # While it tries, others do not even ask.
    for client in OTHERS[4:8]:
        evidence, _, lookups = look_up(house, client)
        assert evidence == [LEFT_ALONE, Listed((TWO,), 300)]
        assert [lookup.place for lookup in lookups] == [1]
    assert len(asked(half_dead)) == 4
    assert [lookup.place for lookup in trying.close()] == [1], "nothing came, and nobody waited: no outcome"
    # Now the next may try.
    look_up(house, OTHERS[8])
    look_up(house, OTHERS[9])
    assert asked(half_dead)[4:] == [str(OTHERS[8]), str(OTHERS[9])]


def test_a_list_that_always_answers_too_late_is_left_alone(start_name_server):
    server = start_name_server({"list0.example": listed(delay=0.4)})
    house = resolver(server, deadline=0.1)
    for client in OTHERS[:3]:
        inquiry = begin(house, client)
        inquiry.wait(never)
        until(lambda inquiry=inquiry: inquiry.gather() or isinstance(inquiry.evidence[0], Listed))
        assert [lookup.answer for lookup in inquiry.close()] == [Listed((TWO,), 300)], "late, and kept all the same"
    trying = begin(house, OTHERS[3])
    assert trying.evidence == [LEFT_ALONE]
    until(lambda: trying.gather() or isinstance(trying.evidence[0], Listed))
    trying.close()
    last = begin(house, OTHERS[4])
    assert last.evidence == [LEFT_ALONE]
    last.close()


def test_a_list_left_alone_is_not_waited_for(dead):
    house = resolver(dead, deadline=SHORT)
    disappoint(house, OTHERS[:3])
    house.deadline = LONG
    for client in OTHERS[3:6]:
        evidence, waited, lookups = look_up(house, client)
        assert evidence == [LEFT_ALONE]
        assert waited < SOON
        assert lookups == []


def test_a_list_is_back_with_its_first_answer(half_dead):
    house = resolver(half_dead, count=2, deadline=0.2)
    disappoint(house, OTHERS[:3])
    house.deadline = LONG
    half_dead.zones["list0.example"] = clear()
    trying = begin(house, OTHERS[3])
    assert trying.evidence[0] == LEFT_ALONE
    until(lambda: trying.gather() or not house.breakers[0].open)
    # At once, and not when the session that tried it ends.
    evidence, _, _ = look_up(house, OTHERS[4])
    assert evidence == [Clear(60), Listed((TWO,), 300)]
    lookups = trying.close()
    assert trying.evidence == [Clear(60), Listed((TWO,), 300)]
    assert [lookup.answer for lookup in lookups] == trying.evidence


def test_a_list_is_back_with_an_answer_that_is_found_at_close(half_dead):
    house = resolver(half_dead, count=2, deadline=0.2)
    disappoint(house, OTHERS[:3])
    half_dead.zones["list0.example"] = clear(delay=0.1)
    half_dead.zones["list1.example"] = SILENCE
    trying = begin(house, OTHERS[3])
    until(lambda: readable(trying))
    assert [lookup.answer for lookup in trying.close()] == [Clear(60)]
    assert not house.breakers[0].open


def test_the_breaker_hears_of_a_failure_at_once_and_not_when_the_session_ends(dead):
    house = resolver(dead, deadline=0.1)
    inquiries = [begin(house, client) for client in OTHERS[:3]]
    for inquiry in inquiries:
        inquiry.wait(never)
    assert house.breakers[0].open
    fourth = begin(house, OTHERS[3])
    assert fourth.evidence == [LEFT_ALONE]
    for inquiry in (*inquiries, fourth):
        inquiry.close()


def test_one_client_is_not_enough_however_often(dead):
    house = resolver(dead, deadline=0.1)
    disappoint(house, [CLIENT] * 5)
    assert not house.breakers[0].open
    assert begin(house).close() == []
    assert len(dead.wait_for(6)) == 6


def test_an_answer_after_two_failures_starts_the_count_over(start_name_server):
    server = start_name_server(zones(1, SILENCE))
    house = resolver(server, deadline=0.2)
    disappoint(house, OTHERS[:2])
    server.zones["list0.example"] = clear()
    assert look_up(house, OTHERS[2])[0] == [Clear(60)]
    server.zones["list0.example"] = SILENCE
    disappoint(house, OTHERS[3:5])
    assert not house.breakers[0].open
    disappoint(house, OTHERS[5:6])
    assert house.breakers[0].open


@pytest.mark.parametrize("rcode", [SERVFAIL, REFUSED])
def test_a_list_that_fails_is_left_alone_like_one_that_is_silent(start_name_server, rcode):
    server = start_name_server(zones(1, failure(rcode)))
    house = resolver(server)
    disappoint(house, OTHERS[:3])
    assert house.breakers[0].open
    # Who tries it is told what is wrong; it is still not back.
    inquiry = begin(house, OTHERS[3])
    assert inquiry.evidence == [LEFT_ALONE]
    until(lambda: readable(inquiry))
    assert [lookup.answer for lookup in inquiry.close()] == inquiry.evidence
    assert house.breakers[0].open


@pytest.mark.parametrize("behaviour", [listed("127.255.255.254"), listed("203.0.113.1"), listed(junk=b"junk")])
def test_a_list_that_answers_nonsense_is_not_left_alone(start_name_server, behaviour):
    server = start_name_server(zones(1, behaviour))
    house = resolver(server)
    disappoint(house, OTHERS[:5])
    assert not house.breakers[0].open


def test_each_list_is_left_alone_for_itself(half_dead):
    house = resolver(half_dead, count=2, deadline=0.1)
    disappoint(house, OTHERS[:3])
    assert [breaker.open for breaker in house.breakers] == [True, False]


def test_when_the_nameserver_is_back_so_are_all_lists(start_name_server):
    server = start_name_server(zones(8, SILENCE))
    house = resolver(server, count=8, deadline=0.1)
    disappoint(house, OTHERS[:3])
    assert all(breaker.open for breaker in house.breakers)
    for place in range(8):
        server.zones[f"list{place}.example"] = listed()
    trying = begin(house, OTHERS[3])
    until(lambda: trying.gather() or not any(breaker.open for breaker in house.breakers))
    trying.close()


def test_a_dawdler_does_not_keep_a_list_out(half_dead, monkeypatch):
    monkeypatch.setattr(breaker_module, "TRIAL", 0.1)
    house = resolver(half_dead, count=2, deadline=0.1)
    disappoint(house, OTHERS[:3])
    dawdler = begin(house, OTHERS[3])
    half_dead.zones["list0.example"] = clear()
    talk(0.15)
    trying = begin(house, OTHERS[4])
    until(lambda: trying.gather() or not house.breakers[0].open)
    trying.close()
    dawdler.close()


def test_who_tries_a_list_lets_go_of_it_though_it_came_back_meanwhile(dead):
    """Between two looks at a breaker another thread's answer may close it."""

    class Closing(Breaker):
        looks = 0

        @property
        def open(self):
            self.looks += 1
            return self.looks == 1

    house = resolver(dead)
    house.breakers = (Closing(),)
    begin(house).close()
    assert house.breakers[0].may_try(OTHERS[0], time.monotonic())


def test_a_list_left_alone_whose_replies_are_cut_short_is_back(half_dead):
    house = resolver(half_dead, count=2, deadline=0.2)
    disappoint(house, OTHERS[:3])
    house.deadline = LONG
    half_dead.zones = zones(2, listed(truncated=True)) | {"list1.example": listed(delay=0.2)}
    evidence, _, lookups = look_up(house, OTHERS[3])
    # Nobody waits for it, so nobody asks it over TCP.
    assert evidence == [LEFT_ALONE, Listed((TWO,), 300)]
    assert [lookup.place for lookup in lookups] == [1]
    assert not any(question.over_tcp for question in half_dead.questions)
    assert look_up(house, OTHERS[4])[0] == [Listed((TWO,), 300)] * 2


def test_where_nobody_listens_lists_are_tried_by_each_client_and_nobody_waits(nobody):
    house = resolver(nobody, count=4)
    for client in OTHERS[:10]:
        evidence, waited, _ = look_up(house, client)
        assert all(isinstance(answer, Unknown) for answer in evidence)
        assert waited < SOON
    assert all(breaker._trial is None for breaker in house.breakers)


# --- many at once


def test_many_clients_at_once(start_name_server):
    server = start_name_server(
        {
            f"list{place}.example": {
                str(client): listed(f"127.0.0.{place + 2}")
                for number, client in enumerate(OTHERS)
                if number % 8 == place
            }
            for place in range(8)
        }
    )
    house = resolver(server, count=8, retry=1.0)
    found = {}
    faults = []
    work = list(enumerate(OTHERS[:160]))

    def serve():
        try:
            while work:
                number, client = work.pop()
                found[number] = look_up(house, client)[0]
        except BaseException as fault:  # noqa: BLE001  raised below
            faults.append(fault)

    threads = [threading.Thread(target=serve) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    for number in range(160):
        expected = [Clear(60)] * 8
        expected[number % 8] = Listed((TWO + number % 8,), 300)
        assert found[number] == expected


# --- the name server of these tests


def test_the_name_server_may_be_changed_while_it_runs():
    with NameServer({"bl.example": {}}) as server:
        lists = [DnsList("bl", "bl.example", (Rule(100),))]
        house = resolver(server, lists=lists)
        assert look_up(house)[0] == [Clear(60)]
        server.zones["bl.example"][str(CLIENT)] = listed("127.0.0.4")
        assert look_up(house)[0] == [Listed((FOUR,), 300)]
        server.zones["bl.example"] = failure(SERVFAIL)
        assert look_up(house)[0] == [Unknown(Why.SERVFAIL)]
        del server.zones["bl.example"]
        assert look_up(house)[0] == [Unknown(Why.REFUSED)]
        server.handler = lambda question: listed("127.0.0.10") if question.client == str(CLIENT) else None
        assert look_up(house)[0] == [Listed((TEN,), 300)]


def test_a_fault_of_a_handler_is_raised_where_the_name_server_is_left():
    def broken(question):
        raise LookupError("a bug of the test's")

    with pytest.raises(LookupError, match="a bug of the test's"), NameServer(handler=broken) as server:
        look_up(resolver(server, deadline=SHORT))
