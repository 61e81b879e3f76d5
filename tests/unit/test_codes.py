"""The pattern language: what each form matches, and where a bad pattern is bad."""

import re
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnsbl_policy.codes import PatternError, parse_pattern


def number(address: str) -> int:
    return int(IPv4Address(address))


MATCHES = [
    # pattern, codes that match, codes that do not
    ("127.0.0.2", "127.0.0.2", "127.0.0.3 127.0.1.2 127.1.0.2 127.0.0.0 126.0.0.2 127.0.0.12"),
    ("127.0.0.[2]", "127.0.0.2", "127.0.0.1 127.0.0.3"),
    ("127.0.0.[4..7]", "127.0.0.4 127.0.0.5 127.0.0.7", "127.0.0.3 127.0.0.8 127.0.1.4 127.1.0.4"),
    ("127.0.0.[5..5]", "127.0.0.5", "127.0.0.4 127.0.0.6"),
    ("127.0.0.[10;11]", "127.0.0.10 127.0.0.11", "127.0.0.9 127.0.0.12 127.0.0.1"),
    ("127.0.0.[2;4..7;9]", "127.0.0.2 127.0.0.4 127.0.0.7 127.0.0.9", "127.0.0.3 127.0.0.8 127.0.0.10"),
    ("127.0.0.[9;2]", "127.0.0.2 127.0.0.9", "127.0.0.3 127.0.0.8"),
    ("127.0.[0..255].[1..3]", "127.0.0.1 127.0.255.3 127.0.15.2", "127.0.5.0 127.0.5.4 127.1.5.1"),
    ("127.[1;3].0.0", "127.1.0.0 127.3.0.0", "127.2.0.0 127.0.0.0"),
    ("[126..128].0.0.1", "127.0.0.1 126.0.0.1 128.0.0.1", "125.0.0.1 129.0.0.1"),
    ("127.255.[0..255].1", "127.255.0.1 127.255.254.1", "127.254.0.1"),
    ("127.0.0.0/28", "127.0.0.0 127.0.0.15", "127.0.0.16 127.0.1.0 126.0.0.0"),
    ("127.0.0.16/28", "127.0.0.16 127.0.0.31", "127.0.0.15 127.0.0.32"),
    ("127.0.0.2/32", "127.0.0.2", "127.0.0.1 127.0.0.3"),
    ("127.0.0.2/31", "127.0.0.2 127.0.0.3", "127.0.0.1 127.0.0.4"),
    ("127.0.0.0/8", "127.0.0.0 127.255.255.255", "126.255.255.255 128.0.0.0"),
    ("126.0.0.0/7", "127.0.0.2 126.0.0.2", "125.255.255.255 128.0.0.0"),
    ("64.0.0.0/2", "127.0.0.2 64.0.0.0", "63.255.255.255 128.0.0.0"),
    ("0.0.0.0/0", "127.0.0.2 0.0.0.0 255.255.255.255", ""),
    ("127.255.254.0/23", "127.255.254.1 127.255.255.1", "127.255.253.255"),
    ("&0.0.0.8", "127.0.0.8 127.0.0.9 127.0.0.255", "127.0.0.7 127.0.0.16 127.0.8.0"),
    ("&0.0.0.10", "127.0.0.10 127.0.0.11 127.0.0.14", "127.0.0.2 127.0.0.8 127.0.0.5"),
    ("&0.0.1.0", "127.0.1.0 127.0.3.5", "127.0.0.1 127.0.2.0"),
    ("&127.0.0.2", "127.0.0.2 127.0.0.3", "127.0.0.1 126.0.0.2"),
    ("&0.255.254.0", "127.255.254.0", "127.255.253.0 127.254.254.0"),
]

