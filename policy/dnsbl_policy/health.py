"""Lists on probation for ever: what becomes of a list, round by round.

Floor 1: standard library only. Takes symptoms, returns states; sends nothing, knows no clock but the one that is
passed in.

A list is judged in rounds. The evidence of a round comes to one symptom, or to none (`symptoms`); how often a symptom must
come back before anything happens is in `TOLERANCE`; what happens then is in `TRANSITIONS`, and nowhere else. Rounds are
counted and no seconds, so that a clock which jumps changes nothing.
"""

from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum, auto

from dnsbl_policy.symptoms import Symptom


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
