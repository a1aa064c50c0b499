"""From a checked job to a queued run: the run directory with everything needed to repeat it."""

import hashlib
import json
import secrets
import shlex
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atlas import __version__
from atlas.errors import SpecError, UsageError
from atlas.job import JobSpec
from atlas.models import checkpoint_bytes
from atlas.private import open_private
from atlas.provenance import command_line, gpus, patch, project
from atlas.source import Source
from atlas.spec import is_local
from atlas.store import RunRecord, Store, enqueue_arguments


@dataclass(frozen=True)
class Submission:
    """`run_id` was queued now, or is an equal earlier run (`earlier_state` is then its state)."""

    run_id: str
    earlier_state: str | None = None


def submit(store: Store, job: JobSpec, source: Source | None = None, force: bool = False) -> Submission:
    """Queues a job that `check` has accepted. `source` is the file it was read from, for the record.

    Without `force`, a job that is equal to one that is queued, running or succeeded is not queued again.
    Raises SpecError if this machine cannot ever run it.
    """
    _check_resources(job, store.home)
    digest = content_digest(job)
    if not force:
        earlier = _equal_run(store, digest)
        if earlier is not None:
            return Submission(earlier.id, earlier.state)
    run_id = f"{job.name}-{secrets.token_hex(3)}"
    run_dir = store.home / "runs" / run_id
    try:
        document = _write_run_dir(run_dir, run_id, job, source, digest)
    except OSError as error:
        raise UsageError(f"cannot write {run_dir}: {error}; free some space or set ATLAS_HOME elsewhere") from error
    store.enqueue(**enqueue_arguments(document), run_dir=run_dir)
    return Submission(run_id)


def content_digest(job: JobSpec) -> str:
    """The job's digest, and the size and time of every local file it reads: a changed file is a changed job."""
    digest = hashlib.sha256(job.digest().encode())
    places = [job.student.model, job.teacher.model if job.teacher else None, getattr(job.dataset, "path", None)]
    for place in places:
        if place is None or not is_local(place):
            continue
        for file in sorted(Path(place).rglob("*")) or [Path(place)]:
            if file.is_file():
                status = file.stat()
                digest.update(f"{file} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _equal_run(store: Store, digest: str) -> RunRecord | None:
    for run in store.runs_of_digest(digest):
        if run.state in ("queued", "claimed", "running", "preempted", "succeeded"):
            return run
    return None


def _check_resources(job: JobSpec, home: Path) -> None:
    wanted, there = job.resources.gpus or 0, len(gpus())
    if wanted > there:
        raise SpecError(f"asks for {wanted} GPU, this machine has {there}; leave it out or set 0", "resources.gpus")
    needed_bytes, free_bytes = checkpoint_bytes(job), shutil.disk_usage(home).free
    if needed_bytes > free_bytes:
        raise SpecError(
            f"{free_bytes / 1e9:.2f} GB are free at {home}, {needed_bytes / 1e9:.2f} GB are needed for checkpoints; "
            "free some space, set ATLAS_HOME to a larger disk, or lower keep_checkpoints",
            "training.keep_checkpoints",
        )


def _write_run_dir(run_dir: Path, run_id: str, job: JobSpec, source: Source | None, digest: str) -> dict[str, Any]:
    """Creates the run directory and returns the content of its spec.json."""
    run_dir.mkdir(parents=True, mode=0o700)
    folder = Path(source.file).absolute().parent if source else Path.cwd()
    diff = patch(folder)
    if diff:
        with open_private(run_dir / "project.patch", "w") as file:
            file.write(diff)
    document = {
        "run_id": run_id,
        "digest": digest,
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
