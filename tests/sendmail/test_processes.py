"""The daemon's processes: workers that die, a milter that is gone, a milter that is told to stop."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import pytest

from mailhost.daemon import Daemon, command
from mailhost.policies import sample_policy
from mailhost.process import wait_until
from mailhost.site import ARRIVING, FORGED, FORGING, RECIPIENT, SENDER, Site
from mailhost.smtp import Client, Reply

OpenSite = Callable[..., Site]

CLEAN, LISTED, DEFERRED, QUARANTINED, REJECTED = (f"198.51.100.{number}" for number in (7, 12, 20, 21, 25))
UNTOUCHED = [*FORGED, *ARRIVING]
TAGGED = (ARRIVING, ["X-DNSBL-Score: 5 (zen=SBL:+5)", "X-DNSBL-Action: tag"])
HELD = "dnsbl-milter score=9 lists=zen,spamcop"
LOCAL, INET, INET6 = "local:/run/dnsbl-milter/milter.sock", "inet:8891@127.0.0.1", "inet6:8892@::1"
SOCKET_FILE = Path("/run/dnsbl-milter/milter.sock")
STAGES = ("connect", "mail", "rcpt", "data", "message")


@pytest.fixture
def site(open_site: OpenSite) -> Site:
    return open_site(sample_policy())


def begin(site: Site, source: str, stage: str, recipient: str = RECIPIENT) -> Client:
    """Open a connection and go through a dialogue as far as a stage."""
    client = site.connect(source)
    steps: dict[str, Callable[[], object]] = {
        "connect": client.ehlo,
        "mail": lambda: client.mail(SENDER),
        "rcpt": lambda: client.rcpt(recipient),
        "data": client.data,
        # The header is out and half of the body; the final dot is not.
        "message": lambda: client.send(*FORGING.decode().splitlines()),
    }
    for name, step in steps.items():
        step()
        if name == stage:
            break
    return client


def finish(client: Client, stage: str, recipient: str = RECIPIENT) -> list[int]:
    """Go through the rest of the dialogue as far as the server lets it, and return the codes of the replies."""
    steps: list[Callable[[], Reply]] = [
        lambda: client.mail(SENDER),
        lambda: client.rcpt(recipient),
        client.data,
        lambda: client.message(FORGING),
    ]
    codes: list[int] = []
    with client:
        for step in steps[STAGES.index(stage) :] or [lambda: client.command(".")]:
            codes.append(step().code)
            if codes[-1] >= 400:
                break
    return codes


# The codes of what is left of a dialogue when nobody objects.
PASSES = {"connect": [250, 250, 354, 250], "mail": [250, 354, 250], "rcpt": [354, 250], "data": [250], "message": [250]}


def holder(site: Site) -> int:
    """Return the worker that holds the only session."""
    (pid,) = (pid for pid, sessions in site.daemon.sessions().items() if sessions)
    return pid


def kill(site: Site, pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    site.excused.add("worker died")
    os.kill(pid, number)


def wait_until_replaced(site: Site, *gone: int) -> None:
    """Return once other workers hold sessions in the place of those that died."""

    def replaced() -> bool:
        workers = site.daemon.workers()
        return len(workers) == 2 and not set(workers) & set(gone)

    wait_until(replaced, 10, "there are new workers")
    new = sorted(site.daemon.workers())[-len(gone) :]
    clients: list[Client] = []

    def all_hold() -> bool:
        clients.append(site.connect(CLEAN))
        return all(site.daemon.sessions().get(pid) for pid in new)

    wait_until(all_hold, 10, "the new workers take sessions")
    for client in clients:
        client.close()
    site.daemon.wait_until_idle()


def assert_judged(site: Site) -> None:
    """Check that whoever comes next is judged, whichever worker gets the session."""
    for _ in range(6):
        assert site.send(REJECTED).last.code == 550


def assert_untouched_once(site: Site) -> None:
    """Check that alice has got one message as it was sent, and that it is nowhere else."""
    assert site.received() == [UNTOUCHED]
    assert site.host.quarantined() == site.host.queue() == []


@pytest.mark.parametrize("stage", STAGES)
def test_sendmail_goes_on_when_a_worker_dies_between_commands(site: Site, stage: str) -> None:
    client = begin(site, QUARANTINED, stage)
    gone = holder(site)
    kill(site, gone)
    assert finish(client, stage) == PASSES[stage]
    # Who knew of a quarantine and of forged fields is no more.
    assert_untouched_once(site)
    wait_until_replaced(site, gone)
    (death,) = (event for event in site.events() if event["event"] == "worker died")
    assert (death["pid"], death["status"], death["level"]) == (str(gone), "-9", "error")
    assert_judged(site)


def test_sendmail_goes_on_when_a_worker_crashes(site: Site) -> None:
    client = begin(site, QUARANTINED, "rcpt")
    gone = holder(site)
    kill(site, gone, signal.SIGSEGV)
    wait_until(lambda: gone not in site.daemon.workers(), 5, "the worker is dead")
    assert finish(client, "rcpt") == PASSES["rcpt"]
    assert_untouched_once(site)
    wait_until_replaced(site, gone)
    assert_judged(site)


# the command that Sendmail waits for an answer to, when the worker dies
@pytest.mark.parametrize("stage", ["mail", "rcpt", "message"])
def test_sendmail_goes_on_when_the_worker_it_waits_for_dies(open_site: OpenSite, stage: str) -> None:
    site = open_site(sample_policy(milter={"socket": INET}))
    client = begin(site, QUARANTINED, STAGES[STAGES.index(stage) - 1])
    gone = holder(site)
    os.kill(gone, signal.SIGSTOP)
    client.send(
        *{"mail": [f"MAIL FROM:<{SENDER}>"], "rcpt": [f"RCPT TO:<{RECIPIENT}>"]}.get(
            stage, [*FORGING.decode().splitlines(), "."]
        )
    )
    wait_until(lambda: site.daemon.unread() > 0, 5, "Sendmail has told the worker")
    kill(site, gone)
    assert client.read_reply().code == 250
    if stage == "message":
        client.close()
    else:
        assert finish(client, stage) == PASSES[stage]
    assert_untouched_once(site)
    wait_until_replaced(site, gone)
    assert_judged(site)


def test_two_workers_share_the_load_and_one_survives_the_other(site: Site) -> None:
    clients: list[tuple[Client, int]] = []
    sessions = site.daemon.sessions()
    assert len(sessions) == 2

    def both_hold_some() -> bool:
        before = site.daemon.sessions()
        client = begin(site, QUARANTINED, "mail")
        after = site.daemon.sessions()
        (pid,) = (pid for pid in after if after[pid] > before[pid])
        clients.append((client, pid))
        return min(after.values()) >= 3

    wait_until(both_hold_some, 10, "each worker has sessions")
    gone, left = sorted(sessions)
    kill(site, gone)
    for client, _ in clients:
        assert finish(client, "mail") == PASSES["mail"]
    # Only what the dead one held is unjudged: nothing lost, nothing doubled.
    assert site.received() == [UNTOUCHED] * sum(pid == gone for _, pid in clients)
    assert [entry.reason for entry in site.host.quarantined()] == [HELD] * sum(pid == left for _, pid in clients)
    assert site.host.queue() == []
    assert len(site.decisions()) == sum(pid == left for _, pid in clients)
    wait_until_replaced(site, gone)


def test_all_workers_may_die_at_once(site: Site) -> None:
    gone = site.daemon.workers()
    client = begin(site, QUARANTINED, "rcpt")
    for pid in gone:
        kill(site, pid)
    assert finish(client, "rcpt") == PASSES["rcpt"]
    assert_untouched_once(site)
    wait_until_replaced(site, *gone)
    assert_judged(site)


def test_a_worker_that_keeps_dying_is_replaced_more_and_more_slowly(open_site: OpenSite) -> None:
    site = open_site(sample_policy(milter={"workers": 1}), fresh=True)
    held = Path(f"/proc/{site.daemon.process.pid}/fd")
    before = len(list(held.iterdir()))
    for _ in range(4):
        (gone,) = site.daemon.workers()
        kill(site, gone)
        wait_until(lambda gone=gone: site.daemon.workers() not in ([gone], []), 10, "there is a new worker")
    deaths = [event for event in site.events() if event["event"] == "worker died"]
    waits = [float(str(event["restart_in"])) for event in deaths]
    assert waits == [0.1, 0.2, 0.4, 0.8]
    assert_judged(site)
    assert len(list(held.iterdir())) == before  # the supervisor kept nothing of the dead


def test_a_worker_has_nothing_open_that_it_does_not_need(site: Site) -> None:
    for pid in site.daemon.workers():
        targets = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
        sockets = [target for target in targets if target.startswith("socket:")]
        # Standard output and error; nothing of what it inherited stands there twice.
        assert sum(target.endswith(".log") for target in targets) == 2
        assert sum(target == "/dev/null" for target in targets) == 1
        assert len(sockets) == len(set(sockets))
        # Its own end of two pipes to the supervisor, and both ends of libmilter's.
        assert sum(target.startswith("pipe:") for target in targets) == 4


def test_mail_flows_while_the_whole_milter_is_gone(open_site: OpenSite) -> None:
    site = open_site(sample_policy())
    clients = [begin(site, QUARANTINED, stage, f"{stage}@acme123.com") for stage in STAGES]
    site.daemon.kill()
    for client, stage in zip(clients, STAGES, strict=True):
        assert finish(client, stage, f"{stage}@acme123.com") == PASSES[stage]
        assert site.received(f"{stage}@acme123.com") == [UNTOUCHED]
    for source in (CLEAN, LISTED, DEFERRED, QUARANTINED, REJECTED):
        assert site.send(source, content=FORGING).accepted
    assert site.received() == [UNTOUCHED] * 5
    assert site.host.quarantined() == site.host.queue() == []
    assert site.host.wait_for_log("Milter (dnsbl-milter): to error state")
    assert SOCKET_FILE.exists()  # left behind, and no hindrance

    again = open_site(sample_policy())
    assert again.host is site.host  # Sendmail has not been started again
    assert again.send(QUARANTINED, content=FORGING).accepted
    assert again.send(LISTED, content=FORGING).accepted
    assert again.send(REJECTED).last.code == 550
    assert again.delivered() == [TAGGED]
    assert [entry.reason for entry in again.host.quarantined()] == [HELD]


def test_workers_finish_their_sessions_when_the_supervisor_is_killed(open_site: OpenSite) -> None:
    site = open_site(sample_policy(), fresh=True)
    # One that was started later holds no end of the pipes of one that was started before.
    gone = site.daemon.workers()[0]
    kill(site, gone)
    wait_until_replaced(site, gone)
    workers = site.daemon.workers()
    client = begin(site, LISTED, "data")
    os.kill(site.daemon.process.pid, signal.SIGKILL)
    wait_until(lambda: not site.daemon.process.alive, 5, "the supervisor is dead")
    wait_until(lambda: not site.daemon.listeners(workers), 5, "the workers take no more sessions")
    start = time.monotonic()
    assert site.send(REJECTED, "bob@acme123.com", FORGING).accepted
    assert time.monotonic() - start < 3
    assert site.received("bob") == [UNTOUCHED]
    assert any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert finish(client, "data") == [250]
    assert site.delivered() == [TAGGED]
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 5, "the workers have left")


@pytest.mark.parametrize("where", [LOCAL, INET, INET6])
def test_a_milter_that_is_told_to_stop_finishes_its_sessions(open_site: OpenSite, where: str) -> None:
    site = open_site(sample_policy(milter={"socket": where, "drain_seconds": 20}), fresh=True)
    clients = [begin(site, LISTED, stage, f"{stage}@acme123.com") for stage in STAGES]
    refused = begin(site, REJECTED, "mail")
    second = begin(site, QUARANTINED, "rcpt")
    told = time.monotonic()
    if where == INET6:
        os.killpg(site.daemon.process.pid, signal.SIGINT)  # as a terminal does for Ctrl-C
    else:
        site.daemon.process.send_signal(signal.SIGTERM)
    site.daemon.wait_for_log("stopping")
    wait_until(lambda: not site.daemon.listeners(), 5, "nobody takes a new session")
    # Who comes now is not judged, and does not wait for that.
    for _ in range(3):
        assert site.send(REJECTED, "bob@acme123.com", FORGING).accepted
    assert time.monotonic() - told < 3
    assert site.received("bob") == [UNTOUCHED] * 3
    # Who was there is.
    for client, stage in zip(clients, STAGES, strict=True):
        assert finish(client, stage, f"{stage}@acme123.com") == PASSES[stage]
        assert site.delivered(f"{stage}@acme123.com") == [TAGGED]
    assert refused.rcpt(RECIPIENT).code == 550
    refused.close()
    assert second.data().code == 354
    assert second.message(FORGING).code == 250
    # And a session may go on as long as there is time.
    assert second.send_message(SENDER, "postmaster@acme123.com", FORGING).accepted
    second.close()
    assert [(entry.reason, entry.recipients) for entry in site.host.quarantined()] == [(HELD, (RECIPIENT,))]
    assert site.delivered("postmaster") == [(ARRIVING, [])]
    assert site.daemon.wait_until_ended(10) == 0
    assert time.monotonic() - told < 20
    assert site.events()[-1]["event"] == "stopped"
    assert not SOCKET_FILE.exists()


def test_a_session_that_never_ends_is_cut_off(open_site: OpenSite) -> None:
    site = open_site(sample_policy(milter={"drain_seconds": 2}), fresh=True)
    clients = [begin(site, QUARANTINED, stage, f"{stage}@acme123.com") for stage in STAGES]
    told = time.monotonic()
    site.daemon.process.send_signal(signal.SIGTERM)
    assert site.daemon.wait_until_ended(10) == 0
    assert 2 <= time.monotonic() - told < 5
    assert site.events()[-1]["event"] == "stopped"
    assert any("took too long" in str(event["event"]) for event in site.events())
    for client, stage in zip(clients, STAGES, strict=True):
        assert finish(client, stage, f"{stage}@acme123.com") == PASSES[stage]
        assert site.received(f"{stage}@acme123.com") == [UNTOUCHED]
    assert site.host.quarantined() == site.host.queue() == []


def test_who_asks_twice_does_not_want_to_wait(open_site: OpenSite) -> None:
    site = open_site(sample_policy(milter={"drain_seconds": 30}), fresh=True)
    client = begin(site, QUARANTINED, "data")
    site.daemon.process.send_signal(signal.SIGTERM)
    site.daemon.wait_for_log("stopping")
    asked = time.monotonic()
    site.daemon.process.send_signal(signal.SIGTERM)
    assert site.daemon.wait_until_ended(10) == 0
    assert time.monotonic() - asked < 5
    assert finish(client, "data") == [250]
    assert_untouched_once(site)


def test_an_idle_milter_stops_soon(open_site: OpenSite) -> None:
    site = open_site(sample_policy(milter={"drain_seconds": 30}), fresh=True)
    assert site.send(LISTED).accepted
    told = time.monotonic()
    site.daemon.process.send_signal(signal.SIGTERM)
    assert site.daemon.wait_until_ended(10) == 0
    assert time.monotonic() - told < 5


class Load:
    """Clients that send without a pause, as long as the block lasts; what they sent is in `sent`."""

    def __init__(self, site: Site, clients: int = 12) -> None:
        self.sent: list[str] = []
        self._site = site
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(clients)
        self._senders = [self._pool.submit(self._send) for _ in range(clients)]

    def __enter__(self) -> Self:
        self.wait_for_more(40)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._pool.shutdown()
        for sender in self._senders:
            sender.result()

    def wait_for_more(self, count: int) -> None:
        enough = len(self.sent) + count
        wait_until(lambda: len(self.sent) >= enough or self._failed(), 30, f"{count} more messages are sent")

    def _send(self) -> None:
        while not self._over.is_set():
            outcome = self._site.send(LISTED, content=FORGING)
            assert outcome.accepted, outcome
            self.sent.append(outcome.queue_id)

    def _failed(self) -> bool:
        return any(sender.done() for sender in self._senders)


def identifiers(site: Site) -> tuple[set[str], set[str]]:
    """Return the queue identifiers of alice's messages: of those that were tagged, and of those that were not."""
    tagged: set[str] = set()
    untouched: set[str] = set()
    for raw, fields in zip(site.host.raw_messages(RECIPIENT), site.received(), strict=True):
        identifier = re.search(rb"\bid (\w{14})", raw)
        assert identifier is not None
        (untouched if fields == UNTOUCHED else tagged).add(identifier.group(1).decode())
    assert len(tagged | untouched) == len(site.received())  # none twice
    assert site.delivered().count(TAGGED) == len(tagged)
    return tagged, untouched


