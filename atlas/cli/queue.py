"""Commands that start and stop runs: submit, up, cancel, resume, rerun."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atlas.cli.options import POLL_SECONDS, Json, Overrides, RunReference, RunReferences, SpecPaths
from atlas.errors import UsageError

if TYPE_CHECKING:
    from atlas.store import Store

Detach = Annotated[
    bool, typer.Option("--detach", help="Return once the job is started (or queued) instead of following.")
]


def submit(
    specs: SpecPaths,
    overrides: Overrides = None,
    force: Annotated[bool, typer.Option("--force", help="Run again although nothing changed.")] = False,
    detach: Detach = False,
    as_json: Json = False,
) -> None:
    """Check the jobs, queue them, run them, and follow them to their end. Ctrl-C detaches; the jobs go on."""
    from atlas.cli.stores import open_store
    from atlas.job import checked
    from atlas.source import read
    from atlas.submission import submit as queue_job

    sources = [read(spec, overrides or []) for spec in specs]
    jobs = [checked(source) for source in sources]  # all of them before any is queued
    store = open_store()
    references = []
    for spec, source, job in zip(specs, sources, jobs, strict=True):
        submission = queue_job(store, job, source, force)
        references.append(submission.run_id)
        if submission.earlier_state == "succeeded":
            typer.echo(f"{spec}: nothing changed since {submission.run_id} succeeded; --force to run again", err=True)
        elif submission.earlier_state:
            typer.echo(f"{spec}: already {submission.earlier_state} as {submission.run_id}", err=True)
        else:
            typer.echo(f"{spec}: queued as {submission.run_id}", err=True)
    _run_to_the_end(store, references, detach, as_json)


def up(
    until_empty: Annotated[bool, typer.Option("--until-empty", help="End when the queue is empty.")] = False,
) -> None:
    """Run the queue: start what fits, settle what ended."""
    from atlas.cli.stores import open_store
    from atlas.scheduler import tick

    store = open_store()
    typer.echo(f"running the queue of {store.home}; Ctrl-C ends this runner, the jobs go on", err=True)
    try:
        while tick(store) or not until_empty:
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        typer.echo("the runner ended; jobs that were started go on, queued ones wait for `atlas up`", err=True)


def cancel(references: RunReferences) -> None:
    """Stop runs: a running one writes a checkpoint first, then stops."""
    from atlas.cli.stores import open_store
    from atlas.scheduler import settle
    from atlas.store import AT_REST

    store = open_store()
    for reference in references:
        run = store.run(reference)
        if run.state in AT_REST:
            typer.echo(f"{run.id} is {run.state} already; there is nothing to stop")
            continue
        store.request_cancel(run.id)
        settle(store)  # passes the request on at once
        state = store.run(run.id).state
        typer.echo(f"{run.id}: {'cancelled' if state == 'cancelled' else 'stopping after a checkpoint'}")


def resume(reference: RunReference, detach: Detach = False, as_json: Json = False) -> None:
    """Continue a run that failed, was killed or cancelled, from its last complete checkpoint."""
    from atlas.cli.stores import settled_store

    store = settled_store()
    run = store.run(reference)
    if not (Path(run.run_dir) / "spec.json").exists():
        raise UsageError(f"{run.run_dir} is gone or empty; put it back, or start over with `atlas rerun {run.id}`")
    store.resume(run.id)
    _run_to_the_end(store, [run.id], detach, as_json)


def rerun(reference: RunReference, detach: Detach = False, as_json: Json = False) -> None:
    """Run the same resolved job once more, from the start, as a new run."""
    from atlas.cli.stores import open_store
    from atlas.job import JobSpec
    from atlas.job import check as check_job
    from atlas.submission import submit as queue_job

    store = open_store()
    job = JobSpec.model_validate_json(store.spec(store.run(reference).id))
    check_job(job)
    submission = queue_job(store, job, force=True)
    typer.echo(f"queued as {submission.run_id}", err=True)
    _run_to_the_end(store, [submission.run_id], detach, as_json)


def _run_to_the_end(store: "Store", run_ids: list[str], detach: bool, as_json: bool) -> None:
    """Starts what fits, follows, prints the table, and exits with the worst run's code."""
    from atlas.cli.follow import follow
    from atlas.cli.tables import exit_code, print_comparison, run_document
    from atlas.scheduler import tick

    tick(store)
    if not detach:
        follow(store, run_ids, advance=lambda: tick(store), quiet=as_json)
    runs = [store.run(run_id) for run_id in run_ids]
    if as_json:
        typer.echo(json.dumps([run_document(store, run) for run in runs], indent=2))
    elif not detach:
        print_comparison(store, runs)
    else:
        for run in runs:
            typer.echo(f"{run.id} is {run.state}; `atlas logs -f {run.id}` follows it", err=True)
        if any(run.state == "queued" for run in runs):
            typer.echo("queued runs start when `atlas up` (or another submit) runs the queue", err=True)
    if not detach:
        raise typer.Exit(max(exit_code(run) for run in runs))
