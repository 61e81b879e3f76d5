"""What is thought of each list: written by the monitor, obeyed by the workers, in memory that they share.

Floor 2: standard library only. One writer, but for the moments of failed proofs, which workers report; a worker looks at one number for each connection, and at those of
the lists only where that has changed.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, auto

from dnsbl_milter.board import Board
from dnsbl_policy.answers import PENDING, Answer, Clear, Unknown, Why
from dnsbl_policy.health import Record, State
from dnsbl_policy.lists import DnsList
from dnsbl_policy.shares import Baseline
from dnsbl_policy.symptoms import Fault, Symptom

FAMILIES = {4: "ipv4", 6: "ipv6"}


class _Head(IntEnum):
    EDITION_4 = 0
    """Of what is below, about clients of this family; 0 while every list is simply asked and believed."""
    EDITION_6 = auto()
    FAULT = auto()


class _Cell(IntEnum):
    """A number about a list and a family."""

    GATE = 0
    """One of the three below, or until when (`time.monotonic`) no cached answer of the list is good."""
    SERVES = auto()
    """Asked about clients of the family: by configuration, or because its test entry has answered."""
    STATE = auto()
    SINCE = auto()
    SYMPTOM = auto()
    STRIKES = auto()
    CLEAN = auto()
    FALLS = auto()
    SHARE = auto()
    CLIENTS = auto()
    DISPROVED = auto()
    """When (`time.monotonic`) it last failed a proof; the workers' own, any of whose words is as good as another's."""


_EDITIONS = {4: int(_Head.EDITION_4), 6: int(_Head.EDITION_6)}
_ASKED, _SUSPENDED, _NOT_SERVED = 0.0, -1.0, -2.0
_WITHHELD = Unknown(Why.SUSPENDED)
_NO_SAY = Clear(0)
"""For a list that is not asked about a family at all: nobody may wait for it."""
_STATES, _SYMPTOMS, _FAULTS = tuple(State), (None, *Symptom), (None, *Fault)


@dataclass(frozen=True, slots=True)
class _Unusual:
    """The lists of a family's panel that are not simply asked and believed, as a process has seen them last."""

    edition: float = 0.0
    gates: tuple[tuple[int, float], ...] = ()
    doubted: tuple[int, ...] = ()


_NOTHING_UNUSUAL = _Unusual()


