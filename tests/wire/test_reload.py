"""SIGHUP on a daemon that has sessions: they end as they began, new ones get the new policy, nothing is lost."""

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

import pytest
from faulty import NameServer, listed
from miltertest import MilterError
from mta import ACCEPT, Session, action
from service import Service, policy

from mailhost.daemon import Daemon, children, environment
from mailhost.process import wait_until

CLIENT, CLEAN = "192.0.2.7", "192.0.2.8"
BEFORE, AFTER = "{ tag = 4 }", "{ reject = 4 }"
"""The listed client's four points: tagged at first, and rejected once a reload has taken effect."""


@pytest.fixture
def name_server():
    with NameServer({"one.example": {CLIENT: listed("127.0.0.2")}}) as server:
        yield server


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "milter.sock")


@pytest.fixture
def write(name_server, path):
    """Return the text of a configuration with these actions."""
    return lambda actions=BEFORE, **milter: policy(name_server.text, path, actions=actions, **milter)


@pytest.fixture
def service(tmp_path, write):
    with Service(tmp_path, write()) as started:
        yield started


def draining(service):
    return service.metrics()["dnsbl_workers", (("state", "draining"),)]


def wait_until_drained(service):
    """Return once the generation that serves is the only one: its workers and its monitor."""
    service.wait_until(lambda: draining(service) == 0, "nothing drains", 40)
    wait_until(lambda: len(children(service.process.pid)) == 3, 10, "there are three processes")


def accepted(path, connections):
    """Tell whether as many connections have been accepted: each has an unnamed peer that is connected to the path."""
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return sum(row[7:] == [path] and row[5] == "03" and row[6] != "0" for row in rows) >= connections


def told(path):
    """Return what the listed client is answered."""
    with Session(path, CLIENT) as session:
        return session.recipient()


# --- what it is for


def test_fifty_open_sessions_end_as_they_began_and_new_ones_get_the_new_policy(service, path, write):
    sessions = [Session(path, CLIENT).__enter__() for _ in range(50)]
    half = sessions[::2]
    assert {session.recipient() for session in half} == {ACCEPT}
    service.write(write(AFTER))
    service.reload_and_wait()
    assert told(path) == 550
    assert draining(service) > 0
    with ThreadPoolExecutor(10) as pool:
        # Those that had asked nothing yet, and those in the middle of a message, know the policy they began with.
        answers = list(pool.map(lambda session: ACCEPT if session in half else session.recipient(), sessions))
        done = list(pool.map(lambda session: action(session.message(("Subject", "hello"))), sessions))
        assert answers == [ACCEPT] * 50
        assert done == ["tag"] * 50
        # A session may have more than one message: it stays what it is.
        again = list(pool.map(lambda session: session.recipient(), sessions))
    assert again == [ACCEPT] * 50
    for session in sessions:
        session.quit()
        session.close()
    wait_until_drained(service)
    counts = service.metrics()
    assert counts["dnsbl_connections_total", ()] == 51
    assert counts["dnsbl_recipients_total", (("action", "tag"),)] == 100
    assert counts["dnsbl_recipients_total", (("action", "reject"),)] == 1
    assert counts["dnsbl_messages_total", (("action", "tag"),)] == 50
    assert counts["dnsbl_worker_restarts_total", ()] == 0
    (event,) = service.events("reloaded")
    assert "actions.tag: 4.0 -> null" in event["changes"]
    assert "actions.reject: null -> 4.0" in event["changes"]


def test_every_process_takes_on_the_level_and_the_form_of_the_log(service, path, write):
    assert told(path) == ACCEPT
    service.write(write() + "log = { level = 'debug', format = 'json' }\n")
    service.reload_and_wait()
    # The third is the monitor's: what is paused, it says.
    (service.folder / "pauses.json").write_text('{"two": null}')
    assert told(path) == ACCEPT
    service.wait_until(lambda: service.events("answer") and service.events("paused"), "all have spoken")
    (answer,) = service.events("answer")
    assert (answer["level"], answer["client"], answer["list"], answer["answer"]) == ("debug", CLIENT, "one", "127.0.0.2")
    assert 0 <= answer["ms"] < 10_000
    first, second = service.events("decision")
    assert ("time" in first, "time" in second) == (False, True)
    assert [service.events(event)[0].get("time") is None for event in ("serving", "reloaded", "paused")] == [True, False, False]


