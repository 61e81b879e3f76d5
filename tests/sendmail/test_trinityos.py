"""The mail host of contrib/trinityos, built by generate-cf from exactly its files: every promise of the old recipe."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailhost.clients import MAIL_HOST4
from mailhost.daemon import command
from mailhost.process import wait_until
from mailhost.sink import Sink
from mailhost.smtp import Client, Outcome, send_message
from mailhost.trinityos import (
    BACKUP,
    BRANCH,
    ELSEWHERE,
    ETC,
    FILES,
    FORWARDER,
    OFFICE,
    PRIMARY,
    UNWELCOME,
    TrinityHost,
    run,
)

FOLDER = Path("/run/mailhost/trinityos")
STRANGER, INSIDE = "198.51.100.7", "192.168.0.9"
SOMEONE = "someone@elsewhere.example"
VERSION = re.compile(r"\b8\.\d\d\b")
README = (FILES / "README.md").read_text()


@pytest.fixture(scope="module")
def host(keeper) -> Iterator[TrinityHost]:
    keeper.close()  # another Sendmail would have port 25
    started = TrinityHost(FOLDER)
    yield started
    started.stop()


@pytest.fixture(scope="module")
def elsewhere(host: TrinityHost) -> Iterator[Sink]:
    sink = Sink(ELSEWHERE)
    yield sink
    sink.stop()


def text(subject: str, sender: str = SOMEONE, recipient: str = "greg@acme123.com", body: str = "Hello.") -> bytes:
    return f"From: {sender}\nTo: {recipient}\nSubject: {subject}\n\n{body}\n".encode()


def send(source: str, subject: str, recipient: str = "greg@acme123.com", sender: str = SOMEONE) -> Outcome:
    return send_message(source, sender, recipient, text(subject, sender, recipient))


def decisions(host: TrinityHost, **fields: str) -> list[str]:
    """Return the milter's decisions that have these fields."""
    wanted = {f"{name}={value}" for name, value in fields.items()}
    return [line for line in host.daemon.decisions() if wanted <= set(line.split())]


# --- the table: every line of the chapter that makes a promise
#
# section, what it promises, the tests that show it, and the reason where it is deliberately different today

