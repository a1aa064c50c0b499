"""The numbers of an arm, out of its runs; and the levels that arms are timed to.

E evaluations, P problems, S seeds.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from atlas.analysis.curves import (
    Reached,
    area_under_curve,
    peak,
    standard_error_of,
    time_to_level,
    time_to_peak,
)
from atlas.analysis.intervals import wilson
from atlas.analysis.seeds import MeanError, Pooled, mean_and_error, pooled
from atlas.comparison.model import ArmResult, FloatArray, RunResult, Target
from atlas.run import CLOCKS

GAVE_UP = frozenset({"failed", "cancelled", "lost"})
"""States of runs that will not get further by themselves and did not get where they should."""
_NEVER = Reached(None, math.nan)


def arm_results(arms: Mapping[str, Sequence[RunResult]]) -> tuple[ArmResult, ...]:
    """One result for each arm, in their order."""
    budget = _common_train_seconds([run for runs in arms.values() for run in runs if run.job.method.trains])
    return tuple(_arm_result(name, sorted(runs, key=lambda run: run.seed), budget) for name, runs in arms.items())


def targets(arms: Sequence[ArmResult], teacher_pass_rate: float | None) -> tuple[Target, ...]:
    """90 % of the teacher, if it was measured, and the weaker peak of each arm and the reference, if it is a climb."""
    found: dict[str, float] = {}
    if teacher_pass_rate is not None and teacher_pass_rate > 0:
        found["90 % of the teacher"] = 0.9 * teacher_pass_rate
    for arm in arms[1:]:
        weak = weaker(arm, arms[0])
        if weak is not None and (weak.first is None or peak_level(weak) > weak.first.pass_rate):
            found[f"{weak.name}'s peak"] = peak_level(weak)
    return tuple(Target(name, level, {arm.name: reached(arm, level) for arm in arms}) for name, level in found.items())


def weaker(one: ArmResult, other: ArmResult) -> ArmResult | None:
    """The arm with the lower mean peak (of equals, `other`); None unless both have one."""
    if one.peak is None or other.peak is None:
        return None
    return one if one.peak.pass_rate < other.peak.pass_rate else other


def peak_level(arm: ArmResult) -> float:
    """The arm's mean peak, less one standard error of an evaluation."""
    assert arm.peak is not None
    return arm.peak.pass_rate - standard_error_of(arm.peak.pass_rate, arm.peak.problems)


def reached(arm: ArmResult, level: float) -> dict[str, tuple[Reached, ...]]:
    """Clock -> when each of the arm's runs reached the level. A run that does not train never does."""
    return _over_clocks(arm.runs, lambda clock_E, rate_E, _: time_to_level(clock_E, rate_E, level))


def counted(runs: Sequence[RunResult]) -> list[RunResult]:
    """The runs that an arm's numbers rest on: `unfailed`, or all if there are no others."""
    return unfailed(runs) or list(runs)


def unfailed(runs: Sequence[RunResult]) -> list[RunResult]:
    """The runs that claims rest on: those that succeeded or go on, and of equal seeds the first that succeeded, since
    repeating a run shows nothing of how runs vary."""
    by_seed: dict[int, RunResult] = {}
    for run in sorted(runs, key=lambda run: run.state != "succeeded"):
        if run.state not in GAVE_UP:
            by_seed.setdefault(run.seed, run)
    return list(by_seed.values())


def on_common_problems(runs: Sequence[RunResult]) -> tuple[tuple[str, ...], FloatArray]:
    """The test problems that all of these runs were scored on, by their order in the first, and correct_SP."""
    scores = [dict(zip(run.test_problems_P, _scored(run), strict=True)) for run in runs]
    if not scores:
        return (), np.empty((0, 0))
    problems_P = tuple(problem for problem in scores[0] if all(problem in score for score in scores))
    correct_SP = np.array([[score[problem] for problem in problems_P] for score in scores], dtype=np.float64)
    return problems_P, correct_SP.reshape(len(scores), len(problems_P))


def curve(run: RunResult, clock: str) -> tuple[FloatArray, FloatArray]:
    """(clock_E, pass_rate_E) at the evaluations that have both."""
    clock_E, pass_rate_E = run.clocks_E[clock], run.pass_rate_E
    there_E = ~np.isnan(clock_E) & ~np.isnan(pass_rate_E)
    return clock_E[there_E], pass_rate_E[there_E]


def _arm_result(name: str, runs: Sequence[RunResult], budget: float) -> ArmResult:
    basis = counted(runs)
    trained = [run for run in basis if run.job.method.trains]
    scored = [run for run in basis if run.test_correct_P is not None]
    _, test_SP = on_common_problems(scored)
    kl = [run.reverse_kl for run in basis if run.reverse_kl is not None]
    return ArmResult(
        name=name,
        runs=tuple(runs),
        first=_pooled(basis, _first),
        peak=_pooled(trained, lambda run: peak(run.pass_rate_E)[0]),
        test=pooled(test_SP) if test_SP.size else None,
        to_peak=_over_clocks(runs, time_to_peak),
        used={clock: mean_and_error(np.array([run.used.get(clock, math.nan) for run in basis])) for clock in CLOCKS},
        area=_mean([area_under_curve(*curve(run, "train_seconds"), budget) for run in trained]),
        reverse_kl=_mean(kl),
    )


def _pooled(runs: Sequence[RunResult], rate: Callable[[RunResult], float]) -> Pooled | None:
    """`seeds.pooled` from the runs' rates alone, over the runs that have one."""
    rates = [(rate(run), run.problems) for run in runs if run.steps_E and run.problems]
    there = [(value, problems) for value, problems in rates if not math.isnan(value)]
    if not there:
        return None
    problems = min(n for _, n in there)
    over_seeds = mean_and_error(np.array([value for value, _ in there]))
    low, high = wilson(over_seeds.mean * problems, problems)
    return Pooled(over_seeds.mean, low, high, over_seeds.standard_error, len(there), problems)


def _first(run: RunResult) -> float:
    return float(run.pass_rate_E[0]) if run.steps_E[0] == 0 else math.nan


def _over_clocks(
    runs: Sequence[RunResult], when: Callable[[FloatArray, FloatArray, int], Reached]
) -> dict[str, tuple[Reached, ...]]:
    return {
        clock: tuple(
            when(*curve(run, clock), run.problems) if run.job.method.trains and run.problems else _NEVER for run in runs
        )
        for clock in CLOCKS
    }


def _mean(values: Sequence[float]) -> MeanError | None:
    result = mean_and_error(np.array(values, dtype=np.float64))
    return result if result.n else None


def _common_train_seconds(runs: Sequence[RunResult]) -> float:
    """How far the evaluations of all runs go that count and have any; NaN if none has."""
    ends = [clock_E[-1] for clock_E, _ in (curve(run, "train_seconds") for run in counted(runs)) if len(clock_E)]
    return float(min(ends, default=math.nan))


def _scored(run: RunResult) -> FloatArray:
    assert run.test_correct_P is not None
    return run.test_correct_P
