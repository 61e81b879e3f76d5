"""Lists: the names they are asked by, the zones that can be asked, and what their rules make of codes."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import dns.name
import dns.reversename
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnsbl_policy.answers import PENDING, Clear, Listed, Unknown, Why
from dnsbl_policy.codes import parse_pattern
from dnsbl_policy.lists import DnsList, Rule, parse_client, question, reversed_labels, zone_fault


def numbers(addresses: str) -> tuple[int, ...]:
    """Turn addresses with blanks between them into return codes."""
    return tuple(int(IPv4Address(address)) for address in addresses.split())


def rule(weight: int, pattern: str | None = None, label: str = "") -> Rule:
    return Rule(weight, parse_pattern(pattern) if pattern else None, label)


# --- clients and the names asked about them

CLIENTS = [
    # as Sendmail or a person writes it, client
    ("192.0.2.99", "192.0.2.99"),
    ("2001:db8::7", "2001:db8::7"),
    ("IPv6:2001:db8::7", "2001:db8::7"),
    ("ipv6:2001:DB8:0:0::7", "2001:db8::7"),
    ("::ffff:192.0.2.99", "192.0.2.99"),
    ("IPv6:::ffff:192.0.2.99", "192.0.2.99"),
    ("::FFFF:c000:263", "192.0.2.99"),
    ("::ffff:0.0.0.0", "0.0.0.0"),
    ("0:0:0:0:0:ffff:7f00:1", "127.0.0.1"),
    ("fe80::1%eth0", "fe80::1"),
    ("IPv6:fe80::1%2", "fe80::1"),
    ("::192.0.2.99", "::c000:263"),
    ("::ffff:0:192.0.2.99", "::ffff:0:c000:263"),
    ("::1", "::1"),
    ("0.0.0.0", "0.0.0.0"),
]

NO_CLIENTS = [
    "", "localhost", "unknown", "IPv6:", "192.0.2", "192.0.2.256", "192.0.2.1.", "192.0.02.1", "[192.0.2.1]",
    "192.0.2.1/32", "2001:db8::7::1", "IPv4:192.0.2.1", "IPv6:IPv6:::1", " 192.0.2.1", "192.0.2.1\n", "\u0661.2.3.4",
]  # fmt: skip

QUESTIONS = [
    # name, client, zone, question
    ("RFC 5782, 2.1", "192.0.2.99", "dnsbl.example.net", "99.2.0.192.dnsbl.example.net."),
    (
        "RFC 5782, 2.4",
        "2001:db8:1:2:3:4:567:89ab",
        "ugly.example.com",
        "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.ugly.example.com.",
    ),
    ("RFC 5782, 5: must be listed", "127.0.0.2", "bl.example.net", "2.0.0.127.bl.example.net."),
    ("RFC 5782, 5: must not be", "127.0.0.1", "bl.example.net", "1.0.0.127.bl.example.net."),
    ("all nibbles of an address that is nearly zero", "::1", "v6.example.net", "1" + 31 * ".0" + ".v6.example.net."),
    ("the case of a zone is its own", "192.0.2.9", "BL.Example.net", "9.2.0.192.BL.Example.net."),
]


@pytest.mark.parametrize(("text", "client"), CLIENTS)
def test_a_client_is_read_and_mapped_ones_are_folded(text, client):
    found = parse_client(text)
    assert found == ip_address(client)
    assert found.version == (6 if ":" in client else 4)


@pytest.mark.parametrize("text", NO_CLIENTS)
def test_what_is_no_address_is_no_client(text):
    assert parse_client(text) is None


@pytest.mark.parametrize(("name", "client", "zone", "asked"), QUESTIONS, ids=[row[0] for row in QUESTIONS])
def test_a_question_reverses_the_client_below_the_zone(name, client, zone, asked):
    assert question(ip_address(client), zone) == asked


def test_the_ipv6_test_entries_are_asked_as_nibbles():
    """RFC 5782, section 5: ::FFFF:7F00:2; an address object that is not a client's is not folded."""
    assert reversed_labels(IPv6Address("::ffff:7f00:2")) == "2.0.0.0.0.0.f.7.f.f.f.f" + 20 * ".0"
    assert reversed_labels(IPv6Address("::ffff:7f00:1")) == "1.0.0.0.0.0.f.7.f.f.f.f" + 20 * ".0"


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6) | st.integers(0, 2**32 - 1).map(lambda low: IPv6Address(0xFFFF << 32 | low)))
@settings(deadline=None)
def test_names_are_reversed_as_dnspython_does(address):
    origin = dns.name.from_text("in-addr.arpa." if parse_client(str(address)).version == 4 else "ip6.arpa.")
    expected = dns.reversename.from_address(str(address)).relativize(origin)
    assert reversed_labels(parse_client(str(address))) == expected.to_text()


