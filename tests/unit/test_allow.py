"""Who is never judged, and what an entry that cannot be meant says."""

import re
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnsbl_policy.allow import Allow, Exemption, build, parse_entry, parse_host, parse_network, parse_recipient
from dnsbl_policy.lists import parse_client


def allow(*entries: str) -> Allow:
    return build(map(parse_entry, entries))


FRIENDS = allow(
    "192.168.0.0/24", "198.51.100.7", "10.0.0.0/8", "2001:db8:1::/48", "2001:db8:2::7",
    "mail.friend.example", ".partner.example",
    "postmaster@", "list@acme123.com", "@open.example",
)  # fmt: skip

CLIENTS = [
    # name, client (None: no address), verified host, exemption
    ("no address at all", None, None, Exemption.LOCAL),
    ("no address, whatever the name", None, "mail.friend.example", Exemption.LOCAL),
    ("the host itself", "127.0.0.1", "localhost", Exemption.LOCAL),
    ("the host itself by IPv6", "::1", None, Exemption.LOCAL),
    ("the host itself in IPv6 dress", "::ffff:127.0.0.1", None, Exemption.LOCAL),
    ("the test entry is not the host", "127.0.0.2", None, None),
    ("nor is any other of 127/8", "127.255.255.254", "localhost", None),
    ("the unspecified address", "0.0.0.0", None, None),
    ("0.0.0.1 has the number of ::1", "0.0.0.1", None, None),
    ("::7f00:1 has the number of 127.0.0.1", "::7f00:1", None, None),
    ("first of a network", "192.168.0.0", None, Exemption.NETWORK),
    ("last of a network", "192.168.0.255", None, Exemption.NETWORK),
    ("just below a network", "192.167.255.255", None, None),
    ("just above a network", "192.168.1.0", None, None),
    ("a single address", "198.51.100.7", None, Exemption.NETWORK),
    ("beside a single address", "198.51.100.8", None, None),
    ("a wide network", "10.255.0.1", None, Exemption.NETWORK),
    ("IPv4 in IPv6 dress", "::ffff:192.168.0.9", None, Exemption.NETWORK),
    ("an IPv6 network", "2001:db8:1:ffff::1", None, Exemption.NETWORK),
    ("just above an IPv6 network", "2001:db8:2::", None, None),
    ("a single IPv6 address", "2001:db8:2::7", None, Exemption.NETWORK),
    ("IPv6 whose number lies in an IPv4 network", "::a00:1", None, None),
    ("a network goes before a host", "10.0.0.1", "mail.friend.example", Exemption.NETWORK),
    ("a verified host", "203.0.113.1", "mail.friend.example", Exemption.HOST),
    ("in any case", "203.0.113.1", "Mail.FRIEND.example", Exemption.HOST),
    ("with its final dot", "203.0.113.1", "mail.friend.example.", Exemption.HOST),
    ("by IPv6", "2001:db8:3::1", "mail.friend.example", Exemption.HOST),
    ("not verified", "203.0.113.1", None, None),
    ("no name", "203.0.113.1", "", None),
    ("another host of the domain", "203.0.113.1", "www.friend.example", None),
    ("below a full host name", "203.0.113.1", "x.mail.friend.example", None),
    ("a name that only ends alike", "203.0.113.1", "evilmail.friend.example", None),
    ("a host below a domain", "203.0.113.1", "mx1.partner.example", Exemption.HOST),
    ("far below a domain", "203.0.113.1", "a.b.c.partner.example", Exemption.HOST),
    ("the domain itself is not below it", "203.0.113.1", "partner.example", None),
    ("a domain that only ends alike", "203.0.113.1", "mx1.notpartner.example", None),
    ("a domain that goes on", "203.0.113.1", "partner.example.evil.example", None),
    ("a recipient is no host", "203.0.113.1", "open.example", None),
    ("not even one written like it", "203.0.113.1", "list@acme123.com", None),
]


@pytest.mark.parametrize(("name", "client", "host", "exemption"), CLIENTS, ids=[row[0] for row in CLIENTS])
def test_a_client_is_exempt_for_a_reason_or_not_at_all(name, client, host, exemption):
    assert FRIENDS.client(client and parse_client(client), host) is exemption


