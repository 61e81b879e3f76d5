"""What a hostile client may write: it breaks no line of the log, no reply and no header."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from mailhost.policies import sample_policy
from mailhost.site import ARRIVING, FORGED, MESSAGE, RECIPIENT, SENDER, Site, message

OpenSite = Callable[..., Site]

LISTED, QUARANTINED, REJECTED = "198.51.100.12", "198.51.100.21", "198.51.100.25"
TAG = ["X-DNSBL-Score: 5 (zen=SBL:+5)", "X-DNSBL-Action: tag"]
REFUSAL = "listed by zen, spamcop, psbl; see https://zen.example/query/198.51.100.25"
# Sendmail refuses an odd name in HELO, unless it is told to be lenient, as many a host is.
LENIENT = "define(`confALLOW_BOGUS_HELO', `True')dnl"
FORMATS = ("logfmt", "json")

# What a client writes, and what the log's reader must read. Python's "\udcXX" is a byte that is no UTF-8; the log
# writes it as \xXX.
HELOS = (
    ("plain", "mail.example", "mail.example"),
    ("an address", "[198.51.100.25]", "[198.51.100.25]"),
    ("quotes", "a\"b'c`d", "a\"b'c`d"),
    # Sendmail ends a name at its first blank, but not at one behind an odd character.
    ("another field", '"x action=accept enforced="accept"', '"x action=accept enforced="accept"'),
    ("a blank", "x action=accept", "x"),
    ("a closed string", '", "action": "accept', '", "action": "accept'),
    ("the end of an object", '"}', '"}'),
    ("backslashes", "a\\b\\\\c\\n\\u0041", "a\\b\\\\c\\n\\u0041"),
    ("a colour", "\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
    ("control characters", "a\x01\x02\x07\x08\x0b\x0c\x0e\x1f\x7fb", "a\x01\x02\x07\x08\x0b\x0c\x0e\x1f\x7fb"),
    ("a tab", '"a\tb', '"a\tb'),
    ("percent signs", "%s%n%d%%{client}", "%s%n%d%%{client}"),
    ("UTF-8", "m\xc3\xbcller.example", "m\u00fcller.example"),
    ("line separators in UTF-8", "a\xe2\x80\xa8b\xc2\x85c", "a\u2028b\u0085c"),
    ("beyond the first plane", "\xf0\x9f\x93\xa7.example", "\U0001f4e7.example"),
    ("right to left", "\xe2\x80\xaegpj.exe", "\u202egpj.exe"),
    ("a name of 250 characters", "a" * 250, "a" * 250),
)
# pymilter takes a HELO for UTF-8 and gives up on any other; the milter says so in a line of its own.
UNREADABLE = (
    ("Latin-1", "m\xfcller.example", "m\\xfcller.example"),
    ("a broken sequence", "\xc3(.example", "\\xc3(.example"),
    ("a surrogate", "\xed\xa0\x80", "\\xed\\xa0\\x80"),
    ("overlong", "\xc0\xae\xc0\xae/", "\\xc0\\xae\\xc0\\xae/"),
    ("every byte above", "".join(map(chr, range(128, 256))), "".join(f"\\x{byte:02x}" for byte in range(128, 256))),
)

# What stands between < and >, what the log's reader must read, and as whose address Sendmail takes it.
SENDERS, RECIPIENTS = "sender", "recipient"
BOTH = (SENDERS, RECIPIENTS)
ADDRESSES = (
    ("quoted", '"a b"@x.example', '"a b"@x.example', BOTH),
    ("a blank", "a b@x.example", "a b@x.example", BOTH),
    ("quotes and equals signs", '"x\\" action=accept y=\\"z"@x.example', '"x\\" action=accept y=\\"z"@x.example', BOTH),
    ("the end of an object", '"\\"},{"@x.example', '"\\"},{"@x.example', BOTH),
    ("percent signs", "100%s%n@x.example", "100%s%n@x.example", (SENDERS,)),
    ("all that is allowed", "!#$&'*+-/=?^_`{|}~@x.example", "!#$&'*+-/=?^_`{|}~@x.example", BOTH),
    ("brackets within", '"<postmaster@acme123.com>"@x.example', '"<postmaster@acme123.com>"@x.example', BOTH),
    ("a route", "@a.example,@b.example:c@d.example", "@a.example,@b.example:c@d.example", (SENDERS,)),
    ("UTF-8", "j\xc3\xbcrgen@x.example", "j\u00fcrgen@x.example", BOTH),
    ("UTF-8 in the domain", "a@ex\xc3\xa4mple.example", "a@ex\u00e4mple.example", (SENDERS,)),
    ("Latin-1", "j\xfcrgen@x.example", "j\\xfcrgen@x.example", BOTH),
    ("a long local part", f"{'a' * 200}@x.example", f"{'a' * 200}@x.example", BOTH),
    ("no domain", "someone", "someone", (RECIPIENTS,)),
    ("an empty quoted string", '""@x.example', '""@x.example', (SENDERS,)),
)
# Sendmail itself refuses these, and asks nobody.
REFUSED = (
    "<a\x01b@x.example>",
    "<a\x7fb@x.example>",
    "<a\x9b31mb@x.example>",
    f"<{'a' * 2000}@x.example>",
    "<a@x.example> <b@x.example>",
    "<j\xc3\xbcrgen@x.example> SMTPUTF8",
    "<a@x.example",
)


@pytest.fixture(scope="module", params=FORMATS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def site(open_site: OpenSite, form: str) -> Site:
    return open_site(sample_policy(log={"format": form}), extra=LENIENT)


def the_decision(site: Site) -> dict[str, object]:
    (decision,) = site.decisions()
    return decision


@pytest.mark.parametrize(("written", "read"), [row[1:] for row in HELOS], ids=[row[0] for row in HELOS])
def test_a_helo_is_logged_as_it_was_written(site: Site, written: str, read: str) -> None:
    with site.connect(REJECTED) as client:
        assert client.ehlo(written).code == 250
        client.mail(SENDER)
        told = client.rcpt(RECIPIENT)
        assert (told.code, told.text[:5]) == (550, "5.7.1")
        assert told.text.endswith(REFUSAL)
    decision = the_decision(site)
    assert decision["helo"] == read
    assert (decision["client"], decision["action"], decision["enforced"]) == (REJECTED, "reject", "reject")


@pytest.mark.parametrize(("written", "read"), [row[1:] for row in UNREADABLE], ids=[row[0] for row in UNREADABLE])
def test_a_helo_that_cannot_be_read_does_no_harm(open_site: OpenSite, form: str, written: str, read: str) -> None:
    # Fresh, for one process logs a few of them and no more.
    site = open_site(sample_policy(log={"format": form}), extra=LENIENT, fresh=True)
    start = len(site.host.log())
    with site.connect(REJECTED) as client:
        assert client.ehlo(written).code == 250
        client.mail(SENDER)
        assert client.rcpt(RECIPIENT).text.endswith(REFUSAL)
    with site.connect(LISTED) as client:
        assert client.send_message(SENDER, RECIPIENT, MESSAGE, helo=written).accepted
    assert site.delivered() == [(ARRIVING, TAG)]
    assert [(decision["helo"], decision["enforced"]) for decision in site.decisions()] == [("", "reject"), ("", "tag")]
    unreadable = [event for event in site.events() if event["event"] == "not readable as text"]
    assert [(event["level"], event["text"]) for event in unreadable] == [("warning", read)] * 2
    # And libmilter has nothing to complain about.
    assert not [line for line in site.host.log()[start:] if "milter" in line and "header" not in line]


def test_a_helo_that_is_too_long_is_sendmails_matter(site: Site) -> None:
    with site.connect(REJECTED) as client:
        assert client.ehlo("a" * 2000).code in (500, 501)
        client.mail(SENDER)
        assert client.rcpt(RECIPIENT).text.endswith(REFUSAL)
    assert the_decision(site)["helo"] == ""


def taken_as(who: str) -> pytest.MarkDecorator:
    rows = [row for row in ADDRESSES if who in row[3]]
    return pytest.mark.parametrize(("written", "read"), [row[1:3] for row in rows], ids=[row[0] for row in rows])


@taken_as(SENDERS)
def test_a_sender_is_logged_as_it_was_written(site: Site, written: str, read: str) -> None:
    with site.connect(REJECTED) as client:
        client.ehlo()
        assert client.command(f"MAIL FROM:<{written}>").code == 250
        told = client.rcpt(RECIPIENT)
        assert told.code == 550
        assert told.text.endswith(REFUSAL)
    decision = the_decision(site)
    assert (decision["sender"], decision["recipient"], decision["enforced"]) == (read, RECIPIENT, "reject")


@taken_as(RECIPIENTS)
def test_a_recipient_is_logged_as_it_was_written(site: Site, written: str, read: str) -> None:
    with site.connect(REJECTED) as client:
        client.ehlo()
        client.mail(SENDER)
        told = client.command(f"RCPT TO:<{written.replace('x.example', 'acme123.com')}>")
        assert (told.code, told.text[:5]) == (550, "5.7.1")
        assert told.text.endswith(REFUSAL)
        assert told.text.isascii()
    decision = the_decision(site)
    assert (decision["sender"], decision["recipient"]) == (SENDER, read.replace("x.example", "acme123.com"))
    assert (decision["action"], decision["enforced"]) == ("reject", "reject")


@pytest.mark.parametrize("command", ["MAIL FROM", "RCPT TO"])
@pytest.mark.parametrize("written", REFUSED)
def test_what_sendmail_refuses_leaves_the_session_sound(site: Site, command: str, written: str) -> None:
    with site.connect(LISTED) as client:
        client.ehlo()
        if command == "RCPT TO":
            client.mail(SENDER)
        assert client.command(f"{command}:{written.replace('x.example', 'acme123.com')}").code >= 500
        client.rset()
        assert client.send_message(SENDER, RECIPIENT, MESSAGE).accepted
    assert site.delivered() == [(ARRIVING, TAG)]
    assert the_decision(site)["enforced"] == "tag"


def test_a_sender_without_brackets_is_the_same_sender(site: Site) -> None:
    with site.connect(LISTED) as client:
        client.ehlo()
        assert client.command(f"MAIL FROM: {SENDER} SIZE=100").code == 250
        assert client.command(f"RCPT TO: {RECIPIENT} NOTIFY=NEVER").code == 250
    decision = the_decision(site)
    assert (decision["sender"], decision["recipient"]) == (SENDER, RECIPIENT)


def test_nobody_is_exempt_by_a_trick(site: Site) -> None:
    tricks = (
        '"postmaster@"@acme123.com',
        "postmaster%acme123.com@acme123.com",
        "@postmaster:alice@acme123.com",
        "alice@acme123.com\x00postmaster@",
        "postmaster.@acme123.com",
        "xpostmaster@acme123.com",
        '"abuse@acme123.com,alice"@acme123.com',
    )
    with site.connect(REJECTED) as client:
        client.ehlo()
        client.mail(SENDER)
        for trick in tricks:
            assert client.command(f"RCPT TO:<{trick}>").code >= 500, trick
        assert client.data().code == 503
    assert all(decision["enforced"] == "reject" for decision in site.decisions())
    assert site.received() == site.received("postmaster") == []


# label, header fields that are odd
FIELDS = (
    ("8-bit and control characters in a value", ["X-Odd: caf\xe9 \xff\x01\x1b[31m \x7f", *FORGED]),
    ("UTF-8 in a value", ["Subject: caf\xc3\xa9 \xf0\x9f\x93\xa7", *FORGED]),
    ("percent signs and quotes", ['X-Odd: 100%s%n "\\', *FORGED]),
    ("a long name", [f"X-{'a' * 90}: 1", *FORGED]),
    ("a long value", [f"X-Odd: {'b' * 900}", *FORGED]),
    ("odd names", ["!#$%&'*+-.^_`{|}~: 1", "0: 2", *FORGED]),
    ("two hundred others", [*(f"X-Number-{number}: {number}" for number in range(200)), *FORGED]),
    ("folded again and again", ["X-Fold: a" + "\n\tb" * 100, *FORGED]),
)


@pytest.mark.parametrize("source", [LISTED, QUARANTINED])
@pytest.mark.parametrize("odd", [row[1] for row in FIELDS], ids=[row[0] for row in FIELDS])
def test_odd_header_fields_pass_and_forged_ones_do_not(site: Site, odd: list[str], source: str) -> None:
    outcome = site.send(source, content=message(*ARRIVING[:-1], *odd))
    assert outcome.accepted
    for entry in site.host.quarantined():
        assert entry.reason == "dnsbl-milter score=9 lists=zen,spamcop"
        site.host.release(entry.id)
    ((others, ours),) = site.delivered()
    assert others == [*ARRIVING[:-1], *(field for field in odd if field not in FORGED)]
    assert [field.partition(":")[0] for field in ours] == ["X-DNSBL-Score", "X-DNSBL-Action"]
    assert set(ours).isdisjoint(FORGED)
    assert the_decision(site)["queue"] == outcome.queue_id


# Names that Sendmail does not take for a header field's; what follows is the body.
@pytest.mark.parametrize("name", ["X-N\xe4me", "X-\x01", "X-", "a" * 500])
def test_a_header_that_ends_early_ends_there(site: Site, name: str) -> None:
    content = message(*ARRIVING, f"{name} 1" if name == "X-" else f"{name}: 1", *FORGED)
    assert site.send(LISTED, content=content).accepted
    assert site.delivered() == [(ARRIVING, TAG)]
    (raw,) = site.host.raw_messages(RECIPIENT)
    body = raw.partition(b"\n\n")[2].decode("latin-1")
    assert body.startswith(f"{name[:50]}")
    assert body.endswith(f"{FORGED[0]}\n{FORGED[1]}\n\nHello.\n")


def test_in_json_every_value_has_its_type(open_site: OpenSite) -> None:
    site = open_site(sample_policy(log={"format": "json"}), extra=LENIENT)
    assert site.send(LISTED).accepted
    assert site.send("192.168.0.9").accepted
    judged, exempt = site.decisions()
    assert isinstance(judged["time"], float)
    assert judged["level"] == "info"
    assert isinstance(judged["cached"], bool)
    assert isinstance(judged["wait_ms"], (int, float))
    assert {name: judged[name] for name in ("client", "action", "enforced", "lists", "exempt")} == {
        "client": LISTED,
        "action": "tag",
        "enforced": "tag",
        "lists": "zen:SBL:5",
        "exempt": None,
    }
    assert (exempt["client"], exempt["exempt"], exempt["queue"]) == ("192.168.0.9", "network", None)
    assert all(json.loads(line) for line in site.daemon.log())
