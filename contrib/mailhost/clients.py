"""The address plan: every client there is, its name, and which lists hold it.

The zone data of `lists.sample_zones` and the host names of the resolver are made
from this table, and tests and the demonstration print and check it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

SBL, CSS, XBL, PBL = "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.10"
LISTED = "127.0.0.2"
MAIL_HOST4, MAIL_HOST6 = "203.0.113.25", "2001:db8:25::25"


@dataclass(frozen=True)
class SampleClient:
    """One client address, and everything that DNS says about it."""

    address: str
    name: str  # what its reverse name says; "" if it has none
    note: str
    zen: tuple[str, ...] = ()
    spamcop: bool = False
    psbl: bool = False
    dnswl: str = ""  # "127.0.category.trust"
    v6: bool = False
    forward: bool = True  # False: the name does not lead back to this address

    def codes(self, zone: str) -> tuple[str, ...]:
        """Return the addresses with which a sample zone answers for this client, sorted."""
        held = {
            "zen.example": self.zen,
            "spamcop.example": (LISTED,) * self.spamcop,
            "psbl.example": (LISTED,) * self.psbl,
            "dnswl.example": (self.dnswl,) if self.dnswl else (),
            "v6.example": (LISTED,) * self.v6,
            "refusing.example": ("127.255.255.254",) * (":" not in self.address),
        }
        return tuple(sorted(held.get(zone, ())))


SAMPLE_CLIENTS = (
    SampleClient("198.51.100.7", "mail.plain.example", "on no list"),
    SampleClient("198.51.100.10", "pool-10.dial.example", "a dial-up address", zen=(PBL,)),
    SampleClient("198.51.100.11", "mail.careless.example", "one list alone", spamcop=True),
    SampleClient("198.51.100.12", "mail.spammer.example", "one list alone", zen=(SBL,)),
    SampleClient("198.51.100.13", "mail.snowshoe.example", "one list alone", zen=(CSS,)),
    SampleClient("198.51.100.14", "infected.example", "one list alone", zen=(XBL,)),
    SampleClient("198.51.100.15", "mail.psbl-only.example", "one list alone", psbl=True),
    SampleClient("198.51.100.16", "zombie.dial.example", "two codes of one list", zen=(XBL, PBL)),
    SampleClient("198.51.100.17", "bad.spammer.example", "two codes of one list", zen=(SBL, XBL)),
    SampleClient("198.51.100.18", "worst.spammer.example", "every code of one list", zen=(SBL, CSS, XBL, PBL)),
    SampleClient("198.51.100.20", "pool-20.dial.example", "two lists", zen=(PBL,), spamcop=True),
    SampleClient("198.51.100.21", "two.spammer.example", "two lists", zen=(SBL,), spamcop=True),
    SampleClient("198.51.100.22", "two.infected.example", "two lists", zen=(XBL,), spamcop=True),
    SampleClient("198.51.100.23", "two.careless.example", "two lists", spamcop=True, psbl=True),
    SampleClient("198.51.100.24", "pool-24.dial.example", "three lists", zen=(PBL,), spamcop=True, psbl=True),
    SampleClient("198.51.100.25", "three.spammer.example", "three lists", zen=(SBL,), spamcop=True, psbl=True),
    SampleClient(
        "198.51.100.26", "all.spammer.example", "everything", zen=(SBL, CSS, XBL, PBL), spamcop=True, psbl=True
    ),
    SampleClient("198.51.100.30", "mail.known.example", "known, no trust", dnswl="127.0.5.0"),
    SampleClient("198.51.100.31", "mail.low.example", "low trust", dnswl="127.0.5.1"),
    SampleClient("198.51.100.32", "mail.medium.example", "medium trust", dnswl="127.0.5.2"),
    SampleClient("198.51.100.33", "mail.high.example", "high trust", dnswl="127.0.5.3"),
    SampleClient("198.51.100.34", "pool-34.known.example", "no trust, one list", zen=(PBL,), dnswl="127.0.5.0"),
    SampleClient("198.51.100.35", "pool-35.low.example", "trust outweighs a list", zen=(PBL,), dnswl="127.0.5.1"),
    SampleClient("198.51.100.36", "two.medium.example", "trust against a list", spamcop=True, dnswl="127.0.9.2"),
    SampleClient(
        "198.51.100.37", "two.high.example", "trust against two lists", zen=(SBL,), spamcop=True, dnswl="127.0.9.3"
    ),
    SampleClient(
        "198.51.100.38",
        "three.high.example",
        "trust against three lists",
        zen=(SBL,),
        spamcop=True,
        psbl=True,
        dnswl="127.0.9.3",
    ),
    SampleClient("198.51.100.40", "mail.friend.example", "a forged name", zen=(SBL,), spamcop=True, forward=False),
    SampleClient("198.51.100.41", "", "no name"),
    SampleClient("198.51.100.42", "mail.nowhere.example", "a name that leads nowhere", forward=False),
    SampleClient("198.51.100.43", "", "no name, two lists", zen=(PBL,), spamcop=True),
    SampleClient("198.51.100.50", "mail.friend.example", "the friend himself", zen=(SBL,), spamcop=True),
    SampleClient("198.51.100.51", "mx1.partner.example", "a partner's host", zen=(SBL,), spamcop=True),
    SampleClient("192.168.0.9", "desk9.acme123.com", "the house's network", zen=(PBL,), spamcop=True, psbl=True),
    SampleClient("2001:db8::7", "mail6.plain.example", "on no list"),
    SampleClient("2001:db8::10", "mail6.spammer.example", "one list alone", v6=True),
    SampleClient("2001:db8::40", "mail.friend.example", "a forged name", v6=True, forward=False),
    SampleClient("2001:db8::41", "", "no name"),
    SampleClient("2001:db8::50", "mail.friend.example", "the friend himself", v6=True),
    SampleClient("2001:db8:1::9", "desk9.acme123.com", "the house's network", v6=True),
)


@dataclass(frozen=True)
class Host:
    """What the resolver knows about a name and its addresses."""

    name: str
    addresses: tuple[str, ...] = ()  # A and AAAA
    reverse: tuple[str, ...] = ()  # addresses whose PTR says this name, true or forged
    mail: tuple[str, ...] = field(default=())  # names of mail exchangers, a preference before them if it is not 10


def sample_hosts() -> Iterator[Host]:
    """Yield the names of all sample clients, and those of the mail host."""
    yield Host("mx.acme123.com", (MAIL_HOST4, MAIL_HOST6), (MAIL_HOST4, MAIL_HOST6))
    yield Host("acme123.com", mail=("mx.acme123.com",))
    for client in SAMPLE_CLIENTS:
        if client.name:
            yield Host(client.name, (client.address,) * client.forward, (client.address,))
