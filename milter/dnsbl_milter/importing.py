"""From a Sendmail .mc file to a configuration of ours, and a report on every line that bears on it.

Floor 2: standard library only. Takes what was read and returns text.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from dnsbl_milter.access import Entry
from dnsbl_milter.asked import ADDRESS_LISTS, Asked, asked
from dnsbl_milter.mc import Feature
from dnsbl_policy.actions import Action
from dnsbl_policy.catalog import KnownList
from dnsbl_policy.points import LARGEST, written

TAG, DEFER = 300, 600
"""The gentle thresholds, in hundredths: the catalog's weights are made for them."""
GENTLE = TAG
"""The gentle weight of a list that the catalog does not know, or whose codes the .mc chose: it tags by itself."""

_UNPRINTABLE = re.compile(r"[^ -~]+")
_DID = {
    Action.DEFER: "deferred",
    Action.QUARANTINE: "quarantined",
    Action.REJECT: "rejected",
    Action.DISCARD: "discarded",
}


class Fate(StrEnum):
    """What became of a line."""

    CARRIED = "carried over"
    CHANGED = "changed"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Remark:
    """One line of the report."""

    place: str
    fate: Fate
    what: str
    why: str

    def __str__(self) -> str:
        return _printable(f"{self.place}: {self.fate}: {self.what}: {self.why}")


@dataclass(frozen=True, slots=True)
class Source:
    """A file that was read for exemptions: its name, and what it held."""

    name: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Imported:
    """The configuration, and the report on how it came about."""

    configuration: str
    report: tuple[Remark, ...]
    lists: int


@dataclass(slots=True)
class _List:
    """A zone that is carried over, with the lines that asked it: a zone is asked once."""

    name: str
    lines: list[Asked] = field(default_factory=list)

    @property
    def known(self) -> KnownList | None:
        """Return what the catalog says of it, if the .mc took every code: else it has weighed for itself."""
        return self.lines[0].known if any(not line.codes for line in self.lines) else None

    @property
    def most(self) -> int:
        """Return the most that it adds in a gentle configuration."""
        if self.known is None:
            return GENTLE
        weights = [code.weight for code in self.known.codes] or [self.known.weight or 0]
        return sum(weight for weight in weights if weight > 0)

    @property
    def capped(self) -> bool:
        """Tell whether a gentle list needs a cap, since several patterns of its own may match at once."""
        return all(line.codes for line in self.lines) and sum(len(line.codes) for line in self.lines) > 1


def import_sendmail(
    name: str,
    features: Sequence[Feature],
    *,
    access: Source | None = None,
    relay_domains: Source | None = None,
    strict: bool = False,
) -> Imported | None:
    """Make a configuration of the lists that a .mc file asks; None if it asks none.

    Strict, it acts where the old one did, and as hard; else it tags and defers, and no list does more than tag alone.
    Raises ValueError for more lists with different actions than points can tell apart.
    """
    if not any(feature.name in ADDRESS_LISTS for feature in features):
        return None
    lists, report = _read(name, features, strict=strict)
    weights = _strict_weights(lists) if strict else {}
    report += _reversals(name, lists) if strict else ()
    spared = [entry for source in (access, relay_domains) if source for entry in source.entries]
    report += _spared("access", access)
    report += _spared("relay-domains", relay_domains)
    report += _doubts(features, access, relay_domains, strict=strict)
    report += _everywhere(name, lists, strict=strict) if lists else ()
    blocks = [
        _head(name, strict=strict),
        ["[actions]", *_thresholds(lists, weights)],
        ["[allow]", *_exemptions(spared, features, strict=strict)],
        *([["[memory]", 'url = ""  # a deferral did not forgive']] if Action.DEFER in weights else []),
        *(_toml(each, weights) for each in lists),
    ]
    caps = [f"{json.dumps(each.name)} = {{ cap = {written(GENTLE)} }}" for each in lists if each.capped and not strict]
    blocks += [["[groups]", *caps]] if caps else []
    return Imported("\n\n".join("\n".join(block) for block in blocks) + "\n", tuple(report), len(lists))


