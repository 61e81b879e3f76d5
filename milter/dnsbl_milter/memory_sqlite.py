"""Memory in one SQLite file that all workers of a host use at once.

Floor 2: the home of sqlite3.

A decision is one short write transaction: read, decide, write, and a step of purging, so that the file never needs
a cleaner of its own. The write-ahead log is synchronised only when it is folded into the file: a power cut may cost
the last moments (whoever was deferred then, is once more), never the file, and no decision waits for the disk.

Whatever fails but a lock closes the file, and the next call opens it anew: so a disk that was full or read-only
heals by itself. A damaged file is moved aside, and the workers that still have it open see that the
path leads elsewhere. Opening and replacing happen under a lock on the folder, or one worker might move aside what
another has just begun.
"""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from dnsbl_milter import log
from dnsbl_milter.memory_engine import Holdings, Remembered, Unavailable, digest, readable
from dnsbl_policy.greylist import Recollection, Terms, Trace, Triplet, attempt

SCHEMA = 1
APPLICATION = 0x646E736D
"""Marks a file as ours ("dnsm"), so that another program's database is neither used nor moved aside."""

MOST_OF_A_KIND = 1_000_000
"""Triplets that wait, and triplets that have passed: each may fill its half, so that a flood of first attempts
cannot push out who is known, nor the known those who wait."""

BUSY_SECONDS = 0.5
PURGED_AT_ONCE = 4
"""More than the one that a decision can add, so that the purge always gains on the work."""
SKEW_SECONDS = 86_400
"""What lies farther in the future was written by a clock that has been set back, and would never grow old."""

_LOG_BYTES = 16 * 1024 * 1024
_WAITING, _PASSED = 0, 1
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

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
_DELETE = "DELETE FROM triplet WHERE network = ? AND digest = ?"


