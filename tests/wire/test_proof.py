"""No drop without fresh proof, on real sockets: what is asked, when, how often, and what becomes of the verdict."""

import threading
import time
from ipaddress import ip_address, ip_network

import pytest
from faulty import REFUSED, SERVFAIL, SILENCE, clear, failure, listed

from dnsbl_milter.inquiry import ask
from dnsbl_milter.nameserver import parse_nameserver
from dnsbl_milter.prover import Prover, judge
from dnsbl_milter.resolver import Resolver
from dnsbl_policy.actions import Action, Tiers
from dnsbl_policy.answers import PENDING, Clear, Listed, Unknown, Why
from dnsbl_policy.lists import DnsList, Expect, Rule, parse_client
from dnsbl_policy.proof import Proof
from dnsbl_policy.scoring import Panel

CLIENT = parse_client("192.0.2.7")
TIERS = Tiers(((300, Action.TAG), (600, Action.DEFER), (1000, Action.REJECT)))
SANE = {"192.0.2.7": listed("127.0.0.2")}


def a_list(name, weight=600, **other):
    return DnsList(name, f"{name}.example", (Rule(weight),), **other)


def resolver_for(server, *lists, deadline=0.4, retry=0.2):
    return Resolver([parse_nameserver(server.text)], lists, deadline=deadline, retry=retry)


def judged(server, *lists, prove=True, client=CLIENT, evidence=None):
    resolver = resolver_for(server, *lists)
    inquiry = ask(resolver, client, evidence or [PENDING] * len(lists))
    try:
        return judge(Panel(lists, TIERS, {}), inquiry, Prover(resolver, client.version) if prove else None), inquiry
    finally:
        inquiry.close()


def proofs_asked(server):
    return [question for question in server.questions if question.client != str(CLIENT)]


WORLD = [
    # what the list answers for everyone, and what its proof and then its evidence are
    ("a list that lists the world", listed("127.0.0.2"), Proof.FAILED, Why.DISPROVED),
    ("a list that goes mad with another code", listed("127.0.0.9"), Proof.FAILED, Why.DISPROVED),
]


@pytest.mark.parametrize(("world", "proof", "why"), [row[1:] for row in WORLD], ids=[row[0] for row in WORLD])
def test_a_mad_list_keeps_nobody_out(name_server, world, proof, why):
    name_server.zones["mad.example"] = world
    judgement, inquiry = judged(name_server, a_list("mad"))
    assert judgement.verdict.action is Action.ACCEPT
    assert judgement.proofs == {0: proof}
    assert inquiry.evidence[0].why is why
    assert judgement.verdict.unknowns == (("mad", why),)


AFTERWARDS = [
    # what a list answers once it has listed the client, the proof, and the action on a listing that deferred
    ("sane", clear(), Proof.SANE, Action.DEFER),
    ("listing the world", listed("127.0.0.2"), Proof.FAILED, Action.ACCEPT),
    ("parked", listed("198.51.100.80"), Proof.FAILED, Action.ACCEPT),
    ("refusing by a code", listed("127.255.255.254"), Proof.FAILED, Action.ACCEPT),
    ("silent", SILENCE, Proof.UNANSWERED, Action.ACCEPT),
    ("failing", failure(SERVFAIL), Proof.UNANSWERED, Action.ACCEPT),
    ("refused", failure(REFUSED), Proof.UNANSWERED, Action.ACCEPT),
]


@pytest.mark.parametrize(("then", "proof", "action"), [row[1:] for row in AFTERWARDS], ids=[row[0] for row in AFTERWARDS])
def test_what_a_list_answers_for_a_fresh_name_decides(name_server, then, proof, action):
    name_server.zones["bl.example"] = {}
    name_server.handler = lambda question: listed("127.0.0.2") if question.client == str(CLIENT) else then
    judgement, _ = judged(name_server, a_list("bl"))
    assert (judgement.proofs, judgement.verdict.action) == ({0: proof}, action)


@pytest.mark.parametrize("weight", [-100, 100, 599])
def test_what_keeps_nobody_out_needs_no_proof(name_server, weight):
    name_server.zones["bl.example"] = dict(SANE)
    judgement, _ = judged(name_server, a_list("bl", weight))
    assert judgement.verdict.action < Action.DEFER
    assert (judgement.proofs, proofs_asked(name_server)) == ({}, [])


def test_only_accusers_are_asked(name_server):
    for name in ("bl", "clean", "friend"):
        name_server.zones[f"{name}.example"] = {} if name == "clean" else dict(SANE)
    judgement, _ = judged(name_server, a_list("bl", 900), a_list("clean"), a_list("friend", -100))
    assert judgement.verdict.action is Action.DEFER
    assert [question.zone for question in proofs_asked(name_server)] == ["bl.example"]


def test_without_a_prover_every_list_is_believed(name_server):
    name_server.zones["mad.example"] = listed("127.0.0.2")
    judgement, _ = judged(name_server, a_list("mad"), prove=False)
    assert judgement.verdict.action is Action.DEFER


def test_the_name_is_fresh_and_in_unlistable_space(name_server):
    name_server.zones["bl.example"] = dict(SANE)
    asked = set()
    for _ in range(30):
        name_server.forget()
        judged(name_server, a_list("bl"))
        (question,) = proofs_asked(name_server)
        assert ip_address(question.client) in ip_network("127.128.0.0/9")
        asked.add(question.client)
    assert len(asked) == 30


