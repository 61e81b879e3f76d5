"""What holds for every policy and every evidence, against a brute force that tries each answer of each list.

The oracle below knows the contract and nothing of the code: it lists the sets of codes that a list could answer,
adds up the rules that each set meets, and looks at every combination.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import chain, combinations, product

from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from dnsbl_policy.actions import Action, Tiers
from dnsbl_policy.answers import PENDING, Clear, Listed, Unknown, Why
from dnsbl_policy.codes import parse_pattern
from dnsbl_policy.lists import DnsList, Rule
from dnsbl_policy.scoring import Panel

LOOPBACK = 127 << 24
CODES = (2, 3, 255)
"""The last octets that lists answer here; 255 is an allow-list's "over quota"."""

FAILURES = [Unknown(why) for why in Why if why is not Why.PENDING]
SUSPENDED = Unknown(Why.SUSPENDED)
UNBELIEVED = (SUSPENDED, Unknown(Why.DISPROVED))


def subsets(codes):
    return [
        frozenset(some) for some in chain.from_iterable(combinations(codes, count) for count in range(len(codes) + 1))
    ]


@dataclass(frozen=True)
class Model:
    """A list as the oracle sees it: rules of a weight and the codes it is for (None: any)."""

    rules: tuple[tuple[int, frozenset[int] | None], ...]
    group: str | None
    observe: bool

    def met(self, codes):
        """Return the weights of the rules that a set of codes meets."""
        return tuple(
            weight
            for weight, wanted in self.rules
            if any((wanted is None or code in wanted) and not (weight < 0 and code == 255) for code in codes)
        )

    def could_add(self):
        """Return the weights of every answer that there is."""
        return {self.met(codes) for codes in subsets(CODES)}

    def build(self, name):
        rules = tuple(
            Rule(weight, wanted and parse_pattern(f"127.0.0.[{';'.join(map(str, sorted(wanted)))}]"))
            for weight, wanted in self.rules
        )
        return DnsList(name, f"{name}.example.net", rules, group=self.group, observe=self.observe)


@dataclass(frozen=True)
class Case:
    """A policy, and what its lists have said: a set of codes (empty: clear), or an `Unknown`."""

    models: tuple[Model, ...]
    caps: dict[str, int]
    ladder: tuple[tuple[int, Action], ...]
    said: tuple[frozenset[int] | Unknown, ...]

    @property
    def panel(self):
        lists = tuple(model.build(f"l{place}") for place, model in enumerate(self.models))
        return Panel(lists, Tiers(self.ladder), self.caps)

    @property
    def evidence(self):
        return [answer(said) for said in self.said]

    def total(self, added):
        """Add up weights, one tuple a list, as the contract says: a cap for the positive points of a group."""
        groups = {}
        points = 0
        for model, weights in zip(self.models, added, strict=True):
            for weight in () if model.observe else weights:
                if weight > 0 and model.group in self.caps:
                    groups[model.group] = groups.get(model.group, 0) + weight
                else:
                    points += weight
        return points + sum(min(self.caps[name], positive) for name, positive in groups.items())

    def score(self):
        return self.total(
            () if isinstance(said, Unknown) else model.met(said)
            for model, said in zip(self.models, self.said, strict=True)
        )

    def outcomes(self, *, believed):
        """Return every total that there could be if all answered; what is suspended adds no points unless believed."""
        could = []
        for model, said in zip(self.models, self.said, strict=True):
            if not isinstance(said, Unknown):
                could.append({model.met(said)})
            elif said in UNBELIEVED and not believed:
                could.append({tuple(weight for weight in weights if weight < 0) for weights in model.could_add()})
            else:
                could.append(model.could_add())
        return {self.total(added) for added in product(*could)}

    def tier(self, score):
        return max((action for threshold, action in self.ladder if threshold <= score), default=Action.ACCEPT)


def answer(said):
    if isinstance(said, Unknown):
        return said
    return Listed(tuple(LOOPBACK | code for code in sorted(said)), 300) if said else Clear(300)


def judged(case, evidence):
    return case.panel.judge(None, evidence)


def replaced(evidence, place, other):
    return [*evidence[:place], other, *evidence[place + 1 :]]


def completions(case, *, failing):
    """Return every evidence that there may be once what is out has answered, or failed if it may fail."""
    panel = case.panel
    ends = [Unknown(Why.TIMEOUT), SUSPENDED] if failing else []
    return product(
        *(
            [*{one.hear(answer(codes)) for codes in subsets(CODES)}, *ends] if heard == PENDING else [heard]
            for one, heard in zip(panel.lists, case.evidence, strict=True)
        )
    )


