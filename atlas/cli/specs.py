"""Commands that read job and experiment files and change nothing: check, plan."""

import json
from dataclasses import asdict
from typing import Any

import typer

from atlas.cli.options import Json, Overrides, SpecPath, SpecPaths
from atlas.errors import Problem, SpecError, UsageError


def check(specs: SpecPaths, overrides: Overrides = None, as_json: Json = False) -> None:
    """Say whether the files can be run, and everything that is wrong with them."""
    from atlas.cli.planning import cards_of, print_data
    from atlas.experiment import load_checked

    report: list[dict[str, Any]] = []
    for spec in specs:
        problems: list[Problem] = []
        try:
            loaded = load_checked(spec, overrides or [])
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
            print_data(cards_of(loaded))
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    if not all(entry["ok"] for entry in report):
        raise typer.Exit(2)


def plan(spec: SpecPath, overrides: Overrides = None, as_json: Json = False) -> None:
    """Show what would run: the resolved job, where, its size, and what changed since the last run of that name.

    Of an experiment: its runs, and every field in which its arms differ.
    """
    from atlas.cli.planning import plan_of, plan_of_experiment, print_plan, print_plan_of_experiment
    from atlas.experiment import Experiment, load_checked

    loaded = load_checked(spec, overrides or [])
    is_experiment = isinstance(loaded, Experiment)
    found = plan_of_experiment(loaded) if isinstance(loaded, Experiment) else plan_of(loaded)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    elif is_experiment:
        print_plan_of_experiment(found)
    else:
        print_plan(found)
