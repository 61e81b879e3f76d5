"""The catalog: what is publicly known about lists, living and dead.

Floor 1: standard library only. Reads the text of a catalog and answers questions about zones; opens no file and
asks no server. The texts beside this module, in `catalog.toml`, are data that anybody may correct.

Weights are suggestions, in hundredths of a point like everywhere else in Python.
"""

import re
import tomllib
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

from dnsbl_policy.codes import parse_pattern
from dnsbl_policy.lists import Expect, zone_fault
from dnsbl_policy.toml import Table, is_code, is_network, plain_zone

KEY = "{key}"
"""Stands in an alias for the one label that is a subscriber's secret."""

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*", re.ASCII)
_LABEL = re.compile(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*", re.ASCII)
_MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])", re.ASCII)
_ADDRESS = re.compile(r"https?://\S+", re.ASCII)


class Scope(StrEnum):
    """What one listing is about: how far from the sender itself its ground may lie."""

    IP = "ip"
    NET24 = "net24"
    ASN = "asn"
    DYNAMIC = "dynamic"
    NAME = "name"
    """Domain names; such a list must not be asked about addresses."""


class Kind(StrEnum):
    """Whom a list speaks against or for."""

    BLOCK = "block"
    ALLOW = "allow"
    MIXED = "mixed"
    SCORE = "score"


class Terms(StrEnum):
    """What an operator asks for before a list may be used."""

    FREE = "free"
    VOLUME = "volume"
    REGISTRATION = "registration"
    KEY = "key"


class State(StrEnum):
    """How sure it is that a list still works."""

    ALIVE = "alive"
    DOUBTFUL = "doubtful"


@dataclass(frozen=True, slots=True)
class KnownCode:
    """What one kind of answer means, and what it might weigh."""

    match: str
    weight: int
    label: str
    meaning: str


@dataclass(frozen=True, slots=True)
class KnownList:
    """A public list. It has either `codes`, or one `weight` and `meaning` for any answer."""

    name: str
    zone: str
    scope: Scope
    kind: Kind
    terms: Terms
    state: State
    url: str
    """The page for people; `{client}` stands for the address where the operator takes one."""
    checked: str
    """The month in which the facts were gathered."""
    source: str
    codes: tuple[KnownCode, ...] = ()
    weight: int | None = None
    meaning: str = ""
    ipv4: bool = True
    ipv6: bool = False
    expect: Expect = field(default_factory=Expect)
    aliases: tuple[str, ...] = ()
    """Other zones with the same content; `{key}` stands for any one label."""

    def is_at(self, zone: str) -> bool:
        """Tell whether a zone, in plain form, is this list's."""
        return zone == self.zone or any(_fits(alias, zone) for alias in self.aliases)


