"""What is measured, part by part. Each returns its results; what they are good for is said in `report`."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import TypeVar

from hosts import enhdnsbl, postscreen, sendmail_with
from measure import FIRST_CLIENT, PARALLEL, WARM_CLIENTS, Load, Rounds, interleaved
from peers import Filter, Lists, NothingInC, NothingInPython, Ours, Rspamd, built

from mailhost.lists import TEST_ENTRY, ListServer, Zone
from mailhost.process import Process, StartError
from mailhost.query import ask
from mailhost.resolver import Resolver

ZONE = "bench.example"
SLOW_MS, PAUSE_MS = 40, 30
LISTS, MOST_LISTS = 8, 64
TTL = 3600
"""Longer than a part takes: what is warm stays warm."""
RBLDNSD, SLOW = "127.0.0.2", "127.0.0.3"


Peer = TypeVar("Peer")


def zones(count: int) -> tuple[str, ...]:
    """Return the names of so many lists."""
    return tuple(f"bl{number}.{ZONE}" for number in range(count))


@dataclass(frozen=True)
class Bench:
    """Where everything is, how large it is, and what could not be started."""

    folder: Path
    load: Load
    rounds: int
    sessions: int
    missing: dict[str, str]

    @contextmanager
    def lists(self, address: str = RBLDNSD) -> Iterator[ListServer]:
        """Serve 64 lists; each of the first eight lists one client in sixteen."""
        server = ListServer(
            self.folder / "lists", [Zone(name, "ip4set", _entries(place), TTL, TTL) for place, name in enumerate(zones(MOST_LISTS))], address
        )
        try:
            yield server
        finally:
            server.stop()

    @contextmanager
    def slow_lists(self, address: str, milliseconds: int = SLOW_MS) -> Iterator[None]:
        """Serve any number of lists that take so long each and list nobody, and one that is dead."""
        process = Process(
            [built("slow", self.folder), address, str(milliseconds), ZONE, f"dead.{ZONE}"],
            self.folder / "slow.log",
            lambda: answers(address),
        )
        try:
            yield
        finally:
            process.stop()

    def optional(self, stack: ExitStack, name: str, peer: Callable[[], AbstractContextManager[Peer]]) -> list[Peer]:
        """Start a peer that not every machine can have; where it cannot be started, note why and return none."""
        try:
            return [stack.enter_context(peer())]
        except (StartError, LookupError, OSError, subprocess.CalledProcessError) as fault:
            self.missing[name] = str(fault)
            return []

    def fill(self, peer: Filter, clients: int = WARM_CLIENTS) -> None:
        """Let every worker of a filter meet all of the clients that come again."""
        self.load.filter(peer, 4 * clients, warm=clients)


def _entries(place: int) -> tuple[str, ...]:
    listed = (f"{IPv4Address(FIRST_CLIENT + (net << 8) + 16 * place)}/28" for net in range(4096 + 256))
    return (TEST_ENTRY, *(f"{each} :127.0.0.2:Listed" for each in listed)) if place < LISTS else (TEST_ENTRY,)


def answers(address: str) -> bool:
    """Tell whether a name server answers."""
    try:
        ask("ready.example", "A", (address, 53), 0.2)
    except OSError:
        return False
    return True


def throughput(bench: Bench) -> list[Rounds]:
    """Messages per second and CPU of each filter, cold and warm."""
    eight = Lists(zones(LISTS), RBLDNSD)
    with bench.lists(), ExitStack() as stack:
        floor: list[Filter] = [stack.enter_context(NothingInC(bench.folder, few=few)) for few in (False, True)]
        floor.append(stack.enter_context(NothingInPython(bench.folder)))
        judges: list[Filter] = [*bench.optional(stack, Rspamd.name, partial(Rspamd, bench.folder, eight))]
        judges += [stack.enter_context(Ours(bench.folder, eight, workers=workers)) for workers in (1, 2, 4)]
        for each in judges:
            bench.fill(each)
        runs: dict[str, Callable[[], dict[str, float]]] = {
            each.name: partial(bench.load.filter, each, bench.sessions) for each in floor
        }
        for each in judges:
            runs[f"{each.name}, cold"] = partial(bench.load.filter, each, bench.sessions)
            runs[f"{each.name}, warm"] = partial(bench.load.filter, each, bench.sessions, warm=WARM_CLIENTS)
        runs["two load generators on do-nothing C"] = partial(bench.load.two, floor[0], bench.sessions)
        return interleaved(bench.rounds, runs)


def operation(bench: Bench) -> list[Rounds]:
    """What metrics, logs and a scrape ten times a second cost."""
    eight = Lists(zones(LISTS), RBLDNSD)
    with bench.lists(), ExitStack() as stack:
        loud = stack.enter_context(Ours(bench.folder, eight, workers=2, name="with metrics and log"))
        quiet = stack.enter_context(Ours(bench.folder, eight, workers=2, name="without", quiet=True))
        for each in (loud, quiet):
            bench.fill(each)

        def scraped() -> dict[str, float]:
            with _scraping(loud.metrics_url):
                return bench.load.filter(loud, bench.sessions, warm=WARM_CLIENTS)

        return interleaved(
            bench.rounds,
            {
                "with, cold": partial(bench.load.filter, loud, bench.sessions),
                "without, cold": partial(bench.load.filter, quiet, bench.sessions),
                "with, warm": partial(bench.load.filter, loud, bench.sessions, warm=WARM_CLIENTS),
                "without, warm": partial(bench.load.filter, quiet, bench.sessions, warm=WARM_CLIENTS),
                "scraped ten times a second, warm": scraped,
            },
        )


@contextmanager
def _scraping(url: str) -> Iterator[None]:
    done = threading.Event()

    def scrape() -> None:
        while not done.wait(0.1):
            with urllib.request.urlopen(url) as answer:
                answer.read()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def waits(bench: Bench) -> list[Rounds]:
    """What a recipient waits beyond the SMTP dialogue, with lists that take 40 ms and clients that take 30 ms."""
    sessions = 25 * PARALLEL
    with bench.slow_lists(SLOW), ExitStack() as stack:
        floor = stack.enter_context(NothingInC(bench.folder))
        ours = [
            stack.enter_context(Ours(bench.folder, Lists(zones(count), SLOW), workers=2, tag=2, name=f"dnsbl-milter, {count} lists"))
            for count in (1, 8, 32)
        ]
        runs = {each.name: partial(bench.load.filter, each, sessions, pause_ms=PAUSE_MS) for each in (floor, *ours)}
        return interleaved(bench.rounds, runs)


def dead_list(bench: Bench) -> list[Rounds]:
    """The same with eight lists of which one is dead: the first clients, and those after its first `error_ttl`."""
    names = (*zones(LISTS - 1), f"dead.{ZONE}")
    with bench.slow_lists(SLOW), ExitStack() as stack:
        ours = stack.enter_context(Ours(bench.folder, Lists(names, SLOW), workers=2, tag=2, name="dnsbl-milter, one of 8 dead"))
        alive = stack.enter_context(Ours(bench.folder, Lists(zones(LISTS), SLOW), workers=2, tag=2, name="dnsbl-milter, all 8 alive"))
        first = Rounds("its first 16 clients", [bench.load.filter(ours, 2 * PARALLEL, pause_ms=PAUSE_MS)])
        time.sleep(30)  # what is measured is what holds after `cache.error_ttl`, and that is so long
        runs = {
            f"{each.name}, later": partial(bench.load.filter, each, 25 * PARALLEL, pause_ms=PAUSE_MS) for each in (ours, alive)
        }
        return [first, *interleaved(bench.rounds, runs)]


def growth(bench: Bench) -> list[Rounds]:
    """Throughput by number of lists and of parallel clients.

    rbldnsd keeps 64 KiB of questions and loses the rest of a burst, and a lost one is asked again 0.7 s later: so many
    at once would measure that. So the name server here is our own, which keeps all.
    """
    with bench.slow_lists(SLOW, 0), ExitStack() as stack:
        runs: dict[str, Callable[[], dict[str, float]]] = {}
        for count in (1, 2, 4, 8, 16, 32, 64):
            peer = stack.enter_context(Ours(bench.folder, Lists(zones(count), SLOW), workers=2, name=f"{count} lists"))
            bench.fill(peer)
            runs[f"{count} lists, cold"] = partial(_with_losses, bench, peer, bench.sessions // 2)
            runs[f"{count} lists, warm"] = partial(_with_losses, bench, peer, bench.sessions // 2, warm=WARM_CLIENTS)
            if count == LISTS:
                for parallel in (1, 8, 64, 256, 512):
                    runs[f"{parallel} parallel, cold"] = partial(
                        _with_losses, bench, peer, bench.sessions // 2, parallel=parallel
                    )
        return interleaved(bench.rounds, runs)


def _with_losses(bench: Bench, peer: Ours, sessions: int, *, warm: int = 0, parallel: int = PARALLEL) -> dict[str, float]:
    """Measure a filter, and how many answers of lists it has not got."""
    before = peer.lost_answers()
    figures = bench.load.filter(peer, sessions, warm=warm, parallel=parallel)
    return figures | {"lost_answers_per_message": (peer.lost_answers() - before) / sessions}


def cached_clients(bench: Bench, counts: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)) -> list[Rounds]:
    """Memory and speed by number of cached clients, in one worker with eight lists."""
    results = []
    with bench.lists(), ExitStack() as stack:
        peer = stack.enter_context(
            Ours(
                bench.folder,
                Lists(zones(LISTS), RBLDNSD),
                workers=1,
                name="one worker",
                extra=f"cache.clients = {counts[-1]}\ncache.max_ttl = 86400\ncache.min_ttl = 86400",
            )
        )
        bench.fill(peer)
        held, before = peer.resident_bytes(), WARM_CLIENTS
        for count in counts:
            grown = {}
            if count > before:
                # Each client meets the filter once; those it knows already are among them.
                bench.load.filter(peer, count, warm=count)
                now = peer.resident_bytes()
                # Since the count before this one: what a worker needs whomever it knows is no client's.
                grown = {"bytes_per_client": (now - held) / (count - before)}
                held, before = now, count
            known = bench.load.filter(peer, min(count, bench.sessions), warm=count)
            results.append(Rounds(f"{count:,} cached clients", [known | grown]))
            print(f"  {results[-1].name}: {known['messages_per_second']:,.0f} messages_per_second", file=sys.stderr, flush=True)
    return results


def mail_hosts(bench: Bench) -> list[Rounds]:
    """Sessions per second of a real Sendmail: alone, with filters, with its own look-ups."""
    eight = Lists(zones(LISTS), RBLDNSD)
    with bench.lists() as server, ExitStack() as stack:
        resolver = Resolver(bench.folder / "unbound", [server], hosts=())
        stack.callback(resolver.process.stop)
        nothing = stack.enter_context(NothingInC(bench.folder))
        ours = stack.enter_context(Ours(bench.folder, eight, workers=2))
        with sendmail_with(
            bench.folder,
            {
                "Sendmail alone": (None, ""),
                "Sendmail, do-nothing C": (nothing.milter, ""),
                "Sendmail, dnsbl-milter": (ours.milter, ""),
                "Sendmail, enhdnsbl of 8 lists": (None, enhdnsbl(zones(LISTS))),
            },
        ) as hosts:
            runs = {name: partial(bench.load.host, port, bench.sessions // 6) for name, port in hosts.items()}
            return interleaved(bench.rounds, runs)


def mail_host_waits(bench: Bench) -> list[Rounds]:
    """What a client of a real Sendmail waits for, in all, with lists that take 40 ms and a client that takes 30 ms."""
    with bench.slow_lists("127.0.0.1"), ExitStack() as stack:
        filters: dict[str, tuple[str | None, str]] = {"Sendmail alone": (None, "")}
        for count in (1, 8, 32):
            peer = stack.enter_context(
                Ours(bench.folder, Lists(zones(count), "127.0.0.1"), workers=2, tag=2, name=f"dnsbl-milter, {count} lists")
            )
            filters[f"Sendmail, {peer.name}"] = (peer.milter, "")
            filters[f"Sendmail, enhdnsbl of {count} lists"] = (None, enhdnsbl(zones(count)))
        filters["Sendmail, enhdnsbl of 8 lists, one dead"] = (None, enhdnsbl((*zones(LISTS - 1), f"dead.{ZONE}")))
        hosts = stack.enter_context(sendmail_with(bench.folder, filters))
        for port in bench.optional(stack, "postscreen", partial(postscreen, bench.folder, zones(LISTS))):
            hosts["postscreen, 8 lists"] = port
        runs = {name: partial(bench.load.host, port, 5 * PARALLEL, pause_ms=PAUSE_MS) for name, port in hosts.items()}
        return interleaved(min(bench.rounds, 3), runs)


PARTS: dict[str, Callable[[Bench], list[Rounds]]] = {
    "throughput": throughput,
    "operation": operation,
    "waits": waits,
    "dead-list": dead_list,
    "growth": growth,
    "cached-clients": cached_clients,
    "mail-hosts": mail_hosts,
    "mail-host-waits": mail_host_waits,
}
