"""Any reply is one of three answers, and what does not count never looks like one that does."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnsbl_policy.answers import (
    OVER_QUOTA,
    PENDING,
    Clear,
    Listed,
    Unknown,
    Why,
    dotted,
    in_loopback,
    is_operator_error,
    read,
)


def numbers(addresses: str) -> tuple[int, ...]:
    """Turn addresses with blanks between them into return codes."""
    return tuple(int(IPv4Address(address)) for address in addresses.split())


LISTED = [
    # name, addresses of the reply, codes that count
    ("one code", "127.0.0.2", "127.0.0.2"),
    ("several, in rising order", "127.0.0.10 127.0.0.4 127.0.0.2", "127.0.0.2 127.0.0.4 127.0.0.10"),
    ("the same twice is once", "127.0.0.4 127.0.0.4", "127.0.0.4"),
    ("the lowest of 127/8", "127.0.0.0", "127.0.0.0"),
    ("the last before the operators' network", "127.255.254.255", "127.255.254.255"),
    ("the same ending in another network", "127.254.255.254", "127.254.255.254"),
    ("over quota is for the list to hear", "127.0.0.255", "127.0.0.255"),
]

UNKNOWN = [
    # name, addresses of the reply, why
    ("a parking page", "192.0.2.80", Why.INVALID),
    ("just below 127/8", "126.255.255.255", Why.INVALID),
    ("just above 127/8", "128.0.0.0", Why.INVALID),
    ("nowhere", "0.0.0.0", Why.INVALID),
    ("operator error: mistyped zone", "127.255.255.252", Why.BLOCKED),
    ("operator error: open resolver", "127.255.255.254", Why.BLOCKED),
    ("operator error: too many queries", "127.255.255.255", Why.BLOCKED),
    ("the operators' network from its first address", "127.255.255.0", Why.BLOCKED),
    ("an error spoils the code beside it", "127.0.0.2 127.255.255.254", Why.BLOCKED),
    ("a code after the error changes nothing", "127.255.255.254 127.0.0.2", Why.BLOCKED),
    ("a foreign address spoils the code beside it", "127.0.0.2 192.0.2.80", Why.INVALID),
    ("a code after it changes nothing", "192.0.2.80 127.0.0.2", Why.INVALID),
    ("foreign beside an error", "127.255.255.254 192.0.2.80", Why.INVALID),
]


WRITTEN = [
    # answer, as the log has it
    (Listed(numbers("127.0.0.2"), 300), "127.0.0.2"),
    (Listed(numbers("127.0.0.4 127.0.0.10"), 300, proven=True), "127.0.0.4,127.0.0.10"),
    (Clear(300), "clear"),
    (Unknown(Why.TIMEOUT), "timeout"),
    (Unknown(Why.BLOCKED, numbers("127.255.255.254")), "blocked:127.255.255.254"),
    (Unknown(Why.INVALID, numbers("192.0.2.80 127.0.0.2")), "invalid:192.0.2.80,127.0.0.2"),
]


@pytest.mark.parametrize(("answer", "written"), WRITTEN, ids=[row[1] for row in WRITTEN])
def test_an_answer_in_the_log(answer, written):
    assert str(answer) == written


@pytest.mark.parametrize(("name", "reply", "codes"), LISTED, ids=[row[0] for row in LISTED])
def test_codes_in_loopback_say_listed(name, reply, codes):
    assert read(numbers(reply), 300) == Listed(numbers(codes), 300)


@pytest.mark.parametrize(("name", "reply", "why"), UNKNOWN, ids=[row[0] for row in UNKNOWN])
def test_what_no_list_says_is_unknown_and_shown_as_it_came(name, reply, why):
    assert read(numbers(reply), 300) == Unknown(why, numbers(reply))


@pytest.mark.parametrize("ttl", [0, 1, 300, 86400])
def test_no_address_says_clear_for_as_long_as_it_lasts(ttl):
    assert read((), ttl) == Clear(ttl)
    assert read(numbers("127.0.0.2"), ttl) == Listed(numbers("127.0.0.2"), ttl)


def test_the_three_kinds_are_never_equal():
    answers = [Listed((), 0), Clear(0), Unknown(Why.INVALID), PENDING]
    assert len(set(answers)) == 4


def test_the_constants():
    assert Unknown(Why.PENDING) == PENDING
    assert numbers("127.0.0.255") == (OVER_QUOTA,)


def test_reasons_are_named_as_users_read_them():
    assert [str(why) for why in Why] == [
        "pending", "timeout", "servfail", "refused", "blocked", "invalid", "left-alone", "suspended",
        "disproved", "unproven", "doubted",
    ]


edges = st.sampled_from(
    numbers("126.255.255.255 127.0.0.0 127.0.0.2 127.0.0.255 127.255.254.255 127.255.255.0 127.255.255.255 128.0.0.0")
)
codes = edges | st.integers(0, 2**32 - 1)


@given(codes)
@settings(deadline=None)
def test_a_code_is_placed_and_written_as_ipaddress_does(code):
    address = IPv4Address(code)
    assert in_loopback(code) == (address in IPv4Network("127.0.0.0/8"))
    assert is_operator_error(code) == (address in IPv4Network("127.255.255.0/24"))
    assert dotted(code) == str(address)


@given(st.lists(codes, min_size=1, max_size=4), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_addresses_never_matters(reply, random):
    other = list(reply)
    random.shuffle(other)
    one, two = read(reply, 60), read(other, 60)
    assert type(one) is type(two)
    if isinstance(one, Unknown):
        assert (one.why, sorted(one.codes)) == (two.why, sorted(two.codes))
    else:
        assert one == two
