"""The supervisor: signals, reloads, the watchdog and the end, without losing a session.

Floor 4: standard library only. Single-threaded, so that it may fork at any time. It does everything by generations:
a reload is a new generation that serves before the old one is told to drain.
"""

import os
import select
import shutil
import signal
import time
from pathlib import Path

from dnsbl_milter import log, notify
from dnsbl_milter.board import Board, Fact, facts
from dnsbl_milter.configuration import Configuration, load
from dnsbl_milter.effective import differences, shown_settings
from dnsbl_milter.generation import Generation, beget
from dnsbl_milter.lineage import Lineage
from dnsbl_milter.scratch import FolderError, make_folder
from dnsbl_milter.settings import Invalid
from dnsbl_milter.sockets import Sockets, check_unchanged, open_sockets

PING_SECONDS = 1.0
CANDIDATE_SECONDS = 30.0
"""How long the workers of a new configuration may take to serve: many times what a start takes on a busy host, for
whoever takes longer hangs, and no other reload can begin until this one has ended."""

_SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


def run(configuration: Configuration, path: Path | None) -> int:
    """Run the daemon until SIGTERM or SIGINT; return the exit status.

    Raises `ListenError` or `FolderError` before the first fork.
    """
    sockets = open_sockets(configuration)
    try:
        folder = make_folder()
    except FolderError:
        sockets.close()
        raise
    return Supervisor(configuration, path, sockets, folder).run()


