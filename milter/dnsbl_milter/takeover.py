"""Gives libmilter our listening socket: it opens one of its own, and ours is laid over that.

Floor 3: one of the homes of pymilter.
"""

import os
import shutil
import socket
import stat
import tempfile
from pathlib import Path

import Milter


def take_over(listening: socket.socket) -> int:
    """Let libmilter open a socket, and lay ours over it; return its descriptor.

    The family must be the same: libmilter drops connections whose address is of another than its own socket's.
    """
    folder = ""
    if listening.family == socket.AF_UNIX:
        folder = tempfile.mkdtemp(prefix="dnsbl-milter-")
        Milter.setconn(f"local:{folder}/socket")
    else:
        Milter.setconn("inet:0@127.0.0.1" if listening.family == socket.AF_INET else "inet6:0@::1")
    before = _listening_descriptors()
    Milter.opensocket(False)
    (opened,) = _listening_descriptors() - before
    os.dup2(listening.fileno(), opened, inheritable=False)
    listening.close()
    if folder:
        shutil.rmtree(folder)
    return opened


def _listening_descriptors() -> set[int]:
    numbers = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
    return {number for number in numbers if _is_listening(number)}


def _is_listening(descriptor: int) -> bool:
    try:
        # What is no socket makes no socket object, and then nobody would close the duplicate.
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return False
        with socket.socket(fileno=os.dup(descriptor)) as duplicate:
            return bool(duplicate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False
