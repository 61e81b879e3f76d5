"""Which lists and thresholds of a policy can never matter.

Floor 1: standard library only.

A set of reachable sums is kept as the bits of one integer, so that adding a list to it is a shift. Caps of groups
are left out, which can only make a list look as if it could matter: no warning is ever wrong.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from dnsbl_policy.actions import Action, Tiers
from dnsbl_policy.lists import DnsList


def never_matter(lists: Sequence[DnsList], tiers: Tiers) -> tuple[str, ...]:
    """Return the names of lists that change no action, whatever the others say."""
    counted = [one for one in lists if not one.observe]
    return tuple(one.name for one in counted if not _matters(one, [other for other in counted if other is not one], tiers))


def never_reached(lists: Sequence[DnsList], tiers: Tiers) -> tuple[Action, ...]:
    """Return the actions whose thresholds no sum of the lists reaches."""
    most = sum(one.most for one in lists if not one.observe)
    return tuple(action for threshold, action in tiers.thresholds if threshold > most)


def _matters(one: DnsList, others: Iterable[DnsList], tiers: Tiers) -> bool:
    others = tuple(others)
    # Sums below zero are bits too: everything is moved up by the least sum that can come about.
    base = -sum(each.least for each in (one, *others))
    top = base + sum(each.most for each in (one, *others)) + 1
    before = 1 << base
    for other in others:
        before = _with(before, other)
    edges = [0, *(base + threshold for threshold, _ in tiers.thresholds), top]
    for start, end in pairwise(edges):
        tier = ((1 << max(end, 0)) - 1) & ~((1 << max(start, 0)) - 1)
        if _with(before & tier, one) & ~tier:
            return True
    return False


def _with(sums: int, one: DnsList) -> int:
    """Return the sums that are reachable if this list may add any of its rules."""
    for rule in one.rules:
        sums |= sums << rule.weight if rule.weight >= 0 else sums >> -rule.weight
    return sums
