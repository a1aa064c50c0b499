"""Arguments, options and settings that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

POLL_SECONDS = 0.5
"""How often a command that waits looks again."""

SpecPaths = Annotated[
    list[str], typer.Argument(metavar="SPEC...", help="Job or experiment files; - reads standard input.")
]
SpecPath = Annotated[str, typer.Argument(metavar="SPEC", help="A job or experiment file; - reads standard input.")]
RunReference = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, the start of one, or a job's name.")]
RunOrExperiment = Annotated[
    str, typer.Argument(metavar="RUN|EXPERIMENT", help="The id of a run or experiment, the start of one, or a name.")
]
RunsOrExperiments = Annotated[
    list[str], typer.Argument(metavar="RUN|EXPERIMENT...", help="Ids of runs or experiments, starts of ids, or names.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Override a field: --set training.learning_rate=1e-5"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
OutputFile = Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")]
