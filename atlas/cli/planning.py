"""What `atlas plan` shows: the resolved job, where it runs, how large it is, and what changed since last time; of an
experiment its runs and what its arms differ in."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from atlas.datasets import Traces
from atlas.datasets.base import Splits
from atlas.datasets.trace_card import card_lines
from atlas.differences import differences
from atlas.duration import duration
from atlas.experiment import Experiment
from atlas.job import JobSpec
from atlas.lengths import lengths_of
from atlas.models import ASSUMED_LENGTHS, describe, estimate_peak_bytes, fetch_config
from atlas.spec import ModelSpec

if TYPE_CHECKING:
    from atlas.store import Store

_NO_TIME = "unknown: it takes the model configs, and one known GPU or torch on a CPU"
_NO_CONFIG = "parameter count unknown: its config is neither local nor in the hub's cache, and the hub has none to give"


def plan_of(job: JobSpec) -> dict[str, Any]:
    """The plan as a JSON document."""
    models = {role: spec for role, spec in (("student", job.student), ("teacher", job.teacher)) if spec}
    for spec in models.values():
        fetch_config(spec)
    splits = job.dataset.check()
    return {
        "job": job.model_dump(mode="json"),
        "runs_on": _place(job),
        "models": {role: _size(spec) for role, spec in models.items()},
        "estimated_peak_bytes": _peak(job, splits),
        "data": splits.card if splits else None,
        "estimated_time": _time(job, splits),
        "last_run": _last_run(job),
    }


def print_plan(plan: dict[str, Any]) -> None:
    """The plan for a person."""
    import yaml

    typer.echo(yaml.safe_dump(plan["job"], sort_keys=False, allow_unicode=True).rstrip())
    typer.echo(f"\nruns on   {plan['runs_on']}")
    for role, size in plan["models"].items():
        typer.echo(f"{role:<9} {size or _NO_CONFIG}")
    peak = plan["estimated_peak_bytes"]
    typer.echo(f"memory    {_gigabytes(peak['total_bytes']) if peak else 'unknown without the model configs'}")
    for part, number in (peak or {}).items():
        if part != "total_bytes" and number:
            typer.echo(f"            {part.removesuffix('_bytes').replace('_', ' '):<22} {_gigabytes(number)}")
    print_data({"": plan["data"]})
    _print_time(plan["estimated_time"])
    last = plan["last_run"]
    if last is None:
        typer.echo("last run  none of this name")
        return
    typer.echo(f"last run  {last['id']} ({last['state']})")
    if not last["differences"]:
        typer.echo("          this job is the same")
    for path, (before, now) in last["differences"].items():
        typer.echo(f"          {path}: {before!r} -> {now!r}")


def plan_of_experiment(experiment: Experiment) -> dict[str, Any]:
    """The plan as a JSON document."""
    runs = [*experiment.baselines.values(), *experiment.runs]
    reference = {run.arm: run.job for run in reversed(experiment.runs)}
    specs = [spec for job in reference.values() for spec in (job.student, job.teacher) if spec]
    for spec in {spec.model: spec for spec in specs}.values():
        fetch_config(spec)
    data = {job.dataset.model_dump_json(): job.dataset for job in (run.job for run in runs)}
    splits = {key: dataset.check() for key, dataset in data.items()}
    texts = {arm: splits[job.dataset.model_dump_json()] for arm, job in reference.items()}
    times = {arm: _time(job, texts[arm]) for arm, job in reversed(reference.items())}
    earlier = _earlier_runs([run.job for run in runs])
    budgets = [_limits(run.job) for run in experiment.runs]
    new = [run for run in runs if earlier[run.job.name] is None]
    new_times = [
        times[run.arm] if run.arm in times else _time(run.job, splits[run.job.dataset.model_dump_json()]) for run in new
    ]
    return {
        "experiment": experiment.spec.model_dump(mode="json"),
        "runs": [
            {"name": run.job.name, "arm": run.arm, "seed": run.seed, "earlier": earlier[run.job.name]} for run in runs
        ],
        "budget": budgets[0] if all(budget == budgets[0] for budget in budgets) else None,
        "budget_of_new_runs": _time_in_all([run.job for run in experiment.runs if earlier[run.job.name] is None]),
        "runs_on": _place(experiment.runs[0].job),
        "estimated_peak_bytes": {arm: _peak(job, texts[arm]) for arm, job in reversed(reference.items())},
        "data": {arm: splits.card for arm, splits in reversed(texts.items()) if splits},
        "estimated_time": times,
        "estimated_seconds_of_new_runs": _sum(new_times),
        "differences": experiment.differences,
    }


def print_plan_of_experiment(plan: dict[str, Any]) -> None:
    """The plan for a person."""
    spec, runs = plan["experiment"], plan["runs"]
    new = [run for run in runs if run["earlier"] is None]
    baselines = len(runs) - len(spec["arms"]) * len(spec["seeds"])
    typer.echo(
        f"{spec['name']}: {len(spec['arms'])} arms x {len(spec['seeds'])} seeds + {baselines} baselines = "
        f"{len(runs)} runs, {len(new)} of them new"
    )
    for run in runs:
        earlier = run["earlier"]
        typer.echo(f"  {run['name']:<40} {'new' if earlier is None else f'{earlier[1]} as {earlier[0]}'}")
    budget = (
        "differs between the arms, see below" if plan["budget"] is None else f"{_listed(plan['budget'])} for each run"
    )
    typer.echo(f"\nbudget    {budget}")
    if plan["budget_of_new_runs"]:
        typer.echo(f"          {_listed(plan['budget_of_new_runs'])} for all new runs that train")
    typer.echo(f"runs on   {plan['runs_on']}")
    for arm, peak in plan["estimated_peak_bytes"].items():
        typer.echo(
            f"memory    {arm}: {_gigabytes(peak['total_bytes']) if peak else 'unknown without the model configs'}"
        )
    print_data(plan["data"])
    for arm, time in plan["estimated_time"].items():
        typer.echo(f"time      {arm}: {_of_a_run(time)}")
    if plan["estimated_seconds_of_new_runs"]:
        typer.echo(
            f"          about {duration(plan['estimated_seconds_of_new_runs'])} for all new runs, one after another"
        )
    typer.echo("\nthe arms differ in this and nothing else:")
    print_differences(plan["differences"])


def print_differences(found: Mapping[str, Mapping[str, Any]]) -> None:
    """A table of fields x arms."""
    from rich.table import Table

    from atlas.cli.tables import console_for

    if not found:
        typer.echo("  nothing")
        return
    table = Table(box=None, pad_edge=True)
    for column in ("field", *next(iter(found.values()))):
        table.add_column(column, overflow="fold")
    for path, values in found.items():
        table.add_row(path, *("-" if value is None else str(value) for value in values.values()))
    console_for(sys.stdout).print(table, markup=False, highlight=False)


def cards_of(loaded: JobSpec | Experiment) -> dict[str, Mapping[str, Any] | None]:
    """The cards of what a job or an experiment learns from, by arm, where that is made of traces."""
    runs = reversed(loaded.runs) if isinstance(loaded, Experiment) else []
    data = {run.arm: run.job.dataset for run in runs} or {"": loaded.dataset}  # type: ignore[union-attr]
    splits = {arm: dataset.check() for arm, dataset in reversed(data.items()) if isinstance(dataset, Traces)}
    return {arm: found.card for arm, found in splits.items()}


def print_data(cards: Mapping[str, Mapping[str, Any] | None]) -> None:
    """The cards of data that has one, by arm; equal ones once."""
    from atlas.cli.tables import printable

    said: list[list[str]] = []
    for arm, card in cards.items():
        lines = [printable(line) for line in card_lines(card)] if card else []
        if lines and lines not in said:
            said.append(lines)
            for head, line in zip(["data", *[""] * len(lines)], lines, strict=False):
                typer.echo(f"{head:<9} {f'{arm}: ' if arm and head else ''}{line}")


def _earlier_runs(jobs: list[JobSpec]) -> dict[str, tuple[str, str] | None]:
    """Job name -> id and state of the equal run that `submit` would not repeat."""
    from atlas.submission import equal_run, frozen

    store = _store()
    if store is None:
        return {job.name: None for job in jobs}
    queued = frozen(jobs, store.home, keep=False)
    found = {job.name: equal_run(store, job) for job in queued}
    return {name: None if run is None else (run.id, run.state) for name, run in found.items()}


def _store() -> "Store | None":
    """The project's store, if there is one: a plan makes none."""
    from atlas.cli.stores import settled_store
    from atlas.store import home_from_environment

    return settled_store() if (home_from_environment() / "atlas.db").exists() else None


