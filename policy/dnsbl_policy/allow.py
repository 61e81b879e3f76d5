"""Who is never judged: allowed networks, verified host names, recipients, and the host itself.

Floor 1: standard library only. Built from text entries, each checked with a message that says what is expected.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network

from dnsbl_policy.lists import Client

_HOST = re.compile(r"\.?([a-z0-9_]([a-z0-9_-]*[a-z0-9_])?\.)+[a-z]([a-z0-9-]*[a-z0-9])?", re.ASCII)


class Exemption(StrEnum):
    """Why a client, a message or a recipient is not judged."""

    LOCAL = "local"
    NETWORK = "network"
    HOST = "host"
    AUTHENTICATED = "authenticated"
    RECIPIENT = "recipient"


def parse_network(text: str) -> IPv4Network | IPv6Network:
    """Read a network or a single address. Raises ValueError that says what is expected."""
    try:
        network = ip_network(text)
    except ValueError:
        try:
            wide = ip_network(text, strict=False)
        except ValueError:
            raise ValueError("expected an address or a network such as 192.0.2.0/24 or 2001:db8::/32") from None
        raise ValueError(f"has bits set beyond its prefix; did you mean {wide}?") from None
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is not None and network.prefixlen >= 96:
        # Clients in this dress are folded to IPv4 too, so the network as written would never match.
        return IPv4Network((mapped, network.prefixlen - 96))
    return network


def parse_host(text: str) -> str:
    """Read a host name, or a domain with a leading dot for every host below it. Raises ValueError."""
    host = text.lower()
    if not _HOST.fullmatch(host):
        raise ValueError("expected a full host name such as mail.example.org, or .example.org for every host below it")
    return host


def parse_recipient(text: str) -> str:
    """Read a recipient: `user@domain`, `user@` at any domain, or `@domain`. Raises ValueError."""
    bare = text.strip().removeprefix("<").removesuffix(">")
    local, at, domain = bare.rpartition("@")
    if not at or not (local or domain) or any(character.isspace() for character in bare):
        raise ValueError("expected user@domain, user@ (at any domain) or @domain (every user)")
    return bare.lower()


def parse_entry(text: str) -> IPv4Network | IPv6Network | str:
    """Read an entry of any kind: one with an @ is a recipient, one with letters or a leading dot a host.

    Raises ValueError.
    """
    if "@" in text:
        return parse_recipient(text)
    # An IPv6 network has letters too, and colons, which no host name has.
    if ":" not in text and (text.startswith(".") or text.rpartition(".")[2][:1].isalpha()):
        return parse_host(text)
    return parse_network(text)


@dataclass(frozen=True, slots=True)
class Allow:
    """The exemptions of a policy.

    Networks are kept by prefix length, so that a file of 100,000 of them costs a look-up for each length in
    use and not a walk along the file.
    """

    networks: Mapping[int, Mapping[int, frozenset[int]]] = field(default_factory=dict)
    """By family (4, 6) and number of host bits: the network parts."""
    hosts: frozenset[str] = frozenset()
    recipients: frozenset[str] = frozenset()
    authenticated: bool = True

    def client(self, client: Client | None, host: str | None) -> Exemption | None:
        """Return why a client is exempt, or None.

        `host` is a name that the mail server itself verified forward and back, or None. No address at all, and
        the two loopback addresses, are the host itself; the rest of 127/8 is not, or test entries could not be tried.
        """
        if client is None or (client.is_loopback and int(client) in (0x7F000001, 1)):
            return Exemption.LOCAL
        number = int(client)
        for host_bits, members in self.networks.get(client.version, {}).items():
            if number >> host_bits in members:
                return Exemption.NETWORK
        if host and self.hosts and self._knows(host.lower().rstrip(".")):
            return Exemption.HOST
        return None

    def recipient(self, address: str) -> bool:
        """Tell whether a recipient, written without its angle brackets, takes all mail unjudged."""
        if not self.recipients:
            return False
        folded = address.lower()
        local, at, domain = folded.rpartition("@")
        if not at:
            # <postmaster> without a domain is the one bare recipient that RFC 5321, section 4.1.1.3, demands.
            local, domain = folded, ""
        return folded in self.recipients or f"{local}@" in self.recipients or f"@{domain}" in self.recipients

    def _knows(self, host: str) -> bool:
        if host in self.hosts:
            return True
        labels = host.split(".")
        return any("." + ".".join(labels[start:]) in self.hosts for start in range(1, len(labels)))


def build(entries: Iterable[IPv4Network | IPv6Network | str], *, authenticated: bool = True) -> Allow:
    """Gather parsed entries into an `Allow`."""
    families: dict[int, dict[int, set[int]]] = {}
    names: set[str] = set()
    for entry in entries:
        if isinstance(entry, str):
            names.add(entry)
            continue
        host_bits = entry.max_prefixlen - entry.prefixlen
        members = families.setdefault(entry.version, {}).setdefault(host_bits, set())
        members.add(int(entry.network_address) >> host_bits)
    return Allow(
        networks={
            family: {host_bits: frozenset(members) for host_bits, members in by_length.items()}
            for family, by_length in families.items()
        },
        hosts=frozenset(name for name in names if "@" not in name),
        recipients=frozenset(name for name in names if "@" in name),
        authenticated=authenticated,
    )
