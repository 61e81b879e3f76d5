"""The mail host that the tests of this ring share, started anew only for a test that needs another one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from mailhost.daemon import Daemon
from mailhost.lists import ListServer, sample_zones
from mailhost.process import StartError, require_enclosure
from mailhost.resolver import Resolver
from mailhost.sendmail import MailHost
from mailhost.site import Site

FOLDER = Path("/run/mailhost")
OpenSite = Callable[..., Site]


class Keeper:
    """Keeps a mail host and a milter running for as long as one test after the other wants the same."""

    def __init__(self) -> None:
        self.site: Site | None = None
        self._wanted: tuple[object, ...] = ()
        self._hosts: dict[tuple[str | None, str, str], MailHost] = {}

    def open_site(
        self,
        policy: str,
        *,
        extra: str = "",
        delivery: str = "interactive",
        wrapper: Sequence[str] = (),
        fresh: bool = False,
    ) -> Site:
        wanted = (policy, extra, delivery, wrapper)
        if self.site is None or fresh or self._wanted != wanted or not self.site.daemon.process.alive:
            self.close_daemon()
            daemon = Daemon(FOLDER / "daemon", policy, wrapper=wrapper)
            self._wanted = wanted
            self.site = Site(self.open_host(daemon.socket, extra=extra, delivery=delivery), daemon)
        self.site.forget()
        return self.site

    def open_host(self, milter: str | None, *, extra: str = "", delivery: str = "interactive") -> MailHost:
        wanted = (milter, extra, delivery)
        if wanted not in self._hosts:
            self.close_host()
            self._hosts[wanted] = MailHost(FOLDER / "sendmail", milter, extra=extra, delivery=delivery)
        return self._hosts[wanted]

    def close_daemon(self) -> None:
        if self.site is not None:
            self.site.daemon.kill()  # its way to stop is a matter for a test, and takes a second
            self.site = None

    def close_host(self) -> None:
        while self._hosts:
            self._hosts.popitem()[1].stop()

    def close(self) -> None:
        self.close_daemon()
        self.close_host()


@pytest.fixture(scope="session", autouse=True)
def _enclosure() -> None:
    try:
        require_enclosure()
    except StartError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def lists(_enclosure: None) -> Iterator[ListServer]:
    server = ListServer(FOLDER / "lists", sample_zones())
    yield server
    server.stop()


@pytest.fixture(scope="session")
def resolver(lists: ListServer) -> Iterator[Resolver]:
    server = Resolver(FOLDER / "resolver", [lists])
    yield server
    server.stop()


@pytest.fixture(scope="session")
def keeper(resolver: Resolver) -> Iterator[Keeper]:
    kept = Keeper()
    yield kept
    kept.close()


@pytest.fixture
def open_site(keeper: Keeper) -> Iterator[OpenSite]:
    """Open the site that a test wants, with nothing in it; afterwards, see that the milter is sound."""
    yield keeper.open_site
    site = keeper.site
    if site is None:
        return
    site.hang_up()
    assert site.errors() == []  # "callback failed" is one of them
    site.daemon.wait_until_idle()
    assert not any(site.daemon.lookups().values()), "a session that has ended left its sockets open"


@pytest.fixture
def start_mail_host(keeper: Keeper) -> Iterator[Callable[..., MailHost]]:
    """Start mail hosts as a test wants them; there is one at a time, the last."""

    def start(milter: str | None = None, *, extra: str = "", delivery: str = "interactive") -> MailHost:
        keeper.close()
        return keeper.open_host(milter, extra=extra, delivery=delivery)

    yield start
    keeper.close()


@pytest.fixture
def mail_host(start_mail_host: Callable[..., MailHost]) -> MailHost:
    """Return a mail host without a milter."""
    return start_mail_host()
