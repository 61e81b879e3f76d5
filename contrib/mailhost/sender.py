"""Another host's Sendmail, as an honest sender: it queues what is deferred, and tries again."""

from __future__ import annotations

import subprocess
from pathlib import Path

from mailhost.clients import MAIL_HOST4
from mailhost.process import program

MACROS = """\
include(`/usr/share/sendmail/cf/m4/cf.m4')dnl
OSTYPE(`debian')dnl
define(`confDOMAIN_NAME', `mail.sender.example')dnl
define(`SMART_HOST', `esmtp:[{host}]')dnl
define(`ESMTP_MAILER_ARGS', `TCP $h {port}')dnl
define(`QUEUE_DIR', `{folder}/queue')dnl
define(`confPID_FILE', `{folder}/sendmail.pid')dnl
define(`STATUS_FILE', `{folder}/statistics')dnl
define(`ALIAS_FILE', `')dnl
undefine(`confHOST_STATUS_DIRECTORY')dnl
define(`confCT_FILE', `-o {folder}/none')dnl
define(`confCR_FILE', `-o {folder}/none')dnl
FEATURE(`nocanonify')dnl
CLIENT_OPTIONS(`Family=inet, Addr={source}')dnl
MAILER(`local')dnl
MAILER(`smtp')dnl
"""


class Sender:
    """A Sendmail that only sends, from one address, and whose queue runs when it is told to."""

    def __init__(self, folder: Path, source: str, port: int = 25) -> None:
        """Write its configuration; nothing runs until there is something to send."""
        self._queue = folder / "queue"
        self._configuration = folder / "sender.cf"
        self._queue.mkdir(parents=True, mode=0o700, exist_ok=True)
        macros = folder / "sender.mc"
        macros.write_text(MACROS.format(host=MAIL_HOST4, port=port, folder=folder, source=source))
        self._configuration.write_bytes(
            subprocess.run([program("m4", "m4"), macros], check=True, capture_output=True).stdout
        )

    def submit(self, sender: str, recipient: str, content: bytes) -> None:
        """Put a message into the queue."""
        self._run("-odq", "-f", sender, recipient, content=content)

    def run_queue(self) -> None:
        """Try everything that waits once, and return when that is done."""
        self._run("-qf")

    @property
    def waiting(self) -> int:
        """How many messages wait for another try."""
        return len(list(self._queue.glob("qf*")))

    @property
    def reasons(self) -> list[str]:
        """What the last tries of the waiting messages met, as the queue keeps it."""
        lines = [line for file in self._queue.glob("qf*") for line in file.read_text("latin-1").splitlines()]
        return [line[1:] for line in lines if line.startswith("M")]

    def _run(self, *arguments: str, content: bytes = b"") -> None:
        command = [program("sendmail", "sendmail"), "-C", str(self._configuration), *arguments]
        subprocess.run(command, input=content, check=True, capture_output=True)
