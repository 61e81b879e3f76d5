"""A child process and the two pipes to it: words down, signs of life up.

Floor 4: standard library only.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NoReturn

from dnsbl_milter import log

DRAIN = b"d"
"""Finish what you have and leave; so does the end of the pipe, when the supervisor is gone."""

Task = Callable[[int, int], NoReturn]
"""What a child does with the end of its control pipe and that of its signs of life."""


@dataclass(slots=True, eq=False)
class Child:
    """A process of ours."""

    pid: int
    control: int
    signs: int
    number: int
    """The lowest that no living sibling holds; its counters' files bear it."""
    since: float = field(default_factory=time.monotonic)
    heard: float | None = None
    """When it last gave a sign of life; None before its first, which says that it serves."""
    unanswered: int = 0
    """How often it was asked for a sign of life since its last one."""

    @property
    def serving(self) -> bool:
        """Tell whether it has said that it serves."""
        return self.heard is not None

    def tell(self, word: bytes) -> None:
        """Send a word; a child that has just died, or is stuck with a full pipe, does not hear it."""
        try:
            os.write(self.control, word)
        except (BrokenPipeError, BlockingIOError):
            return

    def listen(self) -> bool:
        """Take its signs of life; False if the pipe has ended."""
        signs = os.read(self.signs, 4096)
        if signs:
            self.heard, self.unanswered = time.monotonic(), 0
        return bool(signs)

    def close(self) -> None:
        """Close our ends of the pipes."""
        os.close(self.control)
        os.close(self.signs)


def fork(task: Task, number: int, foreign: Iterable[int], signals: Iterable[signal.Signals]) -> Child:
    """Start a child; it closes the `foreign` descriptors and knows nothing of the parent's handlers for `signals`.

    With a sibling's end of its control pipe in here, that sibling would not see the supervisor die.
    Raises OSError if there is no room for another process or its pipes.
    """
    ends: list[int] = []
    try:
        ends += os.pipe()
        ends += os.pipe()
        pid = os.fork()
    except OSError:
        for end in ends:
            os.close(end)
        raise
    control_read, control_write, signs_read, signs_write = ends
    if pid == 0:
        _become(task, control_read, signs_write, (control_write, signs_read, *foreign), signals)
    os.close(control_read)
    os.close(signs_write)
    os.set_blocking(control_write, False)
    return Child(pid, control_write, signs_read, number)


def _become(
    task: Task, control: int, signs: int, foreign: Iterable[int], signals: Iterable[signal.Signals]
) -> NoReturn:
    """Turn the new process into what it is for. An exception here must never run the parent's code again."""
    try:
        signal.set_wakeup_fd(-1)
        for number in signals:
            signal.signal(number, signal.SIG_DFL)
        # A Ctrl-C goes to the terminal's whole group, and libmilter would end every session by it.
        os.setpgid(0, 0)
        for descriptor in foreign:
            os.close(descriptor)
        task(control, signs)
    except BaseException:  # noqa: BLE001  whatever it is, this process must end here; it is logged
        log.error("child failed", exc_info=True, pid=os.getpid())
        sys.stderr.flush()
    finally:
        os._exit(1)
