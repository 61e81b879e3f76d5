"""Single values of the configuration file that have no reader of their own: what each must look like.

Floor 2: standard library only. Each check raises ValueError that says what would be right.
"""

import re

from dnsbl_milter.listen import parse_web_address
from dnsbl_policy.allow import parse_network
from dnsbl_policy.codes import parse_pattern
from dnsbl_policy.lists import zone_fault

KEY = "{key}"
"""Stands in a zone for what is in a file."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+/-]{0,63}", re.ASCII)
_MEMORY = re.compile(r"sqlite:///.+|(rediss?|valkeys?)://.+", re.ASCII)


def name(value: str) -> None:
    """Check a name of a list, a group or a label."""
    if not _NAME.fullmatch(value):
        raise ValueError("expected at most 64 letters, digits and . _ + / - (it stands in logs, headers and metrics)")


def zone(value: str) -> None:
    """Check a zone, with or without {key}."""
    fault = zone_fault(value.replace(KEY, "key").removesuffix("."))
    if fault:
        raise ValueError(fault)


def mode(value: str) -> None:
    """Check permissions in octal."""
    if not re.fullmatch(r"0?[0-7]{3}", value):
        raise ValueError('expected permissions in octal, such as "0660"')


def listen(value: str) -> None:
    """Check an address for metrics, or nothing."""
    if value:
        parse_web_address(value)


def memory(value: str) -> None:
    """Check the address of a memory, or nothing."""
    if value and not _MEMORY.fullmatch(value):
        raise ValueError('expected sqlite:///path, redis://host:port/number, rediss://..., or "" for none')


def code(value: str) -> None:
    """Check a return code, a pattern of them, or "none"."""
    if value != "none" and not parse_pattern(value):
        raise ValueError('expected a return code such as 127.0.10.0, or "none"')


def space(value: str) -> None:
    """Check a network, or "none"."""
    if value != "none":
        parse_network(value)


def url(value: str) -> None:
    """Check an address for people."""
    if not re.fullmatch(r"https?://[!-~]{1,300}", value):
        raise ValueError("expected an http or https address of printable ASCII, {client} standing for the client")
