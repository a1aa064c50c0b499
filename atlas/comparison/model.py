"""What is known of runs that are compared.

E evaluations, P problems, S seeds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlas.analysis.curves import Reached
from atlas.analysis.paired import Difference, Paired
from atlas.analysis.seeds import MeanError, Pooled
from atlas.analysis.speedup import Ratio, Split
from atlas.job import JobSpec
from atlas.store.experiments import ExperimentRecord

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class RunResult:
    """One run. Arrays over E are by step, at the evaluations of `evaluation.split`; NaN pass rates are kept."""

    id: str
    arm: str
    seed: int
    state: str
    """One of `atlas.store.STATES`."""
    failure: str
    """Why it did not succeed; empty if it did, or has not ended."""
    job: JobSpec
    planned_steps: int | None
    steps_E: tuple[int, ...]
    pass_rate_E: FloatArray
    problems: int
    """How many problems each of these evaluations has."""
    clocks_E: Mapping[str, FloatArray]
    """Each of `atlas.run.CLOCKS` at the evaluations."""
    test_step: int | None
    """The step whose checkpoint was chosen on dev and scored on test; None before that."""
    test_problems_P: tuple[str, ...]
    test_correct_P: FloatArray | None
    """Mean over the completions of each problem, in the order of `test_problems_P`."""
    used: Mapping[str, float]
    """The clocks at the newest line: what the whole run took."""
    phase_seconds: Mapping[str, float]
    """`generate`, `teacher`, `forward_backward`, ... -> seconds over the whole run."""
    reverse_kl: float | None
    """`train/reverse_kl` at the newest step that has it: nats per token, to the teacher."""
    splits: Mapping[str, Mapping[str, Any]]
    """`splits` of splits.json; empty if the data was never loaded."""
    grader: Mapping[str, Any]
    """`grader` of splits.json."""
    environment: Mapping[str, Any]
    """The newest line of environment.json."""
    git: Mapping[str, Any]
    """`git` of spec.json: commit, dirty."""
    revisions: Mapping[str, str | None] = field(default_factory=dict)
    """`student`, `teacher` -> the commit that a hub model was loaded at; empty before the run has ended."""
    teacher_pass_rate: float | None = None
    """Of the teacher on `evaluation.split`, if the run measured it."""
    step: int | None = None
    """The newest step with a metric."""


@dataclass(frozen=True)
class ArmResult:
    """The seeds of one arm. Numbers are over the seeds that have them, less those that failed or were cancelled (unless
    all were), with one run for each seed; None if none has."""

    name: str
    runs: tuple[RunResult, ...]
    """By seed; runs that failed or go on are among them."""
    first: Pooled | None
    """Step 0 on the measured split."""
    peak: Pooled | None
    """Mean over seeds of each seed's peak on the measured split: a maximum of noisy numbers, so it leans upwards."""
    test: Pooled | None
    """On test, at the checkpoint chosen on dev: the headline. (With `split: test`: the last evaluation.)"""
    to_peak: Mapping[str, tuple[Reached, ...]]
    """Clock -> time to peak of each of `runs` (`curves.time_to_peak`)."""
    used: Mapping[str, MeanError]
    """Clock -> what a run took, over seeds."""
    area: MeanError | None
    """Mean pass rate on the measured split up to the training time that all compared runs have."""
    reverse_kl: MeanError | None


@dataclass(frozen=True)
class Target:
    """A level of the pass rate on the measured split, and when each arm got there."""

    name: str
    """`90 % of the teacher`, `grpo's peak`."""
    level: float
    """Of a peak: less one standard error, so that luck in one evaluation does not put it out of reach."""
    reached: Mapping[str, Mapping[str, tuple[Reached, ...]]]
    """Arm -> clock -> each of its `runs`."""


@dataclass(frozen=True)
class Verdict:
    """One arm against the reference."""

    arm: str
    reference: str
    sentences: tuple[str, ...]
    """What may be said, with its uncertainty: first who gets further, then who is sooner."""
    difference: Difference | None
    """Test pass rate, arm minus reference."""
    paired: Paired | None
    """With one seed on each side: McNemar, reference before, arm after."""
    gained_P: tuple[str, ...]
    """Test problems that most seeds of the arm solve and most of the reference's do not."""
    lost_P: tuple[str, ...]
    sooner: str | None
    """The arm that reaches the weaker one's peak first; None if that cannot be said."""
    speed_up: Ratio | None
    """Training time of the slower one over that of `sooner`."""
    split: Split | None
    """At the same level: geometric means over seeds, so that the parts multiply to `speed_up`."""


@dataclass(frozen=True)
class Comparison:
    """Everything that the table, the report and the dashboard show."""

    title: str
    experiment: ExperimentRecord | None
    """None when single runs were named."""
    arms: tuple[ArmResult, ...]
    """The first is the reference."""
    baselines: Mapping[str, RunResult]
    """`student`, `teacher`."""
    differences: Mapping[str, Mapping[str, Any]]
    """Path -> arm -> value, of every field in which the arms differ."""
    level: float
    """Of every interval in `verdicts`: 0.95, or more when there are several (Bonferroni)."""
    targets: tuple[Target, ...]
    verdicts: tuple[Verdict, ...]
    missing: tuple[str, ...] = ()
    """What is not there yet, or failed, one line each."""
    notes: tuple[str, ...] = ()
    """Cautions: runs that go on, versions and machines that differ."""
    mismatches: tuple[str, ...] = ()
    """Why the runs must not be compared; not empty only when that was forced."""
