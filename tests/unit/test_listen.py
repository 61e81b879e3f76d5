"""The milter's socket: how its address is written, and that opening it robs nobody."""

import os
import select
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dnsbl_milter.listen import (
    BACKLOG,
    Endpoint,
    ListenError,
    adopt_socket,
    open_socket,
    open_web_socket,
    parse_endpoint,
    parse_web_address,
    remove_socket,
)

UNIX, INET, INET6 = socket.AF_UNIX, socket.AF_INET, socket.AF_INET6

ENDPOINTS = [
    ("local:/run/m.sock", Endpoint(UNIX, path="/run/m.sock"), "local:/run/m.sock"),
    ("unix:/run/m.sock", Endpoint(UNIX, path="/run/m.sock"), "local:/run/m.sock"),
    ("local:/run/größe:1@x", Endpoint(UNIX, path="/run/größe:1@x"), "local:/run/größe:1@x"),
    (f"local:/{'a' * 106}", Endpoint(UNIX, path=f"/{'a' * 106}"), f"local:/{'a' * 106}"),
    ("inet:8891@127.0.0.1", Endpoint(INET, host="127.0.0.1", port=8891), "inet:8891@127.0.0.1"),
    ("inet:8891@localhost", Endpoint(INET, host="localhost", port=8891), "inet:8891@localhost"),
    ("inet:65535@mx-1.example.org", Endpoint(INET, host="mx-1.example.org", port=65535), "inet:65535@mx-1.example.org"),
    ("inet:1@0.0.0.0", Endpoint(INET, host="0.0.0.0", port=1), "inet:1@0.0.0.0"),
    # Loopback where Sendmail would take every address.
    ("inet:8891", Endpoint(INET, host="127.0.0.1", port=8891), "inet:8891@127.0.0.1"),
    ("inet:8891@", Endpoint(INET, host="127.0.0.1", port=8891), "inet:8891@127.0.0.1"),
    ("inet6:8891", Endpoint(INET6, host="::1", port=8891), "inet6:8891@::1"),
    ("inet6:8891@::1", Endpoint(INET6, host="::1", port=8891), "inet6:8891@::1"),
    ("inet6:8891@[::1]", Endpoint(INET6, host="::1", port=8891), "inet6:8891@::1"),
    ("inet6:8891@localhost", Endpoint(INET6, host="localhost", port=8891), "inet6:8891@localhost"),
]


@pytest.mark.parametrize(("text", "endpoint", "written"), ENDPOINTS)
def test_an_address_as_sendmail_writes_it(text, endpoint, written):
    assert parse_endpoint(text) == endpoint
    assert str(endpoint) == written
    assert parse_endpoint(written) == endpoint


def test_the_address_in_the_form_that_sockets_take():
    assert parse_endpoint("local:/run/m.sock").address == "/run/m.sock"
    assert parse_endpoint("inet:8891").address == ("127.0.0.1", 8891)


FORM = "expected local:/path, inet:port@host or inet6:port@host, as in Sendmail's S="
ABSOLUTE = "expected an absolute path, such as local:/run/dnsbl-milter/milter.sock"
LONG = "the path is longer than the 107 bytes that a unix socket may have"
PORT = "expected a port from 1 to 65535 and a host, such as inet:8891@localhost"
HOST = "expected a host name or an IPv4 address after the @"
HOST6 = "expected a host name or an IPv6 address after the @"

BAD_ENDPOINTS = [
    ("", FORM),
    ("local", FORM),
    ("inet", FORM),
    ("/run/m.sock", FORM),
    ("Local:/run/m.sock", FORM),
    ("tcp:8891@localhost", FORM),
    ("local:", ABSOLUTE),
    ("local:run/m.sock", ABSOLUTE),
    ("local:/run/m\0sock", ABSOLUTE),
    ("local:/run/m\nsock", ABSOLUTE),
    (f"local:/{'a' * 107}", LONG),
    (f"local:/{'ä' * 54}", LONG),
    ("inet:", PORT),
    ("inet:@localhost", PORT),
    ("inet:localhost", PORT),
    ("inet:0@localhost", PORT),
    ("inet:65536@localhost", PORT),
    ("inet:-1@localhost", PORT),
    ("inet:٣@localhost", PORT),
    ("inet:8891@::1", HOST),
    ("inet:8891@a..b", HOST),
    ("inet:8891@.", HOST),
    ("inet:8891@a b", HOST),
    ("inet:8891@mx\0", HOST),
    ("inet:8891@größe.example", HOST),
    (f"inet:8891@{'a' * 64}", HOST),
    (f"inet:8891@{'a.' * 127}a", HOST),
    ("inet6:8891@127.0.0.1", HOST6),
    ("inet6:8891@[::1", HOST6),
]


