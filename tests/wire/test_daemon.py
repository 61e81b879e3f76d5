"""The daemon, with a mail server's side of the milter protocol: what it agrees to, and how it lives and dies."""

import contextlib
import fcntl
import os
import resource
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest
from faulty import NameServer, Reply, listed
from miltertest import MilterConnection, MilterError, constants

from dnsbl_milter.child import DRAIN, Child
from mailhost.daemon import Daemon, command, environment
from mailhost.process import wait_until

V2 = (constants.SMFI_V2_ACTS, constants.SMFI_V2_PROT)
V6 = (constants.SMFI_V6_ACTS, constants.SMFI_V6_PROT)
OURS = constants.SMFIF_ADDHDRS | constants.SMFIF_CHGHDRS | constants.SMFIF_QUARANTINE

CLIENTS = {
    # by what they meet
    "tag": "198.51.100.1",
    "defer": "198.51.100.2",
    "quarantine": "198.51.100.3",
    "reject": "198.51.100.4",
    "discard": "198.51.100.5",
}
CLEAN, LOCAL = "198.51.100.100", "127.0.0.1"
CODES = ", ".join(f'{{ match = "127.0.0.{points}", weight = {points} }}' for points in range(1, 6))
POLICY = f"""
actions = {{ tag = 1, defer = 2, quarantine = 3, reject = 4, discard = 5 }}
allow.recipients = ["postmaster@"]
memory.url = ""
# Neither pages nor probes, so that its children are its workers.
metrics.listen = ""
health.enabled = false
list = [{{ name = "bl", zone = "bl.example", url = "https://bl.example/{{client}}?x=%2F", codes = [{CODES}] }}]
"""


class Talk:
    """A mail server's side of one connection to the milter."""

    def __init__(self, address: str | tuple, offered: tuple[int, int] | None = V6) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.stream = socket.socket(family, socket.SOCK_STREAM)
        self.stream.settimeout(10)
        self.wire = MilterConnection(self.stream)
        try:
            self.stream.connect(address)
            if offered is not None:
                self.wire.optneg_mta(*offered)
        except BaseException:
            self.stream.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def connect(self, client: str, host: str = "mx.sender.example") -> str:
        family = constants.SMFIA_INET6 if ":" in client else constants.SMFIA_INET
        return self._ask(constants.SMFIC_CONNECT, hostname=host, family=family, port=25, address=client)

    def helo(self, name: str = "sender.example") -> str:
        return self._ask(constants.SMFIC_HELO, helo=name)

    def mail(self, sender: str = "<a@sender.example>", **macros: str) -> str:
        if macros:
            self.wire.send_macro(constants.SMFIC_MAIL, **macros)
        return self._ask(constants.SMFIC_MAIL, args=[sender])

    def rcpt(self, recipient: str = "<b@acme123.com>") -> str:
        return self._ask(constants.SMFIC_RCPT, args=[recipient])

    def header(self, name: str, value: str = "x") -> str:
        self.wire._send(constants.SMFIC_HEADER, name=name, value=value)
        return "" if self.wire.protocol_flags & constants.SMFIP_NR_HDR else self._answer(self.wire.recv())

    def end(self) -> list[str]:
        """End the message, and return what is done with it."""
        self.wire._send(constants.SMFIC_BODYEOB)
        done = [self._answer(self.wire.recv())]
        while done[-1].partition(" ")[0] in ("addheader", "chgheader", "quarantine"):
            done.append(self._answer(self.wire.recv()))
        return done

    def reset(self) -> None:
        self.wire._send(constants.SMFIC_ABORT)

    def quit(self) -> None:
        """Leave as a mail server does, and wait until the other side has hung up."""
        self.wire._send(constants.SMFIC_QUIT)
        assert self.stream.recv(1) == b""

    def through(self, client: str) -> str:
        """Go from connect to the answer to the first recipient."""
        for answer in (self.connect(client), self.helo(), self.mail()):
            assert answer == "continue"
        return self.rcpt()

    def _ask(self, what: str, **values: object) -> str:
        return self._answer(self.wire.send_get(what, **values))

    def _answer(self, reply: tuple[str, dict]) -> str:
        kind, values = reply
        names = {value: name for name, value in vars(constants).items() if name.startswith("SMFIR_")}
        told = " ".join(f"{value}" for value in values.values() if value != " ")
        return f"{names[kind].removeprefix('SMFIR_').lower()} {told}".strip()


