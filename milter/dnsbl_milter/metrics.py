"""What is counted: every metric, its labels and their values, declared here and nowhere else.

Floor 2: the home of prometheus-client. Labels never hold a client, an address or a key.

Workers write into files of their own, which the monitor reads and adds up (multiprocess mode). As process identifier
serves a small number that the supervisor hands out and takes back at death: with process ids the files would
pile up for ever, and two living processes on one number would lose counts (2,000 read as 1,352).
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, exposition, values
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from dnsbl_policy.actions import Action
from dnsbl_policy.allow import Exemption
from dnsbl_policy.answers import Answer, Clear, Listed
from dnsbl_policy.lists import DnsList
from dnsbl_policy.scoring import Verdict

OUTCOMES = ("listed", "clear", "timeout", "servfail", "refused", "blocked", "invalid")
DROPS = (Action.DEFER, Action.QUARANTINE, Action.REJECT, Action.DISCARD)
MEMORY = ("deferred", "early", "passed", "known", "unavailable")
PROOFS = ("sane", "failed", "unanswered")
CALLBACKS = ("negotiate", "connect", "hello", "envfrom", "envrcpt", "header", "eom", "abort", "close")

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_SCORES = (-10, -5, -2, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20)

Labels = tuple[str, ...]


def share_as(number: int) -> None:
    """Write the counters that this process makes from now on to the files of this number.

    prometheus-client decides at import whether to share, when nobody knows the number and the folder yet.
    """
    values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]  # untyped there


class Metrics:
    """The counters of one process. Every label value is resolved and born at zero here, and never looked up again."""

    def __init__(self, lists: Iterable[DnsList]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        names = list(dict.fromkeys(one.name for one in lists))
        labels = [(one.name, rule.label) for one in lists for rule in one.rules]
        actions = [(str(action),) for action in Action]
        drops = [(str(action), name) for action in DROPS for name in names]
        tags = [(str(Action.TAG), name) for name in names]
        softened = [(str(hard), str(mild)) for hard in DROPS for mild in (Action.TAG, *DROPS) if mild < hard]
        by_list = [(name,) for name in names]

        self.connections = Counter("dnsbl_connections", "SMTP connections.", registry=self._registry)
        self._exempt = self._counters("exempt", "Not judged, by why not.", ["reason"], [(why,) for why in Exemption])
        self._recipients = self._counters("recipients", "Recipients, by what was done.", ["action"], actions)
        self._messages = self._counters("messages", "Messages seen to the end, by what was done.", ["action"], actions)
        self._drops = self._counters("drops", "Recipients kept out, by contributing list.", ["action", "list"], drops)
        self._decisive = self._counters(
            "decisive", "Actions that would have been milder without the list.", ["action", "list"], [*tags, *drops]
        )
        self._observed = self._counters(
            "observed", "What observe mode or lists on observation would have done.", ["action"], actions
        )
        self._hits = self._counters("list_hits", "Clients that a list lists.", ["list", "label"], labels)
        self._lookups = self._counters(
            "lookups", "Questions, by what became of them.", ["list", "outcome"], [(n, o) for n in names for o in OUTCOMES]
        )
        self._lookup_seconds = self._histograms("lookup_seconds", "How long a list took.", ["list"], by_list, _SECONDS)
        self._wait = Histogram(
            "dnsbl_wait_seconds", "What a recipient waited.", buckets=_SECONDS, registry=self._registry
        )
        self._score = Histogram("dnsbl_score", "Scores of recipients.", buckets=_SCORES, registry=self._registry)
        self._memory = self._counters("memory", "What memory said of deferrals.", ["result"], [(r,) for r in MEMORY])
        self._cache = self._counters("cache_lookups", "Clients found in the cache.", ["result"], [("hit",), ("miss",)])
        self._proofs = self._counters(
            "proofs", "Proofs asked of lists before a drop.", ["list", "result"], [(n, r) for n in names for r in PROOFS]
        )
        self._softened = self._counters("softened", "Actions that silence made milder.", ["from", "to"], softened)
        self._errors = self._counters(
            "callback_errors", "Faults of ours; mail passed.", ["callback"], [(name,) for name in CALLBACKS]
        )

    def exempted(self, reason: Exemption) -> None:
        """Count a client, message or recipient that is not judged."""
        self._exempt[(reason,)].inc()

    def cached(self, hit: bool) -> None:
        """Count a client that was, or was not, known to the last list."""
        self._cache[("hit" if hit else "miss",)].inc()

    def looked_up(self, name: str, answer: Answer, seconds: float | None) -> None:
        """Count what became of a question to a list."""
        outcome = (
            "listed" if isinstance(answer, Listed) else "clear" if isinstance(answer, Clear) else str(answer.why)
        )
        self._lookups[(name, outcome)].inc()
        if seconds is not None:
            self._lookup_seconds[(name,)].observe(seconds)

    def judged(self, verdict: Verdict, waited: float) -> None:
        """Count the verdict on a connection: what lists said, and what their saying it cost in seconds."""
        for contribution in (*verdict.contributions, *verdict.observed):
            self._hits[(contribution.list, contribution.label)].inc()
        self._wait.observe(waited)

    def decided(self, verdict: Verdict, done: Action) -> None:
        """Count a recipient."""
        self._recipients[(str(done),)].inc()
        if verdict.exempt is not None:
            return
        self._score.observe(verdict.score / 100)
        if done is Action.ACCEPT:
            return
        for name in verdict.decisive:
            self._decisive[(str(done), name)].inc()
        if done in DROPS:
            for name in verdict.accusers:
                self._drops[(str(done), name)].inc()
        if verdict.softened:
            self._softened[(str(verdict.asked), str(done))].inc()

    def observed(self, action: Action) -> None:
        """Count what would have been done if observation were over."""
        self._observed[(str(action),)].inc()

    def finished(self, action: Action) -> None:
        """Count a message seen to its end."""
        self._messages[(str(action),)].inc()

    def remembered(self, result: str) -> None:
        """Count what memory said of a deferral."""
        self._memory[(result,)].inc()

    def proved(self, name: str, result: str) -> None:
        """Count a list's answer to a proof."""
        self._proofs[(name, result)].inc()

    def failed(self, callback: str) -> None:
        """Count a fault of ours."""
        self._errors[(callback,)].inc()

    def _counters(self, name: str, says: str, labels: Sequence[str], born: Iterable[Labels]) -> dict[Labels, Counter]:
        parent = Counter(f"dnsbl_{name}", says, labels, registry=self._registry)
        return {tuple(label): parent.labels(*label) for label in born}

    def _histograms(
        self, name: str, says: str, labels: Sequence[str], born: Iterable[Labels], buckets: Sequence[float]
    ) -> dict[Labels, Histogram]:
        parent = Histogram(f"dnsbl_{name}", says, labels, buckets=buckets, registry=self._registry)
        return {tuple(label): parent.labels(*label) for label in born}


