"""E evaluations, P problems, S seeds."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import expit

from atlas.analysis.curves import (
    Reached,
    area_under_curve,
    band,
    peak,
    standard_error_of,
    time_to_level,
    time_to_peak,
)

NAN = math.nan


def a(*values):
    return np.array(values, dtype=float)


curves = st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1)), min_size=1, max_size=12).map(
    lambda points: (np.sort(a(*[x for x, _ in points])), a(*[y for _, y in points]))
)


def test_a_level_is_reached_between_two_evaluations():
    assert time_to_level(a(0, 10, 20, 30), a(0.1, 0.2, 0.4, 0.8), 0.3) == Reached(pytest.approx(15.0), 30.0)


def test_a_level_reached_exactly_or_at_once():
    assert time_to_level(a(0, 10, 20), a(0.1, 0.2, 0.4), 0.2).value == 10.0
    assert time_to_level(a(5, 10), a(0.5, 0.2), 0.4).value == 5.0
    assert time_to_level(a(7), a(0.5), 0.5) == Reached(7.0, 7.0)


def test_a_level_counts_the_first_time():
    assert time_to_level(a(0, 10, 20, 30), a(0, 0.4, 0.1, 0.9), 0.4).value == 10.0


def test_a_level_never_reached_took_longer_than_the_limit():
    result = time_to_level(a(0, 10), a(0.1, 0.2), 0.3)
    assert result.censored and result == Reached(None, 10.0)
    assert not time_to_level(a(0, 10), a(0.1, 0.2), 0.1).censored
    assert time_to_level(a(0, 10), a(0.1, 0.2), NAN) == Reached(None, 10.0)


@pytest.mark.parametrize("pass_rate", [[], [NAN, NAN]])
def test_without_evaluations_there_is_no_limit_either(pass_rate):
    clock_E = np.arange(len(pass_rate), dtype=float)
    for result in (time_to_level(clock_E, a(*pass_rate), 0.1), time_to_peak(clock_E, a(*pass_rate), 10)):
        assert result.censored and math.isnan(result.limit)


def test_nan_evaluations_are_left_out():
    with_nan = a(0, 5, 10, 20, 30), a(0.1, NAN, 0.2, 0.4, NAN)
    without = a(0, 10, 20), a(0.1, 0.2, 0.4)
    assert time_to_level(*with_nan, 0.3) == time_to_level(*without, 0.3)
    assert time_to_level(*with_nan, 0.9) == Reached(None, 20.0)
    assert time_to_peak(*with_nan, 50) == time_to_peak(*without, 50)
    assert area_under_curve(*with_nan, 20) == area_under_curve(*without, 20)
    assert math.isnan(area_under_curve(*with_nan, 30))


def test_a_clock_that_stood_still_is_no_division_by_zero():
    assert time_to_level(a(0, 10, 10, 20), a(0, 0.1, 0.5, 0.6), 0.3).value == 10.0


@given(curves, st.floats(0, 1))
def test_the_crossing_is_the_first_point_of_the_line_at_the_level(curve, level):
    clock_E, pass_rate_E = curve
    reached = time_to_level(clock_E, pass_rate_E, level)
    assert reached.censored == bool((pass_rate_E < level).all())
    if not reached.censored:
        assert clock_E[0] <= reached.value <= clock_E[-1]
        assert (pass_rate_E[clock_E < reached.value] < level).all()


@given(curves, st.floats(0, 1), st.floats(0, 1))
def test_a_higher_level_is_never_reached_sooner(curve, one, other):
    low, high = time_to_level(*curve, min(one, other)), time_to_level(*curve, max(one, other))
    assert high.censored or low.value <= high.value + 1e-9


def test_clocks_that_run_backwards_are_a_fault_of_ours():
    for f in (time_to_level, time_to_peak, area_under_curve):
        with pytest.raises(AssertionError, match="backwards"):
            f(a(0, 20, 10), a(0.1, 0.2, 0.3), 10)
    with pytest.raises(AssertionError, match="backwards"):
        band([(a(0, 20, 10), a(0.1, 0.2, 0.3))])


def test_the_peak_is_the_earliest_of_equals():
    assert peak(a(0.1, NAN, 0.5, 0.5, 0.2)) == (0.5, 2)
    assert peak(a(0.3)) == (0.3, 0)


@pytest.mark.parametrize("pass_rate_E", [a(), a(NAN, NAN)])
def test_nothing_has_no_peak(pass_rate_E):
    value, index = peak(pass_rate_E)
    assert math.isnan(value) and index == -1


def test_standard_error_is_that_of_repeated_draws():
    rates = np.random.default_rng(0).binomial(200, 0.3, 20_000) / 200
    assert standard_error_of(0.3, 200) == pytest.approx(rates.std(), rel=0.02)
    assert standard_error_of(0.0, 200) == standard_error_of(1.0, 200) == 0
    assert math.isnan(standard_error_of(0.5, 0))


def test_time_to_peak_is_the_first_evaluation_within_one_standard_error():
    # the standard error at 0.5 with 100 problems is 0.05; a reading of the clock, not between two of them
    assert time_to_peak(a(0, 10, 20, 30), a(0.1, 0.44, 0.46, 0.5), 100) == Reached(20.0, 30.0)
    assert time_to_peak(a(0, 10, 20, 30), a(0.1, 0.44, 0.46, 0.5), 10_000) == Reached(30.0, 30.0)
    assert time_to_peak(a(3), a(0.2), 100) == Reached(3.0, 3.0)


@pytest.mark.parametrize("rate", [0.0, 1.0, 0.4])
def test_a_flat_curve_peaks_at_once(rate):
    assert time_to_peak(a(0, 10, 20), a(rate, rate, rate), 100).value == 0.0


def test_time_to_peak_is_steadier_than_the_moment_of_the_maximum():
    # a curve that saturates early; as in a run, every evaluation has the same easy and hard problems
    rng = np.random.default_rng(1)
    clock_E = np.arange(0, 41, dtype=float)
    by_rule, by_maximum = [], []
    for _ in range(300):
        logit_PE = rng.normal(-3, 3, (200, 1)) + 3 * (1 - np.exp(-clock_E / 2))
        pass_rate_E = (rng.random((200, 41)) < expit(logit_PE)).mean(axis=0)
        by_rule.append(time_to_peak(clock_E, pass_rate_E, 200).value)
        by_maximum.append(clock_E[peak(pass_rate_E)[1]])
    assert np.std(by_rule) < 0.65 * np.std(by_maximum)
    assert np.mean(by_rule) < 0.6 * np.mean(by_maximum)


def test_area_by_hand():
    clock_E, pass_rate_E = a(0, 10, 20), a(0, 0.4, 0.8)
    assert area_under_curve(clock_E, pass_rate_E, 20) == pytest.approx(0.4)
    assert area_under_curve(clock_E, pass_rate_E, 10) == pytest.approx(0.2)
    assert area_under_curve(clock_E, pass_rate_E, 15) == pytest.approx(0.3)  # the line from 0 to 0.6
    assert area_under_curve(a(2, 4), a(0.5, 0.5), 3) == pytest.approx(0.5)


@given(curves, st.floats(0.01, 1))
def test_area_is_the_mean_height_of_the_line(curve, share):
    clock_E, pass_rate_E = curve
    clock_E = clock_E + np.arange(len(clock_E))  # no ties, so that the reference can interpolate
    budget = float(clock_E[0] + share * (clock_E[-1] - clock_E[0]))
    mean = area_under_curve(clock_E, pass_rate_E, budget)
    assert pass_rate_E.min() - 1e-9 <= mean <= pass_rate_E.max() + 1e-9
    if len(clock_E) > 1:
        total = quad(np.interp, clock_E[0], budget, args=(clock_E, pass_rate_E), points=clock_E[1:-1], limit=200)[0]
        assert mean == pytest.approx(total / (budget - clock_E[0]), abs=1e-6)


def test_area_with_a_jump_at_the_budget_counts_the_way_there():
    assert area_under_curve(a(0, 10, 10), a(0, 0.4, 0.9), 10) == pytest.approx(0.2)


def test_area_claims_nothing_beyond_the_curve():
    for curve, budget in [((a(), a()), 1), ((a(5), a(0.5)), 6), ((a(0, 5), a(0, 1)), 5.1), ((a(5, 9), a(0, 1)), 4)]:
        assert math.isnan(area_under_curve(*curve, budget))
    assert area_under_curve(a(5), a(0.5), 5) == 0.5
    assert area_under_curve(a(5, 9), a(0.5, 1), 5) == 0.5


def test_band_is_over_the_seeds_that_all_cover_each_point():
    result = band([(a(0, 10, 20), a(0, 0.2, 0.4)), (a(5, 30), a(0.3, 0.8)), (a(), a())], points=4)
    assert result.clock_G.tolist() == [5, 10, 15, 20]
    assert result.low_G == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert result.high_G == pytest.approx([0.3, 0.4, 0.5, 0.6])
    assert result.mean_G == pytest.approx([0.2, 0.3, 0.4, 0.5])
    assert result.seeds == 2


def test_band_of_one_seed_is_its_curve():
    result = band([(a(0, 10), a(0, 1))])
    assert len(result.clock_G) == 200 and result.seeds == 1
    assert result.mean_G == pytest.approx(result.clock_G / 10)
    assert np.array_equal(result.low_G, result.high_G)


@pytest.mark.parametrize("seeds", [[], [(a(), a())], [(a(0, 1), a(0, 0)), (a(2, 3), a(0, 0))]])
def test_band_is_empty_where_the_seeds_share_no_reading(seeds):
    result = band(seeds)
    assert all(not len(array) for array in (result.clock_G, result.mean_G, result.low_G, result.high_G))
