"""A TOML table that is read with care: every value checked, every key accounted for.

Floor 0: standard library only. Knows what zones, codes and weights look like; which of them a table holds is its
reader's business.
"""

import re
from collections.abc import Callable
from decimal import Decimal
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, ip_network
from typing import Any, TypeVar

from dnsbl_policy.lists import zone_fault
from dnsbl_policy.points import hundredths

_LOOPBACK = IPv4Network("127.0.0.0/8")

_Choice = TypeVar("_Choice", bound=StrEnum)


def is_code(text: str) -> bool:
    """Tell whether a text is a return code."""
    try:
        return IPv4Address(text) in _LOOPBACK
    except ValueError:
        return False


def is_network(text: str) -> bool:
    """Tell whether a text is a network."""
    try:
        ip_network(text)
    except ValueError:
        return False
    return True


def plain_zone(zone: str) -> str:
    """Return a zone in lower case and without its final dot."""
    return zone.lower().removesuffix(".")


class Table:
    """A TOML table that knows its place, hands out checked values, and remembers what it was not asked for."""

    def __init__(self, place: str, values: dict[str, Any]) -> None:
        self.place = place
        self.values = values
        self._left = set(values)

    def fault(self, key: str, what: str) -> ValueError:
        """Return the fault of a key, to be raised."""
        return ValueError(f"{self.place}: {key}: {what}")

    def take(self, key: str, kind: type, expected: str, default: Any = None) -> Any:
        """Return a value of this kind. Raises ValueError, like all below."""
        self._left.discard(key)
        value = self.values.get(key, default)
        if value is None:
            raise self.fault(key, f"is missing; expected {expected}")
        if not isinstance(value, kind):
            raise self.fault(key, f"expected {expected}")
        return value

    def text(self, key: str, form: re.Pattern[str] | None = None, expected: str = "text") -> str:
        """Return a text that is not empty, of this form."""
        value: str = self.take(key, str, expected)
        if not value.strip() or (form is not None and not form.fullmatch(value)):
            raise self.fault(key, f"expected {expected}")
        return value

    def text_or_none(self, key: str, check: Callable[[str], bool], expected: str) -> str | None:
        """Return a text that passes a check, or the word "none"; None where there is nothing."""
        if key not in self.values:
            return None
        value = self.text(key)
        if value != "none" and not check(value):
            raise self.fault(key, f'expected {expected}, or "none"')
        return value

    def zone(self, key: str) -> str:
        """Return a zone in plain form."""
        value = self.text(key)
        fault = zone_fault(value)
        if fault is None and value != plain_zone(value):
            fault = "expected lower case"
        if fault is not None:
            raise self.fault(key, fault)
        return value

    def weight(self, key: str) -> int:
        """Return a weight in hundredths."""
        value = self.take(key, object, "a number of points")
        # bool is a number to Python, and text would be one to Decimal.
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            raise self.fault(key, "expected a number of points such as 2.5")
        try:
            return hundredths(str(value))
        except ValueError as fault:
            raise self.fault(key, str(fault)) from None

    def flag(self, key: str, *, default: bool) -> bool:
        """Return true or false."""
        value: bool = self.take(key, bool, "true or false", default)
        return value

    def choice(self, key: str, kind: type[_Choice]) -> _Choice:
        """Return one of several words."""
        expected = "one of " + ", ".join(kind)
        value = self.text(key, None, expected)
        try:
            return kind(value)
        except ValueError:
            raise self.fault(key, f"{value!r}: expected {expected}") from None

    def table(self, key: str) -> "Table":
        """Return a table inside this one."""
        return Table(f"{self.place}: {key}", self.take(key, dict, "a table"))

    def tables(self, key: str, named_by: str, place: str) -> "list[Table]":
        """Return an array of tables, each placed by its own name where it has one and by its number else."""
        found = self.take(key, list, "an array of tables", default=[])
        placed = []
        for number, values in enumerate(found, 1):
            if not isinstance(values, dict):
                raise self.fault(key, "expected an array of tables")
            name = values.get(named_by)
            placed.append(Table(f"{place} {name if isinstance(name, str) and name else f'number {number}'}", values))
        return placed

    def end(self) -> None:
        """Raise ValueError if there is a key that nobody asked for."""
        if self._left:
            raise self.fault(min(self._left), "unknown key")