def test_a_stop_under_load_breaks_no_session(open_site: OpenSite) -> None:
    site = open_site(sample_policy(milter={"drain_seconds": 20}), fresh=True)
    with Load(site) as load:
        site.daemon.process.send_signal(signal.SIGTERM)
        assert site.daemon.wait_until_ended(15) == 0
        load.wait_for_more(30)
    tagged, untouched = identifiers(site)
    assert tagged | untouched == set(load.sent)
    # Every message that was judged at RCPT was also finished by who judged it, and all others came as they were.
    assert tagged == {str(decision["queue"]) for decision in site.decisions()}


def test_a_reload_under_load_leaves_no_message_unjudged(open_site: OpenSite) -> None:
    site = open_site(sample_policy(milter={"drain_seconds": 20}), fresh=True)
    with Load(site) as load:
        for number in range(1, 4):
            before = set(site.daemon.workers())
            site.daemon.process.hang_up()
            wait_until(
                lambda number=number: sum(event["event"] == "reloaded" for event in site.events()) == number,
                15,
                "it has reloaded",
            )
            wait_until(lambda before=before: not before & set(site.daemon.workers()), 15, "the old workers have left")
        load.wait_for_more(30)
    tagged, untouched = identifiers(site)
    assert untouched == set()
    assert tagged == set(load.sent) == {str(decision["queue"]) for decision in site.decisions()}


