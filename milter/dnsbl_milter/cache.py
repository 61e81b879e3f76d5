"""What lists answered, kept for as long as they said: by client, in one worker.

Floor 2: the home of cachetools. Bounded; any thread of the worker may use it.

A client's evidence is one short bytes object: a tag, a moment of expiry and the codes for each list of its panel.
Eight answers as objects take some 1,500 bytes; packed they take about 80, and 100,000 clients fit in 50 MB.
"""

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from threading import Lock

from cachetools import LRUCache

from dnsbl_policy.answers import PENDING, Answer, Clear, Listed, Unknown, Why
from dnsbl_policy.lists import Client

_NOTHING, _CLEAR, _FAILED, _LISTED, _PROVEN = 0, 1, 2, 16, 128
"""A tag above one of the last two adds the number of codes."""
_HEAD = struct.Struct("!BI")
_KEPT = (Why.TIMEOUT, Why.SERVFAIL, Why.REFUSED, Why.BLOCKED, Why.INVALID, Why.DISPROVED)
"""Failures worth remembering, so that the same client does not wait for them twice."""
_MOST_CODES = _PROVEN - _LISTED - 1


@dataclass(frozen=True, slots=True)
class Lives:
    """How long answers are kept, in seconds, whatever they say of themselves."""

    shortest: int = 60
    longest: int = 3600
    error: int = 30

    def of(self, answer: Answer) -> int:
        """Return how long this answer is kept; 0 for one that is not."""
        if isinstance(answer, Unknown):
            return self.error if answer.why in _KEPT else 0
        return min(max(answer.ttl, self.shortest), self.longest)


class Cache:
    """Keeps evidence by client.

    cachetools' TTL caches give one life to a whole entry; here each list's answer has its own, so the plain LRU
    cache bounds the number of clients and the lives are in the packed entry.
    """

    def __init__(self, clients: int, lives: Lives, timer: Callable[[], float]) -> None:
        self._entries: LRUCache[bytes, bytes] = LRUCache(clients)
        self._lives = lives
        self._timer = timer
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def recall(self, client: Client, lists: int) -> list[Answer]:
        """Return the evidence still good about a client, `PENDING` where a list of the panel is to be asked."""
        with self._lock:
            packed = self._entries.get(client.packed)
        if packed is None:
            return [PENDING] * lists
        known = _unpack(packed, int(self._timer()))
        return known if len(known) == lists else [PENDING] * lists

    def keep(self, client: Client, evidence: Sequence[Answer], fresh: Iterable[int]) -> None:
        """Keep evidence about a client; only the answers at the `fresh` places are new, the others live on."""
        now = int(self._timer())
        lives = [(place, self._lives.of(evidence[place])) for place in fresh]
        if not any(life for _, life in lives):
            return
        with self._lock:
            parts = _split(self._entries.get(client.packed, b""))
            if len(parts) != len(evidence):
                parts = [_HEAD.pack(_NOTHING, 0)] * len(evidence)
            for place, life in lives:
                # Two sessions may ask about one client at a time, and the packet that one lost says nothing against
                # the answer that the other got.
                if life and not (_is_loss(evidence[place]) and not isinstance(_unpack(parts[place], now)[0], Unknown)):
                    parts[place] = _pack(evidence[place], now + life)
            self._entries[client.packed] = b"".join(parts)


def _pack(answer: Answer, expires: int) -> bytes:
    if isinstance(answer, Clear):
        return _HEAD.pack(_CLEAR, expires)
    if isinstance(answer, Unknown):
        return _HEAD.pack(_FAILED + _KEPT.index(answer.why), expires)
    codes = answer.codes[:_MOST_CODES]
    tag = (_PROVEN if answer.proven else _LISTED) + len(codes)
    return _HEAD.pack(tag, expires) + struct.pack(f"!{len(codes)}I", *codes)


def _is_loss(answer: Answer) -> bool:
    return isinstance(answer, Unknown) and answer.why is not Why.DISPROVED


def _codes(tag: int) -> int:
    """Return how many codes stand behind a tag."""
    return tag - (_PROVEN if tag >= _PROVEN else _LISTED) if tag > _LISTED else 0


def _split(packed: bytes) -> list[bytes]:
    parts: list[bytes] = []
    position = 0
    while position < len(packed):
        end = position + _HEAD.size + 4 * _codes(packed[position])
        parts.append(packed[position:end])
        position = end
    return parts


def _unpack(packed: bytes, now: int) -> list[Answer]:
    evidence: list[Answer] = []
    clear = Clear(0)
    position = 0
    while position < len(packed):
        tag, expires = _HEAD.unpack_from(packed, position)
        position += _HEAD.size
        codes: tuple[int, ...] = ()
        if tag > _LISTED:
            codes = struct.unpack_from(f"!{_codes(tag)}I", packed, position)
            position += 4 * len(codes)
        left = expires - now
        if tag == _NOTHING or left <= 0:
            evidence.append(PENDING)
        elif tag == _CLEAR:
            if clear.ttl != left:
                clear = Clear(left)  # most lists clear a client, for as long as the others do: one object stands for all
            evidence.append(clear)
        elif codes:
            evidence.append(Listed(codes, left, proven=tag >= _PROVEN))
        else:
            evidence.append(Unknown(_KEPT[tag - _FAILED]))
    return evidence