@pytest.fixture
def folder(monkeypatch) -> Iterator[Path]:
    """Return a folder whose path is short enough for a socket; it is the daemon's state directory too."""
    with tempfile.TemporaryDirectory(prefix="daemon-") as made:
        monkeypatch.setenv("STATE_DIRECTORY", made)
        yield Path(made)


@pytest.fixture(scope="module")
def lists() -> Iterator[NameServer]:
    zone = {client: listed(f"127.0.0.{points}") for points, client in enumerate(CLIENTS.values(), 1)}
    zone["2001:db8::4"] = listed("127.0.0.4")
    with NameServer({"bl.example": zone}) as server:
        yield server


def policy(
    folder: Path, lists: NameServer, *, workers: int = 2, more: str = "", where: str = "", ipv6: str = "false"
) -> str:
    """Write a configuration; `more` stands in its [milter] table."""
    where = where or f"local:{folder}/m.sock"
    first = f'milter = {{ socket = "{where}", workers = {workers}{more} }}\ndns.nameservers = ["{lists.text}"]\n'
    return first + POLICY.replace("codes", f"ipv6 = {ipv6}, codes")


@pytest.fixture
def start(folder: Path, lists: NameServer) -> Iterator[Callable[..., Daemon]]:
    """Start daemons as a test wants them; none outlives it."""
    daemons: list[Daemon] = []

    def begin(*, wrapper: tuple[str, ...] = (), **options: object) -> Daemon:
        daemons.append(Daemon(folder, policy(folder, lists, **options), wrapper=wrapper))
        return daemons[-1]

    yield begin
    for daemon in daemons:
        daemon.kill()


@pytest.fixture(scope="module")
def shared(lists: NameServer) -> Iterator[Daemon]:
    """Return a daemon for tests that only talk to it."""
    with tempfile.TemporaryDirectory(prefix="daemon-") as made, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("STATE_DIRECTORY", made)
        daemon = Daemon(Path(made), policy(Path(made), lists, workers=1))
        yield daemon
        assert [line for line in daemon.log() if "Traceback" in line] == []
        daemon.stop()
        assert daemon.process.status == 0


def path(daemon: Daemon) -> str:
    return daemon.socket.removeprefix("local:")


def wait_until_refused(address: str) -> None:
    """Wait until nobody serves there any more."""

    def refused() -> bool:
        try:
            with Talk(address):
                return False
        except (OSError, MilterError):
            return True

    wait_until(refused, 10, f"{address} is refused")


# --- negotiation


NEGOTIATIONS = [
    # offered by the mail server, agreed
    (V6, (OURS, 0x3D0)),
    (V2, (OURS, 0x50)),
    ((constants.SMFI_V1_ACTS | constants.SMFIF_CHGHDRS, constants.SMFI_V2_PROT), (OURS & ~constants.SMFIF_QUARANTINE, 0x50)),
    ((constants.SMFIF_CHGBODY, constants.SMFI_V2_PROT), (0, 0x50)),
]


@pytest.mark.parametrize(("offered", "agreed"), NEGOTIATIONS)
def test_negotiation(shared, offered, agreed):
    with Talk(path(shared), offered) as talk:
        assert (talk.wire.action_flags, talk.wire.protocol_flags) == agreed
        assert agreed[1] & (constants.SMFIP_NOBODY | constants.SMFIP_NOEOH) == constants.SMFIP_NOBODY | constants.SMFIP_NOEOH
        talk.quit()


def test_what_is_not_asked_for_is_not_sent(shared):
    with Talk(path(shared)) as talk:
        flags = talk.wire.protocol_flags
    unwanted = (
        constants.SMFIP_NOBODY, constants.SMFIP_NOEOH, constants.SMFIP_NODATA, constants.SMFIP_NOUNKNOWN, constants.SMFIP_NR_HDR,
    )  # fmt: skip
    assert flags == sum(unwanted)


# --- dialogues