@dataclass(frozen=True, slots=True)
class Gauge:
    """A value that holds now: its name without the prefix, what it says, and its samples by label values."""

    name: str
    says: str
    labels: tuple[str, ...]
    samples: Sequence[tuple[Labels, float]]
    counter: bool = False


@dataclass(frozen=True, slots=True)
class _Scrape(Collector):
    folder: Path
    gauges: Sequence[Gauge]
    open_metrics: bool = False

    def collect(self) -> Iterator[Metric]:
        # A worker that begins makes its file first and fills it then; prometheus-client stumbles over an empty one.
        files = [str(file) for file in self.folder.glob("*.db") if file.stat().st_size]
        for metric in MultiProcessCollector.merge(files, accumulate=True):  # type: ignore[no-untyped-call]  # untyped there
            # A sum that can fall is no counter: OpenMetrics forbids it, and the count, beside buckets below zero.
            if self.open_metrics and any(float(sample.labels.get("le", 0)) < 0 for sample in metric.samples):
                metric.samples = [sample for sample in metric.samples if "le" in sample.labels]
            yield metric
        for gauge in self.gauges:
            family = CounterMetricFamily if gauge.counter else GaugeMetricFamily
            metric = family(f"dnsbl_{gauge.name}", gauge.says, labels=gauge.labels)
            for labels, value in gauge.samples:
                metric.add_metric(labels, value)
            yield metric


def render(folder: Path, gauges: Sequence[Gauge], accept: str) -> tuple[bytes, str]:
    """Return what a scrape reads, and its content type: the workers' counters added up, and the gauges of the moment.

    OpenMetrics where the reader asks for it.
    """
    encoder, content_type = exposition.choose_encoder(accept)
    return encoder(_Scrape(folder, gauges, "openmetrics" in content_type)), content_type


def totals(folder: Path) -> dict[tuple[str, Labels], float]:
    """Return every counter by its name without prefix and its label values, added up over all workers."""
    return _samples(_Scrape(folder, ()).collect())


def counters(folder: Path) -> dict[tuple[str, Labels], float]:
    """Return the same without the histograms, which lie in other files: in less than half of the time."""
    files = [str(file) for file in folder.glob("counter_*.db")]
    return _samples(MultiProcessCollector.merge(files))  # type: ignore[no-untyped-call]  # untyped there


def _samples(families: Iterable[Metric]) -> dict[tuple[str, Labels], float]:
    return {
        (sample.name.removeprefix("dnsbl_"), tuple(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def median(counts: Mapping[tuple[str, Labels], float], name: str, label: str) -> float | None:
    """Return about the median of a histogram with one label, by its buckets; None if it is empty."""
    buckets = sorted(
        (float(labels[-1] if labels[0] == label else labels[0]), value)
        for (each, labels), value in counts.items()
        if each == f"{name}_bucket" and label in labels
    )
    if not buckets or not buckets[-1][1]:
        return None
    below, low = 0.0, 0.0
    for bound, value in buckets:
        if value >= buckets[-1][1] / 2:
            # As PromQL does it: evenly spread within the bucket; beyond the last bound nothing is known.
            return low if bound == float("inf") else low + (bound - low) * (buckets[-1][1] / 2 - below) / (value - below)
        below, low = value, bound
    return None


def build_info(version: str, libmilter: str) -> Gauge:
    """Return the gauge that tells what runs."""
    python = ".".join(map(str, sys.version_info[:3]))
    return Gauge("build_info", "What runs.", ("version", "python", "libmilter"), [((version, python, libmilter), 1)])
