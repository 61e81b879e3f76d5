"""Scores worked out by hand: weights, groups, silence, suspension, settling, softening, and whose fault it was.

In the tables a list's answer is written as the last octets of its codes (`zen=2,4` or `dnswl=5.1` for 127.0.5.1),
`?` for a time-out, `...` for an answer that is still out, `!` for a list that is suspended and `~` for one that
failed its proof. A list that a row does not name is clear.
"""

from ipaddress import IPv4Address, ip_address

import pytest

from dnsbl_policy.actions import Action, Tiers
from dnsbl_policy.allow import Exemption
from dnsbl_policy.answers import PENDING, Answer, Clear, Listed, Unknown, Why
from dnsbl_policy.codes import parse_pattern
from dnsbl_policy.lists import DnsList, Rule
from dnsbl_policy.scoring import Contribution, Panel, Policy, exempted, may_share

ACCEPT, TAG, DEFER, QUARANTINE, REJECT, DISCARD = Action
CLIENT = ip_address("192.0.2.99")


def number(octets: str) -> int:
    return int(IPv4Address(".".join(("127.0.0", "127.0", "127")[octets.count(".")].split(".") + octets.split("."))))


def rule(weight: int, pattern: str | None = None, label: str = "") -> Rule:
    return Rule(weight, parse_pattern(pattern) if pattern else None, label)


def dnsbl(name: str, *rules: Rule, group: str | None = None, observe: bool = False) -> DnsList:
    return DnsList(name, f"{name}.example.net", rules, group=group, observe=observe)


def said(panel: Panel, text: str) -> list[Answer]:
    """Read a row's answers, in the order of the panel's lists."""
    silences = {"?": Unknown(Why.TIMEOUT), "...": PENDING, "!": Unknown(Why.SUSPENDED), "~": Unknown(Why.DISPROVED)}
    answers = dict(word.split("=") for word in text.split())
    assert set(answers) <= {one.name for one in panel.lists}
    return [
        silences.get(answers[one.name]) or Listed(tuple(map(number, answers[one.name].split(","))), 300)
        if one.name in answers
        else Clear(300)
        for one in panel.lists
    ]


TIERS = Tiers(((300, TAG), (600, DEFER), (800, QUARANTINE), (1200, REJECT), (2000, DISCARD)))

NO_TAG = Panel((dnsbl("a", rule(600)),), Tiers(((600, DEFER),)), {})

HOUSE = Panel(
    (
        dnsbl("spamcop", rule(400)),
        dnsbl(
            "zen",
            rule(500, "127.0.0.2", "SBL"),
            rule(500, "127.0.0.[4..7]", "XBL"),
            rule(300, "127.0.0.[10;11]", "PBL"),
            group="spamhaus",
        ),
        dnsbl("zrd", rule(400), group="spamhaus"),
        dnsbl("dnswl", rule(-400, "127.0.[0..255].[1..3]", "trusted")),
        dnsbl("rep", rule(250, "127.0.0.2", "bad"), rule(-150, "127.0.0.10", "good")),
        dnsbl("new", rule(300), observe=True),
    ),
    TIERS,
    {"spamhaus": 700},
)
"""Alone the lists range so: spamcop 0..400, zen 0..1300, zrd 0..400, dnswl -400..0, rep -150..250, new nothing."""

MATES = Panel(
    (
        dnsbl("a", rule(400), group="g"),
        dnsbl("b", rule(400, "127.0.0.2"), rule(-300, "127.0.0.10"), group="g"),
        dnsbl("c", rule(200), group="other"),
        dnsbl("d", rule(200), group="other"),
        dnsbl("e", rule(100), group="nowhere"),
    ),
    TIERS,
    {"g": 500, "other": 300},
)
"""Two groups, one of which has an advocate inside; and a list whose group has no cap."""