class Standing:
    """The standing of the lists of one configuration; what is known of a list `before` lives on under name and zone."""

    def __init__(self, lists: Sequence[DnsList], before: "Standing | None" = None) -> None:
        self.lists = tuple(lists)
        self._board = Board(len(_Head) + len(self.lists) * len(FAMILIES) * len(_Cell))
        self._panels = {
            version: [place for place, one in enumerate(self.lists) if one.may_serve(version)] for version in FAMILIES
        }
        self._gates = {
            version: [self._cell(place, version, _Cell.GATE) for place in places] for version, places in self._panels.items()
        }
        self._seen = dict.fromkeys(FAMILIES, _NOTHING_UNUSUAL)
        known = {} if before is None else {(one.name, one.zone): place for place, one in enumerate(before.lists)}
        for place, one in enumerate(self.lists):
            for version in FAMILIES:
                was = known.get((one.name, one.zone))
                if before is not None and was is not None:
                    for cell in _Cell:
                        self._set(place, version, cell, before._get(was, version, cell))  # noqa: SLF001  its own kind
                configured = one.ipv4 if version == 4 else one.ipv6
                if configured is not None:
                    self._set(place, version, _Cell.SERVES, configured)
                self._set_gate(place, version)
        for version in FAMILIES:
            self._announce(version)
        if before is not None:
            self.fault = before.fault

    def withhold(self, version: int, evidence: list[Answer]) -> None:
        """Take out of a client's evidence what its lists are not to be asked, or not to be believed from the cache.

        The evidence is that of the panel of lists that serve, or may serve, the client's family.
        """
        for place, gate in self._unusual(version).gates:
            if gate == _SUSPENDED:
                evidence[place] = _WITHHELD
            elif gate == _NOT_SERVED:
                evidence[place] = _NO_SAY
            elif gate > time.monotonic():
                evidence[place] = PENDING

    def doubted(self, version: int) -> tuple[int, ...]:
        """Return the places, in the family's panel, of the lists whose word may keep nobody out."""
        return self._unusual(version).doubted

    def disprove(self, place: int, version: int) -> None:
        """Note that a list, by its place in the family's panel, has failed a proof."""
        self._set(self._panels[version][place], version, _Cell.DISPROVED, time.monotonic())

    def disproved(self, place: int, version: int) -> float:
        """Return when a list, by its place among all lists, last failed a proof; 0 for never."""
        return self._get(place, version, _Cell.DISPROVED)

    def record(self, place: int, version: int) -> Record:
        """Return what is known of a list, by its place among all lists."""
        return Record(
            state=_STATES[int(self._get(place, version, _Cell.STATE))],
            since=self._get(place, version, _Cell.SINCE),
            symptom=_SYMPTOMS[int(self._get(place, version, _Cell.SYMPTOM))],
            strikes=int(self._get(place, version, _Cell.STRIKES)),
            clean=int(self._get(place, version, _Cell.CLEAN)),
            falls=int(self._get(place, version, _Cell.FALLS)),
        )

    def publish(self, place: int, version: int, record: Record, lives: float) -> None:
        """Make known what has become of a list; `lives` is how long a cached answer lives, in seconds.

        What a list said before it was suspended is in the caches for as long, and is not believed when it is back.
        """
        was = self.record(place, version)
        for cell, value in (
            (_Cell.STATE, _STATES.index(record.state)),
            (_Cell.SINCE, record.since),
            (_Cell.SYMPTOM, _SYMPTOMS.index(record.symptom)),
            (_Cell.STRIKES, record.strikes),
            (_Cell.CLEAN, record.clean),
            (_Cell.FALLS, record.falls),
        ):
            self._set(place, version, cell, value)
        if record.state.trusted and not was.state.trusted:
            self._set(place, version, _Cell.GATE, time.monotonic() + lives)
        self._set_gate(place, version)
        self._announce(version)

    def serves(self, place: int, version: int) -> bool:
        """Tell whether a list is asked about clients of a family, if its state allows."""
        return bool(self._get(place, version, _Cell.SERVES))

    def discover(self, place: int, version: int) -> None:
        """Note that a list of which it was not known has answered for a family."""
        self._set(place, version, _Cell.SERVES, True)
        self._set(place, version, _Cell.GATE, _ASKED)
        self._set_gate(place, version)
        self._announce(version)

    def baseline(self, place: int) -> Baseline:
        """Return the share of clients that a list usually lists."""
        return Baseline(self._get(place, 4, _Cell.SHARE), self._get(place, 4, _Cell.CLIENTS))

    def keep_baseline(self, place: int, baseline: Baseline) -> None:
        """Keep the share of clients that a list usually lists."""
        self._set(place, 4, _Cell.SHARE, baseline.share)
        self._set(place, 4, _Cell.CLIENTS, baseline.clients)

    @property
    def fault(self) -> Fault | None:
        """Return what is wrong with the resolver."""
        fault: Fault | None = _FAULTS[int(self._board[_Head.FAULT])]
        return fault

    @fault.setter
    def fault(self, fault: Fault | None) -> None:
        self._board[_Head.FAULT] = _FAULTS.index(fault)

    def _unusual(self, version: int) -> "_Unusual":
        """Return the lists that are not simply asked and believed; one look where there is none, or none has changed."""
        edition = self._board[_EDITIONS[version]]
        if not edition:
            return _NOTHING_UNUSUAL
        if self._seen[version].edition != edition:
            gates = ((place, self._board[cell]) for place, cell in enumerate(self._gates[version]))
            self._seen[version] = _Unusual(edition, tuple((place, gate) for place, gate in gates if gate != _ASKED), self._doubted(version))
        return self._seen[version]

    def _doubted(self, version: int) -> tuple[int, ...]:
        return tuple(place for place, among_all in enumerate(self._panels[version]) if self.record(among_all, version).doubted)

    def _set_gate(self, place: int, version: int) -> None:
        """Bring a list's gate into line with its state."""
        gate = self._get(place, version, _Cell.GATE)
        if not self.record(place, version).state.trusted:
            gate = _SUSPENDED
        elif not self.serves(place, version):
            gate = _NOT_SERVED
        elif gate < 0 or gate <= time.monotonic():
            gate = _ASKED
        self._set(place, version, _Cell.GATE, gate)

    def _announce(self, version: int) -> None:
        """Let the workers know that something has changed about a family."""
        unusual = any(self._board[cell] != _ASKED for cell in self._gates[version]) or self._doubted(version)
        # Last of all: who sees a new edition finds what it is about. A clock that never stands still numbers them.
        self._board[_EDITIONS[version]] = time.monotonic() if unusual else 0.0

    def _cell(self, place: int, version: int, cell: _Cell) -> int:
        return len(_Head) + (place * len(FAMILIES) + (version == 6)) * len(_Cell) + cell

    def _get(self, place: int, version: int, cell: _Cell) -> float:
        return self._board[self._cell(place, version, cell)]

    def _set(self, place: int, version: int, cell: _Cell, value: float) -> None:
        self._board[self._cell(place, version, cell)] = value
