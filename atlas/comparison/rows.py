"""The rows of a comparison's tables, as text: one wording for the terminal and the dashboard."""

import math
from collections.abc import Sequence

from atlas.analysis.curves import Reached
from atlas.analysis.seeds import pooled
from atlas.comparison.arms import counted
from atlas.comparison.model import ArmResult, Comparison, RunResult, Target
from atlas.comparison.wording import DeviceTime, count, number, percent_with_interval

COLUMNS = ("arm", "seeds", "step 0", "peak", "test", "to peak", "in all", "rollouts", "tokens", "KL")
"""Of `final_rows`. Pass rates are in %; `to peak` and `in all` are device time."""


def final_rows(comparison: Comparison, unit: DeviceTime) -> list[list[str]]:
    """A row for each arm, then one for each baseline; what was not measured is empty."""
    rows = [_arm_row(arm, unit) for arm in comparison.arms]
    return rows + [_baseline_row(role, run) for role, run in comparison.baselines.items()]


def target_rows(comparison: Comparison, unit: DeviceTime) -> list[list[str]]:
    """A row for each target: its name, its level in %, and the device time in which each arm got there."""
    return [
        [
            target_name(target),
            f"{100 * target.level:.1f}",
            *(time_text(arm, target.reached[arm.name]["gpu_seconds"], unit) for arm in comparison.arms),
        ]
        for target in comparison.targets
    ]


def target_name(target: Target) -> str:
    """`grpo's peak less 1 SE`"""
    return target.name + (" less 1 SE" if target.name.endswith("peak") else "")


def time_text(arm: ArmResult, times: Sequence[Reached], unit: DeviceTime) -> str:
    """Mean over the seeds that count; `> 5.0` with the shortest time that some seed ran without getting there."""
    basis = {run.id for run in counted(arm.runs)}
    measured = [
        when
        for run, when in zip(arm.runs, times, strict=True)
        if run.id in basis and not (when.censored and math.isnan(when.limit))
    ]
    limits = [when.limit for when in measured if when.value is None]
    if limits:
        return f"> {unit.number(min(limits))}"
    reached = [when.value for when in measured if when.value is not None]
    return unit.number(sum(reached) / len(reached)) if reached else ""


def seeds_measured(arm: ArmResult) -> str:
    """`3`, or `2 of 3` while some are missing: the seeds with a test score; before there is one, with an evaluation."""
    basis = counted(arm.runs)
    measured = [run for run in basis if run.test_correct_P is not None] or [run for run in basis if run.steps_E]
    part, whole = len({run.seed for run in measured}), len({run.seed for run in arm.runs})
    return str(whole) if part == whole else f"{part} of {whole}"


def _arm_row(arm: ArmResult, unit: DeviceTime) -> list[str]:
    rates = [
        percent_with_interval(rate.pass_rate, rate.low, rate.high) if rate else "" for rate in (arm.peak, arm.test)
    ]
    work = ["", "", ""]
    if any(run.job.method.trains and run.used for run in arm.runs):
        seconds, rollouts, tokens = (arm.used[clock].mean for clock in ("gpu_seconds", "rollouts", "tokens_generated"))
        work = [unit.number(seconds), count(rollouts), count(tokens)]
    return [
        arm.name,
        seeds_measured(arm),
        f"{100 * arm.first.pass_rate:.1f}" if arm.first else "",
        *rates,
        time_text(arm, arm.to_peak["gpu_seconds"], unit),
        *work,
        number(arm.reverse_kl.mean) if arm.reverse_kl else "",
    ]


def _baseline_row(role: str, run: RunResult) -> list[str]:
    first = f"{100 * run.pass_rate_E[0]:.1f}" if len(run.pass_rate_E) else ""
    test = pooled(run.test_correct_P[None, :]) if run.test_correct_P is not None else None
    shown = percent_with_interval(test.pass_rate, test.low, test.high) if test else ""
    return [f"{role} as is", "", first, "", shown, "", "", "", "", ""]
