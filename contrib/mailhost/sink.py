"""Another host's mail server, as far as a sender sees it: takes every message, and keeps it to be looked at."""

from __future__ import annotations

import email
import email.policy
import re
import socketserver
import threading
from dataclasses import dataclass
from email.message import EmailMessage

from mailhost.process import wait_until

ADDRESS = re.compile(rb"<([^>]*)>")


@dataclass(frozen=True)
class Received:
    """One message, as it came."""

    client: str
    helo: str
    sender: str
    recipients: tuple[str, ...]
    content: bytes

    @property
    def message(self) -> EmailMessage:
        """The message, parsed."""
        return email.message_from_bytes(self.content, _class=EmailMessage, policy=email.policy.default)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: tuple[str, int]) -> None:
        self.received: list[Received] = []
        super().__init__(address, _Dialogue)


class _Dialogue(socketserver.StreamRequestHandler):
    """One connection: RFC 5321 without extensions, so that a sender has nothing to choose."""

    server: _Server

    def handle(self) -> None:
        helo, sender = "", ""
        recipients: list[str] = []
        self._reply(b"220 sink.example ESMTP")
        for line in self.rfile:
            verb, address = line[:4].upper(), ADDRESS.search(line)
            named = address[1].decode() if address else ""
            if verb in (b"EHLO", b"HELO"):
                helo = line[4:].decode().strip()
            elif verb == b"MAIL":
                sender, recipients = named, []
            elif verb == b"RCPT":
                recipients.append(named)
            elif verb == b"DATA":
                self._reply(b"354 go on")
                content = self._content()
                self.server.received.append(Received(self.client_address[0], helo, sender, tuple(recipients), content))
            elif verb == b"QUIT":
                self._reply(b"221 bye")
                return
            self._reply(b"250 fine")

    def _content(self) -> bytes:
        lines = []
        for line in self.rfile:
            if line == b".\r\n":
                break
            lines.append(line.removeprefix(b"."))
        return b"".join(lines)

    def _reply(self, line: bytes) -> None:
        self.wfile.write(line + b"\r\n")


class Sink:
    """A mail server on an address of its own."""

    def __init__(self, address: str, port: int = 25) -> None:
        """Listen."""
        self._server = _Server((address, port))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def received(self) -> list[Received]:
        """All that has arrived so far."""
        return list(self._server.received)

    def wait_for(self, recipient: str, deadline: float = 20.0) -> Received:
        """Return the first message to a recipient, once there is one."""
        wait_until(
            lambda: any(recipient in each.recipients for each in self.received), deadline, f"mail for {recipient} arrives"
        )
        return next(each for each in self.received if recipient in each.recipients)

    def stop(self) -> None:
        """Stop listening, as a host does that is down."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
