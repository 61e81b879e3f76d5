"""A DNS question over UDP, asked once: enough to see what a name server says."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import struct
from dataclasses import dataclass

TYPES = {"A": 1, "SOA": 6, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28}
RCODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}
HEADER = struct.Struct("!6H")
RECORD = struct.Struct("!HHIH")  # type, class, TTL, length of the data


@dataclass(frozen=True)
class Answer:
    """What a name server said."""

    rcode: str
    values: tuple[str, ...] = ()  # of the type that was asked for, sorted
    ttl: int | None = None  # seconds; the lowest of the values


def reversed_name(address: str, zone: str) -> str:
    """Return the name under which a list holds an address (RFC 5782, 2.1 and 2.4)."""
    pointer = ipaddress.ip_address(address).reverse_pointer
    return f"{pointer.removesuffix('.in-addr.arpa').removesuffix('.ip6.arpa')}.{zone}"


def ask(name: str, kind: str = "A", server: tuple[str, int] = ("127.0.0.1", 53), timeout: float = 1.0) -> Answer:
    """Ask one name server once; raise TimeoutError when it stays silent so many seconds."""
    asked = secrets.randbits(16)
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split("."))
    question = labels + b"\0" + struct.pack("!HH", TYPES[kind], 1)
    with socket.socket(socket.AF_INET6 if ":" in server[0] else socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.settimeout(timeout)
        channel.connect(server)
        channel.send(HEADER.pack(asked, 0x0100, 1, 0, 0, 0) + question)  # recursion desired
        while True:
            reply = channel.recv(4096)
            if len(reply) >= HEADER.size and HEADER.unpack_from(reply)[0] == asked:
                return _read(reply, TYPES[kind])


def _read(reply: bytes, kind: int) -> Answer:
    _, flags, questions, answers, _, _ = HEADER.unpack_from(reply)
    at = HEADER.size
    for _ in range(questions):
        at = _name(reply, at)[1] + 4
    found: list[tuple[str, int]] = []
    for _ in range(answers):
        at = _name(reply, at)[1]
        record, _, ttl, length = RECORD.unpack_from(reply, at)
        at += RECORD.size
        if record == kind:
            found.append((_value(reply, at, length, kind), ttl))
        at += length
    values = tuple(sorted(value for value, _ in found))
    rcode = RCODES.get(flags & 15, str(flags & 15))
    return Answer(rcode, values, min((ttl for _, ttl in found), default=None))


def _value(reply: bytes, at: int, length: int, kind: int) -> str:
    data = reply[at : at + length]
    if kind in (TYPES["A"], TYPES["AAAA"]):
        return str(ipaddress.ip_address(data))
    if kind == TYPES["PTR"]:
        return _name(reply, at)[0]
    if kind == TYPES["MX"]:
        return f"{int.from_bytes(data[:2], 'big')} {_name(reply, at + 2)[0]}"
    if kind == TYPES["SOA"]:
        origin, at = _name(reply, at)
        person, at = _name(reply, at)
        return " ".join([origin, person, *map(str, struct.unpack_from("!5I", reply, at))])
    text = b""
    while data:
        text, data = text + data[1 : 1 + data[0]], data[1 + data[0] :]
    return text.decode("latin-1")


def _name(reply: bytes, at: int) -> tuple[str, int]:
    """Return the name at an offset, and the offset behind it (RFC 1035, 4.1.4)."""
    labels: list[str] = []
    behind = 0
    while size := reply[at]:
        if size >= 0xC0:
            behind = behind or at + 2
            at = int.from_bytes(reply[at : at + 2], "big") & 0x3FFF
        else:
            labels.append(reply[at + 1 : at + 1 + size].decode("latin-1"))
            at += 1 + size
    return ".".join(labels), behind or at + 1
