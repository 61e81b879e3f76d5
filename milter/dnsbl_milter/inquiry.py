"""Asks lists about a client: all at once at connect, gathered when the answers are needed.

Floor 2: standard library only; `wire` reads the packets and `nameserver` what is odd.

One non-blocking, connected UDP socket for each client and nameserver: no event loop, no hand-over between threads. A
random port and random identifier for each client, the question compared on every reply, and a kernel that
drops what comes from another source make a forged answer improbable. Replies lie in the socket's buffer
while the SMTP client talks, so latency is taken from the kernel's moment of receipt and not from that of reading.

A packet is a system call. To send and to read all of a client's at once (sendmmsg and recvmmsg, by way of ctypes) was
tried, and gained nothing that could be measured: the calls are cheap, and the packets are not.

The module is longer than most here: sending, hearing, passing on to the next nameserver and giving up are one story of
one question, and each half would have to tell the other everything.
"""

import os
import select
import socket
import struct
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from dnsbl_milter import wire
from dnsbl_milter.nameserver import read_carefully
from dnsbl_milter.resolver import Resolver
from dnsbl_policy.answers import PENDING, Answer, Unknown, Why, read
from dnsbl_policy.lists import Client

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


def ask(resolver: Resolver, client: Client, evidence: Sequence[Answer]) -> "Inquiry":
    """Send a question to every list whose evidence is `PENDING`, and return without waiting."""
    inquiry = Inquiry(resolver, client, evidence)
    inquiry.begin()
    return inquiry


