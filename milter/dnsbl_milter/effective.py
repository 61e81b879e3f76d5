"""The effective policy as people see it: written out, and compared with the one before.

Floor 2: standard library only. Keys and passwords stay out of it.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from dnsbl_milter.configuration import Configuration

_CREDENTIALS = re.compile(r"(?<=://).*@")


def shown_settings(configuration: Configuration) -> dict[str, Any]:
    """Return the effective settings, with what the catalog filled in and without keys and passwords."""
    shown = configuration.settings.model_dump(mode="json")
    shown["dns"]["nameservers"] = [str(nameserver) for nameserver in configuration.nameservers]
    shown["memory"]["url"] = _CREDENTIALS.sub("***@", shown["memory"]["url"])
    effective = {one.name: one for one in configuration.policy.lists}
    for section, (name, zone) in zip(shown["list"], configuration.zones.items(), strict=True):
        section |= {"name": name, "zone": zone}
        one = effective.get(name)
        if one is not None:
            section |= {"ipv4": one.ipv4, "ipv6": one.ipv6, "url": one.url or None, "weight": None}
            section["expect"] = {"listed": one.expect.listed, "clear": one.expect.clear}
            section["codes"] = [
                {
                    "match": rule.pattern.text if rule.pattern else "127.0.0.0/8",
                    "weight": rule.weight / 100,
                    "label": rule.label or None,
                }
                for rule in one.rules
            ]
    return shown


def as_toml(shown: Mapping[str, Any]) -> str:
    """Write settings in the form of the file."""
    lines: list[str] = []
    for section, keys in shown.items():
        for table in keys if isinstance(keys, list) else [keys]:
            lines.append(f"\n[[{section}]]" if isinstance(keys, list) else f"\n[{section}]")
            lines += [f"{key} = {_toml_value(value)}" for key, value in table.items() if value is not None]
    return "\n".join(lines)


def _toml_value(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml_value(item)}" for key, item in value.items() if item is not None) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    return _toml_text(value) if isinstance(value, str) else json.dumps(value)


def _toml_text(text: str) -> str:
    # As in JSON, but for what lies beyond 16 bits and would be two escapes there, which TOML forbids.
    return '"' + "".join(each if " " <= each <= "~" and each not in '"\\' else f"\\U{ord(each):08x}" for each in text) + '"'


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return what a reload changes, key by key, as "actions.tag: 3.0 -> 4.0"; a list's keys go by its name."""
    old, new = _flat(before), _flat(after)
    return [
        f"{key}: {json.dumps(old.get(key))} -> {json.dumps(new.get(key))}"
        for key in dict.fromkeys((*old, *new))
        if old.get(key) != new.get(key)
    ]


def _flat(shown: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for section, keys in shown.items():
        for table in keys if isinstance(keys, list) else [keys]:
            name = f"{section} {table['name']!r}" if isinstance(keys, list) else section
            flat |= {f"{name}.{key}": value for key, value in table.items()}
    return flat