BROKEN = [
    # what is wrong, what is written, what the log says
    ("no TOML", "[actions\n", "is not TOML"),
    ("an unknown key", "[actions]\ntga = 3\n", "actions.tga"),
    ("thresholds out of order", "[actions]\ntag = 5\ndefer = 4\n", "actions.defer"),
    ("a dead zone", '[[list]]\nzone = "dnsbl.njabl.org"\nweight = 3\n', "list"),
]


@pytest.mark.parametrize(("text", "said"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_a_broken_file_changes_nothing_and_is_named(service, path, write, text, said):
    workers = service.workers()
    loaded = service.metrics()["dnsbl_config_last_reload_success_timestamp_seconds", ()]
    service.write(text)
    service.reload_and_wait()
    event = service.events("reload refused")[0]
    assert event["level"] == "error"
    assert str(event["fault"]).startswith(f"{service.configuration}")
    assert said in str(event["fault"])
    counts = service.metrics()
    assert counts["dnsbl_config_last_reload_successful", ()] == 0
    assert counts["dnsbl_config_last_reload_success_timestamp_seconds", ()] == loaded
    assert service.health()[1]["reload_successful"] is False
    assert told(path) == ACCEPT
    assert service.workers() == workers
    service.write(write(AFTER))
    service.reload_and_wait()
    assert told(path) == 550
    counts = service.metrics()
    assert counts["dnsbl_config_last_reload_successful", ()] == 1
    assert counts["dnsbl_config_last_reload_success_timestamp_seconds", ()] > loaded


def test_a_file_that_is_gone_changes_nothing(service, path):
    service.configuration.unlink()
    service.reload_and_wait()
    assert "cannot be read" in service.events("reload refused")[0]["fault"]
    assert told(path) == ACCEPT


NEEDS_RESTART = [
    # the key, and what is written in its place
    ("milter.socket", "milter.sock", "other.sock"),
    ("milter.socket_mode", "workers =", 'socket_mode = "0600", workers ='),
    ("metrics.listen", "{web}", "127.0.0.1:1"),
]


@pytest.mark.parametrize(("key", "written", "changed"), NEEDS_RESTART, ids=[row[0] for row in NEEDS_RESTART])
def test_a_changed_socket_is_refused(service, path, write, key, written, changed):
    service.write(write(AFTER).replace(written, changed))
    service.reload_and_wait()
    (event,) = service.events("reload refused")
    assert f"{key}: changed from " in event["fault"]
    assert "needs a restart" in event["fault"]
    assert told(path) == ACCEPT
    assert service.metrics()["dnsbl_config_last_reload_successful", ()] == 0


def test_another_number_of_workers_takes_effect(service, path, write):
    service.write(write(workers=4))
    service.reload_and_wait()
    service.wait_until(lambda: draining(service) == 0, "nothing drains")
    assert service.health()[1]["workers"] == {"serving": 4, "draining": 0}
    assert len(service.workers()) == 4


# --- its traps


def test_ten_in_two_seconds_leave_the_last_policy_and_one_generation(service, path, write):
    thresholds = [5, 6, 7, 8, 9, 5, 6, 7, 8, 4]
    began = time.monotonic()
    for number, threshold in enumerate(thresholds):
        wait_until(lambda due=began + number / 5: time.monotonic() >= due, 5, "it is time for the next")
        service.write(write(f"{{ reject = {threshold} }}"))
        service.reload()
    wait_until(lambda: told(path) == 550, 20, "the last policy is in force")
    wait_until_drained(service)
    assert told(path) == 550
    assert service.metrics()["dnsbl_config_last_reload_successful", ()] == 1
    assert service.events("reload refused") == service.events("worker died") == []
    # Each was carried out, or done together with another: they never overlap.
    assert 1 <= len(service.events("reloaded")) <= len(thresholds)


def test_ten_at_once_are_followed_by_a_reload_of_what_is_there_then(service, path, write):
    for _ in range(9):
        service.reload()
    service.write(write(AFTER))
    service.reload()
    wait_until(lambda: told(path) == 550, 20, "the new policy is in force")
    wait_until_drained(service)


def test_a_session_that_negotiates_and_quits_while_its_worker_drains(service, path, write):
    open_session = Session(path, CLIENT).__enter__()
    quitter = Session(path, CLIENT)
    wait_until(lambda: accepted(path, 2), 5, "both are accepted")
    service.write(write(AFTER))
    service.reload_and_wait()
    quitter.negotiate()
    quitter.quit()  # close comes without connect
    quitter.close()
    assert open_session.recipient() == ACCEPT
    assert action(open_session.message(("Subject", "hello"))) == "tag"
    open_session.quit()
    open_session.close()
    wait_until_drained(service)
    assert service.events("worker died") == service.events("callback failed") == []
    assert "killed" not in service.log()
    assert service.metrics()["dnsbl_connections_total", ()] == 1


def test_a_connection_that_is_accepted_and_not_yet_negotiated_is_served(service, path, write):
    waiting = [Session(path, CLIENT) for _ in range(8)]
    wait_until(lambda: accepted(path, 8), 5, "all are accepted")
    service.write(write(AFTER))
    service.reload_and_wait()
    for session in waiting:
        session.negotiate()
    for session in waiting:
        session.connect()
        assert session.recipient() in (ACCEPT, 550)
        session.quit()
        session.close()
    wait_until_drained(service)
    assert service.metrics()["dnsbl_connections_total", ()] == 8


def test_a_connection_that_comes_and_goes_without_a_word(service, path):
    for _ in range(20):
        Session(path, CLIENT).close()
    assert told(path) == ACCEPT
    service.reload_and_wait()
    wait_until_drained(service)
    assert service.events("worker died") == service.events("callback failed") == []


def test_a_session_that_takes_longer_than_the_drain_is_ended_and_said_so(service, path, write):
    service.write(write(drain_seconds=1))
    service.reload_and_wait()
    with_us = Session(path, CLIENT).__enter__()
    service.reload_and_wait()
    service.wait_until(lambda: "killed, its sessions took too long" in service.log(), "it is killed")
    with pytest.raises((MilterError, ConnectionError)):
        with_us.recipient()
    with_us.close()
    wait_until_drained(service)
    # Meant to go, so it is not one that died.
    assert service.metrics()["dnsbl_worker_restarts_total", ()] == 0
    assert told(path) == ACCEPT


def limit(service, **limits):
    for name, value in limits.items():
        resource.prlimit(service.process.pid, getattr(resource, f"RLIMIT_{name}"), value)


def test_a_new_worker_that_dies_at_once_leaves_the_old_ones_in_place(service, path, write):
    workers = service.workers()
    before = resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE)
    # The folder of the counters is full: new files cannot be made.
    limit(service, FSIZE=(1 << 15, before[1]))
    service.write(write(AFTER))
    service.reload_and_wait()
    faults = [event["fault"] for event in service.events("reload refused")]
    assert faults == ["a new worker died before it served; the old ones go on"]
    assert told(path) == ACCEPT
    assert service.metrics()["dnsbl_config_last_reload_successful", ()] == 0
    assert service.workers() == workers
    limit(service, FSIZE=before)
    service.reload_and_wait()
    assert told(path) == 550


def test_a_reload_that_is_asked_for_while_another_fails_is_done(service, path, write):
    before = resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE)
    limit(service, FSIZE=(1 << 15, before[1]))
    service.write(write("{ discard = 4 }"))
    service.reload()
    service.wait_until(lambda: len(children(service.process.pid)) > 3 or service.events("reload refused"), "it has begun")
    service.write(write(AFTER))
    service.reload()
    limit(service, FSIZE=before)
    wait_until(lambda: told(path) == 550, 20, "the second is in force")


