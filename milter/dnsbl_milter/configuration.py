"""From a file to a policy: loads, cross-checks and fills in what the catalog knows; all faults at once.

Floor 2. The only place that reads the configuration, key files, allow files and the packaged data.
"""

import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from dnsbl_milter import faults
from dnsbl_milter.listen import Endpoint, parse_endpoint
from dnsbl_milter.nameserver import Nameserver, parse_nameserver, system_nameservers
from dnsbl_milter.settings import Invalid, ListSection, Settings, parse_settings, section_keys
from dnsbl_policy import allow
from dnsbl_policy.actions import Action, Tiers
from dnsbl_policy.catalog import Catalog, KnownList, Scope
from dnsbl_policy.catalog import parse as parse_catalog
from dnsbl_policy.codes import parse_pattern
from dnsbl_policy.lists import DnsList, Rule
from dnsbl_policy.points import hundredths, written
from dnsbl_policy.relevance import never_matter, never_reached
from dnsbl_policy.scoring import Policy

DEFAULT_PATH = Path("/etc/dnsbl-milter/dnsbl-milter.toml")
_KEY = "{key}"
_MOST_BYTES = 64 * 1024 * 1024
"""No allow file is larger; a device or a log given by mistake is."""

Fault = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything the daemon and the commands work from; frozen, so that a reload replaces it whole."""

    source: str
    settings: Settings
    policy: Policy
    endpoint: Endpoint
    nameservers: tuple[Nameserver, ...]
    zones: dict[str, str]
    """By list name: its zone as people may see it."""
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class _Findings:
    faults: list[Fault] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in the file a list stands, for what is found about it."""

    number: int
    name: str
    found: _Findings

    def add(self, key: str, what: str) -> None:
        self.found.faults.append((f"list[{self.number}].{key} (list {self.name!r})", what))


def load(path: Path | None = None) -> Configuration:
    """Load a configuration file, or without one the default path's, or else the packaged policy.

    Raises `Invalid` with every fault.
    """
    if path is None and not DEFAULT_PATH.exists():
        packaged = resources.files("dnsbl_milter").joinpath("default.toml").read_text("utf-8")
        return parse(packaged, f"the packaged default policy ({DEFAULT_PATH} does not exist)")
    path = path or DEFAULT_PATH
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as fault:
        raise Invalid([(str(path), f"cannot be read: {fault.strerror}")]) from None
    except UnicodeDecodeError as fault:
        raise Invalid([(str(path), f"is not UTF-8 text (byte {fault.start + 1})")]) from None
    return parse(text, str(path))


def parse(text: str, source: str) -> Configuration:
    """Read a configuration from its text. Raises `Invalid` with every fault."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        raise Invalid([(source, f"is not TOML: {fault}")]) from None
    found = _Findings()
    settings, errors = parse_settings(document)
    broken: set[int] = set()
    for error in errors:
        location = error["loc"]
        found.faults.append((faults.path(location, document), faults.explain(error, section_keys(location))))
        if location[0] == "list" and len(location) > 1:
            broken.add(location[1])
    if settings is None:
        # What is right on its own is still checked against the rest, so that one pass shows every fault.
        settings = _without(document, [error["loc"] for error in errors])
    configuration = _cross_check(settings, source, broken, found)
    if found.faults:
        raise Invalid([(f"{source}: {path}", what) for path, what in found.faults])
    return configuration


def catalog() -> Catalog:
    """Return the packaged catalog of public lists."""
    return parse_catalog(resources.files("dnsbl_policy").joinpath("catalog.toml").read_text("utf-8"))


def shown_settings(configuration: Configuration) -> dict[str, Any]:
    """Return the effective settings, with what the catalog filled in and without keys."""
    shown = configuration.settings.model_dump(mode="json")
    shown["dns"]["nameservers"] = [str(nameserver) for nameserver in configuration.nameservers]
    effective = {one.name: one for one in configuration.policy.lists}
    for section, (name, zone) in zip(shown["list"], configuration.zones.items(), strict=True):
        section |= {"name": name, "zone": zone}
        one = effective.get(name)
        if one is not None:
            section |= {"ipv4": one.ipv4, "ipv6": one.ipv6, "url": one.url or None, "weight": None}
            section["codes"] = [
                {
                    "match": rule.pattern.text if rule.pattern else "127.0.0.0/8",
                    "weight": rule.weight / 100,
                    "label": rule.label or None,
                }
                for rule in one.rules
            ]
    return shown


def differences(before: Configuration, after: Configuration) -> list[str]:
    """Return what a reload changes, key by key, as "actions.tag: 3.0 -> 4.0"; a list's keys go by its name."""
    old, new = _flat(shown_settings(before)), _flat(shown_settings(after))
    return [
        f"{key}: {json.dumps(old.get(key))} -> {json.dumps(new.get(key))}"
        for key in dict.fromkeys((*old, *new))
        if old.get(key) != new.get(key)
    ]


