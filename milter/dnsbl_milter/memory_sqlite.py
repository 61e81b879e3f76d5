"""Memory in one SQLite file that all workers of a host use at once.

Floor 2: with `memory_file`, which keeps the file itself in order, the home of sqlite3.

A decision is one short write transaction: read, decide, write, and a step of purging, so that the file never needs
a cleaner of its own. The write-ahead log is synchronised only when it is folded into the file: a power cut may cost
the last moments (whoever was deferred then, is once more), never the file; and one decision in a thousand waits
for the disk, where with a synchronisation for each all of them would.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from dnsbl_milter.memory_engine import Holdings, Remembered, digest, readable
from dnsbl_milter.memory_file import MemoryFile
from dnsbl_policy.greylist import Recollection, Terms, Trace, Triplet, attempt

SCHEMA = 1
MOST_OF_A_KIND = 1_000_000
"""Triplets that wait, and triplets that have passed: each may fill its half, so that a flood of first attempts
cannot push out who is known, nor the known those who wait."""

PURGED_AT_ONCE = 4
"""More than the one that a decision can add, so that the purge always gains on the work."""
SKEW_SECONDS = 86_400
"""What lies farther in the future was written by a clock that has been set back, and would never grow old."""

_WAITING, _PASSED = 0, 1

# Counted by triggers, for counting two million rows takes longer than a decision may.
_CREATE = """
CREATE TABLE triplet (
    network TEXT NOT NULL,
    digest BLOB NOT NULL,
    passed INTEGER NOT NULL,
    since REAL NOT NULL,
    sender TEXT NOT NULL,
    recipient TEXT NOT NULL,
    PRIMARY KEY (network, digest)
) WITHOUT ROWID;
CREATE INDEX by_age ON triplet (passed, since);
CREATE TABLE tally (passed INTEGER PRIMARY KEY, entries INTEGER NOT NULL);
INSERT INTO tally VALUES (0, 0), (1, 0);
CREATE TRIGGER added AFTER INSERT ON triplet BEGIN
    UPDATE tally SET entries = entries + 1 WHERE passed = new.passed;
END;
CREATE TRIGGER removed AFTER DELETE ON triplet BEGIN
    UPDATE tally SET entries = entries - 1 WHERE passed = old.passed;
END;
CREATE TRIGGER moved AFTER UPDATE OF passed ON triplet WHEN old.passed <> new.passed BEGIN
    UPDATE tally SET entries = entries - 1 WHERE passed = old.passed;
    UPDATE tally SET entries = entries + 1 WHERE passed = new.passed;
END;
"""
_READ = "SELECT since, passed FROM triplet WHERE network = ? AND digest = ?"
_WRITE = """
INSERT INTO triplet (network, digest, passed, since, sender, recipient) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET passed = excluded.passed, since = excluded.since
"""
# Found first and deleted one by one: as one statement, SQLite would go through the whole index for the first of these.
_STALE = """
SELECT network, digest FROM triplet WHERE passed = :kind AND since < :old
UNION ALL
SELECT network, digest FROM triplet WHERE passed = :kind AND since > :future
LIMIT :most
"""
_OLDEST = "SELECT network, digest FROM triplet WHERE passed = :kind ORDER BY since LIMIT :most"
_TALLY = "SELECT passed, entries FROM tally"
_SHOW = "SELECT sender, recipient, passed, since FROM triplet WHERE network = ? ORDER BY since DESC"
_FORGET = "DELETE FROM triplet WHERE network = ?"
_DELETE = "DELETE FROM triplet WHERE network = ? AND digest = ?"


class SqliteEngine:
    """The file. One thread at a time: SQLite has one writer, and a queue in the process is fairer than its lock."""

    name = "sqlite"
    threads = 1

    def __init__(self, path: Path, terms: Terms, *, create: bool = True, most: int = MOST_OF_A_KIND) -> None:
        """Open nothing yet. Without `create`, a file that is missing or damaged stays so, as suits a command."""
        self._file = MemoryFile(path, _CREATE, SCHEMA, create=create)
        self._terms = terms
        self._most = most

    def check(self) -> None:
        """Return if the file can be read and written now."""
        with self._file.errors(), _transaction(self._file.open()):
            pass

    def recall(self, triplet: Triplet, now: float) -> Recollection:
        """Answer an attempt and remember it. Raises `Unavailable`."""
        with self._file.errors():
            try:
                return self._recall(self._file.open(), triplet, now)
            except sqlite3.DatabaseError as fault:
                if not self._file.may_replace(fault):
                    raise
                self._file.replace(fault)
            return self._recall(self._file.open(), triplet, now)

    def show(self, network: str) -> list[Remembered]:
        """Return what is remembered of a network, the latest first. Raises `Unavailable`."""
        with self._file.errors():
            rows = self._file.open().execute(_SHOW, (network,)).fetchall()
        return [Remembered(sender, recipient, bool(passed), since) for sender, recipient, passed, since in rows]

    def forget(self, network: str) -> int:
        """Forget a network; return how many triplets that were. Raises `Unavailable`."""
        with self._file.errors():
            return self._file.open().execute(_FORGET, (network,)).rowcount

    def holdings(self) -> Holdings:
        """Return how much is remembered, and the size of the file with its log. Raises `Unavailable`."""
        with self._file.errors():
            entries = dict(self._file.open().execute(_TALLY).fetchall())
            return Holdings(entries[_WAITING], entries[_PASSED], self._file.size())

    def close(self) -> None:
        """Close the file; the next call opens it anew."""
        self._file.close()

    def _recall(self, connection: sqlite3.Connection, triplet: Triplet, now: float) -> Recollection:
        with _transaction(connection):
            key = triplet.network, digest(triplet)
            row = connection.execute(_READ, key).fetchone()
            before = None if row is None else Trace(row[0], bool(row[1]))
            recollection, after = attempt(before, now, self._terms)
            if after != before:
                shown = readable(triplet.sender), readable(triplet.recipient)
                connection.execute(_WRITE, (*key, after.passed, after.since, *shown))
            self._purge(connection, now)
        return recollection

    def _purge(self, connection: sqlite3.Connection, now: float) -> None:
        """Delete a few of those that no attempt can need any more, and of the oldest where there are too many."""
        entries = dict(connection.execute(_TALLY).fetchall())
        for kind, life in ((_WAITING, self._terms.window), (_PASSED, self._terms.remember)):
            excess = entries[kind] - self._most
            # Where there are too many, what lies in the future goes first: the clock has been set back, and by age
            # all that is new now would go before it.
            future = now if excess > 0 else now + SKEW_SECONDS
            bounds = {"kind": kind, "old": now - life, "future": future, "most": PURGED_AT_ONCE}
            found = connection.execute(_STALE, bounds).fetchall()
            if excess > 0 and not found:
                found = connection.execute(_OLDEST, bounds | {"most": min(excess, PURGED_AT_ONCE)}).fetchall()
            connection.executemany(_DELETE, found)


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Hold the file's write lock from the first read on, or two attempts could both be the first."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
