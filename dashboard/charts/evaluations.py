"""The evaluations of runs as the tables of a chart.

E evaluations, G points of a band.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from atlas.analysis.curves import band
from atlas.analysis.intervals import wilson
from atlas.comparison.arms import counted
from atlas.comparison.model import ArmResult, FloatArray, RunResult
from dashboard.clocks import Axis

_DRAWN = 400
"""Evaluations of a run that are drawn, at most."""


def evaluation_points(shown: Sequence[ArmResult], axis: Axis) -> pd.DataFrame:
    """One row for each evaluation that has a pass rate."""
    runs = [(arm, run, _drawn(run, axis)) for arm in shown for run in arm.runs]
    sizes = [len(there_E) for _, _, there_E in runs]

    def of_runs(values: Sequence[Any]) -> Any:
        return np.repeat(np.array(values), sizes)

    def of_evaluations(values: Callable[[RunResult], FloatArray]) -> FloatArray:
        return np.concatenate([np.empty(0), *(values(run)[there_E] for _, run, there_E in runs)])

    rate = of_evaluations(lambda run: run.pass_rate_E)
    problems = of_runs([run.problems for _, run, _ in runs])
    bounds = np.array([wilson(p * n, n) for p, n in zip(rate.tolist(), problems.tolist(), strict=True)]).reshape(-1, 2)
    return pd.DataFrame(
        {
            "arm": of_runs([arm.name for arm, _, _ in runs]),
            "run": of_runs([run.id for _, run, _ in runs]),
            "seed": of_runs([run.seed for _, run, _ in runs]),
            "state": of_runs([run.state for _, run, _ in runs]),
            "step": of_evaluations(lambda run: np.array(run.steps_E, dtype=np.float64)),
            "clock": of_evaluations(lambda run: _readings(run, axis)) / axis.divisor,
            "rate": 100 * rate,
            "low": 100 * bounds[:, 0],
            "high": 100 * bounds[:, 1],
            "alone": of_runs([len(arm.runs) == 1 for arm, _, _ in runs]).astype(bool),
        }
    )


def seed_bands(shown: Sequence[ArmResult], axis: Axis) -> pd.DataFrame:
    """Mean, lowest and highest seed of each arm that has several; failed seeds are left out."""
    frames = []
    for arm in shown:
        curves = []
        for run in counted(arm.runs):
            clock_E = _readings(run, axis)
            there_E = ~np.isnan(clock_E) & ~np.isnan(run.pass_rate_E)
            if there_E.sum() > 1:
                curves.append((clock_E[there_E] / axis.divisor, 100 * run.pass_rate_E[there_E]))
        if len(curves) < 2:
            continue
        over_seeds = band(curves)
        frames.append(
            pd.DataFrame(
                {
                    "arm": arm.name,
                    "seeds": over_seeds.seeds,
                    "clock": over_seeds.clock_G,
                    "rate": over_seeds.mean_G,
                    "low": over_seeds.low_G,
                    "high": over_seeds.high_G,
                }
            )
        )
    columns = ["arm", "seeds", "clock", "rate", "low", "high"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def evaluations_without_a_number(shown: Sequence[ArmResult], axis: Axis) -> pd.DataFrame:
    """Evaluations whose pass rate is no number."""
    rows = [
        (arm.name, run.id, step, reading / axis.divisor)
        for arm in shown
        for run in arm.runs
        for step, reading, rate in zip(run.steps_E, _readings(run, axis), run.pass_rate_E, strict=True)
        if np.isnan(rate) and not np.isnan(reading)
    ]
    return pd.DataFrame(rows[:_DRAWN], columns=["arm", "run", "step", "clock"])


def _drawn(run: RunResult, axis: Axis) -> NDArray[np.intp]:
    """Which evaluations are drawn: those with a clock and a pass rate, thinned where they are very many."""
    there_E = np.flatnonzero(~np.isnan(_readings(run, axis)) & ~np.isnan(run.pass_rate_E))
    if len(there_E) <= _DRAWN:
        return there_E
    return there_E[np.linspace(0, len(there_E) - 1, _DRAWN).astype(int)]


def _readings(run: RunResult, axis: Axis) -> FloatArray:
    return np.array(run.steps_E, dtype=np.float64) if axis.clock == "step" else run.clocks_E[axis.clock]