RECIPIENTS = [
    # name, recipient, exempt
    ("a user anywhere", "postmaster@example.org", True),
    ("in any case", "PostMaster@Example.org", True),
    ("a bare postmaster, RFC 5321, 4.1.1.3", "postmaster", True),
    ("a bare Postmaster", "Postmaster", True),
    ("another user", "hostmaster@example.org", False),
    ("a user that only begins alike", "postmaster2@example.org", False),
    ("a user that only ends alike", "notpostmaster@example.org", False),
    ("a detail is another user", "postmaster+x@example.org", False),
    ("a full address", "list@acme123.com", True),
    ("a full address in any case", "List@ACME123.com", True),
    ("the user elsewhere", "list@example.org", False),
    ("a full address below the domain", "list@sub.acme123.com", False),
    ("another at the domain", "sales@acme123.com", False),
    ("everyone at a domain", "anyone@open.example", True),
    ("everyone, in any case", "anyone@OPEN.example", True),
    ("below the domain", "anyone@sub.open.example", False),
    ("the domain as a bare name", "open.example", False),
    ("the last @ parts", '"a@b"@open.example', True),
    ("the first @ does not", "postmaster@open.example@evil.example", False),
    ("the user of a full address alone", "list", False),
    ("a domain that is named as a user is", "@postmaster", False),
    ("nothing", "", False),
    ("an @ alone", "@", False),
    ("a host is no recipient", "mail.friend.example", False),
]


@pytest.mark.parametrize(("name", "recipient", "exempt"), RECIPIENTS, ids=[row[0] for row in RECIPIENTS])
def test_a_recipient_is_exempt_or_not(name, recipient, exempt):
    assert FRIENDS.recipient(recipient) is exempt


def test_with_no_entry_only_the_host_itself_is_exempt():
    nobody = Allow()
    assert nobody.authenticated
    assert not nobody.recipient("postmaster")
    assert not nobody.recipient("")
    assert nobody.client(ip_address("192.0.2.1"), "mail.friend.example") is None
    assert nobody.client(ip_address("::1"), None) is Exemption.LOCAL


def test_authentication_is_carried_along():
    assert build([]).authenticated
    assert not build([], authenticated=False).authenticated


EVERYBODY = [
    # entry, client, exempt
    ("0.0.0.0/0", "203.0.113.9", True),
    ("0.0.0.0/0", "2001:db8::9", False),
    ("::/0", "2001:db8::9", True),
    ("::/0", "203.0.113.9", False),
]


@pytest.mark.parametrize(("entry", "client", "exempt"), EVERYBODY)
def test_a_network_of_everybody_is_everybody_of_its_family(entry, client, exempt):
    assert (allow(entry).client(ip_address(client), None) is Exemption.NETWORK) is exempt


ENTRIES = [
    ("::ffff:192.0.2.0/120", IPv4Network("192.0.2.0/24")),
    ("::ffff:192.0.2.7", IPv4Network("192.0.2.7/32")),
    ("<User@Example.org>", "user@example.org"),
    # entry, what it is
    ("192.0.2.1", IPv4Network("192.0.2.1/32")),
    ("192.0.2.0/24", IPv4Network("192.0.2.0/24")),
    ("192.0.2.0/255.255.255.0", IPv4Network("192.0.2.0/24")),
    ("2001:db8::7", IPv6Network("2001:db8::7/128")),
    ("2001:DB8::/32", IPv6Network("2001:db8::/32")),
    ("::", IPv6Network("::/128")),
    ("fe80::/10", IPv6Network("fe80::/10")),
    ("dead:beef::/32", IPv6Network("dead:beef::/32")),
    ("::ffff:a", IPv6Network("::ffff:a/128")),
    ("mail.example.org", "mail.example.org"),
    ("Mail.Example.ORG", "mail.example.org"),
    (".example.org", ".example.org"),
    (".co.uk", ".co.uk"),
    ("192.0.2.1.rev.example.org", "192.0.2.1.rev.example.org"),
    ("my_host.example.org", "my_host.example.org"),
    ("mail.xn--p1ai", "mail.xn--p1ai"),
    ("xn--bcher-kva.example", "xn--bcher-kva.example"),
    ("postmaster@", "postmaster@"),
    ("List@Acme123.com", "list@acme123.com"),
    ("@example.org", "@example.org"),
    (" abuse@ ", "abuse@"),
    ("user@[192.0.2.1]", "user@[192.0.2.1]"),
]

