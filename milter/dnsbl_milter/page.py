"""The status page: what an administrator wants to see first, in one look and without a script.

Floor 2: standard library only. Plain values in, HTML out; nothing on it comes from a client.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8888; --good: #1a7f37; --bad: #cf222e; --warn: #9a6700; }
@media (prefers-color-scheme: dark) { :root { --good: #3fb950; --bad: #f85149; --warn: #d29922; } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem; }
h1 { font-size: 1.35rem; margin: 0; } h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
p { margin: .2rem 0; } .soft { color: var(--soft); }
.good { color: var(--good); } .bad { color: var(--bad); font-weight: 600; } .warn { color: var(--warn); font-weight: 600; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; min-width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .8rem .25rem 0; text-align: left; white-space: nowrap; }
th { font-weight: 600; } td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
pre { border: 1px solid var(--line); border-radius: 6px; font-size: 13px; overflow-x: auto; padding: .6rem .8rem; }
"""

Cell = str | int | float | None


@dataclass(frozen=True, slots=True)
class Mood:
    """A word that is good, bad or a warning."""

    text: str
    kind: str


@dataclass(frozen=True, slots=True)
class ListRow:
    """A list as the page shows it; counts are of today."""

    name: str
    states: Sequence[Mood]
    weight: str
    asked: int
    listed: int
    failed: int
    milliseconds: float | None
    """The median of its answers; None without any."""
    decisive: int


@dataclass(frozen=True, slots=True)
class Status:
    """All that is on the page."""

    version: str
    health: Mood
    loaded: str
    reload: Mood
    workers: str
    paused: Sequence[str]
    recipients: Sequence[tuple[str, int]]
    messages: int
    connections: int
    exempt: int
    since: str
    lists: Sequence[ListRow] = ()
    policy: str = field(default="", repr=False)


def render(status: Status) -> str:
    """Return the page."""
    paused = "".join(f'<p class="warn">On observation: {escape(name)}</p>' for name in status.paused)
    recipients = _table(["recipients", "count"], status.recipients)
    lists = _table(
        ["list", "state", "weight", "asked", "listed", "share", "no answer", "median ms", "decisive"],
        [
            (
                row.name,
                row.states,
                row.weight,
                row.asked,
                row.listed,
                f"{row.listed / row.asked:.1%}" if row.asked else "",
                row.failed,
                row.milliseconds,
                row.decisive,
            )
            for row in status.lists
        ],
    )
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>dnsbl-milter</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>
<body><h1>dnsbl-milter <span class="soft">{escape(status.version)}</span></h1>
<p>{_mood(status.health)} · {escape(status.workers)}</p>{paused}
<h2>Mail since {escape(status.since)}</h2>
<p>{status.connections} connections, {status.exempt} not judged, {status.messages} messages seen to their end</p>
{recipients}
<h2>Lists</h2>{lists}
<h2>Policy</h2>
<p>In force since {escape(status.loaded)} · last reload: {_mood(status.reload)}</p>
<details><summary>The effective policy</summary><pre>{escape(status.policy)}</pre></details>
<p class="soft"><a href="/metrics">metrics</a> · <a href="/healthz">health</a></p>
</body></html>
"""


def _table(heads: Sequence[str], rows: Iterable[Sequence[Cell | Sequence[Mood]]]) -> str:
    body = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows)
    numbers = {"count", "asked", "listed", "share", "no answer", "median ms", "decisive"}
    head = "".join(f'<th{" class=number" if name in numbers else ""}>{escape(name)}</th>' for name in heads)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _cell(value: Cell | Sequence[Mood]) -> str:
    if isinstance(value, str):
        return f'<td class="number">{escape(value)}</td>' if value.endswith("%") else f"<td>{escape(value)}</td>"
    if value is None or isinstance(value, int | float):
        return f'<td class="number">{"" if value is None else f"{value:,}"}</td>'
    return f"<td>{' '.join(map(_mood, value))}</td>"


def _mood(mood: Mood) -> str:
    return f'<span class="{mood.kind}">{escape(mood.text)}</span>'
