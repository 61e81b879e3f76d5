"""What Sendmail's compiled configuration, its .cf, says about mail filters.

Floor 2: standard library only.
"""

import re
from dataclasses import dataclass

_FILTER = re.compile(r"X([^,\s]+)\s*,\s*(.*)")
_OPTION = re.compile(r"O\s+([A-Za-z.]+)\s*=\s*(.*)")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class Filter:
    """A mail filter, as its X line names it."""

    name: str
    socket: str
    flags: str = ""
    timeouts: str = ""

    def timeout(self, letter: str) -> int | None:
        """Return one of its time-outs in seconds, or None if it is left to Sendmail's default."""
        found = re.search(rf"(?:^|;)\s*{letter}:(\d+)([smh])", self.timeouts)
        return int(found[1]) * _SECONDS[found[2]] if found else None


@dataclass(frozen=True, slots=True)
class Compiled:
    """The filters that are defined, and the options, by name in lower case."""

    filters: tuple[Filter, ...]
    options: dict[str, str]

    @property
    def active(self) -> tuple[str, ...]:
        """Return the names of the filters that are in use."""
        return tuple(name.strip() for name in re.split("[,;]", self.options.get("inputmailfilters", "")) if name.strip())

    def macros(self, stage: str) -> tuple[str, ...]:
        """Return the macros that filters are sent at a stage, such as envfrom."""
        sent = self.options.get(f"milter.macros.{stage}", "")
        return tuple(name.strip() for name in sent.split(",") if name.strip())


def read_cf(text: str) -> Compiled:
    """Read a .cf; a line that begins with white space continues the one before."""
    filters: list[Filter] = []
    options: dict[str, str] = {}
    for line in re.sub(r"\n[ \t]+", " ", text).splitlines():
        if found := _FILTER.fullmatch(line):
            fields = {
                key.strip(): value.strip()
                for key, _, value in (field.partition("=") for field in re.split(r",\s*(?=[A-Z]=)", found[2]))
            }
            filters.append(Filter(found[1], fields.get("S", ""), fields.get("F", ""), fields.get("T", "")))
        elif found := _OPTION.fullmatch(line):
            options[found[1].lower()] = found[2].strip()
    return Compiled(tuple(filters), options)
