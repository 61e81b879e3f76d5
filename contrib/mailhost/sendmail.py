"""The mail host itself: a real Sendmail that takes mail for acme123.com on port 25.

There is one at a time, for it owns /dev/log. All it writes lies below its folder.
Mail for a local name is kept whoever it is for, and so is mail that would leave.
"""

from __future__ import annotations

import email
import email.policy
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import IO

from mailhost import syslog
from mailhost.clients import MAIL_HOST6
from mailhost.process import Process, StartError, program, require_enclosure, wait_until

SYSLOG_SOCKET = Path("/run/mailhost/syslog.socket")  # where contrib/enclosed lets /dev/log point to
SASLDB = Path("/run/mailhost/sasldb2")  # as contrib/enclosed tells libsasl
DOMAIN = "acme123.com"
HOST = f"mx.{DOMAIN}"
USER, PASSWORD = "carol", "correct horse"  # who may authenticate

HERE = Path(__file__).parent
# No F=: mail flows when the milter is down.
MILTER = "INPUT_MAIL_FILTER(`dnsbl-milter', `S={socket}, T=C:10s;S:10s;R:10s;E:30s')dnl"
QUEUE_ID = re.compile(r"^([0-9A-Za-z]{14})[ *X-]", re.MULTILINE)


@dataclass(frozen=True)
class QueueEntry:
    """One message in the queue."""

    id: str
    sender: str
    recipients: tuple[str, ...]
    reason: str  # why it is held or was not delivered; "" if it waits for the first time


