"""From a file to a policy: loads, cross-checks and fills in what the catalog knows; all faults at once.

Floor 2. With `listing`, the only place that reads the configuration, key files, allow files and the packaged data.
"""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from dnsbl_milter import faults, memory
from dnsbl_milter.faults import Findings
from dnsbl_milter.listen import Endpoint, parse_endpoint
from dnsbl_milter.listing import UNUSABLE, read_lists
from dnsbl_milter.nameserver import Nameserver, parse_nameserver, system_nameservers
from dnsbl_milter.settings import Invalid, Settings, parse_settings, section_keys
from dnsbl_policy import allow
from dnsbl_policy.actions import Action, Tiers
from dnsbl_policy.catalog import Catalog
from dnsbl_policy.catalog import parse as parse_catalog
from dnsbl_policy.points import hundredths, written
from dnsbl_policy.relevance import never_matter, never_reached
from dnsbl_policy.scoring import Policy

DEFAULT_PATH = Path("/etc/dnsbl-milter/dnsbl-milter.toml")
_MOST_BYTES = 64 * 1024 * 1024
"""No configuration and no allow file is larger; a device or a log given by mistake is."""


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


def load(path: Path | None = None) -> Configuration:
    """Load a configuration file, or without one the default path's, or else the packaged policy.

    Raises `Invalid` with every fault.
    """
    file = path or DEFAULT_PATH
    try:
        text = _read(file)
    except (OSError, ValueError) as fault:
        if path is None and isinstance(fault, FileNotFoundError):
            packaged = resources.files("dnsbl_milter").joinpath("default.toml").read_text("utf-8")
            return parse(packaged, f"the packaged default policy ({DEFAULT_PATH} does not exist)")
        raise Invalid([(str(file), _reason(fault))]) from None
    return parse(text, str(file))


def parse(text: str, source: str) -> Configuration:
    """Read a configuration from its text. Raises `Invalid` with every fault."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        raise Invalid([(source, f"is not TOML: {fault}")]) from None
    except (ValueError, RecursionError):
        raise Invalid([(source, "is not TOML: a number is too long, or brackets are nested too deeply")]) from None
    found = Findings()
    settings, errors = parse_settings(document)
    found.note(errors, document, section_keys)
    if settings is None:
        # What is right on its own is still checked against the rest, so that one pass shows every fault.
        settings = _without(document, [error["loc"] for error in errors])
    configuration = _cross_check(settings, source, found)
    if found.faults:
        raise Invalid([(f"{source}: {path}", what) for path, what in found.faults])
    return configuration


@cache
def catalog() -> Catalog:
    """Return the packaged catalog of public lists."""
    return parse_catalog(resources.files("dnsbl_policy").joinpath("catalog.toml").read_text("utf-8"))


def _read(path: Path) -> str:
    """Return a file's text. Raises OSError and ValueError."""
    with path.open("rb") as opened:
        content = opened.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"is larger than {_MOST_BYTES >> 20} MiB")
    return content.decode("utf-8")


def _reason(fault: OSError | ValueError) -> str:
    if isinstance(fault, OSError):
        return f"cannot be read: {fault.strerror}"
    if isinstance(fault, UnicodeDecodeError):
        return f"is not UTF-8 text (byte {fault.start + 1})"
    return str(fault)


def _without(document: dict[str, Any], places: list[tuple[Any, ...]]) -> Settings:
    """Return the settings that are left when the faulty keys are taken out."""
    kept: dict[str, Any] = {
        name: dict(section) if isinstance(section, dict) else section for name, section in document.items()
    }
    lists = document.get("list")
    entries = [dict(entry) if isinstance(entry, dict) else {} for entry in lists] if isinstance(lists, list) else []
    for place in places:
        if place[0] != "list" or len(place) == 1:
            section = kept.get(place[0])
            if len(place) > 1 and isinstance(section, dict):
                section.pop(place[1], None)
            else:
                kept.pop(place[0], None)
        elif len(place) > 2:
            entries[place[1]].pop(place[2], None)
    # A place is kept for each list, so that numbers in messages stay those of the file.
    kept["list"] = [entry if "zone" in entry else entry | {"zone": UNUSABLE, "enabled": False} for entry in entries]
    settings, _ = parse_settings(kept)
    return settings or Settings()