# A percent sign is written twice for Sendmail, who writes it once.
LOOK = "see https://bl.example/198.51.100.{}?x=%%2F"
TAGGED = ["addheader X-DNSBL-Score {0} (bl=+{0})", "addheader X-DNSBL-Action {1}"]
DIALOGUES = [
    # action, answer to the recipient, what is done with the message
    ("tag", "continue", [*TAGGED, "continue"]),
    ("defer", f"replycode 451 4.7.1 Mail from 198.51.100.2 is deferred, please try again later: listed by bl; {LOOK.format(2)}", ["continue"]),
    ("quarantine", "continue", [*TAGGED, "quarantine dnsbl-milter score=3 lists=bl", "continue"]),
    ("reject", f"replycode 550 5.7.1 Mail from 198.51.100.4 is refused: listed by bl; {LOOK.format(4)}", ["continue"]),
    ("discard", "continue", ["discard"]),
]


@pytest.mark.parametrize("offered", [V2, V6])
@pytest.mark.parametrize(("action", "answer", "done"), DIALOGUES)
def test_each_action(shared, offered, action, answer, done):
    with Talk(path(shared), offered) as talk:
        assert talk.through(CLIENTS[action]) == answer
        points = list(CLIENTS).index(action) + 1
        if answer == "continue":
            talk.header("Subject")
            wanted = [each.format(points, action) for each in done]
            assert [each for each in talk.end() if each != "continue"] == [each for each in wanted if each != "continue"]
        talk.quit()


def test_a_clean_client_and_an_exempt_one(shared):
    with Talk(path(shared)) as talk:
        assert talk.through(CLEAN) == "continue"
        assert talk.end() == ["continue"]
    with Talk(path(shared)) as talk:
        assert talk.connect(LOCAL, "localhost") == "accept"


def test_an_authenticated_submitter(shared):
    with Talk(path(shared)) as talk:
        talk.connect(CLIENTS["reject"])
        talk.helo()
        assert talk.mail(**{"{auth_authen}": "user"}) == "accept"


def test_an_ipv6_client(start):
    with Talk(path(start(workers=1, ipv6="true"))) as talk:
        assert talk.through("2001:db8::4").startswith("replycode 550 5.7.1 Mail from 2001:db8::4 is refused")


def test_a_mail_server_without_quarantine_gets_the_rest(shared):
    with Talk(path(shared), (constants.SMFI_V2_ACTS & ~constants.SMFIF_QUARANTINE, constants.SMFI_V2_PROT)) as talk:
        assert talk.through(CLIENTS["quarantine"]) == "continue"
        assert talk.header("X-DNSBL-Score") == "continue"
        assert talk.end() == [
            "chgheader 1 X-DNSBL-Score",
            "addheader X-DNSBL-Score 3 (bl=+3)",
            "addheader X-DNSBL-Action quarantine",
            "continue",
        ]


def test_forged_headers(shared):
    with Talk(path(shared)) as talk:
        talk.through(CLIENTS["tag"])
        for name in ("X-DNSBL-Score", "x-dnsbl-ACTION", "Subject", "X-dnsbl-score"):
            talk.header(name)
        assert talk.end() == [
            "chgheader 1 X-DNSBL-Score",
            "chgheader 2 X-DNSBL-Score",
            "chgheader 1 X-DNSBL-Action",
            "addheader X-DNSBL-Score 1 (bl=+1)",
            "addheader X-DNSBL-Action tag",
            "continue",
        ]


def test_several_messages_in_one_connection(shared, lists):
    lists.forget()
    with Talk(path(shared)) as talk:
        assert talk.through("198.51.100.3") == "continue"
        first = talk.end()
        assert talk.mail() == talk.rcpt() == "continue"
        talk.header("X-DNSBL-Action")
        talk.reset()
        assert talk.mail("<>") == "continue"
        assert talk.rcpt("<postmaster@acme123.com>") == "continue"
        assert talk.rcpt().startswith("replycode 451 4.7.1 This recipient needs a message of its own")
        assert talk.end() == ["continue"]
        assert talk.mail() == talk.rcpt() == "continue"
        assert talk.end() == first
    assert len([question for question in lists.questions if question.client == "198.51.100.3"]) <= 1


def test_another_client_over_the_same_connection(shared):
    """A mail server may keep the connection and begin anew (SMFIC_QUIT_NC); libmilter allows it after a message."""
    with Talk(path(shared)) as talk:
        assert talk.through(CLEAN) == "continue"
        for action, answer in (("tag", "continue"), ("quarantine", "continue"), ("tag", "continue"), ("reject", "replycode")):
            assert talk.end()[-1] == "continue"
            talk.wire._send(constants.SMFIC_QUIT_NC)
            assert talk.through(CLIENTS[action]).startswith(answer)
        assert [event["client"] for event in shared.events()[-5:]] == [CLEAN, *(CLIENTS[each] for each in ("tag", "quarantine", "tag", "reject"))]
        talk.quit()
    shared.wait_until_idle()


