"""A generation: one configuration with the processes that serve it, which never changes; a reload makes another one.

Floor 4: standard library only. What happens to all generations together is the supervisor's.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NoReturn

from dnsbl_milter import child, log, metrics, monitor, worker
from dnsbl_milter.board import Board
from dnsbl_milter.child import Child
from dnsbl_milter.configuration import Configuration
from dnsbl_milter.sockets import Sockets
from dnsbl_milter.standing import Standing

FIRST_DELAY = 0.1
LONGEST_DELAY = 30.0
STEADY_SECONDS = 60.0
"""A process that has lived this long died of something new, and is replaced without delay."""
SILENT_SECONDS = 5.0
"""A worker that has given no sign of life for so long does not count as serving."""
LOST_SECONDS = 30.0
"""A process that has been asked for so long and gave no sign of life is killed and replaced: it is stuck, for one that
is merely starved of time has come to its turn by then."""
LAST_ANSWER_SECONDS = 2.0
"""For the monitor to end what it is answering, when the daemon stops and nothing else holds that up."""


@dataclass(slots=True, eq=False)
class Place:
    """A process's place in its generation: who holds it, and when it is filled again if nobody does."""

    task: Callable[[int], child.Task]
    """Makes the task of a process with this number."""
    held: Child | None = None
    due: float = 0.0
    delay: float = 0.0

    def put_off(self, now: float, *, steady: bool = False) -> None:
        """Have it filled later, and later each time, unless who held it was steady."""
        self.delay = 0.0 if steady else min(max(self.delay * 2, FIRST_DELAY), LONGEST_DELAY)
        self.due = now + self.delay


@dataclass(slots=True, eq=False)
class Generation:
    """A configuration, and the processes that serve it."""

    configuration: Configuration
    standing: Standing
    workers: list[Place]
    monitors: list[Place]
    since: float = field(default_factory=time.monotonic)
    kill_at: float | None = None
    """When what has not drained by then is killed; None before it is told to drain."""

    @property
    def serving(self) -> bool:
        """Tell whether every worker has said that it serves."""
        return all(place.held is not None and place.held.serving for place in self.workers)

    @property
    def places(self) -> list[Place]:
        """Return the places of all its processes."""
        return [*self.workers, *self.monitors]

    def living(self) -> Iterator[Child]:
        """Return its processes."""
        return (place.held for place in self.places if place.held is not None)

    def living_workers(self) -> list[Child]:
        """Return its workers."""
        return [place.held for place in self.workers if place.held is not None]

    def answering(self, now: float) -> int:
        """Return how many workers have lately given a sign of life."""
        return sum(held.heard is not None and now < held.heard + SILENT_SECONDS for held in self.living_workers())

    def empty(self, now: float) -> list[Place]:
        """Return the places that are to be filled now; there are none once it is told to drain."""
        return [place for place in self.places if place.held is None and self.kill_at is None and now >= place.due]

    def due(self) -> list[float]:
        """Return when something is to be done about it, should nothing happen until then."""
        if self.kill_at is not None:
            return [self.kill_at]
        return [place.due for place in self.places if place.held is None]

    def ping(self) -> None:
        """Ask everybody for a sign of life."""
        for held in self.living():
            held.tell(worker.PING)
            held.unanswered += 1

    def kill_lost(self, beat: float) -> None:
        """Kill whoever holds a place and does nothing there; it is asked every `beat` seconds."""
        # In questions, not by the clock: while we ourselves stood still nobody was asked.
        patience = round(LOST_SECONDS / beat)
        for place in self.places:
            # Past it too: one may have been silent before its generation came to serve.
            if place.held is not None and place.held.unanswered and place.held.unanswered % patience == 0:
                log.error(f"{self._kind(place)} killed, it gave no sign of life", pid=place.held.pid, seconds=LOST_SECONDS)
                os.kill(place.held.pid, signal.SIGKILL)

    def kill_hung(self) -> None:
        """Kill whoever has never served: it has no session, and would not hear the word to drain."""
        for held in self.living():
            if not held.serving:
                os.kill(held.pid, signal.SIGKILL)

    def kill_overdue(self, now: float) -> None:
        """Kill what has not drained in its time."""
        if self.kill_at is not None and now >= self.kill_at:
            workers = self.living_workers()
            what = "sessions" if workers else "answers"
            for held in workers or self.living():
                log.warning(f"killed, its {what} took too long", pid=held.pid)
                os.kill(held.pid, signal.SIGKILL)
            self.kill_at = now + LONGEST_DELAY

    def drain(self, now: float, *, watched: bool = False) -> None:
        """Let it end its sessions and leave; while it is watched, its monitor stays until `end_watch`."""
        self.kill_at = now + self.configuration.settings.milter.drain_seconds
        for place in self.workers if watched else self.places:
            if place.held is not None:
                place.held.tell(child.DRAIN)

    def end_watch(self, now: float) -> None:
        """Let the monitor go too, and soon; the workers have gone."""
        last = now + LAST_ANSWER_SECONDS
        self.kill_at = min(self.kill_at or last, last)
        for held in self.living():
            held.tell(child.DRAIN)

    def bury(self, pid: int, status: int, now: float) -> str:
        """Empty the place of a process that has ended; return what died if that was not meant, else nothing."""
        for place in self.places:
            if place.held is None or place.held.pid != pid:
                continue
            dead, place.held = place.held, None
            dead.close()
            if self.kill_at is not None:
                break
            place.put_off(now, steady=now - dead.since >= STEADY_SECONDS)
            log.error(f"{self._kind(place)} died", pid=pid, status=status, restart_in=place.delay)
            return self._kind(place)
        return ""

    def _kind(self, place: Place) -> str:
        return "worker" if place in self.workers else "monitor"


def beget(
    configuration: Configuration, before: Standing | None, sockets: Sockets, board: Board, folder: Path
) -> Generation:
    """Return a generation without processes; `before` is what the one before it knew of its lists."""
    # Without a prober nobody would ever lift what was found out before.
    standing = Standing(configuration.policy.lists, before if configuration.settings.health.enabled else None)

    def work(place: int, number: int) -> child.Task:
        return partial(_work, configuration, sockets, standing, place, number)

    def watch(_number: int) -> child.Task:
        return partial(_watch, configuration, sockets, board, standing, folder)

    count = configuration.settings.milter.workers
    watched = sockets.web is not None or configuration.settings.health.enabled
    return Generation(configuration, standing, [Place(partial(work, place)) for place in range(count)], [Place(watch)] * watched)


def _work(
    configuration: Configuration, sockets: Sockets, standing: Standing, place: int, number: int, control: int, signs: int
) -> NoReturn:
    log.start(configuration.settings.log.format, configuration.settings.log.level)
    metrics.share_as(number)
    worker.serve(configuration, sockets.keep_milter(), standing, place, control, signs)


def _watch(
    configuration: Configuration, sockets: Sockets, board: Board, standing: Standing, folder: Path, control: int, signs: int
) -> NoReturn:
    monitor.serve(configuration, sockets.keep_web(), board, standing, folder, control, signs)
