"""A list: where it is asked, and what its return codes weigh.

Floor 0: standard library only. Knows names, codes and weights; asks nothing.

Points are integers in hundredths everywhere, so that the order in which answers arrive cannot change a sum.
"""

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address

from dnsbl_policy.answers import OVER_QUOTA, Answer, Listed, Unknown, Why
from dnsbl_policy.codes import Pattern

Client = IPv4Address | IPv6Address

LONGEST_NAME = 253
"""Characters of a domain name in its written form, without the final dot (RFC 1035, section 2.3.4)."""

_LONGEST_PREFIX = len(".".join("0" * 32)) + 1


@dataclass(frozen=True, slots=True)
class Rule:
    """What one kind of answer weighs, in hundredths of a point; a pattern of None stands for any code."""

    weight: int
    pattern: Pattern | None = None
    label: str = ""

    def matching(self, codes: tuple[int, ...]) -> int | None:
        """Return the first code that the rule applies to, or None."""
        for code in codes:
            # Over-quota answers of allow-lists look like any other code, and some are caught by wide patterns.
            if self.weight < 0 and code == OVER_QUOTA:
                continue
            if self.pattern is None or self.pattern.matches(code):
                return code
        return None


@dataclass(frozen=True, slots=True)
class Expect:
    """Where a list departs from the test entries of RFC 5782, section 5; None where it does not."""

    listed: str | None = None
    """The code that 127.0.0.2 answers, or "none" if the list leaves it out."""
    clear: str | None = None
    """Space that the list never lists, or "none" if it has no such space."""


@dataclass(frozen=True, slots=True)
class DnsList:
    """A list as configured. People see `name`; `zone` may hold a paid key and is shown nowhere."""

    name: str
    zone: str = field(repr=False)
    rules: tuple[Rule, ...]
    group: str | None = None
    observe: bool = False
    ipv4: bool = True
    ipv6: bool | None = True
    """None: it is asked about IPv6 clients once its test entry for them has answered."""
    timeout: float | None = None
    """Seconds after which this list is given up, if sooner than the deadline for all."""
    url: str = ""
    expect: Expect = Expect()

    @property
    def most(self) -> int:
        """Return the most that one answer could add: every rule above zero may match at once."""
        return sum(rule.weight for rule in self.rules if rule.weight > 0)

    @property
    def least(self) -> int:
        """Return the least that one answer could add, zero or below."""
        return sum(rule.weight for rule in self.rules if rule.weight < 0)

    def may_serve(self, version: int) -> bool:
        """Tell whether the list is asked about clients of this IP version, or may be found to answer for them."""
        return self.ipv4 if version == 4 else self.ipv6 is not False

    def hear(self, answer: Answer) -> Answer:
        """Take the list's own sense of an answer: one that speaks for senders and is over quota has not spoken.

        Read as "listed, no rule matches" it would say that the sender is *not* trusted; it says nothing.
        """
        if isinstance(answer, Listed) and OVER_QUOTA in answer.codes and self.least < 0:
            return Unknown(Why.BLOCKED, answer.codes)
        return answer

    def look_up_address(self, client: Client) -> str:
        """Return the page where people see why the client is listed; empty if the list has none."""
        return self.url.replace("{client}", str(client))


def parse_client(text: str) -> Client | None:
    """Read a client address; an IPv4 address in IPv6 dress is the IPv4 address. None for what is no address.

    Sendmail writes `IPv6:2001:db8::7` in places, and link-local addresses with their interface.
    """
    bare = text[5:] if text[:5].lower() == "ipv6:" else text
    try:
        address = ip_address(bare.partition("%")[0])
    except ValueError:
        return None
    return (address.version == 6 and address.ipv4_mapped) or address


def reversed_labels(client: Client) -> str:
    """Reverse a client's octets, or its 32 nibbles, for the name to ask (RFC 5782, sections 2.1 and 2.4)."""
    if client.version == 4:
        return ".".join(reversed(str(client).split(".")))
    return ".".join(reversed(client.packed.hex()))


def question(client: Client, zone: str) -> str:
    """Return the absolute name to ask a zone about a client; its final dot keeps search domains out."""
    return f"{reversed_labels(client)}.{zone}."


def zone_fault(zone: str) -> str | None:
    """Return what makes a zone's name impossible to ask under, or None."""
    labels = zone.split(".")
    if len(labels) < 2:
        return "expected a domain name with a dot, such as bl.example.net"
    if not zone.isascii():
        return "has characters outside ASCII; write an international name in its xn-- form"
    if any(not label for label in labels):
        return "has an empty label: two dots in a row, or one at the start or the end"
    if any(len(label) > 63 for label in labels):
        return "has a label of more than 63 characters"
    if len(zone) + _LONGEST_PREFIX > LONGEST_NAME:
        return f"is longer than {LONGEST_NAME - _LONGEST_PREFIX} characters, which leaves no room for an IPv6 client"
    if any(not (character.isalnum() or character in "-_.") for character in zone):
        return "has characters that no zone has; expected letters, digits, '-', '_' and '.'"
    return None
