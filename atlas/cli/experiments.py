"""How experiments are found, listed and shown."""

import json
import sys
import time
from collections import Counter

import typer
from rich.table import Table

from atlas.cli.tables import console_for, printable, rate_with_interval, run_table, steps_done
from atlas.duration import duration
from atlas.errors import NotFoundError, UsageError
from atlas.store import ExperimentRecord, RunRecord, Store


def named(store: Store, reference: str) -> RunRecord | ExperimentRecord:
    """What is called exactly so, or else the only run or experiment whose id starts so. Raises NotFoundError."""
    for record in store.experiments():
        if reference in (record.id, record.name):
            return record
    try:
        return store.run(reference)
    except NotFoundError as no_run:
        try:
            return store.experiment(reference)
        except NotFoundError:
            raise no_run from None


def runs_of(store: Store, meant: RunRecord | ExperimentRecord) -> list[RunRecord]:
    """The run itself, or all runs of the experiment, baselines first."""
    return [store.run(run_id) for run_id in meant.run_ids] if isinstance(meant, ExperimentRecord) else [meant]


def memberships(store: Store, run_id: str) -> list[tuple[ExperimentRecord, str, int | None]]:
    """The experiments that a run is of, newest first, with its arm and seed; a baseline has a role instead."""
    found: list[tuple[ExperimentRecord, str, int | None]] = []
    for record in store.experiments():
        found += [(record, member.arm, member.seed) for member in record.runs if member.run_id == run_id]
        found += [(record, f"baseline {role}", None) for role, its_run in record.baselines.items() if its_run == run_id]
    return found


def list_experiments(store: Store, filters: list[str | None], limit: int, as_json: bool) -> None:
    """Prints the newest experiments. Raises UsageError if filters of runs are set."""
    if any(filters):
        raise UsageError("--experiments lists all experiments; --state, --name and --tag choose runs: leave one out")
    records = store.experiments()[:limit]
    if as_json:
        typer.echo(json.dumps([record.model_dump(mode="json") for record in records], indent=2))
        return
    if not records:
        typer.echo("no experiments; `atlas submit SPEC` with `kind: experiment` starts one", err=True)
        return
    states = _states(store)
    table = Table(box=None, pad_edge=False)
    for column in ("experiment", "arms", "seeds", "runs", "age"):
        table.add_column(column, overflow="fold")
    for record in records:
        table.add_row(
            record.id,
            ", ".join(record.spec["arms"]),
            ", ".join(map(str, record.spec["seeds"])),
            _counts(record, states),
            duration(time.time() - record.submitted_at_seconds),
        )
    console_for(sys.stdout).print(table)


def show_experiment(store: Store, record: ExperimentRecord, spec: bool, as_json: bool) -> None:
    """Prints the experiment: its record as JSON, its file as submitted, or its runs."""
    if as_json:
        typer.echo(record.model_dump_json(indent=2))
    elif spec:
        typer.echo(f"# experiment as submitted, from {record.spec_file or 'standard input'}, by: {record.command}")
        typer.echo(record.spec_text or json.dumps(record.spec, indent=2))
    else:
        _print_experiment(store, record)


def _states(store: Store) -> dict[str, str]:
    return {run.id: run.state for run in store.runs()}


def _counts(record: ExperimentRecord, states: dict[str, str]) -> str:
    """`6 succeeded, 2 running`; a run that is not in the store any more is gone."""
    counts = Counter(states.get(run_id, "gone") for run_id in record.run_ids)
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def _print_experiment(store: Store, record: ExperimentRecord) -> None:
    states = _states(store)
    runs = [store.run(run_id) for run_id in record.run_ids if run_id in states]
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.submitted_at_seconds))
    typer.echo(f"{record.id}  {_counts(record, states)}")
    typer.echo(f"  submitted  {at} by: {printable(record.command)}")
    budget = {limit: value for limit, value in (record.spec["budget"] or {}).items() if value is not None}
    typer.echo(f"  budget     {', '.join(f'{value:g} {limit}' for limit, value in budget.items()) or 'none'}")
    table = run_table(runs)
    for column in ("state", "step", "pass rate", "test"):
        table.add_column(column, overflow="ellipsis", no_wrap=True)
    for run in runs:
        latest = store.latest(run.id)
        table.add_row(
            run.id,
            run.state,
            steps_done(run),
            rate_with_interval(latest),
            rate_with_interval(latest, "test/pass_rate"),
        )
    console_for(sys.stdout).print(table)
    typer.echo(f"  next: `atlas compare {record.id}`, `atlas report {record.id}`")
    if any(run.state in ("failed", "cancelled", "lost") for run in runs):
        typer.echo(f"        `atlas resume {record.id}` continues what failed, was cancelled or lost")
