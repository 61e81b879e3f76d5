"""Counters since midnight, out of counters that only ever rise.

Floor 2: standard library only. What stood on the counters at midnight is kept in a file, so that a reload, which brings a
new monitor, does not forget the morning.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path

Totals = Mapping[tuple[str, tuple[str, ...]], float]


class Today:
    """The difference between the counters now and those of last midnight, or of the daemon's start."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def since(self, totals: Totals, now: float) -> tuple[str, dict[tuple[str, tuple[str, ...]], float]]:
        """Return since when the counts are, in words, and the counts; `now` is seconds since the epoch."""
        day = time.strftime("%Y-%m-%d", time.localtime(now))
        kept_day, began, base = self._kept()
        if kept_day != day:
            first = kept_day is None
            began = time.strftime("%H:%M", time.localtime(now)) if first else "midnight"
            base = {} if first else dict(totals)
            self._keep(day, began, base)
        return began, {key: value - base.get(key, 0.0) for key, value in totals.items()}

    def _kept(self) -> tuple[str | None, str, dict[tuple[str, tuple[str, ...]], float]]:
        try:
            document = json.loads(self._file.read_text("utf-8"))
            return document["day"], document["began"], {(n, tuple(labels)): v for n, labels, v in document["base"]}
        except (OSError, ValueError, KeyError, TypeError):
            return None, "", {}

    def _keep(self, day: str, began: str, base: Totals) -> None:
        rows = [[name, list(labels), value] for (name, labels), value in base.items()]
        self._file.write_text(json.dumps({"day": day, "began": began, "base": rows}), "utf-8")
