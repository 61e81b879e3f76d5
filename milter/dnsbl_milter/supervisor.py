"""The supervisor: holds the sockets, keeps the processes alive, reloads and stops without losing a session.

Floor 4: standard library only. Single-threaded, so that it may fork at any time. It does everything by generations:
a generation is one configuration with the processes that serve it, and never changes; a reload is a new
generation that serves before the old one is told to drain.
"""

import os
import select
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

from dnsbl_milter import child, log, metrics, monitor, notify, worker
from dnsbl_milter.board import Board, Fact, facts
from dnsbl_milter.child import Child
from dnsbl_milter.configuration import Configuration, load
from dnsbl_milter.effective import differences, shown_settings
from dnsbl_milter.listen import ListenError, adopt_socket, open_socket, open_web_socket, remove_socket
from dnsbl_milter.settings import Invalid
from dnsbl_milter.standing import Standing

FIRST_DELAY = 0.1
LONGEST_DELAY = 30.0
STEADY_SECONDS = 60.0
"""A process that has lived this long died of something new, and is replaced without delay."""
PING_SECONDS = 1.0
SILENT_SECONDS = 5.0
"""A worker that has given no sign of life for so long does not count as serving."""

_SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


@dataclass(slots=True, eq=False)
class _Place:
    """A process's place in its generation: who holds it, and when it is filled again if nobody does."""

    task: Callable[[int], child.Task]
    """Makes the task of a process with this number."""
    held: Child | None = None
    due: float = 0.0
    delay: float = 0.0


@dataclass(slots=True, eq=False)
class _Generation:
    """A configuration, and the processes that serve it."""

    configuration: Configuration
    standing: Standing
    workers: list[_Place]
    monitors: list[_Place]
    kill_at: float | None = None
    """When what has not drained by then is killed; None before it is told to drain."""

    @property
    def places(self) -> list[_Place]:
        return [*self.workers, *self.monitors]

    @property
    def serving(self) -> bool:
        return all(place.held is not None and place.held.serving for place in self.workers)

    def living(self) -> Iterator[Child]:
        return (place.held for place in self.places if place.held is not None)


@dataclass(slots=True)
class _Sockets:
    """What is opened once, for all generations."""

    milter: socket.socket
    web: socket.socket | None
    passed: bool
    """The service manager holds the milter's socket, so it outlives us and its path is not ours to remove."""


def run(configuration: Configuration, path: Path | None) -> int:
    """Run the daemon until SIGTERM or SIGINT; return the exit status. Raises `ListenError` before the first fork."""
    return Supervisor(configuration, path, _open_sockets(configuration)).run()


def _open_sockets(configuration: Configuration) -> _Sockets:
    given = notify.passed_sockets()
    endpoint, section = configuration.endpoint, configuration.settings.milter
    if given:
        # Whatever name its unit gave it: there is one socket that we ask a manager for.
        milter = adopt_socket(next(iter(given.values())), endpoint)
    else:
        milter = open_socket(endpoint, int(section.socket_mode, 8))
    listen = configuration.settings.metrics.listen
    try:
        return _Sockets(milter, open_web_socket(listen) if listen else None, bool(given))
    except ListenError:
        if not given:
            remove_socket(endpoint)
        raise


