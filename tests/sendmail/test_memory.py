"""A deferral that forgives, on a real Sendmail with real senders: who comes back in time gets in, and nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mailhost.daemon import Daemon, command
from mailhost.policies import sample_policy
from mailhost.process import Process, program, wait_until
from mailhost.sender import Sender
from mailhost.sendmail import MailHost
from mailhost.site import MESSAGE, Site
from mailhost.smtp import send_message

# By SAMPLE_CLIENTS and the sample policy: a dial-up address on zen (PBL, 3) and spamcop (4) has 7 points, and one on
# spamcop (4) and psbl (3.5) has 7.5; both are deferred, and both are in one network.
DEFERRED, NEIGHBOUR = "198.51.100.20", "198.51.100.23"
CLEAN = "198.51.100.7"
SENDER, ALICE = "someone@sender.example", "alice@acme123.com"
FOLDER = Path("/run/mailhost")
DELAY = 2

Start = Callable[..., Site]


@pytest.fixture
def start(keeper) -> Iterator[Start]:
    """Open a site with a memory of its own, empty at first."""
    folder = FOLDER / "memory"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()

    def open_site(url: str = f"sqlite://{folder}/memory.db", **terms: object) -> Site:
        policy = sample_policy(
            memory={"url": url, "delay": DELAY, **terms}, metrics={"listen": "127.0.0.1:10782"}, milter={"workers": 2}
        )
        return keeper.open_site(policy, fresh=True)

    yield open_site
    keeper.close_daemon()


@pytest.fixture
def redis() -> Iterator[Callable[[], Process]]:
    """Start a real server of a fleet's memory, as often as a test wants to."""
    folder = FOLDER / "redis"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    started: list[Process] = []

    def run() -> Process:
        address = ("127.0.0.1", 6399)
        started.append(
            Process(
                [program("redis-server", "redis-server"), "--bind", address[0], "--port", str(address[1]), "--dir", folder,
                 "--save", "", "--appendonly", "yes"],
                folder / "redis.log",
                lambda: (folder / "redis.log").read_text().count("Ready to accept connections") > len(started),
            )
        )  # fmt: skip
        return started[-1]

    yield run
    for server in started:
        server.stop()


def told(source: str = DEFERRED, sender: str = SENDER, recipient: str = ALICE) -> int:
    """Return the code that a recipient was answered."""
    return send_message(source, sender, recipient, MESSAGE).recipients[recipient].code


def remembered(site: Site) -> list[object]:
    return [decision["memory"] for decision in site.decisions()]


def tags(site: Site) -> list[str | None]:
    return [message["X-DNSBL-Action"] for message in site.host.messages("alice")]


def let_in(source: str = DEFERRED, sender: str = SENDER) -> None:
    """Try until the delay is over."""
    wait_until(lambda: told(source, sender) == 250, 10 * DELAY, "a retry is in time")


def test_a_sendmail_that_tries_again_gets_in(start: Start) -> None:
    site = start()
    sender = Sender(FOLDER / "sender", DEFERRED)
    sender.submit(SENDER, ALICE, MESSAGE)
    sender.run_queue()
    assert remembered(site) == ["deferred"]
    assert any("451 4.7.1" in reason and "listed by spamcop, zen" in reason for reason in sender.reasons)
    sender.run_queue()
    assert remembered(site) == ["deferred", "early"]
    assert sender.waiting == 1
    wait_until(lambda: sender.run_queue() or sender.waiting == 0, 10 * DELAY, "the queue is empty")
    assert tags(site) == ["tag"]
    assert remembered(site)[-1] == "passed"
    assert (site.decisions()[-1]["action"], site.decisions()[-1]["enforced"]) == ("defer", "tag")
    sender.submit(SENDER, ALICE, MESSAGE)
    sender.run_queue()
    assert sender.waiting == 0
    assert tags(site) == ["tag", "tag"]
    assert remembered(site)[-1] == "known"


