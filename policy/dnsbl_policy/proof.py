"""No drop without fresh proof: what a list is asked, and what its answer proves.

Floor 1: standard library only. Draws no lots; the random number is an argument.

Before mail is kept out, each list that added points is asked for an address that it cannot list. It must be one that
was never asked before: a resolver goes on answering from its cache for the sane list of a minute ago, so
with a fixed test entry 37 of 200 innocents were hurt after a list went mad, and with a fresh name none.
"""

from enum import StrEnum
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_network

from dnsbl_policy.answers import Answer, Clear, Listed, Unknown, Why
from dnsbl_policy.lists import Client, DnsList

_UNLISTABLE = IPv4Network("127.128.0.0/9")
"""Loopback addresses that no list lists: the test entries of RFC 5782, section 5, lie in the other half."""
_MAPPED = 0xFFFF << 32


class Proof(StrEnum):
    """What a list's answer about an address that it cannot list proves."""

    SANE = "sane"
    FAILED = "failed"
    UNANSWERED = "unanswered"


def unlistable(one: DnsList, version: int, lot: int) -> Client | None:
    """Return the address of this lot (any number) that the list cannot list; None if it has no such space.

    For clients of IP version 6, IPv4 space is mapped into ::ffff:0:0/96, as RFC 5782's own test entries are.
    """
    if one.expect.clear == "none":
        return None
    space: IPv4Network | IPv6Network = ip_network(one.expect.clear) if one.expect.clear else _UNLISTABLE
    if version == 4 and space.version == 6:
        space = _UNLISTABLE
    address = space[lot % space.num_addresses]
    return IPv6Address(_MAPPED | int(address)) if version == 6 and address.version == 4 else address


def prove(answer: Answer) -> Proof:
    """Return what an answer proves: silence nothing, and every answer but "not listed" that the list is not sane."""
    if isinstance(answer, Clear):
        return Proof.SANE
    if isinstance(answer, Listed) or answer.why in (Why.BLOCKED, Why.INVALID):
        return Proof.FAILED
    return Proof.UNANSWERED


def proven(listing: Listed, proof: Proof) -> Answer:
    """Return what is left of a listing after its proof: nothing, unless the list proved sane."""
    if proof is Proof.SANE:
        return Listed(listing.codes, listing.ttl, proven=True)
    return Unknown(Why.DISPROVED if proof is Proof.FAILED else Why.UNPROVEN, listing.codes)
