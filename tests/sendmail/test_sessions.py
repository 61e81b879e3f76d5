"""Everything that a client may do in one connection, and leaving it at any moment."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from mailhost.daemon import children
from mailhost.policies import sample_policy
from mailhost.process import wait_until
from mailhost.site import ARRIVING, FORGING, MESSAGE, RECIPIENT, SENDER, Site, message
from mailhost.smtp import Client

OpenSite = Callable[..., Site]

CLEAN, LISTED, DEFERRED, QUARANTINED = "198.51.100.7", "198.51.100.12", "198.51.100.20", "198.51.100.21"
REJECTED, DISCARDED = "198.51.100.25", "198.51.100.26"
ALICE, BOB, POSTMASTER = RECIPIENT, "bob@acme123.com", "postmaster@acme123.com"
TAG = ["X-DNSBL-Score: 5 (zen=SBL:+5)", "X-DNSBL-Action: tag"]
HELD = "dnsbl-milter score=9 lists=zen,spamcop"


@pytest.fixture
def site(open_site: OpenSite) -> Site:
    return open_site(sample_policy())


def said(site: Site) -> list[tuple[object, object]]:
    return [(decision["recipient"], decision["enforced"]) for decision in site.decisions()]


def codes(client: Client, *commands: str) -> list[int]:
    return [client.command(command).code for command in commands]


def test_messages_of_one_connection_fare_as_their_recipients_do(site: Site) -> None:
    with site.connect(QUARANTINED) as client:
        first = client.send_message(SENDER, [ALICE], FORGING)
        second = client.send_message("", [POSTMASTER], FORGING)
        third = client.send_message(SENDER, [POSTMASTER, BOB], MESSAGE)
        fourth = client.send_message("other@sender.example", [BOB, ALICE], MESSAGE)
    assert first.accepted
    assert second.accepted
    assert third.accepted
    assert fourth.accepted
    assert third.recipients[BOB].code == 451
    assert site.delivered(POSTMASTER) == [(ARRIVING, [])] * 2
    assert site.received(ALICE) == site.received(BOB) == []
    assert {(entry.id, entry.sender, entry.recipients, entry.reason) for entry in site.host.quarantined()} == {
        (first.queue_id, SENDER, (ALICE,), HELD),
        (fourth.queue_id, "other@sender.example", (BOB, ALICE), HELD),
    }
    assert said(site) == [
        (ALICE, "quarantine"),
        (POSTMASTER, "accept"),
        (POSTMASTER, "accept"),
        (BOB, "defer"),
        (BOB, "quarantine"),
        (ALICE, "quarantine"),
    ]
    assert [decision["queue"] for decision in site.decisions()] == [
        first.queue_id,
        second.queue_id,
        third.queue_id,
        third.queue_id,
        fourth.queue_id,
        fourth.queue_id,
    ]


def test_discarding_one_message_does_not_touch_the_next(site: Site) -> None:
    with site.connect(DISCARDED) as client:
        for recipient in (ALICE, POSTMASTER, ALICE, POSTMASTER):
            assert client.send_message(SENDER, recipient, FORGING).accepted
    assert site.delivered(POSTMASTER) == [(ARRIVING, [])] * 2
    assert site.received(ALICE) == site.host.quarantined() == site.host.queue() == []
    assert said(site) == [(ALICE, "discard"), (POSTMASTER, "accept")] * 2


def test_a_refused_client_may_go_on(site: Site) -> None:
    with site.connect(REJECTED) as client:
        client.ehlo()
        for _ in range(3):
            assert codes(client, f"MAIL FROM:<{SENDER}>", f"RCPT TO:<{ALICE}>", f"RCPT TO:<{BOB}>") == [250, 550, 550]
            assert codes(client, "DATA", "RSET") == [503, 250]
        assert client.send_message(SENDER, POSTMASTER, MESSAGE).accepted
    assert site.delivered(POSTMASTER) == [(ARRIVING, [])]
    assert said(site) == [(ALICE, "reject"), (BOB, "reject")] * 3 + [(POSTMASTER, "accept")]


def test_a_message_given_up_leaves_nothing_behind(site: Site) -> None:
    with site.connect(QUARANTINED) as client:
        client.ehlo()
        # It made alice the first of a message that was never sent; now postmaster is the first of another.
        assert codes(client, f"MAIL FROM:<{SENDER}>", f"RCPT TO:<{ALICE}>", "RSET") == [250, 250, 250]
        assert codes(client, "MAIL FROM:<>", f"RCPT TO:<{POSTMASTER}>", f"RCPT TO:<{ALICE}>") == [250, 250, 451]
        # EHLO gives a message up as RSET does (RFC 5321, section 4.1.4).
        assert client.ehlo("other.example").code == 250
        assert codes(client, f"MAIL FROM:<{SENDER}>", f"RCPT TO:<{ALICE}>", f"RCPT TO:<{POSTMASTER}>") == [
            250,
            250,
            451,
        ]
        assert client.data().code == 354
        assert client.message(MESSAGE).positive
    (entry,) = site.host.quarantined()
    assert (entry.recipients, entry.reason) == ((ALICE,), HELD)
    assert site.received(POSTMASTER) == []
    decisions = site.decisions()
    assert said(site) == [
        (ALICE, "quarantine"),
        (POSTMASTER, "accept"),
        (ALICE, "defer"),
        (ALICE, "quarantine"),
        (POSTMASTER, "defer"),
    ]
    assert [decision["sender"] for decision in decisions] == [SENDER, "", "", SENDER, SENDER]
    assert [decision["helo"] for decision in decisions] == ["client.example"] * 3 + ["other.example"] * 2


def test_commands_in_one_packet_are_answered_in_order(site: Site) -> None:
    with site.connect(REJECTED) as client:
        client.ehlo()
        replies = client.pipeline(
            f"MAIL FROM:<{SENDER}>", f"RCPT TO:<{ALICE}>", f"RCPT TO:<{POSTMASTER}>", f"RCPT TO:<{BOB}>", "DATA"
        )
        assert [reply.code for reply in replies] == [250, 550, 250, 550, 354]
        assert all(name in replies[1].text for name in ("zen", "spamcop", "psbl"))
        replies = client.pipeline(
            FORGING.decode().replace("\n", "\r\n") + ".", f"MAIL FROM:<{SENDER}>", f"RCPT TO:<{ALICE}>", "RSET", "NOOP"
        )
        assert [reply.code for reply in replies] == [250, 250, 550, 250, 250]
    assert site.delivered(POSTMASTER) == [(ARRIVING, [])]
    assert said(site) == [(ALICE, "reject"), (POSTMASTER, "accept"), (BOB, "reject"), (ALICE, "reject")]


def test_a_message_without_recipients_is_nothing_to_decide(site: Site) -> None:
    with site.connect(LISTED) as client:
        client.ehlo()
        assert codes(client, f"MAIL FROM:<{SENDER}>", "NOOP", "DATA", "RSET", "NOOP", "VRFY alice", "DATA") == [
            250,
            250,
            503,
            250,
            250,
            252,
            503,
        ]
        assert codes(client, f"RCPT TO:<{ALICE}>", "HELP", "UNKNOWN") == [503, 214, 500]
        assert client.send_message(SENDER, ALICE, MESSAGE).accepted
    assert site.delivered() == [(ARRIVING, TAG)]
    assert said(site) == [(ALICE, "tag")]


def test_a_client_that_never_greets_is_judged(site: Site) -> None:
    with site.connect(DEFERRED) as client:
        assert codes(client, f"MAIL FROM:<{SENDER}>", f"RCPT TO:<{ALICE}>", "NOOP") == [250, 451, 250]
    (decision,) = site.decisions()
    assert (decision["client"], decision["helo"], decision["action"]) == (DEFERRED, "", "defer")


def test_a_large_message_passes_whole(site: Site) -> None:
    body = "".join(f"{number:08} {'x' * 60}\n" for number in range(30_000))  # 2 MB
    assert site.send(LISTED, content=message(*ARRIVING, body=body)).accepted
    assert site.delivered() == [(ARRIVING, TAG)]
    (raw,) = site.host.raw_messages(ALICE)
    assert raw.partition(b"\n\n")[2] == body.encode()


def greet(client: Client) -> None:
    client.ehlo()


def name_sender(client: Client) -> None:
    greet(client)
    client.mail(SENDER)


def name_recipient(client: Client) -> None:
    name_sender(client)
    client.rcpt(ALICE)


def begin_message(client: Client) -> None:
    name_recipient(client)
    client.data()


def break_off_message(client: Client) -> None:
    begin_message(client)
    client.send(*FORGING.decode().splitlines())


def finish_message(client: Client) -> None:
    begin_message(client)
    client.message(MESSAGE)


def begin_again(client: Client) -> None:
    finish_message(client)
    client.mail(SENDER)


# Where a client leaves without a word, and how often it has sent a whole message before.
STAGES = (
    (lambda _client: None, 0),
    (greet, 0),
    (name_sender, 0),
    (lambda client: (name_sender(client), client.send(f"RCPT TO:<{ALICE}>")), 0),
    (name_recipient, 0),
    (lambda client: (name_recipient(client), client.send("DATA")), 0),
    (begin_message, 0),
    (break_off_message, 0),
    (finish_message, 1),
    (begin_again, 1),
    (lambda client: (greet(client), client.rset()), 0),
)
LEAVING = (Client.close, Client.reset)


def test_clients_that_leave_at_any_moment_leave_nothing_behind(site: Site) -> None:
    sources = (CLEAN, LISTED, QUARANTINED, REJECTED, DISCARDED, "192.168.0.9", "2001:db8::10")

    def all_leave() -> None:
        for stage, _ in STAGES:
            for leave in LEAVING:
                for source in sources:
                    client = site.connect(source)
                    stage(client)
                    leave(client)
        site.daemon.wait_until_idle()

    all_leave()  # a first time, for what a worker opens once
    site.forget()
    before = site.daemon.descriptors()
    all_leave()
    assert site.daemon.descriptors() == before
    assert sorted(site.daemon.workers()) == sorted(before)
    # Each client that may sends its message whole in so many stages; a message that was broken off is none.
    whole = sum(count for _, count in STAGES) * len(LEAVING)
    assert len(site.received()) == whole * sum(source in (CLEAN, LISTED, "192.168.0.9") for source in sources)
    assert len(site.host.quarantined()) == whole
    assert site.host.queue() == []


def test_a_sendmail_that_dies_leaves_nothing_behind(site: Site) -> None:
    before: dict[int, int] = {}
    for _ in range(2):
        site.daemon.wait_until_idle()
        before = site.daemon.descriptors()
        for stage, _ in STAGES:
            client = site.connect(LISTED)
            stage(client)
            for pid in children(site.host.process.pid):
                os.kill(pid, signal.SIGKILL)
            client.close()
        wait_until(lambda: not children(site.host.process.pid), 5, "Sendmail has buried its children")
    site.daemon.wait_until_idle()
    assert site.daemon.descriptors() == before
    assert site.send(REJECTED).last.code == 550


def test_many_idle_connections_do_not_hinder_others(site: Site) -> None:
    idle = [site.connect(source) for source in (CLEAN, LISTED, REJECTED) for _ in range(30)]
    assert site.send(REJECTED).last.code == 550
    for client in idle[:30]:
        greet(client)
        client.mail(SENDER)
    assert site.send(LISTED).accepted
    assert site.delivered() == [(ARRIVING, TAG)]
    wait_until(lambda: sum(site.daemon.sessions().values()) == len(idle), 5, "only the idle ones are left")
    assert said(site) == [(ALICE, "reject"), (ALICE, "tag")]
