"""From a Sendmail .mc file to a configuration of ours, and a report on every line that bears on it.

Floor 3: standard library only. Takes what was read and returns text.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, count

from dnsbl_milter import translation
from dnsbl_milter.access import Entry
from dnsbl_milter.asked import ADDRESS_LISTS, Asked, asked
from dnsbl_milter.mc import Feature
from dnsbl_milter.translation import DEFER, TAG, AskedList, nameable
from dnsbl_policy.actions import Action
from dnsbl_policy.points import written

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
    report += _reversals(name, lists) if strict else ()
    spared = [entry for source in (access, relay_domains) if source for entry in source.entries]
    report += _spared("access", access)
    report += _spared("relay-domains", relay_domains)
    report += _doubts(features, access, relay_domains, strict=strict)
    delayed = any(feature.name == "delay_checks" for feature in features)
    report += _everywhere(name, lists, strict=strict, delayed=delayed) if lists else ()
    if strict:
        title = f"# Made of {_printable(name)} with --strict: what one list did to mail by itself, it does still."
        body = translation.strict(lists, spared, delayed=delayed)
    else:
        title = f"# Made of {_printable(name)}: lists weigh, and none by itself delays or refuses mail."
        body = translation.gentle(lists, spared)
    return Imported(f"{title}\n\n{body}", tuple(report), len(lists))


def _read(name: str, features: Iterable[Feature], *, strict: bool) -> tuple[list[AskedList], list[Remark]]:
    lists: dict[str, AskedList] = {}
    lines: list[tuple[Asked, str]] = []
    for feature in features:
        if feature.name in ADDRESS_LISTS:
            line = asked(feature)
            refused = line.refused or _needless(line, lists.values(), strict=strict)
            lines.append((line, refused))
            if not refused:
                _put(line, lists)
        elif "dnsbl" in feature.name or "rhsbl" in feature.name:
            lines.append((asked(feature), _other(feature.name)))
    report: list[Remark] = []
    # Only now, for what a list adds may hang on a later line.
    for line, refused in lines:
        place, what = f"{name}:{line.line}", f"FEATURE({line.feature}) {line.shown}"
        if refused:
            report.append(Remark(place, Fate.LEFT, what, refused))
        else:
            told = _fates(line, lists[line.zone], strict=strict)
            report += [Remark(place, fate, what, why) for fate, why in told]
    return list(lists.values()), report


def _put(line: Asked, lists: dict[str, AskedList]) -> None:
    """Put a line to its list, which gets a name of its own."""
    if line.zone not in lists:
        called = line.known.name if line.known else nameable(line.shown.removeprefix("{key}."))
        taken = {each.name for each in lists.values()}
        numbered = (f"{called}-{number}" for number in count(2))
        lists[line.zone] = AskedList(next(each for each in chain([called], numbered) if each not in taken))
    lists[line.zone].lines.append(line)


def _needless(line: Asked, lists: Iterable[AskedList], *, strict: bool) -> str:
    """Return why a line adds nothing to those before it, or nothing."""
    for one in lists:
        first = one.lines[0]
        if one.zone == line.zone:
            whole = next((each for each in one.lines if not each.codes), None)
            return f"line {whole.line} asks the same zone, and acts on every answer" if whole else ""
        if not strict and line.known is not None and first.known is line.known:
            return f"the list of line {first.line} under another name, and one witness is not heard twice"
    return ""


def _other(name: str) -> str:
    if "rhsbl" in name:
        return "it asks about the sender's domain, which every sender may choose; only addresses of clients are weighed"
    return "not one of Sendmail's own features; what it asks is not known here"


def _fates(line: Asked, one: AskedList, *, strict: bool) -> Iterator[tuple[Fate, str]]:
    did = f"{_DID[line.action]} by itself" + (f" with {' '.join(line.codes)}" if line.codes else "")
    if strict:
        yield Fate.CARRIED, f"{did}, and still is"
    elif not one.most:
        yield Fate.CHANGED, f"{did}; it speaks for senders, and weighs for them now"
    else:
        families = "; asked about IPv6 too, as FEATURE was not" if one.known and one.known.ipv6 else ""
        yield Fate.CHANGED, f"{did}; adds at most {written(one.most)} now ({written(TAG)} tags, {written(DEFER)} defers){families}"
    if line is not one.lines[0]:
        yield Fate.CHANGED, f"one list with line {one.lines[0].line}, for a zone is asked once"
    if line.shown != line.zone:
        yield Fate.CARRIED, "its key stands in the configuration: let only the milter read that, or use key_file"
    for lost in line.lost:
        yield Fate.LEFT, lost


def _reversals(name: str, lists: Iterable[AskedList]) -> Iterator[Remark]:
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


def _everywhere(name: str, lists: Sequence[AskedList], *, strict: bool, delayed: bool) -> Iterator[Remark]:
    """Tell what is different for every list."""
    if strict and not delayed and any(line.action is Action.QUARANTINE for each in lists for line in each.lines):
        yield Remark(name, Fate.CHANGED, "quarantine", "the mail is held now; without delay_checks, Sendmail 8.17 and 8.18 write it into the log, and deliver")
    yield Remark(name, Fate.CHANGED, "when it is said", "at RCPT; without delay_checks, FEATURE closed the door at connect")
    yield Remark(name, Fate.CHANGED, "what is a listing", "operators' error codes (127.255.255.0/24) and answers outside 127/8 are none now; for FEATURE(dnsbl) they were")
    if strict and any(line.codes for each in lists for line in each.lines):
        yield Remark(name, Fate.CHANGED, "several answers", "each counts, as since Sendmail 8.18; before, FEATURE(enhdnsbl) looked at one of them only")
    if not strict and len(lists) == 1:
        yield Remark(name, Fate.CHANGED, "weighing", "one list is left, and there is nothing to weigh it against: add others")


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub("?", text)
