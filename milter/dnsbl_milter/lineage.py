"""All generations of one daemon: the one that serves, a candidate that is to, and those that drain.

Floor 4: standard library only. It starts their processes and sees them end; when one follows another the supervisor says.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from signal import Signals

from dnsbl_milter import child, log
from dnsbl_milter.child import Child
from dnsbl_milter.generation import Generation


@dataclass(slots=True)
class Lineage:
    """The generations of one daemon."""

    current: Generation
    candidate: Generation | None = None
    draining: list[Generation] = field(default_factory=list)
    stopping: bool = False
    """No generation serves any more, and none is to; whoever lives drains."""

    def living(self) -> list[Child]:
        """Return all processes."""
        return [held for generation in self._all() for held in generation.living()]

    def serving(self, now: float) -> int:
        """Return how many workers serve, and have lately given a sign of life."""
        return 0 if self.stopping else self.current.answering(now)

    def draining_workers(self) -> int:
        """Return how many workers drain."""
        return sum(len(generation.living_workers()) for generation in self.draining)

    def due(self) -> list[float]:
        """Return when something is to be done, should nothing happen until then."""
        return [moment for generation in self._all() for moment in generation.due()]

    def fill(self, now: float, foreign: Iterable[int], signals: Iterable[Signals]) -> bool:
        """Fill the empty places, with processes that close the `foreign` descriptors; False if a candidate's stays empty."""
        for generation in self._all():
            for place in generation.empty(now):
                siblings = self.living()
                taken = {each.number for each in siblings}
                number = next(number for number in range(len(taken) + 1) if number not in taken)
                ends = [end for each in siblings for end in (each.control, each.signs)]
                try:
                    place.held = child.fork(place.task(number), number, [*foreign, *ends], signals)
                except OSError as fault:
                    # Of the host's making (memory, processes, files), and perhaps not for long; the others serve on.
                    place.put_off(now)
                    log.error("no new process", fault=fault.strerror, again_in=place.delay)
                    if generation is self.candidate:
                        return False
        return True

    def ping(self, beat: float) -> None:
        """Ask everybody for a sign of life, as every `beat` seconds, and kill who serves and has long given none."""
        for generation in self._all():
            generation.ping()
        if not self.stopping:
            self.current.kill_lost(beat)

    def kill_overdue(self, now: float) -> None:
        """Kill what has not drained in its time."""
        for generation in self.draining:
            generation.kill_overdue(now)

    def promote(self, candidate: Generation, now: float) -> Generation:
        """Let the candidate serve and the one before drain; return the one before."""
        before, self.current, self.candidate = self.current, candidate, None
        self._drain(before, now)
        return before

    def give_up(self, now: float) -> None:
        """Let the candidate leave."""
        if self.candidate is not None:
            self._drain(self.candidate, now)
            self.candidate = None

    def stop(self, now: float, *, watched: bool) -> None:
        """Let everybody leave; who is watched keeps its monitor until the last worker has gone."""
        self.stopping = True
        self._drain(self.current, now, watched=watched)
        self.give_up(now)
        self._end_watch(now)

    def bury(self, pid: int, status: int, now: float) -> tuple[str, Generation | None]:
        """Take note of an end; return what died, if that was not meant, and in which generation."""
        died: tuple[str, Generation | None] = ("", None)
        for generation in self._all():
            if what := generation.bury(pid, status, now):
                died = what, generation
        self.draining = [generation for generation in self.draining if any(generation.living())]
        self._end_watch(now)
        return died

    def _drain(self, generation: Generation, now: float, *, watched: bool = False) -> None:
        generation.drain(now, watched=watched)
        if any(generation.living()):
            self.draining.append(generation)

    def _end_watch(self, now: float) -> None:
        """Let the monitor go too, once the daemon stops and no worker is left to watch."""
        if self.stopping and not self.draining_workers():
            for generation in self.draining:
                generation.end_watch(now)

    def _all(self) -> list[Generation]:
        running = [] if self.stopping else [self.current]
        return [*running, *([self.candidate] if self.candidate else []), *self.draining]