STUCK = """
import os, time
from pathlib import Path
from dnsbl_milter import supervisor, worker

supervisor.CANDIDATE_SECONDS = 2.0
serve = worker.serve

def stumble(*arguments):
    folder = Path(os.environ["STATE_DIRECTORY"])
    if (folder / "die").exists():
        os._exit(3)
    try:
        (folder / "hang").rename(folder / f"hung-{os.getpid()}")
    except FileNotFoundError:
        serve(*arguments)
    while True:
        time.sleep(60)

worker.serve = stumble
"""
"""New workers die while there is a file `die`; who finds one called `hang` takes it, and never gives a sign of life."""


@pytest.fixture
def stuck(tmp_path, write):
    with Service(tmp_path, write(), prelude=STUCK) as started:
        yield started


def test_a_new_worker_that_hangs_is_given_up(stuck, tmp_path, write, path):
    before = children(stuck.process.pid)
    (tmp_path / "hang").touch()
    stuck.write(write("{ discard = 4 }", workers=1))
    stuck.reload()
    stuck.wait_until(lambda: list(tmp_path.glob("hung-*")), "it hangs")
    # While it does, another one is asked for.
    stuck.write(write(AFTER))
    stuck.reload()
    stuck.wait_until(lambda: stuck.events("reload refused"), "it is refused")
    (refused,) = stuck.events("reload refused")
    assert refused["fault"] == "the new workers did not serve within 2 seconds; the old ones go on"
    wait_until(lambda: told(path) == 550, 20, "the second is in force")
    wait_until_drained(stuck)
    (hung,) = tmp_path.glob("hung-*")
    assert not {int(hung.name.removeprefix("hung-")), *before} & set(children(stuck.process.pid))
    assert len(stuck.events("reloaded")) == 1
    assert stuck.metrics()["dnsbl_config_last_reload_successful", ()] == 1


