"""Mail hosts for the bench: real Sendmails side by side, each with one way of asking lists, and Postfix's postscreen."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from peers import listens

from mailhost.process import Process, StartError
from mailhost.sendmail import MailHost

FIRST_PORT = 2500
POSTSCREEN_PORT = 2599
UNPACKED = Path(__file__).parents[2] / "build/bench/postfix"
"""Where `run` leaves Debian's postfix, which cannot be installed beside sendmail."""


def enhdnsbl(zones: Sequence[str]) -> str:
    """Return the lines of a .mc file with which Sendmail asks lists by itself, one after the other."""
    # A code that no list here answers: like everyone else's, its verdict is to let pass.
    return "\n".join(f"FEATURE(`enhdnsbl', `{zone}', `refused', `', `127.9.9.9.')dnl" for zone in zones)


def admit_clients() -> None:
    """Make 10.0.0.0/8 this machine's own: SMTP clients come from there."""
    subprocess.run(["ip", "route", "replace", "local", "10.0.0.0/8", "dev", "lo"], check=True)


@contextmanager
def sendmail_with(folder: Path, ways: Mapping[str, tuple[str | None, str]]) -> Iterator[dict[str, int]]:
    """Start a Sendmail for each way (the milter's socket, further lines of the .mc file); give the port of each."""
    admit_clients()
    with ExitStack() as stack:
        ports: dict[str, int] = {}
        for place, (name, (milter, lines)) in enumerate(ways.items()):
            # Queued: what a mailer does with a message afterwards is the same for all, and not measured.
            host = MailHost(folder / f"sendmail-{place}", milter, port=FIRST_PORT + place, extra=lines, delivery="queue")
            stack.callback(host.stop)
            ports[name] = host.port
        yield ports


@contextmanager
def postscreen(folder: Path, zones: Sequence[str]) -> Iterator[int]:
    """Start postscreen with what hands it connections and takes its mail, at its defaults but for the lists; give its port.

    Raises StartError.
    """
    daemons = UNPACKED / "usr/lib/postfix/sbin"
    if not (daemons / "postscreen").exists():
        raise StartError(f"no postscreen in {UNPACKED}: run `tests/bench/run`, which unpacks it")
    admit_clients()
    home = folder / "postfix"
    _make_home(home)
    (home / "etc/main.cf").write_text(f"""\
compatibility_level = 3.6
daemon_directory = {daemons}
command_directory = {UNPACKED}/usr/sbin
shlib_directory = {UNPACKED}/usr/lib/postfix
meta_directory = {home}/etc
queue_directory = {home}/spool
data_directory = {home}/data
import_environment = MAIL_CONFIG LANG=C LD_LIBRARY_PATH={UNPACKED}/usr/lib/postfix
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mx.acme123.com
mydestination = acme123.com
local_recipient_maps =
alias_maps =
maillog_file = {home}/spool/maillog
maillog_file_prefixes = {home}
postscreen_access_list =
postscreen_dnsbl_sites = {", ".join(zones)}
postscreen_dnsbl_threshold = 100
""")
    (home / "etc/master.cf").write_text(f"""\
{POSTSCREEN_PORT} inet n - n - 1 postscreen
smtpd pass - - n - - smtpd
dnsblog unix - - n - 0 dnsblog
cleanup unix n - n - 0 cleanup
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
""")
    for each in (home / "etc").iterdir():
        os.utime(each, (0, 0))  # master waits for a file that was written just now to be complete
    process = Process(
        [daemons / "master", "-c", home / "etc", "-d"],
        home / "master.log",
        lambda: listens(POSTSCREEN_PORT),
        environment={"LD_LIBRARY_PATH": f"{UNPACKED}/usr/lib/postfix", "MAIL_CONFIG": str(home / "etc")},
    )
    try:
        yield POSTSCREEN_PORT
    finally:
        process.stop()


def _make_home(home: Path) -> None:
    """Make the folders that Postfix wants, and the users that its package would have made: in the enclosure alone."""
    for each in ("etc", "spool/pid"):
        (home / each).mkdir(parents=True)
    for name, lines in (("passwd", "postfix:x:9901:9901::/:/bin/false\n"), ("group", "postfix:x:9901:\npostdrop:x:9902:\n")):
        ours = home / name
        ours.write_text(Path("/etc", name).read_text() + lines)
        subprocess.run(["mount", "--bind", ours, f"/etc/{name}"], check=True)
    owned = ["active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace", "maildrop", "public"]
    for each in (home / "data", *(home / "spool" / name for name in owned)):
        each.mkdir(mode=0o700)
        shutil.chown(each, "postfix", "postdrop" if each.name in ("maildrop", "public") else None)
    (home / "spool/maildrop").chmod(0o730)
    (home / "spool/public").chmod(0o710)
