"""The prober: asks every list now and then what it must and must not list, and publishes what is thought of it.

Floor 2: standard library only. One thread of the monitor; a worker spends nothing on it. The rounds are spread over
the interval, so that neither the lists nor the resolver see a burst; a failed proof, or a share of clients that jumps,
brings a list's round forward.
"""

import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from dnsbl_milter import advice, log, metrics
from dnsbl_milter.configuration import Configuration
from dnsbl_milter.probe import Examiner, Probe, Role, answers_for, evidence
from dnsbl_milter.repeats import Repeats
from dnsbl_milter.standing import FAMILIES, Standing
from dnsbl_policy import health, shares, symptoms
from dnsbl_policy.answers import Answer, Clear
from dnsbl_policy.health import Record
from dnsbl_policy.shares import Live
from dnsbl_policy.symptoms import Fault, Round, Symptom

THREADS = 8
"""More than a list has questions for both families, so that they are asked at once."""
JITTER = 0.1
"""Of the interval, by which a round comes sooner or later, so that hosts that started together do not ask together."""
FIRST_GAP = 0.1
"""Seconds between the first rounds after the start, when nothing is known of any list."""
_FAILED = ("timeout", "servfail", "refused", "invalid", "blocked")

@dataclass(slots=True)
class _Watched:
    """What the prober keeps about one list between rounds."""

    due: float
    rounds: dict[int, Round] = field(default_factory=dict)
    """The latest of each family that the list serves."""
    window: Live = field(default_factory=Live)
    """What clients were told since the share of those listed was last judged."""
    judged: bool = False
    """Whether it has been judged since the last round."""
    rose: bool = False
    """In any window since the last round; where there was none, what was thought before."""
    deaf: bool = False
    disproved: dict[int, float] = field(default_factory=dict)
    """When it last failed a proof, by family, as far as it has been judged for that."""