@dataclass(slots=True)
class _Question:
    place: int
    query: bytes
    on_trial: bool
    turn: int = 0
    """How many times it was passed on to the next nameserver."""
    out: set[int] = field(default_factory=set)
    """The nameservers that were asked and may still answer."""
    truncated_by: int | None = None
    excuse: Answer | None = None
    """The failure that a nameserver reported, while others may still answer."""
    heard: bool = False
    outcome: Answer | None = None
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
        self._sockets: dict[int, socket.socket] = {}
        """One for each nameserver that was asked, by its place."""
        self._first = 0
        self._first_answers = False
        self._closing = False
        self._start = self._start_clock = self._retry_at = 0.0

    @property
    def pending(self) -> bool:
        """Tell whether an answer is out that is worth waiting for."""
        return any(self.evidence[asked.place] is PENDING for asked in self._questions.values())

    def arrived(self, place: int) -> float:
        """Return when (`time.monotonic`) a list's answer came; now for one that was known before."""
        for asked in self._questions.values():
            if asked.place == place and asked.seconds is not None:
                return self._start + asked.seconds
        return time.monotonic()

    def begin(self) -> None:
        """Send the questions, if there is any left to ask."""
        if not any(answer is PENDING for answer in self.evidence):
            return
        resolver = self._resolver
        now = time.monotonic()
        labels = wire.client_labels(self.client)
        # Neighbours of a random start are distinct without a look-up, and no easier to guess than the start.
        identifier = int.from_bytes(os.urandom(2), "big")
        for place, answer in enumerate(self.evidence):
            if answer is not PENDING:
                continue
            breaker = resolver.breakers[place]
            on_trial = breaker.open  # asked once, for another thread's answer may close it at any moment
            if on_trial:
                self.evidence[place] = Unknown(Why.LEFT_ALONE)
                if not breaker.may_try(self.client, now):
                    continue
            identifier = (identifier + 1) & 0xFFFF
            query = wire.query(identifier, labels, resolver.tails[place])
            self._questions[query[:2]] = _Question(place, query, on_trial)
        if self._questions:
            self._start, self._start_clock, self._retry_at = now, time.time(), now + resolver.retry
            self._first = resolver.first(now)
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
            now = time.monotonic()
            wake = min(self._give_up(now, end), self._pass_on(now))
            if not self._ask_over_tcp(end) and wake > now:
                self._poll(wake - now)
            self.gather()
        return time.monotonic() - begin

    def gather(self) -> None:
        """Read what has come, without waiting."""
        for server, udp in tuple(self._sockets.items()):
            refused = False
            while True:
                try:
                    packet, ancillary, _, _ = udp.recvmsg(_LARGEST_REPLY, _RECEIPT_SPACE)
                except BlockingIOError:
                    break
                except OSError:
                    if refused:
                        break
                    refused = True  # told once, and ahead of replies that came before it
                else:
                    self._hear(packet, ancillary, server)
            if refused and self._sockets.get(server) is udp:
                self._unreachable(server)

    def close(self) -> list[Lookup]:
        """Gather without waiting what came late, close the sockets, and return what became of every question.

        A question cut short because the client left early has no outcome, and is no fault of the list's.
        """
        self._closing = True
        self.gather()
        for udp in self._sockets.values():
            udp.close()
        self._sockets.clear()
        lookups: list[Lookup] = []
        for asked in self._questions.values():
            if asked.outcome is not None:
                lookups.append(Lookup(asked.place, asked.outcome, asked.seconds))
            if asked.on_trial:
                self._resolver.breakers[asked.place].release(self.client)
        self._questions.clear()
        return lookups

    def _server(self, turn: int) -> int:
        return (self._first + turn) % len(self._resolver.nameservers)

    def _send(self, turn: int, questions: Collection[_Question]) -> None:
        server = self._server(turn)
        for asked in questions:
            asked.turn = turn
            asked.out.add(server)
        try:
            udp = self._sockets.get(server)
            if udp is None:
                udp = self._sockets[server] = self._resolver.nameservers[server].connect()
            for asked in questions:
                udp.send(asked.query)
        except OSError:
            self._unreachable(server)

    def _hear(self, packet: bytes, ancillary: Sequence[tuple[int, int, bytes]], server: int) -> None:
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
                if asked.on_trial:
                    # Nobody waits for it over TCP; but the list speaks, so the next client shall.
                    self._resolver.breakers[asked.place].answered()
                return
            reply = read_carefully(packet, asked.query)
        for _, _, receipt in ancillary:
            seconds, nanoseconds = _TIMESPEC.unpack(receipt)
            asked.seconds = max(seconds + nanoseconds / 1e9 - self._start_clock, 0.0)
        self._note(asked, _answer(reply), server)

    def _note(self, asked: _Question, answer: Answer, server: int) -> None:
        if _is_silence(answer):
            self._fail([asked], server, answer)
            return
        asked.heard = True
        asked.out.clear()
        self._conclude(asked, self._resolver.lists[asked.place].hear(answer))
        self._first_answers |= server == self._first
        # One lost packet is no verdict on a nameserver either; but the administrator's own choice is welcome back.
        if server != self._resolver.preferred and (server == 0 or not self._first_answers):
            self._resolver.prefer(server, time.monotonic())

    def _fail(self, questions: Collection[_Question], server: int, excuse: Answer | None = None) -> None:
        """Take in that a nameserver has nothing for these questions: the next is asked at once, if one is left."""
        onward: list[_Question] = []
        for asked in questions:
            asked.out.discard(server)
            asked.excuse = excuse or asked.excuse
            is_last = asked.turn + 1 >= len(self._resolver.nameservers)
            if asked.outcome is None and self._server(asked.turn) == server and not is_last:
                onward.append(asked)
            elif not asked.out:
                self._conclude(asked, asked.excuse or Unknown(Why.TIMEOUT))
        if onward and not self._closing:
            self._send(onward[0].turn + 1, onward)

    def _conclude(self, asked: _Question, answer: Answer) -> None:
        """Take an answer, or a failure that waiting will not mend, for what became of a question.

        The breaker hears of it here and not at close, for sessions may last long after their verdict.
        """
        self.evidence[asked.place] = asked.outcome = answer
        breaker = self._resolver.breakers[asked.place]
        if _is_silence(answer):
            breaker.failed(self.client)
        elif asked.seconds is None or asked.seconds <= self._resolver.deadline:
            # Later than anybody waits is worth keeping, but no reason to wait for it again.
            breaker.answered()
        if asked.on_trial:
            breaker.release(self.client)
            asked.on_trial = False

    def _unreachable(self, server: int) -> None:
        """Deal with a nameserver where nobody listens; ICMP says so at once, so the silence need not be sat out."""
        udp = self._sockets.pop(server, None)
        if udp is not None:
            udp.close()
        self._fail([asked for asked in self._questions.values() if server in asked.out], server)

    def _ask_over_tcp(self, end: float) -> bool:
        """Ask a truncated question again over TCP, if there is one; only one, for others' replies may have come since."""
        for asked in self._questions.values():
            server = asked.truncated_by
            if server is None or self.evidence[asked.place] is not PENDING:
                continue
            asked.truncated_by = None
            # TCP blocks, and the others wait: so no longer than they would wait for a retry.
            seconds = min(self._until(asked, end) - time.monotonic(), self._resolver.retry)
            reply = self._resolver.nameservers[server].ask_over_tcp(asked.query, seconds)
            if reply is None:
                self._fail([asked], server)
            else:
                asked.seconds = time.monotonic() - self._start
                self._note(asked, _answer(reply), server)
            return True
        return False

    def _until(self, asked: _Question, end: float) -> float:
        own = self._resolver.lists[asked.place].timeout
        return end if own is None else min(end, self._start + own)

    def _give_up(self, now: float, end: float) -> float:
        """Turn what has had its time into `Unknown`; return when to look again, at once if there was any."""
        wake = end
        for asked in self._questions.values():
            if self.evidence[asked.place] is PENDING:
                until = self._until(asked, end)
                if now >= until:
                    self._conclude(asked, asked.excuse or Unknown(Why.TIMEOUT))
                wake = min(wake, max(until, now))
        return wake

    def _pass_on(self, now: float) -> float:
        """Ask the next nameserver what the last one has been silent about; return when that is due again."""
        if now >= self._retry_at:
            self._retry_at = now + self._resolver.retry
            waiting = [asked for asked in self._questions.values() if self.evidence[asked.place] is PENDING]
            # The furthest first, so that none is passed on twice.
            for turn in sorted({asked.turn for asked in waiting}, reverse=True):
                self._send(turn + 1, [asked for asked in waiting if asked.turn == turn])
        return self._retry_at

    def _poll(self, seconds: float) -> None:
        # Never select.select, which fails on descriptors above 1,023.
        poll = select.poll()
        for udp in self._sockets.values():
            poll.register(udp, select.POLLIN)
        poll.poll(max(seconds, 0.0) * 1000 + 1)


def _is_silence(answer: Answer) -> bool:
    return isinstance(answer, Unknown) and answer.why in _SILENT


def _answer(reply: wire.Reply | None) -> Answer:
    if reply is None:
        return Unknown(Why.INVALID)
    if reply.rcode not in (wire.NOERROR, wire.NXDOMAIN):
        return Unknown(_FAILURES.get(reply.rcode, Why.INVALID))
    return read(reply.codes, reply.ttl or 0)
