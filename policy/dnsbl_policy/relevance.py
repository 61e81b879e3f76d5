"""Which lists and thresholds of a policy can never matter.

Floor 1: standard library only.

A set of reachable sums is kept as the bits of one integer, so that adding a list to it is a shift. Caps of groups
belong in it: they make sums that no weights make (400 and 400 with a cap of 500), and a warning must never be wrong.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from dnsbl_policy.actions import Action, Tiers
from dnsbl_policy.lists import DnsList


def never_matter(lists: Sequence[DnsList], tiers: Tiers, caps: Mapping[str, int] | None = None) -> tuple[str, ...]:
    """Return the names of lists that change no action, whatever the others say."""
    counted = [one for one in lists if not one.observe]
    return tuple(
        one.name
        for one in counted
        if not _matters(one, [other for other in counted if other is not one], tiers, caps or {})
    )


def never_reached(lists: Sequence[DnsList], tiers: Tiers, caps: Mapping[str, int] | None = None) -> tuple[Action, ...]:
    """Return the actions whose thresholds no sum of the lists reaches."""
    groups, alone = _grouped([one for one in lists if not one.observe], caps or {})
    most = sum(one.most for one in alone) + sum(min(cap, sum(one.most for one in mates)) for cap, mates in groups.values())
    return tuple(action for threshold, action in tiers.thresholds if threshold > most)


def _matters(one: DnsList, others: Sequence[DnsList], tiers: Tiers, caps: Mapping[str, int]) -> bool:
    # Sums below zero are bits too: everything is moved up by the least sum that can come about.
    base = -sum(each.least for each in (one, *others))
    top = base + sum(each.most for each in (one, *others)) + 1
    groups, alone = _grouped(others, caps)
    cap, mates = groups.pop(one.group or "", (caps.get(one.group or "", top), []))
    # What the list adds hangs on what its mates have left of the cap, so their points are kept apart from the rest.
    rest = _below(_above(1 << base, alone), others)
    for other_cap, group in groups.values():
        rest = _plus(rest, _above(1, group), other_cap)
    edges = [0, *(base + threshold for threshold, _ in tiers.thresholds), top]
    for start, end in pairwise(edges):
        tier = ((1 << max(end, 0)) - 1) & ~((1 << max(start, 0)) - 1)
        for points in _sums(_above(1, mates), cap):
            before = rest << points & tier
            for after in {min(cap, points + added) for added in _sums(_above(1, [one]), cap)}:
                if _below(before << after - points, [one]) & ~tier:
                    return True
    return False


def _grouped(
    lists: Iterable[DnsList], caps: Mapping[str, int]
) -> tuple[dict[str, tuple[int, list[DnsList]]], list[DnsList]]:
    """Return the lists of each group with its cap, and those that have none."""
    groups: dict[str, tuple[int, list[DnsList]]] = {}
    alone: list[DnsList] = []
    for one in lists:
        if one.group is not None and one.group in caps:
            groups.setdefault(one.group, (caps[one.group], []))[1].append(one)
        else:
            alone.append(one)
    return groups, alone


def _above(sums: int, lists: Iterable[DnsList]) -> int:
    """Return the sums that are reachable if any rules above zero may add."""
    for rule in (rule for one in lists for rule in one.rules if rule.weight > 0):
        sums |= sums << rule.weight
    return sums


def _below(sums: int, lists: Iterable[DnsList]) -> int:
    """Return the sums that are reachable if any rules below zero may add."""
    for rule in (rule for one in lists for rule in one.rules if rule.weight < 0):
        sums |= sums >> -rule.weight
    return sums


def _plus(sums: int, added: int, cap: int) -> int:
    """Return the sums that are reachable if any of a group's points, as far as its cap, may be added."""
    reachable = 0
    for points in _sums(added, cap):
        reachable |= sums << points
    return reachable


def _sums(bits: int, cap: int) -> set[int]:
    """Return the sums that the bits stand for, as far as the cap."""
    return {min(cap, place) for place, bit in enumerate(reversed(f"{bits:b}")) if bit == "1"}