PROMISES = (
    ("25.1", "one command tells the version", "the_version_is_told_to_those_on_the_host", ""),
    ("25.1", "mail from friends will be dropped", "a_friend_on_one_list_is_heard", "weighed: one list tags"),
    ("25.1", "hosts behind it need no more than this host", "mail_from_inside_leaves_as_the_domain", ""),
    ("25.2", "files lie where the version has them", "the_new_file_is_the_one_sendmail_runs_on", "/etc/mail since 8.10; older versions are gone"),
    ("25.3", "compiled, and its macros copied by hand", "both_layouts_are_found", "packages of Debian and Red Hat; sources with --cf-tree"),
    ("25.4", "smrsh is switched off for its bug", "no_program_runs_for_mail", "repaired in 2002; it is not used, and nothing is removed"),
    ("25.5", "mail for the domains in local-host-names ends here", "mail_for_local_domains_is_delivered_by_procmail", ""),
    ("25.5", "several domains are so many lines", "mail_for_local_domains_is_delivered_by_procmail", ""),
    ("25.5", "domains it is a backup for do not stand there", "backup_mail_waits_for_the_primary", ""),
    ("25.6", "VERSIONID", "the_macros_give_no_warning", ""),
    ("25.6", "OSTYPE(linux)", "the_macros_give_no_warning", "Debian's own where its tree is, for its start script"),
    ("25.6", "UUCP is off", "uucp_addresses_are_refused", ""),
    ("25.6", "procmail delivers, from /usr/bin", "mail_for_local_domains_is_delivered_by_procmail", ""),
    ("25.6", "MAILER(smtp), MAILER(procmail)", "the_macros_give_no_warning", "last, as m4 wants today; and MAILER(local), which it would add"),
    ("25.6", "all mail is from the domain, in the header", "mail_from_inside_leaves_as_the_domain", ""),
    ("25.6", "and in the envelope", "mail_from_inside_leaves_as_the_domain", ""),
    ("25.6", "a name without a domain gets it", "names_without_a_domain_get_it", ""),
    ("25.6", "clients on a blackhole list are refused", "the_lists_catch_the_test_entry", "weighed by the milter, not refused by one list"),
    ("25.6", "spamcop, dsbl and ordb are asked", "the_old_lists_are_named_with_their_end", "two of them have listed the whole world since"),
    ("25.6", "use_cw_file names the local domains", "mail_for_local_domains_is_delivered_by_procmail", "the name of the feature is all that is old"),
    ("25.6", "the greeting hides program and version", "nothing_tells_the_version", "the host's name is told: RFC 5321 wants it"),
    ("25.6", "HELP hides the version", "nothing_tells_the_version", "a help file without topics, for no file tells it"),
    ("25.6", "EXPN, VRFY and ETRN are off, HELO is demanded", "prying_commands_are_refused", ""),
    ("25.6", "HELO is demanded", "a_client_without_helo_is_sent_back", ""),
    ("25.6", "authentication warnings", "forged_senders_are_marked", "mostly by submit.cf, through which users' mail comes today"),
    ("25.6", "access_db, for backups", "backup_mail_waits_for_the_primary", ""),
    ("25.6", "relay_mail_from, for backups", "a_claimed_sender_opens_nothing", "gone: anybody may claim a sender; To: lines in access do it"),
    ("25.6", "one script builds and installs", "the_new_file_is_the_one_sendmail_runs_on", ""),
    ("25.6", "it keeps the old file under the date", "backups_never_overwrite_each_other", "the recipe's second backup of a day overwrote the first"),
    ("25.6", "it complains if there is no result", "a_broken_file_replaces_nothing", "the recipe installed an empty file after an error of m4"),
    ("25.6", "it says to restart Sendmail", "the_new_file_is_the_one_sendmail_runs_on", ""),
    ("25.7", "aliases are in place", "aliases_resolve", ""),
    ("25.8", "the lowest MX of a domain gets its mail, a backup the rest", "backup_mail_waits_for_the_primary", ""),
    ("25.9", "procmail is found where it is", "mail_for_local_domains_is_delivered_by_procmail", "its path is given before the feature reads it"),
    ("25.10", "name and version are hidden", "nothing_tells_the_version", ""),
    ("25.10", "a client may stumble over needmailhelo", "a_client_without_helo_is_sent_back", ""),
    ("25.11", "cron runs the queue for a host without a daemon", "a_queue_run_delivers_what_was_deferred", ""),
    ("25.12, 1", "Sendmail starts", "the_new_file_is_the_one_sendmail_runs_on", ""),
    ("25.12, 2.A", "root's mail from outside comes to a person", "aliases_resolve", ""),
    ("25.12, 2.B", "and its To: is right", "names_without_a_domain_get_it", ""),
    ("25.12, 3.A", "a user's mail gets to another user", "mail_written_on_the_host_arrives", "by submit.cf, so names get the host's name first"),
    ("25.12, 3.B", "and to root's reader", "mail_written_on_the_host_arrives", ""),
    ("25.12, 4", "mail from the inside network leaves with sound addresses", "mail_from_inside_leaves_as_the_domain", ""),
    ("25.12, 5.C", "a stranger cannot relay", "a_stranger_may_not_relay", ""),
    ("25.12, 5.C", "relay-domains lets an inside network relay", "mail_from_inside_leaves_as_the_domain", ""),
    ("25.12, 5.C", "a provider's name in relay-domains lets its customers relay", "the_samples_let_no_provider_relay", "left out: log in, or have a fixed address"),
    ("25.12, 5.C", "RELAY in access lets a host relay", "access_lets_the_office_relay", ""),
    ("25.12, 6", "127.0.0.1 passes, 127.0.0.2 is caught", "the_lists_catch_the_test_entry", "by explain, and by SMTP; address test mode asks no milter"),
    ("25.12, 6", "the reply names the list", "the_lists_catch_the_test_entry", ""),
    ("25.12, 7", "HELP does not work", "nothing_tells_the_version", "it answers, and tells nothing"),
    ("25.12, 7.B", "the rest of the version goes by editing C", "nothing_tells_the_version", "no line of C"),
    ("25.12, 8", "the dialogue by hand", "the_dialogue_by_hand", "the greeting has the host's name"),
    ("25.14", "mail for another's domain is taken and kept", "backup_mail_waits_for_the_primary", ""),
    ("25.14", "and given on when the primary is back", "backup_mail_waits_for_the_primary", ""),
    ("25.14", "test it by SMTP from outside", "backup_mail_waits_for_the_primary", ""),
)  # fmt: skip