def _flat(shown: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for section, keys in shown.items():
        for table in keys if isinstance(keys, list) else [keys]:
            name = f"{section} {table['name']!r}" if isinstance(keys, list) else section
            flat |= {f"{name}.{key}": value for key, value in table.items()}
    return flat


def _without(document: dict[str, Any], places: list[tuple[Any, ...]]) -> Settings:
    """Return the settings that are left when the faulty keys, and lists without a usable zone, are taken out."""
    kept: dict[str, Any] = {
        name: dict(section) if isinstance(section, dict) else section for name, section in document.items()
    }
    lists = document.get("list")
    entries = [dict(entry) if isinstance(entry, dict) else None for entry in lists] if isinstance(lists, list) else []
    for place in places:
        if place[0] != "list" or len(place) == 1:
            section = kept.get(place[0])
            if len(place) > 1 and isinstance(section, dict):
                section.pop(place[1], None)
            else:
                kept.pop(place[0], None)
        elif (entry := entries[place[1]]) is not None:
            entry.pop(place[2], None) if len(place) > 2 else None
    # A place is kept for each list, so that numbers in messages stay those of the file.
    placeholder = {"zone": "invalid.invalid", "enabled": False}
    kept["list"] = [entry if entry and "zone" in entry else placeholder for entry in entries]
    settings, _ = parse_settings(kept)
    return settings or Settings()


def _cross_check(settings: Settings, source: str, broken: set[int], found: _Findings) -> Configuration:
    known = catalog()
    lists: list[DnsList] = []
    zones: dict[str, str] = {}
    names: dict[str, int] = {}
    asked: dict[str, str] = {}
    for place, section in enumerate(settings.list):
        if place in broken and section.zone == "invalid.invalid":
            continue
        entry = known.known(section.zone)
        shown = _shown_zone(section.zone, entry)
        name = section.name or _default_name(shown, entry)
        faulty = _Place(place, name, found)
        if names.setdefault(name, place) != place:
            faulty.add("name", f"{name!r} is list[{names[name]}]'s already; give each list its own")
        zones[name] = shown
        _check_zone(section, shown, known, entry, faulty)
        zone = _with_key(section, faulty)
        if section.enabled and asked.setdefault(zone.lower(), name) != name:
            faulty.add("zone", f"list {asked[zone.lower()]!r} asks it already; put both under one list's codes")
        if section.group is not None and section.group not in settings.groups:
            faulty.add("group", f"there is no [groups] {section.group}; add {section.group} = {{ cap = … }}")
        rules = _rules(section, entry)
        if not rules:
            if place not in broken:
                faulty.add("weight", "is missing, and so is codes; the catalog does not know this zone")
            continue
        if section.enabled:
            lists.append(_list(section, name, zone, rules, entry))
    policy = Policy(
        lists=tuple(lists),
        tiers=_tiers(settings, found),
        allow=_allow(settings, found),
        caps={name: hundredths(group.cap) for name, group in settings.groups.items()},
        enforce=settings.actions.mode == "enforce",
    )
    for name, cap in policy.caps.items():
        if cap <= 0:
            found.faults.append((f"groups.{name}.cap", f"{written(cap)}: expected more than 0"))
    _check_cache(settings, found)
    nameservers = tuple(parse_nameserver(text) for text in settings.dns.nameservers)
    if not nameservers and policy.lists:
        try:
            nameservers = system_nameservers()
        except ValueError as fault:
            found.faults.append(("dns.nameservers", str(fault)))
    if not found.faults:
        _warn(policy, found)
    return Configuration(
        source, settings, policy, parse_endpoint(settings.milter.socket), nameservers, zones, tuple(found.warnings)
    )


def _shown_zone(zone: str, entry: KnownList | None) -> str:
    """Write a zone without its key, whether the key is in a file or was written into the zone itself."""
    for alias in entry.aliases if entry else ():
        key, _, rest = alias.partition(".")
        if key == _KEY and zone.endswith(f".{rest}") and _KEY not in zone:
            return alias
    return zone


def _default_name(shown: str, entry: KnownList | None) -> str:
    return entry.name if entry and _KEY in shown else shown.replace(f"{_KEY}.", "")


def _check_zone(section: ListSection, shown: str, known: Catalog, entry: KnownList | None, faulty: _Place) -> None:
    dead = known.dead_zone(section.zone)
    if dead and not section.allow_dead:
        faulty.add("zone", f"{shown} is dead: {dead.what} ({dead.when}); remove the list, or set allow_dead = true")
    if (section.scope or (entry and entry.scope)) == Scope.NAME:
        faulty.add("zone", f"{shown} lists names and takes no addresses; remove the list")


def _with_key(section: ListSection, faulty: _Place) -> str:
    """Return the zone with its key, which nobody is shown, not even in a message about it."""
    unusable = section.zone.replace(_KEY, "key")
    if section.key_file is None:
        if _KEY in section.zone:
            faulty.add("key_file", "is missing, and the zone has {key}")
        return unusable
    if _KEY not in section.zone:
        faulty.add("zone", "there is a key_file, but no {key} in the zone where the key would go")
        return unusable
    try:
        key = Path(section.key_file).read_text("ascii").strip()
    except OSError as fault:
        faulty.add("key_file", f"{section.key_file}: {fault.strerror}")
        return unusable
    except UnicodeDecodeError:
        key = ""
    if not key or len(key) > 63 or not key.replace("-", "").replace("_", "").isalnum():
        faulty.add("key_file", f"{section.key_file}: expected one line with one key of letters and digits")
        return unusable
    return section.zone.replace(_KEY, key)


def _rules(section: ListSection, entry: KnownList | None) -> tuple[Rule, ...]:
    if section.weight is None and not section.codes and entry:
        if entry.weight is not None:
            return (Rule(entry.weight),)
        return tuple(Rule(code.weight, parse_pattern(code.match), code.label) for code in entry.codes)
    bare = () if section.weight is None else (Rule(hundredths(section.weight)),)
    return bare + tuple(
        Rule(hundredths(code.weight), parse_pattern(code.match), code.label or "") for code in section.codes
    )


def _list(
    section: ListSection, name: str, zone: str, rules: tuple[Rule, ...], entry: KnownList | None
) -> DnsList:
    known4, known6 = (entry.ipv4, entry.ipv6) if entry else (True, False)
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
    )


