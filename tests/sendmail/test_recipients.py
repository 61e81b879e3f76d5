"""Recipients of one message who are treated differently, and senders who have logged in."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mailhost.policies import sample_policy
from mailhost.sendmail import PASSWORD, USER
from mailhost.site import ARRIVING, FORGED, FORGING, RECIPIENT, SENDER, Site
from mailhost.smtp import Client

OpenSite = Callable[..., Site]

TAGGED, DEFERRED, QUARANTINED = "198.51.100.12", "198.51.100.20", "198.51.100.21"
REJECTED, DISCARDED = "198.51.100.25", "198.51.100.26"
ALICE, BOB, POSTMASTER, ABUSE = "alice@acme123.com", "bob@acme123.com", "postmaster@acme123.com", "abuse@acme123.com"
SEPARATELY = (451, "4.7.1")
OUTSIDE = "someone@friend.example"  # Sendmail lets nobody relay but those who have logged in


@pytest.fixture
def site(open_site: OpenSite) -> Site:
    return open_site(sample_policy())


def said(site: Site) -> list[tuple[object, ...]]:
    """Return of each decision the recipient, the action, what was done, and why not more."""
    return [
        tuple(decision[name] for name in ("recipient", "action", "enforced", "exempt")) for decision in site.decisions()
    ]


# label, source, recipients, codes to each RCPT, what the log says of each
REFUSALS = (
    ("rejected beside exempt", REJECTED, [ALICE, POSTMASTER], [550, 250], ["reject", "accept"]),
    ("exempt beside rejected", REJECTED, [POSTMASTER, ALICE], [250, 550], ["accept", "reject"]),
    ("several of both", REJECTED, [ALICE, ABUSE, BOB, POSTMASTER], [550, 250, 550, 250], ["reject", "accept"] * 2),
    ("deferred beside exempt", DEFERRED, [ALICE, POSTMASTER], [451, 250], ["defer", "accept"]),
    ("exempt beside deferred", DEFERRED, [POSTMASTER, ALICE], [250, 451], ["accept", "defer"]),
)


@pytest.mark.parametrize(
    ("source", "recipients", "codes", "actions"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS]
)
def test_an_exempt_recipient_is_accepted_while_others_are_refused(
    site: Site, source: str, recipients: list[str], codes: list[int], actions: list[str]
) -> None:
    outcome = site.send(source, recipients, FORGING)
    assert [reply.code for reply in outcome.recipients.values()] == codes
    assert outcome.accepted
    for recipient in (ALICE, BOB, POSTMASTER, ABUSE):
        taken = recipient in recipients and outcome.recipients[recipient].code == 250
        assert site.delivered(recipient) == [(ARRIVING, [])] * taken
    assert site.host.quarantined() == site.host.queue() == []
    exempt = {POSTMASTER: "recipient", ABUSE: "recipient"}
    assert said(site) == [
        (recipient, action, action, exempt.get(recipient, ""))
        for recipient, action in zip(recipients, actions, strict=True)
    ]


def test_an_exempt_recipient_is_told_nothing_of_a_verdict(open_site: OpenSite) -> None:
    site = open_site(sample_policy(headers={"add": "always"}))
    with site.connect(REJECTED) as client:
        # There is a verdict on the client, but not on these messages.
        assert client.send_message(SENDER, [ALICE, POSTMASTER], FORGING).recipients[ALICE].code == 550
        assert client.send_message(SENDER, POSTMASTER, FORGING).accepted
    assert site.delivered(POSTMASTER) == [(ARRIVING, [])] * 2
    assert said(site) == [
        (ALICE, "reject", "reject", ""),
        (POSTMASTER, "accept", "accept", "recipient"),
        (POSTMASTER, "accept", "accept", "recipient"),
    ]


@pytest.mark.parametrize("recipient", ["postmaster", "Postmaster", "POSTMASTER@ACME123.COM", "abuse@mx.acme123.com"])
def test_an_exempt_recipient_may_be_written_as_one_likes(site: Site, recipient: str) -> None:
    assert site.send(REJECTED, recipient).accepted
    assert said(site) == [(recipient, "accept", "accept", "recipient")]


def test_recipients_are_exempt_as_configured(open_site: OpenSite) -> None:
    site = open_site(sample_policy(allow={"recipients": ["list@acme123.com", "@mx.acme123.com", "bob@"]}))
    recipients = [
        "list@acme123.com",
        "anyone@mx.acme123.com",
        BOB,
        "bob@mx.acme123.com",
        POSTMASTER,
        "alist@acme123.com",
    ]
    outcome = site.send(REJECTED, recipients)
    assert [reply.code for reply in outcome.recipients.values()] == [250, 250, 250, 250, 550, 550]
    assert [decision["exempt"] for decision in site.decisions()] == ["recipient"] * 4 + [""] * 2


# label, source, its action, the reason of the quarantine
WHOLE = (
    ("quarantine", QUARANTINED, "dnsbl-milter score=9 lists=zen,spamcop"),
    ("discard", DISCARDED, ""),
)


@pytest.mark.parametrize(("action", "source", "reason"), WHOLE)
def test_the_class_of_the_first_recipient_holds_if_that_is_exempt(
    site: Site, action: str, source: str, reason: str
) -> None:
    outcome = site.send(source, [POSTMASTER, ALICE, ABUSE, BOB], FORGING)
    assert [reply.code for reply in outcome.recipients.values()] == [250, 451, 250, 451]
    for other in (ALICE, BOB):
        reply = outcome.recipients[other]
        assert (reply.code, reply.text[:5]) == SEPARATELY
        assert reply.text.isascii()
        assert "\n" not in reply.text
    assert outcome.accepted
    assert site.delivered(POSTMASTER) == site.delivered(ABUSE) == [(ARRIVING, [])]
    assert site.delivered(ALICE) == site.delivered(BOB) == site.host.quarantined() == site.host.queue() == []
    assert said(site) == [
        (POSTMASTER, "accept", "accept", "recipient"),
        (ALICE, action, "defer", ""),
        (ABUSE, "accept", "accept", "recipient"),
        (BOB, action, "defer", ""),
    ]


@pytest.mark.parametrize(("action", "source", "reason"), WHOLE)
def test_the_class_of_the_first_recipient_holds_if_that_is_not_exempt(
    site: Site, action: str, source: str, reason: str
) -> None:
    outcome = site.send(source, [ALICE, POSTMASTER, BOB, ABUSE], FORGING)
    assert [reply.code for reply in outcome.recipients.values()] == [250, 451, 250, 451]
    assert (outcome.recipients[POSTMASTER].code, outcome.recipients[POSTMASTER].text[:5]) == SEPARATELY
    assert outcome.accepted
    for recipient in (ALICE, BOB, POSTMASTER, ABUSE):
        assert site.delivered(recipient) == []
    assert [(entry.id, entry.recipients, entry.reason) for entry in site.host.quarantined()] == (
        [(outcome.queue_id, (ALICE, BOB), reason)] if reason else []
    )
    assert site.host.queue() == []
    assert said(site) == [
        (ALICE, action, action, ""),
        (POSTMASTER, "accept", "defer", "recipient"),
        (BOB, action, action, ""),
        (ABUSE, "accept", "defer", "recipient"),
    ]


@pytest.mark.parametrize(("action", "source", "reason"), WHOLE)
@pytest.mark.parametrize("first", [ALICE, POSTMASTER])
def test_a_message_of_its_own_is_all_that_the_other_class_needs(
    site: Site, action: str, source: str, reason: str, first: str
) -> None:
    waiting = [ALICE, POSTMASTER] if first == ALICE else [POSTMASTER, ALICE]
    with site.connect(source) as client:
        while waiting:
            outcome = client.send_message(SENDER, waiting, FORGING)
            assert outcome.accepted
            assert outcome.recipients[waiting[0]].code == 250
            waiting = [recipient for recipient in waiting if outcome.recipients[recipient].code == 451]
    assert site.delivered(POSTMASTER) == [(ARRIVING, [])]
    assert site.delivered(ALICE) == []
    assert [(entry.recipients, entry.reason) for entry in site.host.quarantined()] == [((ALICE,), reason)] * bool(
        reason
    )


def test_a_recipient_that_sendmail_refuses_is_none_of_ours(site: Site) -> None:
    outcome = site.send(TAGGED, [OUTSIDE, ALICE], FORGING)
    assert [reply.code for reply in outcome.recipients.values()] == [550, 250]
    assert said(site) == [(ALICE, "tag", "tag", "")]
    assert site.delivered(ALICE) == [(ARRIVING, ["X-DNSBL-Score: 5 (zen=SBL:+5)", "X-DNSBL-Action: tag"])]


def test_a_hundred_recipients_are_judged_by_one_verdict(site: Site) -> None:
    recipients = [f"user{number}@acme123.com" for number in range(100)]
    outcome = site.send(TAGGED, recipients)
    assert outcome.accepted
    assert [reply.code for reply in outcome.recipients.values()] == [250] * 100
    assert said(site) == [(recipient, "tag", "tag", "") for recipient in recipients]
    assert {decision["queue"] for decision in site.decisions()} == {outcome.queue_id}


@pytest.mark.parametrize("source", [TAGGED, QUARANTINED, REJECTED, DISCARDED])
def test_who_has_logged_in_is_not_judged(site: Site, source: str) -> None:
    outcome = site.send(source, [ALICE, OUTSIDE, POSTMASTER], FORGING, auth=(USER, PASSWORD))
    assert outcome.accepted
    assert [reply.code for reply in outcome.recipients.values()] == [250, 250, 250]
    for recipient in (ALICE, OUTSIDE, POSTMASTER):
        assert site.received(recipient) == [[*FORGED, *ARRIVING]]  # not touched
    assert site.host.quarantined() == []
    (decision,) = site.decisions()
    assert (decision["exempt"], decision["action"], decision["recipient"]) == ("authenticated", "accept", "")
    assert (decision["sender"], decision["queue"]) == (SENDER, outcome.queue_id)


def test_who_has_logged_in_may_send_several_messages(site: Site) -> None:
    with site.connect(REJECTED) as client:
        assert client.ehlo().positive
        assert client.auth_plain(USER, PASSWORD).code == 235
        for recipient in (ALICE, OUTSIDE, BOB):
            assert client.mail(SENDER).positive
            assert client.rcpt(recipient).positive
            assert client.data().code == 354
            assert client.message(FORGING).positive
    for recipient in (ALICE, OUTSIDE, BOB):
        assert site.received(recipient) == [[*FORGED, *ARRIVING]]
    assert said(site) == [("", "accept", "accept", "authenticated")] * 3


def test_logging_in_counts_from_the_next_message_on(site: Site) -> None:
    with site.connect(REJECTED) as client:
        assert client.send_message(SENDER, [ALICE, POSTMASTER], FORGING).recipients[ALICE].code == 550
        assert client.auth_plain(USER, PASSWORD).code == 235
        assert client.mail(SENDER).positive
        assert client.rcpt(ALICE).positive
        assert client.data().code == 354
        assert client.message(FORGING).positive
    assert site.delivered(POSTMASTER) == [(ARRIVING, [])]
    assert site.received(ALICE) == [[*FORGED, *ARRIVING]]
    assert said(site) == [
        (ALICE, "reject", "reject", ""),
        (POSTMASTER, "accept", "accept", "recipient"),
        ("", "accept", "accept", "authenticated"),
    ]


def test_a_wrong_password_helps_nobody(site: Site) -> None:
    with site.connect(REJECTED) as client:
        client.ehlo()
        assert client.auth_plain(USER, "guess").code == 535
        client.mail(SENDER)
        assert client.rcpt(ALICE).code == 550
    assert said(site) == [(ALICE, "reject", "reject", "")]


def test_who_has_logged_in_is_judged_if_so_configured(open_site: OpenSite) -> None:
    site = open_site(sample_policy(allow={"authenticated": False}))
    outcome = site.send(REJECTED, RECIPIENT, auth=(USER, PASSWORD))
    assert outcome.last.code == 550
    assert site.send(TAGGED, OUTSIDE, FORGING, auth=(USER, PASSWORD)).accepted
    assert site.delivered(OUTSIDE) == [(ARRIVING, ["X-DNSBL-Score: 5 (zen=SBL:+5)", "X-DNSBL-Action: tag"])]
    assert said(site) == [(ALICE, "reject", "reject", ""), (OUTSIDE, "tag", "tag", "")]


def test_a_mail_without_a_sender_is_judged_like_any_other(site: Site) -> None:
    with Client(QUARANTINED) as client:
        outcome = client.send_message("", ALICE, FORGING)
    (entry,) = site.host.quarantined()
    assert (entry.id, entry.sender, entry.recipients) == (outcome.queue_id, "", (ALICE,))
    (decision,) = site.decisions()
    assert (decision["sender"], decision["action"], decision["queue"]) == ("", "quarantine", outcome.queue_id)
