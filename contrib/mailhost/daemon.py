"""The milter's daemon as an administrator runs it: from a configuration file, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

from mailhost.events import read_event
from mailhost.process import Process, wait_until

ROOT = Path(__file__).parents[2]
SOCKET = "local:/run/dnsbl-milter/milter.sock"


def environment() -> dict[str, str]:
    """Return what a fresh checkout needs to run uninstalled."""
    return {"PYTHONPATH": f"{ROOT / 'policy'}:{ROOT / 'milter'}", "PYTHONUNBUFFERED": "1"}


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `dnsbl-milter ARGUMENTS`, and return what it printed and its status."""
    return subprocess.run(
        [sys.executable, "-m", "dnsbl_milter", *arguments],
        env=os.environ | environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


class Daemon:
    """`dnsbl-milter run`, the lines it logs, and what its workers hold open."""

    def __init__(
        self, folder: Path, configuration: str, *, wrapper: Sequence[str] = (), silent: bool = False
    ) -> None:
        """Write the configuration, start the daemon, and return once every worker serves.

        The wrapper is a command that runs it in its own way, such as setpriv. One that is configured to log nothing
        says nothing when it serves: of a silent one, whose socket is a path, only that path is waited for.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.configuration = folder / "dnsbl-milter.toml"
        self.configuration.write_text(configuration)
        self.socket = str(tomllib.loads(configuration).get("milter", {}).get("socket", SOCKET))
        self._log = folder / "dnsbl-milter.log"
        self._log.unlink(missing_ok=True)
        self.process = Process(
            [*wrapper, sys.executable, "-m", "dnsbl_milter", "run", "--config", self.configuration],
            self._log,
            Path(self.socket.removeprefix("local:")).exists if silent else self._says_it_serves,
            # What a milter that is killed leaves behind is not to lie about on this machine.
            environment=environment() | {"TMPDIR": str(folder)},
        )

    def _says_it_serves(self) -> bool:
        return any(line.startswith("serving") or '"event": "serving"' in line for line in self.log())

    def log(self) -> list[str]:
        """Return what it has logged so far, line by line."""
        # Not splitlines(): that ends a line at a form feed and more, where nothing but a newline ends one.
        return self._log.read_text(errors="surrogateescape").split("\n")[:-1]

    def decisions(self) -> list[str]:
        """Return its lines about decisions."""
        return [line for line in self.log() if line.startswith("decision ")]

    def events(self, start: int = 0) -> list[dict[str, object]]:
        """Return what it has logged from a line on; raise ValueError if a line is broken."""
        return [read_event(line) for line in self.log()[start:]]

    def wait_for_log(self, text: str, deadline: float = 10.0) -> str:
        """Return the first line that holds a text, once there is one."""
        wait_until(lambda: any(text in line for line in self.log()), deadline, f"the milter logs {text!r}")
        return next(line for line in self.log() if text in line)

    def workers(self) -> list[int]:
        """Return the process identifiers of its children."""
        return children(self.process.pid)

    def sessions(self) -> dict[int, int]:
        """Return how many of Sendmail's connections each worker holds."""
        connections = _connections(self.socket)
        return {pid: len(connections & _inodes(pid)) for pid in self.workers()}

    def listeners(self, pids: Iterable[int] | None = None) -> list[int]:
        """Return which of its processes have its listening socket open; of others once the supervisor is gone."""
        if self.socket.startswith("local:"):
            rows = [row for row in _table("unix") if row[7:] == [self.socket.removeprefix("local:")]]
            listening = {row[6] for row in rows if row[5] == "01"}
        else:
            rows = [row for table in ("tcp", "tcp6") for row in _table(table)]
            listening = {row[9] for row in rows if row[3] == "0A" and _port_of(row[1]) == _port(self.socket)}
        return [pid for pid in pids or [self.process.pid, *self.workers()] if listening & _inodes(pid)]

    def unread(self) -> int:
        """Return how many bytes Sendmail has sent that no worker has read yet; for inet: and inet6: only."""
        return sum(received for _, port, received in _tcp() if port == _port(self.socket))

    def lookups(self) -> dict[int, int]:
        """Return how many UDP sockets each worker holds: every one belongs to a session that is open."""
        datagrams = {row[9] for table in ("udp", "udp6") for row in _table(table)}
        return {pid: len(datagrams & _inodes(pid)) for pid in self.workers()}

    def descriptors(self) -> dict[int, int]:
        """Return how many descriptors each worker has open."""
        return {pid: len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in self.workers()}

    def wait_until_idle(self, deadline: float = 10.0) -> None:
        """Return once no worker holds a connection; a session ends a little after its client is gone."""
        wait_until(lambda: not any(self.sessions().values()), deadline, "the milter has no session")

    def explain(self, *arguments: str) -> dict[str, object]:
        """Return what `explain --json` says under its configuration."""
        done = command("explain", "--config", self.configuration, "--json", *arguments)
        document: dict[str, object] = json.loads(done.stdout)
        return document

    def wait_until_ended(self, deadline: float) -> int:
        """Return its status, once it and its workers have ended."""
        workers = self.workers() if self.process.alive else []
        wait_until(lambda: not self.process.alive, deadline, "the milter has ended")
        wait_until(lambda: not any(map(_exists, workers)), deadline, "its workers have ended")
        return self.process.status or 0

    def kill(self) -> None:
        """End it and its workers as a crash would."""
        if self.process.alive:
            for pid in [self.process.pid, *self.workers()]:
                with contextlib.suppress(ProcessLookupError):  # ended since
                    os.kill(pid, signal.SIGKILL)
        self.process.stop()

    def stop(self, patience: float = 40.0) -> None:
        """End it as systemd would, and its workers whatever state they are in."""
        workers = self.workers() if self.process.alive else []
        self.process.stop(patience)
        wait_until(lambda: not any(map(_exists, workers)), patience, "its workers have ended")


def children(pid: int) -> list[int]:
    """Return the process identifiers of a process's children; none once it has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _inodes(pid: int) -> set[str]:
    """Return the inodes of the sockets that a process has open."""
    inodes: set[str] = set()
    with contextlib.suppress(FileNotFoundError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed since
                target = str(entry.readlink())
                inodes.add(target.removeprefix("socket:[").removesuffix("]"))
    return inodes


def _connections(socket: str) -> set[str]:
    """Return the inodes of the connections to a milter's socket, on its own side."""
    if socket.startswith("local:"):
        rows = [row for row in _table("unix") if row[7:] == [socket.removeprefix("local:")]]
        return {inode for *_, state, inode, _path in rows if state == "03"}
    return {inode for inode, port, _ in _tcp() if port == _port(socket)}


def _tcp() -> list[tuple[str, int, int]]:
    """Return inode, local port and unread bytes of every TCP connection."""
    rows = [row for table in ("tcp", "tcp6") for row in _table(table) if row[3] != "0A"]
    return [(row[9], _port_of(row[1]), int(row[4].rpartition(":")[2], 16)) for row in rows]


def _port_of(address: str) -> int:
    return int(address.rpartition(":")[2], 16)


def _port(socket: str) -> int:
    return int(socket.split(":")[1].partition("@")[0])


def _table(name: str) -> list[list[str]]:
    return [line.split() for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
