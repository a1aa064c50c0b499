"""How long a whole job takes: as its own earlier runs did on this machine, or else by estimate."""

import json
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from atlas.datasets.base import Splits
from atlas.job import JobSpec
from atlas.lengths import lengths_of
from atlas.machine import machine_of
from atlas.models import ASSUMED_LENGTHS, Lengths
from atlas.step_time import Machine, StepTime, evaluation_seconds, step_time

if TYPE_CHECKING:
    from atlas.store import RunRecord, Store

_RUNS = 50
"""Newest runs of the store that are looked at."""
_PHASES = ("generate", "teacher", "forward_backward", "optimizer")


@dataclass(frozen=True)
class JobTime:
    """Seconds of a job. `step` and `steps` are None where nothing is trained."""

    step: StepTime | None
    steps: int | None
    training_seconds: float
    """Ended by the budget, if that comes first."""
    evaluation_seconds: float
    """Of all evaluations together."""
    evaluations: int
    at_most: bool
    """Whether completions are taken to be as long as they may be, for want of anything known about them."""
    source: str
    """Where the numbers come from, in words."""

    @property
    def total_seconds(self) -> float:
        return self.training_seconds + self.evaluation_seconds


def job_time(job: JobSpec, splits: Splits | None, home: Path, store: "Store | None") -> JobTime | None:
    """Estimates the job's time on this machine; None when it or a model's size is not known. `splits`: of the job's
    dataset, where they can be read."""
    machine = machine_of(job, home)
    lengths = lengths_of(job, splits) or ASSUMED_LENGTHS
    earlier = _Earlier(job, store)
    run = earlier.alike_here()
    tokens = earlier.completion_tokens()
    step = earlier.step_time(run) if run else step_time(job, machine, lengths, tokens) if machine else None
    if (job.training and step is None) or machine is None:
        return None
    steps = _steps(job, splits)
    if step is not None and steps is None:
        return None
    training_seconds = _training_seconds(job, step, steps)
    measured = _evaluations(job, steps, training_seconds, machine, lengths, tokens)
    if measured is None:
        return None
    source = f"steps as {run.id} took them on this machine" if run else f"by estimate, for {machine.name}"
    if not run and job.sampling and job.sampling.engine == "vllm":
        source += " (as Atlas writes rollouts, not vLLM)"
    unknown = tokens is None and run is None and (job.sampling is not None or job.training is None)
    return JobTime(step, steps, training_seconds, *measured, unknown, source)


class _Earlier:
    """What earlier runs in the store say about a job."""

    def __init__(self, job: JobSpec, store: "Store | None") -> None:
        self.job, self.store = job, store

    def alike_here(self) -> "RunRecord | None":
        """The newest run whose steps do the same work, on this machine."""
        if self.store is None or self.job.training is None:
            return None
        return next(
            (run for run, job in self._runs() if _same_work(job, self.job) and _was_here(run) and self.step_time(run)),
            None,
        )

    def completion_tokens(self) -> float | None:
        """The mean length of rollouts in the newest run of this name, or of the same work, that has any."""
        if self.store is None:
            return None
        for run, job in self._runs():
            if run.name == self.job.name or _same_work(job, self.job):
                lengths = self._means(run, "train/completions/mean_length")
                if lengths is not None:
                    return lengths
        return None

    def step_time(self, run: "RunRecord") -> StepTime | None:
        """Of the run's steps after its first, for the rows of the job's; None if it has none."""
        assert self.store is not None and self.job.training is not None
        before = JobSpec.model_validate_json(self.store.spec(run.id)).training
        seconds = {phase: self._means(run, f"phase/{phase}_seconds") for phase in _PHASES}
        if before is None or seconds["forward_backward"] is None:
            return None
        share = self.job.training.batch_size / before.batch_size
        rows = {phase: (found or 0.0) * share for phase, found in seconds.items()}
        return StepTime(**rows | {"optimizer": seconds["optimizer"] or 0.0})

    def _runs(self) -> Iterator[tuple["RunRecord", JobSpec]]:
        assert self.store is not None
        for run in self.store.runs(limit=_RUNS):
            if run.method != self.job.method.type:
                continue
            try:
                yield run, JobSpec.model_validate_json(self.store.spec(run.id))
            except ValidationError:  # of an Atlas that read other specs
                continue

    def _means(self, run: "RunRecord", name: str) -> float | None:
        """Without the first step, which also warms up."""
        assert self.store is not None
        values = [value for step, value in self.store.metrics(run.id, name) if step > 1 and isfinite(value)]
        return sum(values) / len(values) if values else None