SCORES = [
    # name, panel, answers, score, low, high, action
    ("nobody lists", HOUSE, "", 0, 0, 0, ACCEPT),
    ("one list", HOUSE, "spamcop=2", 400, 400, 400, TAG),
    ("any code will do", HOUSE, "spamcop=7.7.7", 400, 400, 400, TAG),
    ("several codes add once where no pattern parts them", HOUSE, "spamcop=2,3,4", 400, 400, 400, TAG),
    ("several codes of one pattern add once", HOUSE, "zen=4,5,6,7", 500, 500, 500, TAG),
    ("each rule that matches adds", HOUSE, "rep=2,10", 100, 100, 100, ACCEPT),
    ("a code that no rule knows", HOUSE, "zen=9", 0, 0, 0, ACCEPT),
    ("a known code beside an unknown one", HOUSE, "zen=9,11", 300, 300, 300, TAG),
    ("an advocate alone", HOUSE, "dnswl=5.1", -400, -400, -400, ACCEPT),
    ("an advocate without trust", HOUSE, "spamcop=2 dnswl=5.0", 400, 400, 400, TAG),
    ("an advocate outweighs one list", HOUSE, "spamcop=2 dnswl=5.1", 0, 0, 0, ACCEPT),
    ("an advocate softens two lists", HOUSE, "spamcop=2 zen=2 dnswl=5.1", 500, 500, 500, TAG),
    ("over quota is no trust", HOUSE, "spamcop=2 dnswl=255", 400, 400, 400, TAG),
    ("the sum is the threshold", HOUSE, "spamcop=2 zrd=2", 800, 800, 800, QUARANTINE),
    ("three lists", HOUSE, "spamcop=2 zen=2 rep=2", 1150, 1150, 1150, QUARANTINE),
    ("all that accuse", HOUSE, "spamcop=2 zen=2,4,10 zrd=2 rep=2", 1350, 1350, 1350, REJECT),
    # groups
    ("rules of one list meet the cap", HOUSE, "zen=2,10", 700, 700, 700, DEFER),
    ("rules far beyond the cap", HOUSE, "zen=2,4,10", 700, 700, 700, DEFER),
    ("lists of one group meet the cap", HOUSE, "zen=2 zrd=2", 700, 700, 700, DEFER),
    ("below the cap nothing is cut", HOUSE, "zen=2", 500, 500, 500, TAG),
    ("the cap is the group's alone", HOUSE, "zen=2,4 spamcop=2", 1100, 1100, 1100, QUARANTINE),
    ("the cap cuts before trust is taken off", HOUSE, "zen=2,4 dnswl=5.1", 300, 300, 300, TAG),
    ("trust inside the group is taken off the capped sum", MATES, "a=2 b=2,10", 200, 200, 200, ACCEPT),
    ("trust inside the group below the cap", MATES, "a=2 b=10", 100, 100, 100, ACCEPT),
    ("trust inside the group alone", MATES, "b=10", -300, -300, -300, ACCEPT),
    ("each group has its own cap", MATES, "a=2 b=2 c=2 d=2", 800, 800, 800, QUARANTINE),
    ("a group without a cap is none", MATES, "a=2 b=2 e=2", 600, 600, 600, DEFER),
    # observation
    ("a list on observation adds nothing", HOUSE, "new=2", 0, 0, 0, ACCEPT),
    ("nor beside others", HOUSE, "spamcop=2 new=2", 400, 400, 400, TAG),
    ("nor when it fails", HOUSE, "spamcop=2 new=?", 400, 400, 400, TAG),
    # silence
    ("a block list failed", HOUSE, "spamcop=?", 0, 0, 400, ACCEPT),
    ("a block list is out", HOUSE, "spamcop=...", 0, 0, 400, ACCEPT),
    ("several rules may match, as far as the cap", HOUSE, "zen=?", 0, 0, 700, ACCEPT),
    ("a group together as far as its cap", HOUSE, "zen=? zrd=?", 0, 0, 700, ACCEPT),
    ("what a group has leaves less to come", HOUSE, "zen=2 zrd=?", 500, 500, 700, TAG),
    ("a full group has nothing to come", HOUSE, "zen=2,4 zrd=...", 700, 700, 700, DEFER),
    ("failed and out meet one cap", HOUSE, "zen=... zrd=?", 0, 0, 700, ACCEPT),
    ("silence beside evidence", HOUSE, "spamcop=2 zen=?", 400, 400, 1100, TAG),
    ("an advocate failed", HOUSE, "dnswl=?", 0, -400, 0, ACCEPT),
    ("an advocate is out", HOUSE, "dnswl=...", 0, -400, 0, ACCEPT),
    ("one that speaks both ways failed", HOUSE, "rep=?", 0, -150, 250, ACCEPT),
    ("trust inside a group failed", MATES, "a=2 b=?", 400, 100, 500, TAG),
    ("trust inside a full group failed", MATES, "a=2 c=2 d=2 b=?", 700, 400, 800, DEFER),
    ("everything failed", HOUSE, "spamcop=? zen=? zrd=? dnswl=? rep=? new=?", 0, -550, 1350, ACCEPT),
    ("everything is out", HOUSE, "spamcop=... zen=... zrd=... dnswl=... rep=... new=...", 0, -550, 1350, ACCEPT),
    # softening
    ("tag stays though an advocate failed", HOUSE, "spamcop=2 dnswl=?", 400, 0, 400, TAG),
    ("defer stays though an advocate failed", HOUSE, "zen=2,4 dnswl=?", 700, 300, 700, DEFER),
    ("quarantine softens to a deferral", HOUSE, "spamcop=2 zen=2,4 dnswl=?", 1100, 700, 1100, DEFER),
    ("quarantine softens also while it is out", HOUSE, "spamcop=2 zen=2,4 dnswl=...", 1100, 700, 1100, DEFER),
    ("reject softens to what is carried", HOUSE, "spamcop=2 zen=2,4 rep=2 dnswl=?", 1350, 950, 1350, QUARANTINE),
    ("two that failed soften together", HOUSE, "spamcop=2 zen=2,4 dnswl=? rep=?", 1100, 550, 1350, DEFER),
    ("low at the threshold still carries", HOUSE, "spamcop=2 zen=2,4 rep=? zrd=2", 1100, 950, 1350, QUARANTINE),
    ("a block list that failed softens nothing", HOUSE, "spamcop=2 zen=2 zrd=?", 900, 900, 1100, QUARANTINE),
    # suspension
    ("a suspended list adds nothing", HOUSE, "zen=!", 0, 0, 0, ACCEPT),
    ("nor beside others", HOUSE, "spamcop=2 zen=!", 400, 400, 400, TAG),
    ("a suspended advocate still makes forgiving", HOUSE, "dnswl=!", 0, -400, 0, ACCEPT),
    ("so that quarantine softens", HOUSE, "spamcop=2 zen=2,4 dnswl=!", 1100, 700, 1100, DEFER),
    ("suspended, one that speaks both ways", HOUSE, "rep=!", 0, -150, 0, ACCEPT),
    ("suspended beside a mate that failed", HOUSE, "zen=! zrd=?", 0, 0, 400, ACCEPT),
    ("a disproved list adds nothing and could not have", HOUSE, "spamcop=2 zen=~", 400, 400, 400, TAG),
    ("a disproved list that also forgives still does", HOUSE, "spamcop=2 zen=2 rep=~", 900, 750, 900, DEFER),
    ("failed beside a mate that is suspended", HOUSE, "zen=? zrd=!", 0, 0, 700, ACCEPT),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "panel", "answers", "score", "low", "high", "action"), SCORES, ids=[row[0] for row in SCORES]
)
def test_a_score_and_its_interval(name, panel, answers, score, low, high, action):
    verdict = panel.judge(CLIENT, said(panel, answers))
    assert (verdict.score, verdict.low, verdict.high, verdict.action) == (score, low, high, action)
    assert verdict.client is CLIENT
    assert verdict.exempt is None


