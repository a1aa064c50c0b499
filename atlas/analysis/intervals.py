"""Confidence intervals."""

import math


def wilson(successes: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval (1927) for a proportion, 95 % by default; (0, 1) without observations.

    `successes` may be fractional, as a sum over problems of a mean over several tries: the variance of such a mean is
    at most that of a single try, so the interval is then too wide rather than too narrow.
    """
    assert 0 <= successes <= n
    if n == 0:
        return 0.0, 1.0
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return max(0.0, min(rate, centre - half)), min(1.0, max(rate, centre + half))
