"""Memory of a fleet, on a real Redis server: the policy's answers, and what happens when the server is gone."""

import json
import logging
import os
import signal
import socket
import subprocess
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

import pytest
import redis
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from dnsbl_milter.cli import main
from dnsbl_milter.configuration import parse
from dnsbl_milter.memory import FAILURES, PAUSE_SECONDS, Memory, open_memory
from dnsbl_milter.memory_engine import Remembered, Unavailable
from dnsbl_milter.memory_redis import PREFIX, RedisEngine
from dnsbl_milter.settings import Invalid, MemorySection
from dnsbl_policy.greylist import Recollection, Terms, Triplet, attempt, triplet
from mailhost.process import Process, program

DEFERRED, EARLY, PASSED, KNOWN, UNAVAILABLE = Recollection
TERMS = Terms(delay=300, window=1000, remember=5000)
NOW = 1_700_000_000.0
CLIENT = ip_address("192.0.2.7")
SENDER, RECIPIENT = "alice@example.org", "bob@example.net"
PATIENT = 60.0
"""Seconds that nothing here takes, however busy the machine is."""


class Clock:
    """A clock that only the test moves."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Server:
    """A Redis server of our own, in a folder of its own, that still knows after its death what it was told."""

    def __init__(self, folder, *options, plain=True):
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder, self._log = folder, folder / "redis.log"
        ports = ["--port", self.port] if plain else ["--port", 0, "--tls-port", self.port]
        self._options = [str(option) for option in ("--bind", "127.0.0.1", *ports, *options)]
        self.start()

    def start(self):
        begun = self._log.stat().st_size if self._log.exists() else 0
        self.process = Process(
            [
                program("redis-server", "redis-server"), "--dir", str(self._folder),
                "--save", "", "--appendonly", "yes", "--appendfsync", "always", *self._options,
            ],
            self._log,
            lambda: b"Ready to accept connections" in self._log.read_bytes()[begun:],
        )  # fmt: skip

    def stop(self):
        self.process.stop()

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.stop()

    def tell(self, *command):
        """Give the server a command as its administrator does."""
        with redis.Redis(port=self.port, protocol=2) as client:
            return client.execute_command(*command)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def fresh(server):
    """Return the server, empty."""
    server.tell("FLUSHALL")
    return server


@pytest.fixture
def start_server(tmp_path):
    """Start servers that a test may do anything to."""
    servers = []

    def start(*options, **more):
        servers.append(Server(tmp_path, *options, **more))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def connect():
    """Connect as mail hosts do, but with time enough for a busy machine."""
    engines = []

    def connect_one(url, terms=TERMS, timeout=PATIENT, **options):
        engines.append(RedisEngine(url, terms, timeout=timeout, **options))
        return engines[-1]

    yield connect_one
    for engine in engines:
        engine.close()


@pytest.fixture
def open_front():
    opened = []

    def open_one(engine, **options):
        opened.append(Memory(engine, **({"deadline": PATIENT} | options)))
        return opened[-1]

    yield open_one
    for memory in opened:
        memory.close()


@pytest.fixture
def logged():
    """Events of the log as they come: level, event, fields."""

    class Lines(logging.Handler):
        def emit(self, record):
            events.append((record.levelname, record.getMessage(), record.fields))

    events, handler, logger = [], Lines(), logging.getLogger("dnsbl_milter")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield events
    logger.removeHandler(handler)
    logger.setLevel(before)


def ask(engine, now=NOW, sender=SENDER, recipient=RECIPIENT, client=CLIENT):
    return engine.recall(triplet(client, sender, recipient), now)


def recall(memory, now=NOW, sender=SENDER, recipient=RECIPIENT, client=CLIENT):
    return memory.recall(client, sender, recipient, now)


def settle(memory):
    """Return when what the memory has begun is done: one task for each of its threads, and none ends before the last."""
    together = threading.Barrier(memory._engine.threads)
    for begun in [memory._threads.submit(together.wait, PATIENT) for _ in range(memory._engine.threads)]:
        begun.result(PATIENT)


# --- the policy's answers


def test_one_triplet_through_its_life(fresh, connect):
    engine = connect(fresh.url)
    moments = [0, 1, 299, 300, 301, 5301, 10_302]
    answers = [DEFERRED, EARLY, EARLY, PASSED, KNOWN, KNOWN, DEFERRED]
    assert [ask(engine, NOW + moment) for moment in moments] == answers


def test_a_retry_from_a_neighbour_with_a_new_bounce_address_passes(fresh, connect):
    engine = connect(fresh.url)
    assert ask(engine, NOW, sender="bounce-1@lists.example") is DEFERRED
    assert ask(engine, NOW + 300, sender="Bounce-2@lists.EXAMPLE", client=ip_address("192.0.2.200")) is PASSED
    assert ask(engine, NOW + 300, sender="bounce-1@lists.example", client=ip_address("192.0.3.7")) is DEFERRED


number = iter(range(10**9))
edges = st.sampled_from([-300, -0.001, 0, 299.999, 300, 1000, 1000.001, 5000, 5000.001, 6000.5])


@pytest.fixture(scope="module")
def shared_engine(server):
    engine = RedisEngine(server.url, TERMS, timeout=PATIENT)
    yield engine
    engine.close()


@given(st.lists(st.floats(0, 4e9) | edges.map(lambda age: NOW + age), max_size=12))
@settings(deadline=None, max_examples=300)
def test_the_script_says_what_the_policy_says_whatever_the_clock_does(shared_engine, times):
    one, trace = Triplet(f"network{next(number)}", "a", "b"), None
    for now in times:
        answer, trace = attempt(trace, now, TERMS)
        assert shared_engine.recall(one, now) is answer
        assert shared_engine.show(one.network) == [Remembered("a", "b", trace.passed, trace.since)]


def test_an_odd_value_is_somebody_new_or_an_early_one(fresh, connect):
    engine = connect(fresh.url)
    for value in (b"", b"x", b"w", b"\xff", b"w\n", b"q1\na\nb"):
        ask(engine)
        (key,) = fresh.tell("KEYS", "*")
        fresh.tell("SET", key, value)
        assert ask(engine, NOW + 1) is DEFERRED
        assert ask(engine, NOW + 2) is EARLY


def test_mail_hosts_share_what_is_remembered(fresh, connect):
    one, two = connect(fresh.url), connect(fresh.url)
    assert ask(one, NOW) is DEFERRED
    assert ask(two, NOW + 1) is EARLY
    assert ask(two, NOW + 300) is PASSED
    assert ask(one, NOW + 301) is KNOWN


def test_hosts_with_other_terms_share_the_memory(fresh, connect):
    assert ask(connect(fresh.url), NOW) is DEFERRED
    assert ask(connect(fresh.url, Terms(10.5, 1000.5, 0)), NOW + 10.5) is PASSED


HOSTILE = [
    "", "'", '"', "\\", "%", "*", "?", "[a-z]", "\x00", "a\x00b", "\n", "\r\n.\r\n", "\t", " ", "\x1b[31m", "\udcff\udc80",
    "\ud800", "äöü@exämple.org", "😀", "a" * 10_000, "\udcff" * 10_000, "@" * 10_000, "\r\n*1\r\n$8\r\nFLUSHALL\r\n", "}", "' .. x",
]  # fmt: skip


@pytest.mark.parametrize("side", ["sender", "recipient"])
def test_hostile_addresses_are_addresses(fresh, connect, side):
    engine = connect(fresh.url)
    for now, answer in ((NOW, DEFERRED), (NOW + 1, EARLY), (NOW + 300, PASSED), (NOW + 301, KNOWN)):
        assert [ask(engine, now, **{side: address}) for address in HOSTILE] == [answer] * len(HOSTILE)
    assert len(engine.show("192.0.2.0/24")) == len(HOSTILE)
    for key in fresh.tell("KEYS", "*"):
        assert len(key) < 100
        assert len(fresh.tell("GET", key)) < 1200


def test_two_hosts_with_two_hundred_sessions_lose_nothing(fresh, connect, open_front):
    hosts = [open_front(connect(fresh.url)) for _ in range(2)]

    def session(number):
        host = hosts[number % 2]
        own = [recall(host, NOW + age, recipient=f"r{number}.x@example.net") for age in (0, 1, 300, 301)]
        return own, recall(host, NOW + 300 * (number // 2 % 2), recipient="everybody@example.net")

    with ThreadPoolExecutor(16) as sessions:
        told = list(sessions.map(session, range(200)))
    assert all(own == [DEFERRED, EARLY, PASSED, KNOWN] for own, _ in told)
    shared = Counter(answer for _, answer in told)
    assert (shared[DEFERRED], shared[PASSED], shared[UNAVAILABLE]) == (1, 1, 0)
    assert fresh.tell("DBSIZE") == 201


# --- one round trip, and keys that expire


def test_a_decision_is_one_command(fresh, connect):
    engine = connect(fresh.url)
    ask(engine)
    fresh.tell("CONFIG", "RESETSTAT")
    for now in range(5):
        ask(engine, NOW + now)
    sent = {name: count["calls"] for name, count in fresh.tell("INFO", "commandstats").items()}
    # The script's own GET is counted as a command too.
    assert {name: calls for name, calls in sent.items() if "config" not in name} == {"cmdstat_evalsha": 5, "cmdstat_get": 5}


def test_a_script_that_the_server_has_forgotten_is_told_anew(fresh, connect):
    engine = connect(fresh.url)
    assert ask(engine) is DEFERRED
    fresh.tell("SCRIPT", "FLUSH")
    assert ask(engine) is EARLY


def test_keys_expire(fresh, connect):
    engine = connect(fresh.url)

    def life():
        (key,) = fresh.tell("KEYS", "*")
        return key, fresh.tell("PTTL", key) / 1000

    assert ask(engine) is DEFERRED
    key, seconds = life()
    assert 1000 - PATIENT < seconds <= 1001
    fresh.tell("EXPIRE", key, 500)
    assert ask(engine, NOW + 1) is EARLY
    assert life()[1] <= 500
    assert ask(engine, NOW + 300) is PASSED
    assert 5000 - PATIENT < life()[1] <= 5001
    fresh.tell("EXPIRE", key, 500)
    assert ask(engine, NOW + 301) is KNOWN
    assert 5000 - PATIENT < life()[1] <= 5001


# --- what befalls the server


def test_a_restart_keeps_the_memory_and_nobody_notices(start_server, connect, open_front, logged):
    server = start_server()
    memory = open_front(connect(server.url))
    assert recall(memory) is DEFERRED
    server.stop()
    server.start()
    assert recall(memory, NOW + 300) is PASSED
    assert logged == []


def test_a_server_killed_is_missed_by_nobody_and_taken_back(start_server, connect, open_front, logged):
    server, clock = start_server(), Clock()
    memory = open_front(connect(server.url), timer=clock)
    assert recall(memory) is DEFERRED
    settle(memory)
    server.kill()
    assert [recall(memory, NOW + 300) for _ in range(10)] == [UNAVAILABLE] * 10
    clock.now += PAUSE_SECONDS
    assert recall(memory, NOW + 300) is UNAVAILABLE
    ((level, event, fields),) = logged
    assert (level, event) == ("WARNING", "memory unavailable, nobody is deferred")
    assert fields["engine"] == "redis"
    assert fields["why"].startswith(f"127.0.0.1:{server.port}: ")
    assert "refused" in fields["why"]
    server.start()
    assert recall(memory, NOW + 300) is UNAVAILABLE
    clock.now += PAUSE_SECONDS
    assert recall(memory, NOW + 300) is PASSED
    assert [(event, fields["failures"]) for _, event, fields in logged[1:]] == [("memory available again", FAILURES + 1)]


def test_a_server_that_is_not_there_is_in_the_log_from_the_start(start_server, connect, open_front, logged):
    server = start_server()
    server.stop()
    settle(open_front(connect(server.url)))
    assert [event for _, event, _ in logged] == ["memory unavailable, nobody is deferred"]


def test_a_server_that_hangs_holds_nobody_up(start_server, connect, open_front, logged):
    server, clock = start_server(), Clock()
    memory = open_front(connect(server.url, timeout=0.05), timer=clock)
    settle(memory)
    server.process.pause()
    assert [recall(memory) for _ in range(1000)] == [UNAVAILABLE] * 1000
    assert len(logged) == 1
    server.process.resume()
    clock.now += PAUSE_SECONDS
    memory._engine.close()
    while (answer := recall(memory)) is UNAVAILABLE:
        # A busy machine may take more than the 0.05 s of this test.
        clock.now += PAUSE_SECONDS
    # The server may have read the question of one who had given it up.
    assert answer in (DEFERRED, EARLY)


def test_nothing_is_tried_twice(connect):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        engine = connect(f"redis://127.0.0.1:{mute.getsockname()[1]}", timeout=0.05)
        with pytest.raises(Unavailable, match=r"[Tt]ime(out|d out)"):
            ask(engine)
        mute.setblocking(False)
        mute.accept()[0].close()
        with pytest.raises(BlockingIOError):
            mute.accept()


TROUBLES = [
    # what befalls it, what mends it, a part of the reason
    (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0"), "maxmemory"),
    (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE"), "read only replica"),
    (("CONFIG", "SET", "requirepass", "other"), None, "Authentication required"),
]


@pytest.mark.parametrize(("trouble", "remedy", "why"), TROUBLES, ids=[row[2] for row in TROUBLES])
def test_a_server_in_trouble_is_unavailable_and_taken_back(start_server, connect, open_front, logged, trouble, remedy, why):
    server, clock = start_server(), Clock()
    memory = open_front(connect(server.url), timer=clock)
    assert recall(memory) is DEFERRED
    settle(memory)
    server.tell(*trouble)
    memory._engine.close()
    assert [recall(memory, NOW + 300) for _ in range(5)] == [UNAVAILABLE] * 5
    ((_, _, fields),) = logged
    assert why in fields["why"]
    assert "\n" not in fields["why"]
    clock.now += PAUSE_SECONDS
    if remedy:
        server.tell(*remedy)
        assert recall(memory, NOW + 300) is PASSED
    else:
        assert recall(memory, NOW + 300) is UNAVAILABLE


def test_a_key_of_another_kind_is_no_harm(fresh, connect):
    engine = connect(fresh.url)
    ask(engine)
    (key,) = fresh.tell("KEYS", "*")
    fresh.tell("DEL", key)
    fresh.tell("LPUSH", key, "x")
    with pytest.raises(Unavailable, match="WRONGTYPE"):
        ask(engine)


# --- who may connect, and how


USERS = """
user default off
user daemon on >secret ~dnsbl-milter:* -@all +evalsha +script|load +get +set +ping
user admin on >secret ~dnsbl-milter:* -@all +scan +mget +unlink +info
"""
"""What the guide says: the daemon's user needs these and no more, and the commands' user those."""


@pytest.fixture
def guarded(start_server, tmp_path):
    users = tmp_path / "users.acl"
    users.write_text(USERS)
    return start_server("--aclfile", users)


def as_user(server, user):
    return server.url.replace("//", f"//{user}@")


def test_users_need_what_the_guide_says_and_no_more(guarded, connect):
    daemon = connect(as_user(guarded, "daemon:secret"))
    daemon.check()
    assert [ask(daemon, NOW + age) for age in (0, 300)] == [DEFERRED, PASSED]
    with pytest.raises(Unavailable, match="no permissions"):
        daemon.forget("192.0.2.0/24")
    admin = connect(as_user(guarded, "admin:secret"))
    holdings = admin.holdings()
    assert (holdings.waiting, holdings.passed) == (0, 1)
    assert holdings.size > 0
    assert [found.sender for found in admin.show("192.0.2.0/24")] == [SENDER]
    assert admin.forget("192.0.2.0/24") == 1
    with pytest.raises(Unavailable, match="no permissions"):
        ask(admin)


def test_a_wrong_password_is_unavailable_and_not_shown(guarded, connect):
    with pytest.raises(Unavailable) as raised:
        ask(connect(as_user(guarded, "daemon:wrong-password")))
    assert "wrong-password" not in str(raised.value)
    assert "invalid username-password pair" in str(raised.value)


def test_the_password_is_read_from_its_file_for_each_connection(guarded, connect, tmp_path):
    password = tmp_path / "password"
    engine = connect(as_user(guarded, "daemon"), password_file=str(password))
    with pytest.raises(Unavailable, match=f"127.0.0.1:{guarded.port}: {password}: No such file or directory$"):
        ask(engine)
    password.write_text("wrong\n")
    with pytest.raises(Unavailable, match="invalid username-password pair"):
        ask(engine)
    password.write_text("secret\n")
    assert ask(engine) is DEFERRED
    # It goes before one in the address.
    assert ask(connect(as_user(guarded, "daemon:wrong"), password_file=str(password))) is EARLY


def test_a_password_without_a_user_is_the_default_users(start_server, connect, tmp_path):
    server = start_server("--requirepass", "se/cr:et@")
    password = tmp_path / "password"
    password.write_text("se/cr:et@")
    assert ask(connect(server.url, password_file=str(password))) is DEFERRED
    assert ask(connect(as_user(server, ":se%2Fcr%3Aet%40"))) is EARLY


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
def test_either_name_of_the_protocol_will_do(fresh, connect, scheme):
    assert ask(connect(fresh.url.replace("redis", scheme))) is DEFERRED


def test_a_database_of_its_own(fresh, connect):
    assert ask(connect(fresh.url)) is DEFERRED
    assert ask(connect(fresh.url.replace("/0", "/5"))) is DEFERRED
    assert ask(connect(fresh.url)) is EARLY


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Make an authority, and certificates of its for a server and a client."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments):
        subprocess.run([program("openssl", "openssl"), *map(str, arguments)], cwd=folder, check=True, capture_output=True)

    new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", 2)
    openssl(*new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority")
    for name, names in (("server", "IP:127.0.0.1"), ("elsewhere", "DNS:elsewhere.example"), ("client", "DNS:mx.example")):
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-addext", f"subjectAltName={names}")
        openssl(*new, *signed, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}")
    return folder


@pytest.fixture
def start_encrypted(start_server, certificates):
    def start(name):
        server = start_server(
            "--tls-cert-file", certificates / f"{name}.pem",
            "--tls-key-file", certificates / f"{name}.key",
            "--tls-ca-cert-file", certificates / "ca.pem",
            plain=False,
        )  # fmt: skip
        return server.url.replace("redis:", "rediss:")

    return start


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
def test_certificates_on_both_sides(start_encrypted, connect, certificates, scheme):
    url = start_encrypted("server").replace("rediss", scheme)
    trust = f"ssl_ca_certs={certificates}/ca.pem"
    ours = f"ssl_certfile={certificates}/client.pem&ssl_keyfile={certificates}/client.key"
    assert ask(connect(f"{url}?{trust}&{ours}")) is DEFERRED
    with pytest.raises(Unavailable, match="certificate verify failed"):
        ask(connect(f"{url}?{ours}"))
    with pytest.raises(Unavailable):
        ask(connect(f"{url}?{trust}"))
    assert ask(connect(f"{url}?ssl_cert_reqs=none&{ours}")) is EARLY


def test_a_certificate_of_another_host_is_none(start_encrypted, connect, certificates):
    url = start_encrypted("elsewhere")
    options = (
        f"ssl_ca_certs={certificates}/ca.pem&ssl_certfile={certificates}/client.pem&ssl_keyfile={certificates}/client.key"
    )
    with pytest.raises(Unavailable, match="IP address mismatch"):
        ask(connect(f"{url}?{options}"))
    assert ask(connect(f"{url}?{options}&ssl_check_hostname=false")) is DEFERRED


def test_certificates_that_are_missing_are_named(start_encrypted, connect, tmp_path):
    with pytest.raises(Unavailable, match="No such file"):
        ask(connect(f"{start_encrypted('server')}?ssl_ca_certs={tmp_path}/no-such-file"))


# --- the configuration


USAGE = "expected redis://host:6379/0; in a password, / ? # and @ are written %2F %3F %23 and %40"
OPTIONS = "unknown option; options begin with ssl_, socket_, client_name"

BAD = [
    # address, what is said
    ("redis://:6379/0", USAGE),
    ("redis://user:hidden@/0", USAGE),
    ("redis://host:0/0", USAGE),
    ("redis://host:65536/0", USAGE),
    ("redis://user:hid/den@host/0", USAGE),
    ("redis://user:hid#den@host/0", USAGE),
    ("redis://user:12/hidden@host/0", USAGE),
    ("redis://user:12?hidden=1@host/0", USAGE),
    ("redis://user:12#hidden@host/0", USAGE),
    ("redis://[::1/0", USAGE),
    ("redis://host/first", "/first: expected the number of a database after the host, such as /0"),
    ("redis://host/0?password=hidden", f"password: {OPTIONS}"),
    ("redis://host/0?decode_responses=1", f"decode_responses: {OPTIONS}"),
    ("rediss://host/0?ssl_cert_reqs=maybe", "Invalid SSL Certificate Requirements Flag: maybe"),
]


@pytest.mark.parametrize(("url", "said"), BAD)
def test_an_address_that_can_never_work_is_a_fault(url, said):
    with pytest.raises(Invalid) as raised:
        parse(f"[memory]\nurl = '{url}'\n", "test.toml")
    assert str(raised.value) == f"test.toml: memory.url: {said}"


def test_an_option_without_sense_is_a_fault():
    with pytest.raises(Invalid, match=r"memory\.url: Invalid value for .socket_timeout. in connection URL"):
        parse("[memory]\nurl = 'redis://host/0?socket_timeout=soon'\n", "test.toml")


@pytest.mark.parametrize("url", ["rediss://host/0?ssl_nonsense=1", "redis://host/0?ssl_ca_certs=/x", "redis://host?socket_x=1"])
def test_an_option_that_nobody_knows_is_a_fault(url):
    with pytest.raises(Invalid, match=r"memory\.url: unknown option: .*'(ssl_nonsense|ssl_ca_certs|socket_x)'"):
        parse(f"[memory]\nurl = '{url}'\n", "test.toml")


GOOD = [
    "redis://host", "redis://host/", "redis://host:6380/15", "redis://[::1]:6379/0", "redis://user:pa%2Fss@host/0",
    "redis://:password@host", "valkey://host", "valkeys://host", "rediss://host/0?ssl_ca_certs=/x&ssl_check_hostname=no",
    "redis://host?socket_timeout=0.5&socket_keepalive=yes&client_name=mx1",
]  # fmt: skip


@pytest.mark.parametrize("url", GOOD)
def test_a_good_address_is_none(url):
    assert parse(f"[memory]\nurl = '{url}'\n", "test.toml").settings.memory.url == url


def test_the_engine_that_is_configured_is_opened(fresh):
    memory = open_memory(MemorySection(url=fresh.url, delay=10))
    memory._deadline = PATIENT
    assert [recall(memory, NOW + age) for age in (0, 9, 10)] == [DEFERRED, EARLY, PASSED]
    memory.close()


# --- the commands


@pytest.fixture
def command(fresh, tmp_path):
    """Run a command under a configuration with this memory."""

    def run(*arguments):
        file = tmp_path / "test.toml"
        file.write_text(f'[memory]\nurl = "{fresh.url}"\ndelay = 300\nwindow = 1000\nremember = 5000\n')
        done = CliRunner().invoke(main, ["memory", *arguments, "--config", str(file), "--json"])
        assert (done.exit_code, done.stderr) == (0, "")
        return json.loads(done.stdout)

    return run


def test_the_commands_see_this_memory_and_nothing_else(fresh, connect, command):
    engine = connect(fresh.url)
    fresh.tell("SET", "somebody", "else's")
    fresh.tell("SET", f"{PREFIX[:-2]}2:192.0.2.0/24:ab", "another version's")
    for recipient in range(2500):
        ask(engine, recipient=f"r{recipient}.x@example.net")
    ask(engine, sender="")
    ask(engine, NOW + 300, sender="")
    ask(engine, client=ip_address("192.0.20.1"))
    ask(engine, client=ip_address("2001:db8::7"), sender="\x1b[31m\n")
    stats = command("stats")
    assert stats.pop("bytes") > 0
    assert stats == {"engine": "redis", "url": fresh.url, "waiting": 2502, "passed": 1}
    shown = command("show", "192.0.2.99")
    assert shown["network"] == "192.0.2.0/24"
    assert len(shown["entries"]) == 2501
    assert shown["entries"][0] == {
        "state": "passed",
        "sender": "",
        "recipient": "bob@example.net",
        "since": "2023-11-14T22:18:20Z",
        "passes_from": None,
        "until": "2023-11-14T23:41:40Z",
    }
    assert [entry["sender"] for entry in command("show", "2001:db8::1")["entries"]] == ["\\x1b[31m\\n"]
    assert command("forget", "192.0.2.99") == {"network": "192.0.2.0/24", "forgotten": 2501}
    assert command("show", "192.0.2.7") == {"network": "192.0.2.0/24", "entries": []}
    assert fresh.tell("DBSIZE") == 4