FORGIVING = Panel((dnsbl("accuser", rule(1000)), dnsbl("x", rule(-100)), dnsbl("y", rule(-200))), TIERS, {})
"""Quarantine that needs both advocates to become a deferral."""

SETTLED = [
    # name, panel, answers, settled
    ("nothing is out", HOUSE, "", True),
    ("all failed, nothing is out", HOUSE, "spamcop=? zen=? zrd=? dnswl=? rep=?", True),
    ("one that could tag", HOUSE, "spamcop=...", False),
    ("one too weak to tag", HOUSE, "rep=...", True),
    ("two together could tag", HOUSE, "rep=... spamcop=...", False),
    ("one on observation", HOUSE, "new=...", True),
    ("an advocate, and nothing to forgive", HOUSE, "dnswl=...", True),
    ("an advocate that could forgive", HOUSE, "spamcop=2 dnswl=...", False),
    ("an advocate that failed is not waited for", HOUSE, "spamcop=2 dnswl=?", True),
    ("a suspended one is not waited for", HOUSE, "spamcop=2 dnswl=! zen=!", True),
    ("a mate could still fill the group", HOUSE, "zen=2 zrd=...", False),
    ("the group is full", HOUSE, "zen=2,4 zrd=...", True),
    ("the group is full, though another failed", HOUSE, "zen=2,4 zrd=... rep=?", True),
    ("could just reach a threshold", HOUSE, "zen=... dnswl=5.1", False),
    ("could just not", HOUSE, "zrd=... dnswl=5.1", True),
    ("could not for another's trust", HOUSE, "zen=... rep=10 dnswl=5.1", True),
    ("quarantine or deferral", HOUSE, "spamcop=2 zen=2,4 dnswl=...", False),
    ("quarantine or reject", HOUSE, "spamcop=2 zen=2,4 rep=...", False),
    ("tag or less or more", HOUSE, "spamcop=2 rep=...", False),
    ("softened however it ends", HOUSE, "spamcop=2 zen=2 dnswl=? rep=...", True),
    ("softened more or less", HOUSE, "spamcop=2 zen=2,4 dnswl=? rep=...", False),
    ("softened by a suspended advocate however it ends", HOUSE, "spamcop=2 zen=2 dnswl=! rep=...", True),
    ("one that failed and one that is out forgive together", FORGIVING, "accuser=2 x=... y=?", False),
    ("the same the other way round", FORGIVING, "accuser=2 x=? y=...", False),
    ("each alone does not", FORGIVING, "accuser=2 x=...", True),
    ("both are out", FORGIVING, "accuser=2 x=... y=...", False),
    ("both failed", FORGIVING, "accuser=2 x=? y=?", True),
    ("what failed may not answer any more", HOUSE, "spamcop=? zen=? rep=...", True),
    ("trust inside a group could forgive", MATES, "a=2 c=2 b=...", False),
    ("one that speaks both ways, none of it idle", MATES, "b=... c=2", False),
    ("room is left in the second group", MATES, "a=2 b=2 c=2 d=...", False),
    ("room is left, but for too little", MATES, "a=2 c=2 d=...", True),
]


