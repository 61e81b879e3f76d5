"""What a client would meet, asked of every list now: the same policy, the same look-ups, the same words.

Floor 3: standard library only. Makes one plain document; `cli` shows it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dnsbl_milter import replies
from dnsbl_milter.configuration import Configuration
from dnsbl_milter.inquiry import Inquiry, ask
from dnsbl_milter.prover import Prover, judge
from dnsbl_milter.resolver import Resolver
from dnsbl_policy.actions import Action
from dnsbl_policy.allow import Exemption
from dnsbl_policy.answers import PENDING, Answer, Clear, Listed, Unknown, dotted
from dnsbl_policy.lists import Client, DnsList
from dnsbl_policy.proof import Proof
from dnsbl_policy.scoring import Verdict, exempted
from dnsbl_policy.symptoms import rfc_entry


def explain(
    configuration: Configuration, client: Client, *, host: str | None = None, recipient: str | None = None
) -> dict[str, Any]:
    """Ask every list about a client and return all that is decided about it, and why.

    `host` is taken for a name that the mail server has verified. No cache is used and nothing is cut short, so that
    every list is seen to answer.
    """
    policy = configuration.policy
    panel = policy.panel(client.version)
    if client.version == 6:
        panel = replace(panel, lists=_answering(configuration, panel.lists))
    resolver = _resolver(configuration, panel.lists)
    inquiry = ask(resolver, client, [PENDING] * len(panel.lists))
    inquiry.wait(lambda _: False)
    prover = Prover(resolver, client.version) if configuration.settings.health.proof else None
    judgement = judge(panel, inquiry, prover)
    verdict = judgement.verdict
    rows = _rows(configuration, panel.lists, inquiry, judgement.proofs)
    exempt = policy.allow.client(client, host)
    if exempt is None and recipient is not None and policy.allow.recipient(recipient):
        exempt = Exemption.RECIPIENT
    decided = verdict if exempt is None else exempted(client, exempt)
    return {
        "client": str(client),
        "host": host,
        "action": str(decided.action),
        "asked": str(decided.asked),
        "enforced": policy.enforce,
        "score": verdict.score / 100,
        "low": verdict.low / 100,
        "high": verdict.high / 100,
        "settled": verdict.settled,
        "exempt": exempt and str(exempt),
        "decisive": list(decided.decisive),
        "lists": rows,
        "reply": None,
        "headers": {},
        "quarantine": None,
        "configuration": configuration.source,
    } | (_met(decided, configuration) if policy.enforce else {})


def _met(decided: Verdict, configuration: Configuration) -> dict[str, Any]:
    """Return what the client and the recipient meet; in observe mode that is nothing."""
    return {
        "reply": _reply(decided, configuration.policy.lists),
        "headers": _headers(decided, configuration),
        "quarantine": replies.quarantine_reason(decided) if decided.action is Action.QUARANTINE else None,
    }


def _resolver(configuration: Configuration, lists: Sequence[DnsList]) -> Resolver:
    dns = configuration.settings.dns
    return Resolver(configuration.nameservers, lists, deadline=dns.deadline, retry=dns.retry)


def _answering(configuration: Configuration, lists: Sequence[DnsList]) -> tuple[DnsList, ...]:
    """Return the lists without those of which it is unknown whether they serve IPv6, and whose test entry says nothing."""
    unsaid = [Clear(0) if one.ipv6 is not None else PENDING for one in lists]
    inquiry = ask(_resolver(configuration, lists), rfc_entry(6, 2), unsaid)
    inquiry.wait(lambda _: False)
    inquiry.close()
    return tuple(
        one
        for one, answer in zip(lists, inquiry.evidence, strict=True)
        if one.ipv6 is not None or isinstance(answer, Listed)
    )


def _rows(
    configuration: Configuration, asked: tuple[DnsList, ...], inquiry: Inquiry, proofs: Mapping[int, Proof]
) -> list[dict[str, Any]]:
    seconds = {lookup.place: lookup.seconds for lookup in inquiry.close()}
    places = {one.name: place for place, one in enumerate(asked)}
    serving = {one.name: one for one in configuration.policy.lists}
    rows: list[dict[str, Any]] = []
    for name in configuration.zones:
        row: dict[str, Any] = {"name": name, "zone": configuration.zones[name], "observe": False} | _nothing()
        if name not in serving:
            row["why"] = "not enabled"
        elif name not in places:
            row["why"] = f"not asked about IPv{inquiry.client.version} clients"
        else:
            one, answer, took = serving[name], inquiry.evidence[places[name]], seconds.get(places[name])
            row |= _said(one, answer)
            row["observe"] = one.observe
            row["proof"] = proofs.get(places[name])
            row["look_up"] = one.look_up_address(inquiry.client) or None
            row["milliseconds"] = None if took is None else round(took * 1000, 1)
        rows.append(row)
    return rows


def _nothing() -> dict[str, Any]:
    return {
        "state": "skipped", "codes": [], "labels": [], "weight": 0, "ttl": None, "why": None, "milliseconds": None,
        "look_up": None, "proof": None,
    }  # fmt: skip


def _said(one: DnsList, answer: Answer) -> dict[str, Any]:
    match answer:
        case Listed(codes, ttl):
            matched = [rule for rule in one.rules if rule.matching(codes) is not None]
            return {
                "state": "listed",
                "codes": [dotted(code) for code in codes],
                "labels": [rule.label for rule in matched if rule.label],
                "weight": sum(rule.weight for rule in matched) / 100,
                "ttl": ttl,
            }
        case Clear(ttl):
            return {"state": "clear", "ttl": ttl}
        case Unknown(why, codes):
            return {"state": "unknown", "codes": [dotted(code) for code in codes], "why": str(why)}


def _reply(verdict: Verdict, lists: tuple[DnsList, ...]) -> str | None:
    if verdict.client is None or verdict.action not in (Action.DEFER, Action.REJECT):
        return None
    addresses = {one.name: one.look_up_address(verdict.client) for one in lists}
    return str(replies.refusal(verdict, verdict.action, addresses))


def _headers(verdict: Verdict, configuration: Configuration) -> dict[str, str]:
    add = configuration.settings.headers.add
    delivered = verdict.action in (Action.ACCEPT, Action.TAG, Action.QUARANTINE) and verdict.exempt is None
    if not delivered or add == "never" or (add == "tagged" and verdict.action is Action.ACCEPT):
        return {}
    return dict(replies.headers(verdict, verdict.action))
