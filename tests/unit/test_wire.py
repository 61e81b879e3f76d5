"""Replies read from bytes: as dnspython reads them, or handed over; and the ordinary ones are not handed over."""

import struct
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, ip_address

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dnsbl_milter import wire
from dnsbl_milter.nameserver import read_carefully
from dnsbl_milter.wire import NOERROR, NXDOMAIN, REFUSED, SERVFAIL, HandOver, NotOurs, Reply
from dnsbl_policy.lists import question

ZONE = "bl.example.net"
CLIENT = ip_address("192.0.2.7")
NAME = dns.name.from_text("7.2.0.192.bl.example.net")
IDENTIFIER = 0x1234
QUERY = wire.query(IDENTIFIER, wire.client_labels(CLIENT), wire.zone_tail(ZONE))

LARGEST_TTL = 0x7FFFFFFF


# --- queries

labels = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_", min_size=1, max_size=20)
zones = st.lists(labels, min_size=2, max_size=6).map(".".join)
clients = st.ip_addresses()


@settings(deadline=None)
@given(client=clients, zone=zones, identifier=st.integers(0, 0xFFFF))
def test_a_query_is_what_dnspython_would_send(client, zone, identifier):
    built = wire.query(identifier, wire.client_labels(client), wire.zone_tail(zone))
    expected = dns.message.make_query(question(client, zone), "A", use_edns=False, id=identifier)
    expected.flags = dns.flags.RD
    assert built == expected.to_wire()


def test_the_longest_zone_still_has_room_for_an_ipv6_client():
    zone = ".".join(["a" * 63, "b" * 63, "c" * 61])
    built = wire.query(1, wire.client_labels(ip_address("2001:db8::1")), wire.zone_tail(zone))
    assert dns.message.from_wire(built).question[0].name.to_text() == question(ip_address("2001:db8::1"), zone)


# --- ordinary replies


def reply(*, rcode=NOERROR, answer=(), authority=(), additional=(), flags=0, edns=None, question=True, query=QUERY):
    """Build the packet of a reply out of records written as text."""
    message = dns.message.make_response(dns.message.from_wire(query), recursion_available=True)
    message.flags |= flags
    for section, records in (("answer", answer), ("authority", authority), ("additional", additional)):
        for name, ttl, family, kind, *texts in records:
            getattr(message, section).append(dns.rrset.from_text(name, ttl, family, kind, *texts))
    if edns is not None:
        message.use_edns(0, options=edns)
    message.set_rcode(rcode)
    if not question:
        message.question = []
    return message.to_wire(max_size=65535, want_shuffle=False)


def number(address):
    return int(IPv4Address(address))


def soa(owner=f"{ZONE}.", ttl=3600, minimum=150):
    return (owner, ttl, "IN", "SOA", f"ns.{ZONE}. host.{ZONE}. 2024010101 600 300 604800 {minimum}")


LISTED = (NAME, 2100, "IN", "A", "127.0.0.2")
NS = (f"{ZONE}.", 3600, "IN", "NS", "ns1.example.org.", "ns2.example.org.")
GLUE = ("ns1.example.org.", 3600, "IN", "A", "198.51.100.1")