@pytest.mark.parametrize(("name", "panel", "answers", "settled"), SETTLED, ids=[row[0] for row in SETTLED])
def test_waiting_stops_once_nothing_could_change_the_action(name, panel, answers, settled):
    evidence = said(panel, answers)
    assert panel.settled(evidence) is settled
    assert panel.judge(CLIENT, evidence).settled is settled


# --- softening, cell by cell

IN_TIER = {ACCEPT: 0, TAG: 300, DEFER: 600, QUARANTINE: 800, REJECT: 1200, DISCARD: 2000}
SOFTENED = {
    # asked by the score: done when low lies in the tier of accept, tag, defer, quarantine, reject, discard
    ACCEPT: [ACCEPT],
    TAG: [TAG, TAG],
    DEFER: [DEFER, DEFER, DEFER],
    QUARANTINE: [DEFER, DEFER, DEFER, QUARANTINE],
    REJECT: [DEFER, DEFER, DEFER, QUARANTINE, REJECT],
    DISCARD: [DEFER, DEFER, DEFER, QUARANTINE, REJECT, DISCARD],
}
CELLS = [(asked, low, action) for asked, row in SOFTENED.items() for low, action in zip(Action, row, strict=False)]


@pytest.mark.parametrize("why", Why)
@pytest.mark.parametrize(("asked", "low", "action"), CELLS, ids=[f"{asked}-low-{low}" for asked, low, _ in CELLS])
def test_an_advocate_that_is_silent_softens_cell_by_cell(asked, low, action, why):
    panel = Panel(
        (dnsbl("accuser", rule(IN_TIER[asked])), dnsbl("advocate", rule(IN_TIER[low] - IN_TIER[asked]))), TIERS, {}
    )
    verdict = panel.judge(CLIENT, [Listed((number("2"),), 300), Unknown(why)])
    assert (verdict.score, verdict.low) == (IN_TIER[asked], IN_TIER[low])
    assert (verdict.asked, verdict.action) == (asked, action)
    assert verdict.softened is (asked is not action)