def test_every_promise_has_its_test_and_every_test_is_there() -> None:
    modules = Path(__file__).parent.glob("test_trinityos*.py")
    there = {name for module in modules for name in re.findall(r"^def test_(\w+)", module.read_text(), re.MULTILINE)}
    assert {test for _, _, test, _ in PROMISES} <= there
    # What is not as it was is told in the walk too, where the section is named.
    different = {section.partition(",")[0] for section, _, _, reason in PROMISES if reason}
    assert [section for section in sorted(different) if section not in README] == []


# --- what leaves and what arrives


def test_mail_from_inside_leaves_as_the_domain(host: TrinityHost, elsewhere: Sink) -> None:
    sender = "greg@desk9.acme123.com"
    assert send_message(INSIDE, sender, "inside@elsewhere.example", text("from inside", f"Greg <{sender}>")).accepted
    received = elsewhere.wait_for("inside@elsewhere.example")
    assert received.sender == "greg@acme123.com"
    assert received.message["From"] == "Greg <greg@acme123.com>"
    assert received.helo == "mx.acme123.com"
    assert "desk9.acme123.com" not in re.sub(rb"(?s)^Received:.*?\r\n(?=\S)", b"", received.content).decode()
    assert decisions(host, client=INSIDE, exempt="network")


def test_names_without_a_domain_get_it(host: TrinityHost, elsewhere: Sink) -> None:
    content = b"From: dranch\nTo: greg\nCc: dranch\nSubject: bare names\n\nHello.\n"
    with Client(INSIDE) as client:
        assert client.send_message("dranch@acme123.com", ["greg", "bare@elsewhere.example"], content).accepted
    arrived = host.wait_for_mail("greg", "bare names")
    assert (arrived["From"], arrived["To"], arrived["Cc"]) == ("dranch@acme123.com", "greg@acme123.com", "dranch@acme123.com")
    left = elsewhere.wait_for("bare@elsewhere.example").message
    assert left["From"] == "dranch@acme123.com"
    # As with the recipe: outside, recipients get the host's name, to which mail comes as well.
    assert left["To"] == "greg@mx.acme123.com"


@pytest.mark.parametrize("domain", ["acme123.com", "newdomain.com", "mx.acme123.com"])
def test_mail_for_local_domains_is_delivered_by_procmail(host: TrinityHost, domain: str) -> None:
    sorted_out = host.home("dranch") / "sorted"
    recipe = host.home("dranch") / ".procmailrc"
    recipe.write_text(f":0:\n* ^Subject: for procmail\n{sorted_out}\n")
    os.chown(recipe, recipe.parent.stat().st_uid, recipe.parent.stat().st_gid)
    sorted_out.unlink(missing_ok=True)
    subject = f"for procmail at {domain}"
    assert send(STRANGER, subject, f"dranch@{domain}").accepted
    wait_until(lambda: sorted_out.exists() and subject in sorted_out.read_text(), 20, "procmail has sorted the mail out")
    assert not any(each["Subject"] == subject for each in host.inbox("dranch"))