NUMBER = "expected a number from 0 to 255"
OCTET = "expected a number from 0 to 255, or a set such as [2;4..7]"
FOUR = "expected '.' and four octets in all"
PREFIX = "expected a prefix length from 0 to 32"
RANGE_END = "expected the end of the range, a number from 0 to 255"
SET = "expected ';', '..' or ']'"
FIRST = "the first octet must allow 127: every return code is in 127.0.0.0/8"
OPERATOR = "lies in 127.255.255.0/24: an operator's error code never counts"
OUTSIDE = "lies outside 127.0.0.0/8, where every return code is"

BAD = [
    # pattern, character counted from 1, message
    ("", 1, OCTET),
    ("bl.example.net", 1, OCTET),
    (" 127.0.0.2", 1, OCTET),
    ("127.0.0.2 ", 10, "nothing may follow here, but ' ' does"),
    ("127", 4, FOUR),
    ("127.0.0", 8, FOUR),
    ("127.0.0.", 9, OCTET),
    ("127..0.2", 5, OCTET),
    ("127,0.0.2", 4, FOUR),
    ("127.0.0.2.3", 10, "nothing may follow here, but '.3' does"),
    ("127.0.0.256", 9, OCTET),
    ("127.0.0.1000", 9, OCTET),
    ("127.0.0." + "9" * 5000, 9, OCTET),
    ("127.0.0.-1", 9, OCTET),
    ("127.0.0.*", 9, OCTET),
    ("127.0.0.\u0662", 9, OCTET),
    ("127.0.0.2\u0662", 9, OCTET),
    ("127.0.0.[]", 10, NUMBER),
    ("127.0.0.[", 10, NUMBER),
    ("127.0.0.[2", 11, SET),
    ("127.0.0.[2;", 12, NUMBER),
    ("127.0.0.[2;]", 12, NUMBER),
    ("127.0.0.[;2]", 10, NUMBER),
    ("127.0.0.[2,3]", 11, SET),
    ("127.0.0.[2-4]", 11, SET),
    ("127.0.0.[2.4]", 11, SET),
    ("127.0.0.[2..]", 13, RANGE_END),
    ("127.0.0.[2..300]", 13, RANGE_END),
    ("127.0.0.[..7]", 10, NUMBER),
    ("127.0.0.[2..4..6]", 14, SET),
    ("127.0.0.[300]", 10, NUMBER),
    ("127.0.0.[2;300]", 12, NUMBER),
    ("127.0.0.[[2]]", 10, NUMBER),
    ("127.0.0.[2]]", 12, "nothing may follow here, but ']' does"),
    ("127.0.0.2]", 10, "nothing may follow here, but ']' does"),
    ("127.0.0.[7..4]", 13, "the range ends before it starts; did you mean 4..7?"),
    ("127.0.0.[2;250..9]", 17, "the range ends before it starts; did you mean 9..250?"),
    ("10.0.0.2", 1, FIRST),
    ("[0..126].0.0.2", 1, FIRST),
    ("[126;128].0.0.2", 1, FIRST),
    ("127.255.255.254", 1, OPERATOR),
    ("127.255.255.[252..255]", 1, OPERATOR),
    ("127.[255].[255..255].1", 1, OPERATOR),
    ("127.0.0.0/", 11, PREFIX),
    ("127.0.0.0/33", 11, PREFIX),
    ("127.0.0.0/255.0.0.0", 11, PREFIX),
    ("127.0.0.0/-8", 11, PREFIX),
    ("127.0.0.0/8/8", 12, "nothing may follow here, but '/8' does"),
    ("127.0.0/24", 8, FOUR),
    ("127.0.0.0.0/24", 10, "expected '/' and a prefix length"),
    ("/8", 1, NUMBER),
    ("127.0.0.[0..3]/30", 9, NUMBER),
    ("127.0.0.256/32", 9, NUMBER),
    ("127.0.0.2/28", 1, "has bits set beyond /28; did you mean 127.0.0.0/28?"),
    ("127.0.0.255/31", 1, "has bits set beyond /31; did you mean 127.0.0.254/31?"),
    ("127.0.0.1/0", 1, "has bits set beyond /0; did you mean 0.0.0.0/0?"),
    ("10.0.0.0/8", 1, OUTSIDE),
    ("126.0.0.0/8", 1, OUTSIDE),
    ("128.0.0.0/9", 1, OUTSIDE),
    ("192.0.2.0/24", 1, OUTSIDE),
    ("124.0.0.0/7", 1, OUTSIDE),
    ("128.0.0.0/1", 1, OUTSIDE),
    ("0.0.0.0/2", 1, OUTSIDE),
    ("127.255.255.0/24", 1, OPERATOR),
    ("127.255.255.128/25", 1, OPERATOR),
    ("127.255.255.255/32", 1, OPERATOR),
    ("&", 2, NUMBER),
    ("&0.0.0", 7, FOUR),
    ("&0.0.0.256", 8, NUMBER),
    ("&0.0.0.[1;2]", 8, NUMBER),
    ("&0.0.0.8/8", 9, "nothing may follow here, but '/8' does"),
    ("&&0.0.0.8", 2, NUMBER),
    ("& 0.0.0.8", 2, NUMBER),
    ("&0.0.0.0", 2, "a bit mask needs at least one bit; leave `match` out for any answer"),
    ("&128.0.0.0", 2, "has a bit that no return code has: the first octet is always 127"),
    ("&255.0.0.2", 2, "has a bit that no return code has: the first octet is always 127"),
    ("&0.255.255.0", 2, OPERATOR),
    ("&127.255.255.1", 2, OPERATOR),
]