# --- lists in doubt

DOUBTED = [
    # name, panel, answers, lists in doubt, action, settled, softened, decisive
    ("alone, up to a tag", HOUSE, "zen=2,4", "zen", TAG, True, True, "zen"),
    ("less than a drop is not touched", HOUSE, "spamcop=2", "spamcop", TAG, True, False, "spamcop"),
    ("beside one that tags", HOUSE, "spamcop=2 zen=2", "zen", TAG, True, True, ""),
    ("beside one that defers", HOUSE, "spamcop=2 zen=2,4", "spamcop", DEFER, True, True, "zen"),
    ("beside lists that carry it all", HOUSE, "spamcop=2 zen=2,4 rep=2", "rep", QUARANTINE, True, True, "spamcop zen"),
    ("both", HOUSE, "spamcop=2 zen=2,4", "spamcop zen", TAG, True, True, ""),
    ("one that does not list the client", HOUSE, "zen=2,4", "spamcop", DEFER, True, False, "zen"),
    ("it is out, and could not matter", HOUSE, "spamcop=2 zen=...", "zen", TAG, True, False, "spamcop"),
    ("it is out, and could tag", HOUSE, "zen=...", "zen", ACCEPT, False, False, ""),
    ("one that is sound is out", HOUSE, "zen=2 spamcop=...", "zen", TAG, True, False, "zen"),
    ("one that is sound could defer", HOUSE, "spamcop=2 zen=...", "spamcop", TAG, False, False, "spamcop"),
    ("an advocate", HOUSE, "spamcop=2 zen=2 dnswl=5.1", "dnswl", TAG, True, False, "spamcop zen"),
    ("without a tag", NO_TAG, "a=2", "a", ACCEPT, True, True, ""),
]


@pytest.mark.parametrize(("name", "panel", "answers", "doubted", "action", "settled", "softened", "decisive"), DOUBTED, ids=[row[0] for row in DOUBTED])
def test_who_is_in_doubt_keeps_nobody_out(name, panel, answers, doubted, action, settled, softened, decisive):
    evidence = said(panel, answers)
    places = [place for place, one in enumerate(panel.lists) if one.name in doubted.split()]
    verdict = panel.doubting(places).judge(CLIENT, evidence)
    assert (verdict.action, verdict.settled, verdict.softened) == (action, settled, softened)
    assert verdict.decisive == tuple(decisive.split())
    assert verdict.score == panel.judge(CLIENT, evidence).score
    listed = {panel.lists[place].name for place in places if isinstance(evidence[place], Listed)}
    assert {one for one, why in verdict.unknowns if why is Why.DOUBTED} == listed


# --- who and why

THREE = Panel(tuple(dnsbl(name, rule(300)) for name in "abc"), Tiers(((300, TAG), (1200, REJECT))), {})

