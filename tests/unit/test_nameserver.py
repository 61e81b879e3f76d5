"""How nameservers are written, which the system has, and what dnspython is left to read."""

from functools import partial
from ipaddress import ip_address
from itertools import pairwise

import dns.flags
import dns.message
import dns.resolver
import dns.rrset
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dnsbl_milter import wire
from dnsbl_milter.nameserver import Nameserver, parse_nameserver, read_carefully, system_nameservers
from dnsbl_milter.wire import NOERROR, NXDOMAIN, REFUSED, SERVFAIL, Reply

QUERY = wire.query(7, wire.client_labels(ip_address("192.0.2.7")), wire.zone_tail("bl.example.net"))

WRITTEN = {
    "127.0.0.1": Nameserver(ip_address("127.0.0.1"), 53),
    "127.0.0.1#5353": Nameserver(ip_address("127.0.0.1"), 5353),
    "::1": Nameserver(ip_address("::1"), 53),
    "::1#5353": Nameserver(ip_address("::1"), 5353),
    "2001:db8::53#65535": Nameserver(ip_address("2001:db8::53"), 65535),
    "fe80::1%eth0": Nameserver(ip_address("fe80::1%eth0"), 53),
}


@pytest.mark.parametrize(("text", "nameserver"), WRITTEN.items())
def test_a_nameserver_is_read_and_written(text, nameserver):
    assert parse_nameserver(text) == nameserver
    assert str(nameserver) == text


def test_the_usual_port_is_not_written():
    assert str(parse_nameserver("127.0.0.1#53")) == "127.0.0.1"


ADDRESS = "expected an address, or address#port, such as 127.0.0.1 or ::1#5353"
PORT = "expected a port from 1 to 65535 after '#'"
FAULTY = {
    "": ADDRESS,
    "localhost": ADDRESS,
    "127.0.0": ADDRESS,
    "127.0.0.1:53": ADDRESS,
    "[::1]#53": ADDRESS,
    " 127.0.0.1": ADDRESS,
    "#53": ADDRESS,
    "127.0.0.0/8": ADDRESS,
    "127.0.0.1#": PORT,
    "127.0.0.1#0": PORT,
    "127.0.0.1#65536": PORT,
    "127.0.0.1#-1": PORT,
    "127.0.0.1#dns": PORT,
    "127.0.0.1#5 3": PORT,
    "127.0.0.1#\u0665\u0663": PORT,
    "127.0.0.1#53#53": PORT,
    "127.0.0.1#" + "9" * 5000: PORT,
}


@pytest.mark.parametrize(("text", "message"), FAULTY.items(), ids=[text[:20] for text in FAULTY])
def test_a_faulty_nameserver_is_refused_with_what_is_expected(text, message):
    with pytest.raises(ValueError) as fault:  # noqa: PT011  the whole message is compared
        parse_nameserver(text)
    assert str(fault.value) == message


# --- the system's

SYSTEMS = {
    "one": ("nameserver 192.0.2.53\n", ["192.0.2.53"]),
    "several, with all that stands beside them": (
        """\
# a comment
domain example.net
search a.example b.example
nameserver 192.0.2.53
nameserver 2001:db8::53
nameserver 127.0.0.53
options edns0 trust-ad ndots:2
""",
        ["192.0.2.53", "2001:db8::53", "127.0.0.53"],
    ),
    "link-local": ("nameserver fe80::1%eth0\n", ["fe80::1%eth0"]),
}


def resolv_conf(monkeypatch, path):
    monkeypatch.setattr(dns.resolver, "Resolver", partial(dns.resolver.Resolver, filename=str(path)))


@pytest.mark.parametrize(("text", "expected"), SYSTEMS.values(), ids=SYSTEMS.keys())
def test_the_systems_nameservers_are_found_in_their_order(monkeypatch, tmp_path, text, expected):
    (tmp_path / "resolv.conf").write_text(text)
    resolv_conf(monkeypatch, tmp_path / "resolv.conf")
    assert system_nameservers() == tuple(map(parse_nameserver, expected))