weights = st.integers(-6, 8)
any_rule = st.tuples(weights, st.none() | st.sets(st.sampled_from(CODES), min_size=1).map(frozenset))
overlapping = st.lists(any_rule, max_size=3)
disjoint = st.lists(weights, max_size=2).map(
    lambda found: [(weight, frozenset([code])) for weight, code in zip(found, CODES, strict=False)]
)
said = st.sampled_from([*subsets(CODES), PENDING, PENDING, PENDING, *FAILURES])


@st.composite
def cases(draw, rules=overlapping, *, most=4, highest=16, out=False, accused=False, mildest=Action.TAG):
    """Draw a policy and its evidence: if asked to, with a list that is out, and with one that does accuse."""
    models = draw(
        st.lists(
            st.builds(
                Model,
                rules.map(tuple),
                st.sampled_from([None, None, "g", "g", "h", "uncapped"]),
                st.sampled_from([False, False, False, False, True]),
            ),
            min_size=1,
            max_size=most,
        )
    )
    actions = draw(st.sets(st.sampled_from(list(Action)[mildest:]), min_size=1))
    edges = draw(st.lists(st.integers(1, highest), min_size=len(actions), max_size=len(actions)))
    evidence = [draw(said) for _ in models]
    if out:
        evidence[draw(st.integers(0, len(models) - 1))] = PENDING
    if accused:
        models.append(Model(((draw(st.integers(4, 12)), None),), draw(st.sampled_from([None, "g"])), observe=False))
        evidence.append(frozenset([2]))
    return Case(
        tuple(models),
        draw(st.fixed_dictionaries({"g": st.integers(1, 12), "h": st.integers(1, 12)})),
        tuple(zip(sorted(edges), sorted(actions), strict=True)),
        tuple(evidence),
    )


@given(cases())
@settings(deadline=None, max_examples=200)
def test_the_interval_brackets_the_score_however_the_silent_would_have_answered(case):
    verdict = judged(case, case.evidence)
    outcomes = case.outcomes(believed=False)
    assert verdict.score == case.score()
    assert verdict.low <= min(outcomes)
    assert max(outcomes) <= verdict.high
    assert verdict.low <= verdict.score <= verdict.high
    assert verdict.asked is case.tier(case.score())


@given(cases(disjoint) | cases(disjoint, most=3, highest=12, accused=True))
@settings(deadline=None, max_examples=200)
def test_where_rules_do_not_overlap_the_interval_and_the_action_are_exact(case):
    """Quarantine, reject and discard go as far as the least outcome; else the harder of defer and its tier."""
    verdict = judged(case, case.evidence)
    outcomes = case.outcomes(believed=False)
    assert (verdict.low, verdict.high) == (min(outcomes), max(outcomes))
    asked, carried = case.tier(case.score()), case.tier(min(outcomes))
    expected = asked if asked <= Action.DEFER else max(Action.DEFER, min(asked, carried))
    assert verdict.action is expected
    assert verdict.softened is (expected is not asked)


@given(cases(most=3, out=True) | cases(most=2, highest=12, out=True, accused=True))
@settings(deadline=None, max_examples=600, suppress_health_check=[HealthCheck.filter_too_much])
def test_once_settled_no_answer_and_no_failure_changes_the_action(case):
    verdict = judged(case, case.evidence)
    event(f"settled: {verdict.settled}")
    assume(verdict.settled)
    panel = case.panel
    for evidence in completions(case, failing=True):
        assert panel.judge(None, evidence).action is verdict.action


@given(cases(disjoint, most=3, highest=4, out=True) | cases(disjoint, most=3, highest=12, out=True, accused=True))
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.filter_too_much])
def test_while_it_is_not_settled_some_answer_could_change_the_action(case):
    panel = case.panel
    event(f"settled: {panel.settled(case.evidence)}")
    assume(not panel.settled(case.evidence))
    assert len({panel.judge(None, evidence).action for evidence in completions(case, failing=False)}) > 1


@given(cases())
@settings(deadline=None)
def test_what_is_out_when_time_is_up_counts_as_failed_and_it_is_settled(case):
    early = judged(case, case.evidence)
    late = judged(case, [Unknown(Why.TIMEOUT) if heard == PENDING else heard for heard in case.evidence])
    assert (late.score, late.low, late.high, late.action) == (early.score, early.low, early.high, early.action)
    assert late.settled