@pytest.mark.parametrize(("text", "message"), BAD_ENDPOINTS)
def test_a_bad_address(text, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the whole message is compared
        parse_endpoint(text)
    assert str(caught.value) == message


# --- opening it


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder whose path is short enough for a socket, and that anybody may enter."""
    with tempfile.TemporaryDirectory(prefix="listen-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


def at(folder: Path) -> Endpoint:
    return Endpoint(UNIX, path=str(folder / "m.sock"))


def free_port(host: str = "127.0.0.1", family: int = INET) -> int:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def refused(endpoint: Endpoint) -> str:
    with pytest.raises(ListenError) as caught:
        open_socket(endpoint, 0o660)
    return str(caught.value)


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666, 0o000])
@pytest.mark.parametrize("umask", [0o022, 0o000, 0o077])
def test_a_unix_socket_has_its_mode_whatever_the_umask(folder, mode, umask):
    before = os.umask(umask)
    try:
        with open_socket(at(folder), mode):
            assert stat.S_IMODE((folder / "m.sock").stat().st_mode) == mode
            assert os.umask(umask) == umask
    finally:
        os.umask(before)


def test_the_umask_is_restored_after_a_failure(folder):
    before = os.umask(0o027)
    try:
        refused(Endpoint(UNIX, path=str(folder / "missing" / "m.sock")))
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def test_nobody_may_connect_before_the_mode_is_right(folder, monkeypatch):
    modes = []
    bind = socket.socket.bind

    class Watched(socket.socket):
        def bind(self, address):
            bind(self, address)
            modes.append(stat.S_IMODE(Path(address).stat().st_mode))

    monkeypatch.setattr(socket, "socket", Watched)
    before = os.umask(0)
    try:
        with open_socket(at(folder), 0o666):
            assert modes == [0o600]
    finally:
        os.umask(before)


def test_a_socket_listens_and_never_sleeps_in_accept(folder):
    with open_socket(at(folder), 0o660) as listening:
        assert listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        assert not listening.getblocking()
        assert not listening.get_inheritable()
        with pytest.raises(BlockingIOError):
            listening.accept()
        with socket.socket(UNIX, socket.SOCK_STREAM) as client:
            client.connect(str(folder / "m.sock"))
            listening.accept()[0].close()


def test_many_may_wait_to_be_accepted(folder):
    most = int(Path("/proc/sys/net/core/somaxconn").read_text())
    with open_socket(at(folder), 0o660):
        clients = [socket.socket(UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) for _ in range(min(most, BACKLOG))]
        try:
            for client in clients:
                client.connect(str(folder / "m.sock"))
        finally:
            for client in clients:
                client.close()


def test_a_stale_socket_is_removed(folder):
    path = folder / "m.sock"
    with socket.socket(UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(path))
    assert path.is_socket()
    with open_socket(at(folder), 0o660), socket.socket(UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(path))


SERVED = "milter.socket: another process serves local:{}; stop it first, or choose another path"


def test_a_live_socket_is_left_alone(folder):
    path = folder / "m.sock"
    with open_socket(at(folder), 0o660) as first:
        assert refused(at(folder)) == SERVED.format(path)
        first.accept()[0].close()  # what looked whether it lives
        with socket.socket(UNIX, socket.SOCK_STREAM) as client:
            client.connect(str(path))
            first.accept()[0].close()


def test_a_live_socket_without_room_is_left_alone(folder):
    path = folder / "m.sock"
    with socket.socket(UNIX, socket.SOCK_STREAM) as busy, socket.socket(UNIX, socket.SOCK_STREAM) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        waiting.connect(str(path))
        assert refused(at(folder)) == SERVED.format(path)
        assert path.is_socket()


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling"])
def test_what_is_no_socket_is_left_alone(folder, kind):
    path = folder / "m.sock"
    other = folder / "other"
    if kind == "file":
        path.write_text("kept")
    elif kind == "folder":
        path.mkdir()
    else:
        if kind == "link":
            other.write_text("kept")
        path.symlink_to(other)
    message = f"milter.socket: {path} exists and is no socket; move it away, or choose another path"
    assert refused(at(folder)) == message
    assert os.path.lexists(path)


def test_a_socket_of_another_kind_is_left_alone(folder):
    path = folder / "m.sock"
    with socket.socket(UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        assert refused(at(folder)) == f"milter.socket: cannot listen on local:{path}: Protocol wrong type for socket"
        assert path.is_socket()


def test_a_folder_that_is_not_there(folder):
    path = folder / "run" / "m.sock"
    assert refused(Endpoint(UNIX, path=str(path))) == (
        f"milter.socket: cannot listen on local:{path}: "
        f"the folder {path.parent} does not exist; create it, owned by the milter's user"
    )


def test_a_file_where_the_folder_should_be(folder):
    (folder / "run").write_text("")
    path = folder / "run" / "m.sock"
    assert refused(Endpoint(UNIX, path=str(path))) == f"milter.socket: cannot listen on local:{path}: Not a directory"


def without_privileges(attempt) -> str:
    """Return the message of a ListenError in a process that is not root."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            try:
                attempt()
            except ListenError as fault:
                os.write(writing, str(fault).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as told:
        message = told.read()
    os.waitpid(child, 0)
    return message.replace(f"you are user {os.geteuid() or 65534}", "you are user NOBODY")


def test_a_folder_that_may_not_be_written(folder):
    folder.chmod(0o555)
    path = folder / "m.sock"
    assert without_privileges(lambda: open_socket(at(folder), 0o660)) == (
        f"milter.socket: cannot listen on local:{path}: no permission to write to {folder}; you are user NOBODY"
    )
    assert not path.exists()


def test_a_folder_that_may_not_be_entered(folder):
    folder.chmod(0)
    assert "no permission" in without_privileges(lambda: open_socket(at(folder), 0o660))


@pytest.mark.parametrize("alive", [True, False])
def test_somebody_elses_socket_is_left_alone(folder, alive):
    path = folder / "m.sock"
    folder.chmod(0o555)
    with socket.socket(UNIX, socket.SOCK_STREAM) as theirs:
        folder.chmod(0o755)
        theirs.bind(str(path))
        path.chmod(0o000 if alive else 0o777)
        if alive:
            theirs.listen()
        folder.chmod(0o555)
        assert "no permission to write to" in without_privileges(lambda: open_socket(at(folder), 0o660))
        assert path.is_socket()
        folder.chmod(0o755)


def test_a_port_is_opened():
    endpoint = Endpoint(INET, host="127.0.0.1", port=free_port())
    with open_socket(endpoint, 0o660) as listening, socket.create_connection(endpoint.address):
        select.select([listening], [], [], 5)
        listening.accept()[0].close()
        assert not listening.get_inheritable()
    # And again at once, though the last connection still lingers.
    with open_socket(endpoint, 0o660):
        pass


def test_a_port_of_ipv6_leaves_ipv4s_alone():
    port = free_port("::1", INET6)
    with open_socket(Endpoint(INET6, host="::", port=port), 0o660):
        with open_socket(Endpoint(INET, host="0.0.0.0", port=port), 0o660):
            pass
        with socket.create_connection(("::1", port)):
            pass


def test_a_port_that_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert refused(Endpoint(INET, host="127.0.0.1", port=port)) == (
            f"milter.socket: cannot listen on inet:{port}@127.0.0.1: "
            "the port is taken; stop what listens there, or choose another port"
        )


def test_an_address_that_is_elsewhere():
    # Not one of documentation: where the tests run, those may be the machine's own.
    assert refused(Endpoint(INET, host="8.8.8.8", port=8891)) == (
        "milter.socket: cannot listen on inet:8891@8.8.8.8: this host does not have that address"
    )


def test_a_host_without_an_address():
    message = refused(Endpoint(INET, host="nowhere.invalid", port=8891))
    assert message.startswith("milter.socket: cannot listen on inet:8891@nowhere.invalid: ")
    assert "\n" not in message


def test_a_port_that_needs_privileges():
    first = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    message = without_privileges(lambda: open_socket(Endpoint(INET, host="127.0.0.1", port=1), 0o660).close())
    wanted = "milter.socket: cannot listen on inet:1@127.0.0.1: a port below 1024 needs privileges; you are user NOBODY"
    assert message == (wanted if first > 1 else "")


def descriptors() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


def test_nothing_stays_open_after_a_failure(folder):
    (folder / "file").write_text("")
    before = descriptors()
    for path in folder / "file", folder / "missing" / "m.sock":
        refused(Endpoint(UNIX, path=str(path)))
    with open_socket(at(folder), 0o660):
        refused(at(folder))
    assert descriptors() == before


def test_only_a_path_is_removed(folder):
    endpoint = at(folder)
    with open_socket(endpoint, 0o660):
        remove_socket(endpoint)
        assert not (folder / "m.sock").exists()
        remove_socket(endpoint)
    remove_socket(Endpoint(INET, host="127.0.0.1", port=8891))


WEB = [
    ("127.0.0.1:10782", (INET, "127.0.0.1", 10782)),
    ("0.0.0.0:1", (INET, "0.0.0.0", 1)),
    ("[::1]:10782", (INET6, "::1", 10782)),
    ("::1:10782", (INET6, "::1", 10782)),
    ("localhost:65535", (INET, "localhost", 65535)),
]


@pytest.mark.parametrize(("text", "address"), WEB)
def test_the_address_for_metrics(text, address):
    assert parse_web_address(text) == address


BAD_WEB = [
    "", "10782", ":10782", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:x", "a..b:1", "a b:1",
    "größe.example:1", "[127.0.0.1:1", "[]:1", "::x:1", "127.0.0.1:٣", "mx\0:1",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_WEB)
def test_a_bad_address_for_metrics(text):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the whole message is compared
        parse_web_address(text)
    assert str(caught.value) == 'expected "host:port", such as "127.0.0.1:10782", or "" for none'


# --- sockets from the service manager, and the one for metrics


def test_a_passed_socket_is_adopted(folder):
    endpoint = at(folder)
    with socket.socket(UNIX, socket.SOCK_STREAM) as passed:
        passed.bind(endpoint.path)
        passed.listen()
        assert adopt_socket(passed, endpoint) is passed
        assert not passed.getblocking()


def test_a_passed_socket_may_have_its_path_by_a_link(folder):
    (folder / "run").mkdir()
    (folder / "link").symlink_to(folder / "run")
    with socket.socket(UNIX, socket.SOCK_STREAM) as passed:
        passed.bind(f"{folder}/link/m.sock")
        passed.listen()
        assert adopt_socket(passed, parse_endpoint(f"local:{folder}/run/m.sock")) is passed


ELSEWHERE = [
    # where the passed socket listens, the family, what the configuration says
    ("{folder}/other.sock", UNIX, "local:{folder}/m.sock"),
    ("\0abstract-{folder}", UNIX, "local:{folder}/m.sock"),
    (("127.0.0.1", 0), INET, "inet:1@127.0.0.1"),
    (("::1", 0), INET6, "inet6:1@::1"),
]


@pytest.mark.parametrize(("where", "family", "configured"), ELSEWHERE)
def test_a_passed_socket_that_listens_elsewhere(folder, where, family, configured):
    with socket.socket(family, socket.SOCK_STREAM) as passed:
        passed.bind(where.format(folder=folder) if isinstance(where, str) else where)
        passed.listen()
        with pytest.raises(ListenError, match="make ListenStream= in the socket unit and this key agree"):
            adopt_socket(passed, parse_endpoint(configured.format(folder=folder)))


def test_a_passed_socket_that_does_not_fit(folder):
    message = (
        "milter.socket: the service manager passed a socket that does not listen on {}; "
        "make ListenStream= in the socket unit and this key agree"
    )
    with socket.socket(UNIX, socket.SOCK_STREAM) as silent:
        silent.bind(str(folder / "m.sock"))
        with pytest.raises(ListenError) as caught:
            adopt_socket(silent, at(folder))
        assert str(caught.value) == message.format(f"local:{folder}/m.sock")
        silent.listen()
        with pytest.raises(ListenError) as caught:
            adopt_socket(silent, parse_endpoint("inet:8891"))
        assert str(caught.value) == message.format("inet:8891@127.0.0.1")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_the_socket_for_metrics(host):
    family = INET6 if "[" in host else INET
    port = free_port(host.strip("[]"), family)
    with open_web_socket(f"{host}:{port}") as web:
        assert web.family == family
        with socket.create_connection((host.strip("[]"), port)):
            pass


def test_the_socket_for_metrics_when_its_port_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ListenError) as caught:
            open_web_socket(listen)
    assert str(caught.value) == (
        f'metrics.listen: cannot listen on {listen}: the port is taken; choose another, or "" for none'
    )


@pytest.mark.parametrize("host", ["8.8.8.8", "nowhere.invalid"])
def test_the_socket_for_metrics_where_it_cannot_be(host):
    with pytest.raises(ListenError) as caught:
        open_web_socket(f"{host}:10782")
    assert str(caught.value).startswith(f"metrics.listen: cannot listen on {host}:10782: ")
    assert str(caught.value).endswith('; choose another, or "" for none')
    assert "\n" not in str(caught.value)
