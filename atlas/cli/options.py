"""Arguments, options and settings that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

POLL_SECONDS = 0.5
"""How often a command that waits looks again."""

SpecPaths = Annotated[list[str], typer.Argument(metavar="SPEC...", help="Job files; - reads standard input.")]
SpecPath = Annotated[str, typer.Argument(metavar="SPEC", help="A job file; - reads standard input.")]
RunReference = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id, the start of one, or a job's or experiment's name.")
]
RunReferences = Annotated[list[str], typer.Argument(metavar="RUN...", help="Ids of runs, or starts of them.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Override a field: --set training.learning_rate=1e-5"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
OutputFile = Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")]
