"""The mail host's resolver: unbound, which knows the lists, the sample hosts and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from mailhost.clients import Host, sample_hosts
from mailhost.lists import ListServer
from mailhost.process import Process, program, require_enclosure, wait_until
from mailhost.query import Answer, ask, reversed_name

PROBE = "ready.resolver.invalid"

# Every name below "." is local and so answered at once, with NXDOMAIN if it has
# no data; only the list zones are looked up. Nothing can wait for an upstream.
# A list server is never given up for long (infra-*), for tests pause it and let it go on.
SERVER = """\
server:
  interface: {address}
  port: {port}
  access-control: 0.0.0.0/0 allow
  access-control: ::0/0 allow
  do-ip6: yes
  do-not-query-localhost: no
  chroot: ""
  username: ""
  directory: "{folder}"
  pidfile: "{folder}/unbound.pid"
  use-syslog: no
  logfile: ""
  verbosity: 1
  num-threads: 1
  module-config: "iterator"
  cache-max-ttl: {max_ttl}
  cache-max-negative-ttl: {max_negative_ttl}
  infra-host-ttl: 1
  infra-keep-probing: yes
  outbound-msg-retry: 2
  local-zone: "." static
  local-data: ". 60 SOA ns.acme123.com. hostmaster.acme123.com. 1 600 300 86400 60"
  local-data: "{probe}. A 127.0.0.1"
"""


class Resolver:
    """A caching resolver in front of any number of list servers."""

    def __init__(
        self,
        folder: Path,
        lists: Iterable[ListServer] = (),
        hosts: Iterable[Host] | None = None,
        *,
        address: str = "127.0.0.1",
        port: int = 53,
        max_ttl: int = 86400,
        max_negative_ttl: int = 3600,
    ) -> None:
        """Start unbound, and return once it answers; hosts default to the sample ones.

        The lifetimes are in seconds; with 0 nothing is kept.
        """
        require_enclosure()
        self.address = address
        self.port = port
        folder.mkdir(parents=True, exist_ok=True)
        settings = SERVER.format(
            address=address,
            port=port,
            folder=folder,
            max_ttl=max_ttl,
            max_negative_ttl=max_negative_ttl,
            probe=PROBE,
        )
        names = [f"  {line}" for line in _local_data(sample_hosts() if hosts is None else hosts)]
        zones = [line for server in lists for zone in server.zones for line in _forwarding(zone, server)]
        configuration = folder / "unbound.conf"
        configuration.write_text("\n".join([settings, *names, *zones, ""]))
        # AppArmor lets Debian's unbound read below /etc/unbound only, and knows it by its path.
        unbound = shutil.copy(program("unbound", "unbound"), folder)
        self.process = Process([unbound, "-d", "-c", configuration], folder / "unbound.log", self._answers)

    def ask(self, name: str, kind: str = "A", timeout: float = 5.0) -> Answer:
        """Ask the resolver a question; raise TimeoutError when it is silent."""
        return ask(name, kind, (self.address, self.port), timeout)

    def look_up(self, address: str, zone: str, kind: str = "A", timeout: float = 5.0) -> Answer:
        """Ask what a list says about a client's address."""
        return self.ask(reversed_name(address, zone), kind, timeout)

    def flush(self) -> None:
        """Forget everything that was looked up."""
        starts = self._starts()
        self.process.hang_up()
        wait_until(lambda: self._starts() > starts and self._answers(), 5.0, "unbound has reloaded")

    def pause(self) -> None:
        """Turn it into a resolver that never answers."""
        self.process.pause()

    def resume(self) -> None:
        """Let it answer again."""
        self.process.resume()

    def stop(self) -> None:
        """End it."""
        self.process.stop()

    def _answers(self) -> bool:
        try:
            return self.ask(PROBE, timeout=0.2).rcode == "NOERROR"
        except OSError:
            return False

    def _starts(self) -> int:
        return self.process.log.read_text().count("start of service")


def _local_data(hosts: Iterable[Host]) -> Iterator[str]:
    for host in hosts:
        for address in host.addresses:
            yield f'local-data: "{host.name}. {"AAAA" if ":" in address else "A"} {address}"'
        for address in host.reverse:
            yield f'local-data-ptr: "{address} {host.name}"'
        for exchanger in host.mail:
            preference, _, name = exchanger.rpartition(" ")
            yield f'local-data: "{host.name}. MX {preference or 10} {name}."'


def _forwarding(zone: str, server: ListServer) -> Iterator[str]:
    yield f'server:\n  local-zone: "{zone}." transparent'
    yield f'stub-zone:\n  name: "{zone}."\n  stub-addr: {server.address}@{server.port}'
