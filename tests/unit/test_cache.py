"""What the cache keeps, for how long, of whom, and in how much memory."""

import subprocess
import sys
import threading
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnsbl_milter import cache as module
from dnsbl_milter.cache import Cache, Lives
from dnsbl_policy.answers import PENDING, Clear, Listed, Unknown, Why

CLIENT = ip_address("192.0.2.7")
TWO = 0x7F000002
LIVES = Lives(shortest=60, longest=3600, error=30)


class Clock:
    """A clock whose hand the tests turn."""

    def __init__(self, now=1000.0):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def cache(clock):
    return Cache(100, LIVES, clock)


def keep(cache, *evidence, client=CLIENT):
    cache.keep(client, evidence, range(len(evidence)))


# --- lives

KEPT = {
    "its own life": (Listed((TWO,), 300), 300),
    "not listed, its own life": (Clear(300), 300),
    "listed, too short": (Listed((TWO,), 5), 60),
    "not listed, too short": (Clear(0), 60),
    "listed, too long": (Listed((TWO,), 2**31 - 1), 3600),
    "not listed, too long": (Clear(86400), 3600),
    "at the shortest": (Clear(60), 60),
    "at the longest": (Clear(3600), 3600),
    "timeout": (Unknown(Why.TIMEOUT), 30),
    "servfail": (Unknown(Why.SERVFAIL), 30),
    "refused": (Unknown(Why.REFUSED), 30),
    "blocked": (Unknown(Why.BLOCKED), 30),
    "invalid": (Unknown(Why.INVALID), 30),
    "disproved": (Unknown(Why.DISPROVED), 30),
    "unproven": (Unknown(Why.UNPROVEN), 0),
    "proven": (Listed((TWO,), 300, proven=True), 300),
    "pending": (PENDING, 0),
    "left alone": (Unknown(Why.LEFT_ALONE), 0),
    "suspended": (Unknown(Why.SUSPENDED), 0),
}
kept = pytest.mark.parametrize(("answer", "life"), KEPT.values(), ids=KEPT.keys())


@kept
def test_an_answer_is_kept_for_as_long_as_it_may_be(cache, clock, answer, life):
    assert LIVES.of(answer) == life
    keep(cache, answer)
    if life:
        clock.now += life - 1
        assert cache.recall(CLIENT, 1) != [PENDING]
    clock.now = 1000.0 + life
    assert cache.recall(CLIENT, 1) == [PENDING]


@kept
def test_what_is_recalled_is_what_was_said_with_the_life_that_is_left(cache, clock, answer, life):
    keep(cache, answer)
    if not life:
        return
    clock.now += 10
    if isinstance(answer, Listed):
        assert cache.recall(CLIENT, 1) == [replace(answer, ttl=life - 10)]
    elif isinstance(answer, Clear):
        assert cache.recall(CLIENT, 1) == [Clear(life - 10)]
    else:
        assert cache.recall(CLIENT, 1) == [answer]


def test_a_failure_of_every_kind_has_a_decision():
    assert {why for why in Why if LIVES.of(Unknown(why))} == set(module._KEPT)


def test_a_shortest_life_of_zero_keeps_nothing_of_an_answer_without_a_life(clock):
    cache = Cache(100, Lives(0, 3600, 30), clock)
    keep(cache, Clear(0))
    assert cache.recall(CLIENT, 1) == [PENDING]
    assert len(cache) == 0


def test_each_answer_of_a_client_has_its_own_life(cache, clock):
    keep(cache, Listed((TWO,), 600), Unknown(Why.TIMEOUT), Clear(100), PENDING)
    assert cache.recall(CLIENT, 4) == [Listed((TWO,), 600), Unknown(Why.TIMEOUT), Clear(100), PENDING]
    clock.now += 30
    assert cache.recall(CLIENT, 4) == [Listed((TWO,), 570), PENDING, Clear(70), PENDING]
    clock.now += 70
    assert cache.recall(CLIENT, 4) == [Listed((TWO,), 500), PENDING, PENDING, PENDING]
    clock.now += 500
    assert cache.recall(CLIENT, 4) == [PENDING] * 4


def test_a_blocked_answer_comes_back_as_blocked(cache):
    keep(cache, Unknown(Why.BLOCKED, (0x7FFFFFFE,)))
    assert cache.recall(CLIENT, 1) == [Unknown(Why.BLOCKED)]


# --- merging


def test_only_what_is_fresh_is_kept_and_the_rest_expires_on_its_own_time(cache, clock):
    keep(cache, Listed((TWO,), 100), PENDING)
    clock.now += 80
    known = cache.recall(CLIENT, 2)
    assert known == [Listed((TWO,), 20), PENDING]
    # Kept again as a whole, a life of 20 seconds would be clamped to 60.
    cache.keep(CLIENT, [known[0], Clear(300)], [1])
    assert cache.recall(CLIENT, 2) == [Listed((TWO,), 20), Clear(300)]
    clock.now += 20
    assert cache.recall(CLIENT, 2) == [PENDING, Clear(280)]


