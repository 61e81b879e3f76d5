"""A connection as libmilter drives it: what each callback returns, asks for, counts and logs."""

import socket
from dataclasses import replace
from ipaddress import ip_address
from types import SimpleNamespace

import Milter
import pytest

from dnsbl_milter import case
from dnsbl_milter import session as module
from dnsbl_milter.case import House
from dnsbl_milter.configuration import parse
from dnsbl_milter.inquiry import Lookup
from dnsbl_milter.session import Session
from dnsbl_milter.worker import open_house
from dnsbl_policy.answers import PENDING, Clear, Listed, Unknown, Why
from dnsbl_policy.greylist import Recollection
from dnsbl_policy.proof import Proof

INET, INET6, UNIX = socket.AF_INET, socket.AF_INET6, socket.AF_UNIX
CONTINUE, ACCEPT, REJECT, TEMPFAIL, DISCARD, NOREPLY = (
    Milter.CONTINUE, Milter.ACCEPT, Milter.REJECT, Milter.TEMPFAIL, Milter.DISCARD, Milter.NOREPLY,
)  # fmt: skip
CLIENT = "198.51.100.7"
LISTED = Listed((0x7F000002,), 300)
CLEAR = Clear(300)

POLICY = """
[dns]
nameservers = ["127.0.0.1#1"]
[actions]
tag = 1
defer = 2
quarantine = 3
reject = 4
discard = 5
[allow]
networks = ["192.168.0.0/24", "2001:db8:1::/48"]
hosts = ["mail.friend.example", ".partner.example"]
recipients = ["postmaster@", "list@acme123.com"]
[memory]
url = ""
[health]
proof = false
"""
A = "[[list]]\nname = 'a'\nzone = 'a.example'\nweight = {}\nipv6 = true\nurl = 'https://a.example/{{client}}?x=%2F'\n"


class Context:
    """What libmilter gives a session; it is as strict as the real one."""

    def __init__(self, macros: dict[str, str] | None = None) -> None:
        self.macros = macros or {}
        self.calls: list[tuple] = []

    def getsymval(self, name: str) -> str | None:
        return self.macros.get(name)

    def setreply(self, code: str, enhanced: str, text: str) -> None:
        assert "%" not in text.replace("%%", "")
        assert text.isascii()
        assert text.isprintable()
        assert len(text) <= 900
        self.calls.append(("reply", code, enhanced, text))

    def addheader(self, name: str, value: str) -> None:
        self.calls.append(("add", name, value))

    def chgheader(self, name: str, number: int, value: str | None) -> None:
        self.calls.append(("change", name, number, value))

    def quarantine(self, reason: str) -> None:
        self.calls.append(("quarantine", reason))

    def taken(self) -> list[tuple]:
        """Return the calls since the last time."""
        calls, self.calls = self.calls, []
        return calls


class Asked:
    """An inquiry whose answers are there as soon as somebody waits."""

    def __init__(self, client, known, answers) -> None:
        self.client = client
        self.evidence = list(known)
        self._questions = [place for place, answer in enumerate(known) if answer is PENDING]
        self._answers = answers
        self.waits = 0
        self.closed = 0

    @property
    def pending(self) -> bool:
        return PENDING in self.evidence

    def wait(self, settled) -> float:
        self.waits += 1
        self.evidence = [new if old is PENDING else old for old, new in zip(self.evidence, self._answers, strict=True)]
        return 0.25

    def close(self) -> list[Lookup]:
        self.closed += 1
        self.wait(None)
        return [Lookup(place, self._answers[place], 0.1) for place in self._questions]

    def arrived(self, place) -> float:
        return 0.0


class Lists:
    """A resolver that asks nobody."""

    def __init__(self, lists, answers) -> None:
        self.lists = lists
        self.answers = answers
        self.asked: list[Asked] = []

    def ask(self, client, known) -> Asked:
        self.asked.append(Asked(client, known, self.answers))
        return self.asked[-1]


@pytest.fixture(autouse=True)
def _nobody_is_asked(monkeypatch):
    monkeypatch.setattr(case, "ask", Lists.ask)


@pytest.fixture
def lines(monkeypatch) -> list[dict]:
    """Return what has been logged, without what never matters here."""
    logged: list[dict] = []
    monkeypatch.setattr(module.log, "info", lambda event, **fields: logged.append({"event": event} | fields))
    return logged


@pytest.fixture(autouse=True)
def _nothing_paused(tmp_path, monkeypatch):
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))


