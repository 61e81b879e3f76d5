"""Talks to systemd: readiness, reloads, the watchdog, and sockets that it passes.

Floor 2: standard library only. Without systemd nothing is said and nothing is passed.
"""

import contextlib
import os
import socket
import time

_FIRST_PASSED = 3
"""The first descriptor that a service manager passes (sd_listen_fds(3))."""
_PATIENCE_SECONDS = 0.5
"""How long a manager may keep us that does not read; its queue holds few words, and mail is not to wait for it."""


def tell(*states: str) -> None:
    """Send states such as READY=1 to the service manager; one datagram (sd_notify(3))."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    # A manager that went away is no reason to stop serving mail.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.settimeout(_PATIENCE_SECONDS)
        notify.sendto("\n".join(states).encode(), address)


def is_managed() -> bool:
    """Tell whether a service manager looks after us, who starts no successor before we have gone."""
    return "NOTIFY_SOCKET" in os.environ


def reloading() -> None:
    """Tell the service manager that a reload begins; READY=1 ends it."""
    tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def watchdog_seconds() -> float | None:
    """Return how often the manager wants to hear from us at the latest, or None if it does not."""
    microseconds, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", str(os.getpid()))
    return int(microseconds) / 1e6 if microseconds.isdigit() and pid == str(os.getpid()) else None


def passed_sockets() -> dict[str, socket.socket]:
    """Return the sockets that the service manager holds for us, by the names that its units give them."""
    count, pid = os.environ.get("LISTEN_FDS", ""), os.environ.get("LISTEN_PID", "")
    if not count.isdigit() or pid != str(os.getpid()):
        return {}
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    passed: dict[str, socket.socket] = {}
    for number in range(int(count)):
        descriptor = _FIRST_PASSED + number
        os.set_inheritable(descriptor, False)
        name = names[number] if number < len(names) and names[number] else str(number)
        passed[name] = socket.socket(fileno=descriptor)
    return passed
