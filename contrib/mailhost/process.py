"""Child processes: started until they are ready, watched, stopped for certain."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ENCLOSED = Path("/run/mailhost/enclosed")
TAIL = 20  # lines of a log that an error quotes


class StartError(RuntimeError):
    """A server did not get ready; the message says which, why, and what its log says."""


def require_enclosure() -> None:
    """Raise StartError unless this process runs inside contrib/enclosed."""
    if not ENCLOSED.exists():
        raise StartError("this needs a network of its own: run it as root with contrib/enclosed COMMAND")


def program(name: str, package: str) -> str:
    """Return the path of a program; raise StartError that names its Debian package if it is missing."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        raise StartError(f"{name} is missing: apt-get install {package}")
    return path


def wait_until(condition: Callable[[], bool], deadline: float, what: str) -> None:
    """Return as soon as the condition holds; raise TimeoutError after so many seconds."""
    end = time.monotonic() + deadline
    pause = 0.001
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {deadline:g} s in vain until {what}")
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


class Process:
    """A child in a session of its own, so that stopping it stops its children too."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        log: Path,
        ready: Callable[[], bool],
        *,
        deadline: float = 10.0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start it, append what it prints to the log, and return once it is ready."""
        self.name = Path(argv[0]).name
        self.log = log
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=None if environment is None else {**os.environ, **environment},
            )
        try:
            wait_until(lambda: not self.alive or ready(), deadline, f"{self.name} is ready")
        except TimeoutError as error:
            self.stop()
            raise StartError(f"{error}\n{self.tail()}") from None
        except BaseException:
            self.stop()
            raise
        if not self.alive:
            raise StartError(f"{self.name} ended at once, with status {self._child.returncode}\n{self.tail()}")

    @property
    def pid(self) -> int:
        """The child's process id, which is also its group's."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether the child still runs (or is paused)."""
        return self._child.poll() is None

    @property
    def status(self) -> int | None:
        """The status it ended with, or None while it runs; negative if a signal ended it."""
        return self._child.poll()

    def tail(self) -> str:
        """Return the last lines of the log, for an error message."""
        lines = self.log.read_text(errors="replace").splitlines()[-TAIL:]
        return "\n".join([f"--- last lines of {self.log}", *lines])

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the child alone."""
        self._child.send_signal(number)

    def hang_up(self) -> None:
        """Send SIGHUP to the child, which makes a server read its files again."""
        self._child.send_signal(signal.SIGHUP)

    def pause(self) -> None:
        """Stop the clock of the child and its children: their sockets stay open and mute."""
        self._signal_group(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused child go on."""
        self._signal_group(signal.SIGCONT)

    def stop(self, patience: float = 5.0) -> None:
        """End the child and its children: SIGTERM, and SIGKILL after so many seconds."""
        self._signal_group(signal.SIGTERM)
        self._signal_group(signal.SIGCONT)  # one that is paused would never see the SIGTERM
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(patience)
        self._signal_group(signal.SIGKILL)
        self._child.wait()

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, number)
