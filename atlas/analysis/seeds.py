"""Several runs of one arm that differ in their seed.

S seeds, P problems.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atlas.analysis.intervals import wilson


@dataclass(frozen=True)
class Pooled:
    """The pass rate of an arm with two uncertainties that are not to be added: see `pooled`."""

    pass_rate: float
    low: float
    high: float
    standard_error: float
    """Over seeds; NaN with fewer than two."""
    seeds: int
    problems: int


def pooled(correct_SP: NDArray[np.float64]) -> Pooled:
    """Mean of scores in [0, 1] over seeds and problems.

    `low` and `high`: Wilson's 95 % interval with n = P, for other problems of the same kind. The seeds share the
    problems, so they add none: with n = S * P the interval would be too narrow by up to sqrt(S).
    `standard_error`: s / sqrt(S) of the seeds' pass rates, for other seeds on the same problems.
    Without seeds or problems the pass rate is NaN and the interval (0, 1).
    """
    assert not np.isnan(correct_SP).any(), "a score is missing"
    seeds, problems = correct_SP.shape
    if not correct_SP.size:
        return Pooled(math.nan, 0.0, 1.0, math.nan, seeds, problems)
    over_seeds = mean_and_error(correct_SP.mean(axis=1))
    low, high = wilson(float(correct_SP.mean(axis=0).sum()), problems)
    return Pooled(over_seeds.mean, low, high, over_seeds.standard_error, seeds, problems)


@dataclass(frozen=True)
class MeanError:
    """A mean of n values and its standard error: NaN without values, and with fewer than two."""

    mean: float
    standard_error: float
    n: int


def mean_and_error(values_S: NDArray[np.float64]) -> MeanError:
    """Mean and s / sqrt(n), s with n - 1 below. NaN values are left out and not counted in n."""
    valid = values_S[~np.isnan(values_S)]
    n = len(valid)
    mean = float(valid.mean()) if n else math.nan
    error = float(valid.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return MeanError(mean, error, n)
