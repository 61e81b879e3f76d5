"""One line an event: logfmt or JSON, whatever the network put into the values.

Floor 2: standard library only.
"""

import contextlib
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
    # Where a record came from, and from which thread: nothing that a line of ours tells, and found out only to be thrown
    # away. Source: Python's Logging HOWTO, "Optimization".
    logging._srcfile = None  # noqa: SLF001  as the HOWTO has it
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
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


def is_detailed() -> bool:
    """Tell whether anything is made of `debug`, for whoever would say much at once."""
    return _logger.isEnabledFor(logging.DEBUG)


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
        self._descriptor: int | None = None
        """None where there is nothing that could be full."""
        with contextlib.suppress(AttributeError, OSError, ValueError):
            self._descriptor = stream.fileno()
            self._poll = select.poll()
            self._poll.register(self._descriptor, select.POLLOUT)

    def emit(self, record: logging.LogRecord) -> None:
        if self._descriptor is None:
            super().emit(record)
            return
        # Only the first line waits; the ones behind it would add up.
        if not self._poll.poll(0 if self._lost else PATIENCE_SECONDS * 1000):
            self._lost += 1
            return
        try:
            if self._lost:
                lost, self._lost = self._lost, 0
                head = {"name": record.name, "levelno": logging.WARNING, "levelname": "WARNING", "msg": "log lines lost"}
                self._write(logging.makeLogRecord(head | {"fields": {"lines": lost}}))
            self._write(record)
        except Exception:  # noqa: BLE001  as every handler does: a reader that is gone must not stop the mail either
            self.handleError(record)

    def _write(self, record: logging.LogRecord) -> None:
        # At once, and not by way of the stream: whatever a buffer held would be lost with a process that is killed.
        os.write(self._descriptor or 0, f"{self.format(record)}\n".encode())


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
        return priority + record.getMessage() + level + _pairs(fields)


def _pairs(fields: Mapping[str, object]) -> str:
    """Write the fields of a line for logfmt.

    Nearly all values of nearly all lines are plain, and to see that of all of them at once takes half of the time that it
    takes for one after the other (5 us for a decision, against 10).
    """
    texts = [_text(value) for value in fields.values()]
    if _PLAIN.fullmatch("".join(texts)):
        return "".join([f" {name}={text}" for name, text in zip(fields, texts, strict=True)])
    return "".join([f" {name}={quoted(text)}" for name, text in zip(fields, texts, strict=True)])


def quoted(value: object) -> str:
    """Write a value for logfmt: bare where it can be, else in quotes, control and non-ASCII characters escaped."""
    text = _text(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(_plain(text))


def _text(value: object) -> str:
    if type(value) is str:
        return value
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
