"""Commands that read runs: ls, show, logs, reindex. Each first settles what the run directories hold."""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atlas.cli.options import POLL_SECONDS, Json, RunOrExperiment, RunReference
from atlas.errors import StoreError, UsageError

if TYPE_CHECKING:
    from atlas.store import RunRecord, Store


def list_runs(
    state: Annotated[str | None, typer.Option(help="Only runs in this state.")] = None,
    name: Annotated[str | None, typer.Option(help="Only runs of this job name.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only runs with this tag.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many, newest first.")] = 50,
    experiments: Annotated[bool, typer.Option("--experiments", help="List experiments instead of runs.")] = False,
    as_json: Json = False,
) -> None:
    """List runs, newest first."""
    from atlas.cli.experiments import list_experiments
    from atlas.cli.stores import settled_store
    from atlas.cli.tables import overview_documents
    from atlas.store import STATES

    if state is not None and state not in STATES:
        raise UsageError(f"--state {state!r} is no state of a run; expected one of {', '.join(STATES)}")
    store = settled_store()
    if experiments:
        list_experiments(store, [state, name, tag], limit, as_json)
        return
    runs = store.runs(states=(state,) if state else None, name=name, tag=tag, limit=limit)
    if as_json:
        typer.echo(json.dumps(overview_documents(store, runs), indent=2))
        return
    if not runs:
        typer.echo("no runs; `atlas submit SPEC` starts one", err=True)
        return
    _print_runs(store, runs)