@pytest.mark.parametrize(("pattern", "yes", "no"), MATCHES, ids=[row[0] for row in MATCHES])
def test_a_pattern_matches_its_codes_and_no_other(pattern, yes, no):
    matches = parse_pattern(pattern).matches
    assert [code for code in yes.split() if not matches(number(code))] == []
    assert [code for code in no.split() if matches(number(code))] == []


@pytest.mark.parametrize(("pattern", "character", "message"), BAD, ids=[row[0][:30] or "empty" for row in BAD])
def test_a_bad_pattern_says_where_and_what_would_be_right(pattern, character, message):
    with pytest.raises(PatternError) as raised:
        parse_pattern(pattern)
    assert str(raised.value) == f"{pattern!r}, character {character}: {message}"
    assert raised.value.position == character - 1


def test_patterns_written_alike_are_equal():
    assert parse_pattern("127.0.0.2") == parse_pattern("127.0.0.2")
    assert hash(parse_pattern("127.0.0.2")) == hash(parse_pattern("127.0.0.2"))
    assert parse_pattern("127.0.0.2") != parse_pattern("127.0.0.3")
    assert repr(parse_pattern("&0.0.0.8")) == "Pattern(text='&0.0.0.8')"


# --- oracles: each builds the set that the text stands for in a way of its own

byte = st.integers(0, 255)
spans = st.tuples(byte, byte).map(sorted)


def written(octet):
    """Write an octet's parts, each a number or a pair of ends."""
    if isinstance(octet, int):
        return str(octet)
    return "[" + ";".join(str(part) if isinstance(part, int) else f"{part[0]}..{part[1]}" for part in octet) + "]"


def members(octet):
    if isinstance(octet, int):
        return {octet}
    return {
        value
        for value in range(256)
        for part in octet
        if (value == part if isinstance(part, int) else part[0] <= value <= part[1])
    }


octets = byte | st.lists(byte | spans, min_size=1, max_size=4)
first_octets = st.just(127) | st.lists(byte | spans, max_size=2).map(lambda parts: [*parts, 127])


@given(first_octets, octets, octets, octets, st.data())
@settings(deadline=None)
def test_octet_sets_match_what_each_octet_allows(first, second, third, fourth, data):
    parts = (first, second, third, fourth)
    allowed = [members(part) for part in parts]
    text = ".".join(map(written, parts))
    if allowed[1] == allowed[2] == {255}:
        with pytest.raises(PatternError):
            parse_pattern(text)
        return
    matches = parse_pattern(text).matches
    for _ in range(8):
        code = [data.draw(st.sampled_from(sorted(values)) | byte) for values in allowed]
        expected = all(value in values for value, values in zip(code, allowed, strict=True))
        assert matches(int.from_bytes(bytes(code))) == expected