# --- zones

LONG = ".".join(["a" * 63, "b" * 63, "c" * 61])
assert len(LONG) == 189

ZONES = [
    "zen.spamhaus.org", "bl.example.net", "a.b", "BL.Example.NET", "xn--bcher-kva.example", "_x.example.net",
    "0spam.fusionzero.com", "4.3.2.1.in-addr.example", "a" * 63 + ".example", LONG,
]  # fmt: skip

DOT = "expected a domain name with a dot, such as bl.example.net"
EMPTY = "has an empty label: two dots in a row, or one at the start or the end"
CHARACTERS = "has characters that no zone has; expected letters, digits, '-', '_' and '.'"
ASCII = "has characters outside ASCII; write an international name in its xn-- form"

ZONE_FAULTS = [
    # zone, fault
    ("", DOT),
    ("localhost", DOT),
    (".", EMPTY),
    ("bl.example.net.", EMPTY),
    (".example.net", EMPTY),
    ("bl..example.net", EMPTY),
    ("a" * 64 + ".example", "has a label of more than 63 characters"),
    (LONG + "c", "is longer than 189 characters, which leaves no room for an IPv6 client"),
    ("b\u00fccher.example", ASCII),
    ("bl\u3002example", DOT),
    ("bl\u3002example.net", ASCII),
    ("bl.example\u0662.net", ASCII),
    ("bl.example net", CHARACTERS),
    ("bl.example.net ", CHARACTERS),
    ("bl.example.net\n", CHARACTERS),
    ("http://bl.example.net", CHARACTERS),
    ("bl.example.net/24", CHARACTERS),
    ("*.example.net", CHARACTERS),
    ("{key}.example.net", CHARACTERS),
    ("bl\\.example.net", CHARACTERS),
]


@pytest.mark.parametrize("zone", ZONES)
def test_a_zone_that_can_be_asked_has_no_fault(zone):
    assert zone_fault(zone) is None


@pytest.mark.parametrize(("zone", "fault"), ZONE_FAULTS, ids=[repr(row[0][:30]) for row in ZONE_FAULTS])
def test_a_zone_that_cannot_be_asked_says_why(zone, fault):
    assert zone_fault(zone) == fault


labels = st.text("aZ0-_", min_size=1, max_size=63)
zones = st.lists(labels, min_size=1, max_size=5).map(".".join) | st.text("aZ0-_. \\\u00fc", max_size=12)


@given(zones, st.ip_addresses(v=6))
@settings(deadline=None)
def test_dnspython_can_ask_about_any_client_under_any_zone_without_a_fault(zone, client):
    if zone_fault(zone) is None:
        asked = question(client, zone)
        assert dns.name.from_text(asked, origin=None).to_text() == asked
        assert len(asked) <= 254


# --- rules

RULES = [
    # name, rule, answered codes, code that matched
    ("any code", rule(400), "127.0.0.2", "127.0.0.2"),
    ("any code takes the first", rule(400), "127.0.0.4 127.0.0.9", "127.0.0.4"),
    ("a pattern that fits", rule(500, "127.0.0.[4..7]"), "127.0.0.5", "127.0.0.5"),
    ("a pattern that fits the second", rule(500, "127.0.0.[4..7]"), "127.0.0.2 127.0.0.7", "127.0.0.7"),
    ("a pattern takes the first that fits", rule(500, "127.0.0.[4..7]"), "127.0.0.5 127.0.0.6", "127.0.0.5"),
    ("a pattern that does not", rule(500, "127.0.0.[4..7]"), "127.0.0.3", None),
    ("no code", rule(400), "", None),
    ("over quota accuses like any code", rule(400), "127.0.0.255", "127.0.0.255"),
    ("over quota accuses by pattern", rule(400, "127.0.0.255"), "127.0.0.255", "127.0.0.255"),
    ("over quota trusts nobody", rule(-400), "127.0.0.255", None),
    ("over quota trusts nobody by wide pattern", rule(-400, "127.0.[0..255].[0..255]"), "127.0.0.255", None),
    ("over quota trusts nobody by its own pattern", rule(-400, "127.0.0.255"), "127.0.0.255", None),
    ("over quota trusts nobody by network", rule(-1, "127.0.0.0/24"), "127.0.0.255", None),
    ("over quota trusts nobody by mask", rule(-1, "&0.0.0.1"), "127.0.0.255", None),
    ("a code beside over quota", rule(-400), "127.0.0.255 127.0.10.2", "127.0.10.2"),
    ("255 elsewhere is a code like others", rule(-400), "127.0.1.255", "127.0.1.255"),
    ("a rule of no weight sees over quota", rule(0), "127.0.0.255", "127.0.0.255"),
]