def test_an_ipv6_client_is_proved_in_the_mapped_space(name_server):
    client = parse_client("2001:db8::7")
    name_server.zones["bl.example"] = {}
    name_server.handler = lambda question: listed("127.0.0.2") if question.client == str(client) else None
    judgement, _ = judged(name_server, a_list("bl"), client=client)
    assert judgement.proofs == {0: Proof.SANE}
    (question,) = [question for question in name_server.questions if question.client != str(client)]
    assert ip_address(question.client) in ip_network("::ffff:127.128.0.0/105")


def test_a_list_with_space_of_its_own_is_asked_there(name_server):
    for name in ("bl", "own"):
        name_server.zones[f"{name}.example"] = dict(SANE)
    judged(name_server, a_list("bl", 300), a_list("own", 300, expect=Expect(clear="127.9.0.0/16")))
    asked = {question.zone: ip_address(question.client) for question in proofs_asked(name_server)}
    assert asked["bl.example"] in ip_network("127.128.0.0/9")
    assert asked["own.example"] in ip_network("127.9.0.0/16")


def test_a_list_without_such_space_is_believed_unasked(name_server):
    name_server.zones["bl.example"] = dict(SANE)
    judgement, _ = judged(name_server, a_list("bl", expect=Expect(clear="none")))
    assert judgement.verdict.action is Action.DEFER
    assert proofs_asked(name_server) == []


def test_the_proof_is_asked_after_the_listing_arrived(name_server):
    name_server.zones["bl.example"] = {"192.0.2.7": listed("127.0.0.2", delay=0.15)}
    judged(name_server, a_list("bl"))
    first, proof = name_server.questions
    assert proof.arrived - first.arrived >= 0.15


def test_a_list_that_falls_opens_the_verdict_again(name_server):
    """The mad list alone settles a rejection at once; without it, the slow list's word is waited for."""
    name_server.zones |= {"mad.example": listed("127.0.0.2"), "slow.example": {"192.0.2.7": listed("127.0.0.2", delay=0.2)}}
    judgement, inquiry = judged(name_server, a_list("mad", 1000), a_list("slow", 300))
    assert isinstance(inquiry.evidence[1], Listed)
    assert (judgement.verdict.action, judgement.verdict.score) == (Action.TAG, 300)


def test_a_listing_that_is_proven_is_not_proved_again(name_server):
    name_server.zones["bl.example"] = dict(SANE)
    known = [Listed((0x7F000002,), 300, proven=True)]
    judgement, _ = judged(name_server, a_list("bl"), evidence=known)
    assert (judgement.verdict.action, name_server.questions) == (Action.DEFER, ())


def test_all_who_wait_share_one_question(name_server):
    name_server.zones["bl.example"] = clear(delay=0.2)
    prover = Prover(resolver_for(name_server, a_list("bl"), deadline=4.0, retry=4.0), 4)
    arrival = time.monotonic()
    found = []
    threads = [threading.Thread(target=lambda: found.append(prover.prove({0: arrival}))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [{0: Proof.SANE}] * 20
    assert len(name_server.questions) == 1


def test_a_listing_that_came_later_needs_a_question_of_its_own(name_server):
    """A list may go mad between an earlier proof and the listing that it shall prove."""
    name_server.zones["bl.example"] = clear()
    prover = Prover(resolver_for(name_server, a_list("bl")), 4)
    assert prover.prove({0: time.monotonic()}) == {0: Proof.SANE}
    name_server.zones["bl.example"] = listed("127.0.0.2")
    assert prover.prove({0: time.monotonic()}) == {0: Proof.FAILED}
    assert len(name_server.questions) == 2


def test_waiting_for_a_proof_has_the_same_deadline(name_server):
    name_server.zones["bl.example"] = {"192.0.2.7": listed("127.0.0.2")}
    name_server.handler = lambda question: None if question.client == str(CLIENT) else SILENCE
    judgement, _ = judged(name_server, a_list("bl"))
    assert 0.4 <= judgement.waited < 2.0
    assert judgement.verdict.unknowns == (("bl", Why.UNPROVEN),)


def test_silence_at_the_proof_forgives_but_is_no_failure(name_server):
    """An advocate that also accuses, and is then silent, stays in the interval like any list that did not answer."""
    mixed = DnsList("mixed", "mixed.example", (Rule(600), Rule(-200)))
    name_server.zones["mixed.example"] = {}
    name_server.handler = lambda question: listed("127.0.0.2") if question.client == str(CLIENT) else SILENCE
    judgement, inquiry = judged(name_server, mixed)
    # Listed, both rules match: four points, which keep nobody out and need no proof.
    assert isinstance(inquiry.evidence[0], Listed)
    assert (judgement.verdict.score, judgement.proofs) == (400, {})


def test_evidence_is_what_later_connections_will_find(name_server):
    name_server.zones |= {"bl.example": dict(SANE), "mad.example": listed("127.0.0.2")}
    _, inquiry = judged(name_server, a_list("bl", 600), a_list("mad", 600))
    proven, disproved = inquiry.evidence
    assert isinstance(proven, Listed)
    assert proven.proven
    assert isinstance(disproved, Unknown)
    assert disproved.why is Why.DISPROVED
    assert not isinstance(disproved, Clear)
