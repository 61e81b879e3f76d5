"""Points as people write them, kept as integer hundredths.

Floor 0: standard library only.
"""

from decimal import Decimal, InvalidOperation

LARGEST = 100_000
"""A thousand points: nobody weighs so, and sums stay far from any limit."""


def hundredths(points: float | str) -> int:
    """Turn points into hundredths, exactly. Raises ValueError for more than two decimals or absurd sizes."""
    try:
        # Through str: 4.35 is 4.35 as written, and not the nearest binary fraction.
        scaled = Decimal(str(points)) * 100
        if scaled != scaled.to_integral_value():
            raise ValueError("expected at most two decimals")
    except InvalidOperation:
        raise ValueError("expected a number of points such as 4.5") from None
    if abs(scaled) > LARGEST:
        raise ValueError(f"expected points between -{LARGEST // 100} and {LARGEST // 100}")
    return int(scaled)


def written(value: int, *, sign: bool = False) -> str:
    """Write hundredths as points without needless zeros; with `sign`, a plus before what adds."""
    whole, rest = divmod(abs(value), 100)
    text = f"{whole}.{rest:02d}".rstrip("0").rstrip(".")
    if value < 0:
        return f"-{text}"
    return f"+{text}" if sign else text
