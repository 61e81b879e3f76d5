"""What the evidence of one round says about a list: the worst symptom that shows, what the resolver explains left out.

Floor 1: standard library only. Takes the answers to probes and what clients have seen, and names what is wrong; what
becomes of the list is for `health`.

What the resolver does wrong is no list's fault: `resolver_fault` finds it out from all lists together, and
a symptom that it explains is not held against any of them.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address

from dnsbl_policy.answers import Answer, Clear, Listed, Unknown, Why
from dnsbl_policy.codes import parse_pattern
from dnsbl_policy.lists import Client, DnsList


class Symptom(StrEnum):
    """What is wrong with a list, worst first."""

    FAILED_PROOF = "failed-proof"
    """It listed a client, and right after it a name that it cannot list."""
    LISTS_THE_WORLD = "lists-the-world"
    """It listed an address that must not be listed, or one that nobody has."""
    FOREIGN = "foreign-answer"
    """It answered an address outside 127/8, as parked domains do."""
    REFUSES = "refuses"
    """It answered an operator's error code."""
    SILENT = "silent"
    """It answered nothing at all: time-outs, SERVFAIL, REFUSED."""
    EMPTIED = "emptied"
    """It no longer lists the test entry that every list must hold."""
    HIT_RATE = "hit-rate"
    """It suddenly lists far more clients than it used to, and the other lists do not."""
    WRONG_CODE = "wrong-code"
    """It lists the test entry with another code than expected."""


@dataclass(frozen=True, slots=True)
class Round:
    """The evidence of one round about one list and family. What was not asked is not there."""

    listed: Answer | None = None
    """About the test entry that the list must hold."""
    clear: tuple[Answer, ...] = ()
    """About addresses that it must not: 127.0.0.1, and random ones that nobody has."""
    disproved: bool = False
    """A proof failed since the last round, when a client of the family was about to be kept out."""
    rose: bool = False
    """Its hit rate among clients has jumped."""
    deaf: bool = False
    """It has given nearly no client an answer."""

    @property
    def answers(self) -> tuple[Answer, ...]:
        """Return all answers to probes."""
        return self.clear if self.listed is None else (self.listed, *self.clear)

    @property
    def silent(self) -> bool:
        """Tell whether every question was asked in vain."""
        return bool(self.answers) and all(map(_is_silence, self.answers))


class Fault(StrEnum):
    """What is wrong with the resolver, seen from its answers."""

    REWRITES = "rewrites"
    """It answers for names that do not exist."""
    REFUSED = "refused"
    """Several operators refuse to answer it: it is a public or shared one, or asks too much."""
    DOWN = "down"
    """Nothing is answered."""


def rfc_entry(version: int, last: int) -> Client:
    """Return 127.0.0.`last`, or for IPv6 the same mapped: RFC 5782, section 5."""
    number = 0x7F000000 | last
    return IPv4Address(number) if version == 4 else IPv6Address(0xFFFF << 32 | number)


def rfc_entries(one: DnsList, version: int) -> tuple[Client | None, Client | None]:
    """Return the entry that a list must hold and the one that it must not hold; None for one it is excused from.

    Where a list has its own space that is never listed, 127.0.0.1 is none of it.
    """
    return (
        None if one.expect.listed == "none" else rfc_entry(version, 2),
        None if one.expect.clear else rfc_entry(version, 1),
    )


def operator(one: DnsList) -> str:
    """Return who runs a list, as far as its zone tells: the label below the top one, or two for short ones."""
    labels = one.zone.lower().split(".")
    # co.uk and its like: the operator is one label further down.
    place = 3 if len(labels) > 2 and len(labels[-1]) == 2 and len(labels[-2]) <= 3 else 2
    return labels[-place]


def resolver_fault(control: Iterable[Answer], rounds: Iterable[tuple[str, Round]]) -> Fault | None:
    """Return what is wrong with the resolver.

    `control` is what it said about names that cannot exist; `rounds` are the latest of all lists, with operators.
    """
    controls, latest = list(control), [(name, each) for name, each in rounds if each.answers]
    if any(_codes(answer) for answer in controls):
        return Fault.REWRITES
    operators = {name for name, _ in latest}
    asked_in_vain = bool(latest) and all(each.silent for _, each in latest)
    if asked_in_vain and (len(operators) > 1 or all(map(_is_silence, controls))):
        return Fault.DOWN
    refusing = {name for name, each in latest if any(_is_refusal(answer) for answer in each.answers)}
    if len(refusing) > 2 or (len(refusing) == 2 and len(operators) < 4):
        return Fault.REFUSED
    return None


def diagnose(evidence: Round, expected: str | None, fault: Fault | None, rewritten: Collection[int] = ()) -> Symptom | None:
    """Return the worst that a round says about a list, what the resolver's fault explains left out.

    `expected` is the code of the test entry, or None for any; `rewritten` are the codes that a resolver which
    rewrites has answered for names that cannot exist.
    """
    rewrites = fault is Fault.REWRITES
    clear = [answer for answer in evidence.clear if not (rewrites and _is_rewritten(answer, rewritten))]
    listed = None if evidence.listed is None or (rewrites and _is_rewritten(evidence.listed, rewritten)) else evidence.listed
    answers = clear if listed is None else [listed, *clear]
    # The resolver's lies make proofs fail too; a list that is mad besides is found out by its probes.
    if evidence.disproved and fault not in (Fault.REWRITES, Fault.REFUSED):
        return Symptom.FAILED_PROOF
    if any(isinstance(answer, Listed) for answer in clear):
        return Symptom.LISTS_THE_WORLD
    if any(isinstance(answer, Unknown) and answer.why is Why.INVALID and answer.codes for answer in answers):
        return Symptom.FOREIGN
    if fault is not Fault.REFUSED and any(map(_is_refusal, answers)):
        return Symptom.REFUSES
    if (evidence.silent and fault is not Fault.DOWN) or (evidence.deaf and fault is None):
        return Symptom.SILENT
    if isinstance(listed, Clear):
        return Symptom.EMPTIED
    if evidence.rose and fault is None:
        return Symptom.HIT_RATE
    return Symptom.WRONG_CODE if isinstance(listed, Listed) and not _is_code(listed, expected) else None


def is_clean(evidence: Round, fault: Fault | None) -> bool:
    """Tell whether a round without a symptom speaks for the list: everything was asked, and answered by the list."""
    answered = bool(evidence.answers) and not any(isinstance(answer, Unknown) for answer in evidence.answers)
    return answered and fault is not Fault.REWRITES


def _is_silence(answer: Answer) -> bool:
    return isinstance(answer, Unknown) and not answer.codes


def _is_refusal(answer: Answer) -> bool:
    return isinstance(answer, Unknown) and answer.why is Why.BLOCKED


def _is_rewritten(answer: Answer, rewritten: Collection[int]) -> bool:
    # Resolvers that rewrite have several addresses; outside 127/8 they are the likelier liar, in it only when caught.
    codes = _codes(answer)
    return bool(codes) and (set(codes) <= set(rewritten) or (isinstance(answer, Unknown) and answer.why is Why.INVALID))


def _is_code(answer: Listed, expected: str | None) -> bool:
    return expected in (None, "none") or any(map(parse_pattern(str(expected)).matches, answer.codes))


def _codes(answer: Answer) -> tuple[int, ...]:
    return () if isinstance(answer, Clear) else answer.codes
