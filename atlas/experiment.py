"""An experiment: one job in several variants (arms) and with several seeds, that differ in nothing else."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from atlas.diagnosis import did_you_mean, validate
from atlas.differences import between
from atlas.errors import Problem, SpecError
from atlas.fields import walk
from atlas.job import JobSpec, check
from atlas.job import checked as checked_job
from atlas.source import Source, read, with_values
from atlas.spec import SPEC_VERSION, BudgetSpec, Spec
from atlas.tree import Node, describe
from atlas.variants import arm_tree, baseline_tree, named, teachers_of, unless_said

COMPARED = ("method", "teacher", "training")
"""The sections in which the arms of a controlled comparison may differ."""

_ARM_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,29}")
Seed = Annotated[int, Field(ge=0, le=4294967295)]


class ExperimentSpec(Spec):
    """A controlled comparison: the runs of its arms differ only in method, teacher, training and seed."""

    version: int = Field(SPEC_VERSION, ge=1)
    """Version of this file format."""
    kind: Literal["experiment"]
    """What the file describes."""
    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9._-]{0,49}$",
        json_schema_extra={
            "patternErrorMessage": "only a-z 0-9 - _ . (at most 50) and it must start with a letter or digit"
        },
    )
    """Name of the experiment: a-z 0-9 - _ . only. Its runs are called `<name>-<arm>-s<seed>`."""
    base: dict[str, Any]
    """The job that all arms start from: the path of a job file, or the job itself (which may `extends:` one)."""
    arms: dict[str, dict[str, Any] | None] = Field(min_length=1)
    """Name of an arm (a-z 0-9 _) -> what differs from the base, merged as `extends` merges. The others are compared
    with the first."""
    seeds: list[Seed] = Field(min_length=1)
    """Each arm runs once with each."""
    budget: BudgetSpec | None = None
    """What each run may use; instead of the job's own `budget`."""
    baselines: list[Literal["student", "teacher"]] | None = None
    """Models that are measured as they are, on the same problems. Default: the student, and the teacher if there is
    one. The teacher's measurement replaces `evaluation.teacher` of the arms."""
    allow_differences: list[str] = Field(default_factory=list)
    """Fields or sections outside method, teacher and training that arms may differ in: `sampling.temperature`."""

    @field_validator("arms")
    @classmethod
    def _named(cls, arms: dict[str, Any]) -> dict[str, Any]:
        for name in arms:
            if not _ARM_NAME.fullmatch(name):
                raise ValueError(f"the name of an arm is made of a-z 0-9 _ (at most 30), got {name!r}")
        return arms

    @field_validator("seeds", "baselines")
    @classmethod
    def _unique(cls, values: list[Any] | None) -> list[Any] | None:
        if values is not None and len(set(values)) < len(values):
            raise ValueError(f"the same one twice: {values}; each counts once")
        return values

    @field_validator("allow_differences")
    @classmethod
    def _known(cls, paths: list[str]) -> list[str]:
        known = list(dict.fromkeys(field.path for field in walk(JobSpec)))
        for path in paths:
            if path not in known:
                guess = did_you_mean(path, known)
                raise ValueError(f"no field of a job: {path!r}" + (f"; did you mean {guess!r}?" if guess else ""))
        return paths


@dataclass(frozen=True)
class PlannedRun:
    """One run of an experiment. `source` knows where each of its values was written."""

    arm: str
    seed: int
    job: JobSpec
    source: Source


@dataclass(frozen=True)
class Experiment:
    """What an experiment file comes to."""

    spec: ExperimentSpec
    source: Source
    runs: tuple[PlannedRun, ...]
    """Seed by seed, so that the arms can be compared as soon as the first seed is through."""
    baselines: Mapping[str, PlannedRun]
    """`student`, `teacher`; `teacher-<arm>` where an arm has another teacher than the first."""
    differences: Mapping[str, Mapping[str, Any]]
    """Path of every field in which the arms differ -> arm -> value."""


def load_checked(path: Path | str, overrides: Sequence[str] = ()) -> JobSpec | Experiment:
    """The job or the experiment of a YAML file (`-`: standard input), with `a.b=c` overrides, if it can run here.

    Raises SpecError with every problem, with file, line and column; UsageError if the file cannot be read.
    """
    return checked(read(path, overrides))


def checked(source: Source) -> JobSpec | Experiment:
    """`load_checked` of a file that was read."""
    if not is_experiment(source):
        return checked_job(source)
    experiment = expand(source)
    check_runs(experiment)
    return experiment


def is_experiment(source: Source) -> bool:
    """Whether the file says `kind: experiment`. Raises SpecError if it says neither that nor `job`, so that the one
    mistake is told and not everything that the other kind lacks."""
    keys = source.root.children
    if "kind" in keys and keys["kind"].value not in ("job", "experiment"):
        message = f"expected one of: job, experiment, got {describe(keys['kind'])}"
        raise SpecError([source.problem(message, ("kind",))])
    if "kind" not in keys and ("base" in keys or "arms" in keys):
        message = "required key is missing; write `kind: experiment` for a file with base and arms"
        raise SpecError([source.problem(message, ("kind",))])
    return "kind" in keys and keys["kind"].value == "experiment"


