"""Learning curves: the pass rate at the evaluations of a run, against one of its clocks.

E evaluations in the order of the run, G points of a common grid. An evaluation whose pass rate is NaN is left out.
Clocks never run backwards.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Reached:
    """When a level was reached. Never reached is not missing: it took longer than `limit`."""

    value: float | None
    """The reading of the clock; None if the level was never reached."""
    limit: float
    """The last reading of the clock; NaN without evaluations."""

    @property
    def censored(self) -> bool:
        return self.value is None


def time_to_level(clock_E: FloatArray, pass_rate_E: FloatArray, level: float) -> Reached:
    """When the curve first stands at or above `level`, interpolated linearly from the evaluation before.

    Reached at the first evaluation: the reading there, although it may have been reached earlier. A NaN level is never
    reached.
    """
    clock_E, pass_rate_E = _measured(clock_E, pass_rate_E)
    reached_E = np.flatnonzero(pass_rate_E >= level)
    if not len(reached_E):
        return Reached(None, _last(clock_E))
    i = int(reached_E[0])
    if i == 0:
        return Reached(float(clock_E[0]), _last(clock_E))
    share = (level - pass_rate_E[i - 1]) / (pass_rate_E[i] - pass_rate_E[i - 1])
    return Reached(float(clock_E[i - 1] + share * (clock_E[i] - clock_E[i - 1])), _last(clock_E))


def peak(pass_rate_E: FloatArray) -> tuple[float, int]:
    """The highest pass rate and its index, the earliest of equals; (nan, -1) without any.

    A maximum of noisy numbers leans upwards, the more of them the further.
    """
    if np.isnan(pass_rate_E).all():
        return math.nan, -1
    index = int(np.nanargmax(pass_rate_E))
    return float(pass_rate_E[index]), index


def standard_error_of(pass_rate: float, problems: int) -> float:
    """sqrt(p (1 - p) / n), of the sampling of problems. It is 0 at p = 0 and p = 1; NaN without problems."""
    return math.sqrt(pass_rate * (1 - pass_rate) / problems) if problems else math.nan


def time_to_peak(clock_E: FloatArray, pass_rate_E: FloatArray, problems: int) -> Reached:
    """The first evaluation within one standard error of the peak: at an evaluation, not interpolated.

    The one-standard-error rule of Breiman, Friedman, Olshen and Stone (Classification and Regression Trees, 1984): of
    the evaluations that cannot be told from the best, the cheapest. On a plateau the raw maximum is wherever luck
    struck. It still leans late where evaluations are many, because the peak leans upwards. `problems`: how many each
    evaluation has.
    """
    assert problems > 0
    clock_E, pass_rate_E = _measured(clock_E, pass_rate_E)
    if not len(clock_E):
        return Reached(None, math.nan)
    highest, _ = peak(pass_rate_E)
    within_E = pass_rate_E >= highest - standard_error_of(highest, problems)
    return Reached(float(clock_E[np.argmax(within_E)]), _last(clock_E))


def area_under_curve(clock_E: FloatArray, pass_rate_E: FloatArray, budget: float) -> float:
    """Mean height of the curve from its first reading to `budget`: a pass rate, by trapezoids.

    The curve is cut at the budget, interpolated linearly. Nothing is extrapolated: NaN if the curve starts after the
    budget or ends before it. A curve that starts at the budget has the height of its first point.
    """
    clock_E, pass_rate_E = _measured(clock_E, pass_rate_E)
    if not len(clock_E) or not clock_E[0] <= budget <= clock_E[-1]:
        return math.nan
    if clock_E[0] == budget:
        return float(pass_rate_E[0])
    within_E = clock_E <= budget
    height = np.interp(budget, clock_E, pass_rate_E)
    clock_E, pass_rate_E = np.append(clock_E[within_E], budget), np.append(pass_rate_E[within_E], height)
    area = (np.diff(clock_E) * (pass_rate_E[1:] + pass_rate_E[:-1]) / 2).sum()
    return float(area / (budget - clock_E[0]))


@dataclass(frozen=True)
class Band:
    """Curves of several seeds on a common grid: their mean, and the lowest and highest of them at each point."""

    clock_G: FloatArray
    mean_G: FloatArray
    low_G: FloatArray
    """The lowest seed: not a bound of a confidence interval."""
    high_G: FloatArray
    """The highest seed."""
    seeds: int
    """How many curves have an evaluation, and so are in the band."""


def band(curves: Sequence[tuple[FloatArray, FloatArray]], points: int = 200) -> Band:
    """Mean, minimum and maximum over seeds; each curve is (clock_E, pass_rate_E).

    The grid goes from the latest first reading to the earliest last one, and a curve is linear between its points.
    Every point of the band rests on the same seeds, so that a seed that ends early makes no step in the mean. The band
    is empty if there is no reading that all curves span.
    """
    measured = [
        (clock_E, pass_rate_E) for clock_E, pass_rate_E in (_measured(*curve) for curve in curves) if len(clock_E)
    ]
    start = max((clock_E[0] for clock_E, _ in measured), default=math.inf)
    end = min((clock_E[-1] for clock_E, _ in measured), default=-math.inf)
    if start > end:
        nothing = np.empty(0)
        return Band(nothing, nothing, nothing, nothing, len(measured))
    clock_G = np.linspace(start, end, points)
    pass_rate_SG = np.stack([np.interp(clock_G, *curve) for curve in measured])
    return Band(clock_G, pass_rate_SG.mean(axis=0), pass_rate_SG.min(axis=0), pass_rate_SG.max(axis=0), len(measured))


def _measured(clock_E: FloatArray, pass_rate_E: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Without the evaluations that have no pass rate."""
    assert clock_E.shape == pass_rate_E.shape and clock_E.ndim == 1
    measured_E = ~np.isnan(pass_rate_E)
    clock_E = clock_E[measured_E]
    assert not np.isnan(clock_E).any() and (np.diff(clock_E) >= 0).all(), "a clock ran backwards"
    return clock_E, pass_rate_E[measured_E]


def _last(clock_E: FloatArray) -> float:
    return float(clock_E[-1]) if len(clock_E) else math.nan
