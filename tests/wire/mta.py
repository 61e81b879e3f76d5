"""Sendmail's side of a session with the milter, one step at a time; miltertest speaks the protocol.

    with Session(address, "192.0.2.7") as session:
        assert session.recipient() == 451

Nothing here knows how the daemon is built: an address, and what Sendmail says and hears there.
"""

import socket
from types import TracebackType
from typing import Self

from miltertest import DISPOSITION_REPLIES, MilterConnection, constants

PATIENCE = 20.0
"""Seconds for one answer."""

Address = str | tuple[str, int]
SENDER, RECIPIENT = "sender@plain.example", "alice@acme123.com"
ACCEPT = "accept"


class Session:
    """One connection of Sendmail's to the milter; as a context manager it has negotiated and named the client."""

    def __init__(self, address: Address, client: str = "192.0.2.7") -> None:
        """Connect, and say nothing yet. An address is a path, or a host and a port."""
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.client = client
        self._stream = socket.socket(family, socket.SOCK_STREAM)
        self._stream.settimeout(PATIENCE)
        try:
            self._stream.connect(address)
        except OSError:
            self._stream.close()
            raise
        self._talk = MilterConnection(self._stream)

    def __enter__(self) -> Self:
        try:
            self.negotiate()
            self.connect()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.quit()
        self.close()

    def negotiate(self) -> None:
        """Agree on the protocol: until this no callback of the milter's has been called."""
        self._talk.optneg_mta()

    def connect(self) -> None:
        """Tell who the client is; it has no name."""
        six = ":" in self.client
        self._talk.send(
            constants.SMFIC_CONNECT,
            hostname=f"[{self.client}]",
            family=constants.SMFIA_INET6 if six else constants.SMFIA_INET,
            port=2525,
            address=self.client,
        )

    def mail(self, sender: str = SENDER) -> None:
        """Begin a message."""
        self._talk.send(constants.SMFIC_MAIL, args=[f"<{sender}>"])

    def recipient(self, recipient: str = RECIPIENT, sender: str | None = SENDER) -> int | str:
        """Begin a message if there is a sender, name a recipient, and return the reply's code, or ACCEPT."""
        if sender is not None:
            self.mail(sender)
        command, values = self._talk.send_ar(constants.SMFIC_RCPT, args=[f"<{recipient}>"])
        self.text = values["text"] if command == constants.SMFIR_REPLYCODE else ""
        return int(values["smtpcode"]) if command == constants.SMFIR_REPLYCODE else ACCEPT

    def message(self, *fields: tuple[str, str]) -> list[tuple[str, dict[str, object]]]:
        """Send a header and the end of the message; return what is to be done with it."""
        for name, value in fields:
            # Sendmail was told that no answer comes to a header.
            self._talk._send(constants.SMFIC_HEADER, name=name, value=value)
        self._talk._send(constants.SMFIC_BODYEOB)
        done: list[tuple[str, dict[str, object]]] = [self._talk.recv()]
        # A quarantine is only announced; miltertest's own loop would take it for the last answer.
        while done[-1][0] not in DISPOSITION_REPLIES - {constants.SMFIR_QUARANTINE}:
            done.append(self._talk.recv())
        return done

    def quit(self) -> None:
        """Take leave, as Sendmail does."""
        self._talk._send(constants.SMFIC_QUIT)
        if self._talk.recv(eof_ok=True) is not None:
            raise ConnectionError("the milter said something after QUIT")

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()


def action(answers: list[tuple[str, dict[str, object]]]) -> str:
    """Return the action that the answers to a whole message stand for."""
    commands = {command for command, _ in answers}
    if constants.SMFIR_DISCARD in commands:
        return "discard"
    if constants.SMFIR_QUARANTINE in commands:
        return "quarantine"
    added = {values["name"]: values["value"] for command, values in answers if command == constants.SMFIR_ADDHEADER}
    return str(added.get("X-DNSBL-Action", ACCEPT))