def show(
    reference: RunOrExperiment,
    spec: Annotated[
        bool, typer.Option("--spec", help="Print the resolved job, to be submitted again; of an experiment, its file.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show a run (state, failure, evaluations, newest metrics, events), or the runs of an experiment."""
    from atlas.cli.experiments import memberships, named, show_experiment
    from atlas.cli.stores import settled_store
    from atlas.cli.tables import overview_documents
    from atlas.store import ExperimentRecord

    store = settled_store()
    run = named(store, reference)
    if isinstance(run, ExperimentRecord):
        show_experiment(store, run, spec, as_json)
    elif spec:
        _print_spec(run, as_json)
    elif as_json:
        [document] = overview_documents(store, [run])
        document["events"] = [event.model_dump(mode="json") for event in store.events(run.id)]
        document["spec"] = json.loads(store.spec(run.id))
        document["experiments"] = [
            {"id": record.id, "arm": arm, "seed": seed} for record, arm, seed in memberships(store, run.id)
        ]
        document |= _files_document(Path(run.run_dir))
        typer.echo(json.dumps(document, indent=2))
    else:
        _print_run(store, run)


def logs(
    reference: RunReference,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Lines to begin with.")] = 50,
    as_json: Json = False,
) -> None:
    """Print what the worker wrote to stdout and stderr."""
    from atlas.cli.stores import settled_store
    from atlas.cli.tables import exit_code, printable
    from atlas.scheduler import settle
    from atlas.store import AT_REST
    from atlas.worker import log_tail

    store = settled_store()
    run = store.run(reference)
    log = Path(run.run_dir) / "worker.log"
    position = log.stat().st_size if log.exists() else 0
    tail = log_tail(Path(run.run_dir), lines)
    if as_json:
        typer.echo(json.dumps({"run": run.id, "state": run.state, "lines": tail.splitlines()}, indent=2))
        return
    typer.echo(printable(tail) if tail else f"no output yet ({run.state})")
    while follow and run.state not in AT_REST:
        try:
            time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            return
        settle(store)
        run = store.run(run.id)
        if log.exists():
            with open(log, "rb") as file:
                file.seek(position)
                text = file.read()
            position += len(text)
            typer.echo(printable(text.decode("utf-8", "replace")), nl=False)
    if follow:
        raise typer.Exit(exit_code(run))


def reindex() -> None:
    """Rebuild the database from the run directories."""
    from atlas.store import home_from_environment
    from atlas.store import reindex as rebuild
    from atlas.worker import recorded_handle

    home = home_from_environment()
    typer.echo(f"{rebuild(home, recorded_handle)} runs of {home} are in the database again")


def _print_runs(store: "Store", runs: "list[RunRecord]") -> None:
    from atlas.cli.tables import console_for, rate_with_interval, run_table, steps_done
    from atlas.duration import duration

    table = run_table(runs)
    for column in ("state", "method", "student", "teacher", "step", "pass rate", "age"):
        table.add_column(column, overflow="ellipsis", no_wrap=column not in ("student", "teacher"))
    for run in runs:
        table.add_row(
            run.id,
            run.state,
            run.method,
            Path(run.student).name,
            Path(run.teacher).name if run.teacher else "",
            steps_done(run),
            rate_with_interval(store.latest(run.id)),
            duration(time.time() - run.created_seconds),
        )
    console_for(sys.stdout).print(table)


def _files_document(run_dir: Path) -> dict[str, Any]:
    """`environment` of the newest attempt ({} before the first; null if it cannot be read, which is then said on
    stderr), and the `checkpoints` on disk."""
    from atlas import run_files

    try:
        environment: dict[str, Any] | None = run_files.environment(run_dir)
    except StoreError as error:
        environment = None
        typer.echo(f"warning: {error}", err=True)
    return {
        "environment": environment,
        "checkpoints": [
            {**asdict(files), "complete": files.complete, "path": str(run_dir / "checkpoints" / files.name)}
            for files in run_files.checkpoints(run_dir)
        ],
    }


def _print_spec(run: "RunRecord", as_json: bool) -> None:
    """The resolved job, which can be submitted again: relative paths and --set are part of it."""
    import yaml

    document = json.loads((Path(run.run_dir) / "spec.json").read_text())
    if as_json:
        typer.echo(json.dumps(document, indent=2))
        return
    typer.echo(f"# job as submitted, sha256 {run.spec_digest}, from {document['spec_file'] or 'another run'}")
    typer.echo(f"# by: {document['command']}")
    typer.echo(yaml.safe_dump(document["job"], sort_keys=False, allow_unicode=True), nl=False)


def _print_run(store: "Store", run: "RunRecord") -> None:
    from atlas.cli.experiments import memberships
    from atlas.cli.tables import (
        failure_text,
        printable,
        rate_with_interval,
        steps_done,
        summary_of,
        wandb_text,
    )
    from atlas.comparison.wording import percent_with_interval
    from atlas.duration import duration

    teacher = f" <- {run.teacher}" if run.teacher else ""
    seed = json.loads(store.spec(run.id))["seed"]
    typer.echo(f"{run.id}  {run.state}{printable(failure_text(run))}")
    typer.echo(f"  {run.method} on {run.dataset}, seed {seed}: {run.student}{teacher}")
    for record, arm, _ in memberships(store, run.id):
        typer.echo(f"  experiment {record.id}, {arm}")
    typer.echo(f"  directory  {run.run_dir}")
    typer.echo(f"  step       {steps_done(run)}")
    wandb = wandb_text(run)
    if wandb:
        typer.echo(f"  wandb      {wandb}")
    if run.notes:
        typer.echo(f"  notes      {printable(run.notes)}")
    events = store.events(run.id)
    for event in [event for event in events if event.kind == "worker:budget"][-1:]:
        typer.echo(f"  budget     {printable(event.message)}")
    summary = summary_of(store, run)
    if summary:
        for label in ("first", "peak", "last"):
            point = getattr(summary, label)
            rate = percent_with_interval(point.pass_rate, point.low, point.high)
            trained = duration(point.train_seconds)
            typer.echo(f"  {label:<10} pass rate {rate} at step {point.step}, {trained} of training")
    latest = store.latest(run.id)
    if "test/step" in latest:
        rate = rate_with_interval(latest, "test/pass_rate")
        typer.echo(f"  test       pass rate {rate} {_chosen(run, int(latest['test/step']))}")
    if latest:
        typer.echo("  newest metrics")
        for name, value in sorted(latest.items()):
            typer.echo(f"    {printable(name):<40} {value:.6g}")
    typer.echo("  events")
    for event in events:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.at_seconds))
        typer.echo(f"    {at}  {event.kind:<12} {printable(event.message)}")
    result = Path(run.run_dir) / "result.json"
    if run.state == "failed" and result.exists():
        trace = json.loads(result.read_text()).get("traceback")
        if trace:
            typer.echo("  traceback")
            typer.echo("    " + printable(trace).replace("\n", "\n    ").rstrip())
    if run.state in ("failed", "cancelled", "lost"):
        typer.echo(f"  next: `atlas logs {run.id}`, `atlas resume {run.id}`, `atlas rerun {run.id}`")


def _chosen(run: "RunRecord", step: int) -> str:
    """Which weights were scored on test."""
    if step == 0:
        return "at step 0: the model as it was loaded"
    folder = Path(run.run_dir) / "checkpoints" / f"best-step-{step}"
    return f"at step {step}, the best on dev: {folder}{'' if folder.exists() else ' (gone)'}"
