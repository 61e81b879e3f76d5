"""`import sendmail --strict`: what FEATURE lines did to the sample clients, the imported configuration does.

Each row is given to a real Sendmail as it stands, and to another as what `import` makes of it; the clients of the
address plan then send to both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mailhost.clients import SAMPLE_CLIENTS, SampleClient
from mailhost.daemon import Daemon, command
from mailhost.lists import ListServer
from mailhost.policies import SOCKET
from mailhost.resolver import Resolver
from mailhost.sendmail import PASSWORD, USER, MailHost
from mailhost.smtp import send_message
from mailhost.trinityos import run

FOLDER = Path("/run/mailhost/old")
ACCESS = FOLDER / "access"
SENDER = "someone@sender.example"
ALICE, BOB = "alice@acme123.com", "bob@acme123.com"
CLIENTS = tuple(each for each in SAMPLE_CLIENTS if not each.dnswl)  # no old line asks who speaks for a client

StartMailHost = Callable[..., MailHost]


@dataclass(frozen=True)
class Row:
    """What an old .mc says."""

    title: str
    lines: tuple[str, ...]
    access: str = ""
    at_once: bool = True  # one answer is looked at, as enhdnsbl does up to 8.17
    recipients: tuple[str, ...] = (ALICE,)


DELAYED = "FEATURE(`delay_checks')dnl"
MAP = f"FEATURE(`access_db', `hash -T<TMPF> {ACCESS}')dnl"
ROWS = (
    Row(
        "as the recipe wrote it",
        (
            "FEATURE(dnsbl, `zen.example', `Mail rejected - Open spam relay - see http://zen.example/?$&{client_addr}')dnl",
            "FEATURE(dnsbl, `spamcop.example', `Rejected - See http://spamcop.example/')dnl",
            "FEATURE(dnsbl, `psbl.example')dnl ",
        ),
    ),
    Row("one list", ("FEATURE(`dnsbl', `spamcop.example', `\"550 Refused: \" $&{client_addr}', `t')dnl",)),
    Row("codes, with dots", ("FEATURE(`enhdnsbl', `zen.example', , `t', `127.0.0.2.', `127.0.0.4.')dnl",), at_once=False),
    Row("any code", ("FEATURE(`enhdnsbl', `zen.example', `', `t')dnl",)),
    Row("wrapped", ("FEATURE(`enhdnsbl',\n    `zen.example',\n    `\"550 no\"',,\n    `127.0.0.$-.')dnl",)),
    Row("quarantined", (DELAYED, "FEATURE(`dnsbl', `psbl.example', `quarantine')dnl")),
    Row("discarded", ("FEATURE(`dnsbl', `psbl.example', `discard')dnl",)),
    Row("deferred", ("FEATURE(`dnsbl', `psbl.example', `\"451 Later\"')dnl",)),
    Row(
        "from hard to mild",
        (
            DELAYED,
            "FEATURE(`dnsbl', `zen.example', `\"550 no\"')dnl",
            "FEATURE(`dnsbl', `spamcop.example', `quarantine')dnl",
            "FEATURE(`dnsbl', `psbl.example', `\"451 later\"')dnl",
        ),
    ),
    Row("a code for each action", (
        DELAYED,
        "FEATURE(`enhdnsbl', `zen.example', `discard', , `127.0.0.3.')dnl",
        "FEATURE(`enhdnsbl', `zen.example', `\"550 no\"', , `127.0.0.4.')dnl",
        "FEATURE(`enhdnsbl', `zen.example', `quarantine', , `127.0.0.10.')dnl",
    ), at_once=False),
    Row(
        "the access map",
        (MAP, "FEATURE(`dnsbl', `zen.example')dnl", "FEATURE(`dnsbl', `spamcop.example')dnl"),
        access=(
            "Connect:198.51.100.12\tOK\nConnect:198.51.100.21\tRELAY\n198.51.100.22\tOK\nConnect:dial.example\tOK\n"
            "Connect:friend.example\tOK\nFrom:sender.example\tOK\nConnect:192.168\tRELAY\n"
        ),
    ),
    Row(
        "checks delayed, and friends",
        (MAP, "FEATURE(`delay_checks', `friend')dnl", "FEATURE(`dnsbl', `zen.example')dnl"),
        access="Spam:bob@acme123.com\tFRIEND\nConnect:198.51.100.12\tOK\n",
        recipients=(ALICE, BOB),
    ),
)  # fmt: skip


@pytest.fixture
def milter(resolver: Resolver) -> Iterator[Callable[[str], Daemon]]:
    started: list[Daemon] = []

    def start(configuration: str) -> Daemon:
        started.append(Daemon(FOLDER / "daemon", configuration))
        return started[-1]

    yield start
    for daemon in started:
        daemon.stop()


def imported(row: Row, *options: str) -> str:
    """Give the row to `import sendmail`, have the result checked, and return it."""
    old, new = FOLDER / "old.mc", FOLDER / "new.toml"
    old.write_text("\n".join((*row.lines, "")))
    new.unlink(missing_ok=True)
    access = ("--access", str(ACCESS)) if row.access else ()
    done = command("import", "sendmail", old, *access, *options, "--output", new)
    assert done.returncode == 0, done.stderr
    checked = command("config", "check", "--config", new)
    assert checked.returncode == 0, checked.stderr
    return new.read_text()


def write_map(row: Row) -> None:
    FOLDER.mkdir(exist_ok=True)
    ACCESS.write_text(row.access)
    run("makemap", "hash", ACCESS, given=row.access)


def fate(host: MailHost, source: str, recipient: str, *, auth: tuple[str, str] | None = None) -> str:
    """Send a message, and return what became of it."""
    host.forget_messages()
    outcome = send_message(source, SENDER, recipient, auth=auth)
    if not outcome.accepted:
        return {4: "deferred", 5: "rejected"}[outcome.last.code // 100]
    if host.messages(recipient):
        return "delivered"
    return "quarantined" if host.quarantined() else "discarded"


def fates(host: MailHost, row: Row, clients: tuple[SampleClient, ...] = CLIENTS) -> dict[tuple[str, str], str]:
    return {(each.address, to): fate(host, each.address, to) for each in clients for to in row.recipients}


@pytest.mark.parametrize("row", ROWS, ids=[row.title for row in ROWS])
def test_strict_does_to_every_client_what_sendmail_did(
    start_mail_host: StartMailHost, milter: Callable[[str], Daemon], row: Row
) -> None:
    write_map(row)
    old = fates(start_mail_host(extra="\n".join(row.lines)), row)
    milter(imported(row, "--strict"))
    new = fates(start_mail_host(SOCKET), row)
    # Of several answers 8.17 looks at one, whichever comes first; 8.18 and the milter look at all.
    several = {each.address for each in CLIENTS if len(each.zen) > 1} if not row.at_once else set()
    assert {key: what for key, what in new.items() if key[0] not in several} == {
        key: what for key, what in old.items() if key[0] not in several
    }
    assert len(set(old.values())) > 1, "the row shows nothing"
    assert all(what != "delivered" for key, what in new.items() if key[0] in several)


def test_gently_no_client_on_one_list_is_delayed(start_mail_host: StartMailHost, milter: Callable[[str], Daemon]) -> None:
    row = ROWS[0]
    write_map(row)
    daemon = milter(imported(row))
    host = start_mail_host(SOCKET)
    one_list = tuple(each for each in CLIENTS if bool(each.zen) + each.spamcop + each.psbl == 1)
    assert set(fates(host, row, one_list).values()) == {"delivered"}
    assert daemon.explain("198.51.100.25")["action"] == "defer"  # on all three


@pytest.mark.parametrize("delayed", [False, True], ids=["at connect", "delayed"])
def test_who_logs_in_meets_the_same(
    start_mail_host: StartMailHost, milter: Callable[[str], Daemon], delayed: bool
) -> None:
    row = Row("", (*(["FEATURE(`delay_checks')dnl"] if delayed else []), "FEATURE(`dnsbl', `zen.example')dnl"))
    write_map(row)
    source = "198.51.100.12"
    before = fate(start_mail_host(extra="\n".join(row.lines)), source, ALICE, auth=(USER, PASSWORD))
    milter(imported(row, "--strict"))
    after = fate(start_mail_host(SOCKET), source, ALICE, auth=(USER, PASSWORD))
    assert before == after == ("delivered" if delayed else "rejected")


# --- where it is not the same, and is not meant to be


def test_what_sendmail_only_logged_is_held(start_mail_host: StartMailHost, milter: Callable[[str], Daemon]) -> None:
    row = Row("", ("FEATURE(`dnsbl', `psbl.example', `quarantine')dnl",))
    write_map(row)
    host = start_mail_host(extra=row.lines[0])
    assert fate(host, "198.51.100.15", ALICE) == "delivered"
    assert "quarantine=psbl.example" in host.wait_for_log("ruleset=check_relay")
    milter(imported(row, "--strict"))
    assert fate(start_mail_host(SOCKET), "198.51.100.15", ALICE) == "quarantined"


def test_an_operators_error_is_no_listing_any_more(start_mail_host: StartMailHost, milter: Callable[[str], Daemon]) -> None:
    row = Row("", ("FEATURE(`dnsbl', `refusing.example')dnl",))
    write_map(row)
    assert fate(start_mail_host(extra=row.lines[0]), "198.51.100.7", ALICE) == "rejected"
    milter(imported(row, "--strict"))
    assert fate(start_mail_host(SOCKET), "198.51.100.7", ALICE) == "delivered"


def test_a_silent_list_delays_nobody_any_more(
    start_mail_host: StartMailHost, milter: Callable[[str], Daemon], lists: ListServer, resolver: Resolver
) -> None:
    row = Row("", ("FEATURE(`dnsbl', `zen.example', , `t')dnl",))
    write_map(row)
    host = start_mail_host(extra=row.lines[0])
    lists.pause()
    resolver.flush()
    try:
        assert fate(host, "198.51.100.7", ALICE) == "deferred"
        milter(imported(row, "--strict"))
        assert fate(start_mail_host(SOCKET), "198.51.100.7", ALICE) == "delivered"
    finally:
        lists.resume()
        resolver.flush()