def _read(name: str, features: Iterable[Feature], *, strict: bool) -> tuple[list[_List], list[Remark]]:
    lists: dict[str, _List] = {}
    names: set[str] = set()
    report: list[Remark] = []
    for feature in features:
        place = f"{name}:{feature.line}"
        if feature.name not in ADDRESS_LISTS:
            if "dnsbl" in feature.name or "rhsbl" in feature.name:
                report.append(Remark(place, Fate.LEFT, f"FEATURE({feature.name}) {feature.argument(1)}", _other(feature.name)))
            continue
        line = asked(feature)
        what = f"FEATURE({feature.name}) {line.shown}"
        earlier = lists[line.zone].lines if line.zone in lists else []
        refused = line.refused
        if whole := next((each for each in earlier if not each.codes), None):
            refused = f"line {whole.line} asks the same zone, and acts on every answer"
        if refused:
            report.append(Remark(place, Fate.LEFT, what, refused))
            continue
        if not earlier:
            called = line.known.name if line.known else line.zone
            lists[line.zone] = _List(next(each for each in _numbered(called) if each not in names))
            names.add(lists[line.zone].name)
        lists[line.zone].lines.append(line)
        report.append(_fate(place, what, line, lists[line.zone], strict=strict))
        if earlier:
            report.append(Remark(place, Fate.CHANGED, what, f"one list with line {earlier[0].line}, for a zone is asked once"))
        if line.shown != line.zone:
            report.append(Remark(place, Fate.CARRIED, what, "its key stands in the configuration: let only the milter read that, or use key_file"))
        report += [Remark(place, Fate.LEFT, what, lost) for lost in line.lost]
    return list(lists.values()), report


def _other(name: str) -> str:
    if "rhsbl" in name:
        return "it asks about the sender's domain, which every sender may choose; only addresses of clients are weighed"
    return "not one of Sendmail's own features; what it asks is not known here"


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}-{number}"
        number += 1


def _fate(place: str, what: str, line: Asked, one: _List, *, strict: bool) -> Remark:
    codes = f" with {' '.join(line.codes)}" if line.codes else ""
    if strict:
        return Remark(place, Fate.CARRIED, what, f"{_DID[line.action]} by itself{codes}, and still is")
    if not one.most:
        return Remark(place, Fate.CHANGED, what, f"{_DID[line.action]} by itself{codes}; it speaks for senders, and weighs for them now")
    families = "; asked about IPv6 too, as FEATURE was not" if one.known and one.known.ipv6 else ""
    adds = f"adds at most {written(one.most)} now ({written(TAG)} tags, {written(DEFER)} defers)"
    return Remark(place, Fate.CHANGED, what, f"{_DID[line.action]} by itself{codes}; {adds}{families}")


def _strict_weights(lists: Iterable[_List]) -> dict[Action, int]:
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
    raise ValueError("these are too many lists with different actions for --strict; import them without it")


def _reversals(name: str, lists: Iterable[_List]) -> Iterator[Remark]:
    """Tell where a milder line stands before a harder one: Sendmail stopped at the first, but points add up."""
    lines = sorted((line for each in lists for line in each.lines), key=lambda line: line.line)
    for number, later in enumerate(lines):
        if earlier := next((line for line in lines[:number] if line.action < later.action), None):
            yield Remark(
                f"{name}:{later.line}",
                Fate.CHANGED,
                f"FEATURE({later.feature}) {later.shown}",
                f"who is listed here and in line {earlier.line} is {_DID[later.action]} now; the first decided, and it {_DID[earlier.action]}",
            )


def _spared(option: str, source: Source | None) -> Iterator[Remark]:
    if source is None:
        because = "an entry that spared a client from FEATURE(dnsbl) does not spare it from a milter" if option == "access" else "the milter judges those clients too"
        yield Remark(option, Fate.LEFT, "exemptions", f"NOT carried over: {because}; give --{option} FILE")
        return
    for entry in source.entries:
        fate = Fate.LEFT if not entry.kept else Fate.CHANGED if entry.why else Fate.CARRIED
        exempt = f"exempt: {' '.join(entry.kept)}" if entry.kept else ""
        yield Remark(f"{source.name}:{entry.line}", fate, entry.written, "; ".join(filter(None, (exempt, entry.why))) or "still is")
    yield Remark(source.name, Fate.CARRIED, "all else", "Sendmail reads the file as before")