def _limits(job: JobSpec) -> dict[str, float]:
    return job.budget.model_dump(exclude_none=True) if job.budget else {}


def _time_in_all(jobs: list[JobSpec]) -> dict[str, float]:
    """The sum over the jobs that train of the time that their budgets give."""
    total: dict[str, float] = {}
    for job in jobs:
        for limit, value in _limits(job).items():
            if job.method.trains and limit in ("gpu_hours", "train_minutes"):
                total[limit] = total.get(limit, 0) + value
    return total


def _listed(budget: Mapping[str, float]) -> str:
    return ", ".join(f"{value:g} {limit}" for limit, value in budget.items()) or "none"


def _place(job: JobSpec) -> str:
    from atlas.provenance import gpus

    there = gpus()
    wanted = job.resources.gpus if job.resources.gpus is not None else min(1, len(there))
    device = "the CPU" if wanted == 0 else f"{wanted} GPU ({there[0].name if there else 'none here'})"
    return f"{job.executor.type}, on {device}"


def _size(spec: ModelSpec) -> str | None:
    size = describe(spec)
    return None if size is None else f"{spec.model}: {size.parameters:,} parameters"


def _time(job: JobSpec, splits: Splits | None) -> dict[str, Any] | None:
    from atlas.job_time import job_time
    from atlas.store import home_from_environment

    time = job_time(job, splits, home_from_environment(), _store())
    if time is None:
        return None
    step = time.step and {**asdict(time.step), "total": time.step.total}
    found = asdict(time) | {"total_seconds": time.total_seconds}
    return {"step_seconds": step, **{name: value for name, value in found.items() if name != "step"}}