HOSTILE = ["\r\nforged=line", "\x00", "\x1b[2J", "\x7f", "größe", "%s%n", 'quote"', "x" * 900]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_break_no_line_and_no_reply(shared, text):
    text = text.replace("\0", "")
    with Talk(path(shared)) as talk:
        talk.connect(CLIENTS["reject"])
        talk.helo(text)
        assert talk.mail(f"<{text}@sender.example>") == "continue"
        assert talk.rcpt(f"<{text}@acme123.com>").startswith("replycode 550 5.7.1 Mail from 198.51.100.4 is refused")
    event = shared.events()[-1]
    assert event["recipient"] == f"{text}@acme123.com"
    assert event["sender"] == f"{text}@sender.example"


@pytest.mark.parametrize("what", [constants.SMFIC_HELO, constants.SMFIC_MAIL, constants.SMFIC_RCPT, constants.SMFIC_HEADER])
def test_bytes_that_are_no_text(shared, what):
    def raw(command_code: str, *words: bytes) -> bytes:
        data = b"".join(word + b"\0" for word in words)
        return (len(data) + 1).to_bytes(4, "big") + command_code.encode() + data

    with Talk(path(shared), V2) as talk:
        talk.connect(CLIENTS["reject"])
        for each, words in {
            constants.SMFIC_HELO: (b"sender.example",),
            constants.SMFIC_MAIL: (b"<a@sender.example>",),
            constants.SMFIC_RCPT: (b"<b@acme123.com>",),
            constants.SMFIC_HEADER: (b"Subject", b"x"),
        }.items():
            talk.stream.sendall(raw(each, *(b"\xff\xfe\x80" * (each == what) + word for word in words)))
            kind, values = talk.wire.recv()
            assert kind == (constants.SMFIR_REPLYCODE if each == constants.SMFIC_RCPT else constants.SMFIR_CONTINUE)
            assert values.get("smtpcode", "550") == "550"


# --- connections that end in their own way


def test_who_negotiates_and_quits(shared):
    for offered in V2, V6:
        with Talk(path(shared), offered) as talk:
            talk.quit()


def test_who_hangs_up_at_any_point(shared):
    shared.wait_until_idle()
    before = shared.descriptors()
    steps = [
        lambda talk: talk.connect(CLIENTS["tag"]),
        lambda talk: talk.helo(),
        lambda talk: talk.mail(),
        lambda talk: talk.rcpt(),
        lambda talk: talk.header("Subject"),
        lambda talk: talk.end(),
    ]
    for count in range(len(steps) + 1):
        with Talk(path(shared)) as talk:
            for step in steps[:count]:
                step(talk)
    # Who never says a word, and who begins with nonsense.
    with Talk(path(shared), None):
        pass
    with Talk(path(shared), None) as talk:
        talk.stream.sendall(b"EHLO sender.example\r\n")
    with Talk(path(shared), None) as talk:
        talk.stream.sendall(b"\xff\xff\xff\xffO")
        assert talk.stream.recv(1) == b""
    shared.wait_until_idle()
    assert shared.lookups() == dict.fromkeys(shared.workers(), 0)
    wait_until(lambda: all(count <= before[pid] for pid, count in shared.descriptors().items()), 10, "nothing is left open")


def test_a_connection_that_never_negotiates_holds_nobody_up(start):
    daemon = start(workers=1)
    with Talk(path(daemon), None), Talk(path(daemon), None) as silent, Talk(path(daemon)) as talk:
        assert talk.through(CLIENTS["tag"]) == "continue"
        talk.quit()
        begin = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.wait_until_ended(10) == 0
        assert time.monotonic() - begin < 10
        with contextlib.suppress(ConnectionResetError):
            assert silent.stream.recv(1) == b""


