"""What watching the lists costs: one CPU's share of probing 30 of them, and a worker's time for each connection.

Prints JSON. Run it from the checkout: python tests/bench/health.py [SECONDS]
"""

import json
import os
import sys
import tempfile
import time
import timeit
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("policy", "milter", "contrib", "tests/wire")]

from faulty import NameServer, clear  # noqa: E402
from museum import entries  # noqa: E402

from dnsbl_milter import metrics  # noqa: E402
from dnsbl_milter.configuration import parse  # noqa: E402
from dnsbl_milter.prober import Prober  # noqa: E402
from dnsbl_milter.scratch import make_folder  # noqa: E402
from dnsbl_milter.standing import Standing  # noqa: E402
from dnsbl_policy.answers import PENDING, Clear  # noqa: E402
from dnsbl_policy.health import Record, State  # noqa: E402

LISTS, WORKERS, INTERVAL = 30, 4, 300


def main(rounds: int) -> dict[str, object]:
    """Measure, and return the figures."""
    zones = [f"list{number}.example" for number in range(LISTS)]
    text = "".join(f'[[list]]\nname = "{zone}"\nzone = "{zone}"\nweight = 2\n' for zone in zones)
    # The name server runs in a process of its own: its CPU is not ours.
    port_read, port_write = os.pipe()
    stop_read, stop_write = os.pipe()
    child = os.fork()
    if child == 0:
        with NameServer({zone: entries() for zone in zones} | {"": clear()}) as server:
            os.write(port_write, server.text.encode())
            os.read(stop_read, 1)
        os._exit(0)
    nameserver = os.read(port_read, 100).decode()
    configuration = parse(f'dns.nameservers = ["{nameserver}"]\nactions.tag = 3\nmemory.url = ""\n{text}', "bench")
    lists = configuration.policy.lists
    folder = make_folder()
    for number in range(WORKERS):
        metrics.share_as(number)
        metrics.Metrics(lists)
    standing = Standing(lists)
    prober = Prober(configuration, standing, folder)

    begin, wall = time.process_time(), time.monotonic()
    for _ in range(rounds):
        for place in range(LISTS):
            prober.examine(place)
    probing = (time.process_time() - begin) / rounds
    elapsed = (time.monotonic() - wall) / rounds
    polls = 50
    begin = time.process_time()
    for _ in range(polls):
        prober._take_in()
    reading = (time.process_time() - begin) / polls
    os.write(stop_write, b".")
    os.waitpid(child, 0)

    healthy = [standing.record(place, 4).state for place in range(LISTS)] == [State.OK] * LISTS
    evidence = [PENDING] * LISTS
    plain = _microseconds(lambda: Standing.withhold(standing, 4, evidence), 200_000)
    standing.publish(3, 4, Record(State.SUSPENDED), 60)
    one_out = _microseconds(lambda: Standing.withhold(standing, 4, evidence), 20_000)
    empty = _microseconds(lambda: None, 200_000)
    return {
        "lists": LISTS,
        "families": 2,
        "workers": WORKERS,
        "interval_seconds": INTERVAL,
        "all_ok": healthy and evidence[0] in (PENDING, Clear(0)),
        "cpu_ms_a_list_and_round": round(probing / LISTS * 1000, 2),
        "wall_ms_a_list_and_round": round(elapsed / LISTS * 1000, 2),
        "cpu_ms_reading_counters": round(reading * 1000, 2),
        "polls_a_second": round(1 / prober._poll, 3),
        "cpu_percent": round(100 * (probing / INTERVAL + reading / prober._poll), 3),
        "worker_us_a_connection": round(plain - empty, 3),
        "worker_us_a_connection_with_a_list_suspended": round(one_out - empty, 3),
    }


def _microseconds(call, number: int) -> float:
    return min(timeit.repeat(call, number=number, repeat=5)) / number * 1e6


if __name__ == "__main__":
    os.environ["RUNTIME_DIRECTORY"] = tempfile.mkdtemp()
    print(json.dumps(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5), indent=2))
