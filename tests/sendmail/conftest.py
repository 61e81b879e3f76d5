"""The mail host that the tests of this ring share, started once where that takes long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mailhost.lists import ListServer, sample_zones
from mailhost.process import StartError, require_enclosure
from mailhost.resolver import Resolver
from mailhost.sendmail import MailHost

FOLDER = Path("/run/mailhost")


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


@pytest.fixture
def start_mail_host(resolver: Resolver) -> Iterator[Callable[..., MailHost]]:
    """Start mail hosts as a test wants them; there is one at a time, the last."""
    hosts: list[MailHost] = []

    def start(milter: str | None = None, *, extra: str = "", delivery: str = "interactive") -> MailHost:
        while hosts:
            hosts.pop().stop()
        hosts.append(MailHost(FOLDER / "sendmail", milter, extra=extra, delivery=delivery))
        return hosts[-1]

    yield start
    while hosts:
        hosts.pop().stop()


@pytest.fixture
def mail_host(start_mail_host: Callable[..., MailHost]) -> MailHost:
    """Return a mail host without a milter."""
    return start_mail_host()
