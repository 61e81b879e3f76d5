"""What the monitor knows and shows: metrics of the moment, the state of health, and the status page.

Floor 4: standard library only. A look costs the workers nothing: their counters lie in shared files.
"""

import json
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from dnsbl_milter import __version__, advice, log, metrics, page, pauses, worker
from dnsbl_milter.board import Board, Fact
from dnsbl_milter.configuration import Configuration
from dnsbl_milter.effective import as_toml, shown_settings
from dnsbl_milter.metrics import Gauge
from dnsbl_milter.pauses import Pauses
from dnsbl_milter.standing import FAMILIES, Standing
from dnsbl_milter.today import Today
from dnsbl_policy.actions import Action
from dnsbl_policy.allow import Exemption
from dnsbl_policy.health import State
from dnsbl_policy.lists import DnsList
from dnsbl_policy.points import written
from dnsbl_policy.symptoms import Fault

_KINDS = {State.OK: "good", State.SUSPECT: "warn", State.SUSPENDED: "bad", State.PROBATION: "warn"}

Page = Callable[[str], tuple[HTTPStatus, str, bytes]]
"""From the Accept header to a status, a content type and a body."""


class Watch:
    """What the monitor knows, and shows."""

    def __init__(self, configuration: Configuration, board: Board, standing: Standing, folder: Path) -> None:
        self._configuration = configuration
        self._board = board
        self._standing = standing
        self._folder = folder
        self._pauses = Pauses(pauses.file())
        self._paused: frozenset[str] = frozenset()
        self._today = Today(folder / "today.json")
        self.pages: dict[str, Page] = {"/": self._status, "/metrics": self._metrics, "/healthz": self._health}

    def note_pauses(self) -> None:
        """Log what has been paused or resumed since the last time."""
        paused, before = self._pauses.names(), self._paused
        self._paused = paused
        for name in sorted(paused - before):
            log.warning("paused", list=name)
        for name in sorted(before - paused):
            log.info("resumed", list=name)

    def gauges(self) -> list[Gauge]:
        """Return what holds at this moment."""
        board = self._board
        paused = self._pauses.names()
        return [
            metrics.build_info(__version__, worker.libmilter_version()),
            Gauge(
                "workers",
                "Worker processes.",
                ("state",),
                [(("serving",), board[Fact.SERVING]), (("draining",), board[Fact.DRAINING])],
            ),
            Gauge(
                "paused",
                "Lists on observation until they are resumed; * is everything.",
                ("list",),
                [((name,), name in paused) for name in (pauses.EVERYTHING, *self._configuration.zones)],
            ),
            Gauge("worker_restarts", "Workers that died.", (), [((), board[Fact.RESTARTS])], counter=True),
            Gauge(
                "config_last_reload_successful",
                "Whether the last reload took effect.",
                (),
                [((), board[Fact.RELOAD_SUCCESSFUL])],
            ),
            Gauge(
                "config_last_reload_success_timestamp_seconds",
                "When the policy in force was loaded.",
                (),
                [((), board[Fact.RELOADED_AT])],
            ),
            Gauge(
                "list_state",
                "What is thought of each list: 1 for its state.",
                ("list", "family", "state"),
                [
                    ((name, family, str(state)), float(state is current))
                    for name, family, current in self._list_states()
                    for state in State
                ],
            ),
            Gauge(
                "resolver_fault",
                "What is wrong with the resolver: 1 for what is.",
                ("fault",),
                [((str(fault),), float(fault is self._standing.fault)) for fault in Fault],
            ),
        ]

    def _list_states(self) -> list[tuple[str, str, State]]:
        """Return the state of each list for each family that it serves, or may come to serve."""
        return [
            (one.name, family, self._standing.record(place, version).state)
            for place, one in enumerate(self._standing.lists)
            for version, family in FAMILIES.items()
            if one.may_serve(version)
        ]

    def _status(self, _accept: str) -> tuple[HTTPStatus, str, bytes]:
        return HTTPStatus.OK, "text/html; charset=utf-8", page.render(self.status(time.time())).encode()

    def status(self, now: float) -> page.Status:
        """Return what the status page shows; `now` is seconds since the epoch."""
        board, settings = self._board, self._configuration.settings
        since, counts = self._today.since(metrics.totals(self._folder), now)

        def count(name: str, *labels: str) -> int:
            return int(counts.get((name, labels), 0))

        serving, draining = int(board[Fact.SERVING]), int(board[Fact.DRAINING])
        observing = settings.actions.mode == "observe"
        paused = sorted(self._pauses.names())
        mode = " (observe mode: no mail is touched)" if observing else ""
        return page.Status(
            version=__version__,
            health=page.Mood("serving" + mode, "good") if serving else page.Mood(self._why_not(), "bad"),
            workers=f"workers: {serving} serving, {draining} draining, {int(board[Fact.RESTARTS])} died",
            loaded=time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(board[Fact.RELOADED_AT])),
            reload=page.Mood("took effect", "good") if board[Fact.RELOAD_SUCCESSFUL] else page.Mood("refused, see the log", "bad"),
            paused=["everything" if name == pauses.EVERYTHING else name for name in paused],
            recipients=[(str(action), count("recipients_total", str(action))) for action in Action],
            messages=sum(count("messages_total", str(action)) for action in Action),
            connections=count("connections_total"),
            exempt=sum(count("exempt_total", reason) for reason in Exemption),
            since=since,
            at=time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now)),
            resolver="" if self._standing.fault is None else f"{self._standing.fault}: {advice.RESOLVER[self._standing.fault]}",
            lists=[self._row(one, counts) for one in self._configuration.policy.lists],
            policy=as_toml(_public(shown_settings(self._configuration))),
        )

    def _row(self, one: DnsList, counts: Mapping[tuple[str, tuple[str, ...]], float]) -> page.ListRow:
        outcomes = {outcome: int(counts.get(("lookups_total", (one.name, outcome)), 0)) for outcome in metrics.OUTCOMES}
        weights = [f"{rule.label}\N{NO-BREAK SPACE}{written(rule.weight, sign=True)}".strip() for rule in one.rules]
        median = metrics.median(counts, "lookup_seconds", one.name)
        return page.ListRow(
            name=one.name + (" (observed)" if one.observe else ""),
            states=self._states(one),
            weight=", ".join(weights),
            asked=sum(outcomes.values()),
            listed=outcomes["listed"],
            failed=sum(outcomes.values()) - outcomes["listed"] - outcomes["clear"],
            milliseconds=None if median is None else round(median * 1000, 1),
            decisive=int(sum(value for (name, labels), value in counts.items() if name == "decisive_total" and labels[1] == one.name)),
        )

    def _states(self, one: DnsList) -> list[page.Mood]:
        states = {family: state for name, family, state in self._list_states() if name == one.name}
        # Both families' states are one word where they are the same.
        alike = len(set(states.values())) == 1
        named = {f"{state}" if alike else f"{state} {family}": state for family, state in states.items()}
        unusual = [page.Mood(name, _KINDS[state]) for name, state in named.items() if state is not State.OK]
        paused = [page.Mood("paused", "warn")] if one.name in self._pauses.names() else []
        return paused + unusual or [page.Mood("ok", "good")]

    def _metrics(self, accept: str) -> tuple[HTTPStatus, str, bytes]:
        text, content_type = metrics.render(self._folder, self.gauges(), accept)
        return HTTPStatus.OK, content_type, text

    def _why_not(self) -> str:
        return "stopping" if self._board[Fact.STOPPING] else "no worker serves"

    def _health(self, _accept: str) -> tuple[HTTPStatus, str, bytes]:
        serving = int(self._board[Fact.SERVING])
        document = {
            "status": "ok" if serving else self._why_not(),
            "workers": {"serving": serving, "draining": int(self._board[Fact.DRAINING])},
            "reload_successful": bool(self._board[Fact.RELOAD_SUCCESSFUL]),
            # No reason for another status: mail flows without them.
            "lists": {
                f"{name} {family}": str(state)
                for name, family, state in self._list_states()
                if state is not State.OK
            },
            "resolver": self._standing.fault and str(self._standing.fault),
        }
        status = HTTPStatus.OK if serving else HTTPStatus.SERVICE_UNAVAILABLE
        return status, "application/json", json.dumps(document).encode()


def _public(shown: dict[str, Any]) -> dict[str, Any]:
    """Return the settings without the addresses of people: who is allowed is shown as how many."""
    allowed = {key: f"{len(value)} entries" if isinstance(value, list) else value for key, value in shown["allow"].items()}
    return shown | {"allow": allowed}
