"""A plain SMTP client on a bare socket, bound to the address it shall be seen with.

smtplib hides what this is for: the exact dialogue, several commands in one
packet (RFC 2920), and going on after a refusal.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from mailhost.clients import MAIL_HOST4, MAIL_HOST6

PATIENCE = 30.0  # seconds for one reply


class ConnectionClosedError(ConnectionError):
    """The server closed the connection instead of replying."""


@dataclass(frozen=True)
class Reply:
    """What the server said to one command; the lines of a long reply are joined by newlines."""

    code: int
    text: str

    @property
    def positive(self) -> bool:
        """Whether the server goes along (2xx and 3xx)."""
        return 200 <= self.code < 400

    def __str__(self) -> str:
        """Return the reply as it is usually quoted."""
        return f"{self.code} {self.text}"


@dataclass(frozen=True)
class Outcome:
    """How far one message came: None where it did not come so far."""

    greeting: Reply
    helo: Reply | None = None
    auth: Reply | None = None
    mail: Reply | None = None
    recipients: dict[str, Reply] = field(default_factory=dict)
    data: Reply | None = None  # to the DATA command
    message: Reply | None = None  # to the final dot
    transcript: tuple[tuple[str, str], ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether the server took the message, for at least one recipient."""
        return self.message is not None and self.message.positive

    @property
    def queue_id(self) -> str:
        """The identifier that Sendmail gave the message it took."""
        assert self.message is not None
        return self.message.text.split()[1]

    @property
    def last(self) -> Reply:
        """The reply that decided: the final one, or else the first refusal."""
        stages = [self.greeting, self.helo, self.auth, self.mail, *self.recipients.values(), self.data, self.message]
        return [reply for reply in stages if reply is not None][-1]


class Client:
    """One connection to an SMTP server, open once it is made."""

    def __init__(self, source: str = "", host: str = "", port: int = 25, *, patience: float = PATIENCE) -> None:
        """Connect from the source address, and read the greeting.

        The host defaults to the mail host's address of the same family. The patience is in seconds.
        """
        host = host or (MAIL_HOST6 if ":" in source else MAIL_HOST4)
        self.transcript: list[tuple[str, str]] = []  # who ("C" or "S"), and the line
        self._greeted: Reply | None = None
        self._socket = socket.create_connection((host, port), patience, (source, 0) if source else None)
        # A command is one small packet; waiting to join it to the next would only slow the dialogue.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._lines = self._socket.makefile("rb")
        try:
            self.greeting = self.read_reply()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say QUIT if the server still listens, and close."""
        if kind is None:
            with contextlib.suppress(OSError):
                self.quit()
        self.close()

    def close(self) -> None:
        """Close the connection without a word."""
        self._lines.close()
        self._socket.close()

    def reset(self) -> None:
        """Close the connection as a client does that crashes: without the end that TCP has for it."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def send(self, *lines: str) -> None:
        """Send lines in one packet, without waiting for replies."""
        self.transcript += [("C", line) for line in lines]
        self._socket.sendall("".join(f"{line}\r\n" for line in lines).encode("latin-1"))

    def read_reply(self) -> Reply:
        """Read one reply; raise ConnectionClosedError when there is none, TimeoutError when it is late."""
        texts: list[str] = []
        while True:
            line = self._lines.readline().decode("latin-1").rstrip("\r\n")
            if not line:
                raise ConnectionClosedError("the server closed the connection")
            self.transcript.append(("S", line))
            texts.append(line[4:])
            if line[3:4] != "-":
                return Reply(int(line[:3]), "\n".join(texts))

    def command(self, line: str) -> Reply:
        """Send any line, and read its reply."""
        self.send(line)
        return self.read_reply()

    def pipeline(self, *lines: str) -> list[Reply]:
        """Send several commands in one packet, then read a reply to each."""
        self.send(*lines)
        return [self.read_reply() for _ in lines]

    def ehlo(self, name: str = "client.example") -> Reply:
        """Say EHLO."""
        return self.command(f"EHLO {name}")

    def helo(self, name: str = "client.example") -> Reply:
        """Say HELO."""
        return self.command(f"HELO {name}")

    def auth_plain(self, user: str, password: str) -> Reply:
        """Authenticate (RFC 4616)."""
        return self.command("AUTH PLAIN " + base64.b64encode(f"\0{user}\0{password}".encode()).decode())

    def mail(self, sender: str) -> Reply:
        """Name the envelope's sender; "" is the null sender."""
        return self.command(f"MAIL FROM:<{sender}>")

    def rcpt(self, recipient: str) -> Reply:
        """Name one recipient."""
        return self.command(f"RCPT TO:<{recipient}>")

    def data(self) -> Reply:
        """Ask to send the message."""
        return self.command("DATA")

    def message(self, content: bytes) -> Reply:
        """Send the message and its final dot, after DATA was answered with 354."""
        lines = [line.decode("latin-1") for line in content.replace(b"\r\n", b"\n").removesuffix(b"\n").split(b"\n")]
        return self.command("\r\n".join([*(f".{line}" if line.startswith(".") else line for line in lines), "."]))

    def rset(self) -> Reply:
        """Drop the message, keep the connection."""
        return self.command("RSET")

    def noop(self) -> Reply:
        """Ask for nothing."""
        return self.command("NOOP")

    def quit(self) -> Reply:
        """Take leave."""
        return self.command("QUIT")

    def send_message(
        self,
        sender: str,
        recipients: str | Sequence[str],
        content: bytes,
        *,
        helo: str = "client.example",
        auth: tuple[str, str] | None = None,
    ) -> Outcome:
        """Go through one whole message as far as the server lets it, and tell each reply."""
        told: dict[str, Reply] = {}
        stages: dict[str, Reply] = {}
        if self._stages(stages, helo, auth, sender):
            told = {to: self.rcpt(to) for to in ([recipients] if isinstance(recipients, str) else recipients)}
            if any(reply.positive for reply in told.values()):
                stages["data"] = self.data()
                if stages["data"].positive:
                    stages["message"] = self.message(content)
        return Outcome(self.greeting, recipients=told, transcript=tuple(self.transcript), **stages)

    def _stages(self, stages: dict[str, Reply], helo: str, auth: tuple[str, str] | None, sender: str) -> bool:
        """Go as far as MAIL, and say whether the server went along."""
        if not self.greeting.positive:
            return False
        # Once in a connection: Sendmail takes many for an attack, and slows them down.
        self._greeted = self._greeted or self.ehlo(helo)
        stages["helo"] = self._greeted
        if auth and stages["helo"].positive:
            stages["auth"] = self.auth_plain(*auth)
        if all(reply.positive for reply in stages.values()):
            stages["mail"] = self.mail(sender)
        return all(reply.positive for reply in stages.values())


def send_message(
    source: str,
    sender: str,
    recipients: str | Sequence[str],
    content: bytes = b"Subject: hello\n\nHello.\n",
    *,
    helo: str = "client.example",
    auth: tuple[str, str] | None = None,
    host: str = "",
    port: int = 25,
) -> Outcome:
    """Send one message in a connection of its own."""
    with Client(source, host, port) as client:
        return client.send_message(sender, recipients, content, helo=helo, auth=auth)


def render(transcript: Iterable[tuple[str, str]]) -> str:
    """Return a transcript for people to read, a line each."""
    return "\n".join(f"{who}: {line}" for who, text in transcript for line in text.split("\r\n"))
