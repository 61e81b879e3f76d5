"""A name server of blackhole lists, in a thread, with every fault that a test may want.

    with NameServer({"bl.example": {"192.0.2.7": listed("127.0.0.2")}}) as server:
        ...                                       # server.text is what goes under [dns] nameservers
        server.zones["slow.example"] = listed("127.0.0.2", delay=0.3)     # whoever is asked about
        server.zones["bl.example"]["192.0.2.8"] = SILENCE                 # while it runs
        server.handler = lambda question: failure(SERVFAIL) if question.kind == "A" else None
        server.wait_for(8)
        assert [question.zone for question in server.questions] == ...

What is done with a question is a `Reply`, several of them, or none (`SILENCE`). The handler says it first; where it
says None, the zone does: a behaviour for all clients, or a table by client address. Who is not in the table
gets NXDOMAIN, and what is in no zone is REFUSED. All of it may be changed while the server runs.

The sockets are open before the thread starts, so nothing has to wait for it. Nothing sleeps in the thread: a reply
with a delay does not hold up the others.
"""

import heapq
import itertools
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Literal, Self

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(1, 6)
ADDRESS = "127.0.0.1"


@dataclass(frozen=True)
class Question:
    """A question as it arrived."""

    name: str
    """In lower case, without the final dot."""
    kind: str
    identifier: int
    source: tuple[str, int]
    arrived: float
    """By time.monotonic()."""
    over_tcp: bool
    packet: bytes
    zone: str = ""
    """The zone of the server's that it lies in."""
    client: str = ""
    """The client address that it is about, if its name holds one."""


@dataclass(frozen=True)
class Reply:
    """A reply, and what is wrong with it."""

    codes: tuple[str, ...] = ()
    rcode: int = 0
    ttl: int = 300
    negative_ttl: int | None = 60
    """The time to live, by its SOA, of a reply without codes; None leaves the SOA out."""
    text: str = ""
    """The reason, for who asks for TXT."""
    alias: str = ""
    """The name that the codes stand under; the name asked is an alias of it."""
    delay: float = 0.0
    truncated: bool = False
    """Over UDP empty and marked as cut short; over TCP whole."""
    over_tcp: Literal["answer", "silence", "hang up"] = "answer"
    wrong_identifier: bool = False
    wrong_question: bool = False
    wrong_source: bool = False
    mixed_case: bool = False
    without_question: bool = False
    junk: bytes = b""
    """Appended, behind the end of the message."""
    raw: bytes | None = None
    """Sent instead of all this; its first two octets are replaced by the question's identifier."""


Behaviour = Reply | Sequence[Reply]
Zone = Behaviour | MutableMapping[str, Behaviour]
Handler = Callable[[Question], Behaviour | None]

SILENCE: Behaviour = ()


def listed(*codes: str, **faults: Any) -> Reply:
    """Answer that the client is listed."""
    return replace(Reply(codes or ("127.0.0.2",)), **faults)


def clear(**faults: Any) -> Reply:
    """Answer that the client is not listed."""
    return replace(Reply(rcode=NXDOMAIN), **faults)


def failure(rcode: int, **faults: Any) -> Reply:
    """Report a failure."""
    return replace(Reply(rcode=rcode, negative_ttl=None), **faults)


