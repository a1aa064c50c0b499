"""E evaluations."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from atlas.analysis.curves import Reached, time_to_level
from atlas.analysis.speedup import ratio_over_seeds, speed_up_split


def a(*values):
    return np.array(values, dtype=float)


def at(*times):
    return [Reached(time, 100.0) for time in times]


def test_split_by_hand():
    fast = a(0, 10, 20), a(0, 100, 200), a(0, 0.2, 0.4)
    slow = a(0, 100, 200), a(0, 400, 800), a(0, 0.1, 0.3)
    split = speed_up_split(fast, slow, 0.2)
    # fast: 10 s, 100 rollouts; slow: half way between its last two, 150 s and 600 rollouts
    assert split.rollouts_ratio == pytest.approx(6)
    assert split.cost_per_rollout_ratio == pytest.approx((150 / 600) / (10 / 100))
    assert split.speed_up == pytest.approx(15)


@given(st.lists(st.tuples(*[st.floats(0.1, 100)] * 4), min_size=2, max_size=8), st.floats(0.05, 1))
def test_split_multiplies_out_to_the_ratio_of_the_times(steps, level):
    fast_s, fast_r, slow_s, slow_r = (np.cumsum(column) for column in zip(*steps, strict=True))
    pass_rate_E = np.linspace(0, 1, len(steps))
    split = speed_up_split((fast_s, fast_r, pass_rate_E), (slow_s, slow_r, pass_rate_E), level)
    assert split.speed_up == split.rollouts_ratio * split.cost_per_rollout_ratio
    times = [time_to_level(seconds_E, pass_rate_E, level).value for seconds_E in (slow_s, fast_s)]
    assert split.speed_up == pytest.approx(times[0] / times[1])


def test_swapping_the_sides_inverts_the_split():
    one, other = (a(1, 10), a(5, 50), a(0, 1)), (a(2, 90), a(4, 70), a(0.1, 0.8))
    there, back = speed_up_split(one, other, 0.5), speed_up_split(other, one, 0.5)
    assert there.speed_up == pytest.approx(1 / back.speed_up)
    assert there.rollouts_ratio == pytest.approx(1 / back.rollouts_ratio)


def test_no_split_without_a_crossing_or_with_a_clock_at_zero():
    curve = a(0, 10), a(0, 100), a(0.1, 0.9)
    no_rollouts = a(0, 10), a(0, 0), a(0.1, 0.9)
    nothing = a(), a(), a()
    assert speed_up_split(curve, curve, 0.5) is not None
    assert speed_up_split(curve, curve, 0.95) is None
    assert speed_up_split(curve, curve, 0.05) is None  # there at the start, in no time
    for other in (no_rollouts, nothing):
        assert speed_up_split(curve, other, 0.5) is None
        assert speed_up_split(other, curve, 0.5) is None


def test_ratio_by_hand():
    ratio = ratio_over_seeds(at(8, 4), at(1, 2))  # 8 and 2: mean 4, one standard error is a factor of 2
    assert ratio.value == pytest.approx(4)
    assert (ratio.low, ratio.high) == pytest.approx((4 / 2**12.7062, 4 * 2**12.7062), rel=1e-4)
    assert (ratio.level, ratio.seeds, ratio.unreached) == (0.95, 2, 0)


def test_ratio_agrees_with_scipys_t_test_on_logarithms():
    rng = np.random.default_rng(0)
    slow, fast = rng.lognormal(2, 0.5, 6), rng.lognormal(1, 0.5, 6)
    ratio = ratio_over_seeds(at(*slow), at(*fast), level=0.99)
    test = stats.ttest_rel(np.log(slow), np.log(fast))
    expected = test.confidence_interval(0.99)
    assert ratio.value == pytest.approx(stats.gmean(slow / fast))
    assert (ratio.low, ratio.high) == pytest.approx((math.exp(expected.low), math.exp(expected.high)))


def test_ratio_covers_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(2000):
        slow, fast = 20 * rng.lognormal(0, 0.4, 3), 5 * rng.lognormal(0, 0.2, 3)
        ratio = ratio_over_seeds(at(*slow), at(*fast))
        covered += ratio.low <= 4 <= ratio.high
    assert covered / 2000 == pytest.approx(0.95, abs=0.015)


def test_swapping_the_sides_inverts_the_ratio():
    there, back = ratio_over_seeds(at(8, 4, 9), at(1, 2, 5)), ratio_over_seeds(at(1, 2, 5), at(8, 4, 9))
    assert (there.low, there.value, there.high) == pytest.approx((1 / back.high, 1 / back.value, 1 / back.low))


def test_one_seed_has_a_ratio_and_no_interval():
    ratio = ratio_over_seeds(at(6), at(2))
    assert ratio.value == pytest.approx(3) and math.isnan(ratio.low) and math.isnan(ratio.high)


@pytest.mark.parametrize(
    ("slow", "fast", "unreached"),
    [
        (at(6, None), at(2, 3), 1),
        (at(6, 7), at(None, 3), 1),
        (at(None, None), at(None, 3), 2),
        (at(6, 5), at(0, 3), 0),
        (at(0, 5), at(1, 3), 0),
        ([], [], 0),
    ],
)
def test_nothing_is_claimed_when_a_seed_never_got_there_or_took_no_time(slow, fast, unreached):
    ratio = ratio_over_seeds(slow, fast)
    assert math.isnan(ratio.value) and math.isnan(ratio.low) and math.isnan(ratio.high)
    assert (ratio.seeds, ratio.unreached) == (len(slow), unreached)


def test_seeds_that_disagree_wildly_bound_nothing():
    ratio = ratio_over_seeds(at(1, 1000), at(1, 1), level=0.999)
    assert ratio.low == 0 and ratio.high == math.inf


def test_seeds_that_cannot_be_paired_are_a_fault_of_ours():
    with pytest.raises(ValueError, match="zip"):
        ratio_over_seeds(at(1, 2), at(1))