def _doubts(features: Sequence[Feature], access: Source | None, relay_domains: Source | None, *, strict: bool) -> Iterator[Remark]:
    """Tell what of the exemptions may not be as it was."""
    if access and not any(feature.name == "access_db" for feature in features):
        yield Remark(access.name, Fate.CHANGED, "exemptions", "the .mc has no FEATURE(access_db): unless a file that it includes has, nobody was spared so far")
    if access and any(feature.name == "delay_checks" and feature.argument(1)[:1].lower() == "h" for feature in features):
        yield Remark(access.name, Fate.LEFT, "FEATURE(delay_checks, hater)", "only HATER entries were protected; now everybody is who is not exempt")
    if relay_domains and strict and any(entry.kept for entry in relay_domains.entries):
        yield Remark(relay_domains.name, Fate.CHANGED, "exemptions", "FEATURE(dnsbl) judged these clients too; to be as strict, leave --relay-domains out")


def _everywhere(name: str, lists: Sequence[_List], *, strict: bool) -> Iterator[Remark]:
    """Tell what is different for every list."""
    yield Remark(name, Fate.CHANGED, "when it is said", "at RCPT; without delay_checks, FEATURE closed the door at connect")
    yield Remark(name, Fate.CHANGED, "what is a listing", "operators' error codes (127.255.255.0/24) and answers outside 127/8 are none now; for FEATURE(dnsbl) they were")
    if strict and any(line.codes for each in lists for line in each.lines):
        yield Remark(name, Fate.CHANGED, "several answers", "each counts, as since Sendmail 8.18; before, FEATURE(enhdnsbl) looked at one of them only")
    if not strict and len(lists) == 1:
        yield Remark(name, Fate.CHANGED, "weighing", "one list is left, and there is nothing to weigh it against: add others")


def _head(name: str, *, strict: bool) -> list[str]:
    if strict:
        return [f"# Made of {_printable(name)} with --strict: what one list did to mail alone, it does still."]
    return [f"# Made of {_printable(name)}: lists weigh, and none alone delays or refuses mail."]


def _thresholds(lists: Iterable[_List], weights: dict[Action, int]) -> list[str]:
    if weights:
        return [f"{action} = {written(weight)}" for action, weight in weights.items()]
    most = sum(each.most for each in lists)
    # A threshold that no sum reaches would only seem to protect.
    lines = [f"tag = {written(min(TAG, most))}"] if most else []
    return [*lines, f"defer = {written(DEFER)}"] if most >= DEFER else lines


def _exemptions(entries: Sequence[Entry], features: Iterable[Feature], *, strict: bool) -> list[str]:
    own = () if strict else ("postmaster@", "abuse@")
    lines = [
        f"networks = {_array(network for entry in entries for network in entry.networks)}",
        f"hosts = {_array(host for entry in entries for host in entry.hosts)}",
        f"recipients = {_array([*own, *(recipient for entry in entries for recipient in entry.recipients)])}",
    ]
    if strict and not any(feature.name == "delay_checks" for feature in features):
        lines.append("authenticated = false  # without delay_checks, a client was refused before it could log in")
    return lines


def _array(values: Iterable[str]) -> str:
    items = [json.dumps(value) for value in dict.fromkeys(values)]
    return f"[{', '.join(items)}]" if len(items) < 4 else "".join(["[\n", *(f"    {item},\n" for item in items), "]"])


def _toml(one: _List, weights: dict[Action, int]) -> list[str]:
    """Write a list; without weights, gently."""
    lines = [f"# line {', '.join(str(line.line) for line in one.lines)}", "[[list]]"]
    if one.lines[0].known:
        lines.append(f"name = {json.dumps(one.name)}")
    lines.append(f"zone = {json.dumps(one.lines[0].zone)}")
    if not weights and any(not line.codes for line in one.lines):
        return lines if one.known else [*lines, f"weight = {written(GENTLE)}"]
    bare = [weights[line.action] for line in one.lines if not line.codes]
    lines += [f"weight = {written(weight)}" for weight in bare]
    codes = [
        f"{{ match = {json.dumps(code)}, weight = {written(weights.get(line.action, GENTLE))} }}"
        for line in one.lines
        for code in line.codes
    ]
    lines += [f"codes = [{', '.join(codes)}]"] if codes else []
    lines += [f"group = {json.dumps(one.name)}"] if one.capped and not weights else []
    # FEATURE has no question for IPv6 clients, and one about IPv4 for every zone.
    return [*lines, "ipv4 = true", "ipv6 = false"] if weights else lines


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub("?", text)