class SqliteEngine:
    """The file. One thread at a time: SQLite has one writer, and a queue in the process is fairer than its lock."""

    name = "sqlite"
    threads = 1

    def __init__(self, path: Path, terms: Terms, *, create: bool = True, most: int = MOST_OF_A_KIND) -> None:
        """Open nothing yet. Without `create`, a file that is missing or damaged stays so, as suits a command."""
        self._path = path
        self._terms = terms
        self._create = create
        self._most = most
        self._connection: sqlite3.Connection | None = None
        self._file = (0, 0)
        """Device and number of the file that is open, which need no longer be the one at the path."""

    def check(self) -> None:
        """Return if the file can be read and written now."""
        with self._errors(), _transaction(self._opened()):
            pass

    def recall(self, triplet: Triplet, now: float) -> Recollection:
        """Answer an attempt and remember it. Raises `Unavailable`."""
        with self._errors():
            try:
                return self._recall(self._opened(), triplet, now)
            except sqlite3.DatabaseError as fault:
                if not self._create or not _is_damage(fault):
                    raise
                self._replace(str(fault))
            return self._recall(self._opened(), triplet, now)

    def show(self, network: str) -> list[Remembered]:
        """Return what is remembered of a network, the latest first. Raises `Unavailable`."""
        with self._errors():
            rows = self._opened().execute(
                "SELECT sender, recipient, passed, since FROM triplet WHERE network = ? ORDER BY since DESC", (network,)
            )
            return [Remembered(sender, recipient, bool(passed), since) for sender, recipient, passed, since in rows]

    def forget(self, network: str) -> int:
        """Forget a network; return how many triplets that were. Raises `Unavailable`."""
        with self._errors():
            return self._opened().execute("DELETE FROM triplet WHERE network = ?", (network,)).rowcount

    def holdings(self) -> Holdings:
        """Return how much is remembered, and the size of the file with its log. Raises `Unavailable`."""
        with self._errors():
            entries = dict(self._opened().execute(_TALLY).fetchall())
            size = sum(path.stat().st_size for path in (self._path, self._beside("-wal")) if path.exists())
        return Holdings(entries[_WAITING], entries[_PASSED], size)

    def close(self) -> None:
        """Close the file; the next call opens it anew."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # SQLite leaves the log of a file that was moved away alone, as it must: a new one has taken its name.
            with contextlib.suppress(sqlite3.Error):
                connection.close()

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

    def _opened(self) -> sqlite3.Connection:
        """Return a connection to the file that is at the path now."""
        if self._connection is not None and _identity(self._path) == self._file:
            return self._connection
        self.close()
        with self._folder_locked():
            try:
                self._connection = self._open()
            except sqlite3.DatabaseError as fault:
                if not self._create or not _is_damage(fault):
                    raise
                self._move_aside(str(fault))
                self._connection = self._open()
            self._file = _identity(self._path)
        return self._connection

    def _open(self) -> sqlite3.Connection:
        if self._create:
            # Before SQLite does it with the permissions of the umask; what stands beside a file inherits its own.
            # O_EXCL, for closing a file that SQLite has open too would drop SQLite's locks on it.
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
                # What a file that somebody removed has left is not the new one's.
                for suffix in ("-wal", "-shm"):
                    self._beside(suffix).unlink(missing_ok=True)
        elif not self._path.exists():
            raise Unavailable(f"{self._path} does not exist; nothing has been remembered yet")
        connection = sqlite3.connect(
            f"file:{quote(str(self._path))}?mode=rw",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """See that the file is ours and of our version, and begin an empty one."""
        application, version = _number(connection, "application_id"), _number(connection, "user_version")
        empty = not _scalar(connection, "SELECT count(*) FROM sqlite_schema")
        if not empty and application != APPLICATION:
            raise Unavailable(f"{self._path} is another program's database; give the memory a file of its own")
        if version > SCHEMA:
            raise Unavailable(
                f"{self._path} has version {version} and this program knows {SCHEMA}: a newer dnsbl-milter wrote it"
            )
        mode = _scalar(connection, "PRAGMA journal_mode = WAL")
        if mode != "wal":
            raise Unavailable(f"{self._path} cannot have a write-ahead log (journal mode {mode})")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
        if empty:
            marks = f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {SCHEMA};"
            connection.executescript(f"BEGIN IMMEDIATE; {_CREATE} {marks} COMMIT;")

    def _replace(self, why: str) -> None:
        """Move the file that is open aside, unless another worker has done so already."""
        self.close()
        with self._folder_locked():
            if _identity(self._path) == self._file:
                self._move_aside(why)

    def _move_aside(self, why: str) -> None:
        # One of them is kept, or a bad disk would fill itself with them. The log first: a new file must never meet it.
        aside = self._beside(".damaged")
        for suffix in ("-wal", "-shm", ""):
            target = aside.with_name(aside.name + suffix)
            target.unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                self._beside(suffix).rename(target)
        log.warning("memory damaged, begun anew", file=self._path, moved_to=aside, why=why)

    def _beside(self, suffix: str) -> Path:
        return self._path.with_name(self._path.name + suffix)

    @contextlib.contextmanager
    def _folder_locked(self) -> Iterator[None]:
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what SQLite and the system raise into `Unavailable`."""
        try:
            yield
        except sqlite3.Error as fault:
            if _primary(fault) != sqlite3.SQLITE_BUSY:
                self.close()
            raise Unavailable(f"{self._path}: {fault}") from None
        except OSError as fault:
            self.close()
            raise Unavailable(f"{fault.filename or self._path}: {fault.strerror}") from None


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


def _identity(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:
        return (0, 0)
    return status.st_dev, status.st_ino


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(_scalar(connection, f"PRAGMA {pragma}"))


def _scalar(connection: sqlite3.Connection, statement: str) -> int | str:
    value: int | str = connection.execute(statement).fetchone()[0]
    return value


def _primary(fault: sqlite3.Error) -> int:
    """Return SQLite's code without what specifies it; 0 for a fault of Python's side."""
    return int(getattr(fault, "sqlite_errorcode", 0) or 0) & 0xFF


def _is_damage(fault: sqlite3.Error) -> bool:
    return _primary(fault) in _DAMAGE
