"""One line an event, whatever the network put into it, and whoever does not read it."""

import fcntl
import io
import json
import logging
import os
import threading
import time
from types import SimpleNamespace

import pytest

from dnsbl_milter import log
from dnsbl_policy.actions import Action


@pytest.fixture(autouse=True)
def _restore():
    logger = logging.getLogger("dnsbl_milter")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


def redirect(monkeypatch, stream) -> None:
    # pytest puts its own stderr in place between a fixture and its test, so the module's is exchanged.
    monkeypatch.setattr(log, "sys", SimpleNamespace(stderr=stream))


@pytest.fixture
def stderr(monkeypatch) -> io.StringIO:
    stream = io.StringIO()
    redirect(monkeypatch, stream)
    return stream


QUOTED = [
    ("plain", "plain"),
    ("", ""),
    (None, ""),
    (True, "yes"),
    (False, "no"),
    (0, "0"),
    (1.5, "1.5"),
    ("a,b:c/d.e@f#g'h[i]~", "a,b:c/d.e@f#g'h[i]~"),
    ("two words", '"two words"'),
    ("key=value", '"key=value"'),
    ('say "hi"', r'"say \"hi\""'),
    ("back\\slash", r'"back\\slash"'),
    ("line\nbreak\r\n", r'"line\nbreak\r\n"'),
    ("\0\x01\x1b[31m\t", r'"\u0000\u0001\u001b[31m\t"'),
    ("del\x7f", r'"del\u007f"'),
    ("\x80\x9f", r'"\u0080\u009f"'),
    ("größe", r'"gr\u00f6\u00dfe"'),
    ("\u2028\u202e", r'"\u2028\u202e"'),
    ("😀", r'"\ud83d\ude00"'),
    ("byte \udcff", r'"byte \\xff"'),
    ("\ud800", r'"\\x00"'),
]


@pytest.mark.parametrize(("value", "written"), QUOTED)
def test_a_value_is_quoted_where_it_must_be(value, written):
    assert log.quoted(value) == written
    assert log.quoted(value).isascii()
    assert log.quoted(value).isprintable()


def test_a_line_of_logfmt(stderr):
    log.start("logfmt", "info")
    log.info("decision", client="198.51.100.7", helo="a b", exempt=None, cached=False)
    log.warning("configuration", warning="x y")
    log.error("broken", pid=7)
    assert stderr.getvalue() == (
        'decision client=198.51.100.7 helo="a b" exempt= cached=no\n'
        'configuration level=warning warning="x y"\n'
        "broken level=error pid=7\n"
    )


def test_a_line_of_json(stderr):
    log.start("json", "debug")
    log.info("decision", client="198.51.100.7", helo="a\n\x7fb\udcff", exempt=None, cached=False, wait_ms=1.5)
    log.debug("detail")
    first, second = stderr.getvalue().splitlines()
    assert first.isprintable()
    document = json.loads(first)
    assert abs(document.pop("time") - json.loads(second)["time"]) < 10
    assert document == {
        "level": "info", "event": "decision", "client": "198.51.100.7", "helo": "a\n\x7fb\\xff", "exempt": None,
        "cached": False, "wait_ms": 1.5,
    }  # fmt: skip
    assert json.loads(second)["level"] == "debug"


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_what_json_cannot_hold_is_written_as_text(stderr, form):
    log.start(form, "info")
    log.info("x", value=object)
    assert "<class 'object'>" in stderr.getvalue()


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_a_traceback_is_part_of_the_line(stderr, form):
    log.start(form, "info")
    try:
        int("two\nlines")
    except ValueError:
        log.error("callback failed", exc_info=True, callback="eom")
    (line,) = stderr.getvalue().splitlines()
    assert "Traceback (most recent call last):\\n" in line
    assert "ValueError: invalid literal for int() with base 10: 'two\\\\nlines'" in line


LEVELS = [("debug", "diwe"), ("info", "iwe"), ("warning", "we"), ("error", "e")]


@pytest.mark.parametrize(("level", "seen"), LEVELS)
def test_levels(stderr, level, seen):
    log.start("logfmt", level)
    for call, name in (log.debug, "d"), (log.info, "i"), (log.warning, "w"), (log.error, "e"):
        call(name)
    assert "".join(line[0] for line in stderr.getvalue().splitlines()) == seen
    assert log.is_detailed() is ("d" in seen)


def own_number(stream) -> str:
    status = os.fstat(stream.fileno())
    return f"{status.st_dev}:{status.st_ino}"


def another(number, device=0, inode=0) -> str:
    first, second = map(int, number.split(":"))
    return f"{first + device}:{second + inode}"


