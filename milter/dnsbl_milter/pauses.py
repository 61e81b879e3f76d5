"""What an administrator has put on observation at three in the morning: one list, or everything, without editing.

Floor 2: standard library only. A file that the command line writes and every process reads: it holds across restarts,
and whoever has written it waits until every process must have seen it. A session is judged by the last look at the file.
"""

import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from dnsbl_milter import log

EVERYTHING = "*"
"""Stands for all lists: decide, log and count, but touch no mail."""

LOOK_SECONDS = 0.1
"""How long a look at the file is good for. One for each connection costs a busy worker a tenth of its time: not for the
look itself, but for the other threads that get their turn at each."""

_DURATION = re.compile(r"(\d{1,6})([smhd])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def file() -> Path:
    """Return where pauses are kept: in the state directory, which systemd names and which is where it always was."""
    return Path(os.environ.get("STATE_DIRECTORY", "").partition(":")[0] or "/var/lib/dnsbl-milter") / "pauses.json"


def parse_duration(text: str) -> int:
    """Read a duration such as 90s, 30m, 2h or 1d, in seconds. Raises ValueError."""
    found = _DURATION.fullmatch(text)
    if not found or not int(found[1]):
        raise ValueError("expected a duration such as 30m, 2h or 1d")
    return int(found[1]) * _SECONDS[found[2]]


def read(path: Path, now: float) -> dict[str, float | None]:
    """Return what is paused at this moment (seconds since the epoch), and until when; None is until it is resumed.

    A file that is missing, or that nobody can make sense of, pauses nothing.
    """
    return {name: until for name, until in _load(path)[0].items() if until is None or now < until}


def _load(path: Path) -> tuple[dict[str, float | None], str]:
    """Return what the file holds, and what is wrong with it, if anything is."""
    try:
        kept = json.loads(path.read_text("utf-8"))
    except OSError as fault:
        return {}, str(fault.strerror)
    except ValueError as fault:
        return {}, str(fault)
    if not isinstance(kept, dict):
        return {}, "expected an object"
    sound = {name: until for name, until in kept.items() if until is None or isinstance(until, int | float)}
    odd = ", ".join(sorted(kept.keys() - sound.keys()))
    return sound, f"expected seconds since the epoch, or null, for {odd}" if odd else ""


def write(path: Path, pauses: Mapping[str, float | None]) -> None:
    """Replace the file at once, so that no reader sees half of it. Raises OSError."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            json.dump(dict(pauses), opened)
        Path(name).chmod(0o644)  # written by root, read by the daemon's user
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


class Pauses:
    """What is paused, as one process sees it."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._looked = 0.0
        self._seen: tuple[int, int, int] | None = None
        self._known: dict[str, float | None] = {}
        self._names: frozenset[str] = frozenset()

    def names(self) -> frozenset[str]:
        """Return the names of paused lists, and `EVERYTHING` if all is paused, as of `LOOK_SECONDS` ago at most."""
        now = self._clock()
        if not self._looked <= now < self._looked + LOOK_SECONDS:  # nor does a clock that is set back keep us from looking
            self._look()
            self._names = frozenset(name for name, until in self._known.items() if until is None or now < until)
            self._looked = now
        return self._names

    def _look(self) -> None:
        try:
            status = self._path.stat()
        except OSError:
            self._seen, self._known = None, {}
            return
        seen = (status.st_mtime_ns, status.st_ino, status.st_size)
        if seen != self._seen:
            self._seen = seen
            self._known, why = _load(self._path)
            if why:
                # Once for each change of the file: what somebody paused at night is in force again.
                log.warning("pauses not understood", file=self._path, why=why)