def test_mail_written_on_the_host_arrives(host: TrinityHost) -> None:
    for recipient, subject, reader in (("dranch", "to a user", "dranch"), ("root", "to root", "greg")):
        host.command("sendmail", "-i", "-t", given=f"To: {recipient}\nSubject: {subject}\n\nHello.\n", user="greg")
        arrived = host.wait_for_mail(reader, subject)
        assert arrived["From"] == "greg@acme123.com"
        assert arrived["To"] in (f"{recipient}@mx.acme123.com", f"{recipient}@acme123.com")


@pytest.mark.parametrize("name", ["root", "postmaster", "abuse", "webmaster", "MAILER-DAEMON"])
def test_aliases_resolve(host: TrinityHost, name: str) -> None:
    assert send(STRANGER, f"for {name}", f"{name}@acme123.com").accepted
    assert host.wait_for_mail("greg", f"for {name}")["To"] == f"{name}@acme123.com"


def test_no_program_runs_for_mail(host: TrinityHost) -> None:
    refused = send(STRANGER, "a program", '"|/bin/touch /run/mailhost/ran"@acme123.com')
    assert not refused.accepted or not Path("/run/mailhost/ran").exists()
    assert "smrsh" not in (ETC / "sendmail.cf").read_text()


def test_forged_senders_are_marked(host: TrinityHost) -> None:
    given = "To: dranch\nSubject: forged\n\nHello.\n"
    host.command("sendmail", "-i", "-t", "-fboss@acme123.com", given=given, user="greg")
    assert "greg" in str(host.wait_for_mail("dranch", "forged")["X-Authentication-Warning"])
    # That was submit.cf, through which a user's mail comes today; who speaks to this one by hand is watched as well.
    (privacy,) = re.findall(r"^O PrivacyOptions=(.*)$", (ETC / "sendmail.cf").read_text(), re.MULTILINE)
    assert {"authwarnings", "restrictqrun", "restrictexpand"} <= set(privacy.split(","))


# --- who may relay


def test_a_stranger_may_not_relay(host: TrinityHost) -> None:
    refused = send(STRANGER, "relayed", "x@elsewhere.example")
    assert refused.last.code == 550
    assert "Relaying denied" in refused.last.text


@pytest.mark.parametrize("claimed", ["dranch@backupacme.com", "greg@acme123.com", "x@branch.acme123.com"])
def test_a_claimed_sender_opens_nothing(host: TrinityHost, claimed: str) -> None:
    refused = send(STRANGER, "relayed", "x@elsewhere.example", sender=claimed)
    assert "Relaying denied" in refused.last.text


def test_access_lets_the_office_relay(host: TrinityHost, elsewhere: Sink) -> None:
    assert send(OFFICE, "from the office", "office@elsewhere.example", "boss@acme123.com").accepted
    assert elsewhere.wait_for("office@elsewhere.example").sender == "boss@acme123.com"
    assert decisions(host, client=OFFICE, exempt="network")


def test_access_keeps_the_unwelcome_out(host: TrinityHost) -> None:
    refused = send(UNWELCOME, "unwelcome")
    assert (refused.last.code, refused.last.text) == (550, "5.7.1 Access denied")
    assert not decisions(host, client=UNWELCOME, recipient="greg@acme123.com")


def test_uucp_addresses_are_refused(host: TrinityHost) -> None:
    # From inside, where every path that Sendmail sees would be allowed.
    for path in ("elsewhere!someone", "elsewhere!someone@acme123.com"):
        refused = send(INSIDE, "uucp", path, "greg@acme123.com")
        assert (refused.last.code, refused.last.text.split()[-2:]) == (550, ["User", "unknown"])


def test_the_samples_let_no_provider_relay() -> None:
    entries = [line for line in (FILES / "relay-domains").read_text().splitlines() if not line.startswith("#")]
    assert entries == ["192.168.0"]


# --- a backup, and those behind one


