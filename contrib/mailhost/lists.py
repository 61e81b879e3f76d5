"""Lists served by a real rbldnsd."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from mailhost.clients import SAMPLE_CLIENTS
from mailhost.process import Process, program, require_enclosure, wait_until
from mailhost.query import Answer, ask, reversed_name

USER = "rbldns"  # rbldnsd refuses to serve as root
TEST_ENTRY = "127.0.0.2"  # what every IPv4 list must hold (RFC 5782, 5)
TEST_ENTRY6 = "::ffff:7f00:2"


@dataclass(frozen=True)
class Zone:
    """One list: its data as rbldnsd reads it, and how long its answers live."""

    name: str
    kind: str  # a dataset of rbldnsd: ip4set, ip4trie, ip6trie, dnset, generic, ...
    lines: tuple[str, ...] = ()
    ttl: int = 300  # seconds, of what is listed
    negative_ttl: int = 60  # seconds, of what is not (RFC 2308)

    def text(self, serial: int) -> str:
        """Return the zone's file."""
        soa = f"$SOA {self.ttl} ns.{self.name} hostmaster.{self.name} {serial} 600 300 86400 {self.negative_ttl}"
        return "\n".join([soa, f"$TTL {self.ttl}", *self.lines, ""])


class ListServer:
    """A name server for any number of zones."""

    def __init__(self, folder: Path, zones: Iterable[Zone], address: str = "127.0.0.2", port: int = 53) -> None:
        """Write the zones below the folder, start rbldnsd, and return once it answers."""
        require_enclosure()
        self.address = address
        self.port = port
        self.zones = {zone.name: zone for zone in zones}
        self._folder = folder
        self._serials = dict.fromkeys(self.zones, 0)
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)  # for rbldnsd's user
        for name in self.zones:
            self._write(name)
        self.process = Process(
            [
                program("rbldnsd", "rbldnsd"),
                "-n",
                *("-u", USER),
                *("-w", folder),
                *("-b", f"{address}/{port}"),
                *("-c", "0"),  # only SIGHUP makes it look at its files: no surprise in a measurement
                *(f"{zone.name}:{zone.kind}:{zone.name}" for zone in self.zones.values()),
            ],
            folder / "rbldnsd.log",
            lambda: all(map(self._is_current, self.zones)),
        )

    def ask(self, name: str, kind: str = "A", timeout: float = 1.0) -> Answer:
        """Ask this server a question; raise TimeoutError when it is silent."""
        return ask(name, kind, (self.address, self.port), timeout)

    def look_up(self, address: str, zone: str, kind: str = "A", timeout: float = 1.0) -> Answer:
        """Ask what a zone says about a client's address."""
        return self.ask(reversed_name(address, zone), kind, timeout)

    def replace(self, zone: str, lines: Iterable[str]) -> None:
        """Give a zone other data, and return once they are served."""
        self.zones[zone] = replace(self.zones[zone], lines=tuple(lines))
        self._write(zone)
        self.process.hang_up()
        wait_until(lambda: self._is_current(zone), 5.0, f"rbldnsd serves the new {zone}")

    def pause(self) -> None:
        """Turn it into a name server that never answers."""
        self.process.pause()

    def resume(self) -> None:
        """Let it answer again."""
        self.process.resume()

    def stop(self) -> None:
        """End it."""
        self.process.stop()

    def _write(self, zone: str) -> None:
        serial = self._serials[zone] = self._serials[zone] + 1
        path = self._folder / zone
        path.write_text(self.zones[zone].text(serial))
        path.chmod(0o644)
        # rbldnsd reloads a file whose time, in whole seconds, has changed.
        moment = int(time.time()) + serial
        os.utime(path, (moment, moment))

    def _is_current(self, zone: str) -> bool:
        try:
            answer = self.ask(zone, "SOA", 0.2)
        except OSError:
            return False
        return [value.split()[2] for value in answer.values] == [str(self._serials[zone])]


def sample_zones() -> tuple[Zone, ...]:
    """Return the lists that hold the sample clients, each with its own behaviour."""
    zen_texts = {"127.0.0.2": "SBL", "127.0.0.3": "CSS", "127.0.0.4": "XBL", "127.0.0.10": "PBL"}
    trust = ("no", "low", "medium", "high")
    return (
        # Several answers for one client, each with its own meaning.
        _sample("zen.example", "ip4set", TEST_ENTRY, lambda code: f"{zen_texts[code]}: https://zen.example/query/$"),
        _sample("spamcop.example", "ip4set", TEST_ENTRY, lambda _: "Blocked, see https://spamcop.example/bl?$"),
        _sample("psbl.example", "ip4set", TEST_ENTRY, lambda _: "Trapped, see https://psbl.example/listing?ip=$"),
        # An allow-list; its test entry answers as dnswl.org's does.
        _sample("dnswl.example", "ip4set", "127.0.10.0", lambda code: f"{trust[int(code[-1])]} trust: $"),
        _sample("v6.example", "ip6trie", TEST_ENTRY, lambda _: "Blocked, see https://v6.example/bl?$"),
        # It answers, but to whatever is asked it says: not to you.
        Zone("refusing.example", "ip4trie", ("0.0.0.0/0 :127.255.255.254:Refused, see https://refusing.example/",)),
        # Alive, and without a single entry.
        Zone("empty.example", "ip4set"),
    )


def _sample(name: str, kind: str, test_code: str, text: Callable[[str], str]) -> Zone:
    test_entry = TEST_ENTRY6 if kind == "ip6trie" else TEST_ENTRY
    listed = [(test_entry, test_code), *((c.address, code) for c in SAMPLE_CLIENTS for code in c.codes(name))]
    return Zone(name, kind, tuple(f"{address} :{code}:{text(code)}" for address, code in listed))
