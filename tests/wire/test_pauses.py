"""`pause` and `resume` on a daemon that runs: in force with the next connection, and after a restart."""

import socket
from urllib.request import urlopen

import pytest
from faulty import NameServer, listed
from miltertest import MilterConnection, constants

from mailhost.daemon import Daemon, command
from mailhost.process import wait_until

CLIENT = "192.0.2.7"


class Host:
    """A daemon with a state directory of its own, and Sendmail's side of a session with it."""

    def __init__(self, folder, name_server, monkeypatch):
        monkeypatch.setenv("STATE_DIRECTORY", str(folder))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.web = f"127.0.0.1:{free.getsockname()[1]}"
        self.folder = folder
        self.path = folder / "milter.sock"
        self.configuration = f"""
            milter = {{ socket = "local:{self.path}", workers = 1 }}
            dns.nameservers = ["{name_server.text}"]
            actions = {{ tag = 3, defer = 6 }}
            memory.url = ""
            metrics.listen = "{self.web}"
            list = [
                {{ name = "one", zone = "one.example", weight = 4 }},
                {{ name = "two", zone = "two.example", weight = 4 }},
            ]
        """
        self.daemon = Daemon(folder, self.configuration)

    def restart(self):
        self.daemon.stop()
        self.daemon = Daemon(self.folder, self.configuration)

    def told(self):
        """Return what one recipient of the listed client is answered: a code, or "accept"."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
            stream.settimeout(10)
            stream.connect(str(self.path))
            talk = MilterConnection(stream)
            talk.optneg_mta()
            talk.send(
                constants.SMFIC_CONNECT, hostname=f"[{CLIENT}]", family=constants.SMFIA_INET, port=2525, address=CLIENT
            )
            talk.send(constants.SMFIC_MAIL, args=["<a@plain.example>"])
            command_code, values = talk.send_get(constants.SMFIC_RCPT, args=["<b@acme123.com>"])
            return int(values["smtpcode"]) if command_code == constants.SMFIR_REPLYCODE else "accept"

    def run(self, *arguments):
        return command(*arguments, "--config", self.daemon.configuration)

    def gauge(self, name):
        text = urlopen(f"http://{self.web}/metrics", timeout=10).read().decode()
        (line,) = [line for line in text.splitlines() if line.startswith(f'dnsbl_paused{{list="{name}"}}')]
        return float(line.split()[1])


@pytest.fixture(scope="module")
def one_host(tmp_path_factory):
    # Pauses are about lists that are sane and unwelcome, so they list this one client.
    zones = {zone: {CLIENT: listed("127.0.0.2")} for zone in ("one.example", "two.example")}
    with NameServer(zones) as name_server, pytest.MonkeyPatch.context() as monkeypatch:
        host = Host(tmp_path_factory.mktemp("host"), name_server, monkeypatch)
        yield host
        host.daemon.stop()


@pytest.fixture
def host(one_host):
    yield one_host
    one_host.run("resume")


def test_a_list_is_paused_and_resumed_at_once(host):
    assert host.told() == 451
    done = host.run("pause", "one")
    assert (done.returncode, done.stdout) == (0, "paused: one until it is resumed\n"), done.stderr
    assert host.told() == "accept"
    assert "observed=one:127.0.0.2:4" in host.daemon.decisions()[-1]
    assert (host.gauge("one"), host.gauge("two"), host.gauge("*")) == (1, 0, 0)
    host.daemon.wait_for_log("paused level=warning list=one")
    done = host.run("resume", "one")
    assert (done.returncode, done.stdout) == (0, "nothing is paused\n")
    assert host.told() == 451
    assert host.gauge("one") == 0
    host.daemon.wait_for_log("resumed list=one")


def test_everything_is_paused_and_decided_all_the_same(host):
    done = host.run("pause")
    assert done.stdout == "paused: everything until it is resumed\n"
    assert host.told() == "accept"
    assert "action=defer enforced=accept" in host.daemon.decisions()[-1]
    assert host.gauge("*") == 1
    host.run("resume")
    assert host.told() == 451


def test_a_pause_survives_a_restart(host):
    host.run("pause", "two")
    host.restart()
    assert host.told() == "accept"
    assert host.gauge("two") == 1


def test_so_does_its_end(host):
    host.run("pause")
    host.run("pause", "two")
    host.run("resume")
    host.restart()
    assert host.told() == 451
    assert (host.gauge("one"), host.gauge("two"), host.gauge("*")) == (0, 0, 0)


def test_a_pause_ends_by_itself(host):
    done = host.run("pause", "one", "--for", "2s")
    assert done.stdout.startswith("paused: one until 20")
    assert host.told() == "accept"
    wait_until(lambda: host.told() == 451, 10, "the pause is over")


def test_resume_without_a_name_ends_every_pause(host):
    host.run("pause", "one")
    host.run("pause", "two")
    assert host.run("resume").stdout == "nothing is paused\n"
    assert host.told() == 451


FAULTS = [
    # what is wrong, the arguments, the status, and what is said
    ("an unknown list", ("pause", "zen"), 2, "there is no list 'zen'; there are one, two"),
    ("an odd duration", ("pause", "one", "--for", "soon"), 2, "'soon': expected a duration such as 30m, 2h or 1d"),
]


@pytest.mark.parametrize(("arguments", "status", "said"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_faults(host, arguments, status, said):
    done = host.run(*arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert host.told() == 451


def test_no_state_directory(host, monkeypatch):
    monkeypatch.setenv("STATE_DIRECTORY", "/proc/nowhere")
    done = host.run("pause", "one")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("/proc/nowhere: ")
    assert "Traceback" not in done.stderr
