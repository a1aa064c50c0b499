"""The command line. Each command imports what it needs when it runs, so that `atlas --help` answers at once."""

import sys

import typer

from atlas.cli import (
    aligning,
    comparing,
    dashboard,
    documentation,
    grading,
    measuring,
    queue,
    reporting,
    runs,
    sampling,
    specs,
    tokenizing,
    traces,
)
from atlas.errors import AtlasError

app = typer.Typer(
    name="atlas",
    help="Run and compare ways to post-train a language model. A job is a YAML file that `atlas submit` runs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.command()(specs.check)
app.command()(specs.plan)
app.command()(queue.submit)
app.command()(queue.up)
app.command("ls")(runs.list_runs)
app.command()(runs.show)
app.command()(runs.logs)
app.command()(comparing.compare)
app.command()(reporting.report)
app.command()(dashboard.dashboard)
app.command()(sampling.samples)
app.command()(measuring.metrics)
app.command()(aligning.alignment)
app.command()(queue.cancel)
app.command()(queue.resume)
app.command()(queue.rerun)
app.command()(grading.grade)
app.command()(tokenizing.tokenizers)
app.add_typer(traces.app, name="traces")
app.command()(documentation.explain)
app.command()(documentation.schema)
app.command()(runs.reindex)
app.command()(documentation.doctor)


def main() -> None:
    """Entry point of the `atlas` command. A known error is one message on stderr and its own exit code."""
    try:
        app()
    except AtlasError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone; there is nobody to tell
        sys.exit(0)
