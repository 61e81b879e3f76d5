"""The status page: what it shows, and that nothing put into it can be more than text."""

import re
import time
from html.parser import HTMLParser

import pytest

from dnsbl_milter import advice
from dnsbl_milter.board import facts
from dnsbl_milter.configuration import parse
from dnsbl_milter.page import ListRow, Mood, Status, render
from dnsbl_milter.standing import Standing
from dnsbl_milter.today import Today
from dnsbl_milter.watch import Watch
from dnsbl_policy.symptoms import Fault

OK = Mood("ok", "good")
HOSTILE = "<script>alert('x')</script>&\""


def status(**other):
    given = {
        "version": "1.2.3", "at": "2026-11-22 15:00:00", "health": Mood("serving", "good"), "loaded": "2026-11-22 12:00:00", "reload": Mood("in force", "good"),
        "workers": "workers: 2 serving", "paused": (), "recipients": [("accept", 10), ("tag", 2345)], "messages": 9,
        "connections": 12, "exempt": 3, "since": "midnight",
        "lists": [ListRow("zen", [OK], "SBL +5", 200, 30, 4, 1.5, 7)], "policy": "tag = 3.0",
    }
    return Status(**given | other)


class Text(HTMLParser):
    """Reads a page as a browser does: its elements, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_everything_is_on_it():
    text = " ".join(Text(render(status(paused=["spamcop", "everything"], resolver="down: nobody answers"))).text)
    for shown in (
        "1.2.3", "serving", "2,345", "12 connections, 3 not judged, 9 messages", "zen", "SBL +5", "200", "15.0%", "1.5", "midnight",
        "2026-11-22 15:00:00",
        "Resolver at fault: down: nobody answers", "On observation: spamcop", "On observation: everything", "2026-11-22 12:00:00", "tag = 3.0",
    ):
        assert shown in text


@pytest.mark.parametrize(
    "hostile",
    [
        {"version": HOSTILE}, {"health": Mood(HOSTILE, "bad")}, {"loaded": HOSTILE}, {"workers": HOSTILE}, {"paused": [HOSTILE]},
        {"since": HOSTILE}, {"at": HOSTILE}, {"resolver": HOSTILE}, {"policy": HOSTILE}, {"recipients": [(HOSTILE, 1)]},
        {"lists": [ListRow(HOSTILE, [Mood(HOSTILE, "bad")], HOSTILE, 1, 1, 0, None, 0)]},
    ],
    ids=lambda given: next(iter(given)),
)
def test_whatever_is_put_into_it_stays_text(hostile):
    page = Text(render(status(**hostile)))
    assert "script" not in {tag for tag, _ in page.tags}
    assert HOSTILE in "".join(page.text)
    assert page.open == []


def test_it_needs_nothing_from_elsewhere():
    page = render(status())
    tags = Text(page).tags
    assert {tag for tag, _ in tags}.isdisjoint({"script", "img", "iframe", "object"})
    # Without an icon a browser asks for one.
    assert [attributes for tag, attributes in tags if tag == "link"] == [{"rel": "icon", "href": "data:,"}]
    assert not re.search(r"https?:|url\(|@import", page)
    assert "prefers-color-scheme: dark" in page


COUNTS = [
    # connections and messages, as the page says it
    (0, "0 connections, 0 not judged, 0 messages"),
    (1, "1 connection, 0 not judged, 1 message "),
    (1234567, "1,234,567 connections, 0 not judged, 1,234,567 messages"),
]


@pytest.mark.parametrize(("count", "said"), COUNTS)
def test_counts_in_words(count, said):
    assert said in " ".join(Text(render(status(connections=count, messages=count, exempt=0))).text)


def test_a_list_that_nobody_asked_has_no_share_and_no_median():
    page = render(status(lists=[ListRow("zen", [OK], "+5", 0, 0, 0, None, 0)]))
    assert "%" not in re.sub(r"<style>.*</style>", "", page, flags=re.DOTALL)


def test_a_resolver_at_fault_is_named_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    loaded = parse("list = [{ zone = 'one.example', weight = 1 }]", "f.toml")
    watch = Watch(loaded, facts(), Standing(loaded.policy.lists), tmp_path)
    assert watch.status(EVENING).resolver == ""
    for fault in Fault:
        watch._standing.fault = fault
        assert watch.status(EVENING).resolver == f"{fault}: {advice.RESOLVER[fault]}"


# --- counts of today

HITS = ("list_hits_total", ("SBL", "zen"))
EVENING = time.mktime((2026, 11, 21, 18, 30, 0, 0, 0, -1))
MORNING = time.mktime((2026, 11, 22, 6, 0, 0, 0, 0, -1))


def test_counts_are_from_the_start_and_then_from_midnight(tmp_path):
    today = Today(tmp_path / "today.json")
    assert today.since({HITS: 5.0}, EVENING) == ("18:30", {HITS: 5.0})
    assert today.since({HITS: 9.0}, EVENING + 60) == ("18:30", {HITS: 9.0})
    assert today.since({HITS: 11.0}, MORNING) == ("midnight", {HITS: 0.0})
    assert today.since({HITS: 14.0}, MORNING + 60) == ("midnight", {HITS: 3.0})


def test_a_new_monitor_goes_on_where_the_old_one_was(tmp_path):
    Today(tmp_path / "today.json").since({HITS: 5.0}, EVENING)
    Today(tmp_path / "today.json").since({HITS: 11.0}, MORNING)
    assert Today(tmp_path / "today.json").since({HITS: 14.0}, MORNING + 60) == ("midnight", {HITS: 3.0})


@pytest.mark.parametrize("content", ["", "{", "[]", '{"day": "2026-11-21"}'])
def test_a_damaged_file_begins_anew(tmp_path, content):
    (tmp_path / "today.json").write_text(content)
    assert Today(tmp_path / "today.json").since({HITS: 5.0}, EVENING) == ("18:30", {HITS: 5.0})