def test_two_hundred_connections_at_once(start):
    daemon = start(workers=2)
    with contextlib.ExitStack() as stack:
        talks = [stack.enter_context(Talk(path(daemon), None)) for _ in range(200)]
        for talk in talks:
            talk.wire.optneg_mta(*V6)
        wanted = [list(CLIENTS)[number % 5] for number in range(200)]
        answers = [talk.through(CLIENTS[action]) for talk, action in zip(talks, wanted, strict=True)]
        given = {action: answer for action, answer, _ in DIALOGUES}
        assert answers == [given[action] for action in wanted]
        sessions = daemon.sessions()
        assert sum(sessions.values()) == 200
        assert all(sessions.values())
        for talk in talks:
            talk.quit()
    daemon.wait_until_idle()
    assert len(daemon.decisions()) == 200
    daemon.stop()
    assert daemon.process.status == 0


# --- workers that die


def ages(daemon: Daemon) -> dict[int, str]:
    """Return the state of each child: R, S, Z..."""
    states = {}
    for pid in daemon.workers():
        with contextlib.suppress(FileNotFoundError):
            states[pid] = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return states


def died(daemon: Daemon) -> list[dict[str, object]]:
    return [event for event in daemon.events() if event["event"] == "worker died"]


def worker_of(daemon: Daemon, talk: Talk) -> int:
    """Return the worker that serves a session; there is only this one."""
    (pid,) = [pid for pid, count in daemon.sessions().items() if count]
    return pid


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_every_worker_keeps_to_one_cpu_and_as_far_as_there_are_enough_to_its_own(start, workers):
    daemon = start(workers=workers)
    ours = os.sched_getaffinity(0)
    kept = [os.sched_getaffinity(worker) for worker in daemon.workers()]
    assert all(len(each) == 1 and each <= ours for each in kept)
    assert len(set().union(*kept)) == min(workers, len(ours))


def test_a_worker_that_is_killed_is_replaced_and_the_others_go_on(start):
    daemon = start(workers=2)
    with Talk(path(daemon)) as talk:
        assert talk.through(CLIENTS["tag"]) == "continue"
        ours = worker_of(daemon, talk)
        (other,) = set(daemon.workers()) - {ours}
        os.kill(other, signal.SIGKILL)
        wait_until(lambda: other not in daemon.workers() and len(daemon.workers()) == 2, 10, "the worker is replaced")
        assert ours in daemon.workers()
        assert talk.end()[-1] == "continue"
    (death,) = died(daemon)
    assert (death["pid"], death["status"], death["restart_in"]) == (str(other), "-9", "0.1")
    with Talk(path(daemon)) as talk:
        assert talk.through(CLIENTS["tag"]) == "continue"
        os.kill(worker_of(daemon, talk), signal.SIGKILL)
        with pytest.raises((MilterError, ConnectionError)):
            talk.end()
    wait_until(lambda: len(died(daemon)) == 2 and len(daemon.workers()) == 2, 10, "the worker is replaced")
    assert "Z" not in ages(daemon).values()


def test_a_worker_that_dies_again_and_again_is_replaced_more_and_more_slowly(start):
    daemon = start(workers=1)
    begin = time.monotonic()

    def kill_whoever_is_there() -> bool:
        for pid in daemon.workers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(died(daemon)) >= 5

    wait_until(kill_whoever_is_there, 20, "the worker has died five times")
    took = time.monotonic() - begin
    assert [death["restart_in"] for death in died(daemon)[:5]] == ["0.1", "0.2", "0.4", "0.8", "1.6"]
    # Five deaths cannot come faster than the four pauses between them.
    assert took >= 0.1 + 0.2 + 0.4 + 0.8
    assert "Z" not in ages(daemon).values()


def test_where_no_process_can_be_started_it_is_tried_again(start):
    daemon = start(workers=2)
    supervisor = daemon.process.pid
    before = resource.prlimit(supervisor, resource.RLIMIT_NOFILE)

    def opened() -> set[int]:
        return {int(entry.name) for entry in Path(f"/proc/{supervisor}/fd").iterdir()}

    def attempts() -> int:
        return sum('fault="Too many open files"' in line for line in daemon.log())

    count = len(opened())
    with Talk(path(daemon)) as talk:
        talk.through(CLIENTS["tag"])
        (other,) = set(daemon.workers()) - {worker_of(daemon, talk)}
        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (3, before[1]))
        os.kill(other, signal.SIGKILL)
        wait_until(lambda: attempts() >= 1, 10, "it tries in vain")
        # Now there is room for one of the two pipes that a process takes, and it must not be lost.
        free = [number for number in range(len(opened()) + 3) if number not in opened()]
        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (free[2], before[1]))
        tried = attempts()
        wait_until(lambda: attempts() > tried, 10, "it tries in vain again")
        assert talk.end()[-1] == "continue"
        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, before)
        wait_until(lambda: len(daemon.workers()) == 2, 10, "the worker is replaced")
    wait_until(lambda: len(opened()) == count, 10, "as much is open as before")
    daemon.stop()
    assert daemon.process.status == 0


