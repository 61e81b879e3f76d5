"""Says what is wrong with a configuration in the words of the one who wrote it.

Floor 2: standard library only; takes pydantic's accounts as plain dictionaries.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
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
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)

Fault = tuple[str, str]
"""A key's path, and what is wrong there."""


@dataclass(slots=True)
class Findings:
    """What has been found in one configuration so far."""

    faults: list[Fault] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    places: set[tuple[str | int, ...]] = field(default_factory=set)
    """Where a value could not be used."""

    def note(
        self,
        errors: Iterable[dict[str, Any]],
        document: dict[str, Any],
        known: Callable[[tuple[str | int, ...]], Sequence[str]],
    ) -> None:
        """Take in pydantic's accounts; `known` tells the keys that are known at a place."""
        for error in errors:
            self.places.add(error["loc"])
            self.faults.append((path(error["loc"], document), explain(error, known(error["loc"]))))

    def faulty(self, *place: str | int) -> bool:
        """Tell whether a value at, above or below a place could not be used.

        What would be found about its default is then no second fault.
        """
        return any(place[: len(other)] == other[: len(place)] for other in self.places)


def path(location: Sequence[str | int], document: dict[str, Any]) -> str:
    """Write the place of a key: list[2].codes[0].match, with the list's name where it has one."""
    text = ""
    for step in location:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            # A key may hold anything in quotes, a line break too.
            text += ("." if text else "") + (step if _BARE_KEY.fullmatch(step) else json.dumps(step[:_MOST_SHOWN]))
    if len(location) > 1 and location[0] == "list" and isinstance(location[1], int):
        entry = document["list"][location[1]]
        # A zone may have a key written into it; only a name that was given is sure to be for showing.
        name = entry.get("name") if isinstance(entry, dict) else None
        if isinstance(name, str):
            text += f" (list {_cut(repr(name))})"
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
        expected = str(limits["error"])
        # A pattern's own message begins with the pattern, to point into it.
        if expected.startswith(repr(value)):
            return _cut(repr(value)) + expected.removeprefix(repr(value))
    elif kind in _KINDS:
        expected = f"expected {_KINDS[kind]}"
    elif kind == "literal_error":
        expected = f"expected {limits['expected']}"
    elif kind in ("greater_than_equal", "less_than_equal"):
        expected = f"expected at least {limits['ge']}" if "ge" in limits else f"expected at most {limits['le']}"
    else:
        expected = error["msg"]
    return expected if _may_be_secret(error["loc"]) else f"{_shown(value)}: {expected}"


def _may_be_secret(location: Sequence[str | int]) -> bool:
    """Tell whether a value is not for showing: a zone may hold a paid key, and the memory's address a password."""
    return location[-1] == "zone" or location == ("memory", "url")


def _shown(value: object) -> str:
    return _cut({True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"
