"""Which runs are compared: from what the user names to a Comparison."""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import ValidationError

from atlas.comparison.arms import GAVE_UP, arm_results, targets, unfailed
from atlas.comparison.comparable import OF_THE_RUN, LabelledRuns, cautions, mismatches
from atlas.comparison.model import Comparison, RunResult
from atlas.comparison.read import read_run
from atlas.comparison.verdict import verdict
from atlas.differences import between
from atlas.errors import NotFoundError, StoreError, UsageError
from atlas.job import JobSpec
from atlas.spec import ModelSpec
from atlas.store import ExperimentRecord, RunRecord, Store, experiments

_LEVEL = 0.95


@dataclass
class _Chosen:
    """What was named, by arm."""

    title: str
    experiment: ExperimentRecord | None = None
    arms: dict[str, list[RunResult]] = field(default_factory=dict)
    baselines: dict[str, RunResult] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)


def collect(store: Store, references: Sequence[str], force: bool = False) -> Comparison:
    """Compares an experiment (its id or name, alone), or runs (ids, beginnings of ids, names).

    Runs that are named singly are seeds of one arm if their jobs are equal but for name, seed, tags, notes, W&B and
    executor. Raises NotFoundError for a reference that is neither, and UsageError with every mismatch if the runs were
    not measured in the same way; with `force` those go to `Comparison.mismatches`.
    """
    chosen = _chosen(store, references)
    runs = _labelled(chosen)
    unequal = mismatches(runs)
    if unequal and not force:
        raise UsageError(
            "these runs were not measured in the same way, so their numbers cannot be compared:\n"
            + "".join(f"  {line}\n" for line in unequal)
            + "compare runs of the same dataset and evaluation, or see these side by side with --force"
        )
    arms = arm_results(chosen.arms)
    level = 1 - (1 - _LEVEL) / max(1, len(arms) - 1)
    return Comparison(
        title=chosen.title,
        experiment=chosen.experiment,
        arms=arms,
        baselines=chosen.baselines,
        differences=chosen.experiment.differences if chosen.experiment else _differences(chosen.arms),
        level=level,
        targets=targets(arms, _teacher_pass_rate(chosen)),
        verdicts=tuple(verdict(arm, arms[0], level) for arm in arms[1:]),
        missing=(*chosen.gone, *_missing(runs)),
        notes=(*cautions(runs), *_repeated_seeds(chosen.arms)),
        mismatches=unequal,
    )


def _chosen(store: Store, references: Sequence[str]) -> _Chosen:
    known = store.experiments()
    records = {reference: _experiment(known, reference) for reference in references}
    named = [reference for reference, record in records.items() if record is not None]
    if named and len(references) > 1:
        raise UsageError(
            f"{named[0]} is an experiment and is compared alone, got {len(references)} references; "
            "name runs by their ids to put them side by side"
        )
    if named:
        record = records[named[0]]
        assert record is not None
        return _of_experiment(store, record)
    return _of_runs(store, references)


def _experiment(known: Sequence[ExperimentRecord], reference: str) -> ExperimentRecord | None:
    try:
        return experiments.named(known, reference)
    except NotFoundError:
        return None


def _of_experiment(store: Store, record: ExperimentRecord) -> _Chosen:
    chosen = _Chosen(title=record.name, experiment=record)
    found = {run.id: run for run in store.runs_of(record.run_ids)}
    for member in record.runs:
        arm = chosen.arms.setdefault(member.arm, [])
        run = found.get(member.run_id)
        if run is None:
            chosen.gone.append(f"{member.arm} s{member.seed}: run {member.run_id} is not in the store any more")
        else:
            arm.append(read_run(store, run, _job(store, run), member.arm))
    for role, run_id in record.baselines.items():
        run = found.get(run_id)
        if run is None:
            chosen.gone.append(f"{role} baseline: run {run_id} is not in the store any more")
        else:
            chosen.baselines[role] = read_run(store, run, _job(store, run), role)
    return chosen


def _of_runs(store: Store, references: Sequence[str]) -> _Chosen:
    exact = {run.id: run for run in store.runs_of(references)}
    records = {run.id: run for run in (exact.get(reference) or _run(store, reference) for reference in references)}
    jobs = {run_id: _job(store, run) for run_id, run in records.items()}
    roles = _roles(jobs)
    groups: dict[str, list[str]] = {}
    for run_id, job in jobs.items():
        if run_id not in roles:
            groups.setdefault(_what_is_compared(job), []).append(run_id)
    names = _arm_names([[jobs[run_id] for run_id in group] for group in groups.values()], list(groups.values()))
    chosen = _Chosen(title=", ".join(names))
    for name, group in zip(names, groups.values(), strict=True):
        chosen.arms[name] = [read_run(store, records[run_id], jobs[run_id], name) for run_id in group]
    chosen.baselines = {role: read_run(store, records[run_id], jobs[run_id], role) for run_id, role in roles.items()}
    return chosen