def house(*answers, weights=(5,), policy=POLICY, **others) -> House:
    """Return a house whose lists give these answers about anybody."""
    lists = "".join(
        A.format(weight).replace("'a'", f"'{chr(97 + number)}'").replace("a.example'", f"{chr(97 + number)}.example'")
        for number, weight in enumerate(weights)
    )
    opened = open_house(parse(policy + lists, "f.toml"))
    resolvers = {version: Lists(opened.resolvers[version].lists, answers) for version in (4, 6)}
    return replace(opened, resolvers=resolvers, **others)


def score(points: float, **others) -> House:
    """Return a house in which everybody has this score."""
    return house(LISTED, weights=(points,), **others) if points else house(CLEAR, weights=(1,), **others)


def connected(where: House, address: str = CLIENT, macros: dict[str, str] | None = None) -> tuple[Session, Context]:
    context = Context(macros)
    session = Session(where, context)
    options = [0x1FF, 0x1FFFFF, 0, 0]
    assert session.negotiate(options) == CONTINUE
    assert session.connect("mx.sender.example", INET, (address, 25)) == CONTINUE
    assert session.hello("sender.example") == CONTINUE
    return session, context


def counted(where: House, name: str, **labels: str) -> float:
    return where.metrics._registry.get_sample_value(f"dnsbl_{name}", labels)


# --- negotiation

OURS = Milter.ADDHDRS | Milter.CHGHDRS | Milter.QUARANTINE
UNWANTED = Milter.P_NOBODY | Milter.P_NOEOH | Milter.P_NODATA | Milter.P_NOUNKNOWN

NEGOTIATIONS = [
    # offered actions, offered protocol, agreed actions, agreed protocol, reply to a header
    (0x1FF, 0x1FFFFF, OURS, UNWANTED | Milter.P_NR_HDR, NOREPLY),
    (0x3F, 0x7F, OURS, Milter.P_NOBODY | Milter.P_NOEOH, CONTINUE),
    (0, 0, 0, 0, CONTINUE),
    (Milter.ADDHDRS, Milter.P_NR_HDR, Milter.ADDHDRS, Milter.P_NR_HDR, NOREPLY),
    (Milter.CHGBODY, Milter.P_NR_CONN | Milter.P_NR_HELO | Milter.P_NOCONNECT | Milter.P_NORCPT, 0, 0, CONTINUE),
]


@pytest.mark.parametrize(("actions", "protocol", "agreed", "wanted", "header"), NEGOTIATIONS)
def test_negotiation(actions, protocol, agreed, wanted, header):
    session = Session(score(0), Context())
    options = [actions, protocol, 7, 7]
    assert session.negotiate(options) == CONTINUE
    assert options == [agreed, wanted, 0, 0]
    assert session.header("Subject", b"") == header


LESS = [
    # what Sendmail lets us do, and what is then done with a forged header on a message for the quarantine
    (OURS, ["change", "change", "add", "add", "quarantine"]),
    (OURS & ~Milter.QUARANTINE, ["change", "change", "add", "add"]),
    (OURS & ~Milter.CHGHDRS, ["add", "add", "quarantine"]),
    (OURS & ~Milter.ADDHDRS, ["change", "change", "quarantine"]),
    (0, []),
]


@pytest.mark.parametrize(("actions", "done"), LESS)
def test_nothing_is_tried_that_sendmail_does_not_offer(actions, done):
    session, context = connected(score(3))
    session.negotiate([actions, 0, 0, 0])
    session.envfrom("<a@sender.example>")
    session.envrcpt("<b@acme123.com>")
    session.header("X-DNSBL-Score", b"")
    session.header("X-DNSBL-Score", b"")
    assert session.eom() == CONTINUE
    assert [call[0] for call in context.taken()] == done


# --- connect

EXEMPT = [
    # host, family, address, why
    ("mx.example", INET, ("192.168.0.7", 25), "network"),
    ("[192.168.0.7]", INET, ("192.168.0.7", 25), "network"),
    ("mx.example", INET6, ("2001:db8:1::7", 25, 0, 0), "network"),
    ("mx.example", INET6, ("::ffff:192.168.0.7", 25, 0, 0), "network"),
    ("mail.friend.example", INET, (CLIENT, 25), "host"),
    ("MAIL.Friend.Example.", INET, (CLIENT, 25), "host"),
    ("a.b.partner.example", INET, (CLIENT, 25), "host"),
    ("localhost", INET, ("127.0.0.1", 25), "local"),
    ("localhost", INET6, ("::1", 25, 0, 0), "local"),
    ("localhost", UNIX, "/run/sendmail", "local"),
    ("localhost", UNIX, None, "local"),
    ("localhost", 0, None, "local"),
]


