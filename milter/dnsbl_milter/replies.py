"""What senders, recipients and queues are told: SMTP replies, headers and the reason of a quarantine.

Floor 2: standard library only. Pure text from a verdict; names lists only by the name that people may see.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from dnsbl_policy.actions import Action
from dnsbl_policy.answers import dotted
from dnsbl_policy.points import written
from dnsbl_policy.scoring import Contribution, Verdict

SCORE_HEADER = "X-DNSBL-Score"
ACTION_HEADER = "X-DNSBL-Action"
HEADERS = (SCORE_HEADER, ACTION_HEADER)

LONGEST = 900
"""Characters of a reply's text; libmilter takes 980, and an over-long one would accept a rejected client."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An SMTP reply: its code, its enhanced code (RFC 3463), and one line of ASCII."""

    code: str
    enhanced: str
    text: str

    def __str__(self) -> str:
        return f"{self.code} {self.enhanced} {self.text}"


def refusal(verdict: Verdict, action: Action, addresses: Mapping[str, str]) -> Reply:
    """Return the reply of a deferral or a rejection: all lists that added points, and where to look up the first.

    `addresses` holds each list's look-up address, the client filled in.
    """
    names = verdict.accusers
    address = next((addresses[name] for name in names[:1] if addresses.get(name)), "")
    opening = f"Mail from {verdict.client} "
    if action is Action.REJECT:
        opening += "is refused: listed by "
        code, enhanced = "550", "5.7.1"
    else:
        opening += "is deferred, please try again later: listed by "
        code, enhanced = "451", "4.7.1"
    ending = f"; see {address}" if address else ""
    room = LONGEST - _length(opening) - _length(ending)
    return Reply(code, enhanced, _printable(opening + _fit(names, room) + ending))


def separately() -> Reply:
    """Return the reply to a recipient who needs a message of its own."""
    return Reply("451", "4.7.1", "This recipient needs a message of its own, please send it again separately")


def headers(verdict: Verdict, action: Action) -> tuple[tuple[str, str], ...]:
    """Return the headers that tell the recipient about a verdict."""
    parts = " ".join(_part(contribution) for contribution in verdict.contributions)
    score = written(verdict.score)
    return (SCORE_HEADER, f"{score} ({parts})" if parts else score), (ACTION_HEADER, str(action))


def quarantine_reason(verdict: Verdict) -> str:
    """Return what the queue's listing shows beside a quarantined message."""
    return f"dnsbl-milter score={written(verdict.score)} lists={','.join(verdict.accusers)}"[:LONGEST]


def lists_field(contributions: tuple[Contribution, ...]) -> str:
    """Write contributions as name:label:weight for the log; without a label, the code stands in its place."""
    return ",".join(
        f"{each.list}:{each.label or dotted(each.code)}:{written(each.weight)}" for each in contributions
    )


def _part(contribution: Contribution) -> str:
    label = f"{contribution.label}:" if contribution.label else ""
    return f"{contribution.list}={label}{written(contribution.weight, sign=True)}"


def _fit(names: tuple[str, ...], room: int) -> str:
    text = ", ".join(names)
    shown = len(names)
    while len(text) > room and shown:
        shown -= 1
        text = ", ".join(names[:shown]) + f" and {len(names) - shown} more"
    return text


def _length(text: str) -> int:
    # A percent sign is written twice for libmilter.
    return len(text) + text.count("%")


def _printable(text: str) -> str:
    return "".join(character if " " <= character <= "~" else "?" for character in text)