def _same_work(before: JobSpec, now: JobSpec) -> bool:
    """Whether a row of a step costs the same in both."""
    parts = ("student", "teacher", "method", "dataset", "sampling", "resources")
    if any(getattr(before, part) != getattr(now, part) for part in parts):
        return False
    if before.training is None or now.training is None:
        return before.training == now.training
    rows = before.training.micro_batch_size, before.training.gradient_checkpointing
    return rows == (now.training.micro_batch_size, now.training.gradient_checkpointing)


def _was_here(run: "RunRecord") -> bool:
    """Whether the run's last attempt was on this machine."""
    try:
        lines = (Path(run.run_dir) / "environment.json").read_text(encoding="utf-8").splitlines()
        return bool(json.loads(lines[-1])["host"] == platform.node())
    except (OSError, ValueError, KeyError, IndexError):
        return False


def _steps(job: JobSpec, splits: Splits | None) -> int | None:
    """Steps at which the job ends, as far as the data is known and time does not end it."""
    if job.training is None:
        return None
    steps = job.training.max_steps
    if steps is None:
        if splits is None or job.training.epochs is None:
            return None
        per_epoch = len(splits.train) // job.method.prompts_per_step(job.training.batch_size)
        steps = max(1, ceil(job.training.epochs * per_epoch))
    if job.budget and job.budget.steps:
        steps = min(steps, job.budget.steps)
    with_rollouts = getattr(job.method, "lmbda", 1.0)  # share of the steps
    if job.budget and job.budget.rollouts and with_rollouts:
        steps = min(steps, ceil(job.budget.rollouts / job.training.batch_size / with_rollouts))
    return steps


def _training_seconds(job: JobSpec, step: StepTime | None, steps: int | None) -> float:
    seconds = step.total * steps if step and steps else 0.0
    if job.budget and job.budget.train_minutes:
        seconds = min(seconds, job.budget.train_minutes * 60)
    if job.budget and job.budget.gpu_hours:
        seconds = min(seconds, job.budget.gpu_hours * 3600)  # a job has one device
    return seconds


def _evaluations(
    job: JobSpec,
    steps: int | None,
    training_seconds: float,
    machine: Machine,
    lengths: Lengths,
    tokens: float | None,
) -> tuple[float, int] | None:
    """Seconds of all evaluations, and how many there are."""
    spec, data = job.evaluation, job.dataset
    chooses = spec.split == "dev"
    problems = data.dev_size if chooses else data.test_size
    problems = min(problems, spec.max_problems or problems)
    times = 1
    if steps is not None:
        times += 1 if spec.every_steps is None else ceil(steps / spec.every_steps)
        times += int(training_seconds / 60 / spec.every_minutes) if spec.every_minutes else 0
    one = evaluation_seconds(job, machine, problems, lengths, tokens)
    test = evaluation_seconds(job, machine, data.test_size if chooses else 0, lengths, tokens)
    if one is None or test is None:
        return None
    seconds, count = times * one + test, times + int(chooses)
    if job.teacher and spec.teacher:
        by_teacher = evaluation_seconds(job, machine, problems, lengths, tokens, by_teacher=True)
        assert by_teacher is not None
        seconds, count = seconds + by_teacher, count + 1
    return seconds, count