class MailHost:
    """Sendmail, with the log it writes and the mail it keeps."""

    def __init__(
        self,
        folder: Path,
        milter: str | None = None,
        *,
        port: int = 25,
        extra: str = "",
        delivery: str = "interactive",
    ) -> None:
        """Start it, and return once it listens.

        The milter is written as in Sendmail's S=; extra holds further lines of the .mc file.
        Delivered interactively, a message is kept, queued or held before its 250 is sent, so that
        nothing needs to be waited for; "background" is what a busy host does.
        """
        require_enclosure()
        self.folder = folder
        self.port = port
        self._sendmail = program("sendmail", "sendmail")
        self._configuration = folder / "sendmail.cf"
        self._mail = folder / "mail"
        self._syslog = folder / "syslog"
        self._prepare(milter, extra, delivery)
        SYSLOG_SOCKET.unlink(missing_ok=True)
        self._logger = Process(
            [sys.executable, "-I", "-S", syslog.__file__, str(SYSLOG_SOCKET), self._syslog],
            folder / "syslog.log",
            SYSLOG_SOCKET.exists,
        )
        try:
            # A connection would tell as much, but the milter would see and count it.
            self.process = Process(
                [self._sendmail, "-C", self._configuration, "-bD", "-q1h"], folder / "sendmail.log", self._listens
            )
        except StartError as error:
            self._logger.stop()
            raise StartError("\n".join([str(error), "--- its system log", *self.log()])) from None

    def _prepare(self, milter: str | None, extra: str, delivery: str) -> None:
        """Write everything that Sendmail reads."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self._mail.mkdir()
        shutil.chown(self._mail, "mail", "mail")  # as whom Sendmail runs `keep`
        (self.folder / "mqueue").mkdir(mode=0o700)
        (self.folder / "service.switch").write_text("hosts files dns\naliases files\n")
        # A copy, for the user mail may not be allowed to look into the checkout.
        shutil.copy(HERE / "keep", self.folder)  # with its mode
        configuration = (
            (HERE / "sendmail.mc")
            .read_text()
            .format(
                host=HOST,
                domain=DOMAIN,
                address6=MAIL_HOST6,
                folder=self.folder,
                port=self.port,
                delivery=delivery,
                milter=MILTER.format(socket=milter) if milter else "dnl",
                extra=extra or "dnl",
            )
        )
        macros = self.folder / "sendmail.mc"
        macros.write_text(configuration)
        self._configuration.write_bytes(_output([program("m4", "m4"), str(macros)]))
        _output([program("saslpasswd2", "sasl2-bin"), "-c", "-p", "-f", str(SASLDB), "-u", HOST, USER], PASSWORD)

    def raw_messages(self, recipient: str) -> list[bytes]:
        """Return what was delivered to a recipient, oldest first, byte by byte."""
        local, _, domain = recipient.partition("@")
        folder = self._mail / (local if domain in ("", DOMAIN, HOST) else recipient)
        kept = folder.iterdir() if folder.exists() else ()
        return [path.read_bytes() for path in sorted(kept, key=lambda path: path.stat().st_mtime_ns)]

    def messages(self, recipient: str) -> list[EmailMessage]:
        """Return what was delivered to a recipient ("alice", or any address), oldest first."""
        return [
            email.message_from_bytes(raw, _class=EmailMessage, policy=email.policy.default)
            for raw in self.raw_messages(recipient)
        ]

    def wait_for_messages(self, recipient: str, count: int = 1, deadline: float = 10.0) -> list[EmailMessage]:
        """Return the recipient's messages once there are so many; for delivery in the background."""
        wait_until(lambda: len(self.raw_messages(recipient)) >= count, deadline, f"{recipient} has {count} messages")
        return self.messages(recipient)

    def forget_messages(self) -> None:
        """Empty every mailbox and the queue."""
        for folder in filter(Path.is_dir, self._mail.iterdir()):
            shutil.rmtree(folder)
        for path in (self.folder / "mqueue").iterdir():
            path.unlink()

    def mailq(self, *options: str) -> str:
        """Return what mailq prints; with "-qQ", about what is held."""
        return self._run("-bp", *options)

    def queue(self) -> list[QueueEntry]:
        """Return what waits for another try."""
        return self._entries(self.mailq(), "qf")

    def quarantined(self) -> list[QueueEntry]:
        """Return what is held."""
        return self._entries(self.mailq("-qQ"), "hf")

    def run_queue(self) -> None:
        """Try to deliver now what waits, and return when that is done."""
        self._run("-qf")

    def release(self, queue_id: str) -> None:
        """Let a message out of quarantine, and deliver it."""
        self._run("-qQ", f"-qI{queue_id}", "-Q")
        self.run_queue()

    def talk(self, *commands: str) -> list[str]:
        """Speak SMTP with a Sendmail on standard input, as a mail program on this host may; return the replies."""
        argv = [self._sendmail, "-C", str(self._configuration), "-bs"]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            replies = [_reply(child.stdout)]
            # Each after the reply to the last: Sendmail refuses to listen to those who do not.
            for command in commands:
                child.stdin.write(command.replace("\n", "\r\n").encode("latin-1") + b"\r\n")
                child.stdin.flush()
                replies.append(_reply(child.stdout))
        return replies

    def log(self) -> list[str]:
        """Return the lines of the system log, Sendmail's and everyone's in the enclosure."""
        return self._syslog.read_text(errors="replace").splitlines() if self._syslog.exists() else []

    def wait_for_log(self, text: str, deadline: float = 10.0) -> str:
        """Return the first line of the system log that holds a text, once there is one."""
        wait_until(lambda: any(text in line for line in self.log()), deadline, f"the log says {text!r}")
        return next(line for line in self.log() if text in line)

    def stop(self) -> None:
        """End it; its folder stays to be read."""
        self.process.stop()
        self._logger.stop()
        SYSLOG_SOCKET.unlink(missing_ok=True)

    def _entries(self, listing: str, prefix: str) -> list[QueueEntry]:
        """Return the messages of a listing, in full: mailq cuts reasons and addresses off."""
        entries = []
        for queue_id in QUEUE_ID.findall(listing):
            fields: dict[str, list[str]] = {}
            for line in (self.folder / "mqueue" / f"{prefix}{queue_id}").read_text("latin-1").splitlines():
                fields.setdefault(line[:1], []).append(line[1:])
            entries.append(
                QueueEntry(
                    queue_id,
                    fields["S"][0].strip("<>"),
                    tuple(line.partition(":")[2].strip("<>") for line in fields["R"]),
                    *(fields.get("q") or fields.get("M") or [""])[:1],
                )
            )
        return entries

    def _run(self, *arguments: str) -> str:
        return _output([self._sendmail, "-C", str(self._configuration), *arguments]).decode("latin-1")

    def _listens(self) -> bool:
        suffix = f":{self.port:04X}"
        return all(
            any(fields[1].endswith(suffix) and fields[3] == "0A" for fields in map(str.split, table.splitlines()))
            for table in (Path("/proc/net/tcp").read_text(), Path("/proc/net/tcp6").read_text())
        )


def _reply(lines: IO[bytes]) -> str:
    """Read a reply, and return its last line."""
    while (line := lines.readline().decode("latin-1").rstrip())[3:4] == "-":
        pass
    return line


def _output(argv: list[str], given: str = "") -> bytes:
    done = subprocess.run(argv, input=given.encode(), capture_output=True, check=False)
    if done.returncode:
        raise StartError(f"{' '.join(argv)} failed:\n{(done.stdout + done.stderr).decode(errors='replace')}")
    return done.stdout
