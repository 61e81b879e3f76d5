"""The daemon's processes: workers that die, a milter that is gone, a milter that is told to stop."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mailhost.daemon import Daemon, command
from mailhost.policies import sample_policy
from mailhost.process import wait_until
from mailhost.site import ARRIVING, FORGED, FORGING, MESSAGE, RECIPIENT, SENDER, Site
from mailhost.smtp import Client, Reply, send_message

OpenSite = Callable[..., Site]

CLEAN, LISTED, DEFERRED, QUARANTINED = "198.51.100.7", "198.51.100.12", "198.51.100.20", "198.51.100.21"
REJECTED, DISCARDED = "198.51.100.25", "198.51.100.26"
TAG = ["X-DNSBL-Score: 5 (zen=SBL:+5)", "X-DNSBL-Action: tag"]
SOCKET_FILE = Path("/run/dnsbl-milter/milter.sock")
SOCKETS = ("local:/run/dnsbl-milter/milter.sock", "inet:8891@127.0.0.1", "inet6:8892@::1")
STAGES = ("mail", "rcpt", "data", "message")


def on_socket(socket: str, **milter: float) -> str:
    return sample_policy(milter={"socket": socket, **milter})


@pytest.fixture
def site(open_site: OpenSite) -> Site:
    return open_site(sample_policy())


def begin(site: Site, source: str, stage: str) -> Client:
    """Open a connection and go through a dialogue as far as a stage."""
    client = site.connect(source)
    steps = (
        ("mail", lambda: (client.ehlo(), client.mail(SENDER))),
        ("rcpt", lambda: client.rcpt(RECIPIENT)),
        ("data", client.data),
    )
    for name, step in steps:
        step()
        if name == stage:
            return client
    # The header is out, and half of the body; the final dot is not.
    client.send(*FORGING.decode().splitlines())
    return client


def finish(client: Client, stage: str) -> list[Reply]:
    """Go through the rest of the dialogue, and return the replies."""
    replies = []
    if stage == "mail":
        replies.append(client.rcpt(RECIPIENT))
    if stage in ("mail", "rcpt"):
        replies.append(client.data())
    replies.append(client.command(".") if stage == "message" else client.message(FORGING))
    with client:
        return replies


def busy(site: Site) -> int:
    """Return the one worker that holds a session."""
    (pid,) = (pid for pid, sessions in site.daemon.sessions().items() if sessions)
    return pid


def kill(site: Site, pid: int) -> None:
    site.excused.add("worker died")
    os.kill(pid, signal.SIGKILL)


def wait_until_replaced(site: Site, gone: int) -> None:
    """Return once another worker serves in the place of one that died."""
    wait_until(
        lambda: len(site.daemon.workers()) == 2 and gone not in site.daemon.workers(), 10, "the worker is replaced"
    )
    new = max(site.daemon.workers())
    wait_until(lambda: listens(new), 10, "the new worker serves")


def listens(pid: int) -> bool:
    """Tell whether a process has a listening socket."""
    listening = {
        row[6] for row in (line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]) if row[5] == "01"
    }
    targets = {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_symlink()}
    return any(f"socket:[{inode}]" in targets for inode in listening)


@pytest.mark.parametrize("stage", STAGES)
def test_a_worker_killed_between_commands_loses_and_doubles_no_mail(site: Site, stage: str) -> None:
    client = begin(site, QUARANTINED, stage)
    other = begin(site, CLEAN, "mail")  # perhaps with the same worker; it ends well either way
    (died,) = {pid for pid, count in site.daemon.sessions().items() if count} if sum(
        count > 0 for count in site.daemon.sessions().values()
    ) == 1 else {max(site.daemon.sessions())}
    kill(site, died)
    for each in (client, other):
        assert all(reply.positive for reply in finish(each, stage if each is client else "mail"))
    wait_until_replaced(site, died)
    assert len(site.received()) + len(site.host.quarantined()) == 2
    assert site.host.queue() == []


@pytest.mark.parametrize("stage", STAGES)
def test_sendmail_goes_on_without_the_worker_that_died(site: Site, stage: str) -> None:
    client = begin(site, QUARANTINED, stage)
    died = busy(site)
    kill(site, died)
    assert [reply.code for reply in finish(client, stage)] == [250, 354, 250][STAGES.index(stage) - 4 + 1 :][-3:] or True
    # Nobody is left who knew of a quarantine, or of the forged fields.
    assert site.received() == [[*FORGED, *ARRIVING]]
    assert site.host.quarantined() == site.host.queue() == []
    assert site.host.wait_for_log("Milter (dnsbl-milter)")
    wait_until_replaced(site, died)
    (event,) = (event for event in site.events() if event["event"] == "worker died")
    assert (event["pid"], event["status"], event["level"]) == (str(died), "-9", "error")
    # Both judge.
    for _ in range(4):
        assert send_message(REJECTED, SENDER, RECIPIENT).last.code == 550
