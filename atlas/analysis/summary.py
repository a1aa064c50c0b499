"""One line of the comparison table: where a run started, how far it got, and what that took."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Evaluation:
    """One measurement of the pass rate, with its 95 % interval and the clocks at that moment."""

    step: int
    pass_rate: float
    low: float
    high: float
    train_seconds: float
    gpu_seconds: float
    rollouts: float


@dataclass(frozen=True)
class Summary:
    """The first, the best and the last evaluation of a run. Of equal peaks the earliest counts.

    The peak is the maximum of noisy measurements and so leans upwards; read it with its interval.
    """

    first: Evaluation
    peak: Evaluation
    last: Evaluation


def summarize(evaluations: Sequence[Evaluation]) -> Summary | None:
    """The summary of a run's evaluations in any order; None if there are none. NaN pass rates are left out."""
    valid = sorted((e for e in evaluations if e.pass_rate == e.pass_rate), key=lambda e: e.step)
    if not valid:
        return None
    peak = max(valid, key=lambda e: (e.pass_rate, -e.step))
    return Summary(first=valid[0], peak=peak, last=valid[-1])
