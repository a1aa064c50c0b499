"""Whether runs may be compared at all, and what to be careful about when they may."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from atlas.comparison.model import RunResult
from atlas.spec import EvaluationSpec

OF_THE_RUN = {"name", "seed", "tags", "notes", "wandb", "executor"}
"""Fields that change no number but by chance: the runs of one arm may differ in them."""

LabelledRuns = Sequence[tuple[str, RunResult]]
"""Runs with what they are called in messages: `gkd s0`, `teacher baseline`."""

_UNRECORDED = "no splits.json (an older Atlas, or the directory is gone)"

_SCHEDULE = {"every_steps", "every_minutes", "batch_size", "teacher", "max_problems"}
"""Fields of `evaluation` that change when and how fast it is done. How many problems it has is looked at as such."""


def mismatches(runs: LabelledRuns) -> tuple[str, ...]:
    """Everything that the runs were measured with differently, one line each, with who has what."""
    measured = [(label, run) for label, run in runs if run.steps_E or run.test_step is not None or run.splits]
    found = [
        *_differing(measured, "the dev problems differ (sha256)", lambda run: _content(run, "dev")),
        *_differing(measured, "the test problems differ (sha256)", lambda run: _content(run, "test")),
        *_differing(measured, "the number of problems in an evaluation differs", lambda run: run.problems or None),
        *_differing(measured, "the grader differs", lambda run: run.grader or None),
    ]
    for name in sorted(set(EvaluationSpec.model_fields) - _SCHEDULE):
        found += _differing(measured, f"evaluation.{name} differs", _setting(name))
    return (*found, *_unprovable(measured))


def decides_measurement(path: str) -> bool:
    """Whether the field of a job decides which problems are asked or how their answers are taken."""
    section, _, field = path.partition(".")
    if section == "evaluation":
        return field not in _SCHEDULE
    return section == "dataset" and field not in ("train_size", "outcome", "turns")


def cautions(runs: LabelledRuns) -> tuple[str, ...]:
    """What differs around the runs and does not keep them from being compared, and which of them still go on."""
    loaded = [(label, run) for label, run in runs if run.environment]
    found = [
        line
        for package in ("torch", "transformers", "trl")
        for line in _differing(loaded, f"the version of {package} differs", _version_of(package))
    ]
    found += _differing(loaded, "the version of Atlas differs", _atlas_version)
    found += _differing(loaded, "the devices differ", _devices)
    for role in ("student", "teacher"):
        found += _differing(runs, f"the commit of the {role}'s model differs", _revision(role))
    measured = [(label, run) for label, run in runs if run.steps_E]
    unrecorded = [label for label, run in measured if not run.splits]
    if unrecorded and len(unrecorded) < len(measured):
        found.append(
            f"{_UNRECORDED}: {', '.join(unrecorded)}; that they have the same problems and grader is known from the "
            "dataset and evaluation settings only"
        )
    active = [(label, run) for label, run in runs if run.state in ("claimed", "running", "preempted")]
    return (*found, *(f"{label} still runs ({_step(run)})" for label, run in active))


def _devices(run: RunResult) -> str:
    """The names of the GPUs that the run had, or `CPU`."""
    names = [str(gpu.get("name")) for gpu in run.environment.get("gpus", [])]
    return ", ".join(sorted(set(names))) or "CPU"


def _revision(role: str) -> Callable[[RunResult], str | None]:
    """A branch may move on between two runs. Runs of the baselines have the teacher as their student."""
    return lambda run: (run.revisions.get(role) or "")[:12] or None if run.job.method.trains else None


def _unprovable(measured: LabelledRuns) -> list[str]:
    """Without recorded splits, equal dataset settings show that the problems are the same; anything else shows nothing.

    `train_size` only takes away rows to train on.
    """
    unrecorded = [label for label, run in measured if not run.splits]
    datasets = {_key(run.job.dataset.model_dump(mode="json", exclude={"train_size"})) for _, run in measured}
    if not unrecorded or len(datasets) == 1:
        return []
    return [f"{', '.join(unrecorded)}: {_UNRECORDED}, and the dataset settings differ"]


def _content(run: RunResult, split: str) -> str | None:
    """The fingerprint of a split that the run measures; None if it measures nothing there."""
    recorded = run.splits.get(split, {})
    if not recorded.get("examples") or (split == "dev" and run.job.evaluation.split != "dev"):
        return None
    return str(recorded.get("sha256"))[:12]


def _setting(name: str) -> Callable[[RunResult], Any]:
    return lambda run: getattr(run.job.evaluation, name)


def _version_of(package: str) -> Callable[[RunResult], Any]:
    return lambda run: run.environment.get("packages", {}).get(package)


def _atlas_version(run: RunResult) -> str | None:
    """`0.1.0 (c0ffee1)`: between releases only the commit tells."""
    atlas = run.environment.get("atlas")
    if not atlas:
        return None
    commit = atlas.get("commit")
    return f"{atlas.get('version')} ({commit[:7]})" if commit else str(atlas.get("version"))


def _differing(runs: LabelledRuns, what: str, value: Callable[[RunResult], Any]) -> list[str]:
    """One line if the runs that have a value (are not None) have not all the same."""
    holders: dict[str, list[str]] = {}
    for label, run in runs:
        if (found := value(run)) is not None:
            holders.setdefault(_key(found), []).append(label)
    if len(holders) < 2:
        return []
    return [f"{what}: " + "; ".join(f"{shown} in {', '.join(labels)}" for shown, labels in holders.items())]


def _key(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _step(run: RunResult) -> str:
    newest = f"step {run.step}" if run.step is not None else "no step yet"
    return newest if run.planned_steps is None else f"{newest} of {run.planned_steps}"
