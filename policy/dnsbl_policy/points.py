"""Points as people write them, kept as integer hundredths.

Floor 0: standard library only.
"""

from decimal import Decimal, InvalidOperation

LARGEST = 100_000
"""A thousand points: nobody weighs so, and sums stay far from any limit."""

_MOST = LARGEST // 100


def hundredths(points: float | str) -> int:
    """Turn points into hundredths, exactly. Raises ValueError for more than two decimals or absurd sizes."""
    try:
        # Through str: 4.35 is 4.35 as written, and not the nearest binary fraction.
        exact = Decimal(str(points))
        too_large = not -_MOST <= exact <= _MOST
    except InvalidOperation:
        raise ValueError("expected a number of points such as 4.5") from None
    if too_large:
        raise ValueError(f"expected points between -{_MOST} and {_MOST}")
    # A remainder, for a product is rounded to 28 digits.
    if exact % Decimal("0.01"):
        raise ValueError("expected at most two decimals")
    return int(exact * 100)


def written(value: int, *, sign: bool = False) -> str:
    """Write hundredths as points without needless zeros; with `sign`, a plus before what adds."""
    whole, rest = divmod(abs(value), 100)
    text = f"{whole}.{rest:02d}".rstrip("0").rstrip(".")
    if value < 0:
        return f"-{text}"
    return f"+{text}" if sign else text
