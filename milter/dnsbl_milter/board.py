"""What the processes of one daemon tell each other without a word: a few numbers in memory that forks share.

Floor 2: standard library only. Each cell has one writer, so that no lock is needed; a cell is written at once.
"""

import mmap
from enum import IntEnum, auto


class Fact(IntEnum):
    """A number about the daemon as a whole; the supervisor writes it."""

    RELOAD_SUCCESSFUL = 0
    RELOADED_AT = auto()
    """Seconds since the epoch."""
    RESTARTS = auto()
    SERVING = auto()
    DRAINING = auto()
    STOPPING = auto()


class Board:
    """A row of numbers, all zero at first."""

    def __init__(self, cells: int) -> None:
        # Never closed: processes that share it come and go, and the last one's end frees it.
        self._cells = memoryview(mmap.mmap(-1, 8 * max(cells, 1))).cast("d")

    def __getitem__(self, cell: int) -> float:
        return self._cells[cell]

    def __setitem__(self, cell: int, value: float) -> None:
        self._cells[cell] = value


def facts() -> Board:
    """Return the board for the daemon as a whole, indexed by `Fact`."""
    return Board(len(Fact))