def _print_time(time: dict[str, Any] | None) -> None:
    if time is None:
        typer.echo(f"time      {_NO_TIME}")
        return
    step, steps, number = time["step_seconds"], time["steps"], time["evaluations"]
    evaluation = f"{duration(time['evaluation_seconds'])} for {number} evaluation{'s' if number > 1 else ''}"
    if step is None:
        typer.echo(f"time      {_about(time)} {evaluation}")
    else:
        phases = ", ".join(
            f"{phase.replace('_', ' and ')} {seconds:.2g}"
            for phase, seconds in step.items()
            if phase != "total" and seconds >= 0.01 * step["total"]
        )
        typer.echo(f"time      {_about(time)} {step['total']:.2g} s a step ({phases})")
        ended = " when the budget ends it" if time["training_seconds"] < 0.999 * steps * step["total"] else ""
        typer.echo(f"          {duration(time['training_seconds'])} for {steps} steps{ended}, and {evaluation}")
    longest = "; completions taken to be as long as they may be" if time["at_most"] else ""
    typer.echo(f"          {time['source']}{longest}")


def _of_a_run(time: dict[str, Any] | None) -> str:
    if time is None:
        return _NO_TIME
    step = time["step_seconds"]
    steps = f", {step['total']:.2g} s a step; {time['source']}" if step else ""
    return f"{_about(time)} {duration(time['total_seconds'])} a run with its evaluations{steps}"


def _about(time: Mapping[str, Any]) -> str:
    return "at most about" if time["at_most"] else "about"


def _sum(times: Sequence[Mapping[str, Any] | None]) -> float | None:
    """None if one of them is not known, or there are none."""
    known = [time["total_seconds"] for time in times if time is not None]
    return sum(known) if known and len(known) == len(times) else None


def _peak(job: JobSpec, splits: Splits | None) -> dict[str, int] | None:
    estimate = estimate_peak_bytes(job, lengths_of(job, splits) or ASSUMED_LENGTHS)
    if estimate is None:
        return None
    return {**asdict(estimate), "slack_bytes": estimate.slack_bytes, "total_bytes": estimate.total_bytes}


def _last_run(job: JobSpec) -> dict[str, Any] | None:
    from atlas.submission import frozen

    store = _store()
    run = store.last_run_of_name(job.name) if store else None
    if store is None or run is None:
        return None
    earlier = JobSpec.model_validate_json(store.spec(run.id))
    (queued,) = frozen([job], store.home, keep=False)
    return {"id": run.id, "state": run.state, "differences": differences(earlier, queued)}


def _gigabytes(number: int) -> str:
    return f"{number / 1e9:.2f} GB" if number >= 1e8 else f"{number / 1e6:.1f} MB"