ORDINARY = {
    "unbound: listed": (reply(answer=[LISTED]), Reply(NOERROR, (number("127.0.0.2"),), 2100)),
    "unbound: listed with several codes": (
        reply(answer=[(NAME, 60, "IN", "A", "127.0.0.2", "127.0.0.4", "127.0.0.10")]),
        Reply(NOERROR, tuple(map(number, ("127.0.0.2", "127.0.0.4", "127.0.0.10"))), 60),
    ),
    "unbound: not listed": (reply(rcode=NXDOMAIN, authority=[soa()]), Reply(NXDOMAIN, (), 150)),
    "the record's own life is shorter than its negative one": (
        reply(rcode=NXDOMAIN, authority=[soa(ttl=30)]),
        Reply(NXDOMAIN, (), 30),
    ),
    "a name without addresses, such as one with only a TXT": (reply(authority=[soa()]), Reply(NOERROR, (), 150)),
    "the SOA of a zone above": (
        reply(rcode=NXDOMAIN, authority=[soa("net.", 900, 86400)]),
        Reply(NXDOMAIN, (), 900),
    ),
    "the SOA of the name itself": (reply(rcode=NXDOMAIN, authority=[soa(NAME, 20)]), Reply(NXDOMAIN, (), 20)),
    "rbldnsd: listed, authoritative, with its name servers": (
        reply(answer=[LISTED], authority=[NS], additional=[GLUE], flags=dns.flags.AA),
        Reply(NOERROR, (number("127.0.0.2"),), 2100),
    ),
    "rbldnsd: not listed": (
        reply(rcode=NXDOMAIN, authority=[soa()], flags=dns.flags.AA),
        Reply(NXDOMAIN, (), 150),
    ),
    "rbldnsd: not listed, zone without SOA": (reply(rcode=NXDOMAIN, flags=dns.flags.AA), Reply(NXDOMAIN, (), None)),
    "a TTL of zero": (reply(answer=[(NAME, 0, "IN", "A", "127.0.0.2")]), Reply(NOERROR, (number("127.0.0.2"),), 0)),
    "the longest TTL": (
        reply(answer=[(NAME, LARGEST_TTL, "IN", "A", "127.0.0.2")]),
        Reply(NOERROR, (number("127.0.0.2"),), LARGEST_TTL),
    ),
    "outside 127/8": (
        reply(answer=[(NAME, 300, "IN", "A", "203.0.113.9")]),
        Reply(NOERROR, (number("203.0.113.9"),), 300),
    ),
    "SERVFAIL": (reply(rcode=SERVFAIL), Reply(SERVFAIL, (), None)),
    "REFUSED": (reply(rcode=REFUSED), Reply(REFUSED, (), None)),
    "SERVFAIL, cut short": (reply(rcode=SERVFAIL, flags=dns.flags.TC), Reply(SERVFAIL, (), None)),
}

ordinary = pytest.mark.parametrize(("packet", "expected"), ORDINARY.values(), ids=ORDINARY.keys())


@ordinary
def test_ordinary_replies_are_read_here(packet, expected):
    assert wire.read(packet, QUERY) == expected


@ordinary
def test_dnspython_reads_ordinary_replies_the_same(packet, expected):
    assert read_carefully(packet, QUERY) == expected


NOT_LISTED_CLIENT = ip_address("192.0.2.8")
_ASKED = "0137013201300331393202626c076578616d706c65036e65740000010001"
_ASKED_OTHER = "0138013201300331393202626c076578616d706c65036e65740000010001"
_FOUR = "c00c000100010000083400047f000004"
_TWO = "c00c000100010000083400047f000002"
_SERVERS = "c0160002000100000e100006036e7331c016c0160002000100000e100011036e7332076578616d706c65036f726700"
_SOA = "c01600060001000000960020026e73c01604686f7374c01600000001000002580000012c0001518000000096"

RECORDED = {
    "rbldnsd 1.0: listed": ("123485000001000200020000" + _ASKED + _TWO + _FOUR + _SERVERS, CLIENT, 2100),
    "rbldnsd 1.0: not listed": ("123485030001000000010000" + _ASKED_OTHER + _SOA, NOT_LISTED_CLIENT, 150),
    "unbound 1.17: listed": ("123481800001000200000000" + _ASKED + _FOUR + _TWO, CLIENT, 2100),
    "unbound 1.17: not listed": ("123481830001000000010000" + _ASKED_OTHER + _SOA, NOT_LISTED_CLIENT, 150),
}


@pytest.mark.parametrize(("octets", "client", "ttl"), RECORDED.values(), ids=RECORDED.keys())
def test_replies_recorded_from_real_servers_are_read_here(octets, client, ttl):
    asked = wire.query(IDENTIFIER, wire.client_labels(client), wire.zone_tail(ZONE))
    found = wire.read(bytes.fromhex(octets), asked)
    listed = {number("127.0.0.2"), number("127.0.0.4")} if client == CLIENT else set()
    assert (found.rcode, set(found.codes), found.ttl) == (NOERROR if listed else NXDOMAIN, listed, ttl)


@pytest.mark.parametrize("rcode", [1, 2, 4, 5])
def test_a_failure_need_not_repeat_the_question(rcode):
    bare = struct.pack("!HHHHHH", IDENTIFIER, 0x8180 | rcode, 0, 0, 0, 0)
    assert wire.read(bare, QUERY) == Reply(rcode, (), None)