@pytest.mark.parametrize("text", [None, "", "search example.net\n"], ids=["no file", "empty", "no nameserver"])
def test_a_system_without_nameservers_is_a_clear_fault(monkeypatch, tmp_path, text):
    if text is not None:
        (tmp_path / "resolv.conf").write_text(text)
    resolv_conf(monkeypatch, tmp_path / "resolv.conf")
    with pytest.raises(ValueError, match=r"^/etc/resolv\.conf names no nameserver; name one here$"):
        system_nameservers()


# --- what is left to dnspython; replies of odd shape are rows in test_wire


def respond(*, rcode=NOERROR, answer=(), authority=(), flags=0):
    message = dns.message.make_response(dns.message.from_wire(QUERY))
    message.set_rcode(rcode)
    message.flags |= flags
    message.answer = [dns.rrset.from_text(*record) for record in answer]
    message.authority = [dns.rrset.from_text(*record) for record in authority]
    return message.to_wire(max_size=65535, want_shuffle=False)


NAME = "7.2.0.192.bl.example.net."


def chain(length):
    links = [NAME, *(f"{link}.example.org." for link in range(length))]
    aliases = [(name, 300, "IN", "CNAME", target) for name, target in pairwise(links)]
    return [*aliases, (links[-1], 200, "IN", "A", "127.0.0.2")]


CAREFUL = {
    "a chain of aliases": (respond(answer=chain(8)), Reply(NOERROR, (0x7F000002,), 200)),
    "a chain of aliases without an end": (respond(answer=chain(40)), None),
    "an alias of itself": (respond(answer=[(NAME, 300, "IN", "CNAME", NAME)]), None),
    "a failure that brings addresses all the same": (
        respond(rcode=SERVFAIL, answer=[(NAME, 300, "IN", "A", "127.0.0.2")]),
        Reply(SERVFAIL, (), None),
    ),
    "a refusal that points elsewhere": (
        respond(rcode=REFUSED, authority=[(".", 300, "IN", "NS", "a.root-servers.net.")]),
        Reply(REFUSED, (), None),
    ),
    "pointing to the root instead of asking": (
        respond(authority=[(".", 300, "IN", "NS", "a.root-servers.net.")]),
        Reply(REFUSED, (), None),
    ),
    "an SOA of another class": (
        respond(rcode=NXDOMAIN, authority=[("bl.example.net.", 300, "CH", "SOA", "a. b. 1 2 3 4 5")]),
        Reply(NXDOMAIN, (), None),
    ),
    "garbage": (QUERY[:2] + b"\x81\x80" + b"\xff" * 40, None),
    "nothing": (b"", None),
    "the query itself": (QUERY, None),
    "an update's answer": (QUERY[:2] + b"\xa8\x00" + QUERY[4:], None),
    "the reply to another question": (respond().replace(b"\x02bl", b"\x02wl"), None),
}


@pytest.mark.parametrize(("packet", "expected"), CAREFUL.values(), ids=CAREFUL.keys())
def test_odd_replies_are_read_carefully(packet, expected):
    assert read_carefully(packet, QUERY) == expected


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=120), st.sampled_from([b"\x81\x80", b"\x81\x83", b"\x85\x80", b"\xa8\x00", b"\x81\x92"]))
def test_whatever_comes_is_read_or_not_and_never_raises(octets, flags):
    for counts in (b"\x00\x01\x00\x00\x00\x00", b"\x00\x00\x00\x01\x00\x01", b"\x00\x00\x00\x00\x00\x01"):
        read_carefully(QUERY[:2] + flags + b"\x00\x01" + counts + QUERY[12:] + octets, QUERY)
    read_carefully(QUERY[:2] + flags + octets, QUERY)
    read_carefully(octets, QUERY)
