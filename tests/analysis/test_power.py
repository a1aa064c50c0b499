import math

import numpy as np
import pytest

from atlas.analysis.paired import mcnemar
from atlas.analysis.power import minimum_detectable_difference


def test_by_hand():
    # (1.9600 + 0.8416) * sqrt(0.2 / 500)
    assert minimum_detectable_difference(500, 0.2) == pytest.approx(0.05603, abs=1e-5)


def test_inverts_connors_sample_size_where_the_difference_is_small():
    # Connor (1987): n = (z_a sqrt(share) + z_b sqrt(share - d^2))^2 / d^2
    d = minimum_detectable_difference(2000, 0.3, power=0.9)
    n = (1.959964 * math.sqrt(0.3) + 1.281552 * math.sqrt(0.3 - d * d)) ** 2 / d**2
    assert n == pytest.approx(2000, rel=0.01) and n <= 2000


def test_mcnemar_finds_that_difference_about_as_often_as_said():
    rng = np.random.default_rng(0)
    problems, share = 500, 0.3
    d = minimum_detectable_difference(problems, share)
    found = 0
    for _ in range(1000):
        kind_P = rng.choice([1, -1, 0], p=[(share + d) / 2, (share - d) / 2, 1 - share], size=problems)
        found += mcnemar((kind_P == -1).astype(float), (kind_P == 1).astype(float)).p_value < 0.05
    assert 0.75 <= found / 1000 <= 0.85  # the exact test is a little weaker than the formula


def test_more_problems_and_less_ambition_see_smaller_differences():
    assert minimum_detectable_difference(400, 0.2) == pytest.approx(minimum_detectable_difference(100, 0.2) / 2)
    assert minimum_detectable_difference(100, 0.2, power=0.5) < minimum_detectable_difference(100, 0.2)
    assert minimum_detectable_difference(100, 0.2, alpha=0.01) > minimum_detectable_difference(100, 0.2)


def test_identical_results_do_not_detect_everything():
    assert minimum_detectable_difference(200, 0.0) == minimum_detectable_difference(200, 2 / 200) > 0.015


@pytest.mark.parametrize("problems", [0, 1, 2])
def test_few_problems_detect_nothing(problems):
    assert minimum_detectable_difference(problems, 1.0) == 1.0
