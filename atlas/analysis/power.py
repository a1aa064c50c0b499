"""What a comparison could have seen."""

import math
from statistics import NormalDist

from atlas.analysis.paired import FEWEST_DISCORDANT


def minimum_detectable_difference(
    problems: int, discordant_share: float, power: float = 0.8, alpha: float = 0.05
) -> float:
    """The smallest true difference of two pass rates on the same problems that a test finds with probability `power`.

        (z_{1 - alpha / 2} + z_power) * sqrt(discordant_share / problems), at most 1

    `discordant_share`: share of the problems that just one of the two runs solves; with fractional scores, the mean
    squared difference. From Connor, Biometrics 43 (1987), whose square root of share - difference^2 is replaced by that
    of the share: a little too large rather than too small. It covers the problems only, not the seeds.

    The share is taken to be at least FEWEST_DISCORDANT / problems: no result can see differences of zero.
    Without problems it is 1.
    """
    assert 0 <= discordant_share <= 1 and problems >= 0
    if problems == 0:
        return 1.0
    share = max(discordant_share, FEWEST_DISCORDANT / problems)
    z = NormalDist().inv_cdf(1 - alpha / 2) + NormalDist().inv_cdf(power)
    return min(1.0, z * math.sqrt(share / problems))