class NameServer:
    """The server; a context manager. Its attributes may be read and changed from any thread."""

    def __init__(
        self,
        zones: Mapping[str, Zone] | None = None,
        handler: Handler | None = None,
        *,
        address: str = ADDRESS,
        tcp: bool = True,
    ) -> None:
        self.zones: dict[str, Zone] = dict(zones or {})
        self.handler = handler
        self.address = address
        self.faults: list[BaseException] = []
        """What went wrong in the server itself; raised when it is left."""
        self._questions: list[Question] = []
        self._heard = threading.Condition()
        self._udp, self._tcp = _open(address)
        self._listens = tcp
        if tcp:
            self._tcp.listen(64)
        self._other = socket.socket(self._udp.family, socket.SOCK_DGRAM)
        self._other.bind((address, 0))
        self.port: int = self._udp.getsockname()[1]
        self._wake, self._woken = socket.socketpair()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self._talks: dict[int, socket.socket] = {}
        self._thread = threading.Thread(target=self._serve, name="name server", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self.faults:
            raise self.faults[0]

    @property
    def text(self) -> str:
        """Return the server as the configuration writes it."""
        return f"{self.address}#{self.port}"

    @property
    def questions(self) -> tuple[Question, ...]:
        """Return all questions so far, in the order of their arrival."""
        with self._heard:
            return tuple(self._questions)

    def forget(self) -> None:
        """Forget the questions so far."""
        with self._heard:
            self._questions.clear()

    def wait_for(self, count: int, seconds: float = 5.0) -> tuple[Question, ...]:
        """Wait until that many questions have arrived, and return them."""
        with self._heard:
            if not self._heard.wait_for(lambda: len(self._questions) >= count, seconds):
                raise TimeoutError(f"{len(self._questions)} questions of {count} after {seconds} seconds")
            return tuple(self._questions)

    def stop(self) -> None:
        """Stop serving: from now on nobody listens."""
        if self._thread.is_alive():
            self._wake.send(b"\n")
            self._thread.join()
        for each in (self._udp, self._other, self._wake, self._woken, self._tcp, *self._talks.values()):
            each.close()
        self._talks.clear()

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._udp, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        if self._listens:
            poll.register(self._tcp, select.POLLIN)
        while True:
            patience = None if not self._due else max(self._due[0][0] - time.monotonic(), 0.0) * 1000
            ready = {descriptor for descriptor, _ in poll.poll(patience)}
            if self._woken.fileno() in ready:
                return
            try:
                if self._udp.fileno() in ready:
                    self._hear_datagram()
                if self._tcp.fileno() in ready:
                    talk = self._tcp.accept()[0]
                    self._talks[talk.fileno()] = talk
                    poll.register(talk, select.POLLIN)
                for descriptor in ready & self._talks.keys():
                    if not self._hear_stream(self._talks[descriptor]):
                        poll.unregister(descriptor)
                        self._talks.pop(descriptor).close()
                while self._due and self._due[0][0] <= time.monotonic():
                    heapq.heappop(self._due)[2]()
            except BaseException as fault:  # noqa: BLE001  raised where the server is left
                self.faults.append(fault)

    def _hear_datagram(self) -> None:
        packet, source = self._udp.recvfrom(4096)
        question = self._note(packet, source, over_tcp=False)
        for reply in self._replies(question):
            out = self._other if reply.wrong_source else self._udp
            self._later(reply.delay, out.sendto, _packet(question, reply), source)

    def _hear_stream(self, talk: socket.socket) -> bool:
        """Answer the next question of a connection; return whether it goes on."""
        talk.settimeout(1.0)
        try:
            head = talk.recv(2, socket.MSG_WAITALL)
            packet = talk.recv(struct.unpack("!H", head)[0], socket.MSG_WAITALL) if len(head) == 2 else b""
        except OSError:
            return False
        if not packet:
            return False
        question = self._note(packet, talk.getpeername(), over_tcp=True)
        for reply in self._replies(question):
            if reply.over_tcp == "hang up":
                return False
            if reply.over_tcp == "answer":
                answer = _packet(question, reply)
                self._later(reply.delay, talk.sendall, struct.pack("!H", len(answer)) + answer)
        return True

    def _later(self, delay: float, send: Callable[..., object], *what: object) -> None:
        def try_to_send() -> None:
            with suppress(OSError):  # whoever asked has gone
                send(*what)

        if delay:
            heapq.heappush(self._due, (time.monotonic() + delay, next(self._number), try_to_send))
        else:
            try_to_send()

    def _note(self, packet: bytes, source: tuple[str, int], *, over_tcp: bool) -> Question:
        arrived = time.monotonic()
        asked = dns.message.from_wire(packet)
        name = asked.question[0].name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(asked.question[0].rdtype)
        zone = max((each for each in tuple(self.zones) if f".{name}".endswith(f".{each.lower()}")), key=len, default="")
        client = _client(name.split("."))
        question = Question(name, kind, asked.id, source[:2], arrived, over_tcp, packet, zone, client)
        with self._heard:
            self._questions.append(question)
            self._heard.notify_all()
        return question

    def _replies(self, question: Question) -> Sequence[Reply]:
        handler = self.handler
        behaviour = handler(question) if handler is not None else None
        if behaviour is None:
            zone = self.zones.get(question.zone, failure(REFUSED))
            behaviour = zone.get(question.client, clear()) if isinstance(zone, Mapping) else zone
        return (behaviour,) if isinstance(behaviour, Reply) else behaviour


@contextmanager
def nobody(address: str = ADDRESS) -> Iterator[str]:
    """Hold a port where nobody listens, so that the kernel refuses what is sent there; yield it as configured."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind((address, 0))
        # A socket that is connected elsewhere takes nothing from others, and keeps the port from them.
        holder.connect((address, 9))
        yield f"{address}#{holder.getsockname()[1]}"


def _open(address: str) -> tuple[socket.socket, socket.socket]:
    """Open a UDP and a TCP socket on one port; while the latter does not listen, the kernel refuses for it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    while True:
        streams = socket.socket(family, socket.SOCK_STREAM)
        streams.bind((address, 0))
        datagrams = socket.socket(family, socket.SOCK_DGRAM)
        # A burst of questions must not be lost to the buffer of a test's server.
        datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        try:
            datagrams.bind((address, streams.getsockname()[1]))
        except OSError:
            streams.close()
            datagrams.close()
        else:
            return datagrams, streams


def _client(labels: list[str]) -> str:
    """Return the address, if any, that a name begins with in reverse."""
    nibbles, octets = "".join(labels[31::-1]), ".".join(labels[3::-1])
    with suppress(ValueError):
        return str(IPv6Address(bytes.fromhex(nibbles)))
    with suppress(ValueError):
        return str(IPv4Address(octets))
    return ""


def _packet(question: Question, reply: Reply) -> bytes:
    if reply.raw is not None:
        return question.packet[:2] + reply.raw[2:]
    asked = dns.message.from_wire(question.packet)
    answer = dns.message.make_response(asked, recursion_available=True)
    answer.set_rcode(dns.rcode.Rcode(reply.rcode))
    name = asked.question[0].name
    if reply.truncated and not question.over_tcp:
        answer.flags |= dns.flags.TC
    elif reply.text and question.kind == "TXT":
        answer.answer.append(dns.rrset.from_text(name, reply.ttl, "IN", "TXT", f'"{reply.text}"'))
    elif reply.codes and question.kind == "A":
        if reply.alias:
            answer.answer.append(dns.rrset.from_text(name, reply.ttl, "IN", "CNAME", reply.alias))
            name = dns.name.from_text(reply.alias)
        answer.answer.append(dns.rrset.from_text(name, reply.ttl, "IN", "A", *reply.codes))
    elif reply.negative_ttl is not None and reply.rcode in (0, NXDOMAIN):
        zone = dns.name.from_text(question.zone) if question.zone else name.parent()
        soa = f"ns.{zone} host.{zone} 1 600 300 86400 {reply.negative_ttl}"
        answer.authority.append(dns.rrset.from_text(zone, 86400, "IN", "SOA", soa))
    if reply.wrong_question:
        wrong = dns.name.from_text("other", asked.question[0].name)
        answer.question = [dns.rrset.from_text(wrong, 0, "IN", "A")]
    if reply.without_question:
        answer.question = []
    packet = answer.to_wire(max_size=65535)
    if reply.mixed_case:
        end = len(question.packet)
        mixed = bytes(
            octet ^ 0x20 if place % 2 and chr(octet).isalpha() else octet for place, octet in enumerate(packet[12:end])
        )
        packet = packet[:12] + mixed + packet[end:]
    if reply.wrong_identifier:
        packet = struct.pack("!H", question.identifier ^ 0x5555) + packet[2:]
    return packet + reply.junk
