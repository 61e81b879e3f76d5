"""The actions a verdict can come to, from mildest to hardest.

Floor 0: standard library only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class Action(IntEnum):
    """What is done with a recipient or a message; a harder action compares as greater."""

    ACCEPT = 0
    TAG = 1
    DEFER = 2
    QUARANTINE = 3
    REJECT = 4
    DISCARD = 5

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Tiers:
    """The thresholds: each action with the score, in hundredths and inclusive, from which it is taken."""

    thresholds: Sequence[tuple[int, Action]]
    """In rising order of both; an action that is missing is never reached by a score."""

    @property
    def mildest(self) -> Action:
        """Return what a score may come to that keeps nobody out: a tag, if there is one."""
        return Action.TAG if any(action is Action.TAG for _, action in self.thresholds) else Action.ACCEPT

    def of(self, score: int) -> Action:
        """Return the action that a score asks for."""
        reached = Action.ACCEPT
        for threshold, action in self.thresholds:
            if score < threshold:
                break
            reached = action
        return reached

    def carried(self, score: int, low: int) -> Action:
        """Return the action that a score asks for, as far as the evidence carries it.

        `low` is the score if every list that failed had spoken for the sender. Quarantine, reject and discard lose
        mail, so silence may not cause them: they go only as far as `low` reaches, and otherwise soften to a
        deferral, which an honest server survives, even where no score would defer.
        """
        asked = self.of(score)
        if asked <= Action.DEFER:
            return asked
        carried = self.of(low)
        return asked if carried >= asked else max(Action.DEFER, carried)