near_loopback = st.one_of(
    st.integers(0, 2**32 - 1), st.integers(0x7F000000, 0x7FFFFFFF), st.integers(0x7FFFFE00, 0x7FFFFFFF)
)
LOOPBACK, OPERATORS = IPv4Network("127.0.0.0/8"), IPv4Network("127.255.255.0/24")


@given(near_loopback, st.integers(0, 32), st.lists(near_loopback, max_size=8))
@settings(deadline=None)
def test_networks_match_as_ipaddress_does(address, length, codes):
    network = IPv4Network((address, length), strict=False)
    if not network.overlaps(LOOPBACK) or network.subnet_of(OPERATORS):
        with pytest.raises(PatternError):
            parse_pattern(str(network))
        return
    matches = parse_pattern(str(network)).matches
    edges = [int(network[0]), int(network[-1]), int(network[0]) - 1, int(network[-1]) + 1]
    for code in [*codes, *(edge for edge in edges if 0 <= edge < 2**32)]:
        assert matches(code) == (IPv4Address(code) in network)


# Each code that counts lacks at least one bit of its two middle octets; these lack exactly one.
FULLEST = [0x7FFFFFFF & ~(1 << bit) for bit in range(8, 24)]


@given(near_loopback | st.integers(0, 31).map(lambda bit: 1 << bit), st.lists(near_loopback, max_size=8))
@settings(deadline=None)
def test_a_mask_matches_where_each_of_its_bits_is_set(mask, codes):
    text = f"&{IPv4Address(mask)}"
    wanted = [place for place, bit in enumerate(f"{mask:032b}") if bit == "1"]

    def has(code):
        return all(f"{code:032b}"[place] == "1" for place in wanted)

    if not wanted or not any(map(has, FULLEST)):
        with pytest.raises(PatternError):
            parse_pattern(text)
        return
    matches = parse_pattern(text).matches
    for code in [mask, *codes, *(code | mask for code in codes), *FULLEST]:
        assert matches(code) == has(code)


# The whole syntax once more, as one regular expression.
_BYTE = r"[0-9]{1,3}"
_ITEM = rf"{_BYTE}(\.\.{_BYTE})?"
_OCTET = rf"({_BYTE}|\[{_ITEM}(;{_ITEM})*\])"
_ADDRESS = rf"{_BYTE}(\.{_BYTE}){{3}}"
SYNTAX = re.compile(rf"{_OCTET}(\.{_OCTET}){{3}}|{_ADDRESS}/[0-9]{{1,3}}|&{_ADDRESS}")


@st.composite
def damaged(draw):
    """Take a good pattern and put one or two pieces of the grammar where they may not belong."""
    text = draw(st.sampled_from([row[0] for row in MATCHES]))
    for _ in range(draw(st.integers(0, 2))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 2)))
        text = text[:start] + draw(st.sampled_from(["", ".", "..", "[", "]", ";", "/", "&", "0", "7", "255"])) + text[end:]
    return text


def fault_of(text):
    try:
        parse_pattern(text)
    except PatternError as fault:
        return fault
    return None


@given(damaged() | st.text("0127[];./&x ", max_size=20) | st.text(max_size=8))
@settings(deadline=None, max_examples=300)
def test_any_text_is_read_or_refused_at_a_place_inside_it(text):
    fault = fault_of(text)
    if fault is None:
        assert SYNTAX.fullmatch(text)
        assert max(map(int, re.findall("[0-9]+", text))) <= 255
    else:
        assert 0 <= fault.position <= len(text)
        assert str(fault).startswith(f"{text!r}, character {fault.position + 1}: ")