@given(cases(), st.data())
@settings(deadline=None)
def test_the_order_of_lists_and_answers_never_matters(case, data):
    order = data.draw(st.permutations(range(len(case.models))))
    panel, evidence = case.panel, case.evidence
    turned = Panel(tuple(panel.lists[place] for place in order), panel.tiers, dict(reversed(panel.caps.items())))
    one = panel.judge(None, evidence)
    two = turned.judge(None, [evidence[place] for place in order])
    for same in ("score", "low", "high", "action", "asked", "settled"):
        assert getattr(one, same) == getattr(two, same)
    for alike in ("contributions", "observed", "unknowns", "decisive", "accusers"):
        assert Counter(getattr(one, alike)) == Counter(getattr(two, alike))


@given(cases() | cases(most=3, highest=12, accused=True))
@settings(deadline=None, max_examples=200)
def test_a_list_that_fails_instead_of_accusing_or_being_clear_never_makes_it_harder(case):
    before = judged(case, case.evidence)
    for place, (model, heard) in enumerate(zip(case.models, case.said, strict=True)):
        if isinstance(heard, Unknown) or min(model.met(heard), default=0) < 0:
            continue
        for failure in (*FAILURES, PENDING):
            assert judged(case, replaced(case.evidence, place, failure)).action <= before.action


@given(cases(most=3, highest=6, accused=True, mildest=Action.QUARANTINE))
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.filter_too_much])
def test_silence_never_costs_mail(case):
    """Where mail is held or lost, it would have been so whatever the silent had said, all together or one alone."""
    verdict = judged(case, case.evidence)
    event(f"silent: {len(verdict.unknowns)}")
    assume(verdict.action >= Action.QUARANTINE)
    assert all(case.tier(outcome) >= verdict.action for outcome in case.outcomes(believed=True))
    panel = case.panel
    for place, heard in enumerate(case.said):
        if isinstance(heard, Unknown):
            for codes in subsets(CODES):
                spoken = panel.lists[place].hear(answer(codes))
                assert panel.judge(None, replaced(case.evidence, place, spoken)).action >= verdict.action


@given(cases())
@settings(deadline=None)
def test_a_suspended_list_adds_no_points_and_keeps_its_forgiveness(case):
    for place, model in enumerate(case.models):
        clear = judged(case, replaced(case.evidence, place, Clear(300)))
        suspended, disproved = (judged(case, replaced(case.evidence, place, each)) for each in UNBELIEVED)
        forgiven = 0 if model.observe else sum(weight for weight, _ in model.rules if weight < 0)
        assert (suspended.score, suspended.high) == (clear.score, clear.high)
        assert suspended.low == clear.low + forgiven
        assert suspended.action <= clear.action
        assert (disproved.score, disproved.low, disproved.high) == (suspended.score, suspended.low, suspended.high)


@given(cases())
@settings(deadline=None)
def test_lists_on_observation_change_nothing_that_is_decided(case):
    verdict = judged(case, case.evidence)
    kept = [place for place, model in enumerate(case.models) if not model.observe]
    panel = case.panel
    without = Panel(tuple(panel.lists[place] for place in kept), panel.tiers, panel.caps)
    other = without.judge(None, [case.evidence[place] for place in kept])
    for same in ("score", "low", "high", "action", "asked", "settled", "contributions", "decisive", "accusers"):
        assert getattr(verdict, same) == getattr(other, same)
    assert {contribution.list for contribution in verdict.observed} <= {
        f"l{place}" for place, model in enumerate(case.models) if model.observe
    }


@given(cases())
@settings(deadline=None)
def test_what_is_shown_is_what_was_counted(case):
    """The contributions are the rules that were met; without the caps they add up to the score."""
    verdict = judged(case, case.evidence)
    for shown, observe in ((verdict.contributions, False), (verdict.observed, True)):
        met = [
            (f"l{place}", weight)
            for place, (model, heard) in enumerate(zip(case.models, case.said, strict=True))
            if model.observe is observe and not isinstance(heard, Unknown)
            for weight in model.met(heard)
        ]
        assert [(contribution.list, contribution.weight) for contribution in shown] == met
    uncapped = Panel(case.panel.lists, case.panel.tiers, {})
    assert uncapped.weigh(case.evidence).score == sum(contribution.weight for contribution in verdict.contributions)


@given(cases() | cases(most=3, highest=12, accused=True))
@settings(deadline=None)
def test_decisive_are_those_accusers_without_whom_it_would_be_milder(case):
    verdict = judged(case, case.evidence)
    milder = tuple(
        f"l{place}"
        for place in range(len(case.models))
        if judged(case, replaced(case.evidence, place, Clear(300))).action < verdict.action
    )
    accusing = {contribution.list for contribution in verdict.contributions if contribution.weight > 0}
    # Clearing a list that failed can only soften less, and clearing an advocate only harden.
    assert verdict.decisive == tuple(name for name in milder if name in accusing)
    assert set(milder) == set(verdict.decisive)