def test_while_a_hung_worker_is_given_up_the_old_ones_go_on(stuck, tmp_path, write, path):
    before = sorted(children(stuck.process.pid))
    (tmp_path / "hang").touch()
    stuck.write(write(AFTER, workers=1))
    stuck.reload_and_wait()
    assert stuck.metrics()["dnsbl_config_last_reload_successful", ()] == 0
    assert stuck.told[-1][1].endswith("the last reload was refused, see the log")
    assert told(path) == ACCEPT
    wait_until(lambda: sorted(children(stuck.process.pid)) == before, 10, "the hung one is gone")


def test_who_serves_beside_a_hung_worker_finishes_its_sessions(stuck, tmp_path, write, path):
    old = stuck.workers()
    (tmp_path / "hang").touch()
    stuck.write(write(AFTER))
    for pid in old:
        os.kill(pid, signal.SIGSTOP)
    stuck.reload()
    # Nobody else can take it.
    session = Session(path, CLIENT).__enter__()
    for pid in old:
        os.kill(pid, signal.SIGCONT)
    stuck.wait_until(lambda: stuck.events("reload refused"), "it is refused")
    assert session.recipient() == 550
    session.quit()
    session.close()
    wait_until_drained(stuck)
    assert stuck.workers() == old
    assert told(path) == ACCEPT
    assert "killed" not in stuck.log()


def test_new_workers_that_die_are_not_tried_again_and_again(stuck, tmp_path, write, path):
    before = sorted(children(stuck.process.pid))
    (tmp_path / "die").touch()
    stuck.write(write(AFTER))
    for number in range(1, 4):
        stuck.reload_and_wait()
        assert len(stuck.events("reload refused")) == number
        wait_until(lambda: sorted(children(stuck.process.pid)) == before, 10, "no new process is left")
        # One death is enough, and nobody is put in its place.
        assert len(stuck.events("worker died")) == number
        assert told(path) == ACCEPT
    (tmp_path / "die").unlink()
    stuck.reload_and_wait()
    assert told(path) == 550


HASTY = "from dnsbl_milter import generation; generation.LOST_SECONDS = 3.0"


@pytest.fixture
def hasty(tmp_path, write):
    with Service(tmp_path, write(), prelude=HASTY) as started:
        yield started