# --- the end of the daemon


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_daemon_that_is_told_to_stop_finishes_its_sessions(start, number):
    daemon = start(workers=2)
    with Talk(path(daemon)) as talk:
        assert talk.through(CLIENTS["quarantine"]) == "continue"
        daemon.process.send_signal(number)
        daemon.wait_for_log("stopping")
        wait_until_refused(path(daemon))
        assert not Path(path(daemon)).exists()
        assert [answer.split()[0] for answer in talk.end()] == ["addheader", "addheader", "quarantine", "continue"]
        # And another message, for it is the connection that is finished.
        assert talk.mail() == talk.rcpt() == "continue"
        assert talk.end()[-1] == "continue"
        assert daemon.process.alive
        talk.quit()
    assert daemon.wait_until_ended(10) == 0
    assert daemon.log()[-1].startswith("stopped ")


def test_ctrl_c_reaches_the_whole_group_and_breaks_no_session(start):
    daemon = start(workers=2)
    with Talk(path(daemon)) as talk:
        assert talk.through(CLIENTS["tag"]) == "continue"
        os.killpg(daemon.process.pid, signal.SIGINT)
        daemon.wait_for_log("stopping signal=SIGINT")
        assert talk.end()[-1] == "continue"
        talk.quit()
    assert daemon.wait_until_ended(10) == 0


def test_a_session_that_never_ends_is_cut_off_at_the_deadline(start):
    daemon = start(workers=2, more=", drain_seconds = 1.5")
    with Talk(path(daemon)) as talk:
        talk.through(CLIENTS["tag"])
        begin = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.wait_until_ended(10) == 0
        assert 1.5 <= time.monotonic() - begin < 8
        with pytest.raises((MilterError, ConnectionError)):
            talk.end()
    assert len([event for event in daemon.events() if str(event["event"]).startswith("killed")]) == 1


def test_who_asks_twice_does_not_want_to_wait(start):
    daemon = start(workers=1)
    with Talk(path(daemon)) as talk:
        talk.through(CLIENTS["tag"])
        daemon.process.send_signal(signal.SIGTERM)
        daemon.wait_for_log("stopping")
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.wait_until_ended(10) == 0


def test_a_worker_that_died_unnoticed_does_not_keep_the_daemon_from_stopping(start):
    daemon = start(workers=2)
    with Talk(path(daemon)) as talk:
        talk.through(CLIENTS["tag"])
        (other,) = set(daemon.workers()) - {worker_of(daemon, talk)}
        # It hears of the death and of the end at once.
        daemon.process.send_signal(signal.SIGSTOP)
        os.kill(other, signal.SIGKILL)
        wait_until(lambda: ages(daemon).get(other) == "Z", 10, "the worker is dead")
        daemon.process.send_signal(signal.SIGTERM)
        daemon.process.send_signal(signal.SIGCONT)
        daemon.wait_for_log("stopping")
        assert talk.end()[-1] == "continue"
        talk.quit()
    assert daemon.wait_until_ended(10) == 0


def test_a_word_to_a_process_that_has_just_died_is_no_fault():
    reading, writing = os.pipe()
    signs, other = os.pipe()
    os.close(reading)
    gone = Child(pid=0, control=writing, signs=signs, number=0)
    gone.tell(DRAIN)
    os.close(other)
    assert gone.listen() is False
    assert gone.serving is False
    gone.close()


def test_workers_finish_their_sessions_when_the_supervisor_is_killed(start):
    daemon = start(workers=2)
    workers = daemon.workers()
    with Talk(path(daemon)) as talk:
        assert talk.through(CLIENTS["quarantine"]) == "continue"
        busy = worker_of(daemon, talk)
        os.kill(daemon.process.pid, signal.SIGKILL)
        idle = set(workers) - {busy}
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in idle), 10, "the idle worker has left")
        # The path is still there, and nobody serves it; so the next daemon takes it over.
        assert Path(path(daemon)).is_socket()
        wait_until_refused(path(daemon))
        successor = start(workers=2)
        with Talk(path(successor)) as other:
            assert other.through(CLIENTS["tag"]) == "continue"
            assert talk.end()[-1] == "continue"
            talk.quit()
            wait_until(lambda: not Path(f"/proc/{busy}").exists(), 10, "the last worker has left")
            assert other.end()[-1] == "continue"


