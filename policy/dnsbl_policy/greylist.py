"""What a deferral forgives: who is told to come back, and who has come back in time.

Floor 1: standard library only. Knows no engine: takes what is remembered of a triplet and the time, and returns the
answer and what is to be remembered from then on.

The clock is the wall's, for memory outlives a restart and is shared by hosts; so it may jump either way. What lies
in the future was written by a clock that has been set back since, or by a host whose clock is ahead. It counts
as of now, which neither lets a first attempt pass nor keeps anybody out until the future has come.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_network

from dnsbl_policy.lists import Client

PREFIXES = {4: 24, 6: 64}
"""Bits of a client that count, by IP version: a provider's retry may come from a neighbour of the first attempt."""

_SIGNED = (
    # A forwarder's rewriting: SRS0=hash=day=domain=user, and what the next forwarder makes of it.
    (re.compile(r"^srs0[-+=][^=]*=[^=]*="), "srs0=*=*="),
    (re.compile(r"^srs1[-+=][^=]*=([^=]*)=[-+=][^=]*=[^=]*="), r"srs1=*=\1==*=*="),
    # Exchange Online's: bounces+SRS=hash=day, and user+SRS=hash=day=domain=user.
    (re.compile(r"\+srs=[^=]*=[^=]*"), "+srs=*=*"),
    # A signed return path (BATV): prvs=tag=user; two vendors use names of their own.
    (re.compile(r"^(prvs|msprvs1|btv1)=+[^=]*=+"), r"\1=*="),
)
_VERP = re.compile(r"[-+][^-+=]+=(?:[a-z0-9-]+\.)+[a-z0-9-]+$", re.ASCII)
"""The recipient written into the sender: bounce-123-alice=example.org."""
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_WORD = re.compile(r"[0-9a-z]+", re.ASCII)
_HEX = re.compile(r"[0-9a-f]{4,}", re.ASCII)
_DIGIT = re.compile(r"[0-9]", re.ASCII)
_LONG_NUMBER = re.compile(r"[0-9]{4,}", re.ASCII)
_STARS = re.compile(r"\*(?:[-+_.]?\*)+")
_LONGEST_WORD = 10
"""Letters and digits mixed over this length are an identifier; shorter ones are somebody's name."""


class Recollection(StrEnum):
    """What memory says of an attempt; also the value of the log's field and of the metric's label."""

    DEFERRED = "deferred"
    """The first attempt, or the first for a long time."""
    EARLY = "early"
    """A retry before the delay is over."""
    PASSED = "passed"
    """A retry in time, from now on known."""
    KNOWN = "known"
    """It passed before."""
    UNAVAILABLE = "unavailable"
    """Nobody knows, so nobody is deferred for it."""

    @property
    def forgives(self) -> bool:
        """Tell whether the recipient is accepted, with a tag, instead of deferred."""
        return self not in (Recollection.DEFERRED, Recollection.EARLY)


@dataclass(frozen=True, slots=True)
class Terms:
    """How long a sender has to wait, may take to come back, and is known after that; in seconds."""

    delay: float = 300
    window: float = 172_800
    remember: float = 3_024_000


@dataclass(frozen=True, slots=True)
class Trace:
    """What is remembered of a triplet."""

    since: float
    """The moment of the first attempt; once it has passed, of the latest."""
    passed: bool = False


def attempt(before: Trace | None, now: float, terms: Terms) -> tuple[Recollection, Trace]:
    """Answer an attempt; return the answer, and what is to be remembered instead of `before`."""
    if before is None:
        return Recollection.DEFERRED, Trace(now)
    age = now - before.since
    if before.passed:
        if age <= terms.remember:
            return Recollection.KNOWN, Trace(now, passed=True)
    elif age < terms.delay:
        # Kept as it was, or a sender that is impatient would never get in; but never in the future.
        return Recollection.EARLY, before if age >= 0 else Trace(now)
    elif age <= terms.window:
        return Recollection.PASSED, Trace(now, passed=True)
    return Recollection.DEFERRED, Trace(now)


@dataclass(frozen=True, slots=True)
class Triplet:
    """What is remembered as one: a client's network, and the sender and recipient in the form that counts."""

    network: str
    sender: str
    recipient: str


def triplet(client: Client, sender: str, recipient: str) -> Triplet:
    """Return what an attempt is remembered under; addresses without their angle brackets."""
    return Triplet(network(client), fold_sender(sender), recipient.lower())


def network(client: Client) -> str:
    """Return the network that a client is remembered by."""
    return str(ip_network((client, PREFIXES[client.version]), strict=False))


def fold_sender(sender: str) -> str:
    """Return a sender without what differs from message to message; the null sender stays itself.

    Numbers, identifiers, signatures and recipients in the local part become a star. That makes one of
    some who are different people at one domain, and costs nothing: network and recipient must be the same too.
    """
    local, at, domain = sender.lower().rpartition("@")
    if not at:
        local, domain = domain, ""
    for signed, folded in _SIGNED:
        local = signed.sub(folded, local)
    # What a forwarder rewrote has a domain and a user in it that look like a recipient, and are the sender.
    if not local.startswith(("srs0=", "srs1=")):
        local = _VERP.sub("-*", local)
    local = _UUID.sub("*", local)
    local = _WORD.sub(_fold_word, local)
    return _STARS.sub("*", local) + at + domain.rstrip(".")


def _fold_word(found: re.Match[str]) -> str:
    word = found[0]
    if not _DIGIT.search(word):
        return word
    if word.isdigit() or len(word) >= _LONGEST_WORD or _HEX.fullmatch(word):
        return "*"
    return _LONG_NUMBER.sub("*", word)
