"""What a list said about a client: one of three answers.

Floor 0: standard library only. Knows DNS return codes, and no list, weight or client.

"The list did not say" is never "not listed" and never "listed". Timeouts, failures, operator error codes
and addresses outside 127/8 are all `Unknown`, before any rule of any list is looked at.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address


class Why(StrEnum):
    """Why a list has said nothing that counts."""

    PENDING = "pending"
    """Asked, and no answer yet: the only reason that time may still mend."""
    TIMEOUT = "timeout"
    SERVFAIL = "servfail"
    REFUSED = "refused"
    BLOCKED = "blocked"
    """An operator's error code: the list answers, but not to us (over quota, open resolver, mistyped zone)."""
    INVALID = "invalid"
    """An answer that no list gives: outside 127/8, or no readable DNS message."""
    LEFT_ALONE = "left-alone"
    """Not waited for, because it gave several clients in a row nothing."""
    SUSPENDED = "suspended"
    """Not asked, because it failed its own health checks."""
    DISPROVED = "disproved"
    """It listed the client, and then a name that it cannot list: it lists whatever it is asked."""
    UNPROVEN = "unproven"
    """It listed the client, and then did not answer when asked for proof of its sanity."""
    DOUBTED = "doubted"
    """It listed the client, and suddenly lists far more clients than it used to: its word may tag, and no more."""


@dataclass(frozen=True, slots=True)
class Listed:
    """The list answered with return codes (addresses in 127/8 as integers), good for `ttl` seconds."""

    codes: tuple[int, ...]
    ttl: int
    proven: bool = False
    """After it answered, the list did not list a name that it cannot list."""

    def __str__(self) -> str:
        return ",".join(map(dotted, self.codes))


@dataclass(frozen=True, slots=True)
class Clear:
    """The list answered that it does not list the client, good for `ttl` seconds."""

    ttl: int

    def __str__(self) -> str:
        return "clear"


@dataclass(frozen=True, slots=True)
class Unknown:
    """The list did not say. `codes` holds what it answered instead, if it answered at all."""

    why: Why
    codes: tuple[int, ...] = ()

    def __str__(self) -> str:
        return ":".join(filter(None, (self.why, ",".join(map(dotted, self.codes)))))


Answer = Listed | Clear | Unknown

PENDING = Unknown(Why.PENDING)

OVER_QUOTA = int(IPv4Address("127.0.0.255"))
"""Allow-lists answer this to a resolver that asked too often (dnswl.org); it is never a reason to trust."""

_OPERATOR_ERRORS = int(IPv4Address("127.255.255.0")) >> 8


def in_loopback(code: int) -> bool:
    """Tell whether a return code lies in 127/8, where every list's codes live (RFC 5782, section 2.1)."""
    return code >> 24 == 127


def is_operator_error(code: int) -> bool:
    """Tell whether a return code lies in 127.255.255.0/24, where operators answer "not to you"."""
    return code >> 8 == _OPERATOR_ERRORS


def read(codes: Sequence[int], ttl: int) -> Answer:
    """Turn the addresses of a reply, and its time to live in seconds, into an answer.

    RFC 5782 says that any address means "listed". It was written before operators began to answer error codes
    and before expired domains began to answer the addresses of parking pages; so one such address makes
    the whole reply worthless, whatever else stands beside it.
    """
    if not codes:
        return Clear(ttl)
    if not all(map(in_loopback, codes)):
        return Unknown(Why.INVALID, tuple(codes))
    if any(map(is_operator_error, codes)):
        return Unknown(Why.BLOCKED, tuple(codes))
    return Listed(tuple(sorted(set(codes))), ttl)


def dotted(code: int) -> str:
    """Write a return code the way people read it."""
    return f"{code >> 24}.{code >> 16 & 255}.{code >> 8 & 255}.{code & 255}"