def test_a_worker_that_is_stuck_is_killed_and_replaced(hasty, path):
    stuck, other = hasty.workers()
    os.kill(stuck, signal.SIGSTOP)
    hasty.wait_until(lambda: hasty.events("worker died"), "it is killed")
    (killed,) = hasty.events("worker killed, it gave no sign of life")
    (died,) = hasty.events("worker died")
    assert (killed["pid"], died["pid"], died["status"]) == (str(stuck), str(stuck), "-9")
    hasty.wait_until(lambda: hasty.health()[1]["workers"]["serving"] == 2, "it is replaced")
    assert other in hasty.workers()
    assert stuck not in hasty.workers()
    assert hasty.metrics()["dnsbl_worker_restarts_total", ()] == 1
    assert told(path) == ACCEPT


def test_a_monitor_that_is_stuck_is_killed_and_replaced(hasty):
    (stuck,) = set(children(hasty.process.pid)) - set(hasty.workers())
    os.kill(stuck, signal.SIGSTOP)
    hasty.wait_until(lambda: hasty.events("monitor killed, it gave no sign of life"), "it is killed")
    hasty.wait_until(lambda: stuck not in children(hasty.process.pid), "it is gone")
    hasty.wait_until(lambda: hasty.health()[0] == 200, "it is replaced")
    # It is no worker, and is not counted as one.
    assert hasty.metrics()["dnsbl_worker_restarts_total", ()] == 0


def test_nobody_is_killed_because_the_supervisor_stood_still(hasty):
    before = sorted(children(hasty.process.pid))
    (monitor,) = set(before) - set(hasty.workers())
    hasty.signal(signal.SIGSTOP)
    stopped = time.monotonic()
    wait_until(lambda: time.monotonic() > stopped + 5, 10, "more has passed than a silent one is given")
    hasty.signal(signal.SIGCONT)
    # That something is done after it, and the count of silence begins anew.
    os.kill(monitor, signal.SIGKILL)
    hasty.wait_until(lambda: hasty.health()[0] == 200, "the monitor is replaced")
    assert hasty.workers() == [pid for pid in before if pid != monitor]
    assert "gave no sign of life" not in hasty.log()


def test_a_silent_worker_that_drains_is_given_its_time_and_no_more(hasty, path, write):
    hasty.write(write(drain_seconds=8))
    hasty.reload_and_wait()
    wait_until_drained(hasty)
    stuck = hasty.workers()[0]
    os.kill(stuck, signal.SIGSTOP)
    hasty.write(write(AFTER))
    hasty.reload_and_wait()
    hasty.wait_until(lambda: hasty.events("killed, its sessions took too long"), "it is killed", 30)
    assert [event["pid"] for event in hasty.events("killed, its sessions took too long")] == [str(stuck)]
    assert "gave no sign of life" not in hasty.log()
    wait_until_drained(hasty)


def test_no_process_can_be_started_for_a_while(service, path, write):
    """Too many open files, as too little memory: the supervisor goes on, says so, and tries again."""
    before = resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE)
    workers = service.workers()
    limit(service, NOFILE=(6, before[1]))  # which it has open already, every one
    os.kill(workers[0], signal.SIGKILL)
    service.wait_until(lambda: "no new process" in service.log(), "it has tried in vain")
    assert told(path) == ACCEPT
    limit(service, NOFILE=before)
    service.wait_until(lambda: service.health()[1]["workers"]["serving"] == 2, "both serve again")
    assert service.workers()[0] == workers[1] or workers[1] in service.workers()


