"""The monitor: serves metrics, the state of health and the status page, in a process of its own; and probes lists.

Floor 4: standard library only.
"""

import contextlib
import os
import socket
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NoReturn

from dnsbl_milter import log, worker
from dnsbl_milter.board import Board
from dnsbl_milter.configuration import Configuration
from dnsbl_milter.prober import Prober
from dnsbl_milter.repeats import Repeats
from dnsbl_milter.standing import Standing
from dnsbl_milter.watch import Watch

PATIENCE_SECONDS = 10
"""For a reader to send its request and take its answer."""

POLL_SECONDS = 0.1
"""How soon the server notices that it is to end."""


def serve(
    configuration: Configuration,
    web: socket.socket | None,
    board: Board,
    standing: Standing,
    folder: Path,
    control: int,
    signs: int,
) -> NoReturn:
    """Serve until the supervisor says otherwise, or is gone."""
    log.start(configuration.settings.log.format, configuration.settings.log.level)
    watch = Watch(configuration, board, standing, folder)
    if configuration.settings.health.enabled:
        Prober(configuration, standing, folder).start()
    server = _Server(web, watch) if web is not None else None
    if server is not None:
        threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,), name="web", daemon=True).start()
    os.write(signs, b".")
    while os.read(control, 1) == worker.PING:
        # The supervisor may be gone since it asked; the end of the other pipe says so.
        with contextlib.suppress(OSError):
            os.write(signs, b".")
        watch.note_pauses()
    if server is not None:
        # Whoever has been let in gets an answer; who has not is our successor's.
        server.shutdown()
        server.server_close()
    os._exit(0)


class _Server(ThreadingHTTPServer):
    """An HTTP server on a socket that is already open."""

    # Requests that are under way are waited for at the end.
    daemon_threads = False

    def __init__(self, web: socket.socket, watch: Watch) -> None:
        super().__init__(web.getsockname()[:2], _Request, bind_and_activate=False)
        self.socket.close()
        self.socket = web
        # Two generations may wait for callers: whichever loses the race would sleep in accept().
        web.setblocking(False)
        self.watch = watch
        self._repeats = Repeats()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a fault in one line instead of printing it; whoever asks and hangs up may do so every second."""
        if (missed := self._repeats.allow("page", time.monotonic())) is not None:
            log.error("page failed", exc_info=True, repeated=missed)


class _Request(BaseHTTPRequestHandler):
    timeout = PATIENCE_SECONDS
    server: _Server
    server_version = "dnsbl-milter"
    sys_version = ""

    def do_GET(self) -> None:
        page = self.server.watch.pages.get(self.path.partition("?")[0])
        if page is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        status, content_type, body = page(self.headers.get("Accept", ""))
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing: a scrape is no event."""