@dataclass(frozen=True, slots=True)
class DeadZone:
    """A zone, and all below it, that must not be asked any more."""

    zone: str
    what: str
    """What happened, and where its users went."""
    when: str
    source: str
    dangerous: bool = False
    """It has listed, or answered for, every address there is."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """All that is known."""

    lists: tuple[KnownList, ...] = ()
    dead: tuple[DeadZone, ...] = ()

    def known(self, zone: str) -> KnownList | None:
        """Return the list that a zone belongs to, also when the zone carries a paid key."""
        plain = plain_zone(zone)
        return next((one for one in self.lists if one.is_at(plain)), None)

    def dead_zone(self, zone: str) -> DeadZone | None:
        """Return what is known of a dead zone, or of the nearest dead zone above it."""
        plain = f".{plain_zone(zone)}"
        above = [one for one in self.dead if plain.endswith(f".{one.zone}")]
        return max(above, key=lambda one: len(one.zone), default=None)


def parse(text: str) -> Catalog:
    """Read a catalog. Raises ValueError that names the entry, its key, and what is wrong."""
    try:
        # Decimal: a weight of 4.35 must not pass through the nearest binary fraction.
        top = Table("catalog", tomllib.loads(text, parse_float=Decimal))
    except tomllib.TOMLDecodeError as fault:
        raise ValueError(f"catalog: {fault}") from None
    lists = tuple(_known_list(entry) for entry in top.tables("list", "name", "[[list]]"))
    dead = tuple(_dead_zone(entry) for entry in top.tables("dead", "zone", "[[dead]]"))
    top.end()
    catalog = Catalog(lists, dead)
    _cross_check(catalog)
    return catalog


def _cross_check(catalog: Catalog) -> None:
    if name := _twice([one.name for one in catalog.lists]):
        raise ValueError(f"[[list]] {name}: name: is used twice")
    if zone := _twice([grave.zone for grave in catalog.dead]):
        raise ValueError(f"[[dead]] {zone}: zone: is there twice")
    for one in catalog.lists:
        for zone in (one.zone, *one.aliases):
            if sum(other.is_at(zone) for other in catalog.lists) > 1:
                raise ValueError(f"[[list]] {one.name}: zone: {zone} belongs to another list too")
            if (grave := catalog.dead_zone(zone)) is not None:
                raise ValueError(f"[[list]] {one.name}: zone: {zone} is also under [[dead]] {grave.zone}")


def _twice(names: list[str]) -> str | None:
    return next((name for name in names if names.count(name) > 1), None)


def _known_list(entry: Table) -> KnownList:
    codes = tuple(_known_code(code) for code in entry.tables("codes", "label", f"{entry.place}: codes"))
    weight = entry.weight("weight") if "weight" in entry.values else None
    if bool(codes) == (weight is not None):
        raise entry.fault("codes", "expected either codes or one weight for any answer")
    scope = entry.choice("scope", Scope)
    name_list = scope is Scope.NAME
    known = KnownList(
        name=entry.text("name", _NAME, "lower-case letters, digits and single hyphens"),
        zone=entry.zone("zone"),
        scope=scope,
        kind=entry.choice("kind", Kind),
        terms=entry.choice("terms", Terms),
        state=entry.choice("state", State),
        url=entry.text("url", _ADDRESS, "an address that begins with https:// or http://"),
        checked=entry.text("checked", _MONTH, "a month such as 2026-11"),
        source=entry.text("source"),
        codes=codes,
        weight=weight,
        meaning=entry.text("meaning") if weight is not None else "",
        ipv4=entry.flag("ipv4", default=not name_list),
        ipv6=entry.flag("ipv6", default=False),
        expect=_expect(entry),
        aliases=_aliases(entry),
    )
    if name_list and (known.ipv4 or known.ipv6):
        raise entry.fault("scope", "a list of names takes no addresses: ipv4 and ipv6 must be false")
    if not name_list and not (known.ipv4 or known.ipv6):
        raise entry.fault("ipv4", "expected ipv4 or ipv6, or a list of addresses would never be asked")
    entry.end()
    return known


def _known_code(entry: Table) -> KnownCode:
    code = KnownCode(
        match=entry.text("match"),
        weight=entry.weight("weight"),
        label=entry.text("label", _LABEL, "letters, digits and single hyphens"),
        meaning=entry.text("meaning"),
    )
    try:
        parse_pattern(code.match)
    except ValueError as fault:
        raise entry.fault("match", str(fault)) from None
    entry.end()
    return code


def _expect(entry: Table) -> Expect:
    if "expect" not in entry.values:
        return Expect()
    table = entry.table("expect")
    expect = Expect(
        table.text_or_none("listed", is_code, "a code such as 127.0.0.4"),
        table.text_or_none("clear", is_network, "a network such as 127.128.0.0/9"),
    )
    table.end()
    return expect


def _aliases(entry: Table) -> tuple[str, ...]:
    aliases = entry.take("aliases", list, "an array of zones", default=[])
    for alias in aliases:
        # A key is one label, so a plain one in its place says whether the rest is a zone.
        fault = zone_fault(alias.replace(KEY, "key")) if isinstance(alias, str) else "expected text"
        if fault or alias != plain_zone(alias):
            raise entry.fault("aliases", f"{alias}: {fault or 'expected lower case'}")
    return tuple(aliases)


def _dead_zone(entry: Table) -> DeadZone:
    grave = DeadZone(
        zone=entry.zone("zone"),
        what=entry.text("what"),
        when=entry.text("when"),
        source=entry.text("source"),
        dangerous=entry.flag("dangerous", default=False),
    )
    entry.end()
    return grave


def _fits(alias: str, zone: str) -> bool:
    wanted, found = alias.split("."), zone.split(".")
    return len(wanted) == len(found) and all(
        label == want or (want == KEY and label != "") for want, label in zip(wanted, found, strict=True)
    )