@pytest.mark.parametrize("rcode", [0, 3, 6, 9])
def test_any_other_reply_must_repeat_the_question(rcode):
    with pytest.raises(NotOurs):
        wire.read(struct.pack("!HHHHHH", IDENTIFIER, 0x8180 | rcode, 0, 0, 0, 0), QUERY)


def test_the_question_may_come_back_in_another_case():
    packet = reply(answer=[LISTED])
    shouted = packet[:12] + packet[12 : len(QUERY)].upper() + packet[len(QUERY) :]
    assert wire.read(shouted, QUERY) == Reply(NOERROR, (number("127.0.0.2"),), 2100)


def test_an_answer_may_repeat_the_name_in_full_and_in_another_case():
    packet = reply()
    record = NAME.to_wire().upper() + struct.pack("!HHIH", 1, 1, 77, 4) + bytes((127, 0, 0, 3))
    packet = packet[:6] + struct.pack("!H", 1) + packet[8:] + record
    assert wire.read(packet, QUERY) == Reply(NOERROR, (number("127.0.0.3"),), 77)


# --- not ours

other_zone = wire.query(IDENTIFIER, wire.client_labels(CLIENT), wire.zone_tail("bl.example.org"))
other_client = wire.query(IDENTIFIER, wire.client_labels(ip_address("192.0.2.8")), wire.zone_tail(ZONE))
text_question = QUERY[:-4] + b"\x00\x10\x00\x01"
chaos_question = QUERY[:-2] + b"\x00\x03"

NOT_OURS = {
    "nothing": b"",
    "too short for a header": reply()[:11],
    "another identifier": b"\x00\x00" + reply(answer=[LISTED])[2:],
    "our own query, echoed": QUERY,
    "another opcode": reply(flags=0x2000),
    "another zone": reply(query=other_zone),
    "another client": reply(query=other_client),
    "another client, and a failure": reply(query=other_client, rcode=SERVFAIL),
    "another client, and cut short": reply(query=other_client, flags=dns.flags.TC),
    "another type": reply(query=text_question),
    "another class": reply(query=chaos_question),
    "two questions": reply()[:4] + b"\x00\x02" + reply()[6:] + QUERY[12:],
    "the question cut off": reply()[: len(QUERY) - 3],
}


@pytest.mark.parametrize("packet", NOT_OURS.values(), ids=NOT_OURS.keys())
def test_what_answers_another_question_is_as_if_it_had_not_come(packet):
    with pytest.raises(NotOurs):
        wire.read(packet, QUERY)


# --- handed over


def counting(packet, *counts):
    """Let the header claim other numbers of records."""
    return packet[:6] + struct.pack("!HHH", *counts) + packet[12:]


ALIAS = (NAME, 500, "IN", "CNAME", "target.example.org.")
TARGET = ("target.example.org.", 400, "IN", "A", "127.0.0.9")