def expand(source: Source) -> Experiment:
    """The runs of an experiment file. Raises SpecError with every problem of every run, and if the comparison is not a
    controlled one. Looks at no model and no data: `check_runs` does."""
    spec = validate(source, ExperimentSpec)
    trees = {arm: arm_tree(source, arm) for arm in spec.arms}
    teachers = teachers_of(trees)
    _require_teacher(source, spec, teachers)
    reference = next(iter(trees.values()))
    wanted = spec.baselines if spec.baselines is not None else _default_baselines(reference, teachers)
    if "teacher" in wanted:
        trees = {arm: unless_said(tree, "evaluation", "teacher", False) for arm, tree in trees.items()}
    planned = {
        (arm, seed): _job_source(source, tree, f"{spec.name}-{arm}-s{seed}", seed)
        for seed in spec.seeds
        for arm, tree in trees.items()
    }
    measured = {
        role: _job_source(
            source, baseline_tree(source, reference, teacher), f"{spec.name}-baseline-{role}", spec.seeds[0]
        )
        for role, teacher in {"student": None, **teachers}.items()
        if role.split("-")[0] in wanted
    }
    jobs = _each({key: partial(validate, it, JobSpec) for key, it in planned.items()}, len(trees))
    baselines = _each(
        {(f"baseline {role}", 0): partial(validate, it, JobSpec) for role, it in measured.items()}, len(measured)
    )
    first = spec.seeds[0]
    differences = between({arm: jobs[arm, first] for arm in trees})
    differences.pop("name", None)
    _require_control(source, spec, {arm: jobs[arm, first] for arm in trees}, differences)
    return Experiment(
        spec,
        source,
        tuple(PlannedRun(*key, jobs[key], planned[key]) for key in planned),
        {role: PlannedRun(role, first, baselines[f"baseline {role}", 0], it) for role, it in measured.items()},
        differences,
    )


def check_runs(experiment: Experiment) -> None:
    """Raises SpecError with everything that would keep a run from running on this machine. Seeds change nothing."""
    first = experiment.spec.seeds[0]
    checks = {(run.arm, 0): partial(check, run.job, run.source) for run in experiment.runs if run.seed == first}
    for role, run in experiment.baselines.items():
        checks[f"baseline {role}", 0] = partial(check, run.job, run.source)
    _each(checks, len(checks))


def _each(calls: Mapping[tuple[str, int], Callable[[], Any]], groups: int) -> dict[tuple[str, int], Any]:
    """All results. Raises SpecError with all problems; one that not every arm has is said to be the arm's."""
    results: dict[tuple[str, int], Any] = {}
    found: dict[Problem, list[str]] = {}
    for key, call in calls.items():
        try:
            results[key] = call()
        except SpecError as error:
            for problem in error.problems:
                found.setdefault(problem, []).append(key[0])
    if not found:
        return results
    problems = []
    for problem, names in found.items():
        arms = list(dict.fromkeys(names))
        whose = "" if len(arms) == groups else f"in {' and '.join(arms)}: "
        problems.append(replace(problem, message=whose + problem.message))
    raise SpecError(problems)


def _require_teacher(source: Source, spec: ExperimentSpec, teachers: Mapping[str, Node]) -> None:
    if spec.baselines and "teacher" in spec.baselines and not teachers:
        message = "no arm has a teacher that could be measured; remove it, or add a teacher to the base"
        raise SpecError([source.problem(message, ("baselines",))])


def _default_baselines(reference: Node, teachers: Mapping[str, Node]) -> list[str]:
    student = reference.children.get("student")
    scratch = student is not None and isinstance(student.value, dict) and student.children.get("from_scratch")
    return [*([] if scratch and scratch.value else ["student"]), *(["teacher"] if teachers else [])]


def _job_source(source: Source, tree: Node, name: str, seed: int) -> Source:
    return Source(with_values(tree, named(source, name, seed)), source.file, source.text)


def _require_control(
    source: Source, spec: ExperimentSpec, jobs: Mapping[str, JobSpec], differences: Mapping[str, Mapping[str, Any]]
) -> None:
    """Raises SpecError if the arms differ in what would make their results incomparable."""
    problems = []
    for path, values in differences.items():
        section = path.split(".")[0]
        if section in COMPARED or any(f"{path}.".startswith(f"{allowed}.") for allowed in spec.allow_differences):
            continue
        if section == "sampling" and not _differs_where_there_is_one(jobs, values):
            continue
        told = ", ".join(f"{arm} {value!r}" for arm, value in values.items())
        message = f"the arms differ in it ({told}), so they would not compare the methods; make it equal, or allow it"
        place = _place_of(source, values, path)
        problems.append(source.problem(f"{message} with allow_differences: [{path}]", place))
    if problems:
        raise SpecError(problems)


def _place_of(source: Source, arms: Iterable[str], path: str) -> tuple[str, ...]:
    """Where an arm says something of its own about this field, in the experiment file."""
    keys = tuple(path.split("."))

    def depth(arm: str) -> int:
        return sum(source.find(("arms", arm, *keys[:end]))[0] is not None for end in range(1, len(keys) + 1))

    return ("arms", max(arms, key=depth), *keys)


def _differs_where_there_is_one(jobs: Mapping[str, JobSpec], values: Mapping[str, Any]) -> bool:
    sampling = [value for arm, value in values.items() if jobs[arm].sampling is not None]
    return any(value != sampling[0] for value in sampling)
