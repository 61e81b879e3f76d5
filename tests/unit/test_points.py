"""Points are kept exactly, and written as people write them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnsbl_policy.points import LARGEST, hundredths, written

HUNDREDTHS = [
    # points, hundredths
    (0, 0),
    (4, 400),
    (4.0, 400),
    (4.5, 450),
    (4.35, 435),
    (0.01, 1),
    (0.29, 29),
    (1.1, 110),
    (-4, -400),
    (-1.15, -115),
    (-0.0, 0),
    (1000, 100_000),
    (-1000, -100_000),
    ("2.50", 250),
    ("2.500", 250),
    ("1e2", 10_000),
    ("-0.07", -7),
]

DECIMALS = "expected at most two decimals"
SIZE = "expected points between -1000 and 1000"
NUMBER = "expected a number of points such as 4.5"

BAD = [
    # points, message
    (0.001, DECIMALS),
    (4.125, DECIMALS),
    (0.1 + 0.2, DECIMALS),
    (1e-30, DECIMALS),
    ("1.0000000000000000000000000000000001", DECIMALS),
    (1000.01, SIZE),
    (-1000.01, SIZE),
    (1e300, SIZE),
    ("1e999999", SIZE),
    ("-1e999999", SIZE),
    (float("inf"), SIZE),
    (float("-inf"), SIZE),
    (float("nan"), NUMBER),
    ("sNaN", NUMBER),
    ("", NUMBER),
    ("four", NUMBER),
    ("4,5", NUMBER),
]

WRITTEN = [
    # hundredths, written, written with its sign
    (0, "0", "+0"),
    (1, "0.01", "+0.01"),
    (10, "0.1", "+0.1"),
    (100, "1", "+1"),
    (150, "1.5", "+1.5"),
    (735, "7.35", "+7.35"),
    (1000, "10", "+10"),
    (10_000, "100", "+100"),
    (10_010, "100.1", "+100.1"),
    (-1, "-0.01", "-0.01"),
    (-50, "-0.5", "-0.5"),
    (-400, "-4", "-4"),
    (-1005, "-10.05", "-10.05"),
]


@pytest.mark.parametrize(("points", "expected"), HUNDREDTHS, ids=[repr(row[0]) for row in HUNDREDTHS])
def test_points_become_exact_hundredths(points, expected):
    assert hundredths(points) == expected


@pytest.mark.parametrize(("points", "message"), BAD, ids=[repr(row[0]) for row in BAD])
def test_bad_points_say_what_is_expected(points, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        hundredths(points)


@pytest.mark.parametrize(("value", "plain", "signed"), WRITTEN)
def test_hundredths_are_written_without_needless_zeros(value, plain, signed):
    assert written(value) == plain
    assert written(value, sign=True) == signed


@given(st.integers(-LARGEST, LARGEST))
@settings(deadline=None)
def test_what_is_written_is_read_back(value):
    assert hundredths(written(value)) == value
    assert hundredths(written(value, sign=True)) == value
    assert hundredths(value / 100) == value