def _run(store: Store, reference: str) -> RunRecord:
    try:
        return store.run(reference)
    except NotFoundError:
        known = [(run.id, run.name) for run in store.runs()] + [(it.id, it.name) for it in store.experiments()]
    begun = [its_id for its_id, _ in known if reference and its_id.startswith(reference)]
    if begun:
        raise NotFoundError(f"{reference!r} could mean {', '.join(begun)}; write more of the id")
    near = difflib.get_close_matches(reference, dict.fromkeys(word for words in known for word in words))
    hint = f"did you mean {' or '.join(near)}?" if near else "`atlas ls` and `atlas ls --experiments` show all"
    raise NotFoundError(f"no run and no experiment {reference!r}; {hint}")


def _job(store: Store, run: RunRecord) -> JobSpec:
    try:
        return JobSpec.model_validate_json(store.spec(run.id))
    except ValidationError as error:
        raise StoreError(
            f"the job of run {run.id} cannot be read by this Atlas, perhaps another version wrote it; leave the run "
            f"out, or use that version: {error}"
        ) from error


def _roles(jobs: Mapping[str, JobSpec]) -> dict[str, str]:
    """Run id -> `student` or `teacher`, of the first `evaluate` run of a model that other runs learn with or from."""
    training = [job for job in jobs.values() if job.method.trains]
    models = {
        "student": {_weights(job.student) for job in training},
        "teacher": {_weights(job.teacher) for job in training if job.teacher},
    }
    roles: dict[str, str] = {}
    for run_id, job in jobs.items():
        for role, weights in models.items():
            if not job.method.trains and _weights(job.student) in weights and role not in roles.values():
                roles.setdefault(run_id, role)
    return roles


def _weights(model: ModelSpec) -> tuple[str | None, ...]:
    return model.model, model.revision, model.gguf_file, model.quantization


def _what_is_compared(job: JobSpec) -> str:
    return json.dumps(job.model_dump(mode="json", exclude=OF_THE_RUN), sort_keys=True)


def _arm_names(groups: Sequence[Sequence[JobSpec]], ids: Sequence[Sequence[str]]) -> list[str]:
    """Of each arm the method; where two share it the job's name without its seed; or else the id of the first run."""
    methods = [group[0].method.type for group in groups]
    jobs = [re.sub(r"-s\d+$", "", group[0].name) for group in groups]
    names = [method if methods.count(method) == 1 else job for method, job in zip(methods, jobs, strict=True)]
    return [name if names.count(name) == 1 else first for name, (first, *_) in zip(names, ids, strict=True)]


def _differences(arms: Mapping[str, Sequence[RunResult]]) -> dict[str, dict[str, Any]]:
    found = between({name: runs[0].job for name, runs in arms.items()})
    return {path: values for path, values in found.items() if path.split(".")[0] not in OF_THE_RUN}


def _labelled(chosen: _Chosen) -> LabelledRuns:
    runs = [(f"{arm} s{run.seed}", run) for arm, members in chosen.arms.items() for run in members]
    return [*runs, *((f"{role} baseline", run) for role, run in chosen.baselines.items())]


def _teacher_pass_rate(chosen: _Chosen) -> float | None:
    """The teacher's on the split that the arms measure, by its baseline or else by the runs that learn from it."""
    runs = [run for members in chosen.arms.values() for run in members]
    baseline = chosen.baselines.get("teacher")
    if baseline is not None and all(run.job.evaluation.split == baseline.job.evaluation.split for run in runs):
        rates = baseline.pass_rate_E
    else:
        rates = np.array([run.teacher_pass_rate for run in runs if run.teacher_pass_rate is not None], dtype=np.float64)
    there = rates[~np.isnan(rates)]
    return float(there[0]) if len(there) else None


def _missing(runs: LabelledRuns) -> list[str]:
    lines = []
    for label, run in runs:
        if run.state in GAVE_UP:
            lines.append(f"{label} {'was lost' if run.state == 'lost' else run.state}: {run.failure or run.id}")
        elif run.state == "queued":
            lines.append(f"{label} is queued")
        if run.test_step is not None and run.test_correct_P is None:
            lines.append(f"{label} was scored on test, but not all of its samples are there: see `atlas show {run.id}`")
    return lines


def _repeated_seeds(arms: Mapping[str, Sequence[RunResult]]) -> list[str]:
    lines = []
    for arm, runs in arms.items():
        counts = {run.seed: run for run in unfailed(runs)}
        again = {run.seed for run in runs if run.state not in GAVE_UP and run is not counts[run.seed]}
        for seed in sorted(again):
            lines.append(
                f"{arm} has seed {seed} more than once: these runs are not independent of each other, so only "
                f"{counts[seed].id} counts"
            )
    return lines
