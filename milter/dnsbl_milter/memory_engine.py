"""What an engine of the memory is, and the words that engines share.

Floor 2: standard library only. The engines are `memory_sqlite` and `memory_redis`; `memory` opens the one that is
configured.
"""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

from dnsbl_policy.greylist import Recollection, Triplet

_MOST_SHOWN = 100
"""Characters of an address that are kept for people to read; what is compared is the digest of all of it."""


class Unavailable(Exception):
    """The engine cannot answer now; the message says why in one line, without secrets."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """What is remembered of one triplet, for people."""

    sender: str
    recipient: str
    passed: bool
    since: float
    """The moment of the first attempt; once it has passed, of the latest."""


@dataclass(frozen=True, slots=True)
class Holdings:
    """How much is remembered."""

    waiting: int
    passed: int
    size: int | None
    """Bytes: of the files, or of the server's memory with all else in it; None where that is not told."""


class Engine(Protocol):
    """Keeps traces of triplets. Every method may raise `Unavailable`; any of `threads` threads may call at once."""

    name: str
    threads: int

    def check(self) -> None:
        """Return if the engine could answer now."""

    def recall(self, triplet: Triplet, now: float) -> Recollection:
        """Answer an attempt and remember it, in one step that no other attempt can come between."""

    def show(self, network: str) -> list[Remembered]:
        """Return what is remembered of a network."""

    def forget(self, network: str) -> int:
        """Forget a network; return how many triplets that were."""

    def holdings(self) -> Holdings:
        """Return how much is remembered."""

    def close(self) -> None:
        """Give everything back; the next call opens it anew."""


def digest(triplet: Triplet) -> bytes:
    """Return 16 bytes for sender and recipient, however long they are and whatever is in them."""
    # The length in front, for no character is sure to be in neither. A lone surrogate stands for a byte off the wire.
    text = f"{len(triplet.sender)}:{triplet.sender}{triplet.recipient}"
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def readable(address: str) -> str:
    """Return an address as people may see it: bounded, on one line, and nothing in it that a terminal obeys."""
    text = address if len(address) <= _MOST_SHOWN else f"{address[: _MOST_SHOWN - 1]}…"
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
