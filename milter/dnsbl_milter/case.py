"""The case of one client: what lists have said about it, and the verdict, which is formed once for a whole connection.

Floor 3: standard library only. Knows nothing of the dialogue that its `session` leads.
"""

import time
from dataclasses import dataclass

from dnsbl_milter import log
from dnsbl_milter.cache import Cache
from dnsbl_milter.inquiry import Inquiry, ask
from dnsbl_milter.memory import Memory
from dnsbl_milter.metrics import Metrics
from dnsbl_milter.pauses import Pauses
from dnsbl_milter.prover import Prover, judge
from dnsbl_milter.resolver import Resolver
from dnsbl_milter.standing import Standing
from dnsbl_policy.actions import Action
from dnsbl_policy.greylist import Recollection
from dnsbl_policy.lists import Client
from dnsbl_policy.proof import Proof
from dnsbl_policy.scoring import Panel, Policy, Verdict


@dataclass(frozen=True, slots=True)
class House:
    """Everything that a worker's sessions share; panels, resolvers and provers by IP version."""

    policy: Policy
    panels: dict[int, Panel]
    resolvers: dict[int, Resolver]
    provers: dict[int, Prover]
    """Empty where a drop needs no proof."""
    standing: Standing
    cache: Cache
    metrics: Metrics
    memory: Memory | None
    """None where a deferral forgives nobody."""
    pauses: Pauses
    add_headers: str


class Case:
    """What is found out about a client; None for one without an address, about whom nothing can be."""

    def __init__(self, house: House, client: Client | None, paused: frozenset[str]) -> None:
        self._house = house
        self.client = client
        self._paused = paused
        self._inquiry: Inquiry | None = None
        self._verdict: Verdict | None = None
        self.observed: Action | None = None
        """What would be done if the lists on observation counted; None where none of them speaks."""
        self.waited = 0.0
        self.cached = False
        self._proofs: dict[int, Proof] = {}
        """By place in the panel, of the lists that were asked for proof."""

    def ask(self) -> None:
        """Send the questions that the cache leaves open, and return without waiting."""
        if self.client is None:
            return
        resolver = self._house.resolvers[self.client.version]
        known = self._house.cache.recall(self.client, len(resolver.lists))
        self._house.standing.withhold(self.client.version, known)
        self._inquiry = ask(resolver, self.client, known)
        self.cached = not self._inquiry.pending
        self._house.metrics.cached(self.cached)

    def judge(self) -> Verdict:
        """Return the verdict; the first time, wait for what it takes."""
        if self._verdict is None:
            if self._inquiry is None:
                self._verdict = Verdict(self.client, Action.ACCEPT, Action.ACCEPT)
            else:
                self._verdict = self._form(self._inquiry)
            self._house.metrics.judged(self._verdict, self.waited)
        return self._verdict

    def _form(self, inquiry: Inquiry) -> Verdict:
        version = inquiry.client.version
        panel = self._house.panels[version].doubting(self._house.standing.doubted(version))
        if self._paused:
            panel = panel.pausing(self._paused)
        judgement = judge(panel, inquiry, self._house.provers.get(version))
        self.waited, self._proofs = judgement.waited, judgement.proofs
        for place, proof in self._proofs.items():
            self._house.metrics.proved(panel.lists[place].name, proof)
            if proof is Proof.FAILED:
                self._house.standing.disprove(place, version)
        if judgement.verdict.observed:
            self.observed = panel.observing().judge(self.client, inquiry.evidence).action
        return judgement.verdict

    def recall(self, sender: str, recipient: str) -> Recollection | None:
        """Ask memory about a recipient who would be deferred: nobody else's mail ever touches it."""
        if self.client is None or self._house.memory is None:
            return None
        # The wall's clock: memory outlives us, and hosts share it.
        recollection = self._house.memory.recall(self.client, sender, recipient, time.time())
        self._house.metrics.remembered(recollection)
        return recollection

    def close(self) -> None:
        """Take in what came late, and keep it for the client's next connection."""
        inquiry, self._inquiry = self._inquiry, None
        if inquiry is None:
            return
        lookups = inquiry.close()
        fresh = {*self._proofs, *(lookup.place for lookup in lookups)}
        self._house.cache.keep(inquiry.client, inquiry.evidence, fresh)
        lists = self._house.panels[inquiry.client.version].lists
        for lookup in lookups:
            self._house.metrics.looked_up(lists[lookup.place].name, lookup.answer, lookup.seconds)
        for lookup in lookups if log.is_detailed() else ():
            name, milliseconds = lists[lookup.place].name, lookup.seconds and round(lookup.seconds * 1000, 1)
            log.debug("answer", client=inquiry.client, list=name, answer=lookup.answer, ms=milliseconds)