@pytest.mark.parametrize(("host", "family", "address", "why"), EXEMPT)
def test_an_exempt_client_is_accepted_at_connect_and_never_asked_about(lines, host, family, address, why):
    where = score(5)
    session = Session(where, Context())
    assert session.connect(host, family, address) == ACCEPT
    assert where.resolvers[4].asked == where.resolvers[6].asked == []
    (line,) = lines
    assert (str(line["exempt"]), str(line["action"]), str(line["enforced"])) == (why, "accept", "accept")
    assert line["host"] == host
    assert counted(where, "exempt_total", reason=why) == 1
    assert counted(where, "connections_total") == 1
    assert session.close() == CONTINUE


NOT_EXEMPT = [
    # host, family, address, the client as it is asked about
    ("mx.example", INET, (CLIENT, 25), CLIENT),
    ("[198.51.100.7]", INET, (CLIENT, 25), CLIENT),
    ("friend.example", INET, (CLIENT, 25), CLIENT),
    ("partner.example", INET, (CLIENT, 25), CLIENT),
    ("mail.friend.example.evil.example", INET, (CLIENT, 25), CLIENT),
    # Sendmail writes a name that does not lead back to the address in brackets.
    ("[mail.friend.example]", INET, (CLIENT, 25), CLIENT),
    ("mx.example", INET, ("127.0.0.2", 25), "127.0.0.2"),
    ("mx.example", INET, ("192.168.1.7", 25), "192.168.1.7"),
    ("mx.example", INET6, ("2001:db8:2::7", 25, 0, 0), "2001:db8:2::7"),
    ("mx.example", INET6, ("IPv6:2001:db8:2::7", 25, 0, 0), "2001:db8:2::7"),
    ("mx.example", INET6, ("fe80::1%eth0", 25, 0, 2), "fe80::1"),
    ("mx.example", INET6, ("::ffff:198.51.100.7", 25, 0, 0), CLIENT),
]


@pytest.mark.parametrize(("host", "family", "address", "client"), NOT_EXEMPT)
def test_everybody_else_is_asked_about_at_connect(lines, host, family, address, client):
    where = score(5)
    session = Session(where, Context())
    assert session.connect(host, family, address) == CONTINUE
    version = ip_address(client).version
    (asked,) = where.resolvers[version].asked
    assert where.resolvers[10 - version].asked == []
    assert str(asked.client) == client
    assert asked.waits == 0
    assert lines == []
    session.close()


@pytest.mark.parametrize("address", [("what is this", 25), ("", 0), None])
def test_a_client_whose_address_makes_no_sense_has_no_evidence(lines, address):
    where = score(5)
    session = Session(where, Context())
    assert session.connect("mx.example", INET, address) == CONTINUE
    session.envfrom("<a@sender.example>")
    assert session.envrcpt("<b@acme123.com>") == CONTINUE
    (line,) = lines
    assert (line["client"], line["exempt"], str(line["action"])) == (None, None, "accept")
    assert session.eom() == session.close() == CONTINUE


def test_a_session_without_connect_accepts():
    session = Session(score(5), Context())
    assert session.envfrom("<a@sender.example>") == CONTINUE
    assert session.envrcpt("<b@acme123.com>") == CONTINUE
    assert session.eom() == session.abort() == session.close() == session.close() == CONTINUE


# --- MAIL


def test_an_authenticated_submitter_is_not_judged_for_this_message(lines):
    where = score(5)
    session, context = connected(where, macros={"{auth_authen}": "user"})
    assert session.envfrom("<a@sender.example>") == ACCEPT
    (line,) = lines
    assert (str(line["exempt"]), line["sender"], str(line["client"])) == ("authenticated", "a@sender.example", CLIENT)
    assert where.resolvers[4].asked[0].waits == 0
    assert counted(where, "exempt_total", reason="authenticated") == 1
    # Who logs out of nothing is judged again.
    context.macros.clear()
    assert session.envfrom("<a@sender.example>") == CONTINUE
    assert session.envrcpt("<b@acme123.com>") == CONTINUE
    assert session.eom() == DISCARD


def test_authentication_may_be_no_exemption():
    session, _ = connected(score(4, policy=POLICY.replace("[allow]", "[allow]\nauthenticated = false")), macros={"{auth_authen}": "user"})
    assert session.envfrom("<a@sender.example>") == CONTINUE
    assert session.envrcpt("<b@acme123.com>") == REJECT


