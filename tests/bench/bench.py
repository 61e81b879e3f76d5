"""Measures this milter beside what an administrator would use instead, on the same work in one run.

tests/bench/run [PART...] runs it where it can: in the enclosure, with everything installed.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "contrib")]

from measure import Clients, Load  # noqa: E402
from parts import PARTS, Bench  # noqa: E402
from report import plot, table  # noqa: E402

ROUNDS, SESSIONS = 5, 6000


def main(output: Path, wanted: list[str]) -> int:
    """Measure the parts that are wanted, or all; write a table, a plot and JSON; return the exit status."""
    unknown = [name for name in wanted if name not in PARTS]
    if unknown:
        print(f"bench: no part is called {', '.join(unknown)}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    clients, missing = Clients(), dict[str, str]()
    measured: dict[str, object] = {}
    for name in wanted or PARTS:
        print(f"{name}: {(PARTS[name].__doc__ or '').partition(chr(10))[0]}", file=sys.stderr, flush=True)
        folder = Path("/run/bench") / name
        folder.mkdir(parents=True)
        bench = Bench(folder, Load(folder, clients), ROUNDS, SESSIONS, missing)
        measured[name] = [each.as_json() for each in PARTS[name](bench)]
    document = {
        "machine": {"cpus": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()},
        "rounds": ROUNDS,
        "sessions_a_round": SESSIONS,
        "not_started": missing,
        "parts": measured,
    }
    output.mkdir(parents=True, exist_ok=True)
    (output / "bench.json").write_text(json.dumps(document, indent=1) + "\n")
    (output / "bench.txt").write_text(table(document))
    plot(document, output / "bench.png")
    print((output / "bench.txt").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
