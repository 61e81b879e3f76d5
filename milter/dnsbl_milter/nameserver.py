"""A nameserver: its address, a socket to it, and all the DNS that is not hot.

Floor 2: the home of dnspython, which reads what `wire` hands over and asks over TCP what came truncated.
"""

import socket
import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rdataclass
import dns.rdatatype
import dns.resolver
import dns.rrset
from dns.rdtypes.ANY.RRSIG import RRSIG
from dns.rdtypes.ANY.TXT import TXT

from dnsbl_milter.wire import NOERROR, NXDOMAIN, REFUSED, Reply

_SO_TIMESTAMPNS = 35
"""Linux's option for the kernel's moment of receipt; Python has no name for it."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """How a nameserver answered: not what a list says, but what the nameserver itself is like."""

    rcode: int
    answered: bool
    authentic: bool
    """It has validated the answer."""
    signed: list[tuple[int, int]]
    """Since when and until when the signatures are good, in seconds since the epoch."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Nameserver:
    """A nameserver's address and port."""

    address: IPv4Address | IPv6Address
    port: int = 53

    def __str__(self) -> str:
        return str(self.address) if self.port == 53 else f"{self.address}#{self.port}"

    def connect(self) -> socket.socket:
        """Open a non-blocking UDP socket to it, from a random port of its own. Raises OSError."""
        family = socket.AF_INET if self.address.version == 4 else socket.AF_INET6
        udp = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            udp.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            udp.connect((str(self.address), self.port))
        except OSError:
            udp.close()
            raise
        return udp

    def ask_over_tcp(self, query: bytes, seconds: float) -> Reply | None:
        """Ask a truncated reply's question again over TCP; None if nothing readable comes within `seconds`."""
        try:
            asked = dns.message.from_wire(query)
            reply = dns.query.tcp(asked, str(self.address), timeout=seconds, port=self.port)
        except (dns.exception.DNSException, OSError, EOFError):
            return None
        return _reading(reply)

    def ask(self, name: str, kind: str, seconds: float, *, tcp: bool = False, unchecked: bool = False) -> "Spoken | None":
        """Ask one question the long way, with DNSSEC's flags; None if nothing readable comes within `seconds`.

        `unchecked` asks the nameserver not to validate.
        """
        asked = dns.message.make_query(name, kind, want_dnssec=True, flags=dns.flags.RD | dns.flags.AD)
        if unchecked:
            asked.flags |= dns.flags.CD
        begin = time.monotonic()
        try:
            if tcp:
                reply = dns.query.tcp(asked, str(self.address), timeout=seconds, port=self.port)
            else:
                reply, _ = dns.query.udp_with_fallback(asked, str(self.address), timeout=seconds, port=self.port)
        except (dns.exception.DNSException, OSError, EOFError):
            return None
        signatures = [record for records in reply.answer for record in records if isinstance(record, RRSIG)]
        return Spoken(
            rcode=int(reply.rcode()),
            answered=bool(reply.answer),
            authentic=bool(reply.flags & dns.flags.AD),
            signed=[(record.inception, record.expiration) for record in signatures],
            seconds=time.monotonic() - begin,
        )

    def ask_text(self, name: str, seconds: float) -> str:
        """Return the text that a list holds under an absolute name, the reason of a listing; empty if there is none."""
        try:
            asked = dns.message.make_query(name, dns.rdatatype.TXT)
            reply, _ = dns.query.udp_with_fallback(asked, str(self.address), timeout=seconds, port=self.port)
            found = reply.resolve_chaining().answer if isinstance(reply, dns.message.QueryMessage) else None
        except (dns.exception.DNSException, OSError, EOFError):
            return ""
        texts = [b"".join(record.strings) for record in found or () if isinstance(record, TXT)]
        return " ".join(text.decode("utf-8", "replace") for text in sorted(texts))


def keep_stamping() -> socket.socket:
    """Return a socket to hold open for as long as moments of receipt matter.

    The kernel begins to stamp packets some milliseconds after the first socket wants it and ends with the last; a reply
    that comes sooner gets the moment at which it is read (measured on an idle host: 10 of 60).
    """
    keeper = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    keeper.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    return keeper


def parse_nameserver(text: str) -> Nameserver:
    """Read `address` or `address#port`. Raises ValueError."""
    address, separator, port = text.partition("#")
    try:
        parsed = ip_address(address)
    except ValueError:
        raise ValueError("expected an address, or address#port, such as 127.0.0.1 or ::1#5353") from None
    if separator and not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536):
        raise ValueError("expected a port from 1 to 65535 after '#'")
    return Nameserver(parsed, int(port) if separator else 53)


def system_nameservers() -> tuple[Nameserver, ...]:
    """Return the nameservers of the system's resolv.conf. Raises ValueError if it names none."""
    try:
        named = dns.resolver.Resolver().nameservers
    except dns.exception.DNSException:
        raise ValueError("/etc/resolv.conf names no nameserver; name one here") from None
    return tuple(parse_nameserver(str(name)) for name in named)


def read_carefully(packet: bytes, query: bytes) -> Reply | None:
    """Read a reply of unusual shape: aliases, several SOA records, options; None if it cannot be read."""
    try:
        reply = dns.message.from_wire(packet)
        asked = dns.message.from_wire(query)
    except dns.exception.DNSException:
        return None
    return _reading(reply) if asked.is_response(reply) else None


def _reading(reply: dns.message.Message) -> Reply | None:
    rcode = int(reply.rcode())
    if rcode not in (NOERROR, NXDOMAIN):
        return Reply(rcode, (), None)
    if not isinstance(reply, dns.message.QueryMessage):
        return None
    try:
        chain = reply.resolve_chaining()
    except dns.exception.DNSException:
        return None  # no question repeated, too many aliases, an address beside an NXDOMAIN
    if chain.answer is not None:
        return Reply(rcode, tuple(int(IPv4Address(record.to_text())) for record in chain.answer), chain.minimum_ttl)
    if any(_denies(records, chain.canonical_name) for records in reply.authority):
        return Reply(rcode, (), chain.minimum_ttl)
    if rcode == NOERROR and (chain.cnames or any(records.rdtype == dns.rdatatype.NS for records in reply.authority)):
        # It points elsewhere instead of asking there (RFC 2308, section 2.2): "not listed" was not said by anyone.
        return Reply(REFUSED, (), None)
    return Reply(rcode, (), None)


def _denies(records: dns.rrset.RRset, name: dns.name.Name) -> bool:
    """Tell whether this is the SOA of a zone that the name lies in, whose word "there is none" lasts (RFC 2308)."""
    of_our_kind = records.rdtype == dns.rdatatype.SOA and records.rdclass == dns.rdataclass.IN
    return of_our_kind and name.is_subdomain(records.name)
