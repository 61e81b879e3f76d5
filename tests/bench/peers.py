"""What is measured: this milter, and what an administrator would use instead; each started with the same lists.

A filter is a program that Sendmail asks: here the load generator plays Sendmail. What cannot be started says why.
"""

import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from mailhost.daemon import Daemon, children
from mailhost.process import Process, program

HERE = Path(__file__).parent
PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Lists:
    """The lists that everybody asks: their zones, and the name server that answers for them."""

    zones: tuple[str, ...]
    address: str


class Filter:
    """A filter under way: where it listens, and what it has used."""

    name: str
    socket: str
    """A path, or a port of 127.0.0.1, as the load generator takes it."""

    def __init__(self, process: Process) -> None:
        """Take the process that was started."""
        self._process = process

    def __enter__(self) -> Self:
        """Return the filter itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.stop()

    @property
    def milter(self) -> str:
        """The socket as Sendmail writes it."""
        return f"local:{self.socket}" if self.socket.startswith("/") else f"inet:{self.socket}@127.0.0.1"

    def cpu_seconds(self) -> float:
        """Return what its processes have used so far."""
        return sum(map(cpu_seconds, family(self._process.pid)))

    def resident_bytes(self) -> int:
        """Return the memory that its processes hold, what they share counted once."""
        return sum(map(_proportional_bytes, family(self._process.pid)))

    def stop(self) -> None:
        """End it."""
        self._process.stop()


class NothingInC(Filter):
    """The floor that libmilter sets, with every callback or with those that this milter has."""

    name = "do-nothing C"

    def __init__(self, folder: Path, *, few: bool = False) -> None:
        """Start it; it asks nobody."""
        self.name += ", our callbacks" * few
        self.socket = str(folder / f"nothing{few:d}.sock")
        super().__init__(
            Process(
                [built("nothing", folder), f"local:{self.socket}", *(["few"] * few)],
                folder / "nothing.log",
                Path(self.socket).exists,
            )
        )


class NothingInPython(Filter):
    """The floor that pymilter sets."""

    name = "do-nothing pymilter"

    def __init__(self, folder: Path) -> None:
        """Start it; it asks nobody."""
        self.socket = str(folder / "nothing-py.sock")
        super().__init__(
            Process(
                [sys.executable, HERE / "nothing.py", f"local:{self.socket}"],
                folder / "nothing-py.log",
                Path(self.socket).exists,
            )
        )


class Ours(Filter):
    """This milter."""

    def __init__(self, folder: Path, lists: Lists, *, workers: int, name: str = "", tag: int = 3, extra: str = "", quiet: bool = False) -> None:
        """Start it with so many workers; extra holds lines of the configuration, quiet turns log and metrics off.

        Each list weighs 2, and nobody is listed twice: with 3 as the threshold nobody is tagged, and yet all answers but
        one must be waited for; with 2 every single one.
        """
        self.name = name or f"dnsbl-milter, {workers} worker{'s' * (workers > 1)}"
        home = folder / "".join(letter if letter.isalnum() else "-" for letter in self.name)
        self.socket = str(home / "milter.sock")
        home.mkdir()
        port = next(_ports)
        self.metrics_url = f"http://127.0.0.1:{port}/metrics"
        listen = "" if quiet else f"127.0.0.1:{port}"
        self.daemon = Daemon(home, self._configuration(lists, workers, tag, extra, listen), silent=quiet)
        super().__init__(self.daemon.process)

    def _configuration(self, lists: Lists, workers: int, tag: int, extra: str, listen: str) -> str:
        one = "".join(f'[[list]]\nname = "{zone}"\nzone = "{zone}"\nweight = 2\nipv6 = false\n' for zone in lists.zones)
        return f"""\
milter.socket = "local:{self.socket}"
milter.workers = {workers}
dns.nameservers = ["{lists.address}"]
actions.tag = {tag}
memory.url = ""
log.level = "{"info" if listen else "error"}"
metrics.listen = "{listen}"
{extra}
{one}"""

    def cpu_seconds(self) -> float:
        """Return what its workers have used so far: what judging mail costs, without whoever reads the metrics."""
        return sum(map(cpu_seconds, self.daemon.listeners(self.daemon.workers())))

    def lost_answers(self) -> float:
        """Return how many questions to lists have come to nothing so far."""
        with urllib.request.urlopen(self.metrics_url) as answer:
            lines = answer.read().decode().splitlines()
        return sum(
            float(line.rpartition(" ")[2])
            for line in lines
            if line.startswith("dnsbl_lookups_total{") and 'outcome="listed"' not in line and 'outcome="clear"' not in line
        )

    def stop(self) -> None:
        """End it and its workers."""
        self.daemon.stop()


class Rspamd(Filter):
    """rspamd's milter proxy, which scans by itself, with the RBL module and nothing else."""

    name = "rspamd, 2 workers"
    PORT = 11332

    def __init__(self, folder: Path, lists: Lists) -> None:
        """Start it with two workers."""
        self.socket = str(self.PORT)
        home = folder / "rspamd"
        home.mkdir()
        shutil.chown(home, "_rspamd")
        rbls = "\n".join(
            f'rbl{place} {{ symbol = "RBL{place}"; rbl = "{zone}"; checks = ["from"]; ipv4 = true; ipv6 = false; }}'
            for place, zone in enumerate(lists.zones)
        )
        # `rspamd_proxy` is what Debian's own file starts for Sendmail; the rest of that file is other work.
        (home / "rspamd.conf").write_text(f"""\
lua = "/usr/share/rspamd/rules/rspamd.lua"
options {{
  pidfile = "{home}/rspamd.pid"; rrd = ""; filters = ""; tempdir = "{home}"; history_file = "{home}/history";
  hs_cache_dir = "{home}"; local_addrs = [];
  dns {{ nameserver = ["{lists.address}:53"]; timeout = 1s; retransmits = 2; sockets = 16; }}
}}
logging {{ type = "file"; filename = "{home}/rspamd.log"; level = "error"; }}
worker "rspamd_proxy" {{
  bind_socket = "127.0.0.1:{self.PORT}"; milter = yes; count = 2; timeout = 120s;
  upstream "local" {{ default = yes; self_scan = yes; }}
}}
modules {{ path = "/usr/share/rspamd/plugins/rbl.lua"; }}
metric "default" {{ actions {{ reject = 1000; }} }}
rbl {{ rbls {{ {rbls} }} }}
""")
        super().__init__(
            Process(
                [program("rspamd", "rspamd"), "-f", "-u", "_rspamd", "-g", "_rspamd", "-c", home / "rspamd.conf"],
                folder / "rspamd.out",
                lambda: listens(self.PORT),
                deadline=30,
            )
        )


def built(name: str, folder: Path) -> Path:
    """Return a program of the bench's own, compiled."""
    binary = folder / name
    if not binary.exists():
        compiler = program("gcc", "gcc")
        subprocess.run(
            [compiler, "-O2", "-o", binary, HERE / f"{name}.c", "-lpthread", *(["-lmilter"] * (name == "nothing"))],
            check=True,
        )
    return binary


def family(pid: int) -> Sequence[int]:
    """Return a process and all below it."""
    return [pid, *(each for child in children(pid) for each in family(child))]


def cpu_seconds(pid: int) -> float:
    """Return what a process has used, and what its children that have ended had used."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):  # ended since
        return 0.0
    return sum(map(int, fields[11:15])) / TICKS


def _proportional_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def listens(port: int) -> bool:
    """Tell whether somebody listens on a TCP port."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)


_ports = iter(range(10800, 10999))
"""Nobody else is inside the enclosure who could take them."""