class Supervisor:
    """Sees that one generation serves at any time, and that another follows it when it is told to."""

    def __init__(self, configuration: Configuration, path: Path | None, sockets: Sockets, folder: Path) -> None:
        self._path = path
        self._sockets = sockets
        self._board: Board = facts()
        self._folder = folder
        self._lineage = Lineage(beget(configuration, None, sockets, self._board, folder))
        self._reload_again = False
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
        configuration = self._lineage.current.configuration
        log.info(
            "started",
            pid=os.getpid(),
            socket=configuration.endpoint,
            workers=len(self._lineage.current.workers),
            configuration=configuration.source,
            nameservers=",".join(map(str, configuration.nameservers)),
        )
        _warn(configuration)
        self._reloaded(successful=True)
        while not self._lineage.stopping or self._lineage.draining:
            now = time.monotonic()
            if not self._lineage.fill(now, (self._woken, self._wake), _SIGNALS):
                self._abandon("no process could be started")
            self._lineage.kill_overdue(now)
            self._refuse_overdue(now)
            self._ping(now)
            self._wait(now)
        shutil.rmtree(self._folder, ignore_errors=True)
        log.info("stopped", pid=os.getpid())
        return 0

    def _ping(self, now: float) -> None:
        """Ask for signs of life, count them, and let the service manager's watchdog know of them."""
        if now < self._pinged + self._beat:
            return
        self._pinged = now
        self._lineage.ping(self._beat)
        self._count(now)
        if self._watchdog is not None and self._board[Fact.SERVING]:
            notify.tell("WATCHDOG=1")

    def _count(self, now: float) -> None:
        self._board[Fact.SERVING] = self._lineage.serving(now)
        self._board[Fact.DRAINING] = self._lineage.draining_workers()

    def _wait(self, now: float) -> None:
        """Sleep until something happens or is due."""
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        signs = {held.signs: held for held in self._lineage.living()}
        for descriptor in signs:
            poll.register(descriptor, select.POLLIN)
        due = [self._pinged + self._beat, *self._lineage.due()]
        if self._lineage.candidate is not None:
            due.append(self._lineage.candidate.since + CANDIDATE_SECONDS)
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
        if not self._announced and self._lineage.current.serving:
            self._announced = True
            log.info("serving", socket=self._lineage.current.configuration.endpoint)
            self._tell_ready()
        candidate = self._lineage.candidate
        if candidate is not None and candidate.serving:
            self._promote(candidate)

    def _obey(self, received: signal.Signals) -> None:
        if received is signal.SIGCHLD:
            self._reap()
        elif received is signal.SIGHUP:
            self._reload()
        elif self._lineage.stopping:
            for generation in self._lineage.draining:
                generation.kill_at = time.monotonic()
        else:
            self._stop(received)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            now = time.monotonic()
            died, generation = self._lineage.bury(pid, os.waitstatus_to_exitcode(status), now)
            self._board[Fact.RESTARTS] += died == "worker"
            self._count(now)
            if died == "worker" and generation is self._lineage.candidate:
                self._abandon("a new worker died before it served")

    def _reload(self) -> None:
        """Begin a reload, or one more after the one under way: they never overlap."""
        if self._lineage.stopping:
            return
        if self._lineage.candidate is not None:
            self._reload_again = True
            return
        notify.reloading()
        try:
            configuration = load(self._path)
            check_unchanged(self._lineage.current.configuration, configuration)
        except Invalid as invalid:
            for place, what in invalid.faults:
                log.error("reload refused", fault=f"{place}: {what}")
            self._reloaded(successful=False)
            return
        before = self._lineage.current.standing
        self._lineage.candidate = beget(configuration, before, self._sockets, self._board, self._folder)

    def _promote(self, candidate: Generation) -> None:
        """Let the new generation take over, and the old one drain."""
        now = time.monotonic()
        before, after = self._lineage.promote(candidate, now).configuration, candidate.configuration
        self._count(now)
        log.start(after.settings.log.format, after.settings.log.level)
        log.info("reloaded", changes="; ".join(differences(shown_settings(before), shown_settings(after))) or "none")
        _warn(after)
        self._reloaded(successful=True)
        self._reload_once_more()

    def _refuse_overdue(self, now: float) -> None:
        """Give up a candidate that hangs."""
        candidate = self._lineage.candidate
        if candidate is not None and now >= candidate.since + CANDIDATE_SECONDS:
            candidate.kill_hung()
            self._abandon(f"the new workers did not serve within {CANDIDATE_SECONDS:g} seconds")

    def _abandon(self, why: str) -> None:
        """Give up a candidate that did not come to serve."""
        log.error("reload refused", fault=f"{why}; the old ones go on")
        now = time.monotonic()
        self._lineage.give_up(now)
        self._count(now)
        self._reloaded(successful=False)
        self._reload_once_more()

    def _reload_once_more(self) -> None:
        """Do what was asked for while a reload was under way: the file may have changed since it was read."""
        if self._reload_again:
            self._reload_again = False
            self._reload()

    def _reloaded(self, *, successful: bool) -> None:
        self._board[Fact.RELOAD_SUCCESSFUL] = successful
        if successful:
            self._board[Fact.RELOADED_AT] = time.time()
        if self._announced:
            self._tell_ready()

    def _tell_ready(self) -> None:
        refused = "" if self._board[Fact.RELOAD_SUCCESSFUL] else "; the last reload was refused, see the log"
        notify.tell("READY=1", f"STATUS=Serving with {len(self._lineage.current.workers)} workers{refused}")

    def _stop(self, received: signal.Signals) -> None:
        drain_seconds = self._lineage.current.configuration.settings.milter.drain_seconds
        log.info("stopping", signal=received.name, drain_seconds=drain_seconds)
        notify.tell("STOPPING=1", "STATUS=Letting open sessions end")
        self._sockets.close()
        self._board[Fact.STOPPING] = True
        now = time.monotonic()
        # How the drain goes is there to be read, and /healthz says that nobody is to come any more. But where a
        # successor may start before we have gone, it needs the port.
        self._lineage.stop(now, watched=notify.is_managed())
        self._count(now)


def _warn(configuration: Configuration) -> None:
    for warning in configuration.warnings:
        log.warning("configuration", warning=warning)


def _noted(_number: int, _frame: object) -> None:
    """Let the wake-up descriptor carry the signal into the loop, where it is safe to act on it."""
