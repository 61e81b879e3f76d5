"""The units as systemd judges them, and the protocol between it and the daemon, spoken for real."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from faulty import NameServer, listed
from mta import ACCEPT, Session
from service import Service, policy

from dnsbl_milter.configuration import DEFAULT_PATH
from dnsbl_milter.settings import MilterSection
from mailhost.daemon import environment
from mailhost.process import program

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "systemd"
CLIENT, CLEAN = "192.0.2.7", "192.0.2.8"
ZONES = {"one.example": {CLIENT: listed("127.0.0.2")}}
WATCHDOG = 3.0


def unit(name):
    """Return a unit's settings by section; a setting that stands twice has two values."""
    parsed = {}
    for line in (UNITS / name).read_text().splitlines():
        if line.startswith("["):
            section = parsed.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            section.setdefault(key, []).append(value)
    return parsed


SERVICE, SOCKET = unit("dnsbl-milter.service"), unit("dnsbl-milter.socket")


def run(*arguments, **options):
    return subprocess.run(arguments, capture_output=True, text=True, check=False, **options)


# --- the files


@pytest.fixture
def installed(tmp_path):
    """Return a folder with both units, in which only what they start is another file: a verifier wants it there."""
    for name in ("dnsbl-milter.service", "dnsbl-milter.socket"):
        text = (UNITS / name).read_text().replace("/opt/dnsbl-milter/bin/dnsbl-milter", "/bin/true")
        (tmp_path / name).write_text(text)
    return tmp_path


def test_systemd_finds_nothing_wrong(installed):
    done = run("systemd-analyze", "verify", "--man=no", *map(str, sorted(installed.iterdir())))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_verifier_would_find_something(installed):
    path = installed / "dnsbl-milter.service"
    path.write_text(path.read_text().replace("KillMode=mixed", "KillMode=misspelt"))
    assert "misspelt" in run("systemd-analyze", "verify", "--man=no", str(path)).stderr


def test_the_service_is_closed():
    done = run("systemd-analyze", "security", "--offline=true", "--threshold=15", str(UNITS / "dnsbl-milter.service"))
    exposure = float(re.search(r"Overall exposure level for \S+ ([\d.]+)", done.stdout.replace(":", ""))[1])
    assert exposure <= 1.5
    assert done.returncode == 0


def test_what_the_contract_asks_for():
    service = SERVICE["Service"]
    assert service["Type"] == ["notify"]
    assert service["KillMode"] == ["mixed"]
    assert service["ExecReload"][0].endswith("kill -HUP $MAINPID")
    assert float(service["WatchdogSec"][0].removesuffix("s")) >= 10
    assert float(service["TimeoutStopSec"][0].removesuffix("s")) > MilterSection().drain_seconds
    assert str(DEFAULT_PATH) in service["ExecStart"][0]
    assert SOCKET["Socket"]["SocketGroup"] == ["smmta"]


def test_the_socket_is_where_the_daemon_and_sendmail_look_for_it():
    (path,) = SOCKET["Socket"]["ListenStream"]
    assert MilterSection().socket == f"local:{path}"
    assert SOCKET["Socket"]["SocketMode"] == [MilterSection().socket_mode]
    assert f"S=local:{path}" in (ROOT / "README.md").read_text()


def test_a_stop_of_the_service_does_not_remove_the_socket():
    # systemd removes a RuntimeDirectory= with all that is in it.
    (path,) = SOCKET["Socket"]["ListenStream"]
    for folder in SERVICE["Service"]["RuntimeDirectory"]:
        assert not path.startswith(f"/run/{folder}/")


def test_the_user_is_made():
    done = run("systemd-sysusers", "--dry-run", "--root=/", str(UNITS / "dnsbl-milter.sysusers"))
    assert done.returncode == 0, done.stderr
    (user,) = SERVICE["Service"]["User"]
    assert re.search(rf"^u +{user} ", (UNITS / "dnsbl-milter.sysusers").read_text(), re.MULTILINE)


