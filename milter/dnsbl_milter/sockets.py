"""The listening sockets of one run of the daemon: opened once for all generations, and each process keeps its own.

Floor 2: standard library only.
"""

import socket
from dataclasses import dataclass

from dnsbl_milter import notify
from dnsbl_milter.configuration import Configuration
from dnsbl_milter.listen import Endpoint, ListenError, adopt_socket, open_socket, open_web_socket, remove_socket
from dnsbl_milter.settings import Invalid


@dataclass(frozen=True, slots=True)
class Sockets:
    """Where Sendmail comes in, and where whoever reads metrics does.

    A listening socket stays open while anybody holds it, and who connected would wait for nobody: so each process
    closes the one that is not for it.
    """

    endpoint: Endpoint
    milter: socket.socket
    web: socket.socket | None
    passed: bool
    """The service manager holds the milter's socket, so it outlives us and its path is not ours to remove."""

    def keep_milter(self) -> socket.socket:
        """Close what a worker does not need, and return what it does."""
        if self.web is not None:
            self.web.close()
        return self.milter

    def keep_web(self) -> socket.socket | None:
        """Close what the monitor does not need, and return what it does."""
        self.milter.close()
        return self.web

    def close(self) -> None:
        """Let nobody in any more, and the milter's path go."""
        # The path goes first: a successor may bind it while our last sessions still run.
        if not self.passed:
            remove_socket(self.endpoint)
        self.milter.close()
        if self.web is not None:
            self.web.close()


def open_sockets(configuration: Configuration) -> Sockets:
    """Open what the configuration asks for, or take what the service manager passes. Raises `ListenError`."""
    given = notify.passed_sockets()
    endpoint, section = configuration.endpoint, configuration.settings.milter
    if given:
        # Whatever name its unit gave it: there is one socket that we ask a manager for.
        milter = adopt_socket(next(iter(given.values())), endpoint)
    else:
        milter = open_socket(endpoint, int(section.socket_mode, 8))
    listen = configuration.settings.metrics.listen
    try:
        return Sockets(endpoint, milter, open_web_socket(listen) if listen else None, bool(given))
    except ListenError:
        if not given:
            remove_socket(endpoint)
        raise


def check_unchanged(before: Configuration, after: Configuration) -> None:
    """Raise `Invalid` if a configuration asks for other sockets than those that are open."""
    old, new = before.settings, after.settings
    keys = [
        ("milter.socket", old.milter.socket, new.milter.socket),
        ("milter.socket_mode", old.milter.socket_mode, new.milter.socket_mode),
        ("metrics.listen", old.metrics.listen, new.metrics.listen),
    ]
    faults = [(key, f"changed from {was!r} to {is_!r}, which needs a restart") for key, was, is_ in keys if was != is_]
    if faults:
        raise Invalid([(f"{after.source}: {key}", what) for key, what in faults])
