"""A daemon with a list that can be broken, healthy lists beside it, and clients that are on no list.

    with Museum(folder) as house:
        house.server.zones["bad.example"] = listed("127.0.0.2")      # the list goes mad
        assert house.told("198.51.100.1") == "accept"
        house.wait_for("bad", "suspended")

Its rounds are a second apart, and its list is so heavy that its word alone rejects.
"""

import json
import os
import socket
import sys
import time
from ipaddress import ip_address
from pathlib import Path
from urllib.request import urlopen

import faulty
from faulty import clear, listed
from miltertest import MilterConnection, constants

from mailhost.daemon import ROOT, Daemon, environment
from mailhost.events import read_event
from mailhost.process import Process, wait_until

BAD, HEALTHY, FRIEND = "bad", ("one", "two"), "friend"
TEST_ENTRIES = ("127.0.0.2", str(ip_address("::ffff:127.0.0.2")))
GUILTY = "203.0.113.66"
"""Listed by both healthy lists, and by the bad one."""
TAGGED = "203.0.113.33"
"""Listed by one healthy list."""
INNOCENTS = [f"198.51.100.{last}" for last in range(1, 201)]

CONFIGURATION = """
[milter]
socket = "local:{folder}/milter.sock"
workers = {workers}

[dns]
nameservers = [{nameservers}]
deadline = 0.8
retry = 0.3

[cache]
clients = 1000
{cache}

[actions]
tag = 3
defer = 6
quarantine = 8
reject = 12

[memory]
url = ""

[metrics]
listen = "{web}"

[log]
format = "json"

[health]
interval = {interval}
{health}

[[list]]
name = "bad"
zone = "bad.example"
{bad}

[[list]]
name = "one"
zone = "one.example"
weight = 4

[[list]]
name = "two"
zone = "two.example"
weight = 4

[[list]]
name = "friend"
zone = "friend.example"
weight = -4
{more}
"""


def entries(code="127.0.0.2", *clients, families=TEST_ENTRIES):
    """Return the data of a healthy list: its test entries, and its clients."""
    return {client: listed(code) for client in (*families, *clients)}


def healthy():
    """Return all zones as they are on a good day; what is not below them does not exist."""
    return {
        "bad.example": entries("127.0.0.2", GUILTY),
        "one.example": entries("127.0.0.2", GUILTY, TAGGED),
        "two.example": entries("127.0.0.2", GUILTY),
        "friend.example": entries("127.0.0.2"),
        "": clear(),
    }