def _tiers(settings: Settings, found: _Findings) -> Tiers:
    thresholds: list[tuple[int, Action]] = []
    for action in list(Action)[1:]:
        points = getattr(settings.actions, str(action))
        if points is None:
            continue
        threshold = hundredths(points)
        at = f"actions.{action}"
        if threshold <= 0:
            found.faults.append((at, f"{points}: expected more than 0, which is what a client without evidence scores"))
        elif thresholds and threshold < thresholds[-1][0]:
            milder, bound = thresholds[-1][1], written(thresholds[-1][0])
            found.faults.append((at, f"{points}: out of order; {action} is harder than {milder}, so expected at least {bound}"))
        else:
            thresholds.append((threshold, action))
    return Tiers(tuple(thresholds))


def _allow(settings: Settings, found: _Findings) -> allow.Allow:
    section = settings.allow
    entries = [*section.networks, *section.hosts, *section.recipients]
    for file in section.files:
        entries += _entries(file, found)
    return allow.build(map(allow.parse_entry, entries), authenticated=section.authenticated)


def _entries(file: str, found: _Findings) -> Iterator[str]:
    try:
        with Path(file).open("rb") as opened:
            text = opened.read(_MOST_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        why = fault.strerror if isinstance(fault, OSError) else "is not UTF-8 text"
        found.faults.append(("allow.files", f"{file}: {why}"))
        return
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.partition("#")[0].strip()
        if not entry:
            continue
        try:
            allow.parse_entry(entry)
        except ValueError as fault:
            found.faults.append(("allow.files", f"{file}, line {number}: {entry!r}: {fault}"))
            continue
        yield entry


def _check_cache(settings: Settings, found: _Findings) -> None:
    cache = settings.cache
    if cache.min_ttl > cache.max_ttl:
        found.faults.append(("cache.min_ttl", f"{cache.min_ttl}: expected at most cache.max_ttl, {cache.max_ttl}"))
    if settings.memory.delay >= settings.memory.window:
        found.faults.append(("memory.delay", f"{settings.memory.delay}: expected less than memory.window, {settings.memory.window}"))


def _warn(policy: Policy, found: _Findings) -> None:
    if not policy.lists:
        found.warnings.append("list: there is no list, so every client is accepted")
        return
    if not policy.tiers.thresholds:
        found.warnings.append("actions: no action has a threshold, so every client is accepted")
        return
    unreached = never_reached(policy.lists, policy.tiers)
    found.warnings += [f"actions.{action}: no sum of the lists' weights reaches it" for action in unreached]
    found.warnings += [
        f"list {name!r} can never matter: no action changes by it, whatever the other lists say"
        for name in never_matter(policy.lists, policy.tiers)
    ]
    used = {one.group for one in policy.lists}
    found.warnings += [f"groups.{name}: no list belongs to it" for name in policy.caps if name not in used]
