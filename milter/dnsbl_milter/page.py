"""The status page: what an administrator wants to see first, in one look and without a script.

Floor 2: standard library only. Plain values in, HTML out; nothing on it comes from a client. A wide screen gets a table of
the lists, a narrow one a card for each; nothing is ever hidden to the right.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

_STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1f2328; --soft: #59636e; --line: #d1d9e0; --tint: #f6f8fa;
  --link: #0550ae; --good: #116329; --bad: #b3101f; --warn: #7d4e00; }
@media (prefers-color-scheme: dark) { :root { --back: #0d1117; --text: #e6edf3; --soft: #9aa4af; --line: #333b45;
  --tint: #161b22; --link: #79b8ff; --good: #56d364; --bad: #ff7b72; --warn: #e3b341; } }
body { background: var(--back); color: var(--text); font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 76rem;
  overflow-wrap: anywhere; padding: 1.25rem 1rem 2rem; }
h1 { font-size: 1.4rem; margin: 0; } h1 small { font-weight: 400; } h2 { font-size: 1.1rem; margin: 2rem 0 .3rem; }
p { margin: .25rem 0; } small, .soft { color: var(--soft); } small { font-size: .85em; } a { color: var(--link); }
.good { color: var(--good); } .bad { color: var(--bad); font-weight: 600; } .warn { color: var(--warn); font-weight: 600; }
.note { background: var(--tint); border-left: 4px solid currentcolor; margin: .6rem 0; padding: .4rem .8rem; }
dl { display: grid; gap: .5rem; grid-template-columns: repeat(auto-fit, minmax(6.5rem, 1fr)); margin: .6rem 0; }
dl div { background: var(--tint); border: 1px solid var(--line); border-radius: 6px; padding: .35rem .75rem .5rem; }
dt { color: var(--soft); } dd { font-size: 1.35rem; line-height: 1.2; margin: 0; }
dd, .number { font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; margin: .6rem 0; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .4rem 1.2rem .4rem 0; text-align: left; vertical-align: baseline; }
thead th { color: var(--soft); font-weight: 400; white-space: nowrap; } .state { min-width: 8.5rem; } tbody th { font-weight: 600; min-width: 9rem; }
.number { padding-right: 0; padding-left: 1.2rem; text-align: right; white-space: nowrap; }
summary { cursor: pointer; } pre { background: var(--tint); border: 1px solid var(--line); border-radius: 6px;
  font-size: 13px; overflow-x: auto; overflow-wrap: normal; padding: .6rem .8rem; }
@media (max-width: 50rem) {
  thead { display: none; } table, tbody { display: block; } table { border-top: 1px solid var(--line); }
  tr { border-bottom: 1px solid var(--line); display: grid; gap: .25rem 1rem; grid-template-columns: repeat(3, 1fr);
    padding: .7rem 0; }
  th, td, .number { border: 0; padding: 0; text-align: left; white-space: normal; } th { grid-column: 1 / -1; }
  .state { min-width: 0; } .weight { grid-column: 2 / -1; } .weight::before { color: var(--soft); content: "weight "; }
  .number::before { color: var(--soft); content: attr(data-label); display: block; font-size: .85em; }
}
"""

_NONE = "\N{EN DASH}"
_NUMBERS = ("asked", "listed", "share", "no answer", "median ms", "decisive")


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
    at: str
    """When all this held."""
    resolver: str = ""
    """What is wrong with the resolver, and what to do about it; empty for nothing."""
    lists: Sequence[ListRow] = ()
    policy: str = field(default="", repr=False)


def render(status: Status) -> str:
    """Return the page."""
    notes = [Mood(f"Resolver at fault: {status.resolver}", "bad")] if status.resolver else []
    notes += [Mood(f"On observation: {name}", "warn") for name in status.paused]
    # The icon is an empty one, or a browser would ask for /favicon.ico.
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>dnsbl-milter</title><link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>
<body><h1>dnsbl-milter <small>{escape(status.version)}</small></h1>
<p>{_mood(status.health)} · {escape(status.workers)} · <span class="soft">as of {escape(status.at)}</span></p>
{"".join(f'<p class="note {note.kind}">{escape(note.text)}</p>' for note in notes)}
<h2>Mail since {escape(status.since)}</h2>
<p>{_count(status.connections, "connection")}, {status.exempt:,} not judged, {_count(status.messages, "message")} seen to the
end; recipients by what was done:</p>
<dl>{"".join(f"<div><dt>{escape(action)}</dt><dd{_quiet(count)}>{count:,}</dd></div>" for action, count in status.recipients)}</dl>
<h2>Lists</h2>
{_table(status.lists)}
<p class="soft">Since {escape(status.since)}. Asked: questions to the list; share: listed, of those asked; no answer: silence, a
failure, or what no list answers; decisive: recipients whose action would have been milder without the list.</p>
<h2>Policy</h2>
<p>In force since {escape(status.loaded)} · last reload: {_mood(status.reload)}</p>
<details><summary>The effective policy</summary><pre>{escape(status.policy)}</pre></details>
<p class="soft"><a href="/metrics">metrics</a> · <a href="/healthz">health</a></p>
</body></html>
"""


def _table(rows: Iterable[ListRow]) -> str:
    heads = "".join(f'<th scope="col" class="number">{name}</th>' for name in _NUMBERS)
    body = "".join(map(_row, rows))
    return (
        '<table><thead><tr><th scope="col">list</th><th scope="col">state</th><th scope="col">weight</th>'
        f"{heads}</tr></thead><tbody>{body}</tbody></table>"
    )


def _row(row: ListRow) -> str:
    share = f"{row.listed / row.asked:.1%}" if row.asked else _NONE
    median = _NONE if row.milliseconds is None else f"{row.milliseconds:,}"
    shown = (f"{row.asked:,}", f"{row.listed:,}", share, f"{row.failed:,}", median, f"{row.decisive:,}")
    values = (row.asked, row.listed, row.listed, row.failed, row.milliseconds, row.decisive)
    numbers = "".join(
        f'<td class="number{" soft" * (not value)}" data-label="{name}">{text}</td>'
        for name, text, value in zip(_NUMBERS, shown, values, strict=True)
    )
    states = ", ".join(map(_mood, row.states))
    return f'<tr><th scope="row">{escape(row.name)}</th><td class="state">{states}</td><td class="weight">{escape(row.weight)}</td>{numbers}</tr>'


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def _quiet(count: int) -> str:
    return "" if count else ' class="soft"'


def _mood(mood: Mood) -> str:
    return f'<span class="{mood.kind}">{escape(mood.text)}</span>'
