"""The milter's daemon as an administrator runs it: from a configuration file, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

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
    """`dnsbl-milter run`, and the lines it logs."""

    def __init__(self, folder: Path, configuration: str) -> None:
        """Write the configuration, start the daemon, and return once every worker serves."""
        folder.mkdir(parents=True, exist_ok=True)
        self.configuration = folder / "dnsbl-milter.toml"
        self.configuration.write_text(configuration)
        self._log = folder / "dnsbl-milter.log"
        self._log.unlink(missing_ok=True)
        self.process = Process(
            [sys.executable, "-m", "dnsbl_milter", "run", "--config", self.configuration],
            self._log,
            lambda: any(line.startswith("serving") or '"event": "serving"' in line for line in self.log()),
            environment=environment(),
        )

    def log(self) -> list[str]:
        """Return what it has logged so far, line by line."""
        return self._log.read_text(errors="replace").splitlines()

    def decisions(self) -> list[str]:
        """Return its lines about decisions."""
        return [line for line in self.log() if line.startswith("decision ")]

    def wait_for_log(self, text: str, deadline: float = 10.0) -> str:
        """Return the first line that holds a text, once there is one."""
        wait_until(lambda: any(text in line for line in self.log()), deadline, f"the milter logs {text!r}")
        return next(line for line in self.log() if text in line)

    def workers(self) -> list[int]:
        """Return the process identifiers of its children."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def explain(self, *arguments: str) -> dict[str, object]:
        """Return what `explain --json` says under its configuration."""
        done = command("explain", "--config", self.configuration, "--json", *arguments)
        document: dict[str, object] = json.loads(done.stdout)
        return document

    def kill(self) -> None:
        """End it and its workers as a crash would."""
        for pid in [self.process.pid, *self.workers()]:
            os.kill(pid, signal.SIGKILL)
        self.process.stop()

    def stop(self, patience: float = 40.0) -> None:
        """End it as systemd would, and its workers whatever state they are in."""
        workers = self.workers() if self.process.alive else []
        self.process.stop(patience)
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), patience, "its workers have ended")