class Museum:
    """The daemon, its name server, and Sendmail's side of sessions with it."""

    def __init__(
        self, folder, *, bad="weight = 12", more="", health="", cache="", workers=1, nameservers=None, wrapper=None, web=True, zones=None, interval=1
    ):
        os.environ["STATE_DIRECTORY"] = str(folder)
        self.folder = Path(folder)
        self.server = faulty.NameServer(healthy() | (zones or {}))
        self.web = ""
        if web:
            with socket.create_server(("127.0.0.1", 0)) as free:
                self.web = f"127.0.0.1:{free.getsockname()[1]}"
        self._options = {
            "interval": interval, "folder": folder, "bad": bad, "more": more, "health": health, "cache": cache, "workers": workers, "web": self.web,
            "nameservers": ", ".join(json.dumps(text) for text in nameservers or [self.server.text]),
        }  # fmt: skip
        self._wrapper = wrapper
        self.daemon = None

    def __enter__(self):
        self.server.__enter__()
        self.configuration = CONFIGURATION.format(**self._options)
        self.daemon = Patient(self.folder, self.configuration, self._wrapper)
        return self

    def __exit__(self, *_):
        if self.daemon is not None:
            self.daemon.stop()
        self.server.stop()
        assert not self.server.faults

    def reconfigure(self, **options):
        """Write the configuration anew, and reload."""
        before = sum(event["event"] == "reloaded" for event in self.events())
        self.configuration = CONFIGURATION.format(**self._options | options)
        self.daemon.configuration.write_text(self.configuration)
        self.daemon.process.hang_up()
        wait_until(lambda: sum(event["event"] == "reloaded" for event in self.events()) > before, 40, "it has reloaded")

    def events(self, name=None):
        """Return what the daemon has logged."""
        events = [read_event(line) for line in self.daemon.log()]
        return events if name is None else [event for event in events if event["event"] == name]

    def moves(self, name=BAD, family="ipv4"):
        """Return the states that a list has come to, in their order."""
        return [event["to"] for event in self.events("list") if (event["list"], event["family"]) == (name, family)]

    def wait_for(self, name, state, seconds=40.0, family="ipv4"):
        """Wait until a list has come to a state; return the event."""
        wait_until(lambda: self.moves(name, family)[-1:] == [state], seconds, f"{name} is {state}: {self.moves(name, family)}")
        return [event for event in self.events("list") if (event["list"], event["family"]) == (name, family)][-1]

    def wait_for_rounds(self, count, seconds=40.0):
        """Wait until every list has been probed so many times more."""
        zones = [zone for zone in self.server.zones if zone]
        start = len(self.server.questions)

        def seen():
            asked = [question.zone for question in self.server.questions[start:] if question.client == "127.0.0.2"]
            # One more has begun, so that so many have been judged.
            return all(asked.count(zone) > count for zone in zones)

        wait_until(seen, seconds, f"each list has had {count} rounds")

    def told(self, client):
        """Return what the recipient of a client is answered: "accept" or a code."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
            stream.settimeout(20)
            stream.connect(f"{self.folder}/milter.sock")
            talk = MilterConnection(stream)
            talk.optneg_mta()
            family = constants.SMFIA_INET6 if ":" in client else constants.SMFIA_INET
            talk.send(constants.SMFIC_CONNECT, hostname=f"[{client}]", family=family, port=2525, address=client)
            talk.send(constants.SMFIC_HELO, helo="mail.example")
            talk.send(constants.SMFIC_MAIL, args=["<a@plain.example>"])
            command, values = talk.send_get(constants.SMFIC_RCPT, args=["<b@acme123.com>"])
            return int(values["smtpcode"]) if command == constants.SMFIR_REPLYCODE else "accept"

    def decision(self, client):
        """Return the last decision on a client."""
        return [event for event in self.events("decision") if event["client"] == client][-1]

    def metrics(self, name):
        """Return the samples of a metric, by the text of their labels."""
        text = urlopen(f"http://{self.web}/metrics", timeout=10).read().decode()
        lines = [line.rpartition(" ") for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} "))]
        return {labels.removeprefix(name): float(value) for labels, _, value in lines}

    def health(self):
        """Return what /healthz says."""
        with urlopen(f"http://{self.web}/healthz", timeout=10) as reply:
            return reply.status, json.loads(reply.read())


class Patient(Daemon):
    """A daemon, by itself or run by another program, that may take its time to start on a busy machine."""

    def __init__(self, folder, configuration, program):
        self.configuration = folder / "dnsbl-milter.toml"
        self.configuration.write_text(configuration)
        self.socket = f"local:{folder}/milter.sock"
        self._log = folder / "dnsbl-milter.log"
        self.process = Process(
            [sys.executable, *(["-m", "dnsbl_milter"] if program is None else ["-c", program]), "run", "--config", self.configuration],
            self._log,
            lambda: any('"event": "serving"' in line for line in self.log()),
            deadline=60,
            environment=environment(),
        )

    def wait_for_log(self, text, deadline=40.0):
        """Wait as long as everything here does."""
        return super().wait_for_log(text, deadline)


def until(condition, what, seconds=40.0):
    """Wait for a condition."""
    wait_until(condition, seconds, what)


__all__ = ["BAD", "FRIEND", "GUILTY", "HEALTHY", "INNOCENTS", "ROOT", "TAGGED", "Museum", "entries", "healthy", "time", "until"]
