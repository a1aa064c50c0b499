"""Which of two arms is sooner, and why.

E evaluations.
"""

import math
from collections.abc import Sequence

import numpy as np

from atlas.analysis.curves import Reached
from atlas.analysis.speedup import Ratio, Split, ratio_over_seeds, speed_up_split
from atlas.comparison.arms import peak_level, reached, unfailed, weaker
from atlas.comparison.model import ArmResult, FloatArray, RunResult
from atlas.comparison.wording import counted_noun, device_time, number, percent, seeds_text


class Sooner:
    """Who is sooner: the times to the weaker arm's peak less one standard error, seed by seed."""

    def __init__(self, arm: ArmResult, reference: ArmResult, level: float) -> None:
        self.arm, self.reference, self.level = arm, reference, level
        self.applies = all(any(run.job.method.trains for run in side.runs) for side in (arm, reference))
        self.sooner: str | None = None
        self.ratio: Ratio | None = None
        self.split: Split | None = None
        self.pairs = _pairs(arm.runs, reference.runs)
        self.weak = weaker(arm, reference)
        if self.weak is None or not self.pairs or not self.applies:
            return
        self.target = peak_level(self.weak)
        own, others = self._times(arm, 0), self._times(reference, 1)
        self.own, self.others = own, others
        ratio = ratio_over_seeds(slow=others, fast=own, level=level)
        fast = arm if not ratio.value < 1 else reference
        self.ratio = ratio if fast is arm else ratio_over_seeds(slow=own, fast=others, level=level)
        if not math.isnan(ratio.value):
            self.sooner = fast.name
            self.split = self._split(fast is arm)

    def sentence(self) -> str:
        if self.ratio is None or self.weak is None:
            return self._lacking()
        if self.ratio.unreached:
            return self._unreached()
        weak = self.weak.name
        if self.sooner is None:
            return (
                f"{weak}'s peak is not more than one standard error above where a run started: "
                "there is no climb to be compared in time."
            )
        slow = self.reference.name if self.sooner == self.arm.name else self.arm.name
        ratio = f"{number(self.ratio.value)}x"
        if self.ratio.low <= 1:
            return (
                f"No difference in training time to {weak}'s peak can be claimed between {self.arm.name} and "
                f"{self.reference.name}: {slow} takes {ratio} as long ({self._basis()})."
            )
        whose = (
            f"its own peak {ratio} sooner than {slow} does" if weak == self.sooner else f"{weak}'s peak {ratio} sooner"
        )
        claim = f"{self.sooner} reaches {whose} in training time"
        if math.isnan(self.ratio.low):
            return f"With {self._seeds()} no speed-up can be claimed; in it, {claim}{self._why()}."
        return f"{claim} ({self._basis()}){self._why()}."

    def _basis(self) -> str:
        assert self.ratio is not None
        return (
            f"{percent(self.level)} % interval {_bound(self.ratio.low)} to {_bound(self.ratio.high)}, {self._seeds()}"
        )

    def _seeds(self) -> str:
        return seeds_text([(len(self.pairs), len(side.runs)) for side in (self.arm, self.reference)])

    def _why(self) -> str:
        if self.split is None:
            return ""
        rollouts = _more_or_less(self.split.rollouts_ratio, "fewer rollouts", "more rollouts")
        return f": {rollouts}, {_more_or_less(self.split.cost_per_rollout_ratio, 'cheaper each', 'dearer each')}"

    def _lacking(self) -> str:
        sides = (self.arm, self.reference)
        lacking = [side.name for side in sides if side.peak is None] or [
            side.name for side in sides if not unfailed(side.runs)
        ]
        what = "no evaluation yet" if any(side.peak is None for side in sides) else "no run that did not fail"
        have = "has" if len(lacking) == 1 else "have"
        return f"Nothing can be said about who is sooner: {' and '.join(lacking)} {have} {what}."

    def _unreached(self) -> str:
        assert self.weak is not None and self.ratio is not None
        found = []
        for side, arm, times in ((0, self.arm, self.own), (1, self.reference, self.others)):
            missed = [pair[side] for pair, when in zip(self.pairs, times, strict=True) if when.censored]
            if not missed:
                continue
            active = any(run.state != "succeeded" for run in missed)
            never = "has not reached" if active else "never reaches"
            whose = "its own mean peak" if arm is self.weak else f"{self.weak.name}'s peak"
            seeds = f"in {len(missed)} of {counted_noun(len(self.pairs), 'seed')}"
            gpu_seconds = self._times(arm, side, "gpu_seconds")
            limit = device_time(arm.runs).text(min(when.limit for when in gpu_seconds if when.censored))
            found.append(f"{arm.name} {never} {whose} {'yet ' if active else ''}{seeds} (> {limit})")
        return f"{' and '.join(found)}: no speed-up is claimed."

    def _times(self, arm: ArmResult, side: int, clock: str = "train_seconds") -> list[Reached]:
        times = dict(zip((run.id for run in arm.runs), reached(arm, self.target)[clock], strict=True))
        return [times[pair[side].id] for pair in self.pairs]

    def _split(self, arm_is_fast: bool) -> Split | None:
        assert self.ratio is not None
        splits = []
        for own, other in self.pairs:
            fast, slow = (own, other) if arm_is_fast else (other, own)
            splits.append(speed_up_split(_work(fast), _work(slow), self.target))
        ratios = [split.rollouts_ratio for split in splits if split is not None]
        if len(ratios) < len(splits):
            return None
        rollouts_ratio = float(np.exp(np.log(ratios).mean()))
        return Split(self.ratio.value, rollouts_ratio, self.ratio.value / rollouts_ratio)


def _pairs(own: Sequence[RunResult], others: Sequence[RunResult]) -> list[tuple[RunResult, RunResult]]:
    """The runs of equal seeds that were evaluated; if the arms have no seed in common, those of equal position."""
    ours, theirs = ([run for run in unfailed(runs) if not np.isnan(run.pass_rate_E).all()] for runs in (own, others))
    by_seed = {run.seed: run for run in theirs}
    return [(run, by_seed[run.seed]) for run in ours if run.seed in by_seed] or list(zip(ours, theirs, strict=False))


def _work(run: RunResult) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(seconds_E, rollouts_E, pass_rate_E) at the evaluations that have all three."""
    seconds_E, rollouts_E = run.clocks_E["train_seconds"], run.clocks_E["rollouts"]
    there_E = ~np.isnan(seconds_E) & ~np.isnan(rollouts_E) & ~np.isnan(run.pass_rate_E)
    return seconds_E[there_E], rollouts_E[there_E], run.pass_rate_E[there_E]


def _bound(ratio: float) -> str:
    """Two seeds may leave almost anything possible: then the digits say nothing."""
    return "under 0.01" if ratio < 0.01 else "over 1000" if ratio > 1000 else number(ratio)


def _more_or_less(ratio: float, less: str, more: str) -> str:
    return f"{number(ratio)}x {less}" if ratio >= 1 else f"{number(1 / ratio)}x {more}"