@pytest.mark.parametrize(("name", "one", "codes", "matched"), RULES, ids=[row[0] for row in RULES])
def test_a_rule_names_the_code_it_matches(name, one, codes, matched):
    assert one.matching(numbers(codes)) == (numbers(matched)[0] if matched else None)


RANGES = [
    # name, weights, most, least
    ("no rule", (), 0, 0),
    ("one", (400,), 400, 0),
    ("several may match at once", (500, 500, 300), 1300, 0),
    ("for senders", (-100, -300), 0, -400),
    ("both", (500, -400, 0, 25), 525, -400),
]


@pytest.mark.parametrize(("name", "weights", "most", "least"), RANGES, ids=[row[0] for row in RANGES])
def test_a_list_knows_the_most_and_least_it_can_add(name, weights, most, least):
    one = DnsList("one", "bl.example.net", tuple(rule(weight) for weight in weights))
    assert (one.most, one.least) == (most, least)


BLOCK = DnsList("block", "bl.example.net", (rule(400),))
ALLOW = DnsList("allow", "wl.example.net", (rule(-400, "127.0.[0..255].[1..3]"),))
MIXED = DnsList("mixed", "rep.example.net", (rule(300, "127.0.0.2"), rule(-200, "127.0.0.10")))

OVER = "127.0.0.255"
HEARD = [
    # name, list, answer, what the list means by it
    ("a listing", ALLOW, Listed(numbers("127.0.5.1"), 60), Listed(numbers("127.0.5.1"), 60)),
    ("clear", ALLOW, Clear(60), Clear(60)),
    ("pending", ALLOW, PENDING, PENDING),
    ("a failure keeps its reason", ALLOW, Unknown(Why.TIMEOUT), Unknown(Why.TIMEOUT)),
    ("one for senders is over quota", ALLOW, Listed(numbers(OVER), 60), Unknown(Why.BLOCKED, numbers(OVER))),
    (
        "over quota beside a code",
        ALLOW,
        Listed(numbers("127.0.0.255 127.0.5.1"), 60),
        Unknown(Why.BLOCKED, numbers("127.0.0.255 127.0.5.1")),
    ),
    ("one that also speaks for senders", MIXED, Listed(numbers(OVER), 60), Unknown(Why.BLOCKED, numbers(OVER))),
    ("one against senders means it", BLOCK, Listed(numbers(OVER), 60), Listed(numbers(OVER), 60)),
    ("255 elsewhere is a code", ALLOW, Listed(numbers("127.0.1.255"), 60), Listed(numbers("127.0.1.255"), 60)),
]


@pytest.mark.parametrize(("name", "one", "answer", "heard"), HEARD, ids=[row[0] for row in HEARD])
def test_a_list_for_senders_that_is_over_quota_has_not_spoken(name, one, answer, heard):
    assert one.hear(answer) == heard


FAMILIES = [
    # ipv4, ipv6, client, asked
    (True, False, "192.0.2.1", True),
    (True, False, "2001:db8::1", False),
    (False, True, "192.0.2.1", False),
    (False, True, "2001:db8::1", True),
    (True, True, "::ffff:192.0.2.1", True),
    (True, False, "::ffff:192.0.2.1", True),
    (False, True, "::ffff:192.0.2.1", False),
    (True, None, "2001:db8::1", True),
]


@pytest.mark.parametrize(("ipv4", "ipv6", "client", "asked"), FAMILIES)
def test_a_list_serves_its_families(ipv4, ipv6, client, asked):
    one = DnsList("one", "bl.example.net", (rule(400),), ipv4=ipv4, ipv6=ipv6)
    assert one.may_serve(parse_client(client).version) is asked


def test_the_look_up_page_names_the_client():
    one = DnsList("one", "bl.example.net", (), url="https://example.net/look%2Fup?ip={client}#{client}")
    assert one.look_up_address(ip_address("192.0.2.1")) == "https://example.net/look%2Fup?ip=192.0.2.1#192.0.2.1"
    assert one.look_up_address(ip_address("2001:db8::1")) == (
        "https://example.net/look%2Fup?ip=2001:db8::1#2001:db8::1"
    )
    assert BLOCK.look_up_address(ip_address("192.0.2.1")) == ""


def test_a_zone_with_its_key_is_shown_nowhere():
    assert "secret" not in repr(DnsList("paid", "secret.zen.example.net", (rule(400),)))
