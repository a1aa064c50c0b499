"""The command that writes what was measured into one file."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from atlas.cli.options import OutputFile


def report(
    references: Annotated[
        list[str], typer.Argument(metavar="EXPERIMENT|RUN...", help="An experiment, or several runs.")
    ],
    output: OutputFile = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also of runs that must not be compared; says so in red.")
    ] = False,
) -> None:
    """Write a report of an experiment, or of several runs: one HTML or Markdown file, by the suffix of --output."""
    from atlas.report.render import check_output

    if output is not None:
        check_output(output)
    from atlas.cli.stores import settled_store
    from atlas.comparison.collect import collect
    from atlas.report.contents import document
    from atlas.report.render import write

    store = settled_store()
    comparison = collect(store, references, force)
    if output is None:
        output = Path(f"{comparison.experiment.name if comparison.experiment else 'report'}.html")
    write(document(comparison, store.samples, time.time()), output)
    print(f"wrote {output}", file=sys.stderr)
