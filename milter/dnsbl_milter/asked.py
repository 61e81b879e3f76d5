"""What a line of a .mc file asked a list for, and what Sendmail did with those it found there.

Floor 3: standard library only. Knows the arguments of FEATURE(dnsbl), FEATURE(enhdnsbl) and the old FEATURE(rbl).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from dnsbl_milter.configuration import catalog
from dnsbl_milter.listing import shown_zone
from dnsbl_milter.mc import Feature
from dnsbl_policy.actions import Action
from dnsbl_policy.catalog import KnownList, Scope
from dnsbl_policy.lists import zone_fault

ADDRESS_LISTS = ("dnsbl", "enhdnsbl", "rbl")

_DEFAULT_ZONES = {
    "rbl": "rbl.maps.vix.com",
    "dnsbl": "blackholes.mail-abuse.org",
    "enhdnsbl": "blackholes.mail-abuse.org",
}
"""What Sendmail asked where no zone was named, up to 8.12."""
_READ = 9
"""Arguments of enhdnsbl that Sendmail reads: zone, message, temporary failure, and six codes."""
_OCTET = re.compile(r"\d{1,3}", re.ASCII)

Octets = tuple[str, ...]
"""Four octets; an empty one stands for any."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One line of one list."""

    line: int
    feature: str
    zone: str
    shown: str
    """The zone as people may see it, without a key."""
    known: KnownList | None
    action: Action
    codes: tuple[str, ...]
    """Patterns, as the configuration writes them; none for any answer."""
    refused: str
    """Why the line is left out, or empty."""
    lost: tuple[str, ...]
    """What the line said and the configuration cannot, each with the reason."""


def asked(feature: Feature) -> Asked:
    """Read a line that asks a list about addresses."""
    given = feature.argument(1).lower().removesuffix(".")
    zone = given or _DEFAULT_ZONES.get(feature.name, "")
    shown = shown_zone(zone, catalog())
    known = catalog().known(zone)
    codes, lost = _codes(feature)
    refused = _refusal(zone, shown, known, named=bool(given), conditional=feature.conditional)
    if not refused and codes is None:
        refused, lost = f"it acts on no answer that is a listing: {'; '.join(lost)}", []
    return Asked(
        feature.line,
        feature.name,
        zone,
        shown,
        known,
        _action(feature),
        codes or (),
        refused,
        (*lost, *_lost(feature)),
    )


def _refusal(zone: str, shown: str, known: KnownList | None, *, named: bool, conditional: bool) -> str:
    dead = catalog().dead_zone(zone)
    if dead:
        default = "" if named else "no zone is named, which meant this one; "
        danger = "; dangerous, for it has listed everybody" if dead.dangerous else ""
        return f"{default}dead ({dead.when}): {dead.what}{danger}"
    if conditional:
        return "it stands in a quoted text (of ifdef, define or the like), and only m4 knows whether it is in force"
    fault = zone_fault(zone)
    if fault is not None:
        return f"not the name of a zone: {fault}"
    if known and known.scope is Scope.NAME:
        return f"{shown} lists names and takes no addresses"
    return ""


def _action(feature: Feature) -> Action:
    message = feature.argument(2).strip('" ')
    if feature.name == "rbl":
        return Action.REJECT
    if message[:1] == "4" and message[:3].isdigit():
        return Action.DEFER
    return {"quarantine": Action.QUARANTINE, "discard": Action.DISCARD}.get(message, Action.REJECT)


def _codes(feature: Feature) -> tuple[tuple[str, ...] | None, list[str]]:
    """Return the patterns that count, none for any and None where no listing can match; and what was lost."""
    given = feature.arguments[3:_READ] if feature.name == "enhdnsbl" else ()
    if not any(given[:1]):
        return (), []
    codes: list[Octets] = []
    lost: list[str] = []
    for text in filter(None, given):
        try:
            octets = _code(text)
        except ValueError as fault:
            lost.append(f"its code {text}: {fault}")
            continue
        if not any(octets):
            return (), lost
        codes.append(octets)
    return _merged(codes) or None, lost


def _code(text: str) -> Octets:
    """Read a code, with or without the final dot that Sendmail 8.17 wants and 8.18 refuses. Raises ValueError."""
    octets = text.removesuffix(".").split(".")
    # $- stands for one octet, $+ for one or more.
    if octets[-1] in ("$+", "$*") and len(octets) <= 4:
        octets[-1:] = ["$-"] * (5 - len(octets))
    octets = ["" if octet == "$-" else octet for octet in octets]
    if len(octets) != 4 or not all(not octet or (_OCTET.fullmatch(octet) and int(octet) < 256) for octet in octets):
        raise ValueError("neither an address nor one with $- or a final $+ in the place of octets")
    if not any(octets):
        return ("", "", "", "")
    if octets[0] not in ("", "127") or octets[:3] == ["127", "255", "255"]:
        raise ValueError("outside 127.0.0.0/8, or an operator's error code")
    return ("127", *(str(int(octet)) if octet else "" for octet in octets[1:]))


def _merged(codes: Iterable[Octets]) -> tuple[str, ...]:
    """Write codes as patterns; those that differ in the last octet alone become one, so that they count once."""
    lasts: dict[Octets, set[str]] = {}
    for code in codes:
        lasts.setdefault(code[:3], set()).add(code[3])
    return tuple(".".join([*map(_octet, head), _octet(*sorted(last, key=int) if all(last) else "")]) for head, last in lasts.items())


def _octet(*values: str) -> str:
    if not any(values):
        return "[0..255]"
    return values[0] if len(values) == 1 else f"[{';'.join(values)}]"


def _lost(feature: Feature) -> list[str]:
    lost: list[str] = []
    if feature.name == "rbl":
        return lost
    if feature.argument(2).strip('" ') not in ("", "quarantine", "discard"):
        lost.append("its message: a reply names the lists, and where to look them up")
    if feature.argument(3):
        lost.append("its temporary failure: a list that does not answer adds nothing, and so delays no mail")
    if feature.name == "dnsbl" and any(feature.arguments[3:]):
        lost.append("its codes: FEATURE(dnsbl) never read them, and acted on every answer")
    if feature.name == "enhdnsbl" and any(feature.arguments[_READ:]):
        lost.append("its codes from the seventh on: Sendmail reads nine arguments, so it never saw them")
    return lost
