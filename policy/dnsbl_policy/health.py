"""Lists on probation for ever: what the evidence of a round says about a list, and what becomes of the list.

Floor 1: standard library only. Takes answers and counts, returns states; sends nothing, knows no clock but the one
that is passed in.

A list is judged in rounds. The evidence of a round comes to one `Symptom`, or to none; how often a symptom must
come back before anything happens is in `TOLERANCE`; what happens then is in `TRANSITIONS`, and nowhere else. Rounds are
counted and no seconds, so that a clock which jumps changes nothing.

What the resolver does wrong is no list's fault: `resolver_fault` finds it out from all lists together, and
a symptom that it explains is not held against any of them.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum, auto
from ipaddress import IPv4Address, IPv6Address
from statistics import median

from dnsbl_policy.answers import Answer, Clear, Listed, Unknown, Why
from dnsbl_policy.codes import parse_pattern
from dnsbl_policy.lists import Client, DnsList


class State(StrEnum):
    """What is thought of a list, for clients of one family."""

    OK = "ok"
    SUSPECT = "suspect"
    """Something is wrong that may pass; still asked and believed."""
    SUSPENDED = "suspended"
    """Not asked, and adds nothing."""
    PROBATION = "probation"
    """Sane again, as far as one knows; not asked before it has been so for a while."""

    @property
    def trusted(self) -> bool:
        """Tell whether the list is asked about clients."""
        return self in (State.OK, State.SUSPECT)


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


class Sign(IntEnum):
    """What one round means, given those before it."""

    NOISE = 0
    """Nothing that counts: a part of the answers is missing, or the resolver is to blame."""
    CLEAN = auto()
    ENOUGH = auto()
    """Clean, for as many rounds in a row as it takes; noise between them does not count."""
    HINT = auto()
    """A symptom, not often enough to mean anything yet."""
    DOUBT = auto()
    """A symptom, often enough to be suspicious of the list."""
    CERTAIN = auto()
    """A symptom that is certain, at once or by its persistence."""


_OK, _SUSPECT, _SUSPENDED, _PROBATION = State

TRANSITIONS: dict[State, tuple[State, ...]] = {
    # from         NOISE       CLEAN       ENOUGH      HINT        DOUBT       CERTAIN
    _OK:         (_OK,        _OK,        _OK,        _OK,        _SUSPECT,   _SUSPENDED),
    _SUSPECT:    (_SUSPECT,   _SUSPECT,   _OK,        _SUSPECT,   _SUSPECT,   _SUSPENDED),
    _SUSPENDED:  (_SUSPENDED, _SUSPENDED, _PROBATION, _SUSPENDED, _SUSPENDED, _SUSPENDED),
    _PROBATION:  (_PROBATION, _PROBATION, _OK,        _PROBATION, _SUSPENDED, _SUSPENDED),
}  # fmt: skip

NEVER = 1_000_000

TOLERANCE: dict[Symptom, tuple[int, int]] = {
    # Bad rounds, with no two clean ones in a row between them, until the list is suspect, and until it is suspended.
    Symptom.FAILED_PROOF:    (1, 1),
    Symptom.LISTS_THE_WORLD: (1, 1),
    Symptom.FOREIGN:         (1, 1),
    Symptom.REFUSES:         (1, 2),  # in the second round the other lists show whether the resolver is refused
    Symptom.SILENT:          (2, 3),  # the first may be one lost packet
    Symptom.EMPTIED:         (1, 3),  # a list that is being rebuilt is empty for a while
    Symptom.HIT_RATE:        (1, NEVER),  # it goes on being asked, or nobody would know when it is over; see `Record.doubted`
    Symptom.WRONG_CODE:      (1, NEVER),  # our knowledge may be out of date, and nobody is harmed
}  # fmt: skip

CLEAN_ROUNDS = {State.OK: 12, State.SUSPECT: 2, State.SUSPENDED: 1, State.PROBATION: 3}
"""Clean rounds in a row that are enough: to be forgiven former falls, to be ok again, to go on probation, to return."""

CLEAN_ROUNDS_AGAIN = 5
"""On probation, for a list that fell again before it was forgiven: with that into probation six in all, and no more."""


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a list for one family; a list starts as ok."""

    state: State = State.OK
    since: float = 0.0
    """When the state began, in seconds of the clock that is passed in."""
    symptom: Symptom | None = None
    """Why the list is not ok."""
    strikes: int = 0
    """Bad rounds since the list was last clean for long enough."""
    clean: int = 0
    """Clean rounds in a row."""
    falls: int = 0
    """How often it was suspended lately: 0, 1, or 2 for more."""

    @property
    def doubted(self) -> bool:
        """Tell whether the list's word may tag, and may keep nobody out.

        Its test entries are as they should be, and so is its proof; but a wave of spam that it alone sees and a list that
        has begun to list the innocent look the same from here. The first loses little by this, the second harms nobody.
        """
        return self.state is State.SUSPECT and self.symptom is Symptom.HIT_RATE


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


