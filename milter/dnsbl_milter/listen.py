"""The milter's own listening socket: its address as Sendmail writes it, and opening it without robbing anybody.

Floor 2: standard library only.
"""

import contextlib
import errno
import os
import re
import socket
import stat
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

BACKLOG = 512
"""More than Sendmail opens at once by default; the kernel cuts it to its own limit."""


_HOST = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*", re.ASCII)


class ListenError(Exception):
    """The socket cannot be opened; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the milter listens: a path, or a host and port."""

    family: socket.AddressFamily
    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        if self.family == socket.AF_UNIX:
            return f"local:{self.path}"
        return f"{'inet' if self.family == socket.AF_INET else 'inet6'}:{self.port}@{self.host}"

    @property
    def address(self) -> str | tuple[str, int]:
        """Return the address in the form that sockets take."""
        return self.path if self.family == socket.AF_UNIX else (self.host, self.port)


def parse_endpoint(text: str) -> Endpoint:
    """Read an address as in Sendmail's `S=`: local:PATH, unix:PATH, inet:PORT@HOST or inet6:PORT@HOST.

    Raises ValueError.
    """
    kind, separator, rest = text.partition(":")
    if kind in ("local", "unix") and separator:
        if not rest.startswith("/") or not rest.isprintable():
            raise ValueError("expected an absolute path, such as local:/run/dnsbl-milter/milter.sock")
        if len(os.fsencode(rest)) > 107:
            raise ValueError("the path is longer than the 107 bytes that a unix socket may have")
        return Endpoint(socket.AF_UNIX, path=rest)
    if kind in ("inet", "inet6") and separator:
        port, _, host = rest.partition("@")
        if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise ValueError(f"expected a port from 1 to 65535 and a host, such as {kind}:8891@localhost")
        host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if host and not _fits(host, 4 if kind == "inet" else 6):
            raise ValueError(f"expected a host name or an IPv{4 if kind == 'inet' else 6} address after the @")
        family = socket.AF_INET if kind == "inet" else socket.AF_INET6
        # Loopback, where Sendmail's own default is every address: a milter open to the world reads its mail.
        default = "127.0.0.1" if kind == "inet" else "::1"
        return Endpoint(family, host=host or default, port=int(port))
    raise ValueError("expected local:/path, inet:port@host or inet6:port@host, as in Sendmail's S=")


def _fits(host: str, version: int) -> bool:
    try:
        return ip_address(host).version == version
    except ValueError:
        return len(host) < 254 and bool(_HOST.fullmatch(host))


def open_socket(endpoint: Endpoint, mode: int) -> socket.socket:
    """Open the listening socket, non-blocking; a stale one is removed, a live one is left alone.

    Non-blocking, because several workers wait on it: one that loses the race would otherwise sleep in accept().
    Raises `ListenError`.
    """
    listening = socket.socket(endpoint.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if endpoint.family == socket.AF_UNIX:
            _make_way(endpoint)
            # Nobody may connect before the mode is right.
            before = os.umask(0o177)
            try:
                listening.bind(endpoint.address)
            finally:
                os.umask(before)
            Path(endpoint.path).chmod(mode)
        else:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if endpoint.family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind(endpoint.address)
        listening.listen(BACKLOG)
    except OSError as fault:
        listening.close()
        raise ListenError(f"milter.socket: cannot listen on {endpoint}: {_advice(endpoint, fault)}") from None
    except ListenError:
        listening.close()
        raise
    return listening


def adopt_socket(passed: socket.socket, endpoint: Endpoint) -> socket.socket:
    """Take over a listening socket that the service manager holds. Raises `ListenError` if it listens elsewhere."""
    if not _listens(passed, endpoint):
        raise ListenError(
            f"milter.socket: the service manager passed a socket that does not listen on {endpoint}; "
            "make ListenStream= in the socket unit and this key agree"
        )
    passed.setblocking(False)
    return passed


def _listens(passed: socket.socket, endpoint: Endpoint) -> bool:
    if passed.family != endpoint.family or not passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return False
    name = passed.getsockname()
    if endpoint.family == socket.AF_UNIX:
        # Resolved, for /var/run is a link to /run; an abstract name is bytes, and no path.
        return Path(str(name)).resolve() == Path(endpoint.path).resolve()
    # Not the host: it may be a name, or every address.
    return bool(name[1] == endpoint.port)


def parse_web_address(text: str) -> tuple[socket.AddressFamily, str, int]:
    """Read "host:port"; an IPv6 address may stand in brackets. Raises ValueError."""
    host, _, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    version = 6 if ":" in host else 4
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536 and _fits(host, version)):
        raise ValueError('expected "host:port", such as "127.0.0.1:10782", or "" for none')
    return socket.AF_INET6 if version == 6 else socket.AF_INET, host, int(port)


def open_web_socket(listen: str) -> socket.socket:
    """Open the socket for metrics, written "host:port". Raises `ListenError`."""
    family, host, port = parse_web_address(listen)
    try:
        return socket.create_server((host, port), family=family)
    except OSError as fault:
        what = "the port is taken" if fault.errno == errno.EADDRINUSE else fault.strerror or str(fault)
        raise ListenError(f'metrics.listen: cannot listen on {listen}: {what}; choose another, or "" for none') from None


def remove_socket(endpoint: Endpoint) -> None:
    """Remove the socket's path, if it has one, when nobody serves it any more."""
    if endpoint.family == socket.AF_UNIX:
        with contextlib.suppress(OSError):
            Path(endpoint.path).unlink()


def _make_way(endpoint: Endpoint) -> None:
    path = Path(endpoint.path)
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ListenError(f"milter.socket: {path} exists and is no socket; move it away, or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(endpoint.path)
        except ConnectionRefusedError:
            path.unlink()
            return
        except (TimeoutError, BlockingIOError):  # alive, and with no room for another caller just now
            pass
    raise ListenError(f"milter.socket: another process serves {endpoint}; stop it first, or choose another path")


def _advice(endpoint: Endpoint, fault: OSError) -> str:
    folder = Path(endpoint.path).parent
    if fault.errno == errno.EADDRINUSE:
        return "the port is taken; stop what listens there, or choose another port"
    if fault.errno == errno.EADDRNOTAVAIL:
        return "this host does not have that address"
    if fault.errno == errno.ENOENT:
        return f"the folder {folder} does not exist; create it, owned by the milter's user"
    if fault.errno in (errno.EACCES, errno.EPERM):
        what = "a port below 1024 needs privileges" if endpoint.port else f"no permission to write to {folder}"
        return f"{what}; you are user {os.geteuid()}"
    return fault.strerror or str(fault)