def test_backup_mail_waits_for_the_primary(host: TrinityHost) -> None:
    source = "198.51.100.11"  # on one list
    assert send(source, "kept for you", "user@backupacme.com").accepted
    wait_until(lambda: "user@backupacme.com" in host.queued(), 20, "the mail waits")
    # It is the sender's address that is judged, and not that of anyone who hands it on.
    (decision,) = decisions(host, client=source, recipient="user@backupacme.com")
    assert "action=tag" in decision.split()
    assert "Connection refused" in host.queued() or "Deferred" in host.queued()
    sink = Sink(PRIMARY)
    try:
        host.run_queue()
        received = sink.wait_for("user@backupacme.com")
    finally:
        sink.stop()
    assert received.sender == SOMEONE
    assert received.message["X-DNSBL-Action"] == "tag"
    assert f"[{source}]" in str(received.message["Received"])
    wait_until(lambda: "user@backupacme.com" not in host.queued(), 20, "the queue is empty")


def test_mailertable_leads_to_a_primary_that_is_not_public(host: TrinityHost) -> None:
    sink = Sink(BRANCH)
    try:
        assert send(STRANGER, "for the branch", "user@branch.acme123.com").accepted
        assert sink.wait_for("user@branch.acme123.com").sender == SOMEONE
    finally:
        sink.stop()


@pytest.mark.parametrize("source", [BACKUP, FORWARDER])
def test_who_hands_mail_on_is_not_judged_for_it(host: TrinityHost, source: str) -> None:
    # Both are on three lists, for what others sent through them.
    assert send(source, f"handed on by {source}").accepted
    arrived = host.wait_for_mail("greg", f"handed on by {source}")
    assert arrived["X-DNSBL-Score"] is None
    assert decisions(host, client=source, exempt="network")
    unaware = FOLDER / "unaware.toml"
    sample = (FILES / "dnsbl-milter.toml").read_text()
    unaware.write_text(sample.replace(f'"{source}",', ""))
    judged = command("explain", "--config", unaware, source).stdout
    assert "quarantine" in judged
    assert command("explain", "--config", FILES / "dnsbl-milter.toml", source).stdout.count("network") == 1


def test_a_queue_run_delivers_what_was_deferred(host: TrinityHost) -> None:
    assert send(INSIDE, "waiting", "waiting@backupacme.com", "greg@acme123.com").accepted
    wait_until(lambda: "waiting@backupacme.com" in host.queued(), 20, "the mail waits")
    host.run_queue()  # in vain
    assert "waiting@backupacme.com" in host.queued()
    sink = Sink(PRIMARY)
    try:
        host.run_queue()
        assert sink.wait_for("waiting@backupacme.com").sender == "greg@acme123.com"
    finally:
        sink.stop()


# --- what it tells strangers


def test_nothing_tells_the_version(host: TrinityHost, elsewhere: Sink) -> None:
    with Client(STRANGER) as client:
        assert str(client.greeting) == "220 mx.acme123.com ESMTP"
        for line in ("HELP", "EHLO client.example", "HELP", "HELP EHLO", "HELP -bt", "VERB", "NONSENSE", "RSET", "VRFY root"):
            client.command(line)
    told = "\n".join(line for _, line in client.transcript)
    assert not VERSION.search(told), told
    assert "sendmail" not in told.lower(), told
    assert send(INSIDE, "no version", "plain@elsewhere.example", "greg@acme123.com").accepted
    received = elsewhere.wait_for("plain@elsewhere.example").content.decode()
    assert not VERSION.search(received), received
    assert "by mx.acme123.com with ESMTP id" in received


def test_the_version_is_told_to_those_on_the_host(host: TrinityHost) -> None:
    # With a recipient it has nothing to read; the chapter's own form waits for one.
    assert re.search(r"^Version 8\.(1[7-9]|[2-9]\d)", run("sendmail", "-d0.1", "-bv", "root"), re.MULTILINE)