class Prober:
    """Watches the lists of one configuration."""

    def __init__(
        self,
        configuration: Configuration,
        standing: Standing,
        folder: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._configuration = configuration
        self._standing = standing
        self._folder = folder
        self._clock = clock
        self._interval = float(configuration.settings.health.interval)
        self._poll = min(max(self._interval / 30, 0.2), 10.0)
        self._lots = random.Random()  # noqa: S311  spreads rounds over time; guards nothing
        dns = configuration.settings.dns
        pool = ThreadPoolExecutor(THREADS, "probe")
        self._examiner = Examiner(configuration.nameservers, dns.deadline, dns.retry, pool)
        now = clock()
        gap = min(FIRST_GAP, self._interval / max(len(standing.lists), 1))
        # What was found out before a reload, or before a monitor that died, still holds.
        self._lists = [
            _Watched(
                now + place * gap,
                rose=any(standing.record(place, version).doubted for version in FAMILIES),
                disproved={version: standing.disproved(place, version) for version in FAMILIES},
            )
            for place in range(len(standing.lists))
        ]
        self._counted = self._read_counters()
        self._repeats = Repeats()

    def start(self) -> None:
        """Watch from now on, in a thread of its own."""
        threading.Thread(target=self._run, name="prober", daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                self.turn()
            except Exception:  # noqa: BLE001  the watch must go on, whatever a server or a file does; it is logged
                if (missed := self._repeats.allow("failed", self._clock())) is not None:
                    log.error("prober failed", exc_info=True, repeated=missed)
            due = min((each.due for each in self._lists), default=self._clock() + self._poll)
            time.sleep(min(max(due - self._clock(), 0.0), self._poll))

    def turn(self) -> None:
        """Take in what the workers have seen, and examine the lists whose turn it is."""
        self._take_in()
        for place, watched in enumerate(self._lists):
            now = self._clock()
            # A clock that was set back would leave a list unwatched for as long.
            if watched.due <= now or watched.due > now + 2 * self._interval:
                spread = self._interval * JITTER
                # From the time it was due, so that what a round takes does not add up, unless that is long past; and set
                # first, so that a round which fails is not begun anew at once.
                following = min(max(watched.due, now - self._interval), now) + self._interval
                watched.due = following + self._lots.uniform(-spread, spread)
                self.examine(place)

    def examine(self, place: int) -> None:
        """Examine one list: ask it, judge it, publish the outcome."""
        one, watched = self._standing.lists[place], self._lists[place]
        controlling = self._examiner.executor.submit(self._examiner.control)
        probes = self._examiner.probe([one])
        control = controlling.result()
        if any(each.role is not Role.LISTED and not isinstance(each.answer, Clear) for each in probes):
            # The resolver may have begun to lie, or have come back to the truth, in between.
            control += self._examiner.control()
        found: dict[int, list[Probe]] = {}
        for each in probes:
            found.setdefault(each.version, []).append(each)
        for version, asked in found.items():
            seen = evidence(asked)
            if not self._standing.serves(place, version):
                if not answers_for(seen):
                    continue
                log.info("list answers", list=one.name, family=FAMILIES[version])
                self._standing.discover(place, version)
            disproved = self._standing.disproved(place, version)
            watched.rounds[version] = replace(
                seen, disproved=disproved != watched.disproved[version], rose=watched.rose, deaf=watched.deaf
            )
            watched.disproved[version] = disproved
        fault = self._judge_resolver(control)
        rewritten = {code for answer in control if not isinstance(answer, Clear) for code in answer.codes}
        for version, round_ in watched.rounds.items():
            symptom = symptoms.diagnose(round_, one.expect.listed, fault, rewritten)
            before = self._standing.record(place, version)
            after = health.step(before, symptom, symptoms.is_clean(round_, fault), self._clock())
            self._standing.publish(place, version, after, self._configuration.settings.cache.max_ttl)
            if after.state is not before.state:
                self._tell(place, version, before, after, found.get(version, ()))
        watched.judged = watched.deaf = False
        if fault is not None or not self._is_believed(place):
            watched.window, watched.rose = Live(), False

    def _judge_resolver(self, control: Iterable[Answer]) -> Fault | None:
        rounds = [
            (symptoms.operator(one), round_)
            for one, watched in zip(self._standing.lists, self._lists, strict=True)
            for round_ in watched.rounds.values()
        ]
        fault, before = symptoms.resolver_fault(control, rounds), self._standing.fault
        if fault is not before:
            self._standing.fault = fault
            nameservers = ",".join(map(str, self._configuration.nameservers))
            if fault is None:
                log.info("resolver is fine again", nameservers=nameservers)
            elif (missed := self._repeats.allow(("resolver", fault), self._clock())) is not None:
                log.warning("resolver at fault", fault=fault, why=advice.RESOLVER[fault], nameservers=nameservers, repeated=missed)
        return fault

    def _tell(self, place: int, version: int, before: Record, after: Record, probes: Sequence[Probe]) -> None:
        missed = self._repeats.allow((place, version, after.state), self._clock())
        if missed is None:
            return
        one = self._standing.lists[place]
        fields: dict[str, object] = {
            "list": one.name,
            "family": FAMILIES[version],
            "from": before.state,
            "to": after.state,
            "why": after.symptom or before.symptom,
            "advice": "" if after.state is health.State.OK else advice.about(one, after.symptom, probes),
            "says": "" if after.state.trusted else self._reason(place, after, probes),
            "repeated": missed,
        }
        (log.info if after.state in (health.State.OK, health.State.PROBATION) else log.warning)("list", **fields)

    def _reason(self, place: int, after: Record, probes: Iterable[Probe]) -> str:
        """Return what the list says for itself, where it answers what it should not."""
        one = self._standing.lists[place]
        if after.symptom not in (Symptom.LISTS_THE_WORLD, Symptom.FAILED_PROOF, Symptom.REFUSES, Symptom.FOREIGN):
            return ""
        guilty = next((each.client for each in probes if each.role is not Role.LISTED), None)
        if guilty is None:
            return ""
        return self._examiner.reason(one, self._configuration.zones.get(one.name, one.zone), guilty)

    def _take_in(self) -> None:
        """Take in what the workers have counted since the last time."""
        counted = self._read_counters()
        for place, (one, watched) in enumerate(zip(self._standing.lists, self._lists, strict=True)):
            before, after = self._counted.get(one.name, Live()), counted.get(one.name, Live())
            # What clients got while the resolver was at fault, or by sessions that outlast a suspension, says nothing.
            if self._standing.fault is None and self._is_believed(place):
                watched.window += after - before
            for version in watched.rounds:
                fresh = self._standing.disproved(place, version) != watched.disproved[version]
                if fresh and self._standing.record(place, version).state.trusted:
                    watched.due = min(watched.due, self._clock())
        self._counted = counted
        self._judge_shares()

    def _judge_shares(self) -> None:
        """Judge the share of clients that each list listed, once there are enough of them.

        Not by and by with its round: who waits for its turn lets a list that lists the innocent harm more of them. What
        workers count knows no family, so a list is doubted for both.
        """
        seen = [(self._standing.baseline(place), watched.window) for place, watched in enumerate(self._lists)]
        accuses = [one.most > 0 for one in self._standing.lists]
        for place, (watched, (baseline, window)) in enumerate(zip(self._lists, seen, strict=True)):
            if window.asked < shares.ENOUGH_CLIENTS:
                continue
            # A wave of spam lifts the lists that speak against senders, and none that speaks for them.
            others = [seen[other] for other in range(len(seen)) if other != place and accuses[other] == accuses[place]]
            rose = shares.rose(baseline, window, others)
            if rose and not watched.rose:
                watched.due = min(watched.due, self._clock())
            self._standing.keep_baseline(place, shares.learned(baseline, window, rose or watched.rose))
            watched.rose = rose or (watched.rose and watched.judged)
            watched.deaf |= shares.is_deaf(window)
            watched.judged, watched.window = True, Live()

    def _is_believed(self, place: int) -> bool:
        """Tell whether a list is asked about clients of any family."""
        return any(self._standing.record(place, version).state.trusted for version in self._lists[place].rounds)

    def _read_counters(self) -> dict[str, Live]:
        return _counts(metrics.counters(self._folder))


def _counts(totals: Mapping[tuple[str, tuple[str, ...]], float]) -> dict[str, Live]:
    """Return what all workers together have seen of each list."""
    asked: dict[str, int] = {}
    listed: dict[str, int] = {}
    failed: dict[str, int] = {}
    for (name, labels), value in totals.items():
        if name == "lookups_total":
            one, outcome = labels
            asked[one] = asked.get(one, 0) + int(value)
            if outcome == "listed":
                listed[one] = int(value)
            elif outcome in _FAILED:
                failed[one] = failed.get(one, 0) + int(value)
    return {one: Live(count, listed.get(one, 0), failed.get(one, 0)) for one, count in asked.items()}
