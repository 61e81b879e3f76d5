"""A worker: libmilter on the shared listening socket, in a process of its own.

Floor 3: with `session` and `takeover`, the home of pymilter.

What libmilter leaves no other way to do is done here. It cannot drain (stopping it resets every session and unlinks the
socket), so a worker that is to leave lays an idle pipe over its listening descriptor, finishes its sessions, and
leaves by `os._exit`. Python's signal handlers never run while the main thread is inside libmilter, and libmilter
takes SIGHUP, SIGTERM and SIGINT as "stop at once"; so workers are told by pipes, and never by signals.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn

import Milter

from dnsbl_milter import log
from dnsbl_milter.cache import Cache, Lives
from dnsbl_milter.case import House
from dnsbl_milter.configuration import Configuration
from dnsbl_milter.memory import open_memory
from dnsbl_milter.metrics import Metrics
from dnsbl_milter.pauses import Pauses
from dnsbl_milter.pauses import file as pauses_file
from dnsbl_milter.prover import Prover
from dnsbl_milter.repeats import Repeats
from dnsbl_milter.resolver import Resolver
from dnsbl_milter.session import ACTIONS, Session
from dnsbl_milter.standing import Standing
from dnsbl_milter.takeover import take_over

NAME = "dnsbl-milter"

PING = b"p"
"""The supervisor's question whether we are alive; any other word, and the end of the pipe, means to drain."""
_ALIVE = b"."

QUIET_SECONDS = 1.0
"""A connection that libmilter has accepted and not yet negotiated is invisible to callbacks; a worker that leaves
without this much quiet breaks it (20 of 20 tries broken without, none with)."""

_repeats = Repeats()


def serve(
    configuration: Configuration, listening: socket.socket, standing: Standing, place: int, control: int, signs: int
) -> NoReturn:
    """Serve sessions until told to drain by `control`; the first sign of life on `signs` is that serving begins.

    The place is the worker's among those of its configuration.
    """
    _stay_on_one_cpu(place, configuration.settings.milter.workers)
    # libmilter's own thread must be the only one that these reach: before the first thread, or the process dies unclean.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP, signal.SIGTERM, signal.SIGINT))
    # It only interrupts what the main thread waits for in C; there the handler itself never runs.
    signal.signal(signal.SIGUSR1, lambda *_: None)
    sys.excepthook = _unreadable
    sessions = _Sessions(open_house(configuration, standing))
    sessions.register()
    descriptor = take_over(listening)
    threading.Thread(target=_obey, args=(control, signs, descriptor, sessions, threading.get_ident()), name="control", daemon=True).start()
    os.write(signs, _ALIVE)
    Milter.main()
    # Only a signal or a fault of libmilter's ends it.
    log.error("worker stopped by libmilter", pid=os.getpid())
    os._exit(1)


def open_house(configuration: Configuration, standing: Standing | None = None) -> House:
    """Put together what the sessions of one process share; without a standing every list is simply asked."""
    settings, policy = configuration.settings, configuration.policy
    panels = {version: policy.panel(version) for version in (4, 6)}
    resolvers = {
        version: Resolver(
            configuration.nameservers, panel.lists, deadline=settings.dns.deadline, retry=settings.dns.retry
        )
        for version, panel in panels.items()
    }
    lives = Lives(settings.cache.min_ttl, settings.cache.max_ttl, settings.cache.error_ttl)
    return House(
        policy=policy,
        panels=panels,
        resolvers=resolvers,
        provers={version: Prover(each, version) for version, each in resolvers.items() if settings.health.proof},
        standing=standing or Standing(policy.lists),
        cache=Cache(settings.cache.clients, lives, time.monotonic),
        metrics=Metrics(policy.lists),
        memory=open_memory(settings.memory) if settings.memory.url else None,
        pauses=Pauses(pauses_file()),
        add_headers=settings.headers.add,
    )


