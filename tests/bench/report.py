"""What the figures say: the table, the plot, and whether each aim was reached."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Figures = Mapping[str, Mapping[str, float]]
"""The medians of a part, by the names of what was measured."""

RATE, CPU, HOST_RATE = "messages_per_second", "cpu_us_per_message", "sessions_per_second"


@dataclass(frozen=True)
class Aim:
    """A ratio that is to be reached: what it says, its part, how it is worked out, and its bound."""

    says: str
    part: str
    ratio: Callable[[Figures], float]
    bound: float
    at_most: bool = False

    def reached(self, value: float) -> bool:
        """Tell whether a value keeps the bound."""
        return value <= self.bound if self.at_most else value >= self.bound


def _rates(over: str, under: str, figure: str = RATE) -> Callable[[Figures], float]:
    return lambda figures: figures[over][figure] / figures[under][figure]


def _added_ms(name: str, floor: str, figure: str) -> Callable[[Figures], float]:
    return lambda figures: (figures[name][figure] - figures[floor][figure]) / 1000


TWO = "dnsbl-milter, 2 workers"
RSPAMD = "rspamd, 2 workers"
RCPT = "rcpt_us_p50"

AIMS = (
    Aim("2 workers, cold / rspamd, cold", "throughput", _rates(f"{TWO}, cold", f"{RSPAMD}, cold"), 1.5),
    Aim("2 workers, warm / rspamd, warm", "throughput", _rates(f"{TWO}, warm", f"{RSPAMD}, warm"), 2.5),
    Aim("1 worker, warm / do-nothing pymilter", "throughput", _rates("dnsbl-milter, 1 worker, warm", "do-nothing pymilter"), 0.9),
    Aim("with metrics and log / without, warm", "operation", _rates("with, warm", "without, warm"), 0.9),
    Aim("CPU of workers when scraped / when not", "operation", _rates("scraped ten times a second, warm", "with, warm", CPU), 1.05, at_most=True),
    Aim("ms added at RCPT, 8 lists of 40 ms", "waits", _added_ms("dnsbl-milter, 8 lists", "do-nothing C", RCPT), 2, at_most=True),
    Aim("ms added at RCPT, 32 lists of 40 ms", "waits", _added_ms("dnsbl-milter, 32 lists", "do-nothing C", RCPT), 2, at_most=True),
    Aim(
        "ms that a dead list adds at RCPT, p99",
        "dead-list",
        _added_ms("dnsbl-milter, one of 8 dead, later", "dnsbl-milter, all 8 alive, later", "rcpt_us_p99"),
        2,
        at_most=True,
    ),
    Aim("32 lists, cold / 8 lists, cold", "growth", _rates("32 lists, cold", "8 lists, cold"), 0.4),
    Aim("32 lists, warm / 8 lists, warm", "growth", _rates("32 lists, warm", "8 lists, warm"), 0.95),
    Aim("bytes of memory per cached client", "cached-clients", lambda figures: max(figures[f"{count:,} cached clients"]["bytes_per_client"] for count in (100_000, 1_000_000)), 700, at_most=True),
    Aim("real Sendmail: sessions with us / with do-nothing C", "mail-hosts", _rates("Sendmail, dnsbl-milter", "Sendmail, do-nothing C", HOST_RATE), 0.97),
)

_COLUMNS = (
    (RATE, "msg/s", "{:,.0f}"),
    (HOST_RATE, "sessions/s", "{:,.0f}"),
    (CPU, "filter's CPU, us/msg", "{:,.0f}"),
    ("generator_us_per_message", "generator's CPU, us/msg", "{:,.0f}"),
    ("rcpt_us_p50", "RCPT p50, us", "{:,.0f}"),
    ("rcpt_us_p99", "RCPT p99, us", "{:,.0f}"),
    ("session_us_p99", "session p99, us", "{:,.0f}"),
    ("waited_us_p50", "all waits p50, us", "{:,.0f}"),
    ("lost_answers_per_message", "lost answers/msg", "{:.3f}"),
    ("bytes_per_client", "bytes/client", "{:,.0f}"),
)


def table(document: Mapping[str, Any]) -> str:
    """Return the results as text: a table a part, then the aims."""
    machine = document["machine"]
    blocks = [
        f"{machine['cpus']} CPUs, Linux {machine['kernel']}, Python {machine['python']}; medians of {document['rounds']} rounds\n"
    ]
    for part, results in document["parts"].items():
        columns = [column for column in _COLUMNS if any(column[0] in each for each in results)]
        rows = [
            [each["name"], *(form.format(each[key]) if key in each else "" for key, _, form in columns)] for each in results
        ]
        blocks.append(_aligned([[part, *(heading for _, heading, _ in columns)], *rows]))
    blocks.append(_aligned([["aim", "measured", "bound", ""], *_aims(document["parts"])]))
    blocks += [f"not started: {name}: {why}\n" for name, why in document["not_started"].items()]
    return "\n".join(blocks)


def _aims(parts: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterable[list[str]]:
    for aim in AIMS:
        if aim.part not in parts:
            continue
        try:
            value = aim.ratio({each["name"]: each for each in parts[aim.part]})
        except KeyError as absent:
            yield [aim.says, f"not measured: {absent.args[0]} is missing", "", ""]
        else:
            bound = f"{'<=' if aim.at_most else '>='} {aim.bound:g}"
            yield [aim.says, f"{value:.3g}", bound, "reached" if aim.reached(value) else "MISSED"]


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:], ""])


def plot(document: Mapping[str, Any], path: Path) -> None:
    """Draw a panel a part: bars, longest figure first as the table has them."""
    import matplotlib as mpl  # noqa: PLC0415  the table is worth having where it is not installed

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    panels = [(part, results, *_shown(results)) for part, results in document["parts"].items()]
    heights = [1 + 0.32 * len(results) for _, results, _, _ in panels]
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(11, sum(heights)), height_ratios=heights, squeeze=False, layout="constrained"
    )
    for (part, results, key, heading), (axis,) in zip(panels, axes, strict=True):
        shown = [each for each in results if key in each][::-1]
        bars = axis.barh(
            [each["name"] for each in shown],
            [each[key] for each in shown],
            color=["#2a6f97" if "dnsbl-milter" in each["name"] or part not in _COMPARED else "#b0b7bf" for each in shown],
        )
        axis.bar_label(bars, fmt="{:,.0f}", padding=4, fontsize=8)
        axis.set_title(f"{part}: {heading}", loc="left", fontsize=10)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.12)
    figure.savefig(path, dpi=110)
    plt.close(figure)


_COMPARED = ("throughput", "mail-hosts", "mail-host-waits", "waits")
"""The parts where others stand beside this milter, whose bars are grey."""


def _shown(results: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Return the figure that a part is about, and its heading."""
    for key in ("waited_us_p50", HOST_RATE, RATE):
        if any(key in each for each in results):
            return key, next(heading for each, heading, _ in _COLUMNS if each == key)
    raise KeyError(results)