def _cross_check(settings: Settings, source: str, found: Findings) -> Configuration:
    listings = read_lists(settings, catalog(), found)
    policy = Policy(
        lists=tuple(listing.asked for listing in listings if listing.asked is not None),
        tiers=_tiers(settings, found),
        allow=_allow(settings, found),
        caps={name: hundredths(group.cap) for name, group in settings.groups.items()},
        enforce=settings.actions.mode == "enforce",
    )
    for name, cap in policy.caps.items():
        if cap <= 0:
            found.faults.append((_path("groups", name, "cap"), f"{written(cap)}: expected more than 0"))
    _check_times(settings, found)
    if unusable := memory.url_fault(settings.memory):
        found.faults.append(("memory.url", unusable))
    else:
        found.warnings += memory.unreadable(settings.memory)
    nameservers = tuple(parse_nameserver(text) for text in settings.dns.nameservers)
    if not nameservers and policy.lists and not found.faulty("dns", "nameservers"):
        try:
            nameservers = system_nameservers()
        except ValueError as fault:
            found.faults.append(("dns.nameservers", str(fault)))
    if not found.faults:
        _warn(policy, found)
    return Configuration(
        source,
        settings,
        policy,
        parse_endpoint(settings.milter.socket),
        nameservers,
        {listing.name: listing.zone for listing in listings},
        tuple(found.warnings),
    )


def _tiers(settings: Settings, found: Findings) -> Tiers:
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


def _allow(settings: Settings, found: Findings) -> allow.Allow:
    section = settings.allow
    entries = [*section.networks, *section.hosts, *section.recipients]
    for number, file in enumerate(section.files):
        entries += _entries(file, f"allow.files[{number}]", found)
    return allow.build(map(allow.parse_entry, entries), authenticated=section.authenticated)


def _entries(file: str, place: str, found: Findings) -> Iterator[str]:
    try:
        text = _read(Path(file))
    except (OSError, ValueError) as fault:
        found.faults.append((place, f"{file!r}: {_reason(fault)}"))
        return
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.partition("#")[0].strip()
        if not entry:
            continue
        try:
            allow.parse_entry(entry)
        except ValueError as fault:
            found.faults.append((place, f"{file!r}, line {number}: {entry!r}: {fault}"))
            continue
        yield entry


def _check_times(settings: Settings, found: Findings) -> None:
    cache, memory = settings.cache, settings.memory
    if cache.min_ttl > cache.max_ttl and not _either(found, "cache", "min_ttl", "max_ttl"):
        found.faults.append(("cache.min_ttl", f"{cache.min_ttl}: expected at most cache.max_ttl, {cache.max_ttl}"))
    if memory.delay >= memory.window and not _either(found, "memory", "delay", "window"):
        found.faults.append(("memory.delay", f"{memory.delay}: expected less than memory.window, {memory.window}"))


def _either(found: Findings, section: str, *keys: str) -> bool:
    return any(found.faulty(section, key) for key in keys)


def _warn(policy: Policy, found: Findings) -> None:
    if not policy.lists:
        found.warnings.append("list: there is no list, so every client is accepted")
        return
    if not policy.tiers.thresholds:
        found.warnings.append("actions: no action has a threshold, so every client is accepted")
        return
    unreached = never_reached(policy.lists, policy.tiers, policy.caps)
    found.warnings += [f"actions.{action}: no sum of the lists' weights reaches it" for action in unreached]
    found.warnings += [
        f"list {name!r} can never matter: no action changes by it, whatever the other lists say"
        for name in never_matter(policy.lists, policy.tiers, policy.caps)
    ]
    used = {one.group for one in policy.lists}
    found.warnings += [f"{_path('groups', name)}: no list belongs to it" for name in policy.caps if name not in used]


def _path(*steps: str) -> str:
    return faults.path(steps, {})
