"""The interval that a score is until every list has answered, and the sums that it is made of.

Floor 1: standard library only. Knows points and actions; whose points they are is for `scoring`.
"""

from dataclasses import dataclass

from dnsbl_policy.actions import Action, Tiers


@dataclass(slots=True)
class Range:
    """A sum under way, for one group of lists."""

    cap: int | None
    known: int = 0
    pending: int = 0
    failed: int = 0

    def capped(self, points: int) -> int:
        """Return what is left of the group's points."""
        return points if self.cap is None else min(self.cap, points)


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a score stands and what can still become of it; hundredths of a point.

    `low` and `high` bracket the outcome if every list that is out or has failed answered after all. The four
    others bracket what those lists that *can* still answer may lead to; the failed ones will not.
    """

    score: int
    low: int
    high: int
    least_score: int
    least_low: int
    most_score: int
    most_low: int

    def extremes(self, tiers: Tiers) -> tuple[Action, Action]:
        """Return the mildest and the hardest action that lists which can still answer may lead to.

        The carried action rises with both score and low, so equal actions at both corners mean one action between.
        """
        return tiers.carried(self.least_score, self.least_low), tiers.carried(self.most_score, self.most_low)