NETWORK = "expected an address or a network such as 192.0.2.0/24 or 2001:db8::/32"
HOST = "expected a full host name such as mail.example.org, or .example.org for every host below it"
RECIPIENT = "expected user@domain, user@ (at any domain) or @domain (every user)"

BAD = [
    # what reads it, entry, message
    (parse_network, "", NETWORK),
    (parse_network, "mail.example.org", NETWORK),
    (parse_network, "192.0.2", NETWORK),
    (parse_network, "192.0.2.256", NETWORK),
    (parse_network, "192.0.2.0/33", NETWORK),
    (parse_network, "192.0.2.0/24/8", NETWORK),
    (parse_network, "2001:db8::/129", NETWORK),
    (parse_network, "192.0.2.0-192.0.2.9", NETWORK),
    (parse_network, "192.0.2.5/24", "has bits set beyond its prefix; did you mean 192.0.2.0/24?"),
    (parse_network, "2001:db8::1/32", "has bits set beyond its prefix; did you mean 2001:db8::/32?"),
    (parse_host, "", HOST),
    (parse_host, ".", HOST),
    (parse_host, "localhost", HOST),
    (parse_host, ".org", HOST),
    (parse_host, "..example.org", HOST),
    (parse_host, "mail..example.org", HOST),
    (parse_host, "mail.example.org.", HOST),
    (parse_host, "*.example.org", HOST),
    (parse_host, "-mail.example.org", HOST),
    (parse_host, "mail-.example.org", HOST),
    (parse_host, "mail.example.org-", HOST),
    (parse_host, "192.0.2.1", HOST),
    (parse_host, "mail.example.org\n", HOST),
    (parse_host, "mail example.org", HOST),
    (parse_host, "b\u00fccher.example", HOST),
    (parse_recipient, "", RECIPIENT),
    (parse_recipient, "@", RECIPIENT),
    (parse_recipient, " @ ", RECIPIENT),
    (parse_recipient, "postmaster", RECIPIENT),
    (parse_recipient, "post master@", RECIPIENT),
    (parse_recipient, "user@exam\tple.org", RECIPIENT),
    (parse_entry, "", NETWORK),
    (parse_entry, "192.0.2", NETWORK),
    (parse_entry, "1.2.3.4.5", NETWORK),
    (parse_entry, "192.0.2.0/24x", NETWORK),
    (parse_entry, "2001:db8::xyz", NETWORK),
    (parse_entry, "192.0.2.5/24", "has bits set beyond its prefix; did you mean 192.0.2.0/24?"),
    (parse_entry, "localhost", HOST),
    (parse_entry, ".123", HOST),
    (parse_entry, "mail.example.org/24", HOST),
    (parse_entry, "@", RECIPIENT),
]


@pytest.mark.parametrize(("text", "entry"), ENTRIES, ids=[row[0] for row in ENTRIES])
def test_an_entry_shows_by_itself_what_it_is(text, entry):
    assert parse_entry(text) == entry


@pytest.mark.parametrize(("parse", "text", "message"), BAD, ids=[f"{row[0].__name__}-{row[1]!r}" for row in BAD])
def test_a_bad_entry_says_what_is_expected(parse, text, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        parse(text)


LOCAL = [ip_address("127.0.0.1"), ip_address("::1")]

networks = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.integers(0, 32)), st.tuples(st.ip_addresses(v=6), st.integers(0, 128))
).map(lambda pair: ip_network(pair, strict=False))


@given(st.lists(networks, max_size=6), st.data())
@settings(deadline=None)
def test_networks_hold_whom_ipaddress_says_they_hold(entries, data):
    """Clients at and beside the edges of the networks, where a wrong shift would show, and anywhere."""
    edges = [int(network[place]) + step for network in entries for place in (0, -1) for step in (-1, 0, 1)]
    clients = st.ip_addresses() | st.sampled_from([ip_address(edge) for edge in edges if 0 <= edge < 2**128] or LOCAL)
    client = data.draw(clients)
    expected = any(client in network for network in entries if network.version == client.version)
    if client not in LOCAL:
        assert (build(entries).client(client, None) is Exemption.NETWORK) is expected