DECISIVE = [
    # name, panel, answers, action, lists without any one of which it would have been milder
    ("nobody", HOUSE, "", ACCEPT, ""),
    ("points but no action", HOUSE, "rep=2", ACCEPT, ""),
    ("the only one", HOUSE, "spamcop=2", TAG, "spamcop"),
    ("each of two", HOUSE, "spamcop=2 zen=2", QUARANTINE, "spamcop zen"),
    ("each of two in a group", HOUSE, "zen=2 zrd=2", DEFER, "zen zrd"),
    ("one that the cap makes idle", HOUSE, "zen=2,4 zrd=2", DEFER, "zen"),
    ("one that adds too little", HOUSE, "spamcop=2 rep=2,10", TAG, "spamcop"),
    ("none, where each has a stand-in", THREE, "a=2 b=2", TAG, ""),
    ("none of three", THREE, "a=2 b=2 c=2", TAG, ""),
    ("an advocate is not to blame", HOUSE, "spamcop=2 zen=2 dnswl=5.1", TAG, "spamcop zen"),
    ("one on observation is not to blame", HOUSE, "spamcop=2 new=2", TAG, "spamcop"),
    ("one that failed is not to blame", HOUSE, "spamcop=2 zen=?", TAG, "spamcop"),
    ("softened: both were needed", HOUSE, "spamcop=2 zen=2 dnswl=?", DEFER, "spamcop zen"),
    ("softened: one was not", HOUSE, "spamcop=2 zen=2,4 dnswl=?", DEFER, "zen"),
    ("softened: all were needed for what is left", HOUSE, "spamcop=2 zen=2,4 rep=2 dnswl=?", QUARANTINE, "spamcop zen rep"),
    ("one whose silence would soften it, but not its absence", HOUSE, "spamcop=2 zen=2 rep=2", QUARANTINE, "spamcop zen"),
    ("one whose removal would have hardened it", MATES, "a=2 b=2,10 c=2", TAG, "c"),
    ("none, where the cap has cut as much", MATES, "a=2 b=2,10 c=2 d=2", TAG, ""),
]


@pytest.mark.parametrize(("name", "panel", "answers", "action", "decisive"), DECISIVE, ids=[row[0] for row in DECISIVE])
def test_a_list_is_decisive_if_the_action_were_milder_without_it(name, panel, answers, action, decisive):
    verdict = panel.judge(CLIENT, said(panel, answers))
    assert verdict.action is action
    assert verdict.decisive == tuple(decisive.split())


EVEN = Panel((dnsbl("even", rule(100, "127.0.0.2"), rule(-100, "127.0.0.10")), *HOUSE.lists), TIERS, HOUSE.caps)

ACCUSERS = [
    # name, panel, answers, lists that added points, strongest first
    ("nobody", HOUSE, "", ""),
    ("strongest first, all its rules together", HOUSE, "rep=2 spamcop=2 zen=2,10 dnswl=5.1", "zen spamcop rep"),
    ("equals in the order of the lists", HOUSE, "zrd=2 spamcop=2", "spamcop zrd"),
    ("an advocate is none", HOUSE, "dnswl=5.1 rep=10", ""),
    ("one that added less than it took is none", MATES, "b=10", ""),
    ("one that took as much as it added is none", EVEN, "even=2,10 spamcop=2", "spamcop"),
    ("one that added more than it took", HOUSE, "rep=2,10 spamcop=2", "spamcop rep"),
    ("one on observation is none", HOUSE, "new=2 spamcop=2", "spamcop"),
    ("one without a rule that matches is none", HOUSE, "zen=9", ""),
    ("one that failed is none", HOUSE, "zen=? zrd=... rep=! spamcop=2", "spamcop"),
]


@pytest.mark.parametrize(("name", "panel", "answers", "accusers"), ACCUSERS, ids=[row[0] for row in ACCUSERS])
def test_accusers_are_named_strongest_first(name, panel, answers, accusers):
    assert panel.judge(CLIENT, said(panel, answers)).accusers == tuple(accusers.split())