def test_a_scrape_fails_at_no_reload(service, write):
    """Ten times a second, over twenty reloads: the monitor that leaves answers first."""
    stopped = threading.Event()

    def scrape():
        answers = []
        while not stopped.is_set():
            answers.append(service.page()[0])
        return answers

    with ThreadPoolExecutor(4) as pool:
        scrapers = [pool.submit(scrape) for _ in range(4)]
        try:
            for _ in range(20):
                service.reload_and_wait()
        finally:
            stopped.set()
        answers = [answer for each in scrapers for answer in each.result()]
    assert len(answers) > 20
    assert set(answers) == {200}


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_over_the_network_too(tmp_path, name_server, host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as free:
        free.bind((host, 0))
        port = free.getsockname()[1]
    address = f"{'inet6' if ':' in host else 'inet'}:{port}@{host}"
    with Service(tmp_path, policy(name_server.text, address, actions=BEFORE)) as service:
        session = Session((host, port), CLIENT).__enter__()
        service.write(policy(name_server.text, address, actions=AFTER))
        service.reload_and_wait()
        assert session.recipient() == ACCEPT
        assert told((host, port)) == 550
        session.quit()
        session.close()
        wait_until_drained(service)


def test_at_the_end_sessions_are_let_end(service, path):
    session = Session(path, CLIENT).__enter__()
    service.signal(signal.SIGTERM)
    service.wait_for("STOPPING=1")
    with pytest.raises((FileNotFoundError, ConnectionRefusedError)):
        Session(path, CLIENT)
    assert service.process.poll() is None
    assert session.recipient() == ACCEPT
    assert action(session.message(("Subject", "hello"))) == "tag"
    session.quit()
    session.close()
    assert service.process.wait(20) == 0
    assert list(service.runtime.iterdir()) == []


def test_a_second_signal_ends_them_at_once(service, path):
    session = Session(path, CLIENT).__enter__()
    service.signal(signal.SIGTERM)
    service.wait_for("STOPPING=1")
    service.signal(signal.SIGTERM)
    assert service.process.wait(10) == 0
    session.close()
    assert "answers took too long" not in service.log()


def test_until_the_last_session_has_ended_whoever_asks_is_told_how_it_goes(service, path):
    session = Session(path, CLIENT).__enter__()
    service.signal(signal.SIGTERM)
    service.wait_until(lambda: draining(service) == 1, "the idle worker has left")
    status, said = service.health()
    assert (status, said["status"], said["workers"]) == (503, "stopping", {"serving": 0, "draining": 1})
    assert "stopping" in service.page("/")[2]
    assert session.recipient() == ACCEPT
    # What the last sessions do is still counted, and read.
    wait_until(lambda: service.metrics()["dnsbl_recipients_total", (("action", "tag"),)] == 1, 10, "it is counted")
    session.quit()
    session.close()
    assert service.process.wait(20) == 0
    assert service.health() == (0, {})
    assert "killed" not in service.log()
    with socket.create_server(service.web_address):
        pass  # the port is free


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_who_watches_the_end_keeps_no_door_open(tmp_path, name_server, host):
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as free:
        port = free.getsockname()[1]
    text = policy(name_server.text, f"{'inet6' if ':' in host else 'inet'}:{port}@{host}", actions=BEFORE)
    with Service(tmp_path, text) as service:
        session = Session((host, port), CLIENT).__enter__()
        service.signal(signal.SIGTERM)
        service.wait_until(lambda: draining(service) == 1, "the idle worker has left")
        with pytest.raises(ConnectionRefusedError):
            Session((host, port))
        session.quit()
        session.close()
        assert service.process.wait(20) == 0


PATIENT = "from dnsbl_milter import monitor; monitor._Request.timeout = 3600"


def test_a_slow_reader_of_metrics_does_not_hold_up_the_end(tmp_path, write):
    with Service(tmp_path, write(), prelude=PATIENT) as service:
        with socket.create_connection(service.web_address) as reader:
            reader.sendall(b"GET /metrics HTTP/1.1\r\n")
            # Who comes later has been answered, so this one has been let in.
            assert service.health()[0] == 200
            service.signal(signal.SIGTERM)
            assert service.process.wait(15) == 0
        assert service.events("killed, its answers took too long")


def test_a_successor_takes_over_the_port_for_metrics_where_nobody_manages_us(tmp_path, write, path):
    """Started by hand, the next daemon may come while the last sessions of the one before still run."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        web = f"127.0.0.1:{free.getsockname()[1]}"
    text = write().replace("{web}", web)
    daemon = Daemon(tmp_path / "first", text)
    try:
        session = Session(path, CLIENT).__enter__()
        daemon.process.send_signal(signal.SIGTERM)
        wait_until(lambda: len(children(daemon.process.pid)) == 1, 10, "but for one worker all have left")
        successor = Daemon(tmp_path / "second", text)
        try:
            assert urlopen(f"http://{web}/healthz", timeout=10).status == 200
            assert told(path) == ACCEPT
            assert session.recipient() == ACCEPT
            session.quit()
            session.close()
            assert daemon.wait_until_ended(20) == 0
            assert told(path) == ACCEPT
        finally:
            successor.kill()
    finally:
        daemon.kill()


def test_all_leave_when_the_supervisor_is_killed(service, path):
    left = children(service.process.pid)
    assert len(left) == 3  # with the monitor
    session = Session(path, CLIENT).__enter__()
    service.signal(signal.SIGKILL)
    service.process.wait()
    assert session.recipient() == ACCEPT
    session.quit()
    session.close()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left), 10, "its children have left")
    assert "Traceback" not in service.log()


def test_what_a_killed_daemon_left_goes_when_nobody_of_it_lives(service, path):
    left = children(service.process.pid)
    (folder,) = service.runtime.iterdir()
    session = Session(path, CLIENT).__enter__()
    service.signal(signal.SIGKILL)
    service.process.wait()
    wait_until(lambda: sum(Path(f"/proc/{pid}").exists() for pid in left) == 1, 10, "one worker is left")
    service.start()
    # The last session is still counted there.
    assert folder.is_dir()
    assert len(list(service.runtime.iterdir())) == 2
    session.quit()
    session.close()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left), 10, "the last has left")
    service.restart()
    assert not folder.exists()
    assert len(list(service.runtime.iterdir())) == 1


def test_what_is_not_a_dead_daemons_stays(tmp_path, write):
    runtime, precious = tmp_path / "runtime", tmp_path / "precious"
    for folder in (precious, runtime / "dnsbl-milter-metrics-dead", runtime / "dnsbl-milter-metrics-foreign", runtime / "metrics-x"):
        folder.mkdir(parents=True)
        (folder / "counter_0.db").touch()
    (runtime / "dnsbl-milter-metrics-file").touch()
    (runtime / "dnsbl-milter-metrics-link").symlink_to(precious)
    os.chown(runtime / "dnsbl-milter-metrics-foreign", 65534, 65534)
    with Service(tmp_path, write()) as service:
        (own,) = {file.name for file in runtime.iterdir()} - {
            "dnsbl-milter-metrics-foreign", "dnsbl-milter-metrics-file", "dnsbl-milter-metrics-link", "metrics-x",
        }  # fmt: skip
        assert own != "dnsbl-milter-metrics-dead"
        assert (precious / "counter_0.db").exists()
        assert (runtime / "dnsbl-milter-metrics-foreign" / "counter_0.db").exists()
        assert service.stop() == 0
        assert not (runtime / own).exists()


NO_FOLDER = [
    # the runtime directory, what is said of it
    ("missing", "No such file or directory"),
    ("file", "Not a directory"),
    ("closed", "Permission denied"),
]


@pytest.mark.parametrize(("runtime", "said"), NO_FOLDER)
def test_where_the_counters_find_no_place_it_is_one_line(tmp_path, write, path, runtime, said):
    (tmp_path / "file").touch()
    (tmp_path / "closed").mkdir(mode=0o555)
    with socket.create_server(("127.0.0.1", 0)) as free:
        web = f"127.0.0.1:{free.getsockname()[1]}"
    (tmp_path / "c.toml").write_text(write().replace("{web}", web))
    # Even root is denied something without its capabilities.
    done = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-m", "dnsbl_milter", "run", "--config", tmp_path / "c.toml"],
        env=os.environ | environment() | {"RUNTIME_DIRECTORY": str(tmp_path / runtime)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"cannot make a folder for the counters in {tmp_path / runtime}: {said}; "
        f"you are user {os.geteuid()}, and RUNTIME_DIRECTORY names another place\n"
    )
    # And what was opened before is not left behind.
    assert not Path(path).exists()
