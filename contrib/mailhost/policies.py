"""The milter's configuration for the sample clients: a weight for each list, and a threshold for each action."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from mailhost.daemon import SOCKET

Table = Mapping[str, object]

# Lists answer one after the other, so the strongest comes last: when its answer is there, all are, and a score
# that is not read too early does not depend on how busy the machine is.
SAMPLE_LISTS: tuple[Table, ...] = (
    {"name": "refusing", "zone": "refusing.example", "weight": 9},
    {"name": "empty", "zone": "empty.example", "weight": 5},
    {
        "name": "dnswl",
        "zone": "dnswl.example",
        "codes": [
            {"match": "127.0.[0..255].1", "weight": -1, "label": "low"},
            {"match": "127.0.[0..255].2", "weight": -4, "label": "medium"},
            {"match": "127.0.[0..255].3", "weight": -10, "label": "high"},
        ],
    },
    {"name": "psbl", "zone": "psbl.example", "weight": 3.5, "url": "https://psbl.example/listing?ip={client}"},
    {"name": "spamcop", "zone": "spamcop.example", "weight": 4, "url": "https://spamcop.example/bl?{client}"},
    {
        "name": "zen",
        "zone": "zen.example",
        "group": "zen",
        "url": "https://zen.example/query/{client}",
        "codes": [
            {"match": "127.0.0.2", "weight": 5, "label": "SBL"},
            {"match": "127.0.0.3", "weight": 4, "label": "CSS"},
            {"match": "127.0.0.4", "weight": 5, "label": "XBL"},
            {"match": "127.0.0.10", "weight": 3, "label": "PBL"},
        ],
    },
    {
        "name": "v6",
        "zone": "v6.example",
        "weight": 6.5,
        "ipv4": False,
        "ipv6": True,
        "url": "https://v6.example/bl?{client}",
    },
)

SAMPLE: Mapping[str, Table] = {
    "milter": {"socket": SOCKET, "workers": 2, "drain_seconds": 10},
    # The list server itself; so long a deadline, that no busy machine comes near it.
    "dns": {"nameservers": ["127.0.0.2"], "deadline": 10, "retry": 5},
    "actions": {"tag": 3, "defer": 6, "quarantine": 8, "reject": 12, "discard": 16},
    "allow": {
        "networks": ["192.168.0.0/24", "2001:db8:1::/48"],
        "hosts": ["mail.friend.example", ".partner.example"],
    },
    "memory": {"url": ""},
    "metrics": {"listen": ""},
    "health": {"enabled": False},
    "groups": {"zen": {"cap": 14}},
}


def sample_policy(lists: Sequence[Table] = SAMPLE_LISTS, **changes: Table) -> str:
    """Return the text of a configuration: the sample's, with other values for some keys; None removes a key."""
    lines: list[str] = []
    for section in dict.fromkeys([*SAMPLE, *changes]):
        keys = {**SAMPLE.get(section, {}), **changes.get(section, {})}
        lines += [f"[{section}]", *(f"{key} = {_value(value)}" for key, value in keys.items() if value is not None)]
    for entry in lists:
        lines += ["[[list]]", *(f"{key} = {_value(value)}" for key, value in entry.items())]
    return "\n".join([*lines, ""])


def _value(value: object) -> str:
    """Write a value in TOML, which is JSON but for tables."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(each)}" for key, each in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)