def test_a_verdict_tells_which_code_of_which_list_added_what():
    verdict = HOUSE.judge(CLIENT, said(HOUSE, "spamcop=9 zen=2,5,6,11 dnswl=255 rep=10 new=3"))
    assert verdict.contributions == (
        Contribution("spamcop", "", number("9"), 400),
        Contribution("zen", "SBL", number("2"), 500),
        Contribution("zen", "XBL", number("5"), 500),
        Contribution("zen", "PBL", number("11"), 300),
        Contribution("rep", "good", number("10"), -150),
    )
    assert verdict.observed == (Contribution("new", "", number("3"), 300),)
    assert verdict.unknowns == ()


def test_a_verdict_tells_who_was_silent_and_why():
    verdict = HOUSE.judge(CLIENT, said(HOUSE, "zen=? dnswl=! rep=2 new=..."))
    assert verdict.unknowns == (("zen", Why.TIMEOUT), ("dnswl", Why.SUSPENDED), ("new", Why.PENDING))
    assert [contribution.list for contribution in verdict.contributions] == ["rep"]


def test_lists_on_observation_can_be_judged_as_if_they_counted():
    verdict = HOUSE.observing().judge(CLIENT, said(HOUSE, "spamcop=2 new=2"))
    assert (verdict.score, verdict.action, verdict.observed) == (700, DEFER, ())
    assert verdict.accusers == ("spamcop", "new")
    assert HOUSE.judge(CLIENT, said(HOUSE, "spamcop=2 new=2")).score == 400


def test_paused_lists_are_on_observation_beside_those_that_were():
    panel = HOUSE.pausing({"spamcop", "unheard-of"})
    verdict = panel.judge(CLIENT, said(panel, "spamcop=2 zen=2 new=2"))
    assert (verdict.score, verdict.accusers) == (500, ("zen",))
    assert [contribution.list for contribution in verdict.observed] == ["spamcop", "new"]
    assert HOUSE.pausing(()) == HOUSE


def test_who_is_exempt_is_accepted_whatever_the_reason():
    for reason in Exemption:
        verdict = exempted(CLIENT, reason)
        assert (verdict.action, verdict.asked, verdict.exempt) == (ACCEPT, ACCEPT, reason)
        assert (verdict.score, verdict.low, verdict.high, verdict.settled) == (0, 0, 0, True)
        assert not verdict.softened
        assert verdict.accusers == ()
    assert exempted(None, Exemption.LOCAL).client is None


def test_each_family_has_its_panel():
    both = dnsbl("both", rule(1))
    only4 = DnsList("only4", "four.example.net", (rule(1),), ipv6=False)
    only6 = DnsList("only6", "six.example.net", (rule(1),), ipv4=False)
    policy = Policy((only4, both, only6), TIERS, caps={"g": 1})
    assert policy.panel(4) == Panel((only4, both), TIERS, {"g": 1})
    assert policy.panel(6) == Panel((both, only6), TIERS, {"g": 1})
    assert policy.enforce


@pytest.mark.parametrize("answers", [[], [Clear(1)] * 5, [Clear(1)] * 7])
def test_evidence_of_another_length_is_refused(answers):
    with pytest.raises(ValueError, match="zip"):
        HOUSE.judge(CLIENT, answers)
    with pytest.raises(ValueError, match="zip"):
        HOUSE.settled(answers)


# --- recipients of two classes

MAY_SHARE = {
    # action: may an exempt recipient and one who is not stand in one message?
    ACCEPT: True,
    TAG: True,
    DEFER: True,
    QUARANTINE: False,
    REJECT: True,
    DISCARD: False,
}


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("exempt", [True, False])
def test_two_classes_share_a_message_unless_it_suffers_whole(action, exempt):
    assert may_share(None, exempt, action)
    assert may_share(exempt, exempt, action)
    assert may_share(not exempt, exempt, action) is MAY_SHARE[action]
