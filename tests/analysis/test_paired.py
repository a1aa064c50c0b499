"""P problems, S and T seeds."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit
from statsmodels.stats import contingency_tables

from atlas.analysis.paired import difference, mcnemar


def pair(gained, lost, both=3, neither=4):
    before = [0] * gained + [1] * lost + [1] * both + [0] * neither
    after = [1] * gained + [0] * lost + [1] * both + [0] * neither
    return np.array(before, dtype=float), np.array(after, dtype=float)


def test_mcnemar_by_hand():
    before_P = np.array([0, 1, 0, 0, 1, 0, 0], dtype=float)
    after_P = np.array([1, 1, 1, 1, 0, 0, 1], dtype=float)
    result = mcnemar(before_P, after_P)
    assert result.gained_G.tolist() == [0, 2, 3, 6] and result.lost_L.tolist() == [4]
    assert result.difference == pytest.approx(3 / 7)
    assert result.p_value == pytest.approx(12 / 32)  # 2 * (1 + 5) of the 2^5 ways


@pytest.mark.parametrize(("gained", "lost"), list(product([0, 1, 5, 12], [0, 1, 8, 12])))
def test_mcnemar_agrees_with_statsmodels(gained, lost):
    result = mcnemar(*pair(gained, lost))
    expected = contingency_tables.mcnemar([[3, gained], [lost, 4]], exact=True).pvalue
    assert result.p_value == pytest.approx(expected)


@pytest.mark.parametrize(("gained", "lost"), [(1, 0), (4, 1), (2, 6), (5, 5)])
def test_mcnemar_counts_every_way_the_signs_could_have_fallen(gained, lost):
    n = gained + lost
    as_extreme = sum(abs(2 * sum(signs) - n) >= abs(gained - lost) for signs in product((0, 1), repeat=n))
    assert mcnemar(*pair(gained, lost)).p_value == pytest.approx(as_extreme / 2**n)


def test_mcnemar_without_discordant_problems_sees_no_difference():
    for scores in ([1.0, 1.0], [0.0, 0.0], [0.5, 1.0], []):
        result = mcnemar(np.array(scores), np.array(scores))
        assert result.p_value == 1.0 and not len(result.gained_G) and not len(result.lost_L)
    assert math.isnan(result.difference)


def test_mcnemar_of_fractional_scores_goes_by_the_sign_and_claims_no_p_value():
    result = mcnemar(np.array([0.25, 0.5, 1.0, 0.0]), np.array([0.5, 0.5, 0.75, 1.0]))
    assert result.gained_G.tolist() == [0, 3] and result.lost_L.tolist() == [2]
    assert result.difference == pytest.approx(0.25) and math.isnan(result.p_value)


def test_difference_is_welchs_test_on_seeds_plus_a_paired_test_on_problems():
    rng = np.random.default_rng(0)
    a_SP, b_TP = (rng.random((3, 40)) < 0.7).astype(float), (rng.random((4, 40)) < 0.4).astype(float)
    result = difference(a_SP, b_TP, level=0.9)
    # term by term, with plain loops
    d = [sum(a_SP[:, p]) / 3 - sum(b_TP[:, p]) / 4 for p in range(40)]
    rates_a, rates_b = [sum(row) / 40 for row in a_SP], [sum(row) / 40 for row in b_TP]
    terms = []
    for values in (d, rates_a, rates_b):
        n, mean = len(values), sum(values) / len(values)
        terms.append((sum((v - mean) ** 2 for v in values) / (n - 1) / n, n - 1))
    variance = sum(v for v, _ in terms)
    half = stats.t.isf(0.05, variance**2 / sum(v * v / k for v, k in terms)) * math.sqrt(variance)
    assert result.value == pytest.approx(sum(d) / 40)
    assert (result.low, result.high) == pytest.approx((result.value - half, result.value + half))
    assert (result.level, result.seeds, result.problems) == (0.9, 3, 40)


def test_with_one_seed_it_is_the_paired_t_interval_over_problems():
    rng = np.random.default_rng(1)
    a_P, b_P = (rng.random(50) < 0.6).astype(float), (rng.random(50) < 0.5).astype(float)
    result = difference(a_P[None], b_P[None])
    expected = stats.ttest_rel(a_P, b_P).confidence_interval()
    assert (result.low, result.high) == pytest.approx((expected.low, expected.high))
    assert result.seeds == 1


def test_when_problems_hardly_vary_it_is_welchs_interval_over_seeds():
    # every problem of a seed has the same score, so only the seeds vary
    rates_a, rates_b = np.array([0.3, 0.5, 0.55, 0.4]), np.array([0.1, 0.12, 0.3])
    result = difference(np.repeat(rates_a[:, None], 5000, axis=1), np.repeat(rates_b[:, None], 5000, axis=1))
    expected = stats.ttest_ind(rates_a, rates_b, equal_var=False).confidence_interval()
    assert (result.low, result.high) == pytest.approx((expected.low, expected.high), abs=1e-3)


def test_the_arm_with_one_seed_sets_the_seeds():
    result = difference(np.eye(4)[:3], np.zeros((1, 4)))
    assert result.seeds == 1 and result.value == pytest.approx(0.25)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_swapping_the_arms_turns_the_interval_round(seeds_a, seeds_b, problems, seed):
    rng = np.random.default_rng(seed)
    a_SP, b_TP = rng.integers(0, 2, (seeds_a, problems)) * 1.0, rng.integers(0, 2, (seeds_b, problems)) * 1.0
    there, back = difference(a_SP, b_TP), difference(b_TP, a_SP)
    assert (there.low, there.value, there.high) == pytest.approx((-back.high, -back.value, -back.low))
    assert -1 <= there.low < there.high <= 1 and there.low <= there.value <= there.high


def coverage(seeds_a, seeds_b, problems, seed_sd, experiments=1000):
    """Share of simulated experiments whose interval holds the truth; logits of seed, problem and their interaction."""
    rng = np.random.default_rng(3)
    seed_noise, problem_noise = rng.normal(0, seed_sd, 200_000), rng.normal(0, 1.5, 200_000)
    effect_noise = rng.normal(0.4, 0.5, 200_000)
    truth = (expit(problem_noise + seed_noise + effect_noise) - expit(problem_noise + seed_noise)).mean()
    covered = 0
    for _ in range(experiments):
        problem_P, effect_P = rng.normal(0, 1.5, problems), rng.normal(0.4, 0.5, problems)
        a_SP = rng.random((seeds_a, problems)) < expit(problem_P + effect_P + rng.normal(0, seed_sd, (seeds_a, 1)))
        b_TP = rng.random((seeds_b, problems)) < expit(problem_P + rng.normal(0, seed_sd, (seeds_b, 1)))
        result = difference(a_SP.astype(float), b_TP.astype(float))
        covered += result.low <= truth <= result.high
    return covered / experiments


@pytest.mark.parametrize(
    ("seeds_a", "seeds_b", "problems", "seed_sd"),
    [(3, 3, 100, 0.0), (3, 3, 100, 0.2), (3, 3, 100, 0.6), (5, 3, 40, 0.3), (2, 2, 100, 0.2), (1, 1, 100, 0.0)],
)
def test_the_interval_covers_at_least_what_it_says(seeds_a, seeds_b, problems, seed_sd):
    assert coverage(seeds_a, seeds_b, problems, seed_sd) >= 0.937  # 0.95 less two errors of 1000 experiments


def test_one_seed_does_not_cover_the_noise_of_seeds():
    assert coverage(1, 1, 200, 0.6) < 0.8


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_identical_results_have_an_interval_near_the_rule_of_three(score):
    result = difference(np.full((1, 200), score), np.full((1, 200), score))
    assert result.value == 0
    assert result.high == -result.low == pytest.approx(3 / 200, rel=0.1)
    same_in_each_seed = difference(np.full((3, 200), score), np.full((2, 200), score))
    assert same_in_each_seed.high == pytest.approx(result.high)


def test_one_discordant_problem_is_never_narrower_than_none():
    before_P, after_P = pair(1, 0, both=100, neither=99)
    some, none = difference(after_P[None], before_P[None]), difference(before_P[None], before_P[None])
    assert some.high - some.low >= none.high - none.low


def test_a_rare_gain_is_covered_when_nothing_was_seen():
    rng = np.random.default_rng(4)
    share = 2.5 / 200
    covered = 0
    for gained in rng.binomial(200, share, 1000):
        a_P = np.zeros(200)
        a_P[:gained] = 1
        result = difference(a_P[None], np.zeros((1, 200)))
        covered += result.low <= share <= result.high
    assert covered / 1000 >= 0.95


@pytest.mark.parametrize(("shape", "value"), [((2, 1), 1.0), ((2, 0), math.nan), ((0, 3), math.nan)])
def test_too_little_to_say_anything(shape, value):
    result = difference(np.ones(shape), np.zeros(shape))
    assert result.value == pytest.approx(value, nan_ok=True) and (result.low, result.high) == (-1.0, 1.0)


def test_two_problems_stay_within_the_possible():
    result = difference(np.array([[1.0, 0.0]]), np.array([[0.0, 0.0]]))
    assert (result.low, result.high) == (-1.0, 1.0)


@pytest.mark.parametrize("b_TP", [np.zeros((1, 3)), np.full((1, 2), math.nan), np.full((1, 2), 1.5)])
def test_other_problems_and_impossible_scores_are_faults_of_ours(b_TP):
    with pytest.raises(AssertionError):
        difference(np.zeros((1, 2)), b_TP)
