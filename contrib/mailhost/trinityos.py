"""The mail host of contrib/trinityos, set up as its README says: files in /etc/mail, generate-cf, users, procmail.

Everything it needs of the machine is laid over for as long as it runs; what lies on the disk is not touched.
"""

from __future__ import annotations

import contextlib
import email
import email.policy
import mailbox
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from email.message import EmailMessage
from pathlib import Path

from mailhost import syslog
from mailhost.clients import MAIL_HOST4, Host, sample_hosts
from mailhost.daemon import ROOT, Daemon
from mailhost.lists import ListServer, Zone, sample_zones
from mailhost.process import Process, StartError, program, require_enclosure, wait_until
from mailhost.resolver import Resolver
from mailhost.sendmail import SYSLOG_SOCKET

FILES = ROOT / "contrib" / "trinityos"
ETC = Path("/etc/mail")
MAPS = ("access", "mailertable")
USERS = ("greg", "dranch")

# Beside the resolver and the lists of the other tests, which may be running.
RESOLVER, LIST_SERVER = "127.0.0.3", "127.0.0.4"

PRIMARY, BRANCH, ELSEWHERE = "203.0.113.80", "192.168.0.20", "203.0.113.90"
OFFICE, UNWELCOME = "198.51.100.61", "198.51.100.66"
BACKUP, FORWARDER = "192.0.2.53", "192.0.2.110"

# The public lists that dnsbl-milter.toml asks, with the data of the sample ones.
ZONES = {
    "zen.example": "zen.spamhaus.org",
    "spamcop.example": "bl.spamcop.net",
    "psbl.example": "psbl.surriel.com",
    "dnswl.example": "list.dnswl.org",
}
LISTED_TOO = (BACKUP, FORWARDER)  # hosts that hand on others' mail get onto lists sooner or later


def zones() -> Iterator[Zone]:
    """Yield the public lists."""
    for zone in sample_zones():
        if zone.name in ZONES:
            blamed = [] if "dnswl" in zone.name else [f"{address} :127.0.0.2:handed on" for address in LISTED_TOO]
            yield replace(zone, name=ZONES[zone.name], lines=(*zone.lines, *blamed))


def hosts() -> Iterator[Host]:
    """Yield every name there is: the sample clients', and those of the recipe's world."""
    yield from (host for host in sample_hosts() if host.name != "desk9.acme123.com")
    yield Host("desk9.acme123.com", ("192.168.0.9",), ("192.168.0.9",))
    yield Host("newdomain.com", mail=("mx.acme123.com",))
    yield Host("mail.backupacme.com", (PRIMARY,), (PRIMARY,))
    yield Host("backupacme.com", mail=("5 mail.backupacme.com", "20 mx.acme123.com"))
    yield Host("branch.acme123.com", mail=("mx.acme123.com",))
    yield Host("mail.elsewhere.example", (ELSEWHERE,), (ELSEWHERE,))
    yield Host("elsewhere.example", mail=("mail.elsewhere.example",))
    yield Host("office.acme123.com", (OFFICE,), (OFFICE,))
    yield Host("unwelcome.example", (UNWELCOME,), (UNWELCOME,))
    yield Host("backup.example", (BACKUP,), (BACKUP,))
    yield Host("forwarder.example", (FORWARDER,), (FORWARDER,))