def test_a_successor_starts_at_once_after_a_crash(start):
    daemon = start(workers=2)
    for pid in [daemon.process.pid, *daemon.workers()]:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not daemon.process.alive, 10, "the daemon is gone")
    with Talk(path(start(workers=1))) as talk:
        assert talk.through(CLIENTS["tag"]) == "continue"


def test_a_second_daemon_does_not_rob_the_first(start):
    daemon = start(workers=1)
    done = command("run", "--config", daemon.configuration)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"{daemon.configuration}: milter.socket: another process serves {daemon.socket}; "
        "stop it first, or choose another path\n"
    )
    with Talk(path(daemon)) as talk:
        assert talk.through(CLIENTS["tag"]) == "continue"


# --- where it listens


def free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(("kind", "host"), [("inet", "127.0.0.1"), ("inet6", "::1")])
def test_every_kind_of_socket_serves_and_drains(start, kind, host):
    port = free_port(host)
    daemon = start(workers=2, where=f"{kind}:{port}@{host}")
    with contextlib.ExitStack() as stack:
        talks = [stack.enter_context(Talk((host, port))) for _ in range(20)]
        for talk in talks:
            assert talk.through(CLIENTS["tag"]) == "continue"
        daemon.process.send_signal(signal.SIGTERM)
        daemon.wait_for_log("stopping")
        for talk in talks:
            assert talk.end()[-1] == "continue"
            talk.quit()
    assert daemon.wait_until_ended(10) == 0
    with pytest.raises(ConnectionRefusedError):
        Talk((host, port))


@pytest.mark.parametrize("mode", ["0600", "0666"])
def test_the_socket_has_its_mode(start, mode):
    daemon = start(workers=1, more=f', socket_mode = "{mode}"')
    assert stat.S_IMODE(Path(path(daemon)).stat().st_mode) == int(mode, 8)


UNPRIVILEGED = """
import os, sys
from dnsbl_milter.cli import main
from dnsbl_milter.configuration import catalog
# Where an ordinary user cannot read Python itself, what is imported late is imported now.
catalog()
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
main(sys.argv[4:])
"""


def test_no_privileges_are_needed(start, folder):
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
    daemon = start(workers=2, wrapper=(sys.executable, "-c", UNPRIVILEGED))
    for pid in [daemon.process.pid, *daemon.workers()]:
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert "0" not in status["Uid"].split()
        assert int(status["CapEff"], 16) == 0
    with Talk(path(daemon)) as talk:
        assert talk.through(CLIENTS["quarantine"]) == "continue"
        assert talk.end()[-1] == "continue"
        talk.quit()
    daemon.stop()
    assert daemon.process.status == 0
    assert not Path(path(daemon)).exists()


# --- a log that nobody reads


@contextlib.contextmanager
def running(folder: Path, text: str, *, shell: str = "", **options: object) -> Iterator[subprocess.Popen]:
    """Run a daemon without a log file; it is killed in the end if it has not ended."""
    configuration = folder / "dnsbl-milter.toml"
    configuration.write_text(text)
    argv = [sys.executable, "-m", "dnsbl_milter", "run", "--config", str(configuration)]
    argv = ["/bin/sh", "-c", shell, "sh", *argv] if shell else argv
    child = subprocess.Popen(argv, env=os.environ | environment(), stdin=subprocess.DEVNULL, start_new_session=True, **options)
    with child:
        try:
            yield child
        finally:
            if child.poll() is None:
                child.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(10)
                child.kill()


