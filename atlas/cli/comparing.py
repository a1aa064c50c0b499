"""`atlas compare`, and how a comparison is shown in a terminal."""

import json
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from atlas.cli.options import Json
from atlas.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from atlas.comparison.model import Comparison, RunResult
    from atlas.comparison.wording import DeviceTime

_MOST_WANTED = ("test", "peak", "seeds", "to peak", "step 0", "in all", "KL", "rollouts", "tokens")
"""A narrow terminal has no room for the last ones, which are left out; before them, those that are empty."""


def compare(
    references: Annotated[
        list[str],
        typer.Argument(metavar="REFERENCE...", help="An experiment (its id or name), or runs to put side by side."),
    ],
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print one line for each run, with a header.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Show runs side by side although they were measured differently.")
    ] = False,
) -> None:
    """Compare the arms of an experiment, or runs: who gets further, who is sooner, and how sure that is."""
    from atlas.cli.stores import settled_store
    from atlas.cli.tables import console_for
    from atlas.comparison import export
    from atlas.comparison.collect import collect

    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other; name one")
    comparison = collect(settled_store(), references, force)
    if as_json:
        typer.echo(json.dumps(export.document(comparison), indent=2, allow_nan=False))
    elif as_csv:
        typer.echo(export.as_csv(comparison), nl=False)
    else:
        print_arms(comparison, console_for(sys.stdout))


def print_arms(comparison: "Comparison", console: "Console") -> None:
    """The arms side by side, the baselines, the verdicts, and what to be careful about."""
    from atlas.comparison.wording import device_time

    runs = [run for arm in comparison.arms for run in arm.runs]
    unit = device_time(runs)
    _print_lines(console, "NOT COMPARABLE: these runs were not measured in the same way", comparison.mismatches)
    console.print(_arm_table(comparison, unit, console.width))
    if comparison.targets and comparison.arms:
        console.print()
        console.print(_target_table(comparison, unit))
    for verdict in comparison.verdicts:
        _print_lines(console, f"{verdict.arm} against {verdict.reference}", verdict.sentences)
    if comparison.differences:
        console.print()
        console.print(_difference_table(comparison))
    _print_lines(console, "not there", comparison.missing)
    _print_lines(console, "note", comparison.notes)
    _print_lines(console, "runs", [_run_line(arm.name, arm.runs) for arm in comparison.arms])
    split = runs[0].job.evaluation.split if runs else "dev"
    console.print(
        f"\nPass rates in %, with 95 % Wilson intervals over problems. step 0 and peak are on {split}; a peak is the "
        "best of several noisy measurements. Times leave out loading and evaluation. tokens: what the student wrote "
        "for training. KL: reverse, to the teacher, in nats a token.",
        highlight=False,
    )


def _arm_table(comparison: "Comparison", unit: "DeviceTime", width: int) -> "Table":
    from atlas.cli.tables import columns_that_fit, named_table
    from atlas.comparison.rows import COLUMNS, final_rows

    headings = [f"{name}\n{unit.unit}" if name in ("to peak", "in all") else name for name in COLUMNS]
    rows = final_rows(comparison, unit)
    wanted = [COLUMNS.index(name) for name in _MOST_WANTED]
    filled = {column for column in wanted if any(row[column] for row in rows)}
    columns = columns_that_fit([headings, *rows], sorted(wanted, key=lambda column: column not in filled), width)
    table = named_table("arm", [row[0] for row in rows])
    for column in columns[1:]:
        table.add_column(headings[column], justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(row[column] for column in columns))
    left_out = [COLUMNS[column] for column in sorted(filled.difference(columns))]
    table.caption, table.caption_justify = f"no room for {', '.join(left_out)}" if left_out else None, "left"
    return table


def _target_table(comparison: "Comparison", unit: "DeviceTime") -> "Table":
    from rich.table import Table
    from rich.text import Text

    from atlas.comparison.rows import target_rows

    table = Table(box=None, pad_edge=False)
    table.add_column(f"{unit.unit} to a level", no_wrap=True)
    table.add_column("%", justify="right", no_wrap=True)
    for arm in comparison.arms:
        table.add_column(arm.name, justify="right", overflow="fold")
    for name, *cells in target_rows(comparison, unit):
        table.add_row(Text(name), *cells)
    return table


def _difference_table(comparison: "Comparison") -> "Table":
    from rich.table import Table
    from rich.text import Text

    from atlas.cli.tables import printable

    table = Table(box=None, pad_edge=False)
    table.add_column("differs in", no_wrap=True)
    for arm in comparison.arms:
        table.add_column(arm.name, overflow="fold")
    for path, values in comparison.differences.items():
        shown = [values.get(arm.name) for arm in comparison.arms]
        table.add_row(Text(path), *(Text("-" if value is None else printable(str(value))) for value in shown))
    return table


def _run_line(arm: str, runs: "Sequence[RunResult]") -> str:
    return f"{arm}: " + (", ".join(f"s{run.seed} {run.id} {run.state}" for run in runs) or "none")


def _print_lines(console: "Console", heading: str, lines: Sequence[str]) -> None:
    from atlas.cli.tables import printable

    if not lines:
        return
    console.print(f"\n{heading}", markup=False, highlight=False)
    for line in (line for text in lines for line in printable(text).splitlines()):
        # Between words only: an id or a path that is wider than the terminal stays whole, to be copied.
        wrapped = textwrap.fill(
            line,
            console.width,
            initial_indent="  ",
            subsequent_indent="    ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        console.print(wrapped, markup=False, highlight=False, soft_wrap=True)