class TrinityHost:
    """Sendmail as the distribution starts it, the milter, and the network around them."""

    def __init__(self, folder: Path) -> None:
        """Set everything up, and return once mail is taken."""
        require_enclosure()
        self.folder = folder
        self.generated = ""  # what generate-cf printed
        self._undo = contextlib.ExitStack()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            self._start()
        except BaseException as error:
            self._undo.close()
            if isinstance(error, StartError):
                raise StartError("\n".join([str(error), "--- its system log", *self.log()])) from None
            raise

    def _start(self) -> None:
        self.lists = ListServer(self.folder / "lists", zones(), LIST_SERVER)
        self._undo.callback(self.lists.stop)
        self.resolver = Resolver(self.folder / "resolver", [self.lists], hosts(), address=RESOLVER)
        self._undo.callback(self.resolver.stop)
        self._lay_over()
        shutil.copytree(FILES, ETC, dirs_exist_ok=True)
        run(ETC / "generate-cf", "--check")
        self.generated = run(ETC / "generate-cf")
        for name in MAPS:
            run(program("makemap", "sendmail-bin"), "hash", ETC / name, given=(ETC / name).read_text())
        run(program("newaliases", "sendmail-bin"))
        self.start_milter()
        self._undo.callback(self.stop_milter)
        SYSLOG_SOCKET.unlink(missing_ok=True)
        logger = Process(
            [sys.executable, "-I", "-S", syslog.__file__, str(SYSLOG_SOCKET), self.folder / "syslog"],
            self.folder / "syslog.log",
            SYSLOG_SOCKET.exists,
        )
        self._undo.callback(SYSLOG_SOCKET.unlink, missing_ok=True)
        self._undo.callback(logger.stop)
        # The other hosts of this enclosure listen on addresses of the same machine, where the .mc's own line would
        # claim port 25 of all of them; so it is said once more, for the addresses of this host.
        ports = [
            option
            for address in (MAIL_HOST4, "127.0.0.1")
            for option in ("-O", f"DaemonPortOptions=Family=inet, Name=MTA, Port=smtp, Listen=128, Addr={address}")
        ]
        self.sendmail = Process([program("sendmail", "sendmail"), "-bD", "-q1h", *ports], self.folder / "sendmail.log", _listens)
        self._undo.callback(self.sendmail.stop)

    def _lay_over(self) -> None:
        """Give the machine the files that this host has."""
        own = ETC / "submit.cf"
        mail = self.folder / "etc-mail"
        mail.mkdir()
        for name in ("sendmail.cf", "submit.cf"):
            shutil.copy2(own.with_name(name), mail)
        self._mount("--bind", mail, ETC)
        users = self.folder / "passwd"
        known = Path("/etc/passwd").read_text()
        users.write_text(known + "".join(f"{name}:x:{2001 + number}:8::{self.home(name)}:/bin/sh\n" for number, name in enumerate(USERS)))
        for number, name in enumerate(USERS):
            self.home(name).mkdir(parents=True)
            os.chown(self.home(name), 2001 + number, 8)
        self._mount("--bind", users, Path("/etc/passwd"))
        resolv = Path("/etc/resolv.conf")
        before = resolv.read_text()
        resolv.write_text(f"nameserver {RESOLVER}\noptions timeout:1 attempts:1\n")
        self._undo.callback(resolv.write_text, before)
        # All of it, for on the disk there may be no folder to lay something over.
        self._mount("-t", "tmpfs", "trinityos", Path("/var/lib"))
        for name in ("sendmail", "dnsbl-milter"):
            (Path("/var/lib") / name).mkdir()
        Path("/run/sendmail/mta").mkdir(parents=True, exist_ok=True)

    def _mount(self, *arguments: str | Path) -> None:
        run("mount", *arguments)
        self._undo.callback(run, "umount", "--lazy", arguments[-1])

    @staticmethod
    def home(user: str) -> Path:
        """Return a user's home folder."""
        return Path("/run/mailhost/home") / user

    def start_milter(self) -> None:
        """Start the milter with the sample configuration."""
        self.daemon = Daemon(self.folder / "daemon", (FILES / "dnsbl-milter.toml").read_text())

    def stop_milter(self) -> None:
        """Stop the milter, and leave Sendmail running."""
        self.daemon.stop()

    def inbox(self, user: str) -> list[EmailMessage]:
        """Return what procmail has put into a user's mailbox, oldest first."""
        path = Path("/var/mail") / user
        if not path.exists():
            return []
        with contextlib.closing(mailbox.mbox(path, create=False)) as box:
            raws = [box.get_bytes(key) for key in box.keys()]  # noqa: SIM118  a mailbox yields its messages
        return [email.message_from_bytes(raw, _class=EmailMessage, policy=email.policy.default) for raw in raws]

    def wait_for_mail(self, user: str, subject: str, deadline: float = 20.0) -> EmailMessage:
        """Return a user's first message with a subject, once it is there."""
        wait_until(lambda: any(each["Subject"] == subject for each in self.inbox(user)), deadline, f"{user} has {subject!r}")
        return next(each for each in self.inbox(user) if each["Subject"] == subject)

    def command(self, *arguments: str, given: str = "", user: str = "root") -> str:
        """Run a command as a user, with something on its standard input, and return what it prints."""
        return run("setpriv", "--reuid", user, "--regid", "mail", "--clear-groups", *arguments, given=given)

    def queued(self, *options: str) -> str:
        """Return what mailq prints."""
        return run(program("sendmail", "sendmail"), "-bp", *options)

    def run_queue(self) -> None:
        """Try to deliver what waits, as cron does for a host without a daemon."""
        run(program("sendmail", "sendmail"), "-q")

    def log(self) -> list[str]:
        """Return the lines of the system log."""
        path = self.folder / "syslog"
        return path.read_text(errors="replace").splitlines() if path.exists() else []

    def stop(self) -> None:
        """End it, and uncover what was laid over."""
        self._undo.close()


def run(*argv: str | Path, given: str = "") -> str:
    """Run a program, and return what it prints; raise StartError if it fails."""
    done = subprocess.run(argv, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StartError(f"{' '.join(map(str, argv))} failed with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def _listens() -> bool:
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = {row[1] for row in rows if row[3] == "0A"}
    return {f"{int.from_bytes(bytes(map(int, address.split('.'))), sys.byteorder):08X}:0019" for address in (MAIL_HOST4, "127.0.0.1")} <= listening
