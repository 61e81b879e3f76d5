"""Thresholds, and how far the evidence carries an action."""

import pytest

from dnsbl_policy.actions import Action, Tiers

ACCEPT, TAG, DEFER, QUARANTINE, REJECT, DISCARD = Action

ALL = Tiers(((300, TAG), (600, DEFER), (800, QUARANTINE), (1200, REJECT), (9900, DISCARD)))
NO_DEFER = Tiers(((300, TAG), (800, QUARANTINE), (1200, REJECT)))
ONLY_REJECT = Tiers(((500, REJECT),))
NOTHING = Tiers(())
TOGETHER = Tiers(((500, TAG), (500, REJECT)))


def test_severity_has_the_order_of_the_contract():
    assert [str(action) for action in sorted(Action)] == ["accept", "tag", "defer", "quarantine", "reject", "discard"]


REACHED = [
    # name, tiers, score, action
    ("nothing known", ALL, 0, ACCEPT),
    ("below zero", ALL, -9999, ACCEPT),
    ("just below the first", ALL, 299, ACCEPT),
    ("a threshold is inclusive", ALL, 300, TAG),
    ("just below the second", ALL, 599, TAG),
    ("defer", ALL, 600, DEFER),
    ("just below quarantine", ALL, 799, DEFER),
    ("quarantine", ALL, 800, QUARANTINE),
    ("just below reject", ALL, 1199, QUARANTINE),
    ("reject", ALL, 1200, REJECT),
    ("just below discard", ALL, 9899, REJECT),
    ("discard", ALL, 9900, DISCARD),
    ("beyond all", ALL, 100_000, DISCARD),
    ("an action left out is never taken", NO_DEFER, 700, TAG),
    ("the next after it is", NO_DEFER, 800, QUARANTINE),
    ("one beyond the last", NO_DEFER, 9900, REJECT),
    ("only one, below", ONLY_REJECT, 499, ACCEPT),
    ("only one, at", ONLY_REJECT, 500, REJECT),
    ("no threshold at all", NOTHING, 100_000, ACCEPT),
    ("two at one score: the harder", TOGETHER, 500, REJECT),
    ("two at one score, below", TOGETHER, 499, ACCEPT),
]


@pytest.mark.parametrize(("name", "tiers", "score", "action"), REACHED, ids=[row[0] for row in REACHED])
def test_a_score_reaches_an_action(name, tiers, score, action):
    assert tiers.of(score) is action


SCORES = {ACCEPT: 0, TAG: 300, DEFER: 600, QUARANTINE: 800, REJECT: 1200, DISCARD: 9900}
"""A score in the tier of each action."""

CARRIED = {
    # asked: carried at a low in the tier of accept, tag, defer, quarantine, reject, discard; None: low is never above
    ACCEPT: (ACCEPT, None, None, None, None, None),
    TAG: (TAG, TAG, None, None, None, None),
    DEFER: (DEFER, DEFER, DEFER, None, None, None),
    QUARANTINE: (DEFER, DEFER, DEFER, QUARANTINE, None, None),
    REJECT: (DEFER, DEFER, DEFER, QUARANTINE, REJECT, None),
    DISCARD: (DEFER, DEFER, DEFER, QUARANTINE, REJECT, DISCARD),
}
CELLS = [
    (asked, low, action)
    for asked, row in CARRIED.items()
    for low, action in zip(Action, row, strict=True)
    if action is not None
]


@pytest.mark.parametrize(("asked", "low", "action"), CELLS, ids=[f"{asked}-low-{low}" for asked, low, _ in CELLS])
def test_every_cell_of_score_and_low(asked, low, action):
    assert len(CELLS) == 21
    assert ALL.carried(SCORES[asked], SCORES[low]) is action


SOFTENED = [
    # name, tiers, score, low, action
    ("reject, low just short", ALL, 1200, 1199, QUARANTINE),
    ("quarantine, low just short", ALL, 800, 799, DEFER),
    ("quarantine, low below zero", ALL, 800, -5000, DEFER),
    ("tag is not softened", ALL, 300, -5000, TAG),
    ("defer is not softened", ALL, 600, -5000, DEFER),
    ("a deferral where no score defers", NO_DEFER, 800, 799, DEFER),
    ("a deferral where no score defers, from reject", NO_DEFER, 1200, 0, DEFER),
    ("the harder of defer and what is carried", NO_DEFER, 1200, 800, QUARANTINE),
    ("a tier left out between", NO_DEFER, 1200, 700, DEFER),
    ("only reject", ONLY_REJECT, 500, 499, DEFER),
    ("only reject, carried", ONLY_REJECT, 500, 500, REJECT),
    ("no threshold at all", NOTHING, 9900, -9900, ACCEPT),
]


@pytest.mark.parametrize(("name", "tiers", "score", "low", "action"), SOFTENED, ids=[row[0] for row in SOFTENED])
def test_an_action_softens_to_what_is_carried_or_a_deferral(name, tiers, score, low, action):
    assert tiers.carried(score, low) is action