def test_a_fresh_answer_replaces_an_older_one(cache):
    keep(cache, Listed((TWO,), 100), Unknown(Why.TIMEOUT))
    keep(cache, Clear(200), Clear(300))
    assert cache.recall(CLIENT, 2) == [Clear(200), Clear(300)]


@pytest.mark.parametrize("answer", [Listed((TWO,), 100), Clear(100)], ids=["listed", "not listed"])
def test_a_failure_does_not_replace_an_answer_that_is_still_good(cache, clock, answer):
    keep(cache, answer)
    clock.now += 10
    keep(cache, Unknown(Why.TIMEOUT))
    assert cache.recall(CLIENT, 1) == [replace(answer, ttl=90)]
    clock.now += 90
    keep(cache, Unknown(Why.TIMEOUT))
    assert cache.recall(CLIENT, 1) == [Unknown(Why.TIMEOUT)]


def test_a_list_that_was_disproved_is_not_believed_again(cache):
    keep(cache, Listed((TWO,), 300))
    keep(cache, Unknown(Why.DISPROVED))
    assert cache.recall(CLIENT, 1) == [Unknown(Why.DISPROVED)]


def test_a_proof_is_kept_with_the_answer(cache, clock):
    keep(cache, Listed((TWO, TWO + 2), 300))
    clock.now += 10
    cache.keep(CLIENT, [Listed((TWO, TWO + 2), 290, proven=True)], [0])
    assert cache.recall(CLIENT, 1) == [Listed((TWO, TWO + 2), 290, proven=True)]


def test_a_failure_replaces_an_older_failure_and_lives_anew(cache, clock):
    keep(cache, Unknown(Why.TIMEOUT))
    clock.now += 20
    keep(cache, Unknown(Why.SERVFAIL))
    clock.now += 29
    assert cache.recall(CLIENT, 1) == [Unknown(Why.SERVFAIL)]


def test_what_is_not_kept_leaves_the_older_answer_in_place(cache):
    keep(cache, Clear(100))
    keep(cache, Unknown(Why.LEFT_ALONE))
    assert cache.recall(CLIENT, 1) == [Clear(100)]


@pytest.mark.parametrize("fresh", [[], [0, 1]], ids=["nothing is fresh", "nothing fresh is worth keeping"])
def test_a_client_without_anything_to_keep_takes_no_place(cache, fresh):
    cache.keep(CLIENT, [PENDING, Unknown(Why.LEFT_ALONE)], fresh)
    assert len(cache) == 0


# --- panels


@pytest.mark.parametrize("length", [1, 3])
def test_evidence_of_a_panel_of_another_length_is_never_recalled(cache, length):
    keep(cache, Clear(100), Listed((TWO,), 100))
    assert cache.recall(CLIENT, length) == [PENDING] * length


@pytest.mark.parametrize("length", [1, 3])
def test_evidence_of_a_panel_of_another_length_is_never_mixed_with(cache, length):
    keep(cache, Clear(100), Listed((TWO,), 100))
    cache.keep(CLIENT, [PENDING] * (length - 1) + [Clear(200)], [length - 1])
    assert cache.recall(CLIENT, length) == [PENDING] * (length - 1) + [Clear(200)]
    assert cache.recall(CLIENT, 2) == [PENDING] * 2


# --- clients


@pytest.mark.parametrize(
    "other",
    ["192.0.2.8", "::c000:207", "::ffff:192.0.2.7", "c000:207::", "2001:db8::7"],
)
def test_clients_never_share_evidence(cache, other):
    keep(cache, Listed((TWO,), 300))
    keep(cache, Clear(200), client=ip_address(other))
    assert cache.recall(CLIENT, 1) == [Listed((TWO,), 300)]
    assert cache.recall(ip_address(other), 1) == [Clear(200)]
    assert len(cache) == 2


def test_an_unknown_client_has_no_evidence(cache):
    assert cache.recall(CLIENT, 3) == [PENDING] * 3


def test_the_number_of_clients_is_bounded_and_the_longest_unused_go_first(clock):
    cache = Cache(3, LIVES, clock)
    clients = [ip_address(f"192.0.2.{last}") for last in range(1, 5)]
    for client in clients[:3]:
        keep(cache, Clear(300), client=client)
    cache.recall(clients[0], 1)
    keep(cache, Clear(300), client=clients[3])
    assert len(cache) == 3
    assert [cache.recall(client, 1) != [PENDING] for client in clients] == [True, False, True, True]


def test_keeping_more_about_a_client_counts_as_use(clock):
    cache = Cache(2, LIVES, clock)
    first, second, third = (ip_address(f"192.0.2.{last}") for last in range(1, 4))
    keep(cache, Clear(300), client=first)
    keep(cache, Clear(300), client=second)
    keep(cache, Clear(400), client=first)
    keep(cache, Clear(300), client=third)
    assert cache.recall(second, 1) == [PENDING]
    assert cache.recall(first, 1) == [Clear(400)]