def test_an_empty_login_is_none():
    session, _ = connected(score(4), macros={"{auth_authen}": ""})
    assert session.envfrom("<a@sender.example>") == CONTINUE


# --- RCPT and the end of the message

LOOK = f"see https://a.example/{CLIENT}?x=%%2F"
TAGGED = [("add", "X-DNSBL-Score", "{0} (a=+{0})"), ("add", "X-DNSBL-Action", "{1}")]

ACTIONS = [
    # points, action, answer to RCPT, reply, answer to the message, what is done with it
    (0, "accept", CONTINUE, None, CONTINUE, []),
    (0.99, "accept", CONTINUE, None, CONTINUE, []),
    (1, "tag", CONTINUE, None, CONTINUE, TAGGED),
    (
        2,
        "defer",
        TEMPFAIL,
        ("reply", "451", "4.7.1", f"Mail from {CLIENT} is deferred, please try again later: listed by a; {LOOK}"),
        CONTINUE,
        [],
    ),
    (3, "quarantine", CONTINUE, None, CONTINUE, [*TAGGED, ("quarantine", "dnsbl-milter score=3 lists=a")]),
    (4, "reject", REJECT, ("reply", "550", "5.7.1", f"Mail from {CLIENT} is refused: listed by a; {LOOK}"), CONTINUE, []),
    (5, "discard", CONTINUE, None, DISCARD, []),
    (-5, "accept", CONTINUE, None, CONTINUE, []),
]


@pytest.mark.parametrize(("points", "action", "answer", "reply", "end", "done"), ACTIONS)
def test_each_action(lines, points, action, answer, reply, end, done):
    where = score(points)
    session, context = connected(where, macros={"i": "4AMhq1"})
    assert session.envfrom("<a@sender.example>") == CONTINUE
    assert session.envrcpt("<b@acme123.com>") == answer
    assert context.taken() == ([reply] if reply else [])
    assert session.eom() == end
    assert context.taken() == [(*call[:-1], call[-1].format(f"{points:g}", action)) for call in done]
    (line,) = lines
    assert (str(line["action"]), str(line["enforced"])) == (action, action)
    assert (line["sender"], line["recipient"], line["queue"]) == ("a@sender.example", "b@acme123.com", "4AMhq1")
    assert (line["host"], line["helo"], str(line["client"])) == ("mx.sender.example", "sender.example", CLIENT)
    assert (line["score"], line["low"], line["high"]) == (f"{points:g}",) * 3
    assert line["lists"] == (f"a:127.0.0.2:{points:g}" if points else "")
    assert line["decisive"] == ("" if action == "accept" else "a")
    assert (line["wait_ms"], line["cached"], line["exempt"]) == (250.0, False, None)
    assert counted(where, "recipients_total", action=action) == 1


def test_what_each_list_answered_is_there_for_who_looks_for_it(monkeypatch):
    logged: list[tuple] = []
    monkeypatch.setattr(module.log, "is_detailed", lambda: True)
    monkeypatch.setattr(module.log, "debug", lambda event, **fields: logged.append((event, fields)))
    session, _ = connected(house(LISTED, Unknown(Why.TIMEOUT), weights=(1, 1)))
    session.close()
    assert logged == [
        ("answer", {"client": ip_address(CLIENT), "list": "a", "answer": LISTED, "ms": 100.0}),
        ("answer", {"client": ip_address(CLIENT), "list": "b", "answer": Unknown(Why.TIMEOUT), "ms": 100.0}),
    ]


def test_the_fields_of_the_log_are_the_contracts():
    contract = (
        "client host helo sender recipient queue action enforced score low high lists unknown exempt decisive wait_ms cached"
    )
    logged: list[dict] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.log, "info", lambda event, **fields: logged.append(fields))
        session, _ = connected(score(1))
        session.envrcpt("<b@acme123.com>")
    (fields,) = logged
    assert [name for name in fields if name in contract.split()] == contract.split()


HEADERS = [
    # headers.add, points, whether they are added
    ("always", 0, True), ("always", 1, True), ("always", 3, True),
    ("tagged", 0, False), ("tagged", 1, True), ("tagged", 3, True),
    ("never", 0, False), ("never", 1, False), ("never", 3, False),
]  # fmt: skip


