"""The share of clients that a list lists: what is usual for it, and when it has risen by itself.

Floor 1: standard library only. Takes counts, returns judgements; who counts, and how often, is none of its concern.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median


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
