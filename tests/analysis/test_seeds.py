"""S seeds, P problems."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from atlas.analysis.seeds import mean_and_error, pooled


def test_pools_seeds_by_hand():
    correct_SP = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], dtype=float)
    result = pooled(correct_SP)
    assert result.pass_rate == 0.375
    assert result.standard_error == pytest.approx(0.125)  # pass rates 0.5 and 0.25: s = 0.1768, / sqrt(2)
    assert (result.seeds, result.problems) == (2, 4)


def test_the_interval_is_wilsons_over_problems_whatever_the_seeds():
    correct_SP = (np.random.default_rng(0).random((3, 60)) < 0.4).astype(float)
    result = pooled(correct_SP)
    expected = proportion_confint(correct_SP.sum() / 3, 60, method="wilson")
    assert (result.low, result.high) == pytest.approx(expected, abs=1e-6)
    again = pooled(np.repeat(correct_SP, 4, axis=0))  # more seeds of the same add no problems
    assert (again.low, again.high) == pytest.approx((result.low, result.high))


def test_the_interval_covers_the_pass_rate_over_fresh_problems():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(1500):
        solvable_P = rng.beta(1, 1.5, size=80)
        result = pooled((rng.random((3, 80)) < solvable_P).astype(float))
        covered += result.low <= 0.4 <= result.high
    assert covered / 1500 >= 0.95


def test_one_seed_has_no_error_over_seeds():
    result = pooled(np.array([[1.0, 0.0]]))
    assert math.isnan(result.standard_error) and result.pass_rate == 0.5


@pytest.mark.parametrize("score", [0.0, 1.0, 0.1])
def test_equal_scores_keep_their_value_and_an_interval(score):
    result = pooled(np.full((3, 7), score))
    assert result.pass_rate == pytest.approx(score) and result.standard_error == pytest.approx(0)
    assert 0 <= result.low <= score <= result.high <= 1
    assert result.high - result.low > 0.3


@pytest.mark.parametrize("shape", [(2, 0), (0, 5), (0, 0)])
def test_nothing_measured_says_nothing(shape):
    result = pooled(np.empty(shape))
    assert math.isnan(result.pass_rate) and (result.low, result.high) == (0.0, 1.0)
    assert math.isnan(result.standard_error) and (result.seeds, result.problems) == shape


def test_a_missing_score_is_a_fault_of_ours():
    with pytest.raises(AssertionError, match="score is missing"):
        pooled(np.array([[1.0, math.nan]]))


def test_mean_and_error_agree_with_scipy():
    values_S = np.random.default_rng(2).normal(size=9)
    result = mean_and_error(values_S)
    assert result.mean == pytest.approx(values_S.mean())
    assert result.standard_error == pytest.approx(stats.sem(values_S))
    assert result.n == 9


def test_mean_and_error_leave_nan_out():
    result = mean_and_error(np.array([1.0, math.nan, 3.0]))
    assert (result.mean, result.standard_error, result.n) == (2.0, pytest.approx(1.0), 2)


@pytest.mark.parametrize(("values", "n"), [([], 0), ([math.nan], 0), ([5.0, math.nan], 1)])
def test_fewer_than_two_values_have_no_error(values, n):
    result = mean_and_error(np.array(values, dtype=float))
    assert math.isnan(result.standard_error) and result.n == n
    assert result.mean == 5.0 if n else math.isnan(result.mean)
