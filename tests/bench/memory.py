"""How long one decision takes, and how much room a million triplets take, on either engine.

    python tests/bench/memory.py sqlite
    python tests/bench/memory.py redis

Half of the triplets wait and half have passed. The decisions that are timed are first attempts, early retries, retries in
time and known senders in equal shares, in random order, as a session asks: through `Memory`, its thread included. Prints
one JSON document.
"""

import argparse
import json
import os
import random
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("policy", "milter", "contrib")]

from dnsbl_milter.memory import Memory, open_engine  # noqa: E402
from dnsbl_milter.memory_engine import Engine  # noqa: E402
from dnsbl_milter.settings import MemorySection  # noqa: E402
from dnsbl_policy.greylist import triplet  # noqa: E402
from mailhost.process import Process, program  # noqa: E402

NOW = 1_700_000_000.0
DELAY = 300


def attempt_of(number: int) -> tuple[IPv4Address, str, str]:
    """Return a triplet's client, sender and recipient: networks in no order, addresses of the usual length."""
    client = IPv4Address(number * 2_654_435_761 % 2**32)
    return client, f"news@sender{number}.example.org", f"first.last{number % 50_000}@example.net"


def load(engine: Engine, entries: int) -> None:
    """Remember so many triplets, of which every second has passed."""
    for number in range(entries):
        one = triplet(*attempt_of(number))
        engine.recall(one, NOW + number / entries)
        if number % 2:
            engine.recall(one, NOW + DELAY + number / entries)


def decisions(entries: int, count: int) -> list[tuple[int, float]]:
    """Return which triplets are asked about, and when."""
    chance = random.Random(7)
    each = count // 4
    waiting = chance.sample(range(0, entries, 2), 2 * each)
    asked = [(entries + number, NOW + DELAY + 10) for number in range(each)]
    asked += [(number, NOW + 2) for number in waiting[:each]]
    asked += [(number, NOW + DELAY + 10) for number in waiting[each:]]
    asked += [(number, NOW + DELAY + 10) for number in chance.sample(range(1, entries, 2), each)]
    chance.shuffle(asked)
    return asked


def measure(memory: Memory, asked: list[tuple[int, float]], threads: int) -> dict[str, object]:
    """Ask, and return how long that took."""
    together = threading.Barrier(threads)

    def session(mine: list[tuple[int, float]]) -> list[tuple[float, str]]:
        told = []
        together.wait()
        for number, now in mine:
            begun = time.perf_counter()
            answer = memory.recall(*attempt_of(number), now)
            told.append((time.perf_counter() - begun, str(answer)))
        return told

    begun = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        told = [one for each in pool.map(session, [asked[start::threads] for start in range(threads)]) for one in each]
    seconds = time.perf_counter() - begun
    took = sorted(took for took, _ in told)
    return {
        "threads": threads,
        "decisions": len(told),
        "answers": Counter(answer for _, answer in told),
        "decisions a second": round(len(told) / seconds),
        "median ms": round(statistics.median(took) * 1000, 3),
        "p99 ms": round(took[len(took) * 99 // 100] * 1000, 3),
        "most ms": round(took[-1] * 1000, 3),
    }


def start_redis(folder: Path) -> tuple[Process, int]:
    """Start a server that keeps what it is told as a fleet's should: in an append-only file, written every second."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    log = folder / "redis.log"
    server = Process(
        [
            program("redis-server", "redis-server"), "--bind", "127.0.0.1", "--port", str(port), "--dir", folder,
            "--save", "", "--appendonly", "yes", "--appendfsync", "everysec",
        ],
        log,
        lambda: b"Ready to accept connections" in log.read_bytes(),
    )  # fmt: skip
    return server, port


def bench(engine_name: str, folder: Path, entries: int, count: int, threads: list[int]) -> dict[str, object]:
    """Fill an engine and measure it; return what was found."""
    server = None
    url = f"sqlite://{folder}/memory.db"
    if engine_name == "redis":
        server, port = start_redis(folder)
        url = f"redis://127.0.0.1:{port}/0"
    try:
        engine = open_engine(MemorySection(url=url, delay=DELAY))
        assert engine is not None
        begun = time.perf_counter()
        load(engine, entries)
        loaded = time.perf_counter() - begun
        asked = decisions(entries, count * len(threads))
        memory = Memory(engine)
        runs = [measure(memory, asked[place :: len(threads)], number) for place, number in enumerate(threads)]
        holdings = engine.holdings()
        memory.close()
    finally:
        if server is not None:
            os.kill(server.pid, signal.SIGKILL)
            server.stop()
    held = holdings.waiting + holdings.passed
    return {
        "engine": engine_name,
        "entries loaded": entries,
        "seconds to load": round(loaded, 1),
        "runs": runs,
        "waiting": holdings.waiting,
        "passed": holdings.passed,
        "MB of files" if engine_name == "sqlite" else "MB of memory": round((holdings.size or 0) / 1e6, 1),
        "bytes a triplet": round((holdings.size or 0) / held),
    }


def main() -> None:
    """Read the command line and print the findings."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("engine", choices=["sqlite", "redis"])
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--decisions", type=int, default=20_000, help="timed in each run")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 8], help="sessions at once, a run for each")
    parser.add_argument("--folder", type=Path, help="where the files go; by default a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = bench(options.engine, Path(folder), options.entries, options.decisions, options.threads)
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
