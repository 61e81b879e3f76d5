"""No drop without fresh proof: what a list is asked, and what its answer proves."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnsbl_policy.answers import Clear, Listed, Unknown, Why
from dnsbl_policy.lists import DnsList, Expect, Rule
from dnsbl_policy.proof import Proof, prove, proven, unlistable

LISTING = Listed((0x7F000002,), 300)

PROOFS = [
    # what the list answers about an address that it cannot list, what that proves, what is left of its listing
    ("it is not listed", Clear(60), Proof.SANE, Listed((0x7F000002,), 300, proven=True)),
    ("it lists the world", Listed((0x7F000002,), 60), Proof.FAILED, Unknown(Why.DISPROVED, (0x7F000002,))),
    ("it is parked", Unknown(Why.INVALID, (0x0A000001,)), Proof.FAILED, Unknown(Why.DISPROVED, (0x7F000002,))),
    ("it refuses by a code", Unknown(Why.BLOCKED), Proof.FAILED, Unknown(Why.DISPROVED, (0x7F000002,))),
    ("it is silent", Unknown(Why.TIMEOUT), Proof.UNANSWERED, Unknown(Why.UNPROVEN, (0x7F000002,))),
    ("its server fails", Unknown(Why.SERVFAIL), Proof.UNANSWERED, Unknown(Why.UNPROVEN, (0x7F000002,))),
    ("its server refuses", Unknown(Why.REFUSED), Proof.UNANSWERED, Unknown(Why.UNPROVEN, (0x7F000002,))),
    ("it is left alone", Unknown(Why.LEFT_ALONE), Proof.UNANSWERED, Unknown(Why.UNPROVEN, (0x7F000002,))),
]

SPACES = [
    # expect.clear, IP version of the clients, the space that is asked about
    ("the default", None, 4, "127.128.0.0/9"),
    ("the default, IPv6 clients", None, 6, "::ffff:127.128.0.0/105"),
    ("own space", "127.130.0.0/16", 4, "127.130.0.0/16"),
    ("own space, IPv6 clients", "127.130.0.0/16", 6, "::ffff:127.130.0.0/112"),
    ("own IPv6 space", "2001:db8::/48", 6, "2001:db8::/48"),
    ("own IPv6 space, IPv4 clients", "2001:db8::/48", 4, "127.128.0.0/9"),
]


def a_list(clear):
    return DnsList("one", "one.example", (Rule(500),), expect=Expect(clear=clear))


@pytest.mark.parametrize(("answer", "proof", "left"), [row[1:] for row in PROOFS], ids=[row[0] for row in PROOFS])
def test_what_an_answer_proves_and_leaves(answer, proof, left):
    assert prove(answer) is proof
    assert proven(LISTING, proof) == left


@pytest.mark.parametrize(("clear", "version", "space"), [row[1:] for row in SPACES], ids=[row[0] for row in SPACES])
@given(lot=st.integers(0, 2**64 - 1))
@settings(deadline=None, max_examples=50)
def test_the_address_lies_in_the_space_that_the_list_cannot_list(clear, version, space, lot):
    address = unlistable(a_list(clear), version, lot)
    assert address.version == version
    assert ip_address(str(address)) in ip_network(space)
    assert str(address) not in ("127.0.0.1", "127.0.0.2")


def test_lots_are_spread_over_the_whole_space():
    assert len({unlistable(a_list(None), 4, lot) for lot in range(10_000)}) == 10_000


def test_a_list_without_such_space_is_asked_nothing():
    assert unlistable(a_list("none"), 4, 7) is None