def step(record: Record, symptom: Symptom | None, clean: bool, now: float) -> Record:
    """Return what becomes of a list after a round with this symptom, or without one and then clean or not."""
    state = record.state
    suspicious, enough = (NEVER, NEVER) if symptom is None else TOLERANCE[symptom]
    if symptom is not None and enough < NEVER:
        strikes = record.strikes + 1
        sign = Sign.CERTAIN if strikes >= enough else Sign.DOUBT if strikes >= suspicious else Sign.HINT
        # A hint does not hide what the list is suspected of.
        after = replace(record, strikes=strikes, clean=0, symptom=record.symptom if sign is Sign.HINT else symptom)
    elif symptom is not None and state.trusted:
        # It is no strike: one lost packet after a year of it would be the last.
        sign, after = Sign.DOUBT, replace(record, clean=0, symptom=symptom)
    elif clean:
        # What never suspends a list keeps none suspended: whose test entry has got another code for good is back in as
        # many rounds as others, as a suspect.
        rounds = record.clean + 1
        sign = Sign.ENOUGH if rounds >= _enough(record) else Sign.CLEAN
        # Two clean rounds in a row clear a list of its strikes; after one, a symptom that comes and goes still adds up.
        strikes = 0 if rounds >= CLEAN_ROUNDS[State.SUSPECT] else record.strikes
        after = replace(record, clean=min(rounds, CLEAN_ROUNDS[State.OK]), strikes=strikes)
    else:
        sign, after = Sign.NOISE, record
    new = TRANSITIONS[state][sign]
    if new is State.OK:
        forgiven = state is State.OK and sign is Sign.ENOUGH
        after = replace(after, symptom=None, falls=0 if forgiven else after.falls)
    if new is state:
        return after
    falls = min(after.falls + 1, 2) if new is State.SUSPENDED else after.falls
    strikes = after.strikes if new is State.SUSPECT else 0
    return replace(after, state=new, since=now, clean=0, strikes=strikes, falls=falls)


def _enough(record: Record) -> int:
    again = record.state is State.PROBATION and record.falls > 1
    return CLEAN_ROUNDS_AGAIN if again else CLEAN_ROUNDS[record.state]


@dataclass(frozen=True, slots=True)
class Live:
    """What a list said about clients in some time."""

    asked: int = 0
    listed: int = 0
    failed: int = 0

    @property
    def share(self) -> float:
        """Return the share of clients listed among those it gave an answer about."""
        return self.listed / max(self.asked - self.failed, 1)

    def __add__(self, other: "Live") -> "Live":
        return Live(self.asked + other.asked, self.listed + other.listed, self.failed + other.failed)

    def __sub__(self, other: "Live") -> "Live":
        # Never below zero: counters begin anew where their files are gone.
        return Live(max(self.asked - other.asked, 0), max(self.listed - other.listed, 0), max(self.failed - other.failed, 0))


ENOUGH_CLIENTS = 20
"""A share of fewer says nothing."""
_DEAF = 0.9
_LEAST_RISE = 0.2
_DEVIATIONS = 4.0
_MEMORY = 400.0
_RISEN_COUNTS = 0.05
"""How much a share counts for the baseline that it breaks with: a level that stays becomes the usual one in the end."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """The share of clients that a list usually lists, and how many clients that rests on."""

    share: float = 0.0
    clients: float = 0.0

    @property
    def known(self) -> bool:
        """Tell whether it rests on enough."""
        return self.clients >= ENOUGH_CLIENTS

    def learn(self, live: Live, weight: float = 1.0) -> "Baseline":
        """Return the baseline with these clients taken in; what is long ago counts less and less."""
        added = (live.asked - live.failed) * weight
        clients = self.clients + added
        if clients <= 0:
            return self
        return Baseline((self.share * self.clients + live.share * added) / clients, min(clients, _MEMORY))


def rose(baseline: Baseline, live: Live, others: Iterable[tuple[Baseline, Live]]) -> bool:
    """Tell whether a list's share has jumped, by itself: in a wave of spam every list lists more.

    `others` are lists of its kind, which a wave lifts too; where there is none to compare with, nothing can be told.
    """
    answered = live.asked - live.failed
    if not baseline.known or answered < ENOUGH_CLIENTS:
        return False
    usual = baseline.share
    rise = live.share - usual
    # A share near 0 has next to no deviation by itself; what the baseline rests on is a sample too.
    spread = (max(usual * (1 - usual), 0.01) * (1 / answered + 1 / baseline.clients)) ** 0.5
    if rise < max(_LEAST_RISE, _DEVIATIONS * spread):
        return False
    peers = [(known, seen) for known, seen in others if known.known and seen.asked - seen.failed >= ENOUGH_CLIENTS]
    if not peers:
        return False
    # A wave multiplies the share of every list that knows a part of it, and all alike: a list of wide coverage rises by
    # many points beside one that hardly rises at all. And it adds to lists that used to be silent.
    usually = sum(known.share * (seen.asked - seen.failed) for known, seen in peers)
    factor = sum(seen.listed for _, seen in peers) / max(usually, 1.0)
    explained = max(usual * (factor - 1), median(seen.share - known.share for known, seen in peers))
    return explained < rise / 2


def is_deaf(live: Live) -> bool:
    """Tell whether a list gave nearly no client an answer."""
    return live.asked >= ENOUGH_CLIENTS and live.failed >= _DEAF * live.asked


def learned(baseline: Baseline, live: Live, risen: bool) -> Baseline:
    """Return the baseline after a time whose share has risen beyond it, or not."""
    return baseline.learn(live, _RISEN_COUNTS if risen else 1.0)


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
