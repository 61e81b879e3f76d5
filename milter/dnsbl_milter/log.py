"""One line an event: logfmt or JSON, whatever the network put into the values.

Floor 2: standard library only.
"""

import json
import logging
import os
import re
import select
import sys
from collections.abc import Mapping
from typing import Any, Literal, TextIO

_PLAIN = re.compile(r"[!#-<>-\[\]-~]*", re.ASCII)
"""Printable ASCII without space, quote, equals sign and backslash: what needs no quotes in logfmt."""

_SURROGATE = re.compile("[\ud800-\udfff]")

_PRIORITIES = {logging.DEBUG: "<7>", logging.INFO: "<6>", logging.WARNING: "<4>", logging.ERROR: "<3>"}
"""What a line begins with so that the journal knows its level (sd-daemon(3)); the journal takes it off again."""

PATIENCE_SECONDS = 1.0
"""How long a line waits for a reader that does not read."""

_logger = logging.getLogger("dnsbl_milter")


def start(form: Literal["logfmt", "json"], level: str) -> None:
    """Send events to stderr from now on, in this form and from this level up."""
    handler = _Lossy(sys.stderr)
    handler.setFormatter(_Lines(form, _PRIORITIES if _is_journal(sys.stderr) else {}))
    _logger.handlers[:] = [handler]
    _logger.setLevel(level.upper())
    _logger.propagate = False


def info(event: str, **fields: object) -> None:
    """Log an event of ordinary work."""
    _log(logging.INFO, event, fields)


def warning(event: str, **fields: object) -> None:
    """Log an event that an administrator should look into."""
    _log(logging.WARNING, event, fields)


def error(event: str, *, exc_info: bool = False, **fields: object) -> None:
    """Log a failure of ours; with `exc_info`, the traceback of the exception being handled as a field."""
    _log(logging.ERROR, event, fields, exc_info=exc_info)


def debug(event: str, **fields: object) -> None:
    """Log what an administrator wants to see only while looking for something."""
    _log(logging.DEBUG, event, fields)


def _log(level: int, event: str, fields: dict[str, object], *, exc_info: bool = False) -> None:
    if _logger.isEnabledFor(level):
        _logger.log(level, event, extra={"fields": fields}, exc_info=exc_info)


def _is_journal(stream: TextIO) -> bool:
    """Tell whether a stream leads to the journal. Source: systemd.exec(5), JOURNAL_STREAM."""
    try:
        status = os.fstat(stream.fileno())
    except (AttributeError, OSError, ValueError):  # no file at all
        return False
    # That the variable is set says nothing: whoever was started by a service and writes to a file has it too.
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class _Lossy(logging.StreamHandler[TextIO]):
    """Loses lines while nobody reads them: a pipe that is full must not stop the mail."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        # Only the first line waits; the ones behind it would add up.
        if not self._writable(0 if self._lost else PATIENCE_SECONDS):
            self._lost += 1
            return
        if self._lost:
            lost, self._lost = self._lost, 0
            head = {"name": record.name, "levelno": logging.WARNING, "levelname": "WARNING", "msg": "log lines lost"}
            super().emit(logging.makeLogRecord(head | {"fields": {"lines": lost}}))
        super().emit(record)

    def _writable(self, seconds: float) -> bool:
        try:
            descriptor = self.stream.fileno()
        except (AttributeError, OSError, ValueError):  # nothing that could be full
            return True
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        return bool(poll.poll(seconds * 1000))


class _Lines(logging.Formatter):
    """Writes a record as one line."""

    def __init__(self, form: Literal["logfmt", "json"], priorities: Mapping[int, str]) -> None:
        super().__init__()
        self._json = form == "json"
        self._priorities = priorities

    def format(self, record: logging.LogRecord) -> str:
        priority = self._priorities.get(record.levelno, "")
        fields: dict[str, Any] = dict(getattr(record, "fields", {}))
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        if self._json:
            head = {"time": round(record.created, 3), "level": record.levelname.lower(), "event": record.getMessage()}
            return priority + json.dumps(head | {name: _plain(value) for name, value in fields.items()})
        # The event comes first, for people; its level only where it is not ordinary.
        level = "" if record.levelno == logging.INFO else f" level={record.levelname.lower()}"
        return priority + record.getMessage() + level + "".join(f" {name}={quoted(value)}" for name, value in fields.items())


def quoted(value: object) -> str:
    """Write a value for logfmt: bare where it can be, else in quotes, control and non-ASCII characters escaped."""
    text = _text(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(_plain(text))


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _plain(value: object) -> object:
    # A lone surrogate stands for a byte that was no UTF-8; JSON's \udcxx would be refused by strict readers.
    if isinstance(value, str):
        return _SURROGATE.sub(lambda found: f"\\x{ord(found.group()) & 0xFF:02x}", value)
    # Exactly these: an enumeration of integers is one of its names to whoever reads the log.
    return value if type(value) in (int, float, bool, list, dict) or value is None else str(value)
