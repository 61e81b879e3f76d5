"""How it is measured: the load generators, what their runs tell, and medians of interleaved rounds."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from peers import Filter, built

PARALLEL = 8
FIRST_CLIENT = 10 << 24
"""10.0.0.0/8 is where all clients come from, one after the other."""
WARM_CLIENTS = 1000



@dataclass
class Rounds:
    """What the rounds of one thing measured, by the names of the figures."""

    name: str
    rounds: list[dict[str, float]] = field(default_factory=list)

    def median(self, figure: str) -> float:
        """Return the median of a figure over all rounds."""
        return statistics.median(each[figure] for each in self.rounds)

    def as_json(self) -> dict[str, object]:
        """Return the medians and every round."""
        return {"name": self.name, **{each: self.median(each) for each in self.rounds[0]}, "rounds": self.rounds}


def interleaved(count: int, runs: Mapping[str, Callable[[], dict[str, float]]]) -> list[Rounds]:
    """Run everything once in each round, so that whatever else the machine does falls on all alike."""
    results = {name: Rounds(name) for name in runs}
    for number in range(count):
        for name, run in runs.items():
            results[name].rounds.append(run())
            figure, value = next(iter(results[name].rounds[-1].items()))
            print(f"  round {number + 1}, {name}: {value:,.0f} {figure}", file=sys.stderr, flush=True)
    return list(results.values())


class Clients:
    """Hands out the addresses of clients."""

    def __init__(self) -> None:
        """Begin behind those that are kept warm."""
        self._next = FIRST_CLIENT + 65536

    def new(self, count: int) -> str:
        """Return the first of so many addresses that nobody has seen."""
        first, self._next = self._next, self._next + count
        return str(IPv4Address(first))

    def warm(self) -> str:
        """Return the first of those that come again and again."""
        return str(IPv4Address(FIRST_CLIENT))


class Load:
    """Drives filters as Sendmail does, and mail hosts as SMTP clients do."""

    def __init__(self, folder: Path, clients: Clients) -> None:
        """Take where programs are built, and who plays the clients."""
        self._folder = folder
        self._clients = clients

    def filter(
        self, peer: Filter, sessions: int, *, warm: int = 0, parallel: int = PARALLEL, pause_ms: float = 0
    ) -> dict[str, float]:
        """Send so many whole messages through a filter, from that many clients that come again or each from its own.

        Raises RuntimeError if one was refused: who ends a session early is quick, and not to be compared.
        """
        first = self._clients.warm() if warm else self._clients.new(sessions)
        begin, generator = peer.cpu_seconds(), resource.getrusage(resource.RUSAGE_CHILDREN)
        done = self._run("load", peer.socket, sessions, parallel, first, warm or sessions, pause_ms)
        if done["continued"] < 2 * sessions:
            raise RuntimeError(f"{peer.name} has let {done['continued'] // 2} of {sessions} messages pass, {done['refused']} refused")
        return {
            "messages_per_second": sessions / done["seconds"],
            "cpu_us_per_message": (peer.cpu_seconds() - begin) / sessions * 1e6,
            "generator_us_per_message": _used_since(generator) / sessions * 1e6,
            **{f"rcpt_us_{name}": value for name, value in done["rcpt_us"].items()},
            **{f"session_us_{name}": value for name, value in done["session_us"].items()},
        }

    def two(self, peer: Filter, sessions: int) -> dict[str, float]:
        """Drive a filter by two generators at once: more than by one would show that one is the bottleneck."""
        command = [built("load", self._folder), peer.socket, sessions // 2, PARALLEL // 2]
        both = [
            subprocess.Popen([*map(str, command), self._clients.new(sessions), str(sessions), "0"], stdout=subprocess.PIPE)
            for _ in range(2)
        ]
        done = [json.loads(each.communicate()[0]) for each in both]
        return {"messages_per_second": sessions / max(each["seconds"] for each in done)}

    def host(self, port: int, sessions: int, *, parallel: int = PARALLEL, pause_ms: float = 0) -> dict[str, float]:
        """Send so many messages to a mail host, each from a client of its own; raise RuntimeError if one was refused."""
        first = self._clients.new(sessions)
        done = self._run("smtp", "127.0.0.1", port, sessions, parallel, first, sessions, pause_ms)
        if done["taken"] != sessions:
            raise RuntimeError(f"port {port} took {done['taken']} of {sessions} messages")
        return {
            "sessions_per_second": sessions / done["seconds"],
            **{
                f"{what}_us_{name}": value
                for what in ("greeting", "rcpt", "waited")
                for name, value in done[f"{what}_us"].items()
            },
        }

    def _run(self, program: str, *arguments: object) -> dict[str, object]:
        done = subprocess.run(
            [built(program, self._folder), *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True
        )
        document: dict[str, object] = json.loads(done.stdout)
        return document


def _used_since(before: resource.struct_rusage) -> float:
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    return now.ru_utime + now.ru_stime - before.ru_utime - before.ru_stime
