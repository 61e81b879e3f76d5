"""What the tests of this ring share: a faulty name server, and a place to import it from."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

# Tests are no package, so that nothing of theirs can hide pymilter's C module `milter`.
sys.path.insert(0, str(Path(__file__).parent))

import faulty


@pytest.fixture
def name_server() -> Iterator[faulty.NameServer]:
    """Return a running name server without zones."""
    with faulty.NameServer() as server:
        yield server


@pytest.fixture
def start_name_server() -> Iterator[Callable[..., faulty.NameServer]]:
    """Start name servers as a test wants them; all are stopped at its end."""
    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(faulty.NameServer(*arguments, **options))


@pytest.fixture
def nobody() -> Iterator[str]:
    """Return a nameserver where nobody listens."""
    with faulty.nobody() as text:
        yield text
