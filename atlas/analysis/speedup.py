"""How much sooner one arm is than another, and why.

E evaluations.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atlas.analysis.curves import Reached, time_to_level
from atlas.analysis.seeds import mean_and_error

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Split:
    """speed_up = rollouts_ratio * cost_per_rollout_ratio; each is slow over fast."""

    speed_up: float
    rollouts_ratio: float
    """Above 1: the fast one learns more from each rollout."""
    cost_per_rollout_ratio: float
    """Above 1: a rollout of the fast one takes less time."""


def speed_up_split(
    fast: tuple[FloatArray, FloatArray, FloatArray], slow: tuple[FloatArray, FloatArray, FloatArray], level: float
) -> Split | None:
    """Why `fast` reaches `level` sooner. Each curve is (seconds_E, rollouts_E, pass_rate_E).

    Seconds and rollouts are read at the same crossing of the level. None if either never reaches it, or has a clock of
    0 there: what cost nothing has no ratio.
    """
    fast_at, slow_at = _crossing(*fast, level), _crossing(*slow, level)
    if not fast_at or not slow_at:
        return None
    (fast_seconds, fast_rollouts), (slow_seconds, slow_rollouts) = fast_at, slow_at
    rollouts_ratio = slow_rollouts / fast_rollouts
    cost_per_rollout_ratio = (slow_seconds / slow_rollouts) / (fast_seconds / fast_rollouts)
    return Split(rollouts_ratio * cost_per_rollout_ratio, rollouts_ratio, cost_per_rollout_ratio)


@dataclass(frozen=True)
class Ratio:
    """A ratio of times, and its interval at `level`."""

    value: float
    low: float
    high: float
    level: float
    seeds: int
    unreached: int
    """Seeds in which either side never got there."""


def ratio_over_seeds(slow: Sequence[Reached], fast: Sequence[Reached], level: float = 0.95) -> Ratio:
    """Geometric mean of slow / fast, seed by seed, with Student's t interval on the logarithms of the ratios.

    Times are positive and their errors multiply, so the logarithm is the scale on which twice as fast and twice as slow
    weigh the same. The interval speaks for other seeds on the same problems.

    One seed has no interval: `low` and `high` are NaN. If any seed never got there all three are NaN: nothing may be
    claimed from the seeds that happened to. So they are if a time is 0, or without seeds.
    """
    pairs = list(zip(slow, fast, strict=True))
    unreached = sum(a.censored or b.censored for a, b in pairs)
    times = [(a.value, b.value) for a, b in pairs if a.value and b.value]
    if not times or len(times) < len(pairs):
        return Ratio(math.nan, math.nan, math.nan, level, len(pairs), unreached)

    from scipy.stats import t

    logs = mean_and_error(np.log([a / b for a, b in times]))
    half = float(t.ppf((1 + level) / 2, logs.n - 1)) * logs.standard_error  # NaN with one seed
    with np.errstate(over="ignore"):  # two very different seeds at a high level: the upper end is infinite
        value, low, high = np.exp([logs.mean, logs.mean - half, logs.mean + half])
    return Ratio(float(value), float(low), float(high), level, len(pairs), unreached)


def _crossing(
    seconds_E: FloatArray, rollouts_E: FloatArray, pass_rate_E: FloatArray, level: float
) -> tuple[float, float] | None:
    """Seconds and rollouts at the level; None if it was never reached or either is 0."""
    seconds = time_to_level(seconds_E, pass_rate_E, level).value
    rollouts = time_to_level(rollouts_E, pass_rate_E, level).value
    return (seconds, rollouts) if seconds and rollouts else None
