"""Says what is wrong with a configuration in the words of the one who wrote it.

Floor 2: standard library only; takes pydantic's accounts as plain dictionaries.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

_KINDS = {
    "string_type": "text in quotes",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list in [ ]",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}
_MOST_SHOWN = 60


def path(location: Sequence[str | int], document: dict[str, Any]) -> str:
    """Write the place of a key: list[2].codes[0].match, with the list's name where it has one."""
    text = ""
    for step in location:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    if len(location) > 1 and location[0] == "list" and isinstance(location[1], int):
        entry = document["list"][location[1]]
        name = entry.get("name", entry.get("zone")) if isinstance(entry, dict) else None
        # A zone may have a key written into it; only a name that was given is sure to be for showing.
        if isinstance(name, str) and "name" in entry and name.isprintable():
            text += f" (list {name[:_MOST_SHOWN]!r})"
    return text


def explain(error: dict[str, Any], siblings: Sequence[str]) -> str:
    """Say what is wrong with a value, and what would be right."""
    kind, value, limits = error["type"], error.get("input"), error.get("ctx", {})
    if kind == "extra_forbidden":
        close = get_close_matches(str(error["loc"][-1]), siblings, 1)
        return "unknown key; " + (f"did you mean {close[0]}?" if close else f"known here: {', '.join(siblings)}")
    if kind == "missing":
        return "is missing, and must be given"
    if kind == "value_error":
        # A pattern's own message begins with the pattern, to point into it.
        reason, shown = str(limits["error"]), _shown(value)
        return reason if reason.startswith(shown) else f"{shown}: {reason}"
    if kind in _KINDS:
        return f"{_shown(value)}: expected {_KINDS[kind]}"
    if kind == "literal_error":
        return f"{_shown(value)}: expected {limits['expected']}"
    if kind in ("greater_than_equal", "less_than_equal"):
        bound = f"at least {limits['ge']}" if "ge" in limits else f"at most {limits['le']}"
        return f"{_shown(value)}: expected {bound}"
    return f"{_shown(value)}: {error['msg']}"


def _shown(value: object) -> str:
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"