JOURNAL = [
    # JOURNAL_STREAM, from the device and inode of stderr; whether stderr is the journal
    ("stderr itself", lambda own: own, True),
    ("not set", lambda own: None, False),
    ("empty", lambda own: "", False),
    ("another inode", lambda own: another(own, inode=1), False),
    ("another device", lambda own: another(own, device=1), False),
    ("more behind it", lambda own: f"{own}0", False),
    ("garbage", lambda own: "journal", False),
]


@pytest.mark.parametrize(("variable", "is_journal"), [row[1:] for row in JOURNAL], ids=[row[0] for row in JOURNAL])
@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_the_journal_is_told_the_level_of_each_line(monkeypatch, tmp_path, form, variable, is_journal):
    with (tmp_path / "stderr").open("w+") as stream:
        redirect(monkeypatch, stream)
        value = variable(own_number(stream))
        monkeypatch.delenv("JOURNAL_STREAM", raising=False)
        if value is not None:
            monkeypatch.setenv("JOURNAL_STREAM", value)
        log.start(form, "debug")
        for call in (log.debug, log.info, log.warning, log.error):
            call("x", value="two\nlines")
        stream.seek(0)
        lines = stream.read().splitlines()
    assert [line[:3] for line in lines if is_journal] == (["<7>", "<6>", "<4>", "<3>"] if is_journal else [])
    starts = ("x", "{")[form == "json"]
    assert [line[3:][:1] if is_journal else line[:1] for line in lines] == [starts] * 4


@pytest.mark.parametrize("stream", [io.StringIO(), None], ids=["no descriptor", "no stderr"])
def test_what_has_no_number_is_no_journal(monkeypatch, stream):
    monkeypatch.setenv("JOURNAL_STREAM", "0:0")
    redirect(monkeypatch, stream)
    log.start("logfmt", "info")
    log.info("x")
    assert stream is None or stream.getvalue() == "x\n"


def test_starting_again_replaces_the_old_form(stderr):
    log.start("json", "info")
    log.start("logfmt", "info")
    log.info("once")
    assert stderr.getvalue() == "once\n"


@pytest.fixture
def pipe(monkeypatch):
    """Return a pipe whose writing end is stderr, and is full at 4096 bytes."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    # The reader goes first in the end: whoever still waits for it then waits no more.
    with os.fdopen(writing, "w") as writer, os.fdopen(reading, "rb", buffering=0) as reader:
        redirect(monkeypatch, writer)
        monkeypatch.setattr(log, "PATIENCE_SECONDS", 0.01)
        yield reader, writer


def test_lines_are_lost_and_counted_while_nobody_reads(pipe):
    reader, _ = pipe
    log.start("logfmt", "info")
    # As many lines as do not fit; without the loss this call would never return.
    writing = threading.Thread(target=lambda: [log.info("line", number=number, filling="x" * 1000) for number in range(20)])
    writing.daemon = True
    writing.start()
    writing.join(10)
    assert not writing.is_alive()
    first = reader.read(65536).decode().splitlines()
    assert [line.split()[1] for line in first] == [f"number={number}" for number in range(len(first))]
    assert 1 <= len(first) <= 4
    log.info("after")
    assert reader.read(65536).decode() == f"log lines lost level=warning lines={20 - len(first)}\nafter\n"
    log.info("as before")
    assert reader.read(65536).decode() == "as before\n"


def test_the_count_of_lost_lines_has_a_level_too(monkeypatch, pipe):
    reader, writer = pipe
    monkeypatch.setenv("JOURNAL_STREAM", own_number(writer))
    log.start("logfmt", "info")
    for _ in range(2):
        log.info("line", filling="x" * 3000)
    reader.read(65536)
    log.info("after")
    assert reader.read(65536).decode() == "<4>log lines lost level=warning lines=1\n<6>after\n"


def test_only_the_first_line_waits_for_a_reader(monkeypatch, pipe):
    monkeypatch.setattr(log, "PATIENCE_SECONDS", 0.8)
    log.start("logfmt", "info")
    log.info("fills the pipe", filling="x" * 3000)
    for least, most in (0.8, 8.0), (0.0, 0.7), (0.0, 0.7):
        begin = time.monotonic()
        log.info("does not fit", filling="x" * 3000)
        assert least <= time.monotonic() - begin < most


def test_an_enumeration_is_its_name(stderr):
    log.start("json", "info")
    log.info("decision", action=Action.TAG)
    assert json.loads(stderr.getvalue())["action"] == "tag"


def test_a_reader_that_is_gone_is_no_fault(monkeypatch, pipe):
    monkeypatch.setattr(logging, "raiseExceptions", False)
    reader, writer = pipe
    log.start("logfmt", "info")
    reader.close()
    log.info("nobody hears this")
    # What is left in the writer's buffer must find a place when it is closed.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, writer.fileno())
    os.close(null)


def test_no_stderr_at_all(monkeypatch):
    redirect(monkeypatch, None)
    log.start("logfmt", "info")
    log.info("nobody hears this")
