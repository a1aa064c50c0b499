"""Commands that start and stop runs: submit, up, cancel, resume, rerun."""

import json
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atlas.cli.options import POLL_SECONDS, Json, Overrides, RunOrExperiment, RunReference, RunsOrExperiments, SpecPaths
from atlas.errors import StoreError, UsageError

if TYPE_CHECKING:
    from atlas.experiment import Experiment
    from atlas.job import JobSpec
    from atlas.source import Source
    from atlas.store import RunRecord, Store
    from atlas.submission import Submission

Detach = Annotated[
    bool, typer.Option("--detach", help="Return once the job is started (or queued) instead of following.")
]


def submit(
    specs: SpecPaths,
    overrides: Overrides = None,
    force: Annotated[bool, typer.Option("--force", help="Run again although nothing changed.")] = False,
    detach: Detach = False,
    print_command: Annotated[
        bool, typer.Option("--print-command", help="Print what the executor would run for each run, and stop.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check jobs and experiments, queue their runs, and follow them to their end. Ctrl-C detaches; the runs go on."""
    from atlas.cli.stores import open_store
    from atlas.experiment import Experiment, checked
    from atlas.source import read
    from atlas.submission import submit as queue_job
    from atlas.submission import submit_experiment

    sources = [read(spec, overrides or []) for spec in specs]
    loaded = [checked(source) for source in sources]  # all of them before any is queued
    if print_command:
        for source, job in zip(sources, loaded, strict=True):
            _print_commands(job, source)
        return
    store = open_store()
    run_ids: list[str] = []
    experiments: list[str] = []
    for spec, source, job in zip(specs, sources, loaded, strict=True):
        if isinstance(job, Experiment):
            record, submissions = submit_experiment(store, job, force)
            experiments.append(record.id)
            again = "" if force else _started_again(store, submissions)
            typer.echo(f"{spec}: experiment {record.id}{again}", err=True)
        else:
            submissions = [queue_job(store, job, source, force)]
        for submission in submissions:
            _say_what_became_of(submission, spec)
            run_ids.append(submission.run_id)
    _run_to_the_end(store, run_ids, detach, as_json, experiments)


def _print_commands(job: "Experiment | JobSpec", source: "Source") -> None:
    """The command line of each run, with GPU indices and a run directory as they could be; no secret is in it."""
    from atlas.experiment import Experiment
    from atlas.job import JobSpec
    from atlas.store import home_from_environment
    from atlas.submission import frozen

    planned = [*job.baselines.values(), *job.runs] if isinstance(job, Experiment) else []
    runs = [(job, source)] if isinstance(job, JobSpec) else [(run.job, run.source) for run in planned]
    jobs = frozen([job for job, _ in runs], home_from_environment())
    for each, (_, file) in zip(jobs, runs, strict=True):
        run_dir = home_from_environment() / "runs" / f"{each.name}-000000"
        document = {"job": each.model_dump(mode="json"), "spec_file": file.file}
        gpus, cpus = range(each.resources.gpus or 0), range(each.resources.cpus or 0)
        typer.echo(shlex.join(each.executor.command(run_dir, document, gpus, cpus)))


def _started_again(store: "Store", submissions: "Sequence[Submission]") -> str:
    """Says how many of the runs queued now are equal to runs of an experiment that `atlas resume` would continue."""
    from atlas.cli.experiments import memberships
    from atlas.store import RESUMABLE

    experiments: list[str] = []
    for submission in submissions:
        if submission.earlier_state is None:
            equal = store.runs_of_digest(store.run(submission.run_id).digest)
            stopped = [run.id for run in equal if run.state in RESUMABLE]
            experiments += [record.id for run_id in stopped for record, *_ in memberships(store, run_id)][:1]
    if not experiments:
        return ""
    commands = " and ".join(f"`atlas resume {experiment}`" for experiment in dict.fromkeys(experiments))
    runs = "1 run" if len(experiments) == 1 else f"{len(experiments)} runs"
    return f"; starts {runs} from scratch that failed, were cancelled or lost: {commands} would continue them instead"


def _say_what_became_of(submission: "Submission", spec: str) -> None:
    run_id, earlier = submission.run_id, submission.earlier_state
    if earlier is None:
        typer.echo(f"{spec}: queued as {run_id}", err=True)
    elif earlier == "succeeded":
        typer.echo(f"{spec}: nothing changed since {run_id} succeeded; --force to run again", err=True)
    else:
        typer.echo(f"{spec}: already {earlier} as {run_id}", err=True)


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


def cancel(references: RunsOrExperiments) -> None:
    """Stop runs, or all runs of an experiment: a running one writes a checkpoint first, then stops."""
    from atlas.cli.experiments import named, runs_of
    from atlas.cli.stores import settled_store
    from atlas.scheduler import settle
    from atlas.store import AT_REST

    store = settled_store()
    runs = [run for reference in references for run in runs_of(store, named(store, reference))]
    asked: list[str] = []
    for run in runs:  # all are asked before any stops and makes room for the next
        if run.state in AT_REST:
            typer.echo(f"{run.id} is {run.state} already; there is nothing to stop")
            continue
        try:
            store.request_cancel(run.id)
        except StoreError as ended_since:
            typer.echo(str(ended_since))
        else:
            asked.append(run.id)
    settle(store)  # passes the requests on at once
    for run_id in asked:
        state = store.run(run_id).state
        typer.echo(f"{run_id}: {state if state in AT_REST else 'stopping after a checkpoint'}")


def resume(reference: RunOrExperiment, detach: Detach = False, as_json: Json = False) -> None:
    """Continue a run (or all of an experiment) that failed or was cancelled, from its last complete checkpoint."""
    from atlas.cli.experiments import named, runs_of
    from atlas.cli.stores import settled_store
    from atlas.store import AT_REST, RESUMABLE, ExperimentRecord

    store = settled_store()
    meant = named(store, reference)
    experiments = [meant.id] if isinstance(meant, ExperimentRecord) else []
    runs = runs_of(store, meant)
    resumed = [run for run in runs if run.state in RESUMABLE or not experiments]
    if not resumed:
        raise UsageError(f"no run of {reference} failed, was cancelled or lost: there is nothing to resume")
    for run in resumed:
        if not (Path(run.run_dir) / "spec.json").exists():
            raise UsageError(f"{run.run_dir} is gone or empty; put it back, or start over with `atlas rerun {run.id}`")
    for run in resumed:
        store.resume(run.id)
    unfinished = [run.id for run in runs if store.run(run.id).state not in AT_REST]
    _run_to_the_end(store, unfinished, detach, as_json, experiments)


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


def _run_to_the_end(
    store: "Store", run_ids: list[str], detach: bool, as_json: bool, experiments: Sequence[str] = ()
) -> None:
    """Starts what fits, follows, prints what the runs (or the experiments that they are of) reached, and exits with the
    worst run's code."""
    from atlas.cli.follow import follow, how_to_come_back
    from atlas.cli.tables import exit_code, print_comparison, run_document
    from atlas.scheduler import tick

    tick(store)
    if not detach:
        follow(store, run_ids, advance=lambda: tick(store), quiet=as_json)
    runs = [store.run(run_id) for run_id in run_ids]
    if as_json:
        typer.echo(json.dumps([run_document(store, run) for run in runs], indent=2))
    elif not detach:
        print_comparison(store, runs, experiments)
        for experiment in experiments:
            typer.echo(_next_step(experiment, runs), err=True)
    else:
        typer.echo(how_to_come_back(runs), err=True)
    if not detach:
        raise typer.Exit(max(exit_code(run) for run in runs))


def _next_step(experiment: str, runs: "Sequence[RunRecord]") -> str:
    from atlas.store import RESUMABLE

    if any(run.state in RESUMABLE for run in runs):
        return f"`atlas resume {experiment}` continues the runs that did not succeed, from their last checkpoints"
    return f"`atlas report {experiment}` writes it down; `atlas compare {experiment}` shows it again"