ODD = {
    "an alias": (
        reply(answer=[ALIAS, TARGET]),
        Reply(NOERROR, (number("127.0.0.9"),), 400),
    ),
    "an alias to what does not exist": (
        reply(rcode=NXDOMAIN, answer=[ALIAS], authority=[soa("example.org.", 90)]),
        Reply(NXDOMAIN, (), 90),
    ),
    "an alias, and the SOA of some other zone": (
        reply(rcode=NXDOMAIN, answer=[ALIAS], authority=[soa()]),
        Reply(NXDOMAIN, (), None),
    ),
    "an alias that nobody followed": (reply(answer=[ALIAS]), Reply(REFUSED, (), None)),
    "an address beside NXDOMAIN": (reply(rcode=NXDOMAIN, answer=[LISTED]), None),
    "a referral": (reply(authority=[NS], additional=[GLUE]), Reply(REFUSED, (), None)),
    "not listed, with name servers but no SOA": (
        reply(rcode=NXDOMAIN, authority=[NS]),
        Reply(NXDOMAIN, (), None),
    ),
    "the SOA of some other zone": (
        reply(rcode=NXDOMAIN, authority=[soa("example.org.", 20)]),
        Reply(NXDOMAIN, (), None),
    ),
    "two SOA records": (
        reply(rcode=NXDOMAIN, authority=[soa("net.", 20), soa(ttl=40)]),
        Reply(NXDOMAIN, (), 40),
    ),
    "a signature beside the addresses": (
        reply(answer=[LISTED, (NAME, 9, "IN", "RRSIG", "A 8 6 300 20300101000000 20200101000000 1 net. AAAA")]),
        Reply(NOERROR, (number("127.0.0.2"),), 2100),
    ),
    "an address of another name": (
        reply(answer=[("other.bl.example.net.", 60, "IN", "A", "127.0.0.2")], authority=[soa()]),
        Reply(NOERROR, (), 150),
    ),
    "EDNS that nobody asked for": (
        reply(answer=[LISTED], edns=[]),
        Reply(NOERROR, (number("127.0.0.2"),), 2100),
    ),
    "a return code that needs EDNS: BADVERS": (reply(edns=[], rcode=16), Reply(16, (), None)),
    "one that would pass for SERVFAIL without it: BADTIME": (reply(edns=[], rcode=18), Reply(18, (), None)),
    "a TTL with its highest bit set": (
        reply(answer=[LISTED])[:-10] + b"\x80\x00\x00\x00" + reply(answer=[LISTED])[-6:],
        Reply(NOERROR, (number("127.0.0.2"),), 0),
    ),
    "octets after the end": (reply(answer=[LISTED]) + b"\0", None),
    "octets after the end of a negative reply": (reply(rcode=NXDOMAIN, authority=[soa()]) + b"\0", None),
    "cut off in an address": (reply(answer=[LISTED])[:-1], None),
    "cut off before a record": (counting(reply(answer=[LISTED]), 2, 0, 0), None),
    "cut off in the SOA": (reply(rcode=NXDOMAIN, authority=[soa()])[:-1], None),
    "fewer records counted than there are": (counting(reply(answer=[LISTED]), 0, 0, 0), None),
    "an address under the zone's own name": (
        reply(answer=[(f"{ZONE}.", 60, "IN", "A", "127.0.0.2")], authority=[soa()]),
        Reply(NOERROR, (), 150),
    ),
    "an SOA whose owner points into the middle of a label": (
        reply(rcode=NXDOMAIN, authority=[soa()]).replace(b"\xc0\x16", b"\xc0\x17", 1),
        None,
    ),
    "an SOA with an octet too many": (
        reply(rcode=NXDOMAIN, authority=[soa()]).replace(b"\x00\x20\x02ns", b"\x00\x21\x02ns") + b"\0",
        None,
    ),
    "an owner with a label of 65 octets": (
        counting(reply(answer=[LISTED]), 1, 0, 1)
        + b"\x41" + 65 * b"a" + b"\0" + struct.pack("!HHIH", 16, 1, 60, 2) + b"\x01x",
        None,
    ),
    "an address of five octets": (
        reply()[:6] + b"\x00\x01" + reply()[8:] + b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 9, 5) + b"abcde",
        None,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("packet", "expected"), ODD.values(), ids=ODD.keys())
def test_odd_replies_are_handed_over_to_dnspython(packet, expected):
    with pytest.raises(HandOver) as odd:
        wire.read(packet, QUERY)
    assert not odd.value.truncated
    assert read_carefully(packet, QUERY) == expected


@pytest.mark.parametrize("records", [[], [LISTED]], ids=["empty", "with a part of the addresses"])
def test_a_reply_cut_short_is_handed_over_as_such(records):
    with pytest.raises(HandOver) as odd:
        wire.read(reply(answer=records, flags=dns.flags.TC), QUERY)
    assert odd.value.truncated


# --- against dnspython, generated


@dataclass(frozen=True)
class Oracle:
    """What dnspython makes of a packet; `referral` where it knows no difference between that and "not listed"."""

    reply: Reply | None = None
    ours: bool = True
    truncated: bool = False
    readable: bool = True
    referral: bool = False
    codes: frozenset[int] = field(default_factory=frozenset)


