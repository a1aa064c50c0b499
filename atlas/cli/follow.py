"""Watches runs from the terminal: a live table on a screen, plain lines in a log file."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.table import Table

from atlas.cli.options import POLL_SECONDS
from atlas.cli.tables import (
    NOT_FINISHED,
    columns_that_fit,
    failure_text,
    printable,
    rate_with_interval,
    run_table,
)
from atlas.duration import duration
from atlas.store import AT_REST, RunRecord, Store

_COLUMNS = ("run", "now", "step", "pass rate", "ETA", "loss", "rate")
"""The most wanted first: a narrow terminal has no room for the last ones, which are left out."""
_MOST_WANTED = ("running", "claimed", "failed", "lost", "preempted", "cancelled", "queued", "succeeded")
"""Which states are shown where a terminal has too few lines for all runs."""


@dataclass
class _Pace:
    """Steps per second since we began to watch this phase."""

    phase: str | None
    step: int
    since_seconds: float

    def per_second(self, step: int, now_seconds: float) -> float | None:
        done, elapsed = step - self.step, now_seconds - self.since_seconds
        return done / elapsed if done > 0 and elapsed > 0 else None


def follow(store: Store, run_ids: Sequence[str], advance: Callable[[], object], quiet: bool = False) -> None:
    """Calls `advance` and shows the runs until all have ended. Ctrl-C exits early, as not finished, and says how to
    come back."""
    console = Console(stderr=True)
    paces: dict[str, _Pace] = {}
    seen: dict[str, tuple[str, int | None]] = {}
    try:
        if quiet or not console.is_terminal:
            while not _all_ended(store, run_ids):
                advance()
                if not quiet:
                    _print_news(store, run_ids, seen)
                time.sleep(POLL_SECONDS)
            if not quiet:
                _print_news(store, run_ids, seen)
            return
        with Live(console=console, refresh_per_second=4) as live:
            told: set[str] = set()
            while not _all_ended(store, run_ids):
                advance()
                _tell_failures(store, run_ids, told, console)
                live.update(_table(store, run_ids, paces, console.width, console.height))
                time.sleep(POLL_SECONDS)
            live.update(_table(store, run_ids, paces, console.width, len(run_ids) + 1))
    except KeyboardInterrupt:
        _say_how_to_come_back(store, run_ids)
        sys.exit(NOT_FINISHED)


def _all_ended(store: Store, run_ids: Sequence[str]) -> bool:
    return all(store.run(run_id).state in AT_REST for run_id in run_ids)


def _say_how_to_come_back(store: Store, run_ids: Sequence[str]) -> None:
    print("\ndetached; what runs goes on", file=sys.stderr)
    print(how_to_come_back([store.run(run_id) for run_id in run_ids]), file=sys.stderr)


def how_to_come_back(runs: Sequence[RunRecord]) -> str:
    """Where the runs stand and which commands follow, run or stop them, in lines."""
    lines = [f"  {_counts(runs)}"] if len(runs) > 1 else [f"  {run.id} is {run.state}" for run in runs]
    followed = [run for run in runs if run.state not in AT_REST and (run.state != "queued" or len(runs) == 1)]
    lines += [f"  come back with `atlas logs -f {run.id}`" for run in followed]
    if any(run.state == "queued" for run in runs):
        lines += ["  queued runs need a runner: `atlas up`, or the same `atlas submit` once more"]
    if any(run.state in ("failed", "lost") for run in runs):
        lines += ["  `atlas resume RUN|EXPERIMENT` continues what failed, from its last checkpoint"]
    return "\n".join([*lines, "  `atlas ls` shows all runs, `atlas cancel RUN|EXPERIMENT` stops them"])


def _tell_failures(store: Store, run_ids: Sequence[str], told: set[str], console: Console) -> None:
    """Each failure once, above the table, when it happens."""
    for run in map(store.run, run_ids):
        if run.state in ("failed", "lost") and run.id not in told:
            told.add(run.id)
            console.print(f"{run.id}: {run.state}{printable(failure_text(run))}", markup=False, soft_wrap=True)


def _counts(runs: Sequence[RunRecord]) -> str:
    """`2 running, 6 queued, 4 succeeded`."""
    states = Counter(run.state for run in runs)
    return ", ".join(f"{states[state]} {state}" for state in _MOST_WANTED if states[state])


def _print_news(store: Store, run_ids: Sequence[str], seen: dict[str, tuple[str, int | None]]) -> None:
    """One line for each change of state and each new evaluation."""
    for run_id in run_ids:
        run = store.run(run_id)
        evaluations = store.metrics(run_id, "eval/pass_rate")
        news = (run.state, evaluations[-1][0] if evaluations else None)
        if seen.get(run_id) == news:
            continue
        seen[run_id] = news
        details = f" step {news[1]} pass rate {rate_with_interval(store.latest(run_id))}" if evaluations else ""
        print(f"{run_id}: {run.state}{details}{printable(failure_text(run))}", file=sys.stderr, flush=True)


def _table(store: Store, run_ids: Sequence[str], paces: dict[str, _Pace], width: int, height: int) -> Table:
    """What fits into so many columns and lines; a last line counts the runs that do not."""
    runs = [store.run(run_id) for run_id in run_ids]
    rows = {run.id: _row(store, run, paces) for run in runs}
    shown, left_out = runs, []
    if len(runs) >= height:
        wanted = sorted(runs, key=lambda run: _MOST_WANTED.index(run.state))[: max(1, height - 3)]
        shown = [run for run in runs if run in wanted]
        left_out = [run for run in runs if run not in wanted]
    table = run_table(shown)
    table.caption, table.caption_justify = f"and {_counts(left_out)}" if left_out else None, "left"
    lines = [_COLUMNS, *(rows[run.id] for run in shown)]
    columns = columns_that_fit(lines, range(1, len(_COLUMNS)), width)
    for column in columns[1:]:
        table.add_column(_COLUMNS[column], overflow="ellipsis", no_wrap=True)
    for cells in lines[1:]:
        table.add_row(*(cells[column] for column in columns))
    return table


def _row(store: Store, run: RunRecord, paces: dict[str, _Pace]) -> list[str]:
    """One cell for each of `_COLUMNS`."""
    latest = store.latest(run.id)
    step, total = run.progress_step or 0, run.progress_total
    pace = paces.get(run.id)
    if pace is None or pace.phase != run.phase:
        pace = paces[run.id] = _Pace(run.phase, step, time.monotonic())
    per_second = pace.per_second(step, time.monotonic())
    running = run.state == "running"
    return [
        run.id,
        (run.phase or "starting") if running else run.state,
        f"{step}/{total}" if total and running else str(run.step if run.step is not None else ""),
        rate_with_interval(latest),
        duration((total - step) / per_second) if per_second and total and running else "",
        f"{latest['train/loss']:.4g}" if "train/loss" in latest else "",
        f"{per_second * 60:.3g}/min" if per_second and running else "",
    ]
