"""A system log: appends every datagram that is sent to a socket to a file, as a line.

Run as a program of its own, so that a busy test does not keep Sendmail waiting for its log.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path


def serve(path: str, log: Path) -> None:
    """Serve the socket for ever."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel, log.open("ab", buffering=0) as output:
        channel.bind(path)
        Path(path).chmod(0o666)
        while True:
            line = channel.recv(65536)
            # "<22>Nov 22 11:50:52 sendmail[42]: ...", and some end in NUL or a newline
            output.write(line.partition(b">")[2].rstrip(b"\0\n").replace(b"\n", b" ") + b"\n")


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]))
