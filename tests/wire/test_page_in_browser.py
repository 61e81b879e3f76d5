"""The status page in a real browser: wide and narrow, light and dark, on a host where a list has gone mad."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from browser import Browser
from faulty import SILENCE, listed
from mta import Session
from museum import BAD, GUILTY, TAGGED, Museum, entries

from dnsbl_milter.page import ListRow, Mood, Status, render

LONG = "a-list/whose+operator.likes_a.name-of-sixty-four.characters/here"
TITLES = "document.title='done'"
HOSTILE_URL = f'https://look.example/"><img/src=x/onerror={TITLES}><script>{TITLES}</script></pre>{{client}}'
HOSTILE_PAUSE = f"<img src=x onerror={TITLES}>"
HOSTILE_NAME = f"\"><script>{TITLES}</script><img src=x onerror=\"{TITLES}\"></th><b>{'W' * 300}"
MORE = f"""
[[list]]
name = "zen"
zone = "zen.example"
url = '''{HOSTILE_URL}'''
codes = [
    {{ match = "127.0.0.2", weight = 5, label = "SBL" }},
    {{ match = "127.0.0.3", weight = 5, label = "CSS" }},
    {{ match = "127.0.0.[4..7]", weight = 5, label = "XBL" }},
    {{ match = "127.0.0.9", weight = 7, label = "DROP" }},
    {{ match = "127.0.0.[10;11]", weight = 3, label = "PBL" }},
]

[[list]]
name = "{LONG}"
zone = "long.example"
weight = 1.25

[[list]]
name = "newcomer"
zone = "newcomer.example"
weight = 3
observe = true

[[list]]
name = "silent"
zone = "silent.example"
weight = 2
"""

LISTS = [
    # name as the page has it, state, weight
    (BAD, "suspended", "+12"),
    ("one", "paused", "+4"),
    ("two", "ok", "+4"),
    ("friend", "ok", "-4"),
    ("zen", "ok", "SBL +5, CSS +5, XBL +5, DROP +7, PBL +3"),
    (LONG, "ok", "+1.25"),
    ("newcomer (observed)", "ok", "+3"),
    ("silent", "suspended ipv4", "+2"),  # for IPv6 it has never come into service
]

LOOKS = [(width, scheme) for width in (1280, 400) for scheme in ("light", "dark")]
LEAST_CONTRAST = 4.5
"""Between a text and what is behind it (WCAG 2, 1.4.3, level AA)."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def house(folder):
    zones = {f"{name}.example": entries("127.0.0.2", GUILTY) for name in ("zen", "long", "newcomer")}
    with Museum(folder, more=MORE, zones=zones | {"silent.example": SILENCE}) as museum:
        for client in (GUILTY, TAGGED, "198.51.100.7", "198.51.100.8"):
            museum.told(client)
        with Session(f"{folder}/milter.sock", TAGGED) as session:
            session.recipient()
            session.message(("Subject", "hello"))
        museum.server.zones["bad.example"] = listed("127.0.0.2")
        museum.wait_for(BAD, "suspended", family="ipv4")
        museum.wait_for(BAD, "suspended", family="ipv6")
        museum.wait_for("silent", "suspended")
        (folder / "pauses.json").write_text(json.dumps({"one": None, HOSTILE_PAUSE: None}))
        yield museum


@pytest.fixture(scope="module")
def browser(folder):
    with Browser(folder / "browser") as started:
        yield started


@pytest.fixture(params=LOOKS, ids=[f"{width} {scheme}" for width, scheme in LOOKS])
def look(request, browser):
    width, scheme = request.param
    browser.look_like(width=width, scheme=scheme)
    return width, scheme


@pytest.fixture
def address(house, browser, look, folder):
    """Load the page in that look, and keep a picture of it; return its address."""
    address = f"http://{house.web}/"
    browser.requests()
    browser.complaints()
    browser.open(address)
    width, scheme = look
    browser.screenshot(folder / f"page-{width}-{scheme}.png")
    return address


WIDTHS = "return [innerWidth, document.documentElement.scrollWidth, document.documentElement.clientWidth]"
OPENED = "document.querySelector('details').open = true"
ROWS = """
return [...document.querySelectorAll("tbody tr")].map(row => [...row.cells].map(cell => cell.innerText.trim()))
"""
BOXES = """
return [...document.querySelectorAll("tbody tr > *")].map(cell => {
    const box = cell.getBoundingClientRect()
    return [cell.innerText, box.left, box.right, box.height, cell.scrollWidth - cell.clientWidth]
})
"""
# Every text that stands by itself, in an element or before it, with its colour and that of what is behind it.
TEXTS = """
document.querySelector("details").open = true
const behind = element => {
    for (; element; element = element.parentElement) {
        const colour = getComputedStyle(element).backgroundColor
        if (colour != "rgba(0, 0, 0, 0)") return colour
    }
    return "none"
}
const found = []
for (const element of document.body.querySelectorAll("*")) {
    const before = getComputedStyle(element, "::before")
    if (!["none", "normal"].includes(before.content)) found.push([before.content, before.color, behind(element)])
    if ([...element.childNodes].some(node => node.nodeType == Node.TEXT_NODE && node.data.trim()))
        found.push([element.innerText, getComputedStyle(element).color, behind(element)])
}
return found
"""