def test_a_log_that_is_full_does_not_stop_the_mail(folder, lists):
    with running(folder, policy(folder, lists, workers=1), stderr=subprocess.PIPE) as child:
        fcntl.fcntl(child.stderr, fcntl.F_SETPIPE_SZ, 4096)
        first = b""
        while b"serving" not in first:
            first += os.read(child.stderr.fileno(), 4096)
        begin = time.monotonic()
        for _ in range(100):
            with Talk(f"{folder}/m.sock") as talk:
                assert talk.through(CLIENTS["tag"]) == "continue"
        # One second is given once, and not for each line.
        assert time.monotonic() - begin < 10
        read = os.read(child.stderr.fileno(), 65536)
        assert 1 <= read.count(b"decision ") < 40
        with Talk(f"{folder}/m.sock") as talk:
            assert talk.through(CLIENTS["tag"]) == "continue"
        read = os.read(child.stderr.fileno(), 65536)
        assert b"log lines lost level=warning lines=" in read
        child.terminate()
        while select.select([child.stderr], [], [], 10)[0] and os.read(child.stderr.fileno(), 65536):
            pass
        assert child.wait(10) == 0


def test_without_a_log_at_all_mail_is_judged(folder, lists):
    with running(folder, policy(folder, lists, workers=2), shell='exec "$@" >&- 2>&- <&-') as child:
        wait_until((folder / "m.sock").exists, 10, "the socket is there")
        for action, answer, _ in DIALOGUES:
            with Talk(f"{folder}/m.sock") as talk:
                assert talk.through(CLIENTS[action]) == answer
        child.terminate()
        assert child.wait(10) == 0


def test_a_reader_that_is_gone_does_not_stop_the_mail(folder, lists):
    with running(folder, policy(folder, lists, workers=1), stderr=subprocess.PIPE) as child:
        while b"serving" not in os.read(child.stderr.fileno(), 4096):
            pass
        child.stderr.close()
        for action, answer, _ in DIALOGUES:
            with Talk(f"{folder}/m.sock") as talk:
                assert talk.through(CLIENTS[action]) == answer
        child.terminate()
        assert child.wait(10) == 0


# --- a start that fails


FAILING = [
    # socket, message
    ("local:{folder}/missing/m.sock", "the folder {folder}/missing does not exist; create it, owned by the milter's user"),
    ("inet:{port}@127.0.0.1", "the port is taken; stop what listens there, or choose another port"),
    ("inet:8891@8.8.8.8", "this host does not have that address"),
]


@pytest.mark.parametrize(("where", "message"), FAILING)
def test_a_start_that_fails_is_one_line(folder, lists, where, message):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        names = {"folder": folder, "port": taken.getsockname()[1]}
        where = where.format(**names)
        file = folder / "f.toml"
        file.write_text(policy(folder, lists, where=where))
        done = command("run", "--config", file)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{file}: milter.socket: cannot listen on {where}: {message.format(**names)}\n"


def test_the_port_for_metrics_is_taken(folder, lists):
    file = folder / "f.toml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        file.write_text(policy(folder, lists).replace('metrics.listen = ""', f'metrics.listen = "{listen}"'))
        done = command("run", "--config", file)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f'{file}: metrics.listen: cannot listen on {listen}: the port is taken; choose another, or "" for none\n'
    )
    # And what was opened before is not left behind.
    assert not (folder / "m.sock").exists()


# --- a name server that does not answer


def test_mail_flows_while_no_list_answers(folder, start, lists):
    daemon = start(workers=1)
    lists.handler = lambda _question: ()
    try:
        begin = time.monotonic()
        with Talk(path(daemon)) as talk:
            assert talk.through("198.51.100.4") == "continue"
            assert talk.end() == ["continue"]
        assert 1.9 < time.monotonic() - begin < 8
    finally:
        lists.handler = None
    assert "unknown=bl:timeout" in daemon.decisions()[-1]


def test_a_late_answer_is_known_in_the_next_connection(folder, start):
    late = Reply(("127.0.0.4",), delay=0.3)
    with NameServer({"bl.example": {"198.51.100.4": late}}) as server:
        daemon = Daemon(folder, policy(folder, server, workers=1))
        try:
            with Talk(path(daemon)) as talk:
                talk.connect("198.51.100.4")
                server.wait_for(1)
                talk.helo()
                talk.mail()
                assert talk.rcpt("<postmaster@acme123.com>") == "continue"
                assert talk.rcpt().startswith("replycode 550")
            daemon.wait_until_idle()
            with Talk(path(daemon)) as talk:
                assert talk.through("198.51.100.4").startswith("replycode 550")
            assert len([each for each in server.questions if each.client == "198.51.100.4"]) == 1
            assert daemon.decisions()[-1].endswith("cached=yes")
        finally:
            daemon.kill()
