"""From a checked job to a queued run: the run directory with everything needed to repeat it."""

import hashlib
import json
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from atlas import __version__
from atlas.datasets import AnyDataset
from atlas.errors import SpecError, UsageError
from atlas.executors.local import cores
from atlas.experiment import Experiment
from atlas.grading import VERSION
from atlas.job import JobSpec
from atlas.models import checkpoint_bytes
from atlas.private import open_private
from atlas.provenance import command_line, gpus, patch, project
from atlas.source import Source
from atlas.spec import is_local
from atlas.store import ExperimentRecord, Membership, RunRecord, Store, enqueue_arguments, experiments


@dataclass(frozen=True)
class Submission:
    """`run_id` was queued now, or is an equal earlier run (`earlier_state` is then its state)."""

    run_id: str
    earlier_state: str | None = None


def submit(store: Store, job: JobSpec, source: Source | None = None, force: bool = False) -> Submission:
    """Queues a job that `check` has accepted. `source` is the file it was read from, for the record.

    Without `force`, a job that is equal to one that is queued, running or succeeded is not queued again.
    Raises SpecError if this machine cannot ever run it, and ExecutorError if nothing can be started where it says.
    """
    (job,) = frozen([job], store.home)
    _check_resources(job)
    _check_disk([job], store.home)
    if not force:
        earlier = equal_run(store, job)
        if earlier is not None:
            return Submission(earlier.id, earlier.state)
    run_id = f"{job.name}-{secrets.token_hex(3)}"
    run_dir = store.home / "runs" / run_id
    try:
        document = _write_run_dir(run_dir, run_id, job, source)
    except OSError as error:
        raise UsageError(f"cannot write {run_dir}: {error}; free some space or set ATLAS_HOME elsewhere") from error
    store.enqueue(**enqueue_arguments(document), run_dir=run_dir)
    return Submission(run_id)


def submit_experiment(
    store: Store, experiment: Experiment, force: bool = False
) -> tuple[ExperimentRecord, list[Submission]]:
    """Queues the runs of an experiment that `check_runs` has accepted, baselines first, and remembers which they are.

    Without `force`, runs that are equal to earlier ones are not queued again; if all are, and the newest experiment of
    this name has the same runs, that one is returned. Raises SpecError if this machine cannot run them all.
    """
    planned, baselines = experiment.runs, experiment.baselines
    runs = [*baselines.values(), *planned]
    jobs = frozen([run.job for run in runs], store.home)  # once, so that all arms see the same
    runs = [replace(run, job=job) for run, job in zip(runs, jobs, strict=True)]
    for run in runs:
        _check_resources(run.job)
    _check_disk([run.job for run in runs if force or equal_run(store, run.job) is None], store.home)
    submitted = {run.job.name: submit(store, run.job, run.source, force) for run in runs}
    found = [submitted[run.job.name] for run in runs]
    order = {arm: position for position, arm in enumerate(experiment.spec.arms)}
    record = _record(
        experiment,
        runs=[
            Membership(arm=run.arm, seed=run.seed, run_id=submitted[run.job.name].run_id)
            for run in sorted(planned, key=lambda run: order[run.arm])
        ],
        baselines={role: submitted[run.job.name].run_id for role, run in baselines.items()},
    )
    for known in store.experiments():
        if known.name == record.name:
            same = (known.runs, known.baselines) == (record.runs, record.baselines)
            if same:
                return known, found
            break
    try:
        experiments.write(store.home, record)
    except OSError as error:
        raise UsageError(f"cannot write the experiment to {store.home}: {error}; free some space") from error
    return record, found


def frozen(jobs: Sequence[JobSpec], home: Path, keep: bool = True) -> list[JobSpec]:
    """The jobs as they are queued: what they read changes no more. Equal datasets are read once. See
    `Dataset.frozen`; raises UsageError if the copy cannot be written."""
    copies: dict[str, AnyDataset] = {}
    keys = [job.dataset.model_dump_json() for job in jobs]
    for key, job in zip(keys, jobs, strict=True):
        if key in copies:
            continue
        try:
            copies[key] = job.dataset.frozen(home, keep)
        except OSError as error:
            raise UsageError(f"cannot copy the data to {home}: {error}; free some space") from error
    return [job.model_copy(update={"dataset": copies[key]}) for key, job in zip(keys, jobs, strict=True)]


