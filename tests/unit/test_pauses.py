"""Pauses: a file that everybody reads and that nobody can break the mail with."""

import itertools
import json
import os

import pytest

from dnsbl_milter import log
from dnsbl_milter.pauses import EVERYTHING, LOOK_SECONDS, Pauses, file, parse_duration, read, write

NOW = 1_000_000.0

DURATIONS = [("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86_400)]
NO_DURATIONS = ["", "2", "h", "2 h", "-1h", "0m", "1.5h", "2w", "1h30m", "٢h", "9999999d"]

USELESS = [
    # name, what is in the file, what the log says of it
    ("an empty file", "", "Expecting value"),
    ("half a file", '{"zen": 1', "Expecting ',' delimiter"),
    ("another document", "[1, 2]", "expected an object"),
    ("odd moments", '{"zen": "soon", "spamcop": []}', "expected seconds since the epoch, or null, for spamcop, zen"),
    ("bytes", "\0\0\0", "Expecting value"),
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "pauses.json"


@pytest.mark.parametrize(("text", "seconds"), DURATIONS)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", NO_DURATIONS)
def test_no_durations(text):
    with pytest.raises(ValueError, match="expected a duration such as 30m, 2h or 1d"):
        parse_duration(text)


def test_what_is_written_is_read_until_its_time_has_come(path):
    write(path, {"zen": None, "spamcop": NOW + 60, EVERYTHING: NOW - 1})
    assert read(path, NOW) == {"zen": None, "spamcop": NOW + 60}
    assert read(path, NOW + 60) == {"zen": None}


@pytest.fixture
def warnings(monkeypatch):
    """Return what the log is told, by name and reason."""
    told = []
    monkeypatch.setattr(log, "warning", lambda event, *, file, why: told.append((event, file, why)))
    return told


@pytest.mark.parametrize(("content", "why"), [row[1:] for row in USELESS], ids=[row[0] for row in USELESS])
def test_a_file_that_makes_no_sense_pauses_nothing_and_is_named_once(path, warnings, content, why):
    write(path, {"zen": None})
    moments = itertools.count(NOW)  # every look at the clock is a second later
    pauses = Pauses(path, lambda: next(moments))
    assert pauses.names() == {"zen"}
    path.write_text(content)
    assert read(path, NOW) == {}
    assert [pauses.names() for _ in range(100)] == [frozenset()] * 100
    ((event, file, said),) = warnings
    assert (event, file) == ("pauses not understood", path)
    assert said.startswith(why)


def test_what_makes_sense_holds_beside_what_does_not(path, warnings):
    path.write_text('{"zen": null, "spamcop": "2h"}')
    assert Pauses(path).names() == {"zen"}
    assert [why for _, _, why in warnings] == ["expected seconds since the epoch, or null, for spamcop"]


def test_a_file_that_cannot_be_read_pauses_nothing_and_is_named(path, warnings):
    path.mkdir()
    assert Pauses(path).names() == frozenset()
    assert [why for _, _, why in warnings] == ["Is a directory"]


def test_no_file_pauses_nothing_and_is_nothing_to_speak_of(path, warnings):
    assert read(path, NOW) == {}
    assert Pauses(path).names() == frozenset()
    assert warnings == []


# What is done to the file, how much later by the clock it is asked again, and what is paused then.
LOOKS = [
    (lambda path: None, 0, set()),
    (lambda path: write(path, {"zen": NOW + 60}), 0, set()),
    (lambda path: None, LOOK_SECONDS / 2, set()),
    (lambda path: None, LOOK_SECONDS / 2, {"zen"}),
    (lambda path: write(path, {"zen": NOW + 60, EVERYTHING: None}), LOOK_SECONDS, {"zen", EVERYTHING}),
    (lambda path: None, 60, {EVERYTHING}),
    (lambda path: write(path, {"zen": None}), -3600, {"zen"}),
    (lambda path: path.unlink(), LOOK_SECONDS, set()),
    (lambda path: write(path, {"zen": None}), LOOK_SECONDS, {"zen"}),
]


def test_a_process_sees_every_change_within_a_tenth_of_a_second(path):
    now = [NOW]
    pauses = Pauses(path, lambda: now[0])
    for change, later, names in LOOKS:
        change(path)
        now[0] += later
        assert pauses.names() == names


def test_the_file_is_replaced_whole_and_readable_by_the_daemon(path):
    before = os.umask(0o077)
    try:
        write(path, {"zen": None})
        write(path, {"spamcop": None})
    finally:
        os.umask(before)
    assert json.loads(path.read_text()) == {"spamcop": None}
    assert path.stat().st_mode & 0o777 == 0o644
    assert [each.name for each in path.parent.iterdir()] == ["pauses.json"]


def test_a_folder_that_is_missing_is_an_error_for_the_one_who_writes(path):
    with pytest.raises(FileNotFoundError):
        write(path.parent / "missing" / "pauses.json", {})


def test_it_lies_where_systemd_says(monkeypatch):
    monkeypatch.setenv("STATE_DIRECTORY", "/srv/state:/srv/other")
    assert str(file()) == "/srv/state/pauses.json"
    monkeypatch.delenv("STATE_DIRECTORY")
    assert str(file()) == "/var/lib/dnsbl-milter/pauses.json"
