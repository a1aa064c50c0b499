"""Commands that read job files and change nothing: check, plan."""

import json
from dataclasses import asdict
from typing import Any

import typer

from atlas.cli.options import Json, Overrides, SpecPath, SpecPaths
from atlas.errors import Problem, SpecError, UsageError


def check(specs: SpecPaths, overrides: Overrides = None, as_json: Json = False) -> None:
    """Say whether the job files can be run, and everything that is wrong with them."""
    from atlas.job import load_checked

    report: list[dict[str, Any]] = []
    for spec in specs:
        problems: list[Problem] = []
        try:
            load_checked(spec, overrides or [])
        except SpecError as error:
            problems = error.problems
        except UsageError as error:
            problems = [Problem(str(error))]
        found = [asdict(problem) | {"file": problem.file and str(problem.file)} for problem in problems]
        report.append({"spec": spec, "ok": not problems, "problems": found})
        if as_json:
            continue
        for problem in problems:
            typer.echo(str(problem), err=True)
        if not problems:
            typer.echo(f"{spec}: ok")
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    if not all(entry["ok"] for entry in report):
        raise typer.Exit(2)


def plan(spec: SpecPath, overrides: Overrides = None, as_json: Json = False) -> None:
    """Show what would run: the resolved job, where, its size, and what changed since the last run of that name."""
    from atlas.cli.planning import plan_of, print_plan
    from atlas.job import load_checked

    job_plan = plan_of(load_checked(spec, overrides or []))
    if as_json:
        typer.echo(json.dumps(job_plan, indent=2))
    else:
        print_plan(job_plan)