def content_digest(job: JobSpec) -> str:
    """The job's digest, the grader's version, and the size and time of every local file it reads: with another grader
    or a changed file it is another job, whose result cannot be compared with the earlier one's."""
    digest = hashlib.sha256(f"{job.digest()} {VERSION}".encode())
    places = [job.student.model, job.teacher.model if job.teacher else None, getattr(job.dataset, "path", None)]
    for place in places:
        if place is None or not is_local(place):
            continue
        for file in sorted(Path(place).rglob("*")) or [Path(place)]:
            if file.is_file():
                status = file.stat()
                digest.update(f"{file} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def equal_run(store: Store, job: JobSpec) -> RunRecord | None:
    """A run of the same job and the same local files that need not be repeated."""
    for run in store.runs_of_digest(content_digest(job)):
        if run.state in ("queued", "claimed", "running", "preempted", "succeeded"):
            return run
    return None


def _check_resources(job: JobSpec) -> None:
    job.executor.check()
    if job.executor.places_itself:
        return
    wanted, there = job.resources.gpus or 0, len(gpus())
    if wanted > there:
        raise SpecError(f"asks for {wanted} GPU, this machine has {there}; leave it out or set 0", "resources.gpus")
    wanted, there = job.resources.cpus or 0, len(cores())
    if wanted > there:
        raise SpecError(
            f"asks for {wanted} CPU cores, {there} can be used here; lower it, or leave it out to use all of them",
            "resources.cpus",
        )


def _check_disk(jobs: Sequence[JobSpec], home: Path) -> None:
    needed_bytes, free_bytes = sum(map(checkpoint_bytes, jobs)), shutil.disk_usage(home).free
    if needed_bytes > free_bytes:
        raise SpecError(
            f"{free_bytes / 1e9:.2f} GB are free at {home}, {needed_bytes / 1e9:.2f} GB are needed for checkpoints; "
            "free some space, set ATLAS_HOME to a larger disk, or lower keep_checkpoints",
            "training.keep_checkpoints",
        )


def _record(experiment: Experiment, runs: list[Membership], baselines: dict[str, str]) -> ExperimentRecord:
    source, spec = experiment.source, experiment.spec
    return ExperimentRecord(
        id=f"{spec.name}-{secrets.token_hex(3)}",
        name=spec.name,
        submitted_at_seconds=time.time(),
        atlas_version=__version__,
        command=shlex.join(command_line(["atlas", *sys.argv[1:]])),
        spec_file=source.file,
        spec_text=source.text,
        git=project(Path(source.file).absolute().parent),
        spec=spec.model_dump(mode="json"),
        differences={path: dict(values) for path, values in experiment.differences.items()},
        runs=runs,
        baselines=baselines,
    )


def _write_run_dir(run_dir: Path, run_id: str, job: JobSpec, source: Source | None) -> dict[str, Any]:
    """Creates the run directory and returns the content of its spec.json."""
    run_dir.mkdir(parents=True, mode=0o700)
    folder = Path(source.file).absolute().parent if source else Path.cwd()
    diff = patch(folder)
    if diff:
        with open_private(run_dir / "project.patch", "w") as file:
            file.write(diff)
    document = {
        "run_id": run_id,
        "digest": content_digest(job),
        "atlas_version": __version__,
        "submitted_at_seconds": time.time(),
        "command": shlex.join(command_line(["atlas", *sys.argv[1:]])),
        "spec_file": source.file if source else None,
        "spec_text": source.text if source else None,
        "git": project(folder),
        "job": job.model_dump(mode="json"),
    }
    with open_private(run_dir / "spec.json", "w") as file:
        json.dump(document, file, indent=2)
    return document
