"""What is wrong with a list, or with the resolver, in words for people; after a colon, what to do about it.

Floor 2: standard library only. The log and the commands say the same.
"""

from collections.abc import Iterable

from dnsbl_milter.probe import Probe, Role
from dnsbl_policy.answers import Listed, dotted
from dnsbl_policy.lists import DnsList
from dnsbl_policy.symptoms import Fault, Symptom

RESOLVER = {
    Fault.REWRITES: "it answers for names that do not exist; use a resolver of your own, such as unbound on this host",
    Fault.REFUSED: "several operators refuse it; use a resolver of your own, and keys where lists need them",
    Fault.DOWN: "no list answers by way of it; mail flows unjudged",
}

_LISTS = {
    Symptom.FAILED_PROOF: "it listed a name that it cannot list: it lists everything",
    Symptom.LISTS_THE_WORLD: "it lists an address that nobody has, or that must not be listed: it lists everything",
    Symptom.FOREIGN: "it answers an address outside 127/8: its domain may be parked; remove the list if that stays so",
    Symptom.REFUSES: "its operator refuses you: ask through a resolver of your own, or get a key",
    Symptom.SILENT: "it does not answer: time-outs, SERVFAIL or REFUSED; remove the list if that stays so",
    Symptom.EMPTIED: 'it does not list its test entry: it is empty, or has none and needs expect = { listed = "none" }',
    Symptom.HIT_RATE: "it lists far more clients than it used to, by itself: its word tags and keeps nobody out until that is over",
}


def about(one: DnsList, symptom: Symptom | None, probes: Iterable[Probe]) -> str:
    """Return what is wrong with a list; empty if nothing is. `probes` are those that showed it."""
    if symptom is None:
        return ""
    if symptom is not Symptom.WRONG_CODE:
        return _LISTS[symptom]
    answered = [each.answer.codes for each in probes if each.role is Role.LISTED and isinstance(each.answer, Listed)]
    code = dotted(answered[0][0]) if answered else "another code"
    return f'its test entry answers {code} where {one.expect.listed} is expected: if that is right, set expect = {{ listed = "{code}" }}'
