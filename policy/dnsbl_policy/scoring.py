"""The score of a client, as an interval until every list has answered, and the verdict it comes to.

Floor 1: standard library only. Takes a panel of lists and their answers; asks nothing, knows no clock.

What has not answered can still add at most the sum of its positive rules and at least the sum of its negative
ones (several rules of one list may match, so the single strongest rule is not a bound). That one piece of
arithmetic gives three things: waiting stops once no answer could change the action; lists that failed keep
their whole range, so silence never makes an action harder; and `low` says how far the evidence alone carries.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dnsbl_policy.actions import Action, Tiers
from dnsbl_policy.allow import Allow, Exemption
from dnsbl_policy.answers import Answer, Clear, Listed, Unknown, Why
from dnsbl_policy.interval import Interval, Range
from dnsbl_policy.lists import Client, DnsList

_WITHHELD = Unknown(Why.SUSPENDED)


@dataclass(frozen=True, slots=True)
class Contribution:
    """One rule of one list that matched: the code it matched, and the hundredths it adds."""

    list: str
    label: str
    code: int
    weight: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """All that was found out and decided about a client; everything that people and machines see comes from here."""

    client: Client | None
    action: Action
    asked: Action
    """What the score alone asks for; harder than `action` where a list that failed, or is in doubt, softened it."""
    score: int = 0
    low: int = 0
    high: int = 0
    settled: bool = True
    """No list that can still answer could change the action."""
    contributions: tuple[Contribution, ...] = ()
    observed: tuple[Contribution, ...] = ()
    """What lists on observation would have added."""
    unknowns: tuple[tuple[str, Why], ...] = ()
    decisive: tuple[str, ...] = ()
    """The lists without any one of which the action would have been milder."""
    exempt: Exemption | None = None

    @property
    def softened(self) -> bool:
        """Tell whether a list that failed, or is in doubt, made the action milder than the score asks."""
        return self.action < self.asked

    @property
    def accusers(self) -> tuple[str, ...]:
        """Return the lists that added points, strongest first."""
        totals: dict[str, int] = {}
        for contribution in self.contributions:
            totals[contribution.list] = totals.get(contribution.list, 0) + contribution.weight
        strongest = sorted(totals.items(), key=lambda total: -total[1])
        return tuple(name for name, weight in strongest if weight > 0)


def exempted(client: Client | None, reason: Exemption) -> Verdict:
    """Return the verdict on someone who is not judged."""
    return Verdict(client, Action.ACCEPT, Action.ACCEPT, exempt=reason)


@dataclass(frozen=True, slots=True)
class Policy:
    """The whole policy as configured: frozen, so that a session keeps the one it began with."""

    lists: tuple[DnsList, ...]
    tiers: Tiers
    allow: Allow = field(default_factory=Allow)
    caps: Mapping[str, int] = field(default_factory=dict)
    """The cap of each group, in hundredths, on the positive points of its lists together."""
    enforce: bool = True

    def panel(self, version: int) -> "Panel":
        """Return the lists that are asked, or may come to be asked, about clients of IP version 4 or 6."""
        return Panel(tuple(one for one in self.lists if one.may_serve(version)), self.tiers, self.caps)


@dataclass(frozen=True, slots=True)
class Panel:
    """The lists that judge one family of clients. Evidence is a sequence of answers in the order of `lists`."""

    lists: tuple[DnsList, ...]
    tiers: Tiers
    caps: Mapping[str, int]
    doubted: frozenset[int] = frozenset()
    """Places of the lists whose word may tag, and keep nobody out."""

    def weigh(self, evidence: Sequence[Answer]) -> Interval:
        """Sum up the evidence."""
        alone = Range(None)
        groups = {name: Range(cap) for name, cap in self.caps.items()}
        known = pending = failed = 0
        for one, answer in zip(self.lists, evidence, strict=True):
            if isinstance(answer, Clear) or one.observe:
                continue
            group = alone if one.group is None else groups.get(one.group, alone)
            if isinstance(answer, Listed):
                for rule in one.rules:
                    if rule.matching(answer.codes) is not None:
                        if rule.weight > 0:
                            group.known += rule.weight
                        else:
                            known += rule.weight
            elif answer.why is Why.PENDING:
                group.pending += one.most
                pending += one.least
            else:
                # A list that has shown itself mad is not believed whatever it says; but should it have been an advocate
                # too, its absence still makes forgiving.
                group.failed += 0 if answer.why in (Why.SUSPENDED, Why.DISPROVED) else one.most
                failed += one.least
        score = hopeful = high = known
        for each in (alone, *groups.values()):
            score += each.capped(each.known)
            hopeful += each.capped(each.known + each.pending)
            high += each.capped(each.known + each.pending + each.failed)
        return Interval(
            score=score,
            low=score + pending + failed,
            high=high,
            least_score=score + pending,
            least_low=score + pending + failed,
            most_score=hopeful,
            most_low=hopeful + failed,
        )

    def settled(self, evidence: Sequence[Answer]) -> bool:
        """Tell whether no list that can still answer could change the action."""
        return self._settled(self._intervals(evidence))

    def judge(self, client: Client | None, evidence: Sequence[Answer]) -> Verdict:
        """Form the verdict on a client from what the lists have answered so far."""
        intervals = self._intervals(evidence)
        interval, action = intervals[0], self._action(intervals)
        counted, observed = self._contributions(evidence)
        return Verdict(
            client=client,
            action=action,
            asked=self.tiers.of(interval.score),
            score=interval.score,
            low=interval.low,
            high=interval.high,
            settled=self._settled(intervals),
            contributions=counted,
            observed=observed,
            unknowns=tuple(
                (one.name, answer.why if isinstance(answer, Unknown) else Why.DOUBTED)
                for place, (one, answer) in enumerate(zip(self.lists, evidence, strict=True))
                if isinstance(answer, Unknown) or (isinstance(answer, Listed) and place in self.doubted)
            ),
            decisive=tuple(self._decisive(evidence, counted, action)),
        )

    def observing(self) -> "Panel":
        """Return the panel as it would judge if its lists on observation counted."""
        return replace(self, lists=tuple(replace(one, observe=False) for one in self.lists))

    def pausing(self, names: Collection[str]) -> "Panel":
        """Return the panel with these lists on observation as well."""
        return replace(self, lists=tuple(replace(one, observe=one.observe or one.name in names) for one in self.lists))

    def doubting(self, places: Collection[int]) -> "Panel":
        """Return the panel with the lists at these places in doubt."""
        return replace(self, doubted=frozenset(places)) if places else self

    def _intervals(self, evidence: Sequence[Answer]) -> list[Interval]:
        """Return what the evidence comes to, and where lists are in doubt, what it would come to were they suspended."""
        if not self.doubted:
            return [self.weigh(evidence)]
        certain = [_WITHHELD if place in self.doubted else answer for place, answer in enumerate(evidence)]
        return [self.weigh(evidence), self.weigh(certain)]

    def _action(self, intervals: Sequence[Interval]) -> Action:
        """Return the action that the evidence carries."""
        return self._unless_doubted(*(self.tiers.carried(each.score, each.low) for each in intervals))

    def _settled(self, intervals: Sequence[Interval]) -> bool:
        least, most = zip(*(each.extremes(self.tiers) for each in intervals), strict=True)
        return self._unless_doubted(*least) is self._unless_doubted(*most)

    def _unless_doubted(self, whole: Action, certain: Action | None = None) -> Action:
        """Return what becomes of an action if only `certain` is carried by lists that are not in doubt: a tag, or that."""
        return whole if certain is None else min(whole, max(certain, self.tiers.mildest))

    def _contributions(self, evidence: Sequence[Answer]) -> tuple[tuple[Contribution, ...], tuple[Contribution, ...]]:
        counted: list[Contribution] = []
        observed: list[Contribution] = []
        for one, answer in zip(self.lists, evidence, strict=True):
            if not isinstance(answer, Listed):
                continue
            for rule in one.rules:
                code = rule.matching(answer.codes)
                if code is not None:
                    (observed if one.observe else counted).append(
                        Contribution(one.name, rule.label, code, rule.weight)
                    )
        return tuple(counted), tuple(observed)

    def _decisive(self, evidence: Sequence[Answer], counted: Sequence[Contribution], action: Action) -> list[str]:
        if action is Action.ACCEPT:
            return []
        accused = {contribution.list for contribution in counted if contribution.weight > 0}
        decisive: list[str] = []
        for index, one in enumerate(self.lists):
            if one.name not in accused:
                continue
            without = [*evidence[:index], Clear(0), *evidence[index + 1 :]]
            if self._action(self._intervals(without)) < action:
                decisive.append(one.name)
        return decisive


def may_share(first_exempt: bool | None, exempt: bool, action: Action) -> bool:
    """Tell whether a recipient may stand in one message with those accepted before.

    Quarantine and discard befall a message whole. An exempt recipient beside one who is not would either lose
    mail or let it through, so the class of the first (None: there is none yet) holds.
    """
    return action not in (Action.QUARANTINE, Action.DISCARD) or first_exempt in (None, exempt)
