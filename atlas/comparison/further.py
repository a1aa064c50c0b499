"""Which of two arms gets further: their test scores.

P problems, S and T seeds of the two arms.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from atlas.analysis.paired import Difference, Paired, difference, mcnemar
from atlas.analysis.power import minimum_detectable_difference
from atlas.comparison.arms import on_common_problems, unfailed
from atlas.comparison.model import ArmResult, RunResult
from atlas.comparison.wording import counted_noun, percent, points, seeds_text

_POWER = 0.8


class Further:
    """Who gets further: the test scores of the arm and the reference on the problems that all seeds were scored on."""

    def __init__(self, arm: ArmResult, reference: ArmResult, level: float) -> None:
        self.arm, self.reference, self.level = arm, reference, level
        self.runs, self.reference_runs = _scored(arm), _scored(reference)
        self.difference: Difference | None = None
        self.paired: Paired | None = None
        self.gained_P: tuple[str, ...] = ()
        self.lost_P: tuple[str, ...] = ()
        problems_P, correct = on_common_problems([*self.runs, *self.reference_runs])
        self.discordant_share = 0.0
        if not self.runs or not self.reference_runs or not problems_P:
            return
        arm_SP, reference_TP = correct[: len(self.runs)], correct[len(self.runs) :]
        self.difference = difference(arm_SP, reference_TP, level)
        arm_P, reference_P = arm_SP.mean(axis=0), reference_TP.mean(axis=0)
        self.discordant_share = float(((arm_P - reference_P) ** 2).mean())
        self.gained_P = _named(problems_P, (arm_P > 0.5) & (reference_P < 0.5))
        self.lost_P = _named(problems_P, (arm_P < 0.5) & (reference_P > 0.5))
        if len(arm_SP) == len(reference_TP) == 1:
            self.paired = mcnemar(reference_TP[0], arm_SP[0])

    def sentence(self) -> str:
        arm, reference = self.arm.name, self.reference.name
        if self.difference is None:
            return f"{arm} and {reference} cannot be compared on test: {self._lacking()}."
        value, low, high = self.difference.value, self.difference.low, self.difference.high
        interval = f"{percent(self.level)} % interval {points(low)} to {points(high)}"
        where = "below" if value < 0 else "above"
        if low > 0 or high < 0:
            return (
                f"{arm} ends {points(abs(value))} points {where} {reference} on test ({interval}{self._basis(True)})."
            )
        seen = f"{points(self._detectable())} points could have been seen with {percent(_POWER)} % power"
        return (
            f"No difference on test can be claimed between {arm} and {reference} at n={self.difference.problems}: "
            f"{arm} is {points(abs(value))} points {where} ({interval}{self._basis(with_problems=False)}; {seen})."
        )

    def _lacking(self) -> str:
        lacking = [arm.name for arm, runs in self._sides() if not runs]
        if lacking:
            have = "has" if len(lacking) == 1 else "have"
            return f"{' and '.join(lacking)} {have} no test score yet"
        return "they were scored on different problems"

    def _basis(self, with_problems: bool) -> str:
        """On how much the interval rests. With one seed it leaves out what it does not know, and says so."""
        assert self.difference is not None
        problems = counted_noun(self.difference.problems, "problem")
        seeds = seeds_text([(len(runs), len(arm.runs)) for arm, runs in self._sides()])
        if self.paired is None:
            alone = [arm.name for arm, runs in self._sides() if len(runs) == 1]
            caveat = f"; the one seed of {alone[0]} says nothing about its training's noise" if alone else ""
            return f", {seeds}{f', {problems}' if with_problems else ''}{caveat}"
        gained, lost, p_value = len(self.paired.gained_G), len(self.paired.lost_L), self.paired.p_value
        test = "" if math.isnan(p_value) else f", exact McNemar p = {_p(p_value)}"
        return (
            f" over the {problems} only: {seeds} says nothing about the training's noise; "
            f"{gained} gained, {lost} lost{test}"
        )

    def _detectable(self) -> float:
        """With several seeds the interval knows more than the problems: (z_{1 - alpha / 2} + z_power) standard errors,
        the standard error being the interval's half width over z_{1 - alpha / 2}."""
        assert self.difference is not None
        if self.paired is not None:
            return minimum_detectable_difference(
                self.difference.problems, self.discordant_share, _POWER, 1 - self.level
            )
        normal = NormalDist()
        half = (self.difference.high - self.difference.low) / 2
        return min(1.0, half * (1 + normal.inv_cdf(_POWER) / normal.inv_cdf((1 + self.level) / 2)))

    def _sides(self) -> tuple[tuple[ArmResult, list[RunResult]], ...]:
        return (self.arm, self.runs), (self.reference, self.reference_runs)


def _scored(arm: ArmResult) -> list[RunResult]:
    return [run for run in unfailed(arm.runs) if run.test_correct_P is not None]


def _named(problems_P: Sequence[str], chosen_P: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(problem for problem, chosen in zip(problems_P, chosen_P, strict=True) if chosen)


def _p(p_value: float) -> str:
    return f"{p_value:.2g}" if p_value >= 1e-4 else f"{p_value:.0e}"
