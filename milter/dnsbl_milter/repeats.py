"""What is said over and over is kept out of the log: of one thing, a few lines an hour.

Floor 2: standard library only. What fails for one client fails for the next, and a line a mail would bury the decisions.
"""

from threading import Lock


class Repeats:
    """Counts what has been said; any thread may ask. Each process has one of its own, and so its own few lines."""

    SECONDS = 3600.0
    LINES = 4

    def __init__(self) -> None:
        self._lock = Lock()
        self._said: dict[object, tuple[float, int]] = {}

    def allow(self, what: object, now: float) -> int | None:
        """Return how many lines were left out before this one; None if it is to be left out.

        `what` stays in memory, so nothing that a client chooses may be in it; `now` is in seconds.
        """
        with self._lock:
            begun, count = self._said.get(what, (now, 0))
            missed = 0
            if not begun <= now < begun + self.SECONDS:
                missed, begun, count = max(count - self.LINES, 0), now, 0
            self._said[what] = begun, count + 1
        return missed if count < self.LINES else None
