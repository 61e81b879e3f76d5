"""Memory as a worker sees it: one call a decision, which never raises, never hangs, and costs nobody their mail.

Floor 2. Opens the engine that is configured, and stands between it and the sessions.

Each worker opens a memory of its own, after the fork: neither SQLite's files nor a connection to Redis may be taken
through one. A reload's new workers open theirs beside the old ones, which is what the engines are made for anyway.

The engine works in threads of its own, and a session waits for them so long and no longer. Timeouts of the
libraries alone would not do: nothing bounds the look-up of a server's name, or a write to a dying disk.
"""

import importlib.util
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from urllib.parse import parse_qsl, urlsplit

from dnsbl_milter import log
from dnsbl_milter.memory_engine import Engine, Unavailable
from dnsbl_milter.memory_sqlite import SqliteEngine
from dnsbl_milter.repeats import Repeats
from dnsbl_milter.settings import MemorySection
from dnsbl_policy.greylist import Recollection, Terms, triplet
from dnsbl_policy.lists import Client

DEADLINE_SECONDS = 1.0
"""What a recipient may wait; several times the engines' own timeouts, for there may be a queue."""
FAILURES = 3
"""In a row; after that memory is left alone."""
PAUSE_SECONDS = 1.0
"""Between two who try a memory that is left alone: at worst one recipient a second waits in vain."""

_SQLITE = "sqlite://"
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


class Memory:
    """One worker's way to what is remembered; any thread may ask."""

    def __init__(
        self,
        engine: Engine | None,
        *,
        deadline: float = DEADLINE_SECONDS,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take an engine; None remembers nothing, so that every attempt is the first."""
        self._engine = engine
        self._deadline = deadline
        self._timer = timer
        self._repeats = Repeats()
        self._breaker = _Breaker(engine.name if engine else "", timer)
        self._threads = ThreadPoolExecutor(engine.threads if engine else 1, "memory")
        if engine is not None:
            # Nobody waits for it, but what is wrong is in the log from the start, and not from the first deferral on.
            self._threads.submit(self._check, engine)

    def recall(self, client: Client, sender: str, recipient: str, now: float) -> Recollection:
        """Answer an attempt, and remember it; addresses without their angle brackets, `now` by the wall's clock."""
        if self._engine is None:
            return Recollection.DEFERRED
        if not self._breaker.admits():
            return Recollection.UNAVAILABLE
        try:
            asked = self._threads.submit(self._engine.recall, triplet(client, sender, recipient), now)
            try:
                recollection = asked.result(self._deadline)
            finally:
                asked.cancel()
        except Unavailable as fault:
            self._breaker.failed(str(fault))
        except TimeoutError:
            self._breaker.failed(f"no answer within {self._deadline:g} s")
        except Exception:  # noqa: BLE001  a bug of ours must not cost anybody mail; it is logged
            if (missed := self._repeats.allow("a bug", self._timer())) is not None:
                log.error("memory failed", exc_info=True, engine=self._engine.name, repeated=missed)
            self._breaker.failed("a bug, see the traceback")
        else:
            self._breaker.answered()
            return recollection
        return Recollection.UNAVAILABLE

    def close(self) -> None:
        """Give everything back. A worker that leaves need not: whatever it remembered is written."""
        if self._engine is not None:
            self._threads.submit(self._engine.close)
        self._threads.shutdown()

    def _check(self, engine: Engine) -> None:
        try:
            engine.check()
        except Unavailable as fault:
            self._breaker.failed(str(fault))


def open_memory(section: MemorySection) -> Memory:
    """Open the memory that is configured. Raises ValueError where `url_fault` finds any."""
    return Memory(open_engine(section))


def open_engine(section: MemorySection, *, create: bool = True, patience: float | None = None) -> Engine | None:
    """Return the engine that is configured, or None for none.

    A command does without `create`, so that it leaves a file that is missing or damaged to the daemon, and may have more
    patience with a server; in seconds. Raises ValueError for an address that can never work.
    """
    terms = Terms(section.delay, section.window, section.remember)
    if not section.url:
        return None
    if section.url.startswith(_SQLITE):
        return SqliteEngine(Path(section.url.removeprefix(_SQLITE)), terms, create=create)
    if importlib.util.find_spec("redis") is None:
        raise ValueError("needs redis-py, which is not installed: pip install 'dnsbl-milter[fleet]'")
    # Imported here, for it is an extra that a host with SQLite does without.
    from dnsbl_milter.memory_redis import TIMEOUT_SECONDS, RedisEngine  # noqa: PLC0415

    return RedisEngine(section.url, terms, section.password_file, patience or TIMEOUT_SECONDS)


def url_fault(section: MemorySection) -> str | None:
    """Return why the address can never work, beyond its form, or None."""
    try:
        engine = open_engine(section)
    except ValueError as fault:
        return str(fault)
    if engine is not None:
        engine.close()
    return None


def unreadable(section: MemorySection) -> list[str]:
    """Return what is wrong with the files that the section names.

    For warnings and not for faults: a credential of systemd's is there for the service and for nobody else.
    """
    options = parse_qsl(urlsplit(section.url).query)
    files = [("password_file", section.password_file), *(option for option in options if option[0] in _FILES)]
    found: list[str] = []
    for key, file in files:
        if file:
            try:
                Path(file).open("rb").close()
            except OSError as fault:
                found.append(f"memory: {key}: {file}: {fault.strerror}")
    return found


class _Breaker:
    """Leaves a memory alone that has failed several times in a row, and says so: once, and a few times an hour."""

    def __init__(self, engine: str, timer: Callable[[], float]) -> None:
        self._engine = engine
        self._timer = timer
        self._lock = Lock()
        self._failures = 0
        self._since = 0.0
        self._due = 0.0
        """When the next one may try."""
        self._told = ""
        """Why it is unavailable, as the log has it; empty where the log does not say that it is."""
        self._repeats = Repeats()

    def admits(self) -> bool:
        """Tell whether to ask; of those who ask a memory that is left alone, one at a time may."""
        if self._failures < FAILURES:
            return True
        with self._lock:
            now = self._timer()
            if now < self._due:
                return False
            self._due = now + PAUSE_SECONDS
            return True

    def failed(self, why: str) -> None:
        """Note a failure."""
        with self._lock:
            now = self._timer()
            if not self._failures:
                self._since = now
            self._failures += 1
            self._due = now + PAUSE_SECONDS
            # Tried at each failure until it may be said, or the log would end on "available again" during a long outage.
            if why != self._told and (missed := self._repeats.allow("unavailable", now)) is not None:
                self._told = why
                log.warning("memory unavailable, nobody is deferred", engine=self._engine, why=why, repeated=missed)

    def answered(self) -> None:
        """Note an answer."""
        if not self._failures:
            return
        with self._lock:
            failures, self._failures = self._failures, 0
            told, self._told = self._told, ""
            if told:
                seconds = round(self._timer() - self._since, 1)
                log.info("memory available again", engine=self._engine, failures=failures, seconds=seconds)
