"""Where the time of an arm went."""

import math
from collections.abc import Mapping

from atlas.comparison.arms import counted
from atlas.comparison.model import ArmResult

OFF_THE_CLOCK = ("evaluate", "checkpoint", "load")
"""Phases that the training clock leaves out."""
_ORDER = ("generate", "teacher", "reward", "forward_backward", "optimizer", "other", "evaluate", "checkpoint")
"""Of a step."""


def phase_means(arm: ArmResult) -> dict[str, float]:
    """Mean seconds by phase over the runs that count, with what the training clock has beyond them as `other`."""
    runs = [run for run in counted(arm.runs) if run.phase_seconds]
    names = dict.fromkeys(name for run in runs for name in run.phase_seconds)
    means = {name: sum(run.phase_seconds.get(name, 0.0) for run in runs) / len(runs) for name in names}
    if not runs:
        return {}
    other = sum(run.used.get("train_seconds", math.nan) for run in runs) / len(runs) - on_the_clock(means)
    return means | ({"other": other} if other > 0 else {})


def on_the_clock(seconds: Mapping[str, float]) -> float:
    """The seconds of the phases that the training clock counts."""
    return sum(spent for name, spent in seconds.items() if name not in OFF_THE_CLOCK)


def in_order(phases: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The phases that took time in any arm: those known here in the order of a step, then the others."""
    spent = {name for seconds in phases.values() for name, value in seconds.items() if value > 0}
    return [*(name for name in _ORDER if name in spent), *sorted(spent.difference(_ORDER))]


def phase_name(phase: str) -> str:
    return phase.replace("forward_backward", "forward and backward").replace("_", " ")
