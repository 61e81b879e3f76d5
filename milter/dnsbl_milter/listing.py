"""Lists as configured, joined with what the catalog and the key files know.

Floor 2. Every fault of every list is found in one pass; a key is shown nowhere, not even in a message about it.
"""

from dataclasses import dataclass
from pathlib import Path

from dnsbl_milter.faults import Findings
from dnsbl_milter.settings import ListSection, Settings
from dnsbl_policy.catalog import Catalog, KnownList, Scope
from dnsbl_policy.codes import parse_pattern
from dnsbl_policy.lists import DnsList, Expect, Rule, zone_fault
from dnsbl_policy.points import hundredths

UNUSABLE = "unusable.invalid"
"""Stands in for a zone that cannot be used, so that the rest of the list is still checked."""

_WIDTHS: dict[str, int] = {Scope.NET24: 2, Scope.ASN: 4}
"""By how much less a listing weighs that is about the sender's whole network; about itself, it is 1."""

_KEY = "{key}"
_LONGEST_KEY = 63
_MOST_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Listing:
    """A list of the file: the name and the zone that people may see, and what is asked if it is enabled."""

    name: str
    zone: str
    asked: DnsList | None


def read_lists(settings: Settings, catalog: Catalog, found: Findings) -> tuple[Listing, ...]:
    """Join every list with what is known of it, and add what is wrong to the findings."""
    names: dict[str, int] = {}
    zones: dict[str, int] = {}
    listings: list[Listing] = []
    for number, section in enumerate(settings.list):
        entry = catalog.known(section.zone)
        shown = shown_zone(section.zone, catalog)
        name = section.name or (f"list[{number}]" if shown == UNUSABLE else _default_name(shown, entry))
        place = _Place(number, name, found)
        zone = _with_key(section, place)
        repeats = section.enabled and zones.setdefault(zone.lower(), number) != number
        if repeats:
            place.add("zone", f"list[{zones[zone.lower()]}] asks it already; put both under one list's codes")
        if names.setdefault(name, number) != number and (section.name is not None or not repeats):
            place.add("name", f"{name!r} is list[{names[name]}]'s already; give each list its own")
        usable = _check_zone(section, shown, catalog, entry, place)
        _check_group(section, settings, place)
        rules = _rules(section, entry)
        if usable and not rules and not place.faulty("weight", "codes", "zone") and not place.has_unknown_key:
            place.add("weight", "is missing, and so is codes; the catalog does not know this zone")
        asked = _list(section, name, zone, rules, entry) if rules and section.enabled else None
        listings.append(Listing(name, shown, asked))
    return tuple(listings)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in the file a list stands, for what is found about it."""

    number: int
    name: str
    found: Findings

    def add(self, key: str, what: str) -> None:
        self.found.faults.append((f"list[{self.number}].{key} (list {self.name!r})", what))

    def faulty(self, *keys: str) -> bool:
        return any(self.found.faulty("list", self.number, key) for key in keys)

    @property
    def has_unknown_key(self) -> bool:
        """Tell whether a key that is missing here may be there in another spelling."""
        mine = ("list", self.number)
        return any(place[:2] == mine and place[2:3] and place[2] not in ListSection.model_fields for place in self.found.places)


def shown_zone(zone: str, catalog: Catalog) -> str:
    """Write a zone without its key, whether the key is in a file or was written into the zone itself.

    Where an operator is known to give each subscriber a zone, that holds for all below its domain, also for lists
    that the catalog does not know.
    """
    if _KEY in zone:
        return zone
    for known in catalog.lists:
        for alias in known.aliases:
            domain = alias.removeprefix(f"{_KEY}.").partition(".")[2]
            key, _, data = zone.removesuffix(f".{domain}").rpartition(".")
            if alias.startswith(_KEY) and zone.endswith(f".{domain}") and key:
                return f"{_KEY}.{data}.{domain}"
    return zone


def _default_name(shown: str, entry: KnownList | None) -> str:
    return entry.name if entry and _KEY in shown else shown.replace(f"{_KEY}.", "")


def _check_zone(section: ListSection, shown: str, catalog: Catalog, entry: KnownList | None, place: _Place) -> bool:
    """Tell whether addresses may be asked under the zone; if not, add why."""
    dead = catalog.dead_zone(section.zone)
    if dead and not section.allow_dead:
        place.add("zone", f"{shown} is dead: {dead.what} ({dead.when}); remove the list, or set allow_dead = true")
        return False
    if (section.scope or (entry and entry.scope)) == Scope.NAME:
        place.add("zone", f"{shown} lists names and takes no addresses; remove the list")
        return False
    return True


def _check_group(section: ListSection, settings: Settings, place: _Place) -> None:
    group = section.group
    if group is not None and group not in settings.groups and not place.found.faulty("groups", group):
        place.add("group", f"there is no [groups] {group}; add {group} = {{ cap = … }}")


def _with_key(section: ListSection, place: _Place) -> str:
    """Return the zone with its key."""
    if section.key_file is None:
        if _KEY in section.zone and not place.faulty("key_file"):
            place.add("key_file", "is missing, and the zone has {key}")
        return section.zone
    if _KEY not in section.zone:
        if not place.faulty("zone"):
            place.add("zone", "there is a key_file, but no {key} in the zone where the key would go")
        return section.zone
    # Who writes the key itself in the file's place must not find it in the log.
    file = repr(section.key_file) if "/" in section.key_file else "the file"
    try:
        with Path(section.key_file).open("rb") as opened:
            key = opened.read(_MOST_BYTES).decode("ascii").strip()
    except UnicodeDecodeError:
        key = ""
    except (OSError, ValueError) as fault:
        place.add("key_file", f"{file}: cannot be read: {getattr(fault, 'strerror', fault)}")
        return section.zone
    zone = section.zone.replace(_KEY, key)
    if not key or len(key) > _LONGEST_KEY or not key.replace("-", "").replace("_", "").isalnum():
        place.add("key_file", f"{file}: expected one line with one key of letters and digits")
    elif (unusable := zone_fault(zone)) is not None:
        place.add("key_file", f"{file}: the zone with its key {unusable}")
    return zone


def _rules(section: ListSection, entry: KnownList | None) -> tuple[Rule, ...]:
    if section.weight is None and not section.codes and entry:
        if entry.weight is not None:
            return (Rule(_lowered(entry.weight, section, entry)),)
        return tuple(
            Rule(_lowered(code.weight, section, entry), parse_pattern(code.match), code.label) for code in entry.codes
        )
    bare = () if section.weight is None else (Rule(hundredths(section.weight)),)
    return bare + tuple(
        Rule(hundredths(code.weight), parse_pattern(code.match), code.label or "") for code in section.codes
    )


def _lowered(weight: int, section: ListSection, entry: KnownList) -> int:
    """Return a suggested weight, less where the administrator knows a listing to be about more than the catalog says."""
    wide, known = _WIDTHS.get(section.scope or "", 1), _WIDTHS.get(entry.scope, 1)
    return weight if wide <= known else int(weight * known / wide)


def _list(section: ListSection, name: str, zone: str, rules: tuple[Rule, ...], entry: KnownList | None) -> DnsList:
    known4, known6 = (entry.ipv4, entry.ipv6) if entry else (True, None)
    return DnsList(
        name=name,
        zone=zone,
        rules=rules,
        group=section.group,
        observe=section.observe,
        ipv4=known4 if section.ipv4 is None else section.ipv4,
        ipv6=known6 if section.ipv6 is None else section.ipv6,
        timeout=section.timeout,
        url=(entry.url if entry else "") if section.url is None else section.url,
        expect=_expect(section, entry),
    )


def _expect(section: ListSection, entry: KnownList | None) -> Expect:
    known = entry.expect if entry else Expect()
    return Expect(section.expect.listed or known.listed, section.expect.clear or known.clear)
