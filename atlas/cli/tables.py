"""How runs are shown in a terminal and as JSON."""

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.table import Table

from atlas.analysis.summary import Evaluation, Summary, summarize
from atlas.comparison.wording import percent_with_interval
from atlas.store import RunRecord, Store

_EXIT_CODES = {"succeeded": 0, "failed": 100, "cancelled": 103, "lost": 104}
NOT_FINISHED, _OUT_OF_MEMORY = 101, 105
_NO_WIDTH = 10_000
"""Characters a line may have where nobody wraps it."""
_GAP = 2
"""Characters between two columns."""


def exit_code(run: RunRecord) -> int:
    """0 succeeded, 100 failed, 101 not finished, 103 cancelled, 104 lost, 105 out of memory."""
    if run.reason == "out_of_memory":
        return _OUT_OF_MEMORY
    return _EXIT_CODES.get(run.state, NOT_FINISHED)


def console_for(stream: IO[str]) -> Console:
    """A console as wide as the terminal; a file or a pipe has no width, so that `grep` finds whole lines."""
    return Console(file=stream) if stream.isatty() else Console(file=stream, width=_NO_WIDTH)


def run_table(runs: Sequence[RunRecord]) -> Table:
    """A table whose first column holds the ids whole, to be copied; what there is no room for is cut elsewhere."""
    return named_table("run", [run.id for run in runs])


def named_table(heading: str, names: Sequence[str]) -> Table:
    """A table whose first column, under this heading, holds the names of the rows whole."""
    table = Table(box=None, pad_edge=False)
    table.add_column(heading, no_wrap=True, min_width=max(map(len, names), default=0))
    return table


def columns_that_fit(rows: Sequence[Sequence[str]], wanted: Iterable[int], width: int) -> list[int]:
    """Which columns a terminal has room for, in their order: the first, which names the rows, and of the `wanted`, the
    most wanted first, as many as fit whole, at least one. The first of the rows holds the headings, which may have
    several lines."""
    widths = [max(len(line) for cell in column for line in cell.split("\n")) for column in zip(*rows, strict=True)]
    shown, taken = [0], widths[0]
    for column in wanted:
        taken += _GAP + widths[column]
        if taken > width and len(shown) > 1:
            break
        shown.append(column)
    return sorted(shown)


def print_comparison(store: Store, runs: Sequence[RunRecord], experiments: Sequence[str] = ()) -> None:
    """The end of a submit: each experiment, and the runs that belong to none of them, as `atlas compare` shows them.
    Then where W&B has them, and why they failed."""
    from atlas.cli.comparing import print_arms
    from atlas.comparison.collect import collect

    console = console_for(sys.stdout)
    records = [store.experiment(experiment) for experiment in experiments]
    covered = {run_id for record in records for run_id in record.run_ids}
    alone = list(dict.fromkeys(run.id for run in runs if run.id not in covered))
    for references in [*([record.id] for record in records), *([alone] if alone else [])]:
        comparison = collect(store, references, force=True)
        if comparison.mismatches:  # they were submitted together, not to be compared
            comparison = replace(comparison, targets=(), verdicts=())
        print_arms(comparison, console)
    for run in runs:
        if wandb := wandb_text(run):
            console.print(f"{run.id}: W&B {wandb}", markup=False, highlight=False, soft_wrap=True)
        if failure_text(run):
            console.print(f"{run.id}: {run.state}{failure_text(run)}", markup=False, highlight=False, soft_wrap=True)


def summary_of(store: Store, run: RunRecord) -> Summary | None:
    """The first, best and last evaluation of a run in the store."""
    low, high = dict(store.metrics(run.id, "eval/pass_rate_low")), dict(store.metrics(run.id, "eval/pass_rate_high"))
    clocks = store.clocks(run.id)
    return summarize(
        [
            Evaluation(
                step,
                pass_rate,
                low.get(step, math.nan),
                high.get(step, math.nan),
                clocks[step]["train_seconds"],
                clocks[step]["gpu_seconds"],
                clocks[step]["rollouts"],
            )
            for step, pass_rate in store.metrics(run.id, "eval/pass_rate")
        ]
    )


def run_document(store: Store, run: RunRecord) -> dict[str, Any]:
    """A run as JSON: its row, its newest metrics and its summary."""
    summary = summary_of(store, run)
    return {
        **run.model_dump(mode="json"),
        "exit_code_of_cli": exit_code(run),
        "latest": _finite(store.latest(run.id)),
        "summary": None
        if summary is None
        else {name: vars(getattr(summary, name)) for name in ("first", "peak", "last")},
    }


def overview_documents(store: Store, runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """What the dashboard's table shows of each run, as JSON: `run_document` with `seed`, `experiment`, `arm`, `score`
    (on test where that was scored, else the newest evaluation), `evaluations` and `device_seconds`."""
    from atlas.store.overview import overviews

    found = []
    for of in overviews(store, runs, store.experiments()):
        document = run_document(store, of.run)
        document |= {"seed": of.seed, "experiment": of.experiment, "arm": of.arm}
        document["score"] = of.score and _finite(asdict(of.score))
        document["evaluations"] = [_finite({"step": step, "pass_rate": rate}) for step, rate in of.evaluations]
        document |= {"device_seconds": of.device_seconds, "on_gpu": of.on_gpu}
        found.append(document)
    return found


def steps_done(run: RunRecord) -> str:
    """`6/24`: the newest step of the planned ones; `-` and `?` where they are not known."""
    return "/".join(
        unknown if number is None else str(number) for number, unknown in ((run.step, "-"), (run.planned_steps, "?"))
    )


def rate_with_interval(metrics: Mapping[str, float], name: str = "eval/pass_rate") -> str:
    """`41.5 [35, 48]` in percent; empty before the first evaluation."""
    if name not in metrics:
        return ""
    low, high = metrics.get(f"{name}_low", math.nan), metrics.get(f"{name}_high", math.nan)
    return percent_with_interval(metrics[name], low, high)


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN and no infinity: they are words."""
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }


def failure_text(run: RunRecord) -> str:
    """` (reason): message` of a run that did not succeed; else empty."""
    if run.state == "succeeded" or not (run.reason or run.message):
        return ""
    return f"{f' ({run.reason})' if run.reason else ''}: {run.message or ''}"


def wandb_text(run: RunRecord) -> str:
    """Where W&B shows the run, or why it does not; empty if the job did not ask for it."""
    try:
        status = json.loads((Path(run.run_dir) / "wandb.json").read_text())
    except FileNotFoundError:
        return ""
    return " ".join(part for part in (status["note"] or status["mode"], status["url"]) if part)


def printable(text: str) -> str:
    """Text that a model or a job wrote, with control characters escaped: none may reach the terminal."""
    return "".join(c if c in "\n\t" or (c.isprintable()) else f"\\x{ord(c):02x}" for c in text)
