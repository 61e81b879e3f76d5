"""One A query and its reply, in bytes: the hot path of every look-up.

Floor 2: standard library only. Reads the shapes that lists and caching resolvers send all day, and hands
everything else over: dnspython reads what is odd, and is the judge of this module in its tests. With eight lists
a message costs some 100 us of CPU a query this way, against 430 us with dnspython's messages on a shared
asyncio socket; that is the whole reason for not using dnspython here.
"""

import struct
from dataclasses import dataclass

from dnsbl_policy.lists import Client, reversed_labels

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)

_HEADER = struct.Struct("!HHHHHH")
_RECORD = struct.Struct("!HHIH")
_SOA_NUMBERS = struct.Struct("!IIIII")
_RECURSION_DESIRED = 0x0100
_A_IN = b"\x00\x01\x00\x01"
_A, _SOA, _OPT, _TSIG, _IN = 1, 6, 41, 250, 1
_QUESTION_POINTER = b"\xc0\x0c"
_WITHOUT_QUESTION = frozenset((FORMERR, SERVFAIL, NOTIMP, REFUSED))
"""Failures that servers may report without repeating a question that they did not understand or like."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a nameserver answered. `ttl` is that of the addresses, or the negative one (RFC 2308), in seconds.

    It is None where a negative reply has no SOA to take it from.
    """

    rcode: int
    codes: tuple[int, ...]
    ttl: int | None


class NotOurs(Exception):
    """The packet answers another question, or none: as if it had never come."""


class HandOver(Exception):
    """The packet is ours and has a shape this module does not read, or is cut short."""

    def __init__(self, *, truncated: bool = False) -> None:
        super().__init__("truncated" if truncated else "odd")
        self.truncated = truncated


def client_labels(client: Client) -> bytes:
    """Return the labels that stand before every zone in questions about this client."""
    return _labels(reversed_labels(client))


def zone_tail(zone: str) -> bytes:
    """Return what stands behind the client's labels in every question to this zone: the template of a list."""
    return _labels(zone) + b"\0" + _A_IN


def query(identifier: int, labels: bytes, tail: bytes) -> bytes:
    """Put a query together (RFC 1035, section 4.1); no EDNS, for replies of lists are small and some servers old."""
    return _HEADER.pack(identifier, _RECURSION_DESIRED, 1, 0, 0, 0) + labels + tail


def read(packet: bytes, asked: bytes) -> Reply:
    """Read the reply to a query. Raises `NotOurs` and `HandOver`."""
    if len(packet) < 12 or packet[:2] != asked[:2]:
        raise NotOurs
    _, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(packet)
    if flags & 0xF800 != 0x8000:  # a response, to a standard query
        raise NotOurs
    rcode = flags & 0xF
    position = len(asked)
    if questions == 1:
        if packet[12:position].lower() != asked[12:].lower():
            raise NotOurs
    elif questions or rcode not in _WITHOUT_QUESTION:
        raise NotOurs
    if rcode not in (NOERROR, NXDOMAIN):
        if additionals:
            raise HandOver  # an OPT record may make another return code of it
        return Reply(rcode, (), None)
    if flags & 0x0200:
        raise HandOver(truncated=True)
    try:
        codes, ttl, position = _addresses(packet, position, answers, asked)
        if codes and rcode == NXDOMAIN:
            raise HandOver
        negative, position = _negative_ttl(packet, position, authorities)
        if authorities and negative is None and not codes:
            raise HandOver  # a referral, most likely: the list has not spoken
        position = _skip(packet, position, additionals)
    except (struct.error, IndexError):
        raise HandOver from None
    if position != len(packet):
        raise HandOver
    return Reply(rcode, codes, ttl if codes else negative)


def _addresses(packet: bytes, position: int, count: int, asked: bytes) -> tuple[tuple[int, ...], int, int]:
    codes: list[int] = []
    life = 0x7FFFFFFF
    name = asked[12:-4]
    for _ in range(count):
        if packet[position : position + 2] == _QUESTION_POINTER:
            position += 2
        elif packet[position : position + len(name)].lower() == name.lower():
            position += len(name)
        else:
            raise HandOver  # an alias, most likely
        kind, family, ttl, length = _RECORD.unpack_from(packet, position)
        position += 10
        if kind != _A or family != _IN or length != 4 or ttl > 0x7FFFFFFF:
            raise HandOver
        codes.append(int.from_bytes(packet[position : position + 4], "big"))
        position += 4
        life = min(life, ttl)
    return tuple(codes), life, position


def _negative_ttl(packet: bytes, position: int, count: int) -> tuple[int | None, int]:
    negative: int | None = None
    for _ in range(count):
        owner = position
        position = _skip_name(packet, position)
        kind, family, ttl, length = _RECORD.unpack_from(packet, position)
        position += 10
        end = position + length
        if kind == _SOA:
            if negative is not None or family != _IN or ttl > 0x7FFFFFFF or not _is_parent(packet, owner):
                raise HandOver
            numbers = _skip_name(packet, _skip_name(packet, position))
            if numbers + 20 != end:
                raise HandOver
            negative = min(ttl, _SOA_NUMBERS.unpack_from(packet, numbers)[4])
        position = end
    return negative, position


def _is_parent(packet: bytes, owner: int) -> bool:
    """Tell whether a name is written as a pointer to a label of the question: the name asked, or one above it."""
    if packet[owner] < 0xC0:
        return False
    target = (packet[owner] & 0x3F) << 8 | packet[owner + 1]
    label = 12
    while label < target and packet[label]:
        label += 1 + packet[label]
    return label == target


def _skip(packet: bytes, position: int, count: int) -> int:
    for _ in range(count):
        position = _skip_name(packet, position)
        kind, _, _, length = _RECORD.unpack_from(packet, position)
        if kind in (_OPT, _TSIG):
            raise HandOver  # an extended return code, or a signature that nobody asked for
        position += 10 + length
    return position


def _skip_name(packet: bytes, position: int) -> int:
    while length := packet[position]:
        if length >= 0xC0:
            return position + 2
        if length > 63:
            raise HandOver
        position += 1 + length
    return position + 1


def _labels(name: str) -> bytes:
    return b"".join(bytes((len(label),)) + label for label in name.encode("ascii").split(b"."))
