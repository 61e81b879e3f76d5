"""One line an event: logfmt or JSON, whatever the network put into the values.

Floor 2: standard library only.
"""

import json
import logging
import re
import sys
from typing import Any, Literal

_PLAIN = re.compile(r"[!#-<>-\[\]-~]*", re.ASCII)
"""Printable ASCII without space, quote, equals sign and backslash: what needs no quotes in logfmt."""

_logger = logging.getLogger("dnsbl_milter")


def start(form: Literal["logfmt", "json"], level: str) -> None:
    """Send events to stderr from now on, in this form and from this level up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(form))
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
    """Log what only a developer wants to see."""
    _log(logging.DEBUG, event, fields)


def _log(level: int, event: str, fields: dict[str, object], *, exc_info: bool = False) -> None:
    if _logger.isEnabledFor(level):
        _logger.log(level, event, extra={"fields": fields}, exc_info=exc_info)


class _Lines(logging.Formatter):
    """Writes a record as one line."""

    def __init__(self, form: Literal["logfmt", "json"]) -> None:
        super().__init__()
        self._json = form == "json"

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = dict(getattr(record, "fields", {}))
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        if self._json:
            head = {"time": round(record.created, 3), "level": record.levelname.lower(), "event": record.getMessage()}
            return json.dumps(head | {name: _plain(value) for name, value in fields.items()})
        # The event comes first, for people; its level only where it is not ordinary.
        level = "" if record.levelno == logging.INFO else f" level={record.levelname.lower()}"
        return record.getMessage() + level + "".join(f" {name}={quoted(value)}" for name, value in fields.items())


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
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return value if isinstance(value, str | int | float | bool | list | dict) or value is None else str(value)