# command, the reply's code
PRYING = (
    ("EXPN root", 502),
    ("EXPN postmaster", 502),
    ("VRFY root", 252),  # RFC 5321, section 3.5.3: neither confirmed nor denied
    ("VRFY nobody-of-this-name", 252),
    ("ETRN acme123.com", 502),
)


@pytest.mark.parametrize(("line", "code"), PRYING)
def test_prying_commands_are_refused(host: TrinityHost, line: str, code: int) -> None:
    with Client(STRANGER) as client:
        client.helo()
        reply = client.command(line)
    assert reply.code == code
    assert "greg" not in reply.text


def test_a_client_without_helo_is_sent_back(host: TrinityHost) -> None:
    with Client(STRANGER) as client:
        assert client.mail(SOMEONE).code == 503
        client.helo()
        assert client.mail(SOMEONE).code == 250


def test_the_dialogue_by_hand(host: TrinityHost) -> None:
    typed = (
        "helo dranch",
        "MAIL FROM: <dranch@backupacme.com>",
        "RCPT TO: <dranch@acme123.com>",
        "data",
        "SUBJECT: email test\r\n\r\nThis is typed by hand.\r\n\r\n.",
        "quit",
    )
    answered = (
        r"220 mx\.acme123\.com ESMTP",
        r"250 mx\.acme123\.com Hello mail\.plain\.example \[198\.51\.100\.7\], pleased to meet you",
        r"250 2\.1\.0 <dranch@backupacme\.com>\.\.\. Sender ok",
        r"250 2\.1\.5 <dranch@acme123\.com>\.\.\. Recipient ok",
        r"354 .+",
        r"250 2\.0\.0 \w{14} Message accepted for delivery",
        r"221 2\.0\.0 mx\.acme123\.com closing connection",
    )
    client = Client(STRANGER, MAIL_HOST4)
    replies = [client.greeting, *map(client.command, typed)]
    client.close()
    for reply, wanted in zip(replies, answered, strict=True):
        assert re.fullmatch(wanted, str(reply)), reply
    assert host.wait_for_mail("dranch", "email test").get_content().strip() == "This is typed by hand."


# --- the lists


def test_the_lists_catch_the_test_entry(host: TrinityHost) -> None:
    passed, caught = host.daemon.explain("127.0.0.1"), host.daemon.explain("127.0.0.2")
    assert (passed["action"], passed["exempt"]) == ("accept", "local")
    assert (caught["action"], caught["exempt"]) == ("quarantine", None)
    answers = {each["name"]: each["state"] for each in caught["lists"]}
    assert answers == {"zen": "listed", "spamcop": "listed", "psbl": "listed", "dnswl": "listed"}
    for source in ("127.0.0.1", "127.0.0.2"):
        assert send_message(source, SOMEONE, "greg@acme123.com", text(f"from {source}"), host="127.0.0.1").accepted
    assert host.wait_for_mail("greg", "from 127.0.0.1")["X-DNSBL-Score"] is None
    assert "dnsbl-milter score=9.5 lists=zen,spamcop,psbl" in host.queued("-qQ")
    assert not any(each["Subject"] == "from 127.0.0.2" for each in host.inbox("greg"))


def test_a_friend_on_one_list_is_heard(host: TrinityHost) -> None:
    for source, score in (("198.51.100.11", "3.5"), ("198.51.100.12", "3.5")):
        subject = f"one list, {source}"
        assert send(source, subject).accepted
        arrived = host.wait_for_mail("greg", subject)
        assert arrived["X-DNSBL-Action"] == "tag"
        assert str(arrived["X-DNSBL-Score"]).startswith(f"{score} (")


def test_two_lists_delay_and_say_why(host: TrinityHost) -> None:
    delayed = send("198.51.100.21", "two lists")
    assert delayed.last.code == 451
    assert "listed by zen, spamcop; see https://check.spamhaus.org/query/ip/198.51.100.21" in delayed.last.text


def test_postmaster_hears_everybody(host: TrinityHost) -> None:
    assert send("198.51.100.26", "let me in", "postmaster@acme123.com").accepted
    assert host.wait_for_mail("greg", "let me in")["X-DNSBL-Score"] is None