def test_a_connection_that_has_not_said_a_word_is_not_dropped_by_a_stop(open_site: OpenSite) -> None:
    site = open_site(sample_policy(milter={"drain_seconds": 20}), fresh=True)
    start = time.monotonic()
    wait_until(lambda: time.monotonic() > start + 1.2, 5, "the workers have been idle for more than a second")
    with socket.socket(socket.AF_UNIX) as sendmail:
        sendmail.settimeout(5)
        sendmail.connect(str(SOCKET_FILE))
        wait_until(lambda: sum(site.daemon.sessions().values()) == 1, 5, "a worker has accepted it")
        site.daemon.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not site.daemon.listeners(), 5, "nobody takes a new session")
        # What a Sendmail says first: version 6, all that it lets a filter do, all that it lets a filter leave out.
        sendmail.sendall(struct.pack("!IcIII", 13, b"O", 6, 0x1FF, 0x1FFFFF))
        assert sendmail.recv(5)[4:] == b"O"
    assert site.daemon.wait_until_ended(10) == 0


@pytest.mark.parametrize("where", [LOCAL, INET])
def test_a_successor_may_start_while_the_last_sessions_run(open_site: OpenSite, where: str) -> None:
    site = open_site(sample_policy(milter={"socket": where, "drain_seconds": 20}), fresh=True)
    client = begin(site, LISTED, "rcpt")
    site.daemon.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not site.daemon.listeners(), 5, "nobody takes a new session")
    successor = Daemon(Path("/run/mailhost/successor"), sample_policy(milter={"socket": where}))
    try:
        assert site.send(REJECTED).last.code == 550
        assert finish(client, "rcpt") == PASSES["rcpt"]
        assert site.delivered() == [TAGGED]
        assert site.daemon.wait_until_ended(10) == 0
        # And it does not take its successor's socket with it.
        assert site.send(REJECTED).last.code == 550
        assert [line.split()[1] for line in successor.decisions()] == [f"client={REJECTED}"] * 2
    finally:
        successor.stop()