def oracle(packet):
    """Read a packet with dnspython alone."""
    asked = dns.message.from_wire(QUERY)
    try:
        message = dns.message.from_wire(packet)
    except dns.exception.DNSException:
        return Oracle(readable=False)
    if not asked.is_response(message):
        return Oracle(ours=False)
    rcode = int(message.rcode())
    if rcode not in (NOERROR, NXDOMAIN):
        return Oracle(Reply(rcode, (), None))
    if message.flags & dns.flags.TC:
        return Oracle(truncated=True)
    try:
        chain = message.resolve_chaining()
    except dns.exception.DNSException:
        return Oracle(readable=False)
    if chain.answer is not None:
        codes = frozenset(number(record.address) for record in chain.answer)
        return Oracle(Reply(rcode, (), chain.minimum_ttl), codes=codes)
    # dnspython gives a reply without SOA a life of its own choice; there the time to live is None.
    zones_above = {chain.canonical_name}
    while zones_above != {dns.name.root} and dns.name.root not in zones_above:
        zones_above.add(min(zones_above, key=len).parent())
    has_soa = any(
        records.rdtype == dns.rdatatype.SOA and records.rdclass == 1 and records.name in zones_above
        for records in message.authority
    )
    if has_soa:
        return Oracle(Reply(rcode, (), chain.minimum_ttl))
    points_elsewhere = bool(chain.cnames) or any(records.rdtype == dns.rdatatype.NS for records in message.authority)
    return Oracle(Reply(rcode, (), None), referral=rcode == NOERROR and points_elsewhere)


def check(packet):
    """Compare what `wire` and `read_carefully` make of a packet with what dnspython makes of it."""
    expected = oracle(packet)
    try:
        found = wire.read(packet, QUERY)
    except NotOurs:
        assert not (expected.readable and expected.ours), "dnspython takes it for a reply to us"
        return
    except HandOver as odd:
        if odd.truncated:
            assert dns.message.from_wire(packet, question_only=True).flags & dns.flags.TC
            return
        found = read_carefully(packet, QUERY)
        if not expected.readable or not expected.ours:
            assert found is None
            return
        if expected.referral:
            assert found == Reply(REFUSED, (), None)
            return
        if expected.truncated:
            return
        assert found is not None
    else:
        assert not expected.referral
    if expected.readable:
        assert expected.ours
        assert expected.reply is not None
        assert set(found.codes) == expected.codes
        assert replace(found, codes=()) == expected.reply


ttls = st.one_of(st.sampled_from([0, 1, 60, 300, LARGEST_TTL]), st.integers(0, LARGEST_TTL))
above = st.sampled_from([NAME, f"{ZONE}.", "example.net.", "net.", "BL.Example.NET."])
elsewhere = st.sampled_from(
    [".", "example.org.", "x.bl.example.net.", "alias.example.net.", "8.2.0.192.bl.example.net."]
)
anywhere = st.one_of(above, elsewhere)
addresses = st.one_of(st.sampled_from(["127.0.0.2", "127.0.0.255", "127.255.255.254"]), st.ip_addresses(v=4).map(str))
classes = st.sampled_from(["IN", "CH", "HS"])


def soas(owner, family):
    return st.builds(
        lambda owner, ttl, family, minimum: (owner, ttl, family, "SOA", f"ns.{ZONE}. . 1 2 3 4 {minimum}"),
        owner,
        ttls,
        family,
        st.one_of(ttls, st.just(0xFFFFFFFF)),
    )


def texts(owner):
    return st.tuples(owner, ttls, classes, st.just("TXT"), st.sampled_from(['"listed"', '""', '"a" "b"']))


def listings(owner):
    return st.one_of(
        st.tuples(owner, ttls, st.just("IN"), st.just("A"), addresses),
        st.tuples(owner, ttls, st.just("IN"), st.just("A"), addresses, addresses),
    )


servers = st.tuples(anywhere, ttls, st.just("IN"), st.just("NS"), anywhere.map(str))
aliases = st.tuples(anywhere, ttls, st.just("IN"), st.just("CNAME"), anywhere.map(str))
wide = st.tuples(anywhere, ttls, st.just("IN"), st.just("AAAA"), st.ip_addresses(v=6).map(str))

ODDITIES = {
    "answer": st.lists(st.one_of(listings(st.just(NAME)), listings(anywhere), aliases, texts(anywhere)), max_size=3),
    "authority": st.lists(st.one_of(soas(anywhere, classes), servers, texts(anywhere)), max_size=3),
    "additional": st.lists(st.one_of(wide, texts(anywhere), listings(anywhere)), max_size=3),
    "rcode": st.sampled_from([NOERROR, 1, SERVFAIL, NXDOMAIN, 4, REFUSED, 6, 9]),
    "flags": st.sampled_from([dns.flags.TC, dns.flags.AA, dns.flags.AD]),
    "edns": st.just([dns.edns.GenericOption(10, b"12345678")]),
    "question": st.just(False),
}  # fmt: skip