@pytest.mark.parametrize(("add", "points", "added"), HEADERS)
def test_which_messages_get_headers(add, points, added):
    session, context = connected(score(points, add_headers=add))
    session.envfrom("<a@sender.example>")
    session.envrcpt("<b@acme123.com>")
    assert session.eom() == CONTINUE
    assert [call[1] for call in context.taken() if call[0] == "add"] == ["X-DNSBL-Score", "X-DNSBL-Action"] * added


def test_a_message_that_is_quarantined_is_so_without_headers_too():
    session, context = connected(score(3, add_headers="never"))
    session.envfrom("<a@sender.example>")
    session.envrcpt("<b@acme123.com>")
    session.eom()
    assert context.taken() == [("quarantine", "dnsbl-milter score=3 lists=a")]


SOFTENED = [
    # points of a list that lists the client, of one that failed, asked, done
    (3, -1, "quarantine", "defer"),
    (4, -1, "reject", "quarantine"),
    (5, -1, "discard", "reject"),
    (5, -2, "discard", "quarantine"),
    (4, -4, "reject", "defer"),
    (1, -4, "tag", "tag"),
    (2, -4, "defer", "defer"),
    (4, 4, "reject", "reject"),
]


@pytest.mark.parametrize(("points", "missing", "asked", "done"), SOFTENED)
def test_silence_softens(lines, points, missing, asked, done):
    session, _ = connected(house(LISTED, Unknown(Why.TIMEOUT), weights=(points, missing)))
    session.envfrom("<a@sender.example>")
    session.envrcpt("<b@acme123.com>")
    (line,) = lines
    assert str(line["action"]) == done
    assert line["unknown"] == "b:timeout"
    assert (line["low"], line["high"]) == (f"{min(points, points + missing)}", f"{max(points, points + missing)}")


# --- several recipients

RECIPIENTS = [
    # points, recipients (p: postmaster, who takes everything; b: anybody), answers, answer to the message
    (0, "bpb", "ccc", CONTINUE),
    (1, "bpb", "ccc", CONTINUE),
    (1, "pbp", "ccc", CONTINUE),
    (2, "bpb", "tct", CONTINUE),
    (4, "bpb", "rcr", CONTINUE),
    (4, "pbp", "crc", CONTINUE),
    (3, "bb", "cc", CONTINUE),
    (3, "bpb", "ctc", CONTINUE),
    (3, "pbp", "ctc", CONTINUE),
    (5, "bpb", "ctc", DISCARD),
    (5, "pbp", "ctc", CONTINUE),
    (5, "p", "c", CONTINUE),
]


@pytest.mark.parametrize(("points", "recipients", "answers", "end"), RECIPIENTS)
def test_recipients_of_two_classes(points, recipients, answers, end):
    session, context = connected(score(points))
    session.envfrom("<a@sender.example>")
    names = {"p": "<postmaster@acme123.com>", "b": "<b@acme123.com>"}
    given = {"c": CONTINUE, "t": TEMPFAIL, "r": REJECT}
    assert [session.envrcpt(names[each]) for each in recipients] == [given[each] for each in answers]
    replies = [call[1:] for call in context.taken()]
    if points in (3, 5):
        assert set(replies) <= {("451", "4.7.1", "This recipient needs a message of its own, please send it again separately")}
    assert len(replies) == answers.count("t") + answers.count("r")
    assert session.eom() == end
    quarantined = any(call[0] == "quarantine" for call in context.taken())
    assert quarantined == (points == 3 and recipients[0] == "b")


def test_a_recipient_who_needs_a_message_of_his_own_is_deferred_in_the_log(lines):
    session, _ = connected(score(5))
    session.envfrom("<a@sender.example>")
    session.envrcpt("<POSTMASTER>")
    session.envrcpt("<b@acme123.com>")
    first, second = lines
    assert (first["recipient"], str(first["exempt"]), str(first["enforced"])) == ("POSTMASTER", "recipient", "accept")
    assert (str(second["action"]), str(second["enforced"])) == ("discard", "defer")


def test_an_exempt_recipient_alone_waits_for_nothing():
    where = score(5)
    session, context = connected(where)
    session.envfrom("<a@sender.example>")
    assert session.envrcpt("<list@acme123.com>") == CONTINUE
    session.header("X-DNSBL-Score", b"")
    assert session.eom() == CONTINUE
    # A forged header is a forged header; what we found out nobody asked.
    assert context.taken() == [("change", "X-DNSBL-Score", 1, None)]
    assert where.resolvers[4].asked[0].waits == 0


# --- forged headers


