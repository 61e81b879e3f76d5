"""Whom Sendmail's access map and its relay-domains spare, in the terms of `[allow]`.

Floor 2: standard library only; pure text. Reads the source of the map, not what makemap makes of it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_network

from dnsbl_policy.allow import parse_host, parse_recipient

_OCTETS = re.compile(r"\d{1,3}(\.\d{1,3}){0,3}\.?", re.ASCII)
_GROUPS = re.compile(r"[0-9a-f]{1,4}(:[0-9a-f]{1,4}){0,7}:?", re.ASCII)
_LOCAL = re.compile(r"127(\..*)?|localhost(\..*)?|ipv6:(::1|0:0:0:0:0:0:0:1)", re.ASCII)
_ACCEPTED = ("ok", "relay")
_FRIEND = ("friend", "spamfriend")


@dataclass(frozen=True, slots=True)
class Entry:
    """A line that spared somebody, and what it becomes; nothing, and why, where it cannot be carried over."""

    line: int
    written: str
    networks: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()
    why: str = ""
    """What is different now; empty if nothing is."""

    @property
    def kept(self) -> tuple[str, ...]:
        """Return all that it becomes."""
        return self.networks + self.hosts + self.recipients


def read_access(text: str, *, friends: bool) -> Iterator[Entry]:
    """Yield the lines of an access map that spared a client or, if the .mc asks for `friends`, a recipient.

    All other lines go on doing in Sendmail what they did.
    """
    for number, line in enumerate(text.split("\n"), 1):
        key, *value = line.split(None, 1) if line.strip() and not line.startswith("#") else [""]
        verdict = "".join(value).strip().lower()
        tag, colon, subject = key.partition(":")
        if not colon or tag.lower() == "ipv6":
            tag, subject = "", key
        tag = tag.lower()
        if verdict in _ACCEPTED and tag in ("", "connect") and "@" not in subject:
            yield _client(number, " ".join(line.split()), subject)
        elif verdict in _FRIEND and tag in ("spam", "to"):
            yield _recipient(number, " ".join(line.split()), subject, friends=friends)
        elif verdict == "skip" and tag in ("", "connect") and "@" not in subject:
            yield Entry(number, " ".join(line.split()), why="an exception to a wider entry has no counterpart; narrow that one")


def read_relay_domains(text: str) -> Iterator[Entry]:
    """Yield the words of relay-domains."""
    for number, line in enumerate(text.split("\n"), 1):
        for word in line.partition("#")[0].split():
            yield _client(number, word, word)


def _client(line: int, written: str, subject: str) -> Entry:
    subject = subject.lower()
    if _LOCAL.fullmatch(subject):
        # Networks of 127/8 would hide the test entry 127.0.0.2 from `explain` and from a trial by SMTP.
        return Entry(line, written, why="127.0.0.1 and ::1 are never judged, and the rest of 127/8 is for test entries")
    try:
        if subject.startswith("ipv6:"):
            return Entry(line, written, networks=(_network6(subject[5:]),))
        if "/" in subject:
            network = str(ip_network(subject, strict=False))
            return Entry(line, written, networks=(network,), why="works now, which it did with cidrexpand only")
        if _OCTETS.fullmatch(subject):
            return Entry(line, written, networks=(_network4(subject.rstrip(".")),))
        host = parse_host(subject)
    except ValueError as fault:
        return Entry(line, written, why=f"no address, network or host: {fault}")
    # Sendmail looks a client up under its own name and then under every domain above it.
    return Entry(line, written, hosts=(host,) if host.startswith(".") else (host, f".{host}"))


def _recipient(line: int, written: str, subject: str, *, friends: bool) -> Entry:
    if not friends:
        return Entry(line, written, why="the .mc has no FEATURE(`delay_checks', `friend'), so it spared nobody")
    whole = "" if "@" in subject else "@"
    try:
        recipient = parse_recipient(whole + subject)
    except ValueError as fault:
        return Entry(line, written, why=f"no recipient: {fault}")
    if not recipient.isascii() or not recipient.isprintable():
        return Entry(line, written, why="no recipient: has characters outside printable ASCII")
    why = "the domain itself only, no longer those below it" if whole else ""
    return Entry(line, written, recipients=(recipient,), why=why)


def _network4(prefix: str) -> str:
    octets = prefix.split(".")
    whole = ".".join([*octets, *["0"] * (4 - len(octets))])
    return str(ip_network(f"{whole}/{8 * len(octets)}")).removesuffix("/32")


def _network6(prefix: str) -> str:
    if not _GROUPS.fullmatch(prefix):
        return str(IPv6Address(prefix))
    groups = prefix.rstrip(":").split(":")
    tail = "" if len(groups) == 8 else "::"
    return str(ip_network(f"{':'.join(groups)}{tail}/{16 * len(groups)}")).removesuffix("/128")