@st.composite
def replies(draw):
    """Draw the packet of an ordinary reply, with one or two oddities or none."""
    if draw(st.booleans()):
        parts = {"answer": draw(st.lists(listings(st.just(NAME)), min_size=1, max_size=3))}
        parts["authority"] = draw(st.lists(servers, max_size=2))
    else:
        parts = {"rcode": draw(st.sampled_from([NOERROR, NXDOMAIN]))}
        parts["authority"] = draw(st.lists(soas(above, st.just("IN")), max_size=1))
    parts["additional"] = draw(st.lists(wide, max_size=2))
    for odd in draw(st.lists(st.sampled_from([*ODDITIES]), max_size=2)):
        parts[odd] = draw(ODDITIES[odd])
        if odd == "edns" and draw(st.booleans()):
            parts["rcode"] = draw(st.integers(16, 40))
    if parts.get("rcode", 0) > 15:
        parts.setdefault("edns", [])
    packet = reply(**parts)
    if draw(st.integers(0, 9)) == 0:
        packet = packet[:12] + packet[12 : len(QUERY)].swapcase() + packet[len(QUERY) :]
    return packet


generously = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""No clock decides about a test: the machine may be busy."""


@settings(generously, max_examples=500)
@given(replies())
def test_generated_replies_are_read_as_dnspython_reads_them(packet):
    check(packet)


TELLING = [0, 1, 2, 5, 6, 0x0C, 0x0D, 0x16, 0x17, 0x29, 0x3F, 0x40, 0x80, 0xC0, 0xFF]
"""Octets that mean something in a message: types, classes, pointers, lengths."""


@st.composite
def mutated(draw):
    """Draw a reply that something happened to on its way, mostly behind the question."""
    packet = bytearray(draw(st.one_of(st.sampled_from([packet for packet, _ in ORDINARY.values()]), replies())))
    for _ in range(draw(st.integers(1, 2))):
        first = draw(st.sampled_from([0, 2, 6, len(QUERY), len(QUERY), len(QUERY), len(QUERY)]))
        place = draw(st.integers(min(first, len(packet)), len(packet)))
        match draw(st.sampled_from(["flip", "flip", "set", "set", "set", "set", "cut", "insert", "append"])):
            case "flip" if place < len(packet):
                packet[place] ^= 1 << draw(st.integers(0, 7))
            case "set" if place < len(packet):
                packet[place] = draw(st.sampled_from(TELLING))
            case "cut":
                del packet[place:]
            case "insert":
                packet[place:place] = draw(st.binary(min_size=1, max_size=4))
            case _:
                packet += draw(st.binary(min_size=1, max_size=20))
    return bytes(packet)


@settings(generously, max_examples=1000)
@example(b"")
@example(b"\x12\x34")
# A pointer to itself, and a name without an end: neither may be followed for ever.
@example(QUERY[:2] + b"\x81\x80\x00\x01\x00\x00\x00\x01\x00\x00" + QUERY[12:] + b"\xc0\x20" * 20)
@example(QUERY[:2] + b"\x81\x83\x00\x01\x00\x00\xff\xff\x00\x00" + QUERY[12:] + b"\x01a" * 200)
@given(mutated())
def test_mutated_replies_are_read_as_dnspython_reads_them_or_handed_over(packet):
    check(packet)


@settings(generously, max_examples=300)
@given(st.binary(max_size=300))
def test_any_octets_behind_our_header_and_question_are_survived(octets):
    for flags in (b"\x81\x80", b"\x81\x83"):
        for counts in (b"\x00\x01\x00\x00\x00\x00", b"\x00\x00\x00\x01\x00\x00", b"\x00\x00\x00\x00\x00\x01"):
            check(QUERY[:2] + flags + b"\x00\x01" + counts + QUERY[12:] + octets)


@settings(generously, max_examples=300)
@given(st.binary(max_size=200))
def test_any_octets_at_all_are_survived(octets):
    check(octets)
    check(QUERY[:2] + octets)