def test_forged_headers_are_removed_in_ascending_order():
    session, context = connected(score(1))
    session.envfrom("<a@sender.example>")
    session.envrcpt("<b@acme123.com>")
    for name in ("X-DNSBL-Score", "Subject", "x-dnsbl-action", "X-DNSBL-SCORE", "X-Dnsbl-Score ", "X-DNSBL-Scores", "DNSBL-Score"):
        assert session.header(name, b"") == NOREPLY
    assert session.eom() == CONTINUE
    assert context.taken() == [
        ("change", "X-DNSBL-Score", 1, None),
        ("change", "X-DNSBL-Score", 2, None),
        ("change", "X-DNSBL-Score", 3, None),
        ("change", "X-DNSBL-Action", 1, None),
        ("add", "X-DNSBL-Score", "1 (a=+1)"),
        ("add", "X-DNSBL-Action", "tag"),
    ]


def test_a_thousand_forged_headers_are_a_thousand_removals():
    session, context = connected(score(0))
    session.envfrom("<a@sender.example>")
    session.envrcpt("<b@acme123.com>")
    for _ in range(1000):
        session.header("X-DNSBL-Action", b"")
    session.eom()
    assert context.taken() == [("change", "X-DNSBL-Action", number, None) for number in range(1, 1001)]


def test_one_messages_headers_are_not_the_nexts():
    session, context = connected(score(1))
    for forged in (2, 0, 1):
        session.envfrom("<a@sender.example>")
        session.envrcpt("<b@acme123.com>")
        for _ in range(forged):
            session.header("X-DNSBL-Score", b"")
        session.eom()
        assert len([call for call in context.taken() if call[0] == "change"]) == forged


# --- several messages


def test_several_messages_in_a_connection_are_judged_once(lines):
    where = score(3)
    session, context = connected(where)
    for number in range(3):
        session.envfrom(f"<a{number}@sender.example>")
        assert session.envrcpt("<b@acme123.com>") == CONTINUE
        assert session.envrcpt("<c@acme123.com>") == CONTINUE
        assert session.eom() == CONTINUE
        assert [call[0] for call in context.taken()] == ["add", "add", "quarantine"]
    assert where.resolvers[4].asked[0].waits == 1
    assert [line["sender"] for line in lines] == [f"a{number}@sender.example" for number in (0, 0, 1, 1, 2, 2)]
    assert counted(where, "messages_total", action="quarantine") == 3
    assert counted(where, "list_hits_total", list="a", label="") == 1


def test_reset_forgets_the_message():
    session, context = connected(score(5))
    session.envfrom("<a@sender.example>")
    session.envrcpt("<postmaster@acme123.com>")
    session.header("X-DNSBL-Score", b"")
    assert session.abort() == CONTINUE
    # The first recipient of this message is of the other class, and the header was the last one's.
    session.envfrom("<a@sender.example>")
    assert session.envrcpt("<b@acme123.com>") == CONTINUE
    assert session.abort() == CONTINUE
    session.envfrom("<a@sender.example>")
    assert session.envrcpt("<postmaster@acme123.com>") == CONTINUE
    assert session.eom() == CONTINUE
    assert context.taken() == []


def test_what_belongs_to_a_message_ends_with_it():
    session, context = connected(score(3))
    session.envfrom("<a@sender.example>")
    session.envrcpt("<b@acme123.com>")
    session.header("X-DNSBL-Score", b"")
    session.abort()
    assert session.eom() == CONTINUE
    assert context.taken() == []
    session.envrcpt("<b@acme123.com>")
    session.eom()
    assert context.taken() != []
    assert session.eom() == CONTINUE
    assert context.taken() == []


def test_an_exempt_recipients_message_tells_nothing_of_the_one_before():
    session, context = connected(score(1, add_headers="always"))
    for recipient, told in ("<b@acme123.com>", 2), ("<postmaster@acme123.com>", 0), ("<b@acme123.com>", 2):
        session.envfrom("<a@sender.example>")
        session.envrcpt(recipient)
        session.eom()
        assert len(context.taken()) == told


def test_a_new_sender_begins_a_new_message_without_a_reset():
    session, _ = connected(score(5))
    session.envfrom("<a@sender.example>")
    session.envrcpt("<postmaster@acme123.com>")
    session.envfrom("<a@sender.example>")
    assert session.envrcpt("<b@acme123.com>") == CONTINUE
    assert session.eom() == DISCARD


# --- observing


