"""The mail host itself, without our milter: what the other tests of this ring rest on."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mailhost.clients import SAMPLE_CLIENTS
from mailhost.lists import ListServer
from mailhost.query import Answer
from mailhost.resolver import Resolver
from mailhost.sendmail import PASSWORD, USER, MailHost
from mailhost.smtp import Client, send_message

ZONES = (
    "zen.example",
    "spamcop.example",
    "psbl.example",
    "dnswl.example",
    "v6.example",
    "refusing.example",
    "empty.example",
)
ENCLOSED = Path(__file__).parents[2] / "contrib" / "enclosed"
MILTERS = ("local:/run/dnsbl-milter/nobody.sock", "inet:8899@127.0.0.1")

# label, source, what Sendmail writes about it into Received
SEEN = (
    ("a true name", "198.51.100.7", "(mail.plain.example [198.51.100.7])"),
    ("a true name, IPv6", "2001:db8::7", "(mail6.plain.example [IPv6:2001:db8:0:0:0:0:0:7])"),
    ("a forged name", "198.51.100.40", "(mail.friend.example [198.51.100.40] (may be forged))"),
    ("a forged name, IPv6", "2001:db8::40", "(mail.friend.example [IPv6:2001:db8:0:0:0:0:0:40] (may be forged))"),
    ("a name that leads nowhere", "198.51.100.42", "(mail.nowhere.example [198.51.100.42] (may be forged))"),
    ("the owner of that name", "198.51.100.50", "(mail.friend.example [198.51.100.50])"),
    ("no name", "198.51.100.41", "([198.51.100.41])"),
    ("no name, IPv6", "2001:db8::41", "([IPv6:2001:db8:0:0:0:0:0:41])"),
)

HOLD = """\
LOCAL_RULESETS
SLocal_check_mail
R<held@$*>	$#error $@ quarantine $: dnsbl-milter score=9.00 lists=zen,spamcop
"""


@pytest.mark.parametrize(("source", "seen"), [row[1:] for row in SEEN], ids=[row[0] for row in SEEN])
def test_sendmail_sees_the_true_client(mail_host: MailHost, source: str, seen: str) -> None:
    outcome = send_message(source, "someone@friend.example", "alice@acme123.com", helo="me.example")
    assert outcome.accepted, outcome
    (message,) = mail_host.messages("alice")
    assert f"from me.example {seen}" in " ".join(str(message["Received"]).split())


def test_mail_is_kept_byte_by_byte(mail_host: MailHost) -> None:
    content = b"Subject: caf\xc3\xa9\nX-Odd: \xff\n\nFrom here\n.dot\n..\n\xe4 \n\nend\n"
    recipients = ["alice@acme123.com", "bob@mx.acme123.com", "postmaster@acme123.com"]
    assert send_message("198.51.100.7", "", recipients, content).accepted
    for recipient in recipients:
        (raw,) = mail_host.raw_messages(recipient)
        assert raw.endswith(content)


def test_relaying_is_denied_but_to_the_authenticated(mail_host: MailHost) -> None:
    recipient = "someone@friend.example"
    denied = send_message("198.51.100.7", "carol@acme123.com", recipient)
    assert denied.last.code == 550
    assert "Relaying denied" in denied.last.text
    wrong = send_message("198.51.100.7", "carol@acme123.com", recipient, auth=(USER, "guess"))
    assert (wrong.last.code, wrong.mail) == (535, None)
    relayed = send_message("198.51.100.7", "carol@acme123.com", recipient, auth=(USER, PASSWORD))
    assert relayed.accepted, relayed
    assert len(mail_host.messages(recipient)) == 1
    assert "authid=carol" in mail_host.wait_for_log("AUTH=server")


def test_commands_may_come_in_one_packet(mail_host: MailHost) -> None:
    with Client("198.51.100.7") as client:
        client.ehlo()
        replies = client.pipeline(
            "MAIL FROM:<a@b.example>", "RCPT TO:<alice@acme123.com>", "RCPT TO:<x@y.example>", "RSET"
        )
    assert [reply.code for reply in replies] == [250, 250, 550, 250]
    assert client.transcript[-2:] == [("C", "QUIT"), ("S", "221 2.0.0 mx.acme123.com closing connection")]


def test_held_mail_is_shown_and_released(start_mail_host: Callable[..., MailHost]) -> None:
    host = start_mail_host(extra=HOLD)
    assert send_message("198.51.100.7", "held@friend.example", ["alice@acme123.com", "bob@acme123.com"]).accepted
    (entry,) = host.quarantined()
    assert entry.sender == "held@friend.example"
    assert entry.recipients == ("alice@acme123.com", "bob@acme123.com")
    assert entry.reason == "dnsbl-milter score=9.00 lists=zen,spamcop"
    assert host.queue() == []
    assert host.messages("alice") == []
    host.release(entry.id)
    assert host.quarantined() == []
    assert len(host.messages("alice")) == len(host.messages("bob")) == 1


@pytest.mark.parametrize("milter", MILTERS)
def test_a_dead_milter_stops_no_mail(start_mail_host: Callable[..., MailHost], milter: str) -> None:
    host = start_mail_host(milter)
    assert send_message("198.51.100.7", "a@b.example", "alice@acme123.com").accepted
    assert len(host.messages("alice")) == 1
    assert host.wait_for_log("Milter (dnsbl-milter): to error state")


def test_mail_flows_while_the_resolver_is_silent(mail_host: MailHost, resolver: Resolver) -> None:
    resolver.pause()
    try:
        assert send_message("198.51.100.7", "a@b.example", "alice@acme123.com").accepted
    finally:
        resolver.resume()
    assert len(mail_host.messages("alice")) == 1


@pytest.mark.parametrize("zone", ZONES)
def test_lists_answer_as_the_address_plan_says(lists: ListServer, resolver: Resolver, zone: str) -> None:
    assert set(lists.zones) == set(ZONES)
    for client in SAMPLE_CLIENTS:
        codes = client.codes(zone)
        for server in (lists, resolver):
            answer = server.look_up(client.address, zone)
            assert (answer.rcode, answer.values) == ("NOERROR" if codes else "NXDOMAIN", codes), client


# zone, its test entries (RFC 5782, 5), what the first of them answers
TEST_ENTRIES = (
    ("zen.example", "127.0.0.2", "127.0.0.1", ("127.0.0.2",)),
    ("spamcop.example", "127.0.0.2", "127.0.0.1", ("127.0.0.2",)),
    ("psbl.example", "127.0.0.2", "127.0.0.1", ("127.0.0.2",)),
    ("dnswl.example", "127.0.0.2", "127.0.0.1", ("127.0.10.0",)),
    ("v6.example", "::ffff:7f00:2", "::ffff:7f00:1", ("127.0.0.2",)),
)


@pytest.mark.parametrize(("zone", "listed", "clear", "codes"), TEST_ENTRIES)
def test_lists_hold_their_test_entries(
    resolver: Resolver, zone: str, listed: str, clear: str, codes: tuple[str, ...]
) -> None:
    assert resolver.look_up(listed, zone).values == codes
    assert resolver.look_up(clear, zone).rcode == "NXDOMAIN"


def test_reasons_are_told(resolver: Resolver) -> None:
    reasons = resolver.look_up("198.51.100.17", "zen.example", "TXT").values
    assert reasons == (
        "SBL: https://zen.example/query/198.51.100.17",
        "XBL: https://zen.example/query/198.51.100.17",
    )


def test_a_list_can_be_changed(lists: ListServer, resolver: Resolver) -> None:
    address, zone = "198.51.100.200", "spamcop.example"
    lines = lists.zones[zone].lines
    try:
        for text in ("one", "two"):
            lists.replace(zone, [*lines, f"{address} :2:{text}"])
            assert lists.look_up(address, zone, "TXT").values == (text,)
        assert resolver.look_up(address, zone) == Answer("NOERROR", ("127.0.0.2",), 300)
    finally:
        lists.replace(zone, lines)
    assert lists.look_up(address, zone).rcode == "NXDOMAIN"
    assert resolver.look_up(address, zone).rcode == "NOERROR"  # kept
    resolver.flush()
    assert resolver.look_up(address, zone).rcode == "NXDOMAIN"


def test_a_paused_list_does_not_answer(lists: ListServer, resolver: Resolver) -> None:
    lists.pause()
    try:
        for server in (lists, resolver):
            with pytest.raises(TimeoutError):
                server.look_up("198.51.100.201", "zen.example", timeout=0.3)
    finally:
        lists.resume()
    resolver.flush()  # it keeps a failure for some seconds
    assert resolver.look_up("198.51.100.201", "zen.example").rcode == "NXDOMAIN"


def test_unknown_names_are_refuted_at_once(resolver: Resolver) -> None:
    start = time.monotonic()
    for name in ("2.0.0.127.bl.spamcop.net", "example.org", "nobody.friend.example"):
        assert resolver.ask(name).rcode == "NXDOMAIN"
    assert time.monotonic() - start < 1


# command, exit status
STATUSES = (
    (("true",), 0),
    (("sh", "-c", "exit 7"), 7),
    (("sh", "-c", "kill -TERM $$"), 143),
    (("no-such-command",), 127),
    ((), 125),
)


@pytest.mark.parametrize(("command", "status"), STATUSES)
def test_an_enclosure_has_the_status_of_its_command(command: tuple[str, ...], status: int) -> None:
    assert subprocess.run([ENCLOSED, *command], stdin=subprocess.DEVNULL, check=False).returncode == status


def test_nothing_outlives_an_enclosure() -> None:
    # The grandchild keeps the pipe open: its end is seen when the grandchild is gone.
    script = "sh -c 'trap \"\" INT TERM HUP; echo ready; sleep 1000' & wait"
    enclosure = subprocess.Popen([ENCLOSED, "sh", "-c", script], stdout=subprocess.PIPE, text=True)
    assert enclosure.stdout is not None
    with enclosure, enclosure.stdout as output:
        assert output.readline() == "ready\n"
        enclosure.terminate()
        assert output.read() == ""
