"""Two arms, or two runs, measured on the same problems.

P problems, S and T seeds of the two arms, G problems gained, L problems lost.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FEWEST_DISCORDANT = 2
"""No comparison is taken to be steadier than one in which a single problem was gained and a single one lost.

Without it, identical results would have an interval of width zero. With it, the interval is 0 +- 2.8 / P, about the
rule of three: what happened in none of P problems may still happen in up to 3 / P of them (Hanley and Lippman-Hand,
JAMA 1983). The same two problems are what Bonett and Price add to a paired difference (Journal of Educational and
Behavioral Statistics 37, 2012).
"""


@dataclass(frozen=True)
class Paired:
    """Run `after` against run `before`. The arrays are indices of problems."""

    difference: float
    gained_G: NDArray[np.int64]
    lost_L: NDArray[np.int64]
    p_value: float


def mcnemar(before_P: NDArray[np.float64], after_P: NDArray[np.float64]) -> Paired:
    """McNemar's test of two runs on the same problems, exact and two-sided (McNemar 1947; binomial, n = gained + lost).

    It asks whether problems are gained as often as lost. It knows nothing of seeds: a small p-value says that these two
    runs differ, not that their methods do.

    Scores may be fractions, as with several completions for each problem: then gained and lost go by the sign of the
    change, and `p_value` is NaN because the test is defined for right and wrong only. Without discordant problems it is
    1. Without problems `difference` is NaN.
    """
    assert before_P.shape == after_P.shape and before_P.ndim == 1
    assert not np.isnan(before_P).any() and not np.isnan(after_P).any()
    change_P = after_P - before_P
    gained_G = np.flatnonzero(change_P > 0)
    lost_L = np.flatnonzero(change_P < 0)
    difference = float(change_P.mean()) if len(change_P) else math.nan
    fractional = not np.isin([before_P, after_P], (0, 1)).all()
    return Paired(difference, gained_G, lost_L, _p_value(len(gained_G), len(lost_L), fractional))


def _p_value(gained: int, lost: int, fractional: bool) -> float:
    if gained + lost == 0:
        return 1.0
    if fractional:
        return math.nan
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost).pvalue)


@dataclass(frozen=True)
class Difference:
    """A difference of pass rates, and its interval at `level`, within [-1, 1]."""

    value: float
    low: float
    high: float
    level: float
    seeds: int
    """Of the arm that has fewer. With 1 the interval leaves out how the runs of that arm vary with the seed."""
    problems: int


def difference(correct_a_SP: NDArray[np.float64], correct_b_TP: NDArray[np.float64], level: float = 0.95) -> Difference:
    """Pass rate of arm a less that of arm b, for other seeds and other problems. Scores in [0, 1].

    With the pass rate of each seed, and d = mean over a's seeds - mean over b's for each problem:

        variance = s^2(pass rates of a) / S + s^2(pass rates of b) / T + s^2(d) / P

    An arm with one seed has no variance over seeds and its term is left out. The interval is Student's t at the
    degrees of freedom of Satterthwaite (1946) and Welch (1947), cut to [-1, 1].

    It is conservative. Let a score be mean + seed + problem + noise, the noise being what this seed does on this
    problem by luck. The noise is part of both the variance over seeds and the variance over problems, and so is
    counted twice, and a score of right or wrong always has noise. This buys an interval that needs no model.
    s^2(d) is taken to be at least that of FEWEST_DISCORDANT. Fewer than two problems, or no seeds: (-1, 1).
    """
    assert correct_a_SP.shape[1] == correct_b_TP.shape[1]
    assert all(((correct >= 0) & (correct <= 1)).all() for correct in (correct_a_SP, correct_b_TP))  # no NaN either
    problems = correct_a_SP.shape[1]
    seeds = min(len(correct_a_SP), len(correct_b_TP))
    if not seeds or not problems:
        return Difference(math.nan, -1.0, 1.0, level, seeds, problems)
    d_P = correct_a_SP.mean(axis=0) - correct_b_TP.mean(axis=0)
    value = float(d_P.mean())
    if problems == 1:
        return Difference(value, -1.0, 1.0, level, seeds, problems)

    from scipy.stats import t

    squares = max(float(((d_P - value) ** 2).sum()), FEWEST_DISCORDANT)
    terms = [(squares / (problems - 1) / problems, problems - 1)]  # variance, degrees of freedom
    for pass_rates in (correct_a_SP.mean(axis=1), correct_b_TP.mean(axis=1)):
        if (n := len(pass_rates)) > 1:
            terms.append((float(pass_rates.var(ddof=1)) / n, n - 1))
    variance = sum(v for v, _ in terms)
    degrees = variance**2 / sum(v**2 / n for v, n in terms)
    half = float(t.ppf((1 + level) / 2, degrees)) * math.sqrt(variance)
    return Difference(value, max(-1.0, value - half), min(1.0, value + half), level, seeds, problems)