# --- round trip

codes = st.lists(st.integers(0x7F000000, 0x7FFFFFFF), min_size=1, max_size=40, unique=True).map(sorted).map(tuple)
answers = st.one_of(
    st.builds(Listed, codes, st.integers(0, 2**31 - 1), st.booleans()),
    st.builds(Clear, st.integers(0, 2**31 - 1)),
    st.builds(Unknown, st.sampled_from(list(Why)), st.one_of(st.just(()), codes)),
)


def remembered(answer, age):
    """Say what is known of an answer some seconds later."""
    left = LIVES.of(answer) - age
    if left <= 0:
        return PENDING
    match answer:
        case Listed() | Clear():
            return replace(answer, ttl=left)
        case Unknown(why, _):
            return Unknown(why)


@settings(deadline=None)
@given(
    client=st.ip_addresses(),
    evidence=st.lists(answers, max_size=12),
    start=st.floats(0, 2**32 - 100_000),
    age=st.integers(0, 4000),
)
def test_evidence_comes_back_as_it_was(client, evidence, start, age):
    clock = Clock(float(int(start)))
    cache = Cache(10, LIVES, clock)
    cache.keep(client, evidence, range(len(evidence)))
    clock.now += age
    assert cache.recall(client, len(evidence)) == [remembered(answer, age) for answer in evidence]


@pytest.mark.parametrize("proven", [False, True])
def test_a_list_may_answer_with_very_many_codes(cache, proven):
    many = tuple(range(0x7F000000, 0x7F000000 + 1000))
    keep(cache, Listed(many, 300, proven), Clear(300))
    listed, clear = cache.recall(CLIENT, 2)
    assert isinstance(listed, Listed)
    assert listed.proven is proven
    assert set(listed.codes) < set(many)
    assert len(listed.codes) >= 100
    assert clear == Clear(300)


# --- threads


def test_threads_share_it_and_every_answer_stays_whole():
    """Each client's evidence says which client it is, so that anything torn or mixed up shows."""
    cache = Cache(50, LIVES, lambda: 1000.0)
    faults = []
    start = threading.Barrier(10)

    def hammer(number):
        try:
            start.wait()
            for turn in range(600):
                last = (number * 7 + turn) % 100
                client = ip_address(f"192.0.2.{last}")
                code = 0x7F000000 + last
                known = cache.recall(client, 8)
                assert len(known) == 8
                assert all(answer is PENDING or answer == Listed((code,), 300) for answer in known)
                cache.keep(client, [Listed((code,), 300)] * 8, [turn % 8, number % 8])
                assert len(cache) <= 50
        except BaseException as fault:  # noqa: BLE001  raised below
            faults.append(fault)

    threads = [threading.Thread(target=hammer, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


def test_what_threads_learn_about_one_client_adds_up():
    cache = Cache(50, LIVES, lambda: 1000.0)
    start = threading.Barrier(10)

    def learn(place):
        start.wait()
        cache.keep(CLIENT, [Clear(100 + place)] * 10, [place])

    threads = [threading.Thread(target=learn, args=(place,)) for place in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.recall(CLIENT, 10) == [Clear(100 + place) for place in range(10)]


# --- memory

FILL = """
import sys
from ipaddress import IPv4Address, IPv6Address
from dnsbl_milter.cache import Cache, Lives
from dnsbl_policy.answers import PENDING, Clear, Listed, Unknown, Why

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

def evidence(number):
    if number % 5:
        return [Clear(300)] * 7 + [Unknown(Why.TIMEOUT)]
    codes = tuple(0x7F000002 + (number + step) % 16 for step in range(4))
    return [Listed(codes, 300), Listed(codes[:2], 900)] + [Listed(codes[:1], 60)] * 2 + [Clear(150)] * 4

cache = Cache(100_000, Lives(), lambda: 1_700_000_000.0)
before = resident()
for number in range(100_000):
    client = IPv6Address((0x20010DB8 << 96) + number) if number % 3 == 0 else IPv4Address(0x0A000000 + number)
    cache.keep(client, evidence(number), range(8))
print(resident() - before, len(cache))
assert all(answer is not PENDING for answer in cache.recall(IPv4Address(0x0A000000 + 99_998), 8))
# Clients that come and go: what was evicted gives its memory back.
for number in range(100_000, 250_000):
    cache.keep(IPv4Address(0x0A000000 + number), evidence(number), range(8))
print(resident() - before, len(cache))
"""


def test_evidence_for_a_hundred_thousand_clients_and_eight_lists_fits_in_100_megabytes():
    done = subprocess.run(
        [sys.executable, "-c", FILL],
        env={"PYTHONPATH": ":".join(sys.path)},
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    full, turned_over = (tuple(map(int, line.split())) for line in done.stdout.splitlines())
    assert full[1] == turned_over[1] == 100_000
    assert full[0] * 1024 < 100_000_000, f"{full[0]} KiB"
    assert turned_over[0] * 1024 < 100_000_000, f"{turned_over[0]} KiB"
