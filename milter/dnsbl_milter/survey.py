"""What every list answers now to what it must and must not list: the prober's round, for a person to read.

Floor 3: standard library only. Makes plain documents; `cli` shows them.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dnsbl_milter import advice, pauses
from dnsbl_milter.configuration import Configuration
from dnsbl_milter.pauses import Pauses
from dnsbl_milter.probe import Examiner, Probe, Role, answers_for, evidence
from dnsbl_milter.standing import FAMILIES
from dnsbl_policy import health, symptoms
from dnsbl_policy.answers import Answer, Clear, Listed, dotted
from dnsbl_policy.catalog import Catalog, KnownList
from dnsbl_policy.health import State
from dnsbl_policy.lists import DnsList
from dnsbl_policy.symptoms import Fault, Round, Symptom

_THREADS = 16


def survey(configuration: Configuration) -> dict[str, Any]:
    """Probe every list now; return a row for each, and what is wrong with the resolver."""
    lists = configuration.policy.lists
    dns = configuration.settings.dns
    with ThreadPoolExecutor(_THREADS) as pool:
        examiner = Examiner(configuration.nameservers, dns.deadline, dns.retry, pool)
        controlling = pool.submit(examiner.control)
        probes = examiner.probe(lists)
        control = controlling.result()
        found = _by_family(lists, probes)
        fault = symptoms.resolver_fault(control, [(symptoms.operator(lists[place]), evidence(asked)) for (place, _), asked in found.items()])
        paused = Pauses(pauses.file()).names()
        rows = [_row(configuration, place, found, control, fault, examiner) for place in range(len(lists))]
    return {
        "configuration": configuration.source,
        "nameservers": [str(each) for each in configuration.nameservers],
        "resolver": None if fault is None else str(fault),
        "advice": None if fault is None else advice.RESOLVER[fault],
        "paused": sorted(paused),
        "lists": [row | {"paused": row["name"] in paused or pauses.EVERYTHING in paused} for row in rows],
    }


def known_lists(catalog: Catalog, configuration: Configuration | None) -> dict[str, Any]:
    """Return the catalog as a document, with the names under which a configuration uses its lists."""
    used = {known: name for name, zone in configuration.zones.items() if (known := catalog.known(zone))} if configuration else {}
    return {
        "lists": [{"used": used.get(one)} | _known(one) for one in catalog.lists],
        "dead": [
            {"zone": grave.zone, "what": grave.what, "when": grave.when, "source": grave.source, "dangerous": grave.dangerous}
            for grave in catalog.dead
        ],
    }


def _known(one: KnownList) -> dict[str, Any]:
    codes = [
        {"match": code.match, "weight": code.weight / 100, "label": code.label, "meaning": code.meaning} for code in one.codes
    ]
    if one.weight is not None:
        codes = [{"match": "127.0.0.0/8", "weight": one.weight / 100, "label": "", "meaning": one.meaning}]
    return {
        "name": one.name,
        "zone": one.zone,
        "aliases": list(one.aliases),
        "codes": codes,
        "scope": str(one.scope),
        "kind": str(one.kind),
        "terms": str(one.terms),
        "state": str(one.state),
        "ipv4": one.ipv4,
        "ipv6": one.ipv6,
        "expect": {"listed": one.expect.listed, "clear": one.expect.clear},
        "url": one.url,
        "checked": one.checked,
        "source": one.source,
    }


def _by_family(lists: Sequence[DnsList], probes: Sequence[Probe]) -> dict[tuple[int, int], list[Probe]]:
    """Return the probes by list and IP version, without those for families that a list does not serve."""
    found: dict[tuple[int, int], list[Probe]] = {}
    for each in probes:
        found.setdefault((each.place, each.version), []).append(each)
    return {
        (place, version): asked
        for (place, version), asked in found.items()
        if version == 4 or lists[place].ipv6 or answers_for(evidence(asked))
    }


def _row(
    configuration: Configuration,
    place: int,
    found: dict[tuple[int, int], list[Probe]],
    control: Sequence[Answer],
    fault: Fault | None,
    examiner: Examiner,
) -> dict[str, Any]:
    one = configuration.policy.lists[place]
    shown = configuration.zones[one.name]
    families = {version: found[place, version] for version in FAMILIES if (place, version) in found}
    rewritten = {code for answer in control if not isinstance(answer, Clear) for code in answer.codes}
    states: dict[str, str] = {}
    wrong: dict[int, Symptom] = {}
    for version, asked in families.items():
        symptom = symptoms.diagnose(evidence(asked), one.expect.listed, fault, rewritten)
        states[FAMILIES[version]] = str(_state(symptom, evidence(asked)))
        if symptom is not None:
            wrong[version] = symptom
    took = [each.seconds for asked in families.values() for each in asked if each.seconds is not None]
    worst = min(wrong.values(), key=list(Symptom).index, default=None)
    shown_by = [each for version in wrong if wrong[version] is worst for each in families[version]]
    guilty = next((each for asked in families.values() for each in asked if _is_guilty(each, worst)), None)
    return {
        "name": one.name,
        "zone": shown,
        "state": max(states.values(), key=_SEVERITY.index, default=str(State.OK)),
        "states": states,
        "symptom": worst and str(worst),
        "why": advice.about(one, worst, shown_by) if worst else _partly(families, fault),
        "says": examiner.reason(one, shown, guilty.client) if guilty else "",
        "milliseconds": round(sorted(took)[len(took) // 2] * 1000, 1) if took else None,
        "observe": one.observe,
        "probes": [
            {
                "family": FAMILIES[version],
                "role": str(each.role),
                "address": str(each.client),
                "answer": _word(each.answer),
                "codes": [] if isinstance(each.answer, Clear) else [dotted(code) for code in each.answer.codes],
                "milliseconds": None if each.seconds is None else round(each.seconds * 1000, 1),
            }
            for version, asked in families.items()
            for each in asked
        ],
    }


_SEVERITY = [str(State.OK), str(State.SUSPECT), str(State.SUSPENDED)]


def _state(symptom: Symptom | None, round_: Round) -> State:
    """Return what one round alone would make of a list: certain symptoms suspend, all else is suspicious."""
    if symptom is None:
        return State.OK if symptoms.is_clean(round_, None) else State.SUSPECT
    return State.SUSPENDED if health.TOLERANCE[symptom][1] == 1 else State.SUSPECT


def _partly(families: dict[int, list[Probe]], fault: Fault | None) -> str:
    if all(symptoms.is_clean(evidence(asked), None) for asked in families.values()):
        return ""
    return "the resolver is to blame" if fault else "some probes were not answered"


def _is_guilty(probe: Probe, symptom: Symptom | None) -> bool:
    if isinstance(probe.answer, Clear) or not probe.answer.codes:
        return False
    if symptom is Symptom.LISTS_THE_WORLD:
        return probe.role is not Role.LISTED
    return symptom in (Symptom.FOREIGN, Symptom.REFUSES) and not isinstance(probe.answer, Listed)


def _word(answer: Answer) -> str:
    if isinstance(answer, Listed):
        return "listed"
    return "clear" if isinstance(answer, Clear) else str(answer.why)
