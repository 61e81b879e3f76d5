"""Several mail hosts with one caching resolver: it is their shared cache of answers."""

from __future__ import annotations

import sys
from pathlib import Path

from mailhost.daemon import Daemon
from mailhost.policies import sample_policy
from mailhost.resolver import Resolver
from mailhost.sendmail import MailHost
from mailhost.smtp import send_message

sys.path.insert(0, str(Path(__file__).parents[1] / "wire"))

from faulty import NameServer, listed

FOLDER = Path("/run/mailhost/fleet")
CLIENTS = [f"198.51.100.{number}" for number in range(60, 100)]
ALICE = "alice@acme123.com"
LISTS = [{"name": name, "zone": f"{name}.example", "weight": 4} for name in ("one", "two", "three", "four")]
PORTS = (2531, 2532, 2533)


def test_upstream_questions_do_not_grow_with_the_number_of_hosts() -> None:
    zones = {entry["zone"]: {client: listed("127.0.0.2") for client in CLIENTS[::4]} for entry in LISTS}
    with NameServer(zones, address="127.0.0.9") as upstream:
        shared = Resolver(FOLDER / "resolver", [upstream], (), address="127.0.0.10", port=53)
        hosts: list[tuple[Daemon, MailHost]] = []
        asked: list[int] = []
        codes: list[list[int]] = []
        try:
            for port in PORTS:
                socket = f"local:/run/dnsbl-milter/fleet-{port}.sock"
                policy = sample_policy(
                    LISTS,
                    milter={"socket": socket, "workers": 1},
                    dns={"nameservers": ["127.0.0.10"]},
                    actions={"tag": 3, "defer": 6, "quarantine": None, "reject": 12, "discard": None},
                    health={"proof": False, "enabled": False},  # each host's proof is a question of its own, by intent
                )
                hosts.append((Daemon(FOLDER / f"daemon-{port}", policy), MailHost(FOLDER / f"{port}", socket, port=port)))
            for port in PORTS:
                told = [send_message(client, "a@sender.example", ALICE, port=port) for client in CLIENTS]
                codes.append([outcome.recipients[ALICE].code for outcome in told])
                asked.append(len([question for question in upstream.questions if question.kind == "A"]))
        finally:
            for daemon, host in hosts:
                host.stop()
                daemon.kill()
            shared.stop()
    # Four lists of 4 points each hold every fourth client: 16 points are refused, none is accepted.
    assert codes[0] == [550 if place % 4 == 0 else 250 for place in range(len(CLIENTS))]
    assert codes[1] == codes[2] == codes[0]
    assert asked[0] >= len(CLIENTS) * len(LISTS)
    assert asked[2] == asked[1] == asked[0]