def test_a_second_milter_does_not_rob_the_first(site: Site) -> None:
    done = command("run", "--config", site.daemon.configuration)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "another process serves local:/run/dnsbl-milter/milter.sock" in line
    assert_judged(site)


def test_no_privileges_are_needed(open_site: OpenSite) -> None:
    site = open_site(sample_policy(), wrapper=("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"))
    status = Path(f"/proc/{site.daemon.process.pid}/status").read_text()
    assert re.search(r"^CapEff:\s0+$", status, re.MULTILINE)
    gone = site.daemon.workers()[0]
    kill(site, gone)
    wait_until_replaced(site, gone)
    assert_judged(site)
    site.daemon.process.send_signal(signal.SIGTERM)
    assert site.daemon.wait_until_ended(10) == 0


@pytest.mark.parametrize("mode", ["0660", "0600", "666"])
def test_the_socket_has_the_mode_that_is_configured(open_site: OpenSite, mode: str) -> None:
    site = open_site(sample_policy(milter={"socket_mode": mode}))
    assert SOCKET_FILE.stat().st_mode & 0o777 == int(mode, 8)
    assert site.send(REJECTED).last.code == 550


@pytest.mark.parametrize("where", [INET, INET6])
def test_every_kind_of_socket_serves(open_site: OpenSite, where: str) -> None:
    site = open_site(sample_policy(milter={"socket": where}))
    for source, code in ((CLEAN, 250), (LISTED, 250), (DEFERRED, 451), (QUARANTINED, 250), (REJECTED, 550)):
        assert site.send(source, content=FORGING).last.code == code
    assert site.delivered() == [(ARRIVING, []), TAGGED]
    assert [entry.reason for entry in site.host.quarantined()] == [HELD]
    assert [decision["enforced"] for decision in site.decisions()] == ["accept", "tag", "defer", "quarantine", "reject"]
