"""Asks lists what they must, and must not, list; and the resolver about names that cannot exist.

Floor 2: standard library only. A handful of questions a list, by the very code that asks about clients, so that a
probe meets whatever a client's look-up would meet. The daemon's prober and the commands ask alike.
"""

import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from dnsbl_milter.inquiry import Lookup, ask
from dnsbl_milter.nameserver import Nameserver
from dnsbl_milter.resolver import Resolver
from dnsbl_policy.answers import PENDING, Answer, Clear, Listed, Unknown, Why
from dnsbl_policy.lists import Client, DnsList, question
from dnsbl_policy.proof import unlistable
from dnsbl_policy.symptoms import Round, rfc_entries, rfc_entry

_NOT_ASKED = Clear(0)
"""Stands in the evidence for the lists that a question is not for."""
_LONGEST_REASON = 200


class Role(StrEnum):
    """What an address is asked for."""

    LISTED = "listed"
    """The test entry that must be listed."""
    CLEAR = "clear"
    """The test entry that must not be."""
    RANDOM = "random"
    """An address that nobody has, and nobody has asked about."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One question to one list, and its answer; None for the seconds if none came."""

    place: int
    version: int
    role: Role
    client: Client
    answer: Answer
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Examiner:
    """Asks through these nameservers, each question on its own thread of the executor."""

    nameservers: Sequence[Nameserver]
    deadline: float
    retry: float
    executor: Executor

    def probe(self, lists: Sequence[DnsList]) -> list[Probe]:
        """Ask each of these lists all that there is to ask, at once; wait for at most the deadline."""
        questions: dict[tuple[Role, Client], list[int]] = {}
        lot = int.from_bytes(os.urandom(8), "big")
        for place, one in enumerate(lists):
            for version in (4, 6):
                if one.may_serve(version):
                    listed, clear = rfc_entries(one, version)
                    asked = {Role.LISTED: listed, Role.CLEAR: clear, Role.RANDOM: unlistable(one, version, lot)}
                    for role, client in asked.items():
                        if client is not None:
                            questions.setdefault((role, client), []).append(place)
        probes: list[Probe] = []
        asking = [partial(self._ask, lists, client, places) for (_, client), places in questions.items()]
        for ((role, client), places), answers in zip(questions.items(), self._at_once(asking), strict=True):
            for place, (answer, seconds) in zip(places, answers, strict=True):
                probes.append(Probe(place, client.version, role, client, answer, seconds))
        return sorted(probes, key=lambda each: (each.place, each.version, list(Role).index(each.role)))

    def control(self) -> list[Answer]:
        """Return what is said about names that cannot exist: one below .invalid, one below a top that there is not.

        Some resolvers answer for .invalid themselves (RFC 6761, section 6.4) and have all else rewritten above them.
        """
        zones = [f"{os.urandom(8).hex()}.invalid", f"{os.urandom(8).hex()}.x{os.urandom(6).hex()}"]
        lists = [DnsList(zone, zone, ()) for zone in zones]
        # The address in front is of no importance, and as good a random name as any.
        client = unlistable(lists[0], 4, int.from_bytes(os.urandom(8), "big")) or rfc_entry(4, 1)
        return [answer for answer, _ in self._ask(lists, client, range(len(lists)))]

    def reason(self, one: DnsList, shown: str, client: Client) -> str:
        """Return the text that a list gives for its answer, what its zone hides from people taken out."""
        text = self.nameservers[0].ask_text(question(client, one.zone), self.deadline)
        plain = "".join(character if character.isprintable() else "?" for character in without_key(text, one.zone, shown))
        return plain[:_LONGEST_REASON]

    def _at_once(self, asking: Iterable[partial[list[tuple[Answer, float | None]]]]) -> list[list[tuple[Answer, float | None]]]:
        return [asked.result() for asked in [self.executor.submit(each) for each in asking]]

    def _ask(self, lists: Sequence[DnsList], client: Client, places: Sequence[int]) -> list[tuple[Answer, float | None]]:
        # A resolver of its own for each question: no experience with other addresses, so nothing is left alone.
        resolver = Resolver(self.nameservers, lists, deadline=self.deadline, retry=self.retry)
        evidence: list[Answer] = [_NOT_ASKED] * len(lists)
        for place in places:
            evidence[place] = PENDING
        inquiry = ask(resolver, client, evidence)
        inquiry.wait(lambda _: False)
        answers = list(inquiry.evidence)
        lookups: dict[int, Lookup] = {lookup.place: lookup for lookup in inquiry.close()}
        return [
            (answers[place] if answers[place] is not PENDING else Unknown(Why.TIMEOUT), lookup.seconds if lookup else None)
            for place, lookup in ((place, lookups.get(place)) for place in places)
        ]


def evidence(probes: Iterable[Probe]) -> Round:
    """Return the probes of one list and family as the evidence of a round."""
    answers = list(probes)
    return Round(
        listed=next((each.answer for each in answers if each.role is Role.LISTED), None),
        clear=tuple(each.answer for each in answers if each.role is not Role.LISTED),
    )


def answers_for(round_: Round) -> bool:
    """Tell whether a list of which it was not known answers for a family: its test entry does, and not everything."""
    return isinstance(round_.listed, Listed) and all(isinstance(answer, Clear) for answer in round_.clear)


def without_key(text: str, zone: str, shown: str) -> str:
    """Return a text from the network without what a zone hides from people."""
    hidden = set(zone.lower().split(".")) - set(shown.lower().split("."))
    for label in sorted(hidden, key=len, reverse=True):
        text = re.sub(re.escape(label), "***", text, flags=re.IGNORECASE)
    return text
