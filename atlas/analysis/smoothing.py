"""Smoothing of what was recorded, out of means of it: the extremes that a thinned curve keeps would lean outwards.

M means, each over some neighbouring points.
"""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def smoothed(mean_M: FloatArray, count_M: NDArray[np.int64], span: float) -> FloatArray:
    """The exponential moving average over about `span` points (at least 1), as of the last point of each mean.

    Every mean counts as `count` points of its value; the beginning is not drawn to zero (pandas' `ewm(span=span)`).
    With `span` 1 the means themselves. All numbers are finite.
    """
    decay_M = (1 - 2 / (span + 1)) ** count_M
    average = weight = 0.0
    averages = []
    for mean, decay in zip(mean_M.tolist(), decay_M.tolist(), strict=True):
        weight = weight * decay + (1 - decay)
        average += (mean - average) * (1 - decay) / weight
        averages.append(average)
    return np.array(averages, dtype=np.float64)