def test_a_restart_of_the_milter_loses_nothing(host: TrinityHost) -> None:
    outcomes: dict[str, Outcome] = {}
    stopping = threading.Event()

    def keep_sending() -> None:
        while not stopping.is_set():
            recipient = f"restart{len(outcomes)}@backupacme.com"
            outcomes[recipient] = send(STRANGER, "while it restarts", recipient)

    def wait_for_more(what: str) -> None:
        enough = len(outcomes) + 5
        wait_until(lambda: len(outcomes) > enough, 20, what)

    primary, sender = Sink(PRIMARY), threading.Thread(target=keep_sending)
    sender.start()
    try:
        for _ in range(2):
            wait_for_more("mail flows with the milter")
            host.stop_milter()
            wait_for_more("mail flows without it")
            host.start_milter()
        stopping.set()
        sender.join()
        assert [recipient for recipient, outcome in outcomes.items() if not outcome.accepted] == []
        wait_until(lambda: {each.recipients[0] for each in primary.received} >= set(outcomes), 30, "all has arrived")
        assert len(primary.received) == len(outcomes)
    finally:
        stopping.set()
        sender.join()
        primary.stop()
    assert send("198.51.100.11", "judged again").accepted
    assert host.wait_for_mail("greg", "judged again")["X-DNSBL-Action"] == "tag"


# --- the files


def test_the_macros_give_no_warning() -> None:
    done = subprocess.run(
        ["m4", "/usr/share/sendmail/cf/m4/cf.m4", FILES / "trinityos.mc"], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert "Xdnsbl-milter, S=local:/run/dnsbl-milter/milter.sock, T=C:10s;S:10s;R:10s;E:30s" in done.stdout
    macros = re.search(r"^O Milter\.macros\.envfrom=(.*)$", done.stdout, re.MULTILINE)
    assert macros
    assert {"i", "{auth_authen}"} <= set(macros[1].split(", "))


def test_the_new_file_is_the_one_sendmail_runs_on(host: TrinityHost) -> None:
    live = ETC / "sendmail.cf"
    assert f"{live} is new, from {ETC / 'trinityos.mc'}" in host.generated
    assert "restart Sendmail" in host.generated
    assert "+DMacme123.com" in host.generated
    for name in ("makemap hash /etc/mail/access", "makemap hash /etc/mail/mailertable", "newaliases"):
        assert name in host.generated
    kept = re.search(r"The old one is (\S+);", host.generated)
    assert kept
    assert "Debian" in Path(kept[1]).read_text()
    assert "trinityos.mc for Sendmail" in live.read_text()
    assert host.sendmail.alive


def test_the_old_lists_are_named_with_their_end(tmp_path: Path) -> None:
    lists = ("bl.spamcop.net", "unconfirmed.dsbl.org", "relays.ordb.org", "relays.osirusoft.com", "rbl.maps.vix.com")
    old = tmp_path / "old.mc"
    old.write_text("".join(f"FEATURE(dnsbl, `{zone}', `Refused - see http://{zone}/')dnl\n" for zone in lists))
    done = command("import", "sendmail", old, "--output", tmp_path / "new.toml")
    assert done.returncode == 0, done.stderr
    report = done.stdout.splitlines()
    for number, (zone, end) in enumerate(zip(lists[1:], ("2012-08-20", "2008-03-25", "2003-08", "2000"), strict=True), 2):
        (line,) = [each for each in report if each.startswith(f"{old}:{number}: ")]
        assert f"left: FEATURE(dnsbl) {zone}: dead" in line
        assert end in line
    assert "lists: 1" in command("config", "check", "--config", tmp_path / "new.toml").stdout
    assert 'zone = "bl.spamcop.net"' in (tmp_path / "new.toml").read_text()


def test_the_walk_names_every_file() -> None:
    assert [path.name for path in FILES.iterdir() if path.name not in README] == ["README.md"]