class Supervisor:
    """Keeps the processes of the current generation alive, and ends those of older ones."""

    def __init__(self, configuration: Configuration, path: Path | None, sockets: _Sockets) -> None:
        self._path = path
        self._sockets = sockets
        self._board: Board = facts()
        self._metrics = metrics.make_folder()
        self._current = self._generation(configuration, None)
        self._candidate: _Generation | None = None
        self._old: list[_Generation] = []
        self._reload_again = False
        self._stopping = False
        self._announced = False
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._pinged = 0.0
        self._watchdog = notify.watchdog_seconds()
        # Half of what the watchdog asks for, as sd_watchdog_enabled(3) recommends.
        self._beat = PING_SECONDS if self._watchdog is None else min(PING_SECONDS, self._watchdog / 2)

    def run(self) -> int:
        """Supervise until told to stop and every process has ended; return the exit status."""
        signal.set_wakeup_fd(self._wake)
        for number in _SIGNALS:
            signal.signal(number, _noted)
        configuration = self._current.configuration
        log.info(
            "started",
            pid=os.getpid(),
            socket=configuration.endpoint,
            workers=len(self._current.workers),
            configuration=configuration.source,
            nameservers=",".join(map(str, configuration.nameservers)),
        )
        self._warn(configuration)
        self._reloaded(successful=True)
        while not (self._stopping and not self._old):
            now = time.monotonic()
            self._fill(now)
            self._kill_overdue(now)
            self._ping(now)
            self._wait(now)
        shutil.rmtree(self._metrics, ignore_errors=True)
        log.info("stopped", pid=os.getpid())
        return 0

    def _generation(self, configuration: Configuration, before: Standing | None) -> _Generation:
        # Without a prober nobody would ever lift what was found out before.
        standing = Standing(configuration.policy.lists, before if configuration.settings.health.enabled else None)

        def work(number: int) -> child.Task:
            return partial(_work, configuration, self._sockets.milter, standing, number)

        def watch(number: int) -> child.Task:
            return partial(monitor.serve, configuration, self._sockets.web, self._board, standing, self._metrics)

        count = configuration.settings.milter.workers
        watched = self._sockets.web is not None or configuration.settings.health.enabled
        return _Generation(configuration, standing, [_Place(work) for _ in range(count)], [_Place(watch)] * watched)

    def _generations(self) -> list[_Generation]:
        running = [] if self._stopping else [self._current]
        return [*running, *([self._candidate] if self._candidate else []), *self._old]

    def _fill(self, now: float) -> None:
        """Fill the empty places of the generations that serve or are to serve."""
        for generation in self._generations():
            for place in generation.places:
                if place.held is None and generation.kill_at is None and now >= place.due:
                    taken = {each.number for other in self._generations() for each in other.living()}
                    number = next(number for number in range(len(taken) + 1) if number not in taken)
                    try:
                        place.held = child.fork(place.task(number), number, self._descriptors(), _SIGNALS)
                    except OSError as fault:
                        # Of the host's making (memory, processes, files), and perhaps not for long; the others serve on.
                        self._put_off(place, now)
                        log.error("no new process", fault=fault.strerror, again_in=place.delay)
                        if generation is self._candidate:
                            self._abandon("no process could be started")

    def _descriptors(self) -> list[int]:
        ends = [end for generation in self._generations() for each in generation.living() for end in (each.control, each.signs)]
        return [self._woken, self._wake, *ends]

    def _kill_overdue(self, now: float) -> None:
        for generation in self._old:
            if generation.kill_at is not None and now >= generation.kill_at:
                for held in generation.living():
                    log.warning("killed, its sessions took too long", pid=held.pid)
                    os.kill(held.pid, signal.SIGKILL)
                generation.kill_at = now + LONGEST_DELAY

    def _ping(self, now: float) -> None:
        """Ask for signs of life, count them, and let the service manager's watchdog know of them."""
        if now < self._pinged + self._beat:
            return
        self._pinged = now
        for generation in self._generations():
            for held in generation.living():
                held.tell(worker.PING)
        self._count(now)
        if self._watchdog is not None and self._board[Fact.SERVING]:
            notify.tell("WATCHDOG=1")

    def _count(self, now: float) -> None:
        current = [place.held for place in self._current.workers if place.held] if not self._stopping else []
        alive = [held for held in current if held.heard is not None and now < held.heard + SILENT_SECONDS]
        self._board[Fact.SERVING] = len(alive)
        self._board[Fact.DRAINING] = sum(
            place.held is not None for generation in self._old for place in generation.workers
        )

    def _wait(self, now: float) -> None:
        """Sleep until something happens or is due."""
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        signs = {held.signs: held for generation in self._generations() for held in generation.living()}
        for descriptor in signs:
            poll.register(descriptor, select.POLLIN)
        due = [self._pinged + self._beat]
        for generation in self._generations():
            if generation.kill_at is not None:
                due.append(generation.kill_at)
            else:
                due += [place.due for place in generation.places if place.held is None]
        readable = {descriptor for descriptor, _ in poll.poll(max(min(due) - now, 0) * 1000 + 1)}
        for descriptor in readable & set(signs):
            # The end of a pipe is a death, which SIGCHLD reports.
            signs[descriptor].listen()
        if readable & set(signs):
            self._heard()
        if self._woken in readable:
            for number in os.read(self._woken, 1024):
                self._obey(signal.Signals(number))

    def _heard(self) -> None:
        self._count(time.monotonic())
        if not self._announced and self._current.serving:
            self._announced = True
            log.info("serving", socket=self._current.configuration.endpoint)
            self._tell_ready()
        if self._candidate is not None and self._candidate.serving:
            self._promote(self._candidate)

    def _obey(self, received: signal.Signals) -> None:
        if received is signal.SIGCHLD:
            self._reap()
        elif received is signal.SIGHUP:
            self._reload()
        elif self._stopping:
            for generation in self._old:
                generation.kill_at = time.monotonic()
        else:
            self._stop(received)

    def _reload(self) -> None:
        """Begin a reload, or one more after the one under way: they never overlap."""
        if self._stopping:
            return
        if self._candidate is not None:
            self._reload_again = True
            return
        notify.reloading()
        try:
            configuration = load(self._path)
            self._check_sockets(configuration)
        except Invalid as invalid:
            for place, what in invalid.faults:
                log.error("reload refused", fault=f"{place}: {what}")
            self._reloaded(successful=False)
            return
        self._candidate = self._generation(configuration, self._current.standing)

    def _check_sockets(self, configuration: Configuration) -> None:
        before, after = self._current.configuration.settings, configuration.settings
        changed = [
            ("milter.socket", before.milter.socket, after.milter.socket),
            ("milter.socket_mode", before.milter.socket_mode, after.milter.socket_mode),
            ("metrics.listen", before.metrics.listen, after.metrics.listen),
        ]
        faults = [(key, f"changed from {old!r} to {new!r}, which needs a restart") for key, old, new in changed if old != new]
        if faults:
            raise Invalid([(f"{configuration.source}: {key}", what) for key, what in faults])

    def _promote(self, candidate: _Generation) -> None:
        """Let the new generation take over, and the old one drain."""
        before = self._current
        self._current, self._candidate = candidate, None
        self._drain(before)
        changes = differences(shown_settings(before.configuration), shown_settings(candidate.configuration))
        log.info("reloaded", changes="; ".join(changes) or "none")
        self._warn(candidate.configuration)
        self._reloaded(successful=True)
        self._reload_once_more()

    def _reload_once_more(self) -> None:
        """Do what was asked for while a reload was under way: the file may have changed since it was read."""
        if self._reload_again:
            self._reload_again = False
            self._reload()

    def _abandon(self, why: str) -> None:
        """Give up a generation that did not come to serve."""
        if self._candidate is not None:
            log.error("reload refused", fault=f"{why}; the old ones go on")
            abandoned, self._candidate = self._candidate, None
            self._drain(abandoned)
            self._reloaded(successful=False)
            self._reload_once_more()

    def _reloaded(self, *, successful: bool) -> None:
        self._board[Fact.RELOAD_SUCCESSFUL] = successful
        if successful:
            self._board[Fact.RELOADED_AT] = time.time()
        if self._announced:
            self._tell_ready()

    def _tell_ready(self) -> None:
        refused = "" if self._board[Fact.RELOAD_SUCCESSFUL] else "; the last reload was refused, see the log"
        notify.tell("READY=1", f"STATUS=Serving with {len(self._current.workers)} workers{refused}")

    def _drain(self, generation: _Generation) -> None:
        generation.kill_at = time.monotonic() + generation.configuration.settings.milter.drain_seconds
        for held in generation.living():
            held.tell(child.DRAIN)
        if any(generation.living()):
            self._old.append(generation)
        self._count(time.monotonic())

    def _stop(self, received: signal.Signals) -> None:
        log.info("stopping", signal=received.name, drain_seconds=self._current.configuration.settings.milter.drain_seconds)
        notify.tell("STOPPING=1", "STATUS=Letting open sessions end")
        # The path goes first and now: a successor may bind it while our last sessions still run.
        if not self._sockets.passed:
            remove_socket(self._current.configuration.endpoint)
        self._sockets.milter.close()
        self._stopping = True
        for generation in filter(None, (self._current, self._candidate)):
            self._drain(generation)
        self._candidate = None
        # Or whoever asks for metrics would wait for nobody.
        if self._sockets.web is not None:
            self._sockets.web.close()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for generation in self._generations():
                for place in generation.places:
                    if place.held is not None and place.held.pid == pid:
                        self._bury(generation, place, place.held, os.waitstatus_to_exitcode(status))
            self._old = [generation for generation in self._old if any(generation.living())]
            self._count(time.monotonic())

    def _bury(self, generation: _Generation, place: _Place, dead: Child, status: int) -> None:
        now = time.monotonic()
        dead.close()
        place.held = None
        if generation.kill_at is not None:
            return
        self._put_off(place, now, steady=now - dead.since >= STEADY_SECONDS)
        what = "worker" if place in generation.workers else "monitor"
        log.error(f"{what} died", pid=dead.pid, status=status, restart_in=place.delay)
        self._board[Fact.RESTARTS] += what == "worker"
        self._count(now)
        if generation is self._candidate and what == "worker":
            self._abandon("a new worker died before it served")

    def _put_off(self, place: _Place, now: float, *, steady: bool = False) -> None:
        place.delay = 0.0 if steady else min(max(place.delay * 2, FIRST_DELAY), LONGEST_DELAY)
        place.due = now + place.delay

    def _warn(self, configuration: Configuration) -> None:
        for warning in configuration.warnings:
            log.warning("configuration", warning=warning)


def _work(
    configuration: Configuration, listening: socket.socket, standing: Standing, number: int, control: int, signs: int
) -> NoReturn:
    metrics.share_as(number)
    worker.serve(configuration, listening, standing, control, signs)


def _noted(_number: int, _frame: object) -> None:
    """Let the wake-up descriptor carry the signal into the loop, where it is safe to act on it."""