@pytest.mark.parametrize("points", [0, 1, 2, 3, 4, 5])
def test_observe_mode_decides_and_touches_nothing(lines, points):
    where = score(points, policy=POLICY.replace("[actions]", "[actions]\nmode = 'observe'"))
    session, context = connected(where)
    session.envfrom("<a@sender.example>")
    for recipient in ("<postmaster@acme123.com>", "<b@acme123.com>"):
        assert session.envrcpt(recipient) == CONTINUE
    session.header("X-DNSBL-Score", b"")
    assert session.eom() == CONTINUE
    assert context.taken() == []
    action = ["accept", "tag", "defer", "quarantine", "reject", "discard"][points]
    assert [(str(line["action"]), str(line["enforced"])) for line in lines] == [("accept", "accept"), (action, "accept")]
    assert counted(where, "observed_total", action=action) == 1
    assert counted(where, "recipients_total", action="accept") == 2


def test_everything_paused_is_observe_mode(lines):
    where = score(4, pauses=SimpleNamespace(names=lambda: frozenset("*")))
    session, context = connected(where)
    session.envfrom("<a@sender.example>")
    assert session.envrcpt("<b@acme123.com>") == CONTINUE
    assert session.eom() == CONTINUE
    assert context.taken() == []
    assert (str(lines[0]["action"]), str(lines[0]["enforced"])) == ("reject", "accept")


def test_a_list_that_is_paused_adds_nothing(lines):
    where = house(LISTED, LISTED, weights=(1, 4), pauses=SimpleNamespace(names=lambda: frozenset("b")))
    session, _ = connected(where)
    session.envfrom("<a@sender.example>")
    assert session.envrcpt("<b@acme123.com>") == CONTINUE
    assert (lines[0]["lists"], lines[0]["observed"], str(lines[0]["enforced"])) == ("a:127.0.0.2:1", "b:127.0.0.2:4", "tag")
    assert counted(where, "observed_total", action="discard") == 1


def test_what_is_paused_stays_as_it_was_when_the_session_began():
    paused = frozenset()
    where = score(4, pauses=SimpleNamespace(names=lambda: paused))
    session, _ = connected(where)
    paused = frozenset("*")
    session.envfrom("<a@sender.example>")
    assert session.envrcpt("<b@acme123.com>") == REJECT
    session, _ = connected(where)
    session.envfrom("<a@sender.example>")
    assert session.envrcpt("<b@acme123.com>") == CONTINUE


# --- proof


class Proves:
    """A prover by which every list comes to the same."""

    def __init__(self, proof) -> None:
        self._proof = proof

    def prove(self, arrivals):
        return dict.fromkeys(arrivals, self._proof)


PROOFS = [
    # what the proof comes to, the reply to the recipient, whether the list is reported, what the cache knows then
    (Proof.SANE, REJECT, False, Listed(LISTED.codes, 60, proven=True)),
    (Proof.FAILED, CONTINUE, True, Unknown(Why.DISPROVED)),
    # It counts like a list that did not answer; and what was known before is as good as it was.
    (Proof.UNANSWERED, CONTINUE, False, LISTED),
]


@pytest.mark.parametrize("from_cache", [False, True])
@pytest.mark.parametrize(("proof", "reply", "reported", "kept"), PROOFS)
def test_a_proof_is_kept_wherever_the_answer_came_from(proof, reply, reported, kept, from_cache):
    where = score(4, provers={4: Proves(proof)})
    client = ip_address(CLIENT)
    if from_cache:
        where.cache.keep(client, [LISTED], {0})
    session, _ = connected(where)
    session.envfrom("<a@sender.example>")
    assert session.envrcpt("<b@acme123.com>") == reply
    session.close()
    assert bool(where.standing.disproved(0, 4)) is reported
    (known,) = where.cache.recall(client, 1)
    if proof is Proof.UNANSWERED and not from_cache:
        kept = PENDING  # nothing is known that could be kept
    assert replace(known, ttl=0) == replace(kept, ttl=0) if isinstance(kept, Listed) else known == kept


# --- memory


class Remembers:
    """A memory that always says the same, and to whom."""

    def __init__(self, recollection) -> None:
        self.recollection = recollection
        self.asked: list[tuple] = []

    def recall(self, client, sender, recipient, now):
        self.asked.append((str(client), sender, recipient))
        return self.recollection


