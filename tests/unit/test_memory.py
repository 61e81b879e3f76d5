"""Memory on one host: it answers by the policy, survives what befalls its file, and never costs anybody their mail."""

import contextlib
import fcntl
import json
import logging
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from dnsbl_milter import memory as memory_module
from dnsbl_milter import memory_file, memory_sqlite
from dnsbl_milter.cli import main
from dnsbl_milter.configuration import parse
from dnsbl_milter.effective import shown_settings
from dnsbl_milter.memory import FAILURES, PAUSE_SECONDS, Memory, open_memory
from dnsbl_milter.memory_engine import Remembered, Unavailable, digest, readable
from dnsbl_milter.memory_sqlite import PURGED_AT_ONCE, SCHEMA, SKEW_SECONDS, SqliteEngine
from dnsbl_milter.repeats import Repeats
from dnsbl_milter.settings import Invalid, MemorySection
from dnsbl_policy.greylist import Recollection, Terms, Triplet, attempt, triplet
from mailhost.process import wait_until

ROOT = Path(__file__).parents[2]
DEFERRED, EARLY, PASSED, KNOWN, UNAVAILABLE = Recollection
TERMS = Terms(delay=300, window=1000, remember=5000)
NOW = 1_700_000_000.0
CLIENT = ip_address("192.0.2.7")
SENDER, RECIPIENT = "alice@example.org", "bob@example.net"
PATIENT = 60.0
"""Seconds that nothing here takes, however busy the machine is."""


class Clock:
    """A clock that only the test moves."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def logged():
    """Events of the log as they come: level, event, fields."""

    class Lines(logging.Handler):
        def emit(self, record):
            events.append((record.levelname, record.getMessage(), record.fields))

    events, handler, logger = [], Lines(), logging.getLogger("dnsbl_milter")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield events
    logger.removeHandler(handler)
    logger.setLevel(before)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "memory.db"


@pytest.fixture
def open_file(path):
    """Open engines on the file, as several workers do."""
    opened = []

    def open_one(at=path, terms=TERMS, **options):
        opened.append(SqliteEngine(at, terms, **options))
        return opened[-1]

    yield open_one
    for engine in opened:
        engine.close()


@pytest.fixture
def engine(open_file):
    return open_file()


@pytest.fixture
def open_front():
    """Put memories in front of engines."""
    opened = []

    def open_one(engine, **options):
        opened.append(Memory(engine, **({"deadline": PATIENT} | options)))
        return opened[-1]

    yield open_one
    for memory in opened:
        memory.close()


def ask(engine, now=NOW, sender=SENDER, recipient=RECIPIENT, client=CLIENT):
    return engine.recall(triplet(client, sender, recipient), now)


def recall(memory, now=NOW, sender=SENDER, recipient=RECIPIENT, client=CLIENT):
    return memory.recall(client, sender, recipient, now)


def settle(memory):
    """Return when what the memory has begun is done."""
    memory._threads.submit(lambda: None).result(PATIENT)


def rows(path):
    """Return what is in the file, read past the engine, and see that its tally is right and the file is whole."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT network, passed, since, sender, recipient FROM triplet").fetchall()
        counted = Counter(passed for _, passed, *_ in found)
        assert dict(connection.execute("SELECT passed, entries FROM tally")) == {0: counted[0], 1: counted[1]}
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return found


