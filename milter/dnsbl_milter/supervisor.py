"""The supervisor: opens the milter's socket once, keeps workers on it, and ends them without losing a session.

Floor 4: standard library only. Single-threaded, so that it may fork at any time.
"""

import os
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass
from typing import NoReturn

from dnsbl_milter import log, worker
from dnsbl_milter.configuration import Configuration
from dnsbl_milter.listen import open_socket, remove_socket

FIRST_DELAY = 0.1
LONGEST_DELAY = 30.0
STEADY_SECONDS = 60.0
"""A worker that has lived this long died of something new, and is replaced without delay."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


@dataclass(slots=True)
class _Place:
    """A worker's place: who holds it now, and when it is filled again if nobody does."""

    pid: int = 0
    control: int = -1
    ready: int = -1
    """The pipe's end on which the worker says that it serves; -1 once it has said so, or has ended."""
    serving: bool = False
    since: float = 0.0
    due: float = 0.0
    delay: float = 0.0


def run(configuration: Configuration) -> int:
    """Run the daemon until SIGTERM or SIGINT; return the exit status. Raises `ListenError` before the first fork."""
    listening = open_socket(configuration.endpoint, int(configuration.settings.milter.socket_mode, 8))
    return Supervisor(configuration, listening).run()


class Supervisor:
    """Keeps the workers of one configuration alive."""

    def __init__(self, configuration: Configuration, listening: socket.socket) -> None:
        self._configuration = configuration
        self._listening = listening
        self._places = [_Place() for _ in range(configuration.settings.milter.workers)]
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._announced = False
        self._killing_at: float | None = None
        """When what has not ended by itself is killed; None while not stopping."""

    def run(self) -> int:
        """Supervise until told to stop and every worker has ended; return the exit status."""
        signal.set_wakeup_fd(self._wake)
        for number in _SIGNALS:
            signal.signal(number, _noted)
        log.info(
            "started",
            pid=os.getpid(),
            socket=self._configuration.endpoint,
            workers=len(self._places),
            configuration=self._configuration.source,
            nameservers=",".join(map(str, self._configuration.nameservers)),
        )
        for warning in self._configuration.warnings:
            log.warning("configuration", warning=warning)
        while True:
            now = time.monotonic()
            if self._killing_at is None:
                for place in self._places:
                    if not place.pid and now >= place.due:
                        self._fork(place)
            elif not any(place.pid for place in self._places):
                log.info("stopped", pid=os.getpid())
                return 0
            elif now >= self._killing_at:
                self._kill()
            self._wait(now)

    def _wait(self, now: float) -> None:
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        for place in self._places:
            if place.ready >= 0:
                poll.register(place.ready, select.POLLIN)
        due = [place.due for place in self._places if not place.pid] if self._killing_at is None else [self._killing_at]
        timeout = max(min(due) - now, 0) * 1000 + 1 if due else None
        readable = {descriptor for descriptor, _ in poll.poll(timeout)}
        for place in self._places:
            if place.ready in readable:
                self._hear(place)
        if self._woken in readable:
            for number in os.read(self._woken, 1024):
                self._obey(signal.Signals(number))

    def _obey(self, received: signal.Signals) -> None:
        if received is signal.SIGCHLD:
            self._reap()
        elif self._killing_at is None:
            self._stop(received)
        else:
            self._killing_at = time.monotonic()

    def _hear(self, place: _Place) -> None:
        """Take a worker's word that it serves; an end without a word is a death, which SIGCHLD reports."""
        place.serving = bool(os.read(place.ready, 1))
        os.close(place.ready)
        place.ready = -1
        if not self._announced and all(each.serving for each in self._places):
            self._announced = True
            log.info("serving", socket=self._configuration.endpoint)

    def _fork(self, place: _Place) -> None:
        control_read, control_write = os.pipe()
        ready_read, ready_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._become_worker(control_read, ready_write, (control_write, ready_read))
        os.close(control_read)
        os.close(ready_write)
        place.pid, place.control, place.ready, place.since = pid, control_write, ready_read, time.monotonic()

    def _become_worker(self, control: int, ready: int, others: tuple[int, ...]) -> NoReturn:
        """Turn the child into a worker. An exception here must never run the supervisor's code again."""
        try:
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            # A Ctrl-C goes to the terminal's whole group, and libmilter would end every session by it.
            os.setpgid(0, 0)
            # With a sibling's end of its control pipe in here, that sibling would not see the supervisor die.
            for descriptor in (self._woken, self._wake, *others):
                os.close(descriptor)
            for place in self._places:
                for descriptor in (place.control, place.ready):
                    if descriptor >= 0:
                        os.close(descriptor)
            worker.serve(self._configuration, self._listening, control, ready)
        except BaseException:  # noqa: BLE001  whatever it is, this process must end here; it is logged
            log.error("worker failed", exc_info=True, pid=os.getpid())
            sys.stderr.flush()
        finally:
            os._exit(1)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for place in self._places:
                if place.pid == pid:
                    self._bury(place, os.waitstatus_to_exitcode(status))

    def _bury(self, place: _Place, status: int) -> None:
        now = time.monotonic()
        pid, place.pid, place.serving = place.pid, 0, False
        os.close(place.control)
        if place.ready >= 0:
            os.close(place.ready)
        place.control = place.ready = -1
        if self._killing_at is not None:
            return
        steady = now - place.since >= STEADY_SECONDS
        place.delay = 0.0 if steady else min(max(place.delay * 2, FIRST_DELAY), LONGEST_DELAY)
        place.due = now + place.delay
        log.error("worker died", pid=pid, status=status, restart_in=place.delay)

    def _stop(self, received: signal.Signals) -> None:
        seconds = self._configuration.settings.milter.drain_seconds
        log.info("stopping", signal=received.name, drain_seconds=seconds)
        self._killing_at = time.monotonic() + seconds
        # The path goes first and now: a successor may bind it while our last sessions still run.
        remove_socket(self._configuration.endpoint)
        self._listening.close()
        for place in self._places:
            if place.pid:
                os.write(place.control, b"d")

    def _kill(self) -> None:
        for place in self._places:
            if place.pid:
                log.warning("worker killed, its sessions took too long", pid=place.pid)
                os.kill(place.pid, signal.SIGKILL)
        self._killing_at = time.monotonic() + LONGEST_DELAY


def _noted(_number: int, _frame: object) -> None:
    """Let the wake-up descriptor carry the signal into the loop, where it is safe to act on it."""
