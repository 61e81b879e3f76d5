"""Reads the milter's log as strictly as a program that collects logs would."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

EVENT = re.compile(r"[a-z,-]+(?: [a-zA-Z,-]+)*(?= |$)")
# A value is bare, or a string as JSON writes it in ASCII without control characters.
FIELD = re.compile(r' ([a-z_]+)=(?:("(?:[ !#-\[\]-~]|\\(?:["\\/bfnrt]|u[0-9a-f]{4}))*")|([!#-<>-\[\]-~]*))(?= |$)')


def read_event(line: str) -> dict[str, object]:
    """Return the fields of one line, and its event under "event"; raise ValueError for a line that is broken.

    In logfmt every value is text; in JSON it has its type.
    """
    if line.startswith("{"):
        return _read_json(line)
    found = EVENT.match(line)
    if not found:
        raise ValueError(f"a line without an event: {line!r}")
    fields: dict[str, object] = {"event": found.group()}
    at = found.end()
    while at < len(line):
        field = FIELD.match(line, at)
        if not field or field.group(1) in fields:
            raise ValueError(f"no field, or one for the second time, at character {at}: {line!r}")
        name, quoted, bare = field.groups()
        fields[name] = json.loads(quoted) if quoted is not None else bare
        at = field.end()
    return fields


def _read_json(line: str) -> dict[str, object]:
    if not (line.isascii() and line.isprintable()):
        raise ValueError(f"a line with other than printable ASCII: {line!r}")
    document: dict[str, object] = json.loads(line, object_pairs_hook=_without_duplicates)
    if not document.get("event"):
        raise ValueError(f"a line without an event: {line!r}")
    return document


def _without_duplicates(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError(f"a name stands twice in {pairs}")
    return dict(pairs)
