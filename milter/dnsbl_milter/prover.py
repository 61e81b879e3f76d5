"""Judges a client, and where that would keep mail out, has the lists prove their sanity first: once for all who wait.

Floor 2: standard library only. Shared by the threads of a worker.
"""

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from dnsbl_milter.inquiry import Inquiry, ask
from dnsbl_milter.resolver import Resolver
from dnsbl_policy.actions import Action
from dnsbl_policy.answers import PENDING, Answer, Clear, Listed
from dnsbl_policy.lists import Client
from dnsbl_policy.proof import Proof, prove, proven, unlistable
from dnsbl_policy.scoring import Panel, Verdict

_SKIPPED = Clear(0)
"""Stands in the evidence of a round for the lists that it does not ask."""


@dataclass(slots=True)
class _Round:
    """One question for proof to one list: when it was sent, and what came of it."""

    sent: float
    done: threading.Event = field(default_factory=threading.Event)
    proof: Proof = Proof.UNANSWERED


class Prover:
    """Proves the lists of one panel."""

    def __init__(self, resolver: Resolver, version: int) -> None:
        self._resolver = resolver
        self._version = version
        self._lock = threading.Lock()
        self._rounds: dict[int, _Round] = {}

    def prove(self, arrivals: Mapping[int, float]) -> dict[int, Proof]:
        """Return the proof of each list, by its place in the panel; waits for as long as for any answers.

        `arrivals` gives for each place the moment (`time.monotonic`) since which the question must have been sent: a
        list may have gone mad between an earlier proof and its listing of the client.
        """
        rounds: dict[int, _Round] = {}
        ours: dict[int, _Round] = {}
        with self._lock:
            for place, arrival in arrivals.items():
                running = self._rounds.get(place)
                if running is None or running.sent < arrival:
                    running = ours[place] = self._rounds[place] = _Round(time.monotonic())
                rounds[place] = running
        if ours:
            self._ask(ours)
        for running in rounds.values():
            # Whoever asks always finishes, and has the same deadline; twice that is for a thread that is held up.
            running.done.wait(2 * self._resolver.deadline)
        return {place: running.proof for place, running in rounds.items()}

    def _ask(self, rounds: Mapping[int, _Round]) -> None:
        try:
            for client, places in self._addresses(rounds).items():
                evidence: list[Answer] = [_SKIPPED] * len(self._resolver.lists)
                for place in places:
                    evidence[place] = PENDING
                inquiry = ask(self._resolver, client, evidence)
                inquiry.wait(lambda _: False)
                for place in places:
                    rounds[place].proof = prove(inquiry.evidence[place])
                inquiry.close()
        finally:
            for asked in rounds.values():
                asked.done.set()

    def _addresses(self, rounds: Mapping[int, _Round]) -> dict[Client, list[int]]:
        """Return the addresses to ask about, each with its lists: one for all of them, but for those with own space."""
        lot = int.from_bytes(os.urandom(8), "big")
        addresses: dict[Client, list[int]] = {}
        for place, asked in rounds.items():
            client = unlistable(self._resolver.lists[place], self._version, lot)
            if client is None:
                asked.proof = Proof.SANE  # configured so: it has no space that it cannot list
            else:
                addresses.setdefault(client, []).append(place)
        return addresses


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, the proofs it rests on by the places of the lists, and the seconds that both took to come by."""

    verdict: Verdict
    proofs: dict[int, Proof]
    waited: float


def judge(panel: Panel, inquiry: Inquiry, prover: Prover | None) -> Judgement:
    """Wait for as many answers as it takes and judge; where mail would be kept out, only on lists that prove sane.

    A list that falls may leave the verdict open again, so what is still out is waited for after all. Without a
    prover every list is believed.
    """
    proofs: dict[int, Proof] = {}
    waited = 0.0
    while True:
        waited += inquiry.wait(panel.settled)
        verdict = panel.judge(inquiry.client, inquiry.evidence)
        if prover is None or verdict.action < Action.DEFER:
            return Judgement(verdict, proofs, waited)
        accusers = verdict.accusers
        unproven = {
            place: answer
            for place, (one, answer) in enumerate(zip(panel.lists, inquiry.evidence, strict=True))
            if one.name in accusers and isinstance(answer, Listed) and not answer.proven
        }
        if not unproven:
            return Judgement(verdict, proofs, waited)
        begin = time.monotonic()
        for place, proof in prover.prove({place: inquiry.arrived(place) for place in unproven}).items():
            inquiry.evidence[place] = proven(unproven[place], proof)
            proofs[place] = proof
        waited += time.monotonic() - begin
