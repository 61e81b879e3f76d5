"""The pattern language for return codes.

Floor 0: standard library only. Knows text and integers.

Three forms, the smallest grammar that says what lists need:

    127.0.0.[4..7]   an address with `[n;m;a..b]` in any octet, as Postfix writes it
    127.0.0.0/28     a network
    &0.0.0.8         these bits are all set, for lists that answer a bit mask
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from dnsbl_policy.answers import is_operator_error

_NUMBER = re.compile(r"\d+")


class PatternError(ValueError):
    """A pattern that cannot be read; the message shows the place."""

    def __init__(self, text: str, position: int, expected: str) -> None:
        super().__init__(f"{text!r}, character {position + 1}: {expected}")
        self.position = position


@dataclass(frozen=True, slots=True)
class Pattern:
    """A set of return codes. Two patterns are equal when they are written alike."""

    text: str
    matches: Callable[[int], bool] = field(repr=False, compare=False)


def parse_pattern(text: str) -> Pattern:
    """Read a pattern.

    Raises `PatternError` for one that cannot be read, and for one that could never match a code that counts.
    """
    if text.startswith("&"):
        return _bits(text)
    if "/" in text:
        return _network(text)
    return _octets(text)


def _bits(text: str) -> Pattern:
    mask, end = _address(text, 1)
    _expect_end(text, end)
    if mask == 0:
        raise PatternError(text, 1, "a bit mask needs at least one bit; leave `match` out for any answer")
    if mask >> 31:
        raise PatternError(text, 1, "has a bit that no return code has: the first octet is always 127")
    if mask >> 8 & 0xFFFF == 0xFFFF:
        raise PatternError(text, 1, "lies in 127.255.255.0/24: an operator's error code never counts")
    return Pattern(text, lambda code: code & mask == mask)


def _network(text: str) -> Pattern:
    network, end = _address(text, 0)
    if text[end : end + 1] != "/":
        raise PatternError(text, end, "expected '/' and a prefix length")
    length, end = _number(text, end + 1, 32, "a prefix length from 0 to 32")
    _expect_end(text, end)
    shift = 32 - length
    if network >> shift << shift != network:
        fitting = IPv4Address(network >> shift << shift)
        raise PatternError(text, 0, f"has bits set beyond /{length}; did you mean {fitting}/{length}?")
    known = min(length, 8)
    if network >> 32 - known != 127 >> 8 - known:
        raise PatternError(text, 0, "lies outside 127.0.0.0/8, where every return code is")
    if length >= 24 and is_operator_error(network):
        raise PatternError(text, 0, "lies in 127.255.255.0/24: an operator's error code never counts")
    wanted = network >> shift
    return Pattern(text, lambda code: code >> shift == wanted)


def _octets(text: str) -> Pattern:
    position = 0
    sets: list[frozenset[int]] = []
    for index in range(4):
        if index:
            if text[position : position + 1] != ".":
                raise PatternError(text, position, "expected '.' and four octets in all")
            position += 1
        octets, position = _octet(text, position)
        sets.append(octets)
    _expect_end(text, position)
    if 127 not in sets[0]:
        raise PatternError(text, 0, "the first octet must allow 127: every return code is in 127.0.0.0/8")
    if sets[1] == sets[2] == {255}:
        raise PatternError(text, 0, "lies in 127.255.255.0/24: an operator's error code never counts")
    first, second, third, fourth = sets
    return Pattern(
        text,
        lambda code: (
            code & 255 in fourth and code >> 8 & 255 in third and code >> 16 & 255 in second and code >> 24 in first
        ),
    )


def _octet(text: str, position: int) -> tuple[frozenset[int], int]:
    if text[position : position + 1] != "[":
        number, position = _number(text, position, 255, "a number from 0 to 255, or a set such as [2;4..7]")
        return frozenset((number,)), position
    octets: set[int] = set()
    position += 1
    while True:
        low, position = _number(text, position, 255, "a number from 0 to 255")
        high = low
        if text.startswith("..", position):
            start = position + 2
            high, position = _number(text, start, 255, "the end of the range, a number from 0 to 255")
            if high < low:
                raise PatternError(text, start, f"the range ends before it starts; did you mean {high}..{low}?")
        octets.update(range(low, high + 1))
        separator = text[position : position + 1]
        position += 1
        if separator == "]":
            return frozenset(octets), position
        if separator != ";":
            raise PatternError(text, position - 1, "expected ';', '..' or ']'")


def _address(text: str, position: int) -> tuple[int, int]:
    address = 0
    for index in range(4):
        if index:
            if text[position : position + 1] != ".":
                raise PatternError(text, position, "expected '.' and four octets in all")
            position += 1
        octet, position = _number(text, position, 255, "a number from 0 to 255")
        address = address << 8 | octet
    return address, position


def _number(text: str, position: int, most: int, expected: str) -> tuple[int, int]:
    # Digits of other scripts are digits to `re` and to int(); a configuration is ASCII here.
    found = _NUMBER.match(text, position)
    if found is None or not found.group().isascii() or len(found.group()) > 3 or int(found.group()) > most:
        raise PatternError(text, position, f"expected {expected}")
    return int(found.group()), found.end()


def _expect_end(text: str, position: int) -> None:
    if position != len(text):
        raise PatternError(text, position, f"nothing may follow here, but {text[position:]!r} does")
