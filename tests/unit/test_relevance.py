"""A warning that a list or a threshold can never matter is never wrong, and given wherever it is due."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnsbl_policy.actions import Action, Tiers
from dnsbl_policy.codes import parse_pattern
from dnsbl_policy.lists import DnsList, Rule
from dnsbl_policy.relevance import never_matter, never_reached

ACCEPT, TAG, DEFER, QUARANTINE, REJECT, DISCARD = Action


def dnsbl(name: str, *weights: int, group: str | None = None, observe: bool = False) -> DnsList:
    """Make a list with a rule, and a code of its own, for each weight."""
    rules = tuple(Rule(weight, parse_pattern(f"127.0.0.{code}")) for code, weight in enumerate(weights, 2))
    return DnsList(name, f"{name}.example.net", rules, group=group, observe=observe)


TIERS = Tiers(((300, TAG), (600, DEFER), (1200, REJECT)))

NEVER = [
    # name, lists, caps, lists that never matter
    ("strong enough alone", [dnsbl("a", 300)], {}, ""),
    ("too weak alone", [dnsbl("a", 299)], {}, "a"),
    ("strong enough with all its rules", [dnsbl("a", 150, 150)], {}, ""),
    ("strong enough with another", [dnsbl("a", 299), dnsbl("b", 1)], {}, ""),
    ("too weak with another", [dnsbl("a", 149), dnsbl("b", 150)], {}, "a b"),
    ("helps another over a threshold", [dnsbl("a", 500), dnsbl("b", 100)], {}, ""),
    ("never where a threshold is", [dnsbl("a", 500), dnsbl("b", 99)], {}, "b"),
    ("an advocate with nobody to speak for", [dnsbl("a", -400)], {}, "a"),
    ("an advocate that takes back", [dnsbl("a", 300), dnsbl("b", -1)], {}, ""),
    ("an advocate too weak to take back", [dnsbl("a", 400), dnsbl("b", -100)], {}, "b"),
    ("an advocate against the strongest of three", [dnsbl("a", 400), dnsbl("b", 250), dnsbl("c", -51)], {}, ""),
    ("another's trust brings it down to where a threshold is", [dnsbl("a", 400), dnsbl("b", -150), dnsbl("c", 100)], {}, ""),
    ("no weight", [dnsbl("a", 0), dnsbl("b", 300)], {}, "a"),
    ("no rule", [dnsbl("a"), dnsbl("b", 300)], {}, "a"),
    ("on observation it is not meant to matter", [dnsbl("a", 1, observe=True), dnsbl("b", 300)], {}, ""),
    ("one on observation helps nobody", [dnsbl("a", 299), dnsbl("b", 300, observe=True)], {}, "a"),
    ("a cap below every threshold", [dnsbl("a", 500, group="g"), dnsbl("b", 500, group="g")], {"g": 299}, "a b"),
    ("a cap at a threshold", [dnsbl("a", 500, group="g"), dnsbl("b", 500, group="g")], {"g": 300}, ""),
    ("a cap that makes a sum which no weights make", [
        dnsbl("a", 400, group="g"), dnsbl("b", 400, group="g"), dnsbl("c", 100),
    ], {"g": 500}, ""),
    ("the same without the cap", [dnsbl("a", 400), dnsbl("b", 400), dnsbl("c", 100)], {}, "c"),
    ("a mate that a full group leaves no room", [
        dnsbl("a", 300, group="g"), dnsbl("b", 299, group="g"),
    ], {"g": 300}, "b"),
    ("trust beside a cap", [dnsbl("a", 500, group="g"), dnsbl("b", -1, group="g")], {"g": 300}, ""),
    ("each group has its own cap", [dnsbl("a", 500, group="g"), dnsbl("b", 500, group="h")], {"g": 200, "h": 99}, "a b"),
    ("two groups together", [dnsbl("a", 500, group="g"), dnsbl("b", 500, group="h")], {"g": 200, "h": 100}, ""),
]  # fmt: skip


@pytest.mark.parametrize(("name", "lists", "caps", "never"), NEVER, ids=[row[0] for row in NEVER])
def test_a_list_that_changes_no_action_is_named(name, lists, caps, never):
    assert never_matter(lists, TIERS, caps) == tuple(never.split())


REACHED = [
    # name, lists, caps, actions never reached
    ("none without lists", [], {}, (TAG, DEFER, REJECT)),
    ("the sum reaches the first just so", [dnsbl("a", 150), dnsbl("b", 150)], {}, (DEFER, REJECT)),
    ("one short of it", [dnsbl("a", 150), dnsbl("b", 149)], {}, (TAG, DEFER, REJECT)),
    ("all", [dnsbl("a", 1200)], {}, ()),
    ("an advocate takes nothing from the most", [dnsbl("a", 600), dnsbl("b", -500)], {}, (REJECT,)),
    ("one on observation adds nothing", [dnsbl("a", 600), dnsbl("b", 600, observe=True)], {}, (REJECT,)),
    ("a cap", [dnsbl("a", 600, group="g"), dnsbl("b", 600, group="g")], {"g": 700}, (REJECT,)),
    ("two caps", [dnsbl("a", 900, group="g"), dnsbl("b", 900, group="h")], {"g": 600, "h": 600}, ()),
    ("a group without a cap", [dnsbl("a", 1200, group="g")], {"h": 1}, ()),
]


@pytest.mark.parametrize(("name", "lists", "caps", "actions"), REACHED, ids=[row[0] for row in REACHED])
def test_a_threshold_that_no_sum_reaches_is_named(name, lists, caps, actions):
    assert never_reached(lists, TIERS, caps) == actions


def test_without_thresholds_nothing_matters():
    assert never_matter([dnsbl("a", 500)], Tiers(()), {}) == ("a",)
    assert never_reached([dnsbl("a", 500)], Tiers(()), {}) == ()


# --- brute force: every list answers every subset of its rules

weights = st.lists(st.integers(-6, 8), max_size=2)
shapes = st.tuples(weights, st.sampled_from([None, None, "g", "h"]), st.sampled_from([False, False, False, True]))
ladders = st.lists(st.integers(1, 14), max_size=3).map(sorted)


def subsets(one):
    return [
        [rule.weight for rule, chosen in zip(one.rules, choice, strict=True) if chosen]
        for choice in product([False, True], repeat=len(one.rules))
    ]


def total(lists, caps, answers):
    """Sum as the contract says: a group's positive points up to its cap, and every negative point."""
    groups = {}
    points = 0
    for one, answer in zip(lists, answers, strict=True):
        for weight in answer:
            if weight > 0 and one.group in caps:
                groups[one.group] = groups.get(one.group, 0) + weight
            else:
                points += weight
    return points + sum(min(caps[name], sum_) for name, sum_ in groups.items())


@given(
    st.lists(shapes, max_size=4),
    st.dictionaries(st.sampled_from(["g", "h"]), st.integers(1, 10)),
    ladders,
)
@settings(deadline=None, max_examples=400)
def test_brute_force_names_the_same_lists_and_thresholds(shapes, caps, ladder):
    lists = [dnsbl(f"l{place}", *shape[0], group=shape[1], observe=shape[2]) for place, shape in enumerate(shapes)]
    counted = [one for one in lists if not one.observe]
    tiers = Tiers(tuple(zip(ladder, [TAG, DEFER, REJECT], strict=False)))

    def tier(score):
        return sum(threshold <= score for threshold in ladder)

    matters = set()
    most = 0
    for answers in product(*map(subsets, counted)):
        reached = total(counted, caps, answers)
        most = max(most, reached)
        for place, one in enumerate(counted):
            without = total(counted, caps, [*answers[:place], [], *answers[place + 1 :]])
            if tier(reached) != tier(without):
                matters.add(one.name)
    assert never_matter(lists, tiers, caps) == tuple(one.name for one in counted if one.name not in matters)
    assert never_reached(lists, tiers, caps) == tuple(action for edge, action in tiers.thresholds if edge > most)
