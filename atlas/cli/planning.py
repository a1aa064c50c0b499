"""What `atlas plan` shows: the resolved job, where it runs, how large it is, and what changed since last time."""

from dataclasses import asdict
from typing import Any

import typer

from atlas.job import JobSpec
from atlas.models import describe, estimate_peak_bytes, fetch_config
from atlas.spec import ModelSpec

_NO_CONFIG = "parameter count unknown: its config is neither local nor in the hub's cache, and the hub has none to give"


def plan_of(job: JobSpec) -> dict[str, Any]:
    """The plan as a JSON document."""
    models = {role: spec for role, spec in (("student", job.student), ("teacher", job.teacher)) if spec}
    for spec in models.values():
        fetch_config(spec)
    return {
        "job": job.model_dump(mode="json"),
        "runs_on": _place(job),
        "models": {role: _size(spec) for role, spec in models.items()},
        "estimated_peak_bytes": _peak(job),
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
    last = plan["last_run"]
    if last is None:
        typer.echo("last run  none of this name")
        return
    typer.echo(f"last run  {last['id']} ({last['state']})")
    if not last["differences"]:
        typer.echo("          this job is the same")
    for path, (before, now) in last["differences"].items():
        typer.echo(f"          {path}: {before!r} -> {now!r}")


def _place(job: JobSpec) -> str:
    from atlas.provenance import gpus

    there = gpus()
    wanted = job.resources.gpus if job.resources.gpus is not None else min(1, len(there))
    device = "the CPU" if wanted == 0 else f"{wanted} GPU ({there[0].name if there else 'none here'})"
    return f"{job.executor.type}, on {device}"


def _size(spec: ModelSpec) -> str | None:
    size = describe(spec)
    return None if size is None else f"{spec.model}: {size.parameters:,} parameters"


def _peak(job: JobSpec) -> dict[str, int] | None:
    estimate = estimate_peak_bytes(job)
    return None if estimate is None else {**asdict(estimate), "total_bytes": estimate.total_bytes}


def _last_run(job: JobSpec) -> dict[str, Any] | None:
    from atlas.cli.stores import settled_store
    from atlas.store import home_from_environment

    if not (home_from_environment() / "atlas.db").exists():
        return None
    store = settled_store()
    run = store.last_run_of_name(job.name)
    if run is None:
        return None
    earlier = JobSpec.model_validate_json(store.spec(run.id))
    return {"id": run.id, "state": run.state, "differences": differences(earlier, job)}


def differences(before: JobSpec, now: JobSpec) -> dict[str, tuple[Any, Any]]:
    """Path of every field that differs -> (before, now). A field that one side lacks is None there."""
    old, new = _flat(before.model_dump(mode="json")), _flat(now.model_dump(mode="json"))
    return {path: (old.get(path), new.get(path)) for path in sorted(old | new) if old.get(path) != new.get(path)}


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _gigabytes(number: int) -> str:
    return f"{number / 1e9:.2f} GB" if number >= 1e8 else f"{number / 1e6:.1f} MB"
