"""Asks lists about a client: all at once at connect, gathered when the answers are needed.

Floor 2: standard library only; `wire` reads the packets and `nameserver` what is odd.

One non-blocking, connected UDP socket for each client and nameserver: no event loop, no hand-over between threads. A
random port and random identifier for each client, the question compared on every reply, and a kernel that
drops what comes from another source make a forged answer improbable. Replies lie in the socket's buffer
while the SMTP client talks, so latency is taken from the kernel's moment of receipt and not from that of reading.
"""

import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from dnsbl_milter import wire
from dnsbl_milter.breaker import Breaker
from dnsbl_milter.nameserver import Nameserver, read_carefully
from dnsbl_policy.answers import PENDING, Answer, Clear, Unknown, Why, read
from dnsbl_policy.lists import Client, DnsList

_TIMESPEC = struct.Struct("@ll")
_RECEIPT_SPACE = socket.CMSG_SPACE(_TIMESPEC.size)
_LARGEST_REPLY = 4096
_FAILURES = {wire.SERVFAIL: Why.SERVFAIL, wire.REFUSED: Why.REFUSED}
_SILENT = (Why.TIMEOUT, Why.SERVFAIL, Why.REFUSED)
"""Reasons that mean "got nothing from it"; an operator's error code is an answer, and a matter of health."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """What became of one question: the list's place in the panel, its answer, and the seconds it took.

    None for the seconds if nothing came.
    """

    place: int
    answer: Answer
    seconds: float | None


class Resolver:
    """Asks a panel of lists through the nameservers, and knows which of both deserve patience."""

    def __init__(
        self, nameservers: Sequence[Nameserver], lists: Sequence[DnsList], *, deadline: float, retry: float
    ) -> None:
        self.nameservers = tuple(nameservers)
        self.lists = tuple(lists)
        self.deadline = deadline
        self.retry = retry
        self.preferred = 0
        """Where to begin: the nameserver that answered last, so that a dead first one does not delay every client."""
        self.breakers = tuple(Breaker() for _ in lists)
        self.tails = tuple(wire.zone_tail(one.zone) for one in lists)

    def ask(self, client: Client, evidence: Sequence[Answer]) -> "Inquiry":
        """Send a question to every list whose evidence is `PENDING`, and return without waiting."""
        inquiry = Inquiry(self, client, evidence)
        inquiry.begin()
        return inquiry


@dataclass(slots=True)
class _Question:
    place: int
    query: bytes
    turn: int = 0
    """How many times it was passed on to the next nameserver."""
    on_trial: bool = False
    truncated_by: Nameserver | None = None
    excuse: Answer | None = None
    """The failure that an earlier nameserver reported, while the next one is asked."""
    heard: bool = False
    seconds: float | None = None


class Inquiry:
    """The questions about one client, from connect to close; belongs to one session.

    `evidence` is always current: what was known before, what has come in since, `PENDING` for what is still out.
    """

    def __init__(self, resolver: Resolver, client: Client, evidence: Sequence[Answer]) -> None:
        self.client = client
        self.evidence = list(evidence)
        self._resolver = resolver
        self._questions: dict[bytes, _Question] = {}
        self._sockets: list[tuple[socket.socket, Nameserver, int]] = []
        """With the nameserver and the turn that each belongs to."""
        self._first = resolver.preferred
        self._retries = 0
        self._start = self._start_clock = 0.0

    @property
    def pending(self) -> bool:
        """Tell whether an answer is out that is worth waiting for."""
        return PENDING in self.evidence

    def begin(self) -> None:
        """Send the questions."""
        resolver = self._resolver
        labels = wire.client_labels(self.client)
        # Neighbours of a random start are distinct without a look-up, and no easier to guess than the start.
        identifier = int.from_bytes(os.urandom(2), "big")
        for place, answer in enumerate(self.evidence):
            if answer is not PENDING:
                continue
            breaker = resolver.breakers[place]
            if breaker.open:
                self.evidence[place] = Unknown(Why.LEFT_ALONE)
                if not breaker.may_try(self.client):
                    continue
            identifier = (identifier + 1) & 0xFFFF
            query = wire.query(identifier, labels, resolver.tails[place])
            self._questions[query[:2]] = _Question(place, query, on_trial=breaker.open)
        if self._questions:
            self._start, self._start_clock = time.monotonic(), time.time()
            self._send(0, self._questions.values())

    def wait(self, settled: Callable[[Sequence[Answer]], bool]) -> float:
        """Gather answers until nothing is out, or `settled` says enough, or time is up; return the seconds waited.

        One deadline for all lists together, counted from here; a list's own timeout counts from when it was asked.
        What has not answered by then becomes `Unknown`.
        """
        begin = time.monotonic()
        end = begin + self._resolver.deadline
        self.gather()
        while self.pending and not settled(self.evidence):
            self._ask_over_tcp(end)
            now = time.monotonic()
            wake = min(self._give_up(now, end), self._pass_on(now))
            if wake > now:
                self._poll(wake - now)
                self.gather()
        return time.monotonic() - begin

    def gather(self) -> None:
        """Read what has come, without waiting."""
        for udp, nameserver, turn in tuple(self._sockets):
            while True:
                try:
                    packet, ancillary, _, _ = udp.recvmsg(_LARGEST_REPLY, _RECEIPT_SPACE)
                except BlockingIOError:
                    break
                except OSError:
                    self._unreachable(turn)
                    break
                self._hear(packet, ancillary, nameserver, turn)

    def close(self) -> list[Lookup]:
        """Gather without waiting what came late, close the sockets, and return what became of every question.

        A question cut short because the client left early has no outcome, and is no fault of the list's.
        """
        self.gather()
        for udp, _, _ in self._sockets:
            udp.close()
        self._sockets.clear()
        lookups: list[Lookup] = []
        for asked in self._questions.values():
            breaker, answer = self._resolver.breakers[asked.place], self.evidence[asked.place]
            timed_out = isinstance(answer, Unknown) and answer.why is Why.TIMEOUT
            if asked.heard or timed_out:
                lookups.append(Lookup(asked.place, answer, asked.seconds))
                if isinstance(answer, Unknown) and answer.why in _SILENT:
                    breaker.failed(self.client)
                else:
                    breaker.answered()
            if asked.on_trial:
                breaker.release(self.client)
        self._questions.clear()
        return lookups

    def _send(self, turn: int, questions: Iterable[_Question]) -> None:
        servers = self._resolver.nameservers
        nameserver = servers[(self._first + turn) % len(servers)]
        for asked in questions:
            asked.turn = turn
        try:
            udp = nameserver.connect()
            self._sockets.append((udp, nameserver, turn))
            for asked in questions:
                udp.send(asked.query)
        except OSError:
            self._unreachable(turn)

    def _hear(self, packet: bytes, ancillary: Sequence[tuple[int, int, bytes]], server: Nameserver, turn: int) -> None:
        asked = self._questions.get(packet[:2])
        if asked is None or asked.heard:
            return
        try:
            reply: wire.Reply | None = wire.read(packet, asked.query)
        except wire.NotOurs:
            return
        except wire.HandOver as odd:
            if odd.truncated:
                asked.truncated_by = server
                return
            reply = read_carefully(packet, asked.query)
        for _, _, receipt in ancillary:
            seconds, nanoseconds = _TIMESPEC.unpack(receipt)
            asked.seconds = max(seconds + nanoseconds / 1e9 - self._start_clock, 0.0)
        self._note(asked, _answer(reply), server, turn)

    def _note(self, asked: _Question, answer: Answer, server: Nameserver, turn: int) -> None:
        if isinstance(answer, Unknown) and answer.why in _SILENT and self._may_fail_over(turn):
            asked.excuse = answer
            if asked.turn == turn:
                self._send(turn + 1, [asked])
            return
        asked.heard = True
        self.evidence[asked.place] = self._resolver.lists[asked.place].hear(answer)
        self._resolver.preferred = self._resolver.nameservers.index(server)

    def _may_fail_over(self, turn: int) -> bool:
        return turn + 1 < len(self._resolver.nameservers)

    def _unreachable(self, turn: int) -> None:
        """Deal with a nameserver where nobody listens; ICMP says so at once, so the silence need not be sat out."""
        for gone in [each for each in self._sockets if each[2] == turn]:
            gone[0].close()
            self._sockets.remove(gone)
        waiting = [asked for asked in self._questions.values() if not asked.heard]
        if self._may_fail_over(turn):
            self._send(turn + 1, [asked for asked in waiting if asked.turn == turn])
        elif not self._sockets:
            for asked in waiting:
                if self.evidence[asked.place] is PENDING:
                    self.evidence[asked.place] = asked.excuse or Unknown(Why.TIMEOUT)

    def _ask_over_tcp(self, end: float) -> None:
        for asked in self._questions.values():
            server = asked.truncated_by
            if server is not None and self.evidence[asked.place] is PENDING:
                reply = server.ask_over_tcp(asked.query, max(end - time.monotonic(), 0.05))
                asked.seconds = time.monotonic() - self._start
                answer = Unknown(Why.TIMEOUT) if reply is None else _answer(reply)
                self._note(asked, answer, server, len(self._resolver.nameservers))

    def _give_up(self, now: float, end: float) -> float:
        """Turn what has had its time into `Unknown`; return when to look again, at once if there was any."""
        wake = end
        for asked in self._questions.values():
            if self.evidence[asked.place] is not PENDING:
                continue
            own = self._resolver.lists[asked.place].timeout
            until = end if own is None else min(end, self._start + own)
            if now >= until:
                self.evidence[asked.place] = asked.excuse or Unknown(Why.TIMEOUT)
            wake = min(wake, max(until, now))
        return wake

    def _pass_on(self, now: float) -> float:
        """Ask the next nameserver what the last one has been silent about; return when that is due again."""
        if now >= self._start + self._resolver.retry * (self._retries + 1):
            # A client that paused long at MAIL is not owed all the retries that it slept through.
            self._retries = max(self._retries + 1, int((now - self._start) / self._resolver.retry))
            waiting = [asked for asked in self._questions.values() if self.evidence[asked.place] is PENDING]
            if waiting:
                self._send(max(asked.turn for asked in waiting) + 1, waiting)
        return self._start + self._resolver.retry * (self._retries + 1)

    def _poll(self, seconds: float) -> None:
        # Never select.select, which fails on descriptors above 1,023.
        poll = select.poll()
        for udp, _, _ in self._sockets:
            poll.register(udp, select.POLLIN)
        poll.poll(max(seconds, 0.0) * 1000 + 1)


def _answer(reply: wire.Reply | None) -> Answer:
    if reply is None:
        return Unknown(Why.INVALID)
    if reply.codes:
        return read(reply.codes, reply.ttl or 0)
    if reply.rcode in (wire.NOERROR, wire.NXDOMAIN):
        return Clear(reply.ttl or 0)
    return Unknown(_FAILURES.get(reply.rcode, Why.INVALID))
