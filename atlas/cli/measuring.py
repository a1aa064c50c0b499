"""`atlas metrics`: the curves behind every chart."""

import csv
import difflib
import json
import math
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from atlas.cli.options import Json, RunsOrExperiments
from atlas.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from atlas.store import RunRecord, Store

_STEP = "step"
_Point = tuple[str, str, float, float]
"""Run, name, clock, value."""


def metrics(
    references: RunsOrExperiments,
    name: Annotated[
        list[str] | None,
        typer.Option(
            help="Print the curve of this metric; may be repeated. Default: the newest value of every metric."
        ),
    ] = None,
    clock: Annotated[
        str,
        typer.Option(
            help="What to put the values over: step, wall_seconds, train_seconds, gpu_seconds, tokens_generated, "
            "tokens_trained or rollouts."
        ),
    ] = _STEP,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print one line for each value, with a header.")] = False,
) -> None:
    """Print what runs have measured: the newest values, or whole curves over a clock."""
    from atlas.cli.experiments import named, runs_of
    from atlas.cli.stores import settled_store
    from atlas.run import CLOCKS

    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other; name one")
    if clock not in (_STEP, *CLOCKS):
        raise UsageError(f"--clock {clock!r} is unknown; expected one of {', '.join((_STEP, *CLOCKS))}")
    store = settled_store()
    found = [run for reference in references for run in runs_of(store, named(store, reference))]
    runs = list({run.id: run for run in found}.values())
    if name:
        _check(store, runs, name)
        points = _curves(store, runs, list(dict.fromkeys(name)), clock)
        _print_curves(points, clock, as_json, as_csv)
    else:
        _print_newest(store, runs, as_json, as_csv)


def _check(store: "Store", runs: "Sequence[RunRecord]", names: Sequence[str]) -> None:
    known = sorted({name for values in store.latest_of([run.id for run in runs]).values() for name in values})
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known)
            hint = f"did you mean {' or '.join(near)}?" if near else "without --name all are listed"
            raise NotFoundError(f"none of these runs has a metric {name!r}; {hint}")


def _curves(store: "Store", runs: "Sequence[RunRecord]", names: Sequence[str], clock: str) -> Iterator[_Point]:
    """One curve in memory at a time."""
    for run in runs:
        for name in names:
            rows = store.metrics(run.id, name) if clock == _STEP else store.curve(run.id, name, clock)
            for reading, value in rows:
                yield run.id, name, reading, value


def _print_curves(points: Iterator[_Point], clock: str, as_json: bool, as_csv: bool) -> None:
    from atlas.cli.tables import printable

    if as_json:
        curves: dict[tuple[str, str], list[list[float | str]]] = {}
        for run, name, reading, value in points:
            curves.setdefault((run, name), []).append([reading, _plain(value)])
        document = [
            {"run": run, "name": name, "clock": clock, "points": values} for (run, name), values in curves.items()
        ]
        typer.echo(json.dumps(document, indent=None))
        return
    writer = csv.writer(sys.stdout, lineterminator="\n", delimiter="," if as_csv else "\t")
    writer.writerow(["run", "name", clock, "value"])
    for run, name, reading, value in points:
        shown = _plain(value) if as_csv else f"{value:.6g}"
        writer.writerow([run, printable(name), reading if as_csv else f"{reading:.10g}", shown])


def _print_newest(store: "Store", runs: "Sequence[RunRecord]", as_json: bool, as_csv: bool) -> None:
    from rich.text import Text

    from atlas.cli.tables import console_for, named_table, printable
    from atlas.comparison.names import short_names

    latest = store.latest_of([run.id for run in runs])
    names = sorted({name for values in latest.values() for name in values})
    if as_json:
        document = {run: {name: _plain(value) for name, value in values.items()} for run, values in latest.items()}
        typer.echo(json.dumps(document, indent=2))
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["run", "name", "value"])
        writer.writerows(
            [run, printable(name), _plain(latest[run][name])] for run in latest for name in sorted(latest[run])
        )
    elif not names:
        typer.echo("nothing measured yet", err=True)
    else:
        short = short_names(list(latest))
        table = named_table("newest value", [printable(name) for name in names])
        for run in latest:
            table.add_column(short[run], justify="right", overflow="fold")
        for name in names:
            values = [f"{values[name]:.6g}" if name in values else "" for values in latest.values()]
            table.add_row(Text(printable(name)), *values)
        console_for(sys.stdout).print(table, highlight=False)


def _plain(value: float) -> float | str:
    """JSON has no NaN and no infinity."""
    return value if math.isfinite(value) else str(value)