def test_a_bot_that_never_comes_back_never_gets_in(start: Start) -> None:
    site = start(delay=0)
    codes = [told(sender=f"bot{'abcdefgh'[number]}@sender{number}.example") for number in range(8)]
    assert codes == [451] * 8
    assert remembered(site) == ["deferred"] * 8
    assert site.host.messages("alice") == []


def test_a_provider_may_come_back_from_a_neighbouring_address(start: Start) -> None:
    site = start()
    assert told(DEFERRED) == 451
    let_in(NEIGHBOUR)
    assert remembered(site)[-1] == "passed"


def test_a_retry_that_is_late_begins_anew(start: Start) -> None:
    site = start(delay=0, window=1)
    begin = time.time()
    assert told() == 451
    wait_until(lambda: time.time() > begin + 2, 5, "the window has closed")
    assert told() == 451
    assert told() == 250
    assert remembered(site) == ["deferred", "deferred", "passed"]


def test_the_clean_never_touch_memory(start: Start) -> None:
    site = start()
    assert told(CLEAN) == 250
    assert remembered(site) == [""]
    shown = command("memory", "stats", "--json", "--config", site.daemon.configuration)
    assert json.loads(shown.stdout)["waiting"] == 0


def test_harder_evidence_at_the_retry_is_acted_upon(start: Start, lists) -> None:
    site = start()
    before = lists.zones["psbl.example"].lines
    assert told() == 451
    site.daemon.kill()
    site = start()  # a new cache, and the old memory
    lists.replace("psbl.example", (*before, f"{DEFERRED}"))
    try:
        assert told() == 250  # 10.5 points: into quarantine, whatever memory would say
        assert [entry.sender for entry in site.host.quarantined()] == [SENDER]
        assert remembered(site) == [""]
    finally:
        lists.replace("psbl.example", before)


def test_a_restart_keeps_the_memory(start: Start) -> None:
    assert told_at(start(), 451) == ["deferred"]
    site = start()
    let_in()
    assert set(remembered(site)[:-1]) <= {"early"}
    assert remembered(site)[-1] == "passed"
    site = start()
    assert told_at(site, 250) == ["known"]


def told_at(site: Site, code: int) -> list[object]:
    assert told() == code
    return remembered(site)


def test_forgetting_a_client_begins_anew(start: Start) -> None:
    site = start()
    told()
    let_in()
    shown = command("memory", "show", DEFERRED, "--json", "--config", site.daemon.configuration)
    assert shown.returncode == 0
    assert SENDER in shown.stdout
    assert command("memory", "forget", DEFERRED, "--config", site.daemon.configuration).returncode == 0
    assert told() == 451
    assert remembered(site)[-1] == "deferred"


def test_two_workers_share_one_file_under_load(start: Start) -> None:
    """200 triplets, 20 at a time: every one is remembered once, and none is lost."""
    site = start(delay=0)
    senders = [f"s@host{number}x.sender.example" for number in range(200)]
    with ThreadPoolExecutor(20) as clients:
        assert list(clients.map(lambda sender: told(sender=sender), senders)) == [451] * 200
        shown = json.loads(command("memory", "stats", "--json", "--config", site.daemon.configuration).stdout)
        assert (shown["waiting"], shown["passed"]) == (200, 0)
        assert list(clients.map(lambda sender: told(sender=sender), senders)) == [250] * 200
    shown = json.loads(command("memory", "stats", "--json", "--config", site.daemon.configuration).stdout)
    assert (shown["waiting"], shown["passed"]) == (0, 200)
    assert remembered(site) == ["deferred"] * 200 + ["passed"] * 200
    assert len(site.host.messages("alice")) == 200


def test_a_worker_that_is_killed_loses_nothing_that_was_answered(start: Start) -> None:
    site = start(delay=0)
    senders = [f"s@host{number}x.sender.example" for number in range(60)]
    site.excused.add("worker died")
    with ThreadPoolExecutor(6) as clients:
        answers = clients.map(lambda sender: (sender, told(sender=sender)), senders)
        os.kill(site.daemon.workers()[0], signal.SIGKILL)
        first = dict(answers)
    # A session in the killed worker passed unjudged; nobody was refused for good.
    assert set(first.values()) <= {250, 451}
    site.daemon.wait_for_log("worker died")
    deferred = [sender for sender, code in first.items() if code == 451]
    assert deferred
    assert [told(sender=sender) for sender in deferred] == [250] * len(deferred)


