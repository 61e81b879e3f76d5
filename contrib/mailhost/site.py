"""A mail host with its milter, and what both did about the messages that were sent since a moment."""

from __future__ import annotations

from collections.abc import Sequence

from mailhost.daemon import Daemon
from mailhost.sendmail import MailHost
from mailhost.smtp import Client, Outcome, send_message

SENDER, RECIPIENT = "someone@sender.example", "alice@acme123.com"
ARRIVING = [
    "Received: from elsewhere.example by client.example; Sun, 22 Nov 2026 12:00:00 +0000",
    "Message-Id: <1@client.example>",
    "Date: Sun, 22 Nov 2026 12:00:00 +0000",
    "From: Someone <someone@sender.example>",
    "To: Alice <alice@acme123.com>",
    "Subject: hello",
]
FORGED = ["X-DNSBL-Score: -99 (trust=me:-99)", "X-DNSBL-Action: accept"]
OURS = ("x-dnsbl-score", "x-dnsbl-action")


def message(*fields: str, body: str = "Hello.\n") -> bytes:
    """Return a message with header fields."""
    return "\n".join([*fields, "", body]).encode("latin-1")


MESSAGE = message(*ARRIVING)
FORGING = message(*FORGED, *ARRIVING)  # it comes with our own header fields


class Site:
    """Sendmail and the daemon that it asks."""

    def __init__(self, host: MailHost, daemon: Daemon) -> None:
        """Take both as they run."""
        self.host = host
        self.daemon = daemon
        self.excused: set[str] = set()  # errors that the milter was made to log
        self._seen = 0
        self._clients: list[Client] = []

    def forget(self) -> None:
        """Forget what has happened so far: clients, mail, decisions, excuses."""
        self.hang_up()
        self.daemon.wait_until_idle()
        self.host.forget_messages()
        self.excused.clear()
        self._seen = len(self.daemon.log())

    def connect(self, source: str) -> Client:
        """Open a connection from a client's address."""
        self._clients.append(Client(source))
        return self._clients[-1]

    def hang_up(self) -> None:
        """Close every connection that was opened here and is open still."""
        while self._clients:
            self._clients.pop().close()

    def send(
        self,
        source: str,
        recipients: str | Sequence[str] = RECIPIENT,
        content: bytes = MESSAGE,
        *,
        sender: str = SENDER,
        auth: tuple[str, str] | None = None,
    ) -> Outcome:
        """Send one message in a connection of its own."""
        return send_message(source, sender, recipients, content, auth=auth)

    def decisions(self) -> list[dict[str, object]]:
        """Return the decisions, oldest first."""
        return [event for event in self.events() if event["event"] == "decision"]

    def events(self) -> list[dict[str, object]]:
        """Return everything that the milter has logged; raise ValueError if a line is broken."""
        return self.daemon.events(self._seen)

    def errors(self) -> list[dict[str, object]]:
        """Return what the milter has logged as an error without being excused."""
        return [
            event for event in self.events() if event.get("level") == "error" and event["event"] not in self.excused
        ]

    def received(self, recipient: str = RECIPIENT) -> list[list[str]]:
        """Return the header fields of a recipient's messages, but for those that Sendmail itself puts on top."""
        return [header_fields(raw) for raw in self.host.raw_messages(recipient)]

    def delivered(self, recipient: str = RECIPIENT) -> list[tuple[list[str], list[str]]]:
        """Return of each message received the header fields that are not ours, and those that are, the score first.

        Sendmail puts ours where one of the same name was removed, and else at the end.
        """
        return [
            (
                [field for field in fields if _name(field) not in OURS],
                sorted((field for field in fields if _name(field) in OURS), key=_name, reverse=True),
            )
            for fields in self.received(recipient)
        ]


def header_fields(raw: bytes) -> list[str]:
    """Return a message's header fields that stand below Sendmail's own Received, each with its folds."""
    head = raw.partition(b"\n\n")[0].decode("latin-1")
    unfolded = head.replace("\n\t", "\v\t").replace("\n ", "\v ").split("\n")
    fields = [field.replace("\v", "\n") for field in unfolded]
    own = next(place for place, field in enumerate(fields) if field.startswith("Received: "))
    return fields[own + 1 :]


def _name(field: str) -> str:
    return field.partition(":")[0].strip().lower()