def say(word):
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def run_child(task, *arguments, wrapper=(), **options):
    """Start a function of this file in a process of its own."""
    return subprocess.Popen(
        [*wrapper, sys.executable, __file__, task, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'policy'}:{ROOT / 'milter'}:{ROOT / 'contrib'}", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


# --- the front: one call, which never raises and never hangs


class Scripted:
    """An engine that does as the test says: answers, or raises."""

    name = "scripted"
    threads = 1

    def __init__(self, *results):
        self.results = list(results)
        self.calls = 0
        self.fault = None

    def check(self):
        if self.fault:
            raise self.fault

    def recall(self, triplet, now):
        self.calls += 1
        if self.fault:
            raise self.fault
        return self.results.pop(0) if self.results else KNOWN

    def close(self):
        pass


def test_no_memory_remembers_nothing_and_defers_every_retry(open_front):
    memory = open_front(None)
    assert [recall(memory, NOW + 300 * retry) for retry in range(5)] == [DEFERRED] * 5


@pytest.mark.parametrize("answer", [DEFERRED, EARLY, PASSED, KNOWN])
def test_what_the_engine_says_is_said(open_front, logged, answer):
    assert recall(open_front(Scripted(answer))) is answer
    assert logged == []


@pytest.mark.parametrize("fault", [Unavailable("it is gone"), RuntimeError("a bug"), TimeoutError(), OSError(5, "?"), ValueError()])
def test_a_failure_is_an_answer(open_front, fault):
    engine = Scripted()
    engine.fault = fault
    assert recall(open_front(engine)) is UNAVAILABLE


def test_a_failing_memory_says_so_once_and_is_left_alone(open_front, logged):
    engine, clock = Scripted(), Clock()
    memory = open_front(engine, timer=clock)
    settle(memory)
    engine.fault = Unavailable("it is gone")
    for _ in range(20):
        assert recall(memory) is UNAVAILABLE
    assert engine.calls == FAILURES
    fields = {"engine": "scripted", "why": "it is gone", "repeated": 0}
    assert logged == [("WARNING", "memory unavailable, nobody is deferred", fields)]


def test_of_those_who_ask_a_memory_left_alone_one_at_a_time_tries(open_front, logged):
    engine, clock = Scripted(), Clock()
    memory = open_front(engine, timer=clock)
    settle(memory)
    engine.fault = Unavailable("it is gone")
    for _ in range(FAILURES):
        recall(memory)
    for trial in range(1, 4):
        clock.now += PAUSE_SECONDS
        for _ in range(5):
            recall(memory)
        assert engine.calls == FAILURES + trial
    assert len(logged) == 1


def test_memory_heals_by_itself_and_says_so_once(open_front, logged):
    engine, clock = Scripted(), Clock()
    memory = open_front(engine, timer=clock)
    settle(memory)
    engine.fault = Unavailable("it is gone")
    for _ in range(10):
        recall(memory)
    engine.fault = None
    assert recall(memory) is UNAVAILABLE
    clock.now += PAUSE_SECONDS + 2
    assert [recall(memory) for _ in range(5)] == [KNOWN] * 5
    healed = ("INFO", "memory available again", {"engine": "scripted", "failures": FAILURES, "seconds": PAUSE_SECONDS + 2})
    assert logged[1:] == [healed]


def test_a_single_failure_leaves_nothing_alone(open_front):
    engine = Scripted()
    memory = open_front(engine, timer=Clock())
    settle(memory)
    for _ in range(3 * FAILURES):
        engine.fault = Unavailable("for once")
        assert recall(memory) is UNAVAILABLE
        engine.fault = None
        assert recall(memory) is KNOWN


def test_another_reason_is_said_too(open_front, logged):
    engine = Scripted()
    memory = open_front(engine, timer=Clock())
    settle(memory)
    for why in ("gone", "gone", "wrong password"):
        engine.fault = Unavailable(why)
        recall(memory)
    assert [fields["why"] for _, _, fields in logged] == ["gone", "wrong password"]


def test_what_is_wrong_is_in_the_log_from_the_start(open_front, logged):
    engine = Scripted()
    engine.fault = Unavailable("it never was")
    settle(open_front(engine))
    assert [fields["why"] for _, _, fields in logged] == ["it never was"]
    assert engine.calls == 0


def test_a_bug_is_logged_with_its_traceback(open_front, logged):
    engine = Scripted()
    engine.fault = KeyError("oops")
    assert recall(open_front(engine)) is UNAVAILABLE
    assert ("ERROR", "memory failed", {"engine": "scripted", "repeated": 0}) in logged


GONE, FINE = Unavailable("it is gone"), None
TROUBLE = [
    # name, faults of the engine for one recipient after the other, for as long as it takes; the lines of an hour
    ("down", [GONE], {"memory unavailable, nobody is deferred": 1}),
    ("down for ever new reasons", [Unavailable(f"reason {number}") for number in range(99)], {
        "memory unavailable, nobody is deferred": Repeats.LINES,
    }),
    ("down and up again for each recipient", [GONE, FINE], {
        "memory unavailable, nobody is deferred": Repeats.LINES, "memory available again": Repeats.LINES,
    }),
    ("a bug", [KeyError("oops")], {"memory failed": Repeats.LINES, "memory unavailable, nobody is deferred": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("faults", "lines"), [row[1:] for row in TROUBLE], ids=[row[0] for row in TROUBLE])
def test_a_memory_in_trouble_writes_a_few_lines_an_hour_and_not_one_a_mail(open_front, logged, faults, lines):
    engine, clock = Scripted(), Clock()
    memory = open_front(engine, timer=clock)
    settle(memory)
    recipients = 1000
    for number in range(recipients):
        engine.fault = faults[number % len(faults)]
        recall(memory)
        clock.now += 1.2 * PAUSE_SECONDS  # so that each of them asks the engine
    assert engine.calls == recipients
    assert Counter(event for _, event, _ in logged) == lines
    # The next hour has its few lines too, and the first of them tells of the others.
    clock.now += Repeats.SECONDS
    engine.fault = KeyError("oops")
    recall(memory)
    fields = next(fields for _, event, fields in logged[::-1] if event == "memory failed")
    assert fields["repeated"] == max(0, recipients - Repeats.LINES) * ("memory failed" in lines)


def test_an_outage_that_was_not_said_at_first_is_said_within_the_hour(open_front, logged):
    engine, clock = Scripted(), Clock()
    memory = open_front(engine, timer=clock)
    settle(memory)
    for _ in range(Repeats.LINES + 1):
        engine.fault = None
        recall(memory)
        engine.fault = GONE
        recall(memory)
    assert logged[-1][1] == "memory available again"
    while clock.now < Repeats.SECONDS:
        clock.now += PAUSE_SECONDS
        recall(memory)
    (level, event, fields) = logged[-1]
    assert (level, event) == ("WARNING", "memory unavailable, nobody is deferred")
    # One for the last outage's beginning, and one for each second of it.
    assert fields["repeated"] == Repeats.SECONDS / PAUSE_SECONDS


class Stuck(Scripted):
    """An engine that answers when it is let go."""

    def __init__(self):
        super().__init__()
        self.free = threading.Event()
        self.begun = threading.Event()

    def recall(self, triplet, now):
        self.begun.set()
        self.free.wait(PATIENT)
        return super().recall(triplet, now)


def test_an_engine_that_hangs_holds_nobody_up(open_front, logged):
    engine, clock = Stuck(), Clock()
    memory = open_front(engine, deadline=0.01, timer=clock)
    try:
        assert [recall(memory) for _ in range(FAILURES)] == [UNAVAILABLE] * FAILURES
        assert [recall(memory) for _ in range(1000)] == [UNAVAILABLE] * 1000
        assert engine.begun.is_set()
    finally:
        engine.free.set()
    settle(memory)
    # Who was given up while waiting in the queue is not asked about any more.
    assert engine.calls == 1
    assert [fields["why"] for _, _, fields in logged] == ["no answer within 0.01 s"]
    clock.now += PAUSE_SECONDS
    memory._deadline = PATIENT
    assert recall(memory) is KNOWN


def test_while_one_tries_the_others_do_not_wait(open_front):
    engine, clock = Stuck(), Clock()
    memory = open_front(engine, timer=clock)
    for _ in range(FAILURES):
        memory._breaker.failed("gone")
    clock.now += PAUSE_SECONDS
    with ThreadPoolExecutor(1) as sessions:
        trial = sessions.submit(recall, memory)
        try:
            assert engine.begun.wait(PATIENT)
            assert [recall(memory) for _ in range(5)] == [UNAVAILABLE] * 5
        finally:
            engine.free.set()
        assert trial.result(PATIENT) is KNOWN
    assert recall(memory) is KNOWN


def test_one_that_hangs_does_not_use_up_the_others_time(open_front):
    engine = Stuck()
    memory = open_front(engine)
    with ThreadPoolExecutor(8) as sessions:
        answers = [sessions.submit(recall, memory) for _ in range(8)]
        assert engine.begun.wait(PATIENT)
        engine.free.set()
        assert [answer.result(PATIENT) for answer in answers] == [KNOWN] * 8


# --- the file: the policy's answers


def test_one_triplet_through_its_life(engine, path):
    moments = [0, 1, 299, 300, 301, 5301, 10_302]
    answers = [DEFERRED, EARLY, EARLY, PASSED, KNOWN, KNOWN, DEFERRED]
    assert [ask(engine, NOW + moment) for moment in moments] == answers
    assert rows(path) == [("192.0.2.0/24", 0, NOW + 10_302, SENDER, RECIPIENT)]


def test_a_retry_from_a_neighbour_with_a_new_bounce_address_passes(engine):
    assert ask(engine, NOW, sender="bounce-1@lists.example") is DEFERRED
    assert ask(engine, NOW + 300, sender="Bounce-2@lists.EXAMPLE", client=ip_address("192.0.2.200")) is PASSED
    assert ask(engine, NOW + 300, sender="bounce-1@lists.example", client=ip_address("192.0.3.7")) is DEFERRED


number = iter(range(10**9))


@given(st.lists(st.tuples(st.floats(0, 4e9) | st.floats(-2000, 9000).map(lambda age: NOW + age)), max_size=12))
@settings(deadline=None, max_examples=200)
def test_the_file_says_what_the_policy_says_whatever_the_clock_does(shared_engine, times):
    one, trace = Triplet("192.0.2.0/24", "a", str(next(number))), None
    for (now,) in times:
        answer, trace = attempt(trace, now, TERMS)
        assert shared_engine.recall(one, now) is answer


@pytest.fixture(scope="module")
def shared_engine(tmp_path_factory):
    engine = SqliteEngine(tmp_path_factory.mktemp("shared") / "memory.db", TERMS)
    yield engine
    engine.close()


def test_a_restart_keeps_the_memory(open_file):
    first = open_file()
    assert ask(first, NOW) is DEFERRED
    assert ask(first, NOW, recipient="carol@example.net") is DEFERRED
    assert ask(first, NOW + 300, recipient="carol@example.net") is PASSED
    first.close()
    second = open_file()
    assert ask(second, NOW + 300) is PASSED
    assert ask(second, NOW + 301, recipient="carol@example.net") is KNOWN


def test_workers_share_what_is_remembered(open_file):
    one, two = open_file(), open_file()
    assert ask(one, NOW) is DEFERRED
    assert ask(two, NOW + 1) is EARLY
    assert ask(two, NOW + 300) is PASSED
    assert ask(one, NOW + 301) is KNOWN


def test_a_reload_with_other_terms_keeps_the_memory(open_file):
    assert ask(open_file(), NOW) is DEFERRED
    assert ask(open_file(terms=Terms(10, 1000, 5000)), NOW + 10) is PASSED


HOSTILE = [
    "", "'", '"', "';DROP TABLE triplet;--", "\\", "%", "_", "*", "?", "[a-z]", "\x00", "a\x00b", "\n", "\r\n.\r\n", "\t", " ",
    "\x1b[31m", "\udcff\udc80", "\ud800", "äöü@exämple.org", "\u202eexe.doc", "😀", "a" * 10_000, "\udcff" * 10_000,
    "@" * 10_000, "'" * 10_000, "<>", "a@b@c", "{}", "$1", ":name", "None",
]  # fmt: skip


@pytest.mark.parametrize("side", ["sender", "recipient"])
def test_hostile_addresses_are_addresses(engine, path, side):
    for now, answer in ((NOW, DEFERRED), (NOW + 1, EARLY), (NOW + 300, PASSED), (NOW + 301, KNOWN)):
        assert [ask(engine, now, **{side: address}) for address in HOSTILE] == [answer] * len(HOSTILE)
    assert len(rows(path)) == len(HOSTILE)
    assert all(len(shown) <= 1000 for row in rows(path) for shown in row[3:])


def test_long_addresses_that_end_alike_or_begin_alike_are_different(engine):
    assert ask(engine, sender="a" * 10_000) is DEFERRED
    assert ask(engine, sender="a" * 10_000 + "b") is DEFERRED
    assert ask(engine, sender="b" + "a" * 10_000) is DEFERRED


@given(*[st.text(st.characters(codec=None), max_size=5)] * 4)
@settings(deadline=None)
def test_only_the_same_triplet_has_the_same_digest(sender, recipient, other_sender, other_recipient):
    one, other = Triplet("n", sender, recipient), Triplet("n", other_sender, other_recipient)
    assert (digest(one) == digest(other)) == (one == other)
    assert len(digest(one)) == 16
    joined = Triplet("n", sender + recipient, "")
    assert (digest(one) == digest(joined)) == (one == joined)


READABLE = [
    ("alice@example.org", "alice@example.org"),
    ("", ""),
    ("äö@example.org", "äö@example.org"),
    ("\x1b[31m\n\x00", "\\x1b[31m\\n\\x00"),
    ("\udcff", "\\udcff"),
    ("\u202e", "\\u202e"),
    ("a" * 100, "a" * 100),
    ("a" * 101, "a" * 99 + "…"),
]


@pytest.mark.parametrize(("address", "shown"), READABLE)
def test_people_see_addresses_that_no_terminal_obeys(address, shown):
    assert readable(address) == shown


# --- the file: it stays small


def fill(engine, count, now=NOW, prefix="r"):
    for recipient in range(count):
        ask(engine, now, recipient=f"{prefix}{recipient}.x@example.net")


def held(engine):
    holdings = engine.holdings()
    return holdings.waiting, holdings.passed


def test_what_is_old_goes_in_small_steps_as_part_of_the_work(engine, path):
    fill(engine, 20)
    fill(engine, 10, NOW + 300)
    assert held(engine) == (10, 10)
    counts = []
    while not counts or counts[-1] != (1, 0):
        ask(engine, NOW + 5301)
        counts.append(held(engine))
        assert len(counts) < 20
    assert counts[0] == (1 + 10 - PURGED_AT_ONCE, 10 - PURGED_AT_ONCE)
    assert len(rows(path)) == 1


def test_nothing_goes_before_its_time(engine):
    fill(engine, 3)
    fill(engine, 1, NOW + 1000)
    ask(engine, NOW + 1000)
    assert held(engine) == (3, 1)
    ask(engine, NOW + 5999.9, recipient="late@example.net")
    ask(engine, NOW + 6000, recipient="late@example.net")
    assert held(engine) == (1, 1)
    ask(engine, NOW + 6000.1, recipient="late@example.net")
    assert held(engine) == (1, 0)


def test_what_a_wrong_clock_wrote_into_the_future_goes_too(engine):
    fill(engine, 3, NOW + SKEW_SECONDS + 1)
    fill(engine, 2, NOW + SKEW_SECONDS, prefix="skewed")
    ask(engine, NOW)
    assert held(engine) == (3, 0)


def test_a_flood_of_first_attempts_pushes_out_nobody_who_is_known(open_file, path):
    engine = open_file(most=50)
    fill(engine, 40)
    fill(engine, 40, NOW + 300)
    assert held(engine) == (0, 40)
    fill(engine, 300, NOW + 301, prefix="flood")
    assert held(engine) == (50, 40)
    assert len(rows(path)) == 90
    assert {ask(engine, NOW + 302, recipient=f"r{number}.x@example.net") for number in range(40)} == {KNOWN}


def test_a_crowd_of_the_known_pushes_out_nobody_who_waits(open_file):
    engine = open_file(most=50)
    for start in range(0, 300, 30):
        fill(engine, 30, NOW, prefix=f"known{start}")
        fill(engine, 30, NOW + 300, prefix=f"known{start}")
    assert held(engine)[1] == 50
    fill(engine, 20, NOW + 301)
    assert {ask(engine, NOW + 601, recipient=f"r{number}.x@example.net") for number in range(20)} == {PASSED}


def test_the_oldest_go_first(open_file):
    engine = open_file(most=10)
    for age in range(30):
        ask(engine, NOW + age, recipient=f"r{age}.x@example.net")
    assert ask(engine, NOW + 330, recipient="r29.x@example.net") is PASSED
    assert ask(engine, NOW + 330, recipient="r25.x@example.net") is PASSED
    assert ask(engine, NOW + 330, recipient="r5.x@example.net") is DEFERRED


def test_a_full_memory_keeps_nobody_out_when_the_clock_is_set_back(open_file):
    engine = open_file(most=10)
    fill(engine, 11, NOW + 3600)
    assert ask(engine, NOW) is DEFERRED
    fill(engine, 5, NOW, prefix="other")
    assert ask(engine, NOW + 300) is PASSED


def test_a_decision_touches_no_more_than_it_must(engine):
    fill(engine, 300)
    connection = engine._file.open()
    for statement in (memory_sqlite._STALE, memory_sqlite._OLDEST):
        plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", {"kind": 0, "old": 0, "future": 0, "most": 1})
        steps = [row[3] for row in plan]
        assert not any(step.startswith("SCAN") or "TEMP B-TREE" in step for step in steps), steps


# --- the file: what befalls it


def permissions(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_nobody_else_reads_the_file(engine, path):
    before = os.umask(0)
    try:
        ask(engine)
    finally:
        os.umask(before)
    files = [path, *path.parent.glob("memory.db-*")]
    assert len(files) == 3
    assert {permissions(file) for file in files} == {0o600}


def test_permissions_that_somebody_chose_stay(engine, path):
    path.touch()
    path.chmod(0o640)
    ask(engine)
    assert permissions(path) == 0o640


def test_without_its_folder_memory_is_unavailable_until_there_is_one(open_file, open_front, tmp_path, logged):
    clock = Clock()
    memory = open_front(open_file(tmp_path / "none" / "memory.db"), timer=clock)
    settle(memory)
    assert [(event, fields["why"]) for _, event, fields in logged] == [
        ("memory unavailable, nobody is deferred", f"{tmp_path / 'none'}: No such file or directory")
    ]
    assert [recall(memory) for _ in range(5)] == [UNAVAILABLE] * 5
    (tmp_path / "none").mkdir()
    clock.now += PAUSE_SECONDS
    assert recall(memory) is DEFERRED
    assert len(logged) == 2


DAMAGE = [
    ("no database at all", lambda content: b"this is no database, and it is longer than a header\n" * 200),
    ("the first page lost", lambda content: bytes(4096) + content[4096:]),
    ("all but the header", lambda content: content[:100] + b"\xff" * (len(content) - 100)),
    ("cut off", lambda content: content[: len(content) // 2 // 4096 * 4096]),
]


@pytest.mark.parametrize("damage", [row[1] for row in DAMAGE], ids=[row[0] for row in DAMAGE])
def test_a_damaged_file_is_moved_aside_at_the_start(open_file, path, logged, damage):
    engine = open_file()
    fill(engine, 200)
    engine.close()
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    engine = open_file()
    answers = [ask(engine, recipient=f"r{number}.x@example.net") for number in range(200)]
    assert DEFERRED in answers
    assert set(answers) <= {DEFERRED, EARLY}
    assert [event for _, event, _ in logged] == ["memory damaged, begun anew"]
    # A few pages may have been read and written well before the damage was met.
    assert path.with_name("memory.db.damaged").stat().st_size >= len(damaged) // 4096 * 4096
    assert ask(engine) is DEFERRED
    rows(path)


@pytest.mark.parametrize("damage", [row[1] for row in DAMAGE[:3]], ids=[row[0] for row in DAMAGE[:3]])
def damage_under(engine, path, damage):
    """Damage the file of an engine that has it open, and let it see that soon."""
    engine._file._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path.write_bytes(damage(path.read_bytes()))
    # SQLite would go on from its pages in memory for as long as they suffice.
    engine._file._connection.execute("PRAGMA shrink_memory")


@pytest.mark.parametrize("damage", [row[1] for row in DAMAGE], ids=[row[0] for row in DAMAGE])
def test_a_file_damaged_during_the_work_is_moved_aside(open_file, path, logged, damage):
    engine = open_file()
    fill(engine, 200)
    damage_under(engine, path, damage)
    answers = [ask(engine, recipient=f"r{number}.x@example.net") for number in range(200)]
    assert DEFERRED in answers
    assert set(answers) <= {DEFERRED, EARLY}
    assert [event for _, event, _ in logged] == ["memory damaged, begun anew"]
    assert ask(engine) is DEFERRED
    assert ask(engine, NOW + 300) is PASSED
    rows(path)


def test_a_disk_that_damages_every_file_writes_a_few_lines_an_hour(open_file, path, logged):
    engine = open_file()
    for _ in range(3 * Repeats.LINES):
        assert ask(engine) is DEFERRED
        damage_under(engine, path, lambda content: b"\xff" * len(content))
    assert [event for _, event, _ in logged] == ["memory damaged, begun anew"] * Repeats.LINES


def test_workers_that_meet_the_damage_together_move_one_file_aside(open_file, path, logged):
    workers = [open_file() for _ in range(4)]
    for number, worker in enumerate(workers):
        ask(worker, recipient=f"r{number}.x@example.net")
    damage_under(workers[0], path, lambda content: b"\xff" * len(content))
    for worker in workers:
        worker._file._connection.execute("PRAGMA shrink_memory")
    with ThreadPoolExecutor(4) as threads:
        answers = [threads.submit(ask, worker).result for worker in workers]
        assert sorted(answer(PATIENT) for answer in answers) == [DEFERRED, EARLY, EARLY, EARLY]
    assert [ask(worker, NOW + 1) for worker in workers] == [EARLY] * 4
    assert len(rows(path)) == 1
    assert permissions(path) == 0o600
    aside = path.with_name("memory.db.damaged")
    ((level, event, fields),) = logged
    assert (level, event) == ("WARNING", "memory damaged, begun anew")
    assert (fields["file"], fields["moved_to"]) == (path, aside)
    assert fields["why"] in ("file is not a database", "database disk image is malformed")
    assert path.with_name("memory.db.damaged-wal").exists()


def test_what_another_worker_has_replaced_is_not_moved_aside(open_file, logged):
    one, two = open_file(), open_file()
    for worker in (one, two):
        ask(worker)
    for worker in (one, two):
        worker._file.replace(sqlite3.DatabaseError("damaged"))
        assert ask(one) is (DEFERRED if worker is one else EARLY)
    assert ask(two) is EARLY
    assert len(logged) == 1


def test_while_one_replaces_the_file_the_others_wait(open_file, path, logged):
    def waits():
        # In /proc/locks, an arrow marks who waits; the last number before the range is the folder's.
        folder = f":{path.parent.stat().st_ino} "
        return any("->" in line and folder in line for line in Path("/proc/locks").read_text().splitlines())

    path.write_bytes(b"damaged" * 1000)
    folder = os.open(path.parent, os.O_RDONLY)
    with ThreadPoolExecutor(1) as worker:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            answer = worker.submit(ask, open_file())
            wait_until(lambda: waits() or answer.done(), PATIENT, "the other waits")
            path.unlink()
        finally:
            os.close(folder)
        assert answer.result(PATIENT) is DEFERRED
    assert logged == []
    assert not path.with_name("memory.db.damaged").exists()


def test_one_damaged_file_is_kept_and_not_more(open_file, path, logged):
    for content in (b"first" * 1000, b"second" * 1000):
        engine = open_file()
        engine.close()
        path.write_bytes(content)
        assert ask(engine) is DEFERRED
        engine.close()
    assert path.with_name("memory.db.damaged").read_bytes() == b"second" * 1000
    assert sorted(file.name for file in path.parent.iterdir()) == ["memory.db", "memory.db.damaged"]
    assert len(logged) == 2


def test_a_file_that_was_moved_away_is_closed_without_harm_to_the_new_one(open_file, path):
    stale, fresh = open_file(), open_file()
    fill(stale, 20)
    for file in path.parent.glob("memory.db*"):
        file.rename(file.with_name(f"aside-{file.name}"))
    assert ask(fresh) is DEFERRED
    fill(fresh, 20)
    stale.close()
    assert ask(fresh, NOW + 1) is EARLY
    fresh.close()
    assert len(rows(path)) == 21


@pytest.mark.parametrize("left", ["", "-wal", "-wal -shm"])
def test_a_file_that_is_removed_is_begun_anew(open_file, path, left):
    one, two = open_file(), open_file()
    fill(one, 20)
    fill(two, 20)
    for suffix in {"", "-wal", "-shm"} - set(left.split()):
        path.with_name(path.name + suffix).unlink()
    assert ask(two) is DEFERRED
    assert ask(one) is EARLY
    fill(two, 30)
    assert ask(two, NOW + 300) is PASSED
    assert ask(one, NOW + 301) is KNOWN
    one.close()
    two.close()
    assert len(rows(path)) == 31


def hold(path):
    """Be a worker that has the file open, and say what one is told before and after something happens to it."""
    engine = SqliteEngine(Path(path), TERMS)
    fill(engine, 200, prefix="held")
    say(ask(engine))
    sys.stdin.readline()
    say(ask(engine, NOW + 1))


@pytest.mark.parametrize("left", ["", "-wal", "-shm", "-wal -shm"])
def test_what_is_left_of_a_removed_file_that_another_process_has_open_is_no_harm(open_file, path, left):
    child = run_child("hold", path, stdin=subprocess.PIPE)
    assert child.stdout.readline() == "deferred\n"
    for suffix in {"", "-wal", "-shm"} - set(left.split()):
        path.with_name(path.name + suffix).unlink()
    engine = open_file()
    assert ask(engine) is DEFERRED
    fill(engine, 100)
    assert child.communicate("go\n", timeout=PATIENT)[0] == "early\n"
    assert {ask(engine, NOW + 1, recipient=f"r{number}.x@example.net") for number in range(100)} == {EARLY}
    assert len(rows(path)) == 101


def test_a_file_that_is_emptied_is_begun_anew(open_file, path):
    engine = open_file()
    fill(engine, 5)
    engine.close()
    path.write_bytes(b"")
    engine = open_file()
    assert ask(engine) is DEFERRED
    assert len(rows(path)) == 1


def test_another_programs_database_is_left_alone(open_file, path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE treasure (value)")
        connection.commit()
    before = path.read_bytes()
    with pytest.raises(Unavailable, match="another program's database"):
        ask(open_file())
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["memory.db"]


def test_a_newer_versions_file_is_left_alone_and_used_again_when_it_is_gone(open_file, open_front, path, logged):
    engine = open_file()
    ask(engine)
    engine.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    clock = Clock()
    memory = open_front(open_file(), timer=clock)
    settle(memory)
    for _ in range(5):
        assert recall(memory) is UNAVAILABLE
    ((_, _, fields),) = logged
    assert fields["why"] == (
        f"{path} has version {SCHEMA + 1} and this program knows {SCHEMA}: a newer dnsbl-milter wrote it"
    )
    path.rename(path.with_name("newer.db"))
    clock.now += PAUSE_SECONDS
    assert recall(memory) is DEFERRED


def test_a_lock_that_is_held_too_long_is_an_answer_and_no_harm(open_file, open_front, path, monkeypatch):
    monkeypatch.setattr(memory_file, "BUSY_SECONDS", 0.01)
    clock = Clock()
    memory = open_front(open_file(), timer=clock)
    assert recall(memory) is DEFERRED
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert [recall(memory) for _ in range(4)] == [UNAVAILABLE] * 4
        other.execute("ROLLBACK")
    clock.now += PAUSE_SECONDS
    assert recall(memory, NOW + 300) is PASSED
    assert len(rows(path)) == 1


def test_a_decision_that_fails_half_way_leaves_nothing_behind(engine, path, monkeypatch):
    ask(engine)
    monkeypatch.setattr(memory_sqlite, "_STALE", "SELECT nonsense")
    with pytest.raises(Unavailable, match="nonsense"):
        ask(engine, recipient="carol@example.net")
    monkeypatch.undo()
    assert len(rows(path)) == 1
    assert ask(engine, recipient="carol@example.net") is DEFERRED


def test_a_folder_of_that_name_is_no_file(open_file, path):
    path.mkdir()
    with pytest.raises(Unavailable, match=str(path)):
        ask(open_file())


# --- many at once

SESSIONS, THREADS = 100, 8


def visit(path, name):
    """Be a worker with a hundred sessions; print what each kind of attempt was told."""
    memory = Memory(SqliteEngine(Path(path), TERMS), deadline=PATIENT)
    told = {"own": Counter(), "shared": Counter()}

    def session(number):
        own = f"{name}-{number}"
        answers = [memory.recall(CLIENT, SENDER, f"{own}.x@example.net", NOW + age) for age in (0, 1, 300, 301)]
        return answers, memory.recall(CLIENT, SENDER, "everybody@example.net", NOW + 300 * (number % 2))

    say("ready")
    sys.stdin.readline()
    with ThreadPoolExecutor(THREADS) as threads:
        for own, shared in threads.map(session, range(SESSIONS)):
            told["own"][",".join(own)] += 1
            told["shared"][shared] += 1
    memory.close()
    say(json.dumps(told))


def test_two_workers_with_two_hundred_sessions_lose_nothing(path):
    workers = [run_child("visit", path, name, stdin=subprocess.PIPE) for name in ("one", "two")]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    told = [json.loads(worker.communicate(timeout=PATIENT)[0]) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    for each in told:
        assert each["own"] == {"deferred,early,passed,known": SESSIONS}
    shared = sum((Counter(each["shared"]) for each in told), Counter())
    # Of all two hundred exactly one was the first, and exactly one was the first in time.
    assert shared.total() == 2 * SESSIONS
    assert shared["deferred"] == 1
    assert shared["passed"] == 1
    assert shared["unavailable"] == 0
    assert len(rows(path)) == 2 * SESSIONS + 1
    assert all(passed for _, passed, *_ in rows(path))


def write_on(path, start):
    """Be a worker that never rests, and print the number of each attempt that was answered."""
    engine = SqliteEngine(Path(path), TERMS)
    for number in range(int(start), 10**9):
        assert ask(engine, recipient=f"r{number}.x@example.net") is DEFERRED
        say(number)


def test_a_worker_killed_while_it_writes_loses_nothing_it_answered(engine, path):
    ask(engine)
    chance = random.Random(4)
    answered = []
    for life in range(5):
        worker = run_child("write_on", path, life * 1_000_000)
        answered += [int(worker.stdout.readline()) for _ in range(chance.randrange(1, 80))]
        worker.send_signal(signal.SIGKILL)
        # What it printed before it died counts too; the last line may be cut.
        answered += [int(line) for line in worker.stdout if line.endswith("\n")]
        worker.stdout.close()
        assert worker.wait(PATIENT) == -signal.SIGKILL
        # The others go on at once.
        assert ask(engine, NOW + 1) is EARLY
    rows(path)
    assert {ask(engine, recipient=f"r{number}.x@example.net") for number in answered} == {EARLY}
    # At most one attempt a life was written and not answered any more.
    assert len(answered) + 1 <= len(rows(path)) <= len(answered) + 1 + 5


def live_through_bad_disks(folder):
    """On a disk of our own that gets full and read-only, print what memory said."""
    told = {}
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    ballast, clock = Path(folder, "ballast"), Clock()
    engine = SqliteEngine(Path(folder, "memory.db"), TERMS)
    memory = Memory(engine, deadline=PATIENT, timer=clock)
    told["before"] = recall(memory)

    def fill_disk():
        with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    def later():
        clock.now += PAUSE_SECONDS
        return clock.now

    fill_disk()
    answers = Counter(recall(memory, recipient=f"r{number}.x@example.net") for number in range(1000))
    told["full"] = [answers[UNAVAILABLE] > 0, answers[DEFERRED] + answers[UNAVAILABLE], str(recall(memory, NOW + 300))]
    ballast.unlink()
    later()
    told["after"] = [recall(memory, NOW + 300), recall(memory, NOW + 301)]
    engine.close()
    told["whole"] = len(rows(Path(folder, "memory.db"))) > 0

    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    told["read-only"] = [recall(memory, NOW + 302) for _ in range(5)]
    subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
    later()
    told["writable again"] = recall(memory, NOW + 303)

    # The file alone is read-only, so that it can be opened: such a connection must not be kept.
    engine.close()
    file = f"{folder}/memory.db"
    subprocess.run(["mount", "--bind", file, file], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", file], check=True)
    told["read-only file"] = [recall(memory, NOW + 304) for _ in range(5)]
    subprocess.run(["umount", "--lazy", file], check=True)
    later()
    told["writable file"] = recall(memory, NOW + 305)
    memory.close()

    for file in Path(folder).iterdir():
        file.unlink()
    fill_disk()
    memory = Memory(SqliteEngine(Path(folder, "memory.db"), TERMS), deadline=PATIENT, timer=clock)
    told["begun on a full disk"] = [recall(memory) for _ in range(5)]
    ballast.unlink()
    later()
    told["begun at last"] = [recall(memory), recall(memory, NOW + 300)]
    memory.close()
    say(json.dumps(told))


def test_a_full_disk_and_a_read_only_one_heal_without_a_restart(tmp_path):
    # A namespace of its own for the mount; with a user's of its own where we are not root.
    alone = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    child = run_child("live_through_bad_disks", tmp_path, wrapper=alone)
    told = json.loads(child.communicate(timeout=PATIENT)[0])
    assert child.returncode == 0
    assert told == {
        "before": "deferred",
        "full": [True, 1000, "unavailable"],
        "after": ["passed", "known"],
        "whole": True,
        "read-only": ["unavailable"] * 5,
        "writable again": "known",
        "read-only file": ["unavailable"] * 5,
        "writable file": "known",
        "begun on a full disk": ["unavailable"] * 5,
        "begun at last": ["deferred", "passed"],
    }


# --- the configuration


def section(**keys):
    return MemorySection(**keys)


def test_the_engine_that_is_configured_is_opened(path):
    memory = open_memory(section(url=f"sqlite://{path}", delay=10))
    assert [recall(memory, NOW + age) for age in (0, 9, 10)] == [DEFERRED, EARLY, PASSED]
    memory.close()
    assert len(rows(path)) == 1


def test_an_empty_address_is_no_memory():
    memory = open_memory(section(url=""))
    assert recall(memory) is DEFERRED
    memory.close()


def test_redis_without_its_library_is_a_fault_of_the_configuration(monkeypatch):
    monkeypatch.setattr(memory_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Invalid) as raised:
        parse('[memory]\nurl = "redis://memory.example/0"\n', "test.toml")
    assert str(raised.value) == (
        "test.toml: memory.url: needs redis-py, which is not installed: pip install 'dnsbl-milter[fleet]'"
    )


SQLITE_NEEDS_NO_REDIS = """
import sys
sys.modules["redis"] = None
from dnsbl_milter.configuration import parse
from dnsbl_milter.memory import open_memory
open_memory(parse('[memory]\\nurl = "sqlite://{path}"\\n', "x").settings.memory).close()
"""


def test_sqlite_needs_no_redis(path):
    subprocess.run(
        [sys.executable, "-c", SQLITE_NEEDS_NO_REDIS.format(path=path)],
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'policy'}:{ROOT / 'milter'}"},
        check=True,
    )


def test_files_that_cannot_be_read_are_warned_about(tmp_path):
    missing = tmp_path / "missing"
    there = tmp_path / "there"
    there.touch()
    text = f'[memory]\nurl = "rediss://h?ssl_ca_certs={missing}&ssl_certfile={there}"\npassword_file = "{missing}"\n'
    assert [warning for warning in parse(text, "test.toml").warnings if "memory" in warning] == [
        f"memory: password_file: {missing}: No such file or directory",
        f"memory: ssl_ca_certs: {missing}: No such file or directory",
    ]


# --- the commands


@pytest.fixture
def command(tmp_path, path):
    """Run a command under a configuration with this memory."""

    def run(*arguments, url=f"sqlite://{path}"):
        file = tmp_path / "test.toml"
        file.write_text(f'[memory]\nurl = "{url}"\ndelay = 300\nwindow = 1000\nremember = 5000\n')
        return CliRunner().invoke(main, ["memory", *arguments, "--config", str(file)])

    return run


@pytest.fixture
def remembered(engine):
    """Something to look into: one who waits, one who passed, one of another network."""
    ask(engine, NOW, recipient="carol@example.net")
    ask(engine, NOW + 1, sender="")
    ask(engine, NOW + 301, sender="")
    ask(engine, NOW, client=ip_address("2001:db8::7"), sender="\x1b[31m")
    return engine


def test_stats(command, remembered, path):
    done = command("stats", "--json")
    assert done.exit_code == 0
    shown = json.loads(done.stdout)
    assert shown.pop("bytes") > 4096
    assert shown == {"engine": "sqlite", "url": f"sqlite://{path}", "waiting": 2, "passed": 1}
    assert "waiting  2\n" in command("stats").stdout


def test_show(command, remembered):
    done = command("show", "192.0.2.99", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {
        "network": "192.0.2.0/24",
        "entries": [
            {
                "state": "passed",
                "sender": "",
                "recipient": "bob@example.net",
                "since": "2023-11-14T22:18:21Z",
                "passes_from": None,
                "until": "2023-11-14T23:41:41Z",
            },
            {
                "state": "waiting",
                "sender": "alice@example.org",
                "recipient": "carol@example.net",
                "since": "2023-11-14T22:13:20Z",
                "passes_from": "2023-11-14T22:18:20Z",
                "until": "2023-11-14T22:30:00Z",
            },
        ],
    }
    text = command("show", "192.0.2.99").stdout
    assert "network  192.0.2.0/24\n" in text
    assert "<alice@example.org>" in text
    assert "\x1b" not in command("show", "2001:db8::1").stdout
    assert "nothing is remembered of it" in command("show", "203.0.113.7").stdout


def test_forget(command, remembered):
    assert json.loads(command("forget", "192.0.2.99", "--json").stdout) == {"network": "192.0.2.0/24", "forgotten": 2}
    assert command("forget", "192.0.2.99").stdout == "192.0.2.0/24: forgotten: 0\n"
    # The daemon that has the file open forgets as well, and only that.
    assert ask(remembered, NOW + 302, sender="") is DEFERRED
    assert ask(remembered, NOW + 1, client=ip_address("2001:db8::1"), sender="\x1b[31m") is EARLY
    assert held(remembered) == (2, 0)


@pytest.mark.parametrize("task", [("stats",), ("show", "192.0.2.7"), ("forget", "192.0.2.7")])
def test_a_command_leaves_to_the_daemon_what_is_the_daemons(command, path, task):
    done = command(*task)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"memory is unavailable: {path} does not exist; nothing has been remembered yet\n"
    assert not path.exists()
    path.write_bytes(b"no database" * 1000)
    done = command(*task)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"memory is unavailable: {path}: file is not a database\n"
    assert path.read_bytes() == b"no database" * 1000


@pytest.mark.parametrize("task", [("stats",), ("show", "192.0.2.7"), ("forget", "192.0.2.7")])
def test_a_command_says_when_there_is_no_memory(command, task):
    done = command(*task, url="")
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", 'memory is turned off (memory.url = "")\n')


@pytest.mark.parametrize("task", ["show", "forget"])
def test_what_is_no_address_is_wrong_usage(command, task):
    done = command(task, "nobody")
    assert done.exit_code == 2
    assert "'nobody' is no IPv4 or IPv6 address" in done.stderr


def test_the_password_is_shown_nowhere(command):
    shown = shown_settings(parse('[memory]\nurl = "redis://user:hidden@127.0.0.1:1/0"\n', "test.toml"))
    assert "hidden" not in json.dumps(shown)
    for task in (("stats",), ("stats", "--json"), ("show", "192.0.2.7")):
        done = command(*task, url="redis://user:hidden@127.0.0.1:1/0")
        assert done.exit_code == 1
        assert "hidden" not in done.output


def test_what_is_remembered_is_what_is_shown(engine):
    ask(engine, NOW, sender="a\nb")
    assert engine.show("192.0.2.0/24") == [Remembered("a\\nb", RECIPIENT, passed=False, since=NOW)]
    assert engine.show("192.0.3.0/24") == []


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