def test_a_full_disk_costs_nobody_mail_and_heals(start: Start) -> None:
    folder = FOLDER / "memory" / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "small", folder], check=True)
    try:
        site = start(f"sqlite://{folder}/memory.db")
        assert told() == 451
        with pytest.raises(OSError, match="No space left"):
            fill(folder / "ballast")
        codes = [told(sender=f"s@host{number}x.sender.example") for number in range(40)]
        assert set(codes) <= {250, 451}
        assert 250 in codes
        assert "unavailable" in remembered(site)
        assert set(tags(site)) == {"tag"}
        site.daemon.wait_for_log("memory unavailable")
        (folder / "ballast").unlink()
        wait_until(lambda: told(sender="new@sender.example") == 451, 10, "memory is back")
        assert site.daemon.process.alive
    finally:
        start()  # nobody has the file open any more
        subprocess.run(["umount", folder], check=True)


def fill(file: Path) -> None:
    with file.open("wb", buffering=0) as opened:
        while True:
            opened.write(bytes(4096))


def test_two_hosts_share_one_memory(start: Start, redis: Callable[[], Process]) -> None:
    """Deferred by the one, passed by the other; each is a Sendmail with a milter of its own."""
    redis()
    url = "redis://127.0.0.1:6399/0"
    site = start(url)
    other_socket = "local:/run/dnsbl-milter/other.sock"
    other = Daemon(
        FOLDER / "other-daemon",
        sample_policy(memory={"url": url, "delay": DELAY}, milter={"socket": other_socket, "workers": 1}),
    )
    host = MailHost(FOLDER / "other-sendmail", other_socket, port=2526)
    try:
        assert told() == 451
        codes: list[int] = []

        def retry() -> bool:
            codes.append(send_message(DEFERRED, SENDER, ALICE, MESSAGE, port=2526).recipients[ALICE].code)
            return codes[-1] == 250

        wait_until(retry, 10 * DELAY, "the other host lets it in")
        assert [message["X-DNSBL-Action"] for message in host.messages("alice")] == ["tag"]
        assert "memory=passed" in other.decisions()[-1]
        assert told() == 250
        assert remembered(site)[-1] == "known"
    finally:
        host.stop()
        other.stop()


def test_a_server_that_is_gone_costs_nobody_mail_and_is_back_by_itself(
    start: Start, redis: Callable[[], Process]
) -> None:
    server = redis()
    site = start("redis://127.0.0.1:6399/0", delay=0)
    assert told(sender="before@sender.example") == 451
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: not server.alive, 5, "redis-server is dead")
    codes = [told(sender=f"s@host{number}x.sender.example") for number in range(10)]
    assert codes == [250] * 10
    assert tags(site) == ["tag"] * 10
    assert remembered(site) == ["deferred"] + ["unavailable"] * 10
    redis()
    wait_until(lambda: told(sender="after@sender.example") == 451, 10, "memory is back")
    # What the first server had written is known to the second.
    assert told(sender="before@sender.example") == 250


HOSTILE = [
    ("quotes and semicolons", "o'brien\";drop--@sender.example"),
    ("8-bit", "j\xfcrg\xff@sender.example"),
    ("long", "x" * 900 + "@sender.example"),
    ("a null sender", ""),
]


@pytest.mark.parametrize("sender", [row[1] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
def test_hostile_senders_are_remembered_like_any(start: Start, sender: str) -> None:
    site = start(delay=0)
    outcome = send_message(DEFERRED, sender, ALICE, MESSAGE)
    if ALICE not in outcome.recipients:
        assert outcome.mail is not None  # Sendmail itself refuses it
        assert outcome.mail.code // 100 == 5
        return
    assert outcome.recipients[ALICE].code == 451
    assert send_message(DEFERRED, sender, ALICE, MESSAGE).recipients[ALICE].code == 250
    assert remembered(site) == ["deferred", "passed"]
