"""Of one thing, a few lines an hour; and the next one says how many were left out."""

import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import Milter
import pytest

from dnsbl_milter import log, monitor, worker
from dnsbl_milter.repeats import Repeats

HOUR, LINES = Repeats.SECONDS, Repeats.LINES
FEW = [(float(moment), 0) for moment in range(LINES)]

SAID = [
    # name, (moment, what the log gets: how many were left out before, or None) for each time that it is said
    ("once", [(0.0, 0)]),
    ("a few", FEW),
    ("more", [*FEW, (4.0, None), (HOUR - 0.1, None)]),
    ("more, and once more after the hour", [*FEW, (4.0, None), (5.0, None), (HOUR, 2), (HOUR + 1, 0)]),
    ("a few in each of two hours", [*FEW, *((HOUR + moment, 0) for moment, _ in FEW)]),
    ("the hour begins with the first", [(HOUR - 1, 0), (HOUR, 0), (HOUR + 1, 0), (HOUR + 2, 0), (HOUR + 3, None)]),
    ("every second for two hours", [
        *FEW, *((float(moment), None) for moment in range(LINES, int(HOUR))),
        (HOUR, int(HOUR) - LINES), *((HOUR + moment, 0) for moment in range(1, LINES)), (HOUR + LINES, None),
    ]),
    ("a clock that was set back", [*FEW, (4.0, None), (-5.0, 1), (-4.0, 0)]),
]  # fmt: skip


@pytest.mark.parametrize("said", [row[1] for row in SAID], ids=[row[0] for row in SAID])
def test_what_is_said_over_and_over_is_left_out(said):
    repeats = Repeats()
    assert [repeats.allow("x", moment) for moment, _ in said] == [answer for _, answer in said]


def test_each_thing_has_its_own_few_lines():
    repeats = Repeats()
    assert [repeats.allow(what, 0.0) for what in "xxxxxyx"] == [0, 0, 0, 0, None, 0, None]


def test_whatever_threads_say_is_counted():
    repeats = Repeats()
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: repeats.allow("x", 0.0), range(4000)))
    assert answers.count(0) == LINES
    assert repeats.allow("x", HOUR) == 4000 - LINES


# --- whoever may fail for each client


@pytest.fixture
def lines(monkeypatch):
    """Return what is logged; nothing has been said before."""
    logged = []
    monkeypatch.setattr(worker, "_repeats", Repeats())
    for level in ("warning", "error"):
        monkeypatch.setattr(log, level, lambda event, **fields: logged.append((event, fields)))
    return logged


def test_a_broken_callback_writes_a_few_lines_and_not_one_a_mail(lines):
    counted = []
    house = SimpleNamespace(metrics=SimpleNamespace(failed=counted.append))
    sessions = worker._Sessions(house)

    def broken(_session):
        raise RuntimeError

    for name in ("connect", "eom"):
        callback = sessions._guarded(name, broken)
        for _ in range(100):
            assert callback(SimpleNamespace(getpriv=object)) == Milter.CONTINUE
    assert Counter(counted) == {"connect": 100, "eom": 100}
    assert [(event, fields["callback"]) for event, fields in lines] == [
        *[("callback failed", "connect")] * LINES, *[("callback failed", "eom")] * LINES,
    ]  # fmt: skip


def test_names_that_cannot_be_read_write_a_few_lines_and_not_one_a_client(lines):
    for number in range(100):
        fault = UnicodeDecodeError("utf-8", f"name {number} \xff".encode("latin-1"), 0, 1, "no UTF-8")
        worker._unreadable(type(fault), fault, None)
    assert [(event, fields["text"]) for event, fields in lines] == [
        ("not readable as text", f"name {number} \udcff") for number in range(LINES)
    ]


def test_readers_who_hang_up_write_a_few_lines_and_not_one_a_visit(lines):
    with socket.create_server(("127.0.0.1", 0)) as web:
        server = monitor._Server(web, None)
        for _ in range(100):
            server.handle_error(None, None)
    assert [event for event, _ in lines] == ["page failed"] * LINES