def test_the_folders_are_made(tmp_path):
    """Nothing outside the root is touched; its own passwd has the user."""
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "passwd").write_text("root:x:0:0:::\ndnsbl-milter:x:990:991:::\n")
    (etc / "group").write_text("root:x:0:\ndnsbl-milter:x:991:\n")
    rules = tmp_path / "rules.conf"
    rules.write_text((UNITS / "dnsbl-milter.tmpfiles").read_text())
    (etc / "dnsbl-milter").mkdir()
    (etc / "dnsbl-milter" / "dnsbl-milter.toml").touch()
    done = run("systemd-tmpfiles", "--create", f"--root={tmp_path}", str(rules))
    assert done.returncode == 0, done.stderr
    for name, mode, group in [
        ("run/dnsbl-milter", 0o755, 0),
        ("etc/dnsbl-milter", 0o750, 991),
        ("etc/dnsbl-milter/dnsbl-milter.toml", 0o640, 991),
        ("etc/dnsbl-milter/keys", 0o700, 0),
    ]:
        found = (tmp_path / name).stat()
        assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (mode, 0, group), name


# --- the protocol


@pytest.fixture
def name_server():
    with NameServer(ZONES) as server:
        yield server


@pytest.fixture
def passed(tmp_path):
    """Return a listening socket as systemd would have opened it, and its path."""
    path = str(tmp_path / "milter.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(path)
        listening.listen(512)
        yield listening, path


def ask(path):
    with Session(path, CLIENT) as session:
        return session.recipient()


def test_the_service_manager_is_told_everything(tmp_path, name_server):
    path = str(tmp_path / "milter.sock")
    with Service(tmp_path, policy(name_server.text, path), watchdog=WATCHDOG) as service:
        # Ready is said when mail is judged, not before.
        assert ask(path) == 451
        assert "STATUS=Serving with 2 workers" in [said for _, said in service.told]
        service.wait_for("WATCHDOG=1")
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        service.reload_and_wait()
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        said = [said for _, said in service.told]
        reload = said.index("RELOADING=1")
        (when,) = (word for word in said if word.startswith("MONOTONIC_USEC="))
        assert before <= int(when.removeprefix("MONOTONIC_USEC=")) <= after
        assert said[:reload].count("READY=1") == said[reload:].count("READY=1") == 1
        assert service.stop() == 0
        said = [said for _, said in service.told]
        assert said.count("STOPPING=1") == 1
        assert "WATCHDOG=1" not in said[said.index("STOPPING=1") :]
        assert not Path(path).exists()


def test_a_refused_reload_ends_and_says_so(tmp_path, name_server):
    path = str(tmp_path / "milter.sock")
    with Service(tmp_path, policy(name_server.text, path)) as service:
        service.write("[actions]\ntag = 'high'\n")
        service.reload_and_wait()
        said = [said for _, said in service.told]
        assert said[-2:] == ["READY=1", "STATUS=Serving with 2 workers; the last reload was refused, see the log"]
        service.write(policy(name_server.text, path))
        service.reload_and_wait()
        assert service.told[-1][1] == "STATUS=Serving with 2 workers"


LEVELS = {"started": "<6>", "serving": "<6>", "decision": "<6>", "reloaded": "<6>", "configuration": "<4>", "reload refused": "<3>"}
"""Events of the supervisor and of a worker, and how the journal is told their level."""


@pytest.mark.parametrize("is_journal", [True, False], ids=["the journal", "a file, while the journal is elsewhere"])
def test_the_journal_learns_the_level_of_each_line(tmp_path, name_server, monkeypatch, is_journal):
    """JOURNAL_STREAM names the stream that is the journal (systemd.exec(5)); here a file stands for it."""
    log = tmp_path / "log"
    log.touch()
    elsewhere = 0 if is_journal else 1
    monkeypatch.setenv("JOURNAL_STREAM", f"{log.stat().st_dev}:{log.stat().st_ino + elsewhere}")
    path = str(tmp_path / "milter.sock")
    with Service(tmp_path, policy(name_server.text, path)) as service:
        service.write("[actions]\ntag = 'high'\n")
        service.reload_and_wait()
        service.write(policy(name_server.text, path, actions="{ defer = 3, reject = 99 }"))  # of which it warns
        service.reload_and_wait()
        assert ask(path) == 451
        service.wait_until(lambda: "decision " in service.log(), "it has logged the decision")
        lines = [re.match(r"(<\d>)?(\w+(?: \w+)*?)(?= \w+=|$)", line) for line in service.log().splitlines()]
    expected = LEVELS if is_journal else dict.fromkeys(LEVELS)
    assert {event: level for level, event in (line.groups() for line in lines)} == expected


def test_nothing_takes_the_level_from_the_journal():
    # yes is the default of both.
    assert SERVICE["Service"].get("SyslogLevelPrefix", ["yes"]) == ["yes"]
    assert SERVICE["Service"].get("StandardError", ["journal"]) == ["journal"]


def fill(queue):
    """Send to a socket that nobody reads until it takes no more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, suppress(BlockingIOError):
        while True:
            sender.sendto(b"full", socket.MSG_DONTWAIT, queue)


def test_a_service_manager_that_does_not_listen_stops_nobody(tmp_path, name_server):
    path = str(tmp_path / "milter.sock")
    service = Service(tmp_path, policy(name_server.text, path), watchdog=WATCHDOG, deaf=True)
    fill(str(tmp_path / "notify"))
    try:
        service.launch()
        service.wait_until(lambda: "\nserving" in service.log(), "it serves")
        service.reload()
        service.wait_until(lambda: "\nreloaded" in service.log(), "it has reloaded")
        assert ask(path) == 451
        assert service.stop() == 0
    finally:
        service.end()


def test_the_passed_socket_serves_and_outlives_the_daemon(tmp_path, name_server, passed):
    listening, path = passed
    with Service(tmp_path, policy(name_server.text, path), listening=listening) as service:
        inode = Path(path).stat().st_ino
        assert ask(path) == 451
        service.restart()
        assert ask(path) == 451
        assert service.stop() == 0
        assert Path(path).stat().st_ino == inode


def test_what_is_passed_to_another_process_is_not_ours(tmp_path):
    """LISTEN_PID names whom the descriptors are for (sd_listen_fds(3))."""
    code = "from dnsbl_milter import notify; print(notify.passed_sockets())"
    done = run(
        sys.executable, "-c", code, env=environment() | {"LISTEN_PID": "1", "LISTEN_FDS": "1"}, pass_fds=()
    )
    assert done.stdout == "{}\n", done.stderr


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_passed_socket_of_any_family_serves(tmp_path, name_server, family):
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.bind((host, 0))
        listening.listen(64)
        port = listening.getsockname()[1]
        address = f"{'inet' if family == socket.AF_INET else 'inet6'}:{port}@{host}"
        with Service(tmp_path, policy(name_server.text, address), listening=listening):
            assert ask((host, port)) == 451


def test_a_socket_of_another_family_is_refused(tmp_path, name_server):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        service = Service(tmp_path, policy(name_server.text, tmp_path / "milter.sock"), listening=listening)
        try:
            service.launch()
            assert service.process.wait(20) == 2
            assert "make ListenStream= in the socket unit and this key agree" in service.log()
            assert "Traceback" not in service.log()
        finally:
            service.end()


def test_a_restart_under_traffic_refuses_none_and_loses_none(tmp_path, name_server, passed):
    listening, path = passed
    sessions, parallel = 200, 8
    halfway, done = threading.Event(), []

    def play(number):
        listed_client = number % 2 == 0
        with Session(path, CLIENT if listed_client else CLEAN) as session:
            answer = session.recipient()
            if answer == ACCEPT:
                session.message(("Subject", "hello"))
        done.append(number)
        if len(done) >= sessions // 4:
            halfway.set()
        return answer == (451 if listed_client else ACCEPT)

    with Service(tmp_path, policy(name_server.text, path), listening=listening) as service, ThreadPoolExecutor(parallel) as pool:
        answers = [pool.submit(play, number) for number in range(sessions)]
        assert halfway.wait(30)
        service.restart()
        assert [each.result() for each in answers] == [True] * sessions
        assert len(done) == sessions
        # Both daemons had their share, or nothing was restarted under traffic.
        second = service.metrics()["dnsbl_connections_total", ()]
        assert 0 < second < sessions


def test_a_starved_watchdog_and_a_fed_one(tmp_path, name_server):
    path = str(tmp_path / "milter.sock")
    with Service(tmp_path, policy(name_server.text, path), watchdog=WATCHDOG) as service:

        def last_fed():
            return max(when for when, said in list(service.told) if said == "WATCHDOG=1")

        service.wait_for("WATCHDOG=1")
        status, said = service.health()
        assert (status, said["status"], said["workers"]) == (200, "ok", {"serving": 2, "draining": 0})
        first, second = workers = service.workers()
        # One that answers is enough.
        stop(first)
        service.wait_until(lambda: service.health()[1]["workers"]["serving"] == 1, "one worker is missed")
        moment = time.monotonic()
        service.wait_until(lambda: last_fed() > moment, "the watchdog is fed")
        assert service.health()[0] == 200
        assert ask(path) == 451
        stop(second)
        # What systemd waits for before it ends the service.
        service.wait_until(lambda: time.monotonic() - last_fed() > WATCHDOG, "the watchdog has starved")
        status, said = service.health()
        assert (status, said["status"], said["workers"]["serving"]) == (503, "no worker serves", 0)
        assert service.metrics()["dnsbl_workers", (("state", "serving"),)] == 0
        for pid in workers:
            go_on(pid)
        service.wait_until(lambda: service.health()[0] == 200, "a worker serves again")
        moment = time.monotonic()
        service.wait_until(lambda: last_fed() > moment, "the watchdog is fed again")
        assert service.workers() == workers


def test_a_short_watchdog_is_fed_about_twice_as_often_as_it_asks(tmp_path, name_server):
    """As sd_watchdog_enabled(3) recommends; beats of a second starve one of a second."""
    watchdog = 1.0
    with Service(tmp_path, policy(name_server.text, tmp_path / "milter.sock"), watchdog=watchdog) as service:
        service.wait_until(lambda: service.count("WATCHDOG=1") >= 6, "it was fed six times", 60)
        fed = [when for when, said in service.told if said == "WATCHDOG=1"]
        gaps = sorted(later - earlier for earlier, later in pairwise(fed))
        assert gaps[len(gaps) // 2] < 0.75 * watchdog


def stop(pid):
    signal_one(pid, signal.SIGSTOP)


def go_on(pid):
    signal_one(pid, signal.SIGCONT)


def signal_one(pid, number):
    os.kill(pid, number)


# --- the sandbox


def test_the_daemon_does_nothing_that_the_sandbox_forbids(tmp_path, name_server):
    """Every system call of a whole life, reload and worker's death included, is held against the unit's filter."""
    allowed = set()
    # Line by line, as systemd.exec(5) has it: a later one takes away from, or adds to, what the ones before it left.
    for words in SERVICE["Service"]["SystemCallFilter"]:
        calls = set().union(*(calls_of(group) for group in words.removeprefix("~").split()))
        allowed = allowed - calls if words.startswith("~") else allowed | calls
    path = str(tmp_path / "milter.sock")
    trace = tmp_path / "trace"
    strace = (program("strace", "strace"), "-D", "-f", "-qq", "-o", str(trace))
    with Service(tmp_path, policy(name_server.text, path), wrapper=strace) as service:
        assert ask(path) == 451
        assert service.page("/")[0] == service.page("/metrics")[0] == 200
        service.reload_and_wait()
        assert ask(path) == 451
        signal_one(service.workers()[0], signal.SIGKILL)
        service.wait_until(lambda: service.health()[1]["workers"]["serving"] == 2, "the worker is replaced")
        assert service.stop() == 0
    made = set(re.findall(r"^\d+ +(\w+)\(", trace.read_text(errors="replace"), re.MULTILINE))
    assert {"execve", "clone3", "clone"} & made
    assert made - allowed == set()
    executable = [line for line in trace.read_text(errors="replace").splitlines() if re.search(r"PROT_WRITE\|PROT_EXEC", line)]
    assert executable == []


def calls_of(group):
    """Return the system calls of a group, and of the groups within it."""
    if not group.startswith("@"):
        return {group}
    lines = run("systemd-analyze", "syscall-filter", group).stdout.splitlines()[1:]
    names = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    return set().union(*(calls_of(name) for name in names))
