import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas.analysis.intervals import wilson


def test_agrees_with_published_values():
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
    for successes, n, low, high in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)]:
        assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.floats(0, n), st.just(n))))
def test_the_bounds_solve_the_score_equation(case):
    successes, n = case
    for bound in wilson(successes, n):
        gap = abs(successes / n - bound)
        assert gap == pytest.approx(1.959964 * math.sqrt(bound * (1 - bound) / n), abs=1e-6)


@given(st.integers(0, 300), st.integers(1, 300))
def test_holds_the_rate_and_stays_in_the_unit_interval(successes, n):
    successes = min(successes, n)
    low, high = wilson(successes, n)
    assert 0 <= low <= successes / n <= high <= 1


def test_no_observations_say_nothing():
    assert wilson(0, 0) == (0.0, 1.0)
