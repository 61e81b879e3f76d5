"""The memory's file: begun, opened, found to be another one, damaged and moved aside.

Floor 2: with `memory_sqlite`, which knows what is in it, the home of sqlite3.

Whatever fails but a lock closes the file, and the next call opens it anew: so a disk that was full or read-only
heals by itself. A damaged file is moved aside, and the workers that still have it open see that the path
leads elsewhere. Opening and replacing happen under a lock on the folder, or one worker might move aside what
another has just begun.
"""

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from dnsbl_milter import log
from dnsbl_milter.memory_engine import Unavailable
from dnsbl_milter.repeats import Repeats

APPLICATION = 0x646E736D
"""Marks a file as ours ("dnsm"), so that another program's database is neither used nor moved aside."""

BUSY_SECONDS = 0.5
_LOG_PAGES = 4000
"""Pages in the log, of 4 kB, from which the one who wrote the last folds them into the file and waits for the disk. With
SQLite's thousand that is one decision in 300, and on a busy disk the 99th percentile; so it is one in 1,200."""

_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class MemoryFile:
    """A connection to the file, for one thread at a time."""

    def __init__(self, path: Path, schema: str, version: int, *, create: bool) -> None:
        """Open nothing yet. Without `create`, a file that is missing or damaged stays so."""
        self.path = path
        self._schema = schema
        self._version = version
        self._create = create
        self._connection: sqlite3.Connection | None = None
        self._opened = (0, 0)
        """Device and number of the file that is open, which need no longer be the one at the path."""
        self._repeats = Repeats()

    def open(self) -> sqlite3.Connection:
        """Return a connection to the file that is at the path now. Raises what `errors` turns into `Unavailable`."""
        if self._connection is not None and _identity(self.path) == self._opened:
            return self._connection
        self.close()
        with self._folder_locked():
            try:
                self._connection = self._connect()
            except sqlite3.DatabaseError as fault:
                if not self.may_replace(fault):
                    raise
                self._move_aside(fault)
                self._connection = self._connect()
            self._opened = _identity(self.path)
        return self._connection

    def close(self) -> None:
        """Close the file; the next call opens it anew."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # SQLite leaves the log of a file that was moved away alone, as it must: a new one has taken its name.
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def may_replace(self, fault: sqlite3.Error) -> bool:
        """Tell whether a fault means damage that we may do something about."""
        return self._create and _code(fault) in _DAMAGE

    def replace(self, fault: sqlite3.Error) -> None:
        """Move the file that is open aside, unless another worker has done so already."""
        self.close()
        with self._folder_locked():
            if _identity(self.path) == self._opened:
                self._move_aside(fault)

    def size(self) -> int:
        """Return the bytes of the file and of its log."""
        return sum(path.stat().st_size for path in (self.path, self._beside("-wal")) if path.exists())

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what SQLite and the system raise into `Unavailable`."""
        try:
            yield
        except sqlite3.Error as fault:
            if _code(fault) != sqlite3.SQLITE_BUSY:
                self.close()
            raise Unavailable(f"{self.path}: {fault}") from None
        except OSError as fault:
            self.close()
            raise Unavailable(f"{fault.filename or self.path}: {fault.strerror}") from None

    def _connect(self) -> sqlite3.Connection:
        if self._create:
            # Before SQLite does it with the permissions of the umask; what stands beside a file inherits its own.
            # O_EXCL, for closing a file that SQLite has open too would drop SQLite's locks on it.
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
                # What a file that somebody removed has left is not the new one's.
                for suffix in ("-wal", "-shm"):
                    self._beside(suffix).unlink(missing_ok=True)
        elif not self.path.exists():
            raise Unavailable(f"{self.path} does not exist; nothing has been remembered yet")
        connection = sqlite3.connect(
            f"file:{quote(str(self.path))}?mode=rw",
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
        empty = not _scalar(connection, "SELECT count(*) FROM sqlite_master")
        if not empty and application != APPLICATION:
            raise Unavailable(f"{self.path} is another program's database; give the memory a file of its own")
        if version > self._version:
            raise Unavailable(
                f"{self.path} has version {version} and this program knows {self._version}: a newer dnsbl-milter wrote it"
            )
        mode = _scalar(connection, "PRAGMA journal_mode = WAL")
        if mode != "wal":
            raise Unavailable(f"{self.path} cannot have a write-ahead log (journal mode {mode})")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {_LOG_PAGES * 4096}")
        if empty:
            marks = f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {self._version};"
            connection.executescript(f"BEGIN IMMEDIATE; {self._schema} {marks} COMMIT;")

    def _move_aside(self, fault: sqlite3.Error) -> None:
        # One of them is kept, or a bad disk would fill itself with them. The log goes with it, and may help to mend it.
        aside = self._beside(".damaged")
        for suffix in ("-wal", "-shm", ""):
            target = aside.with_name(aside.name + suffix)
            target.unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                self._beside(suffix).rename(target)
        # A disk that is dying damages each new file too.
        if (missed := self._repeats.allow("damaged", time.monotonic())) is not None:
            log.warning("memory damaged, begun anew", file=self.path, moved_to=aside, why=str(fault), repeated=missed)

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    @contextlib.contextmanager
    def _folder_locked(self) -> Iterator[None]:
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)


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


def _code(fault: sqlite3.Error) -> int:
    """Return SQLite's code without what specifies it; 0 for a fault of Python's side."""
    return int(getattr(fault, "sqlite_errorcode", None) or 0) & 0xFF
