"""The configuration that is made of what a .mc file asked: strict, which acts as Sendmail did, or gentle.

Floor 3: standard library only. Takes lines that were read and returns text.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from dnsbl_milter.access import Entry
from dnsbl_milter.asked import Asked
from dnsbl_policy.actions import Action
from dnsbl_policy.catalog import KnownList
from dnsbl_policy.points import LARGEST, written

TAG, DEFER = 300, 600
"""The gentle thresholds, in hundredths: the catalog's weights are made for them."""
GENTLE = TAG
"""The gentle weight of a list that the catalog does not know, or whose codes the .mc chose: it tags by itself."""


ALONE = 550
"""The most that one operator adds: a list of several data sets may be right twice, and still does not delay alone."""


@dataclass(slots=True)
class AskedList:
    """A zone that is carried over, with the lines that asked it: a zone is asked once."""

    name: str
    lines: list[Asked] = field(default_factory=list)

    @property
    def zone(self) -> str:
        """Return the zone, which may hold a key."""
        return self.lines[0].zone

    @property
    def known(self) -> KnownList | None:
        """Return what the catalog says of it, if the .mc took every code: else the .mc has weighed for itself."""
        return self.lines[0].known if any(not line.codes for line in self.lines) else None

    @property
    def most(self) -> int:
        """Return the most that it adds in a gentle configuration."""
        return min(self.total, ALONE)

    @property
    def total(self) -> int:
        """Return what all of its weights against senders come to, without a cap."""
        if self.known is None:
            return GENTLE
        weights = [code.weight for code in self.known.codes] or [self.known.weight or 0]
        return sum(weight for weight in weights if weight > 0)

    @property
    def patterns(self) -> int:
        """Return how many patterns of the .mc's own may match at once."""
        return 0 if any(not line.codes for line in self.lines) else sum(len(line.codes) for line in self.lines)

    @property
    def operator(self) -> str:
        """Return whose list it is, as far as the zone tells."""
        return nameable(".".join(self.zone.split(".")[-2:]))


def nameable(text: str) -> str:
    """Return as much of the end of a zone as may be a name, with room for a number behind it."""
    return text[-60:].lstrip("-_.") or "list"


def strict_weights(lists: Iterable[AskedList]) -> dict[Action, int]:
    """Return for each action in use a weight that is its threshold too: all that is milder stays below it together.

    Raises ValueError if that takes more points than there are.
    """
    rules = [line.action for each in lists for line in each.lines for _ in line.codes or ("any",)]
    used = sorted(set(rules))
    for unit in (1000 if len(used) < 2 else 100, 1):
        weights: dict[Action, int] = {}
        below = 0
        for action in used:
            weights[action] = below + unit
            below += weights[action] * rules.count(action)
        if all(weight <= LARGEST for weight in weights.values()):
            return weights
    raise ValueError("too many lists with different actions for --strict; import them without it")


def strict(lists: Sequence[AskedList], spared: Sequence[Entry], *, delayed: bool) -> str:
    """Write a configuration that acts where Sendmail did, and as hard.

    `delayed` tells that clients could log in before they were judged. Raises ValueError as `strict_weights`.
    """
    weights = strict_weights(lists)
    return _blocks(
        ["[actions]", *(f"{action} = {written(weight)}" for action, weight in weights.items())],
        [
            *_exemptions(spared, ()),
            *([] if delayed else ["authenticated = false  # Sendmail refused them before they could log in"]),
        ],
        *([["[memory]", 'url = ""  # a deferral did not forgive']] if Action.DEFER in weights else []),
        *(
            [
                *_heading(each),
                *_rules((code, weights[line.action]) for line in each.lines for code in line.codes or ("",)),
                # FEATURE has no question for IPv6 clients, and one about IPv4 clients for every zone.
                "ipv4 = true",
                "ipv6 = false",
            ]
            for each in lists
        ),
    )


def gentle(lists: Sequence[AskedList], spared: Sequence[Entry]) -> str:
    """Write a configuration that tags and defers, where no list alone does more than tag."""
    caps = _caps(lists)
    most = sum(caps.values()) + sum(each.most for each in lists if each.operator not in caps)
    # A threshold that no sum reaches would only seem to protect.
    actions = [f"tag = {written(min(TAG, most))}"] if most else []
    actions += [f"defer = {written(DEFER)}"] if most >= DEFER else []
    return _blocks(
        ["[actions]", *actions],
        _exemptions(spared, ("postmaster@", "abuse@")),
        *(
            [
                *_heading(each),
                *([] if each.known else _rules((code, GENTLE) for line in each.lines for code in (line.codes if each.patterns else ("",)))),
                *([f"group = {json.dumps(each.operator)}"] if each.operator in caps else []),
            ]
            for each in lists
        ),
        *([["[groups]", *(f"{json.dumps(name)} = {{ cap = {written(cap)} }}" for name, cap in caps.items())]] if caps else []),
    )


def _caps(lists: Sequence[AskedList]) -> dict[str, int]:
    """Return a cap for each operator of several lists: one witness, who is not heard twice; so with several patterns."""
    caps: dict[str, int] = {}
    for each in lists:
        fellows = [other for other in lists if other.operator == each.operator]
        if each.most and (len(fellows) > 1 or each.patterns > 1 or each.total > ALONE):
            caps[each.operator] = max(other.most for other in fellows)
    return caps


def _blocks(*blocks: list[str]) -> str:
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _heading(one: AskedList) -> list[str]:
    first = one.lines[0]
    name = [f"name = {json.dumps(one.name)}"] if first.known or first.shown != first.zone else []
    return [f"# line {', '.join(str(line.line) for line in one.lines)}", "[[list]]", *name, f"zone = {json.dumps(one.zone)}"]


def _rules(rules: Iterable[tuple[str, int]]) -> Iterator[str]:
    """Write patterns and their weights; an empty pattern is any answer."""
    rules = list(rules)
    yield from dict.fromkeys(f"weight = {written(weight)}" for pattern, weight in rules if not pattern)
    codes = [f"{{ match = {json.dumps(pattern)}, weight = {written(weight)} }}" for pattern, weight in rules if pattern]
    if codes:
        yield f"codes = [{', '.join(codes)}]"


def _exemptions(spared: Iterable[Entry], own: tuple[str, ...]) -> list[str]:
    spared = list(spared)
    return [
        "[allow]",
        f"networks = {_array(network for entry in spared for network in entry.networks)}",
        f"hosts = {_array(host for entry in spared for host in entry.hosts)}",
        f"recipients = {_array([*own, *(recipient for entry in spared for recipient in entry.recipients)])}",
    ]


def _array(values: Iterable[str]) -> str:
    items = [json.dumps(value) for value in dict.fromkeys(values)]
    return f"[{', '.join(items)}]" if len(items) < 4 else "".join(["[\n", *(f"    {item},\n" for item in items), "]"])