def _stay_on_one_cpu(place: int, workers: int) -> None:
    """Keep all threads of this process on one CPU, and each of the workers on its own as far as there are enough.

    Python runs one thread at a time, so no worker gains by a second CPU; but handing the interpreter from a thread
    on one CPU to a thread on another costs more than most callbacks do. Measured with 8 parallel sessions and two
    workers on two CPUs: 4,300 messages/s against 2,900, and 340 us of CPU for each against 450.
    """
    cpus = sorted(os.sched_getaffinity(0))
    with contextlib.suppress(OSError):  # a sandbox may forbid it, and it is only about speed
        os.sched_setaffinity(0, {cpus[place * max(len(cpus) // workers, 1) % len(cpus)]})


def libmilter_version() -> str:
    """Return the version of the libmilter in use."""
    return ".".join(map(str, Milter.getversion()))


class _Sessions:
    """The sessions of this process, and the callbacks through which libmilter reaches them."""

    def __init__(self, house: House) -> None:
        self._house = house
        # No lock and no condition: each step is one on its own, and a session must not queue for a number that is read
        # once, when the worker leaves.
        self._open: set[Session] = set()
        self._last_change = time.monotonic()
        self._offered: tuple[int, ...] = (ACTIONS, 0, 0, 0)

    def register(self) -> None:
        """Tell libmilter what to call."""
        Milter.set_flags(ACTIONS)
        # pymilter's own default for an exception is a 451: a bug of ours would delay everybody's mail.
        Milter.set_exception_policy(Milter.CONTINUE)
        Milter.set_connect_callback(self._guarded("connect", Session.connect))
        Milter.set_helo_callback(self._guarded("hello", Session.hello))
        Milter.set_envfrom_callback(self._guarded("envfrom", lambda session, *words: session.envfrom(_text(words[0]))))
        Milter.set_envrcpt_callback(self._guarded("envrcpt", lambda session, *words: session.envrcpt(_text(words[0]))))
        Milter.set_header_callback(self._guarded("header", Session.header))
        Milter.set_eom_callback(self._guarded("eom", Session.eom))
        Milter.set_abort_callback(self._guarded("abort", Session.abort))
        Milter.set_close_callback(self._close)
        Milter.register(NAME, negotiate=self._negotiate)

    def _guarded(self, name: str, call: Callable[..., int]) -> Callable[..., int]:
        """Return a callback that turns an exception of ours into "carry on": a bug must not cost anybody mail."""

        def callback(context: Any, *arguments: Any) -> int:
            try:
                return call(context.getpriv() or self._begin_anew(context), *arguments)
            except Exception:  # noqa: BLE001  a bug of ours must not reach libmilter; it is logged
                return self._failed(name)

        return callback

    def _failed(self, callback: str) -> int:
        self._house.metrics.failed(callback)
        if (missed := _repeats.allow(callback, time.monotonic())) is not None:
            log.error("callback failed", exc_info=True, callback=callback, repeated=missed)
        return int(Milter.CONTINUE)

    def wait_until_done(self) -> None:
        """Return when no session is open and none has come or gone for a while."""
        # One may have been accepted a moment ago, however long nothing had happened before.
        self._last_change = time.monotonic()
        while self._open or time.monotonic() < self._last_change + QUIET_SECONDS:
            time.sleep(QUIET_SECONDS / 20)  # and no condition, for which every session would have to take a lock

    def _negotiate(self, context: Any, options: list[int]) -> int:
        self._offered = tuple(options)
        return self._begin(context).negotiate(options)

    def _begin(self, context: Any) -> Session:
        session = Session(self._house, context)
        context.setpriv(session)
        self._open.add(session)
        self._last_change = time.monotonic()
        return session

    def _begin_anew(self, context: Any) -> Session:
        """Begin a session for the next client on a connection that is not closed in between (SMFIC_QUIT_NC)."""
        session = self._begin(context)
        session.negotiate(list(self._offered))  # not said again; the same server offers the same
        return session

    def _close(self, context: Any) -> int:
        # Comes without negotiate where a peer hangs up at once, so what is counted is the session and not the call.
        session = context.getpriv()
        context.setpriv(None)
        if session is None:
            return int(Milter.CONTINUE)
        try:
            return int(session.close())
        except Exception:  # noqa: BLE001  a bug of ours must not reach libmilter; it is logged
            return self._failed("close")
        finally:
            self._last_change = time.monotonic()  # first, or the worker might leave in between
            self._open.discard(session)


def _unreadable(_kind: type[BaseException], fault: BaseException, _trace: TracebackType | None) -> None:
    """Log in one line what pymilter would print: it fails over a HELO that is no UTF-8 before it calls us."""
    raw = fault.object if isinstance(fault, UnicodeDecodeError) else b""
    if (missed := _repeats.allow(_unreadable, time.monotonic())) is not None:
        log.warning("not readable as text", fault=fault, text=raw.decode("utf-8", "surrogateescape"), repeated=missed)


def _text(word: bytes | str) -> str:
    return word.decode("utf-8", "surrogateescape") if isinstance(word, bytes) else word


def _obey(control: int, signs: int, descriptor: int, sessions: _Sessions, main: int) -> NoReturn:
    """Give signs of life until told to drain, or until the supervisor is gone; leave when the last session has ended."""
    while os.read(control, 1) == PING:
        with contextlib.suppress(OSError):
            os.write(signs, _ALIVE)
    idle, _kept_open = os.pipe()
    os.dup2(idle, descriptor, inheritable=False)
    # A poll under way keeps our socket alive, and who connected now would wait in vain for the seconds that it takes.
    signal.pthread_kill(main, signal.SIGUSR1)
    sessions.wait_until_done()
    os._exit(0)
