"""Commands that explain: a spec's fields, its JSON Schema, and this machine."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from atlas.cli.options import Json

_MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


def explain(
    path: Annotated[
        str, typer.Argument(metavar="[PATH]", help="A field, such as training.learning_rate or method.gkd.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Print the documentation of a field of the job file."""
    from atlas.reference import explain as explanation

    text = explanation(path)
    typer.echo(json.dumps({"path": path, "text": text}) if as_json else text)


def schema() -> None:
    """Print the JSON Schema of job files, for completion in an editor."""
    from atlas.reference import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


def doctor(as_json: Json = False) -> None:
    """Say what is installed, which GPUs there are, and what would stop a run on this machine."""
    from atlas.doctor import checks

    results = checks()
    if as_json:
        typer.echo(json.dumps([asdict(result) for result in results], indent=2))
        return
    for result in results:
        typer.echo(f"{_MARKS[result.status]}  {result.name}: {result.message}")
        if result.next_step:
            typer.echo(f"      -> {result.next_step}")