def luminance(colour):
    """Return the relative luminance of an opaque colour as a browser writes it (WCAG 2)."""
    channels = [int(value) / 255 for value in re.fullmatch(r"rgb\((\d+), (\d+), (\d+)\)", colour).groups()]
    red, green, blue = (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, two):
    """Return the contrast of two colours, from 1 to 21 (WCAG 2)."""
    darker, lighter = sorted((luminance(one), luminance(two)))
    return (lighter + 0.05) / (darker + 0.05)


def test_contrast_is_reckoned_as_the_guidelines_do():
    assert contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)") == pytest.approx(21)
    # The well-known lightest grey that passes on white, and the next one.
    assert contrast("rgb(118, 118, 118)", "rgb(255, 255, 255)") >= LEAST_CONTRAST > contrast("rgb(119, 119, 119)", "rgb(255, 255, 255)")


def test_it_asks_for_nothing_else_and_nothing_is_wrong_with_it(address, browser):
    assert browser.requests() == [address]
    assert browser.complaints() == []
    assert browser.run("return [document.scripts.length, document.images.length, document.title]") == [0, 0, "dnsbl-milter"]
    assert browser.run("return document.compatMode") == "CSS1Compat"


def test_it_fits(address, browser, look):
    for script in (WIDTHS, f"{OPENED}; {WIDTHS}"):
        shown, needed, there = browser.run(script)
        assert shown == look[0]
        assert needed <= there


def test_every_list_is_there_with_its_state(address, browser, look):
    rows = browser.run(ROWS)
    assert [tuple(text.replace("\N{NO-BREAK SPACE}", " ") for text in row[:3]) for row in rows] == LISTS
    for text, left, right, height, too_wide in browser.run(BOXES):
        assert height > 0, text
        assert 0 <= left < right <= look[0], text
        assert too_wide <= 0, text


def test_what_happened_to_mail_is_there(address, browser):
    tiles = browser.run("return [...document.querySelectorAll('dl div')].map(tile => tile.innerText.split(/\\s+/))")
    # The guilty one is on the bad list, on both healthy ones and on zen; the tagged one came twice.
    assert tiles == [["accept", "2"], ["tag", "2"], ["defer", "0"], ["quarantine", "0"], ["reject", "1"], ["discard", "0"]]
    text = browser.run("return document.body.innerText")
    assert "5 connections, 0 not judged, 1 message seen to the end" in " ".join(text.split())
    assert "workers: 1 serving, 0 draining, 0 died" in text
    assert "On observation: one" in text


def test_every_text_stands_out(address, browser, look):
    texts = browser.run(TEXTS)
    assert {name for name, _, _ in LISTS} <= {text for text, _, _ in texts}
    faint = [(text, contrast(colour, behind)) for text, colour, behind in texts if contrast(colour, behind) < LEAST_CONTRAST]
    assert faint == []
    behind = luminance(browser.run("return getComputedStyle(document.body).backgroundColor"))
    assert behind > 0.8 if look[1] == "light" else behind < 0.05


def test_what_is_hostile_stays_text(address, browser):
    text = browser.run(f"{OPENED}; return document.body.innerText")
    assert f"On observation: {HOSTILE_PAUSE}" in text
    assert HOSTILE_URL.partition('"')[2] in text  # TOML has the quotation mark escaped
    assert browser.run("return document.querySelectorAll('img, script, iframe, object, embed').length") == 0


@pytest.fixture(scope="module")
def hostile_page():
    """Serve a page on which everything is hostile, as no configuration could make it; return its address."""
    mood = Mood(HOSTILE_NAME, "bad")
    document = render(
        Status(
            version=HOSTILE_NAME, health=mood, loaded=HOSTILE_NAME, reload=mood, workers=HOSTILE_NAME, paused=[HOSTILE_NAME],
            recipients=[(HOSTILE_NAME, 10**9)], messages=10**12, connections=10**12, exempt=10**12, since=HOSTILE_NAME,
            at=HOSTILE_NAME, resolver=HOSTILE_NAME, policy=HOSTILE_NAME,
            lists=[ListRow(HOSTILE_NAME, [mood], HOSTILE_NAME, 10**9, 10**9, 10**9, 123456.7, 10**9)],
        )
    ).encode()  # fmt: skip

    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(document)))
            self.end_headers()
            self.wfile.write(document)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def test_a_hostile_name_makes_no_element_and_no_page_wider(hostile_page, browser, look, folder):
    browser.requests()
    browser.complaints()
    browser.open(hostile_page)
    width, scheme = look
    browser.screenshot(folder / f"hostile-{width}-{scheme}.png")
    assert (browser.requests(), browser.complaints()) == ([hostile_page], [])
    assert browser.run("return document.title") == "dnsbl-milter"
    assert browser.run("return document.querySelectorAll('img, script, b').length") == 0
    assert browser.run("return document.querySelector('tbody th').textContent") == HOSTILE_NAME
    _, needed, there = browser.run(f"{OPENED}; {WIDTHS}")
    assert needed <= there