@pytest.mark.parametrize("recollection", list(Recollection))
def test_memory_forgives_a_deferral(lines, recollection):
    memory = Remembers(recollection)
    session, context = connected(score(2, memory=memory))
    session.envfrom("<a@sender.example>")
    forgiven = recollection.forgives
    assert session.envrcpt("<b@acme123.com>") == (CONTINUE if forgiven else TEMPFAIL)
    assert memory.asked == [(CLIENT, "a@sender.example", "b@acme123.com")]
    context.taken()
    session.eom()
    wanted = [("add", "X-DNSBL-Score", "2 (a=+2)"), ("add", "X-DNSBL-Action", "tag")]
    assert context.taken() == (wanted if forgiven else [])
    assert (str(lines[0]["action"]), str(lines[0]["enforced"])) == ("defer", "tag" if forgiven else "defer")
    assert str(lines[0]["memory"]) == str(recollection)


@pytest.mark.parametrize("points", [0, 1, 3, 4, 5])
def test_memory_is_asked_about_nobody_else(points):
    memory = Remembers(Recollection.KNOWN)
    session, _ = connected(score(points, memory=memory))
    session.envfrom("<a@sender.example>")
    session.envrcpt("<postmaster@acme123.com>")
    session.envrcpt("<b@acme123.com>")
    assert memory.asked == []


def test_memory_is_not_asked_in_observe_mode():
    memory = Remembers(Recollection.DEFERRED)
    session, _ = connected(score(2, memory=memory, policy=POLICY.replace("[actions]", "[actions]\nmode = 'observe'")))
    session.envfrom("<a@sender.example>")
    assert session.envrcpt("<b@acme123.com>") == CONTINUE
    assert memory.asked == []


# --- texts


def test_sixty_long_names_and_the_address():
    names = [f"{number:02}-{'n' * 61}" for number in range(60)]
    lists = "".join(f"[[list]]\nname = '{name}'\nzone = 'l{number}.example'\nweight = 1\n" for number, name in enumerate(names))
    lists = lists.replace("weight = 1", "weight = 2\nurl = 'https://check.example/%2F/{client}'", 1)
    opened = open_house(parse(POLICY.replace("discard = 5\n", "") + lists, "f.toml"))
    resolvers = {version: Lists(opened.resolvers[version].lists, [LISTED] * 60) for version in (4, 6)}
    session, context = connected(replace(opened, resolvers=resolvers))
    session.envfrom("<a@sender.example>")
    assert session.envrcpt("<b@acme123.com>") == REJECT
    ((_, code, enhanced, text),) = context.taken()
    assert (code, enhanced) == ("550", "5.7.1")
    assert len(text) <= 900
    assert f"listed by {names[0]}, {names[1]}, " in text
    assert text.endswith(f" more; see https://check.example/%%2F/{CLIENT}")


HOSTILE = ["<two\nlines@x>", "<\x00\x1b\x7f@x>", "<größe@x>", "<\udcff@x>", "<" + "a" * 5000 + ">", "<%s%n@x>", "<>", "", "<", ">"]


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_a_client_says_it_is_judged(lines, text):
    session, _ = connected(score(4))
    assert session.hello(text) == CONTINUE
    assert session.envfrom(text) == CONTINUE
    assert session.envrcpt(text) == REJECT
    assert session.header(text, b"") == NOREPLY
    assert session.eom() == session.close() == CONTINUE
    bare = text[1:-1] if text.startswith("<") and text.endswith(">") else text
    assert (lines[0]["sender"], lines[0]["recipient"], lines[0]["helo"]) == (bare, bare, text)


# --- the end of a session


def test_what_came_is_known_in_the_next_connection(lines):
    where = house(LISTED, CLEAR, weights=(4, 1))
    session, _ = connected(where)
    session.envfrom("<a@sender.example>")
    assert session.envrcpt("<b@acme123.com>") == REJECT
    session.close()
    session, _ = connected(where)
    session.envfrom("<a@sender.example>")
    assert session.envrcpt("<b@acme123.com>") == REJECT
    first, second = where.resolvers[4].asked
    assert first.pending is False
    assert PENDING not in second.evidence
    assert [line["cached"] for line in lines] == [False, True]
    assert counted(where, "cache_lookups_total", result="miss") == 1
    assert counted(where, "cache_lookups_total", result="hit") == 1


def test_a_client_that_leaves_early_is_known_all_the_same():
    where = house(LISTED, weights=(4,))
    session, _ = connected(where)
    assert session.close() == CONTINUE
    assert where.resolvers[4].asked[0].closed == 1
    assert counted(where, "lookups_total", list="a", outcome="listed") == 1
    session, _ = connected(where)
    assert PENDING not in where.resolvers[4].asked[1].evidence


def test_a_session_ends_once():
    where = score(4)
    session, _ = connected(where)
    assert session.close() == session.close() == CONTINUE
    assert where.resolvers[4].asked[0].closed == 1
