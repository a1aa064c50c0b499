"""Watches runs from the terminal: a live table on a screen, plain lines in a log file."""

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.table import Table

from atlas.cli.options import POLL_SECONDS
from atlas.cli.tables import NOT_FINISHED, duration, failure_text, rate_with_interval, run_table
from atlas.store import AT_REST, RunRecord, Store


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
            while not _all_ended(store, run_ids):
                advance()
                live.update(_table(store, run_ids, paces))
                time.sleep(POLL_SECONDS)
            live.update(_table(store, run_ids, paces))
    except KeyboardInterrupt:
        _say_how_to_come_back(store, run_ids)
        sys.exit(NOT_FINISHED)


def _all_ended(store: Store, run_ids: Sequence[str]) -> bool:
    return all(store.run(run_id).state in AT_REST for run_id in run_ids)


def _say_how_to_come_back(store: Store, run_ids: Sequence[str]) -> None:
    runs = [store.run(run_id) for run_id in run_ids]
    lines = ["", "detached; the running job goes on:"]
    lines += [f"  {run.id} is {run.state}; come back with `atlas logs -f {run.id}`" for run in runs]
    lines += ["  `atlas ls` shows all runs, `atlas cancel RUN` stops one"]
    if any(run.state == "queued" for run in runs):
        lines += ["  queued runs need a runner: `atlas up`"]
    print("\n".join(lines), file=sys.stderr)


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
        print(f"{run_id}: {run.state}{details}{failure_text(run)}", file=sys.stderr, flush=True)


def _table(store: Store, run_ids: Sequence[str], paces: dict[str, _Pace]) -> Table:
    runs = [store.run(run_id) for run_id in run_ids]
    table = run_table(runs)
    for column in ("state", "phase", "step", "loss", "pass rate", "rate", "ETA"):
        table.add_column(column, overflow="ellipsis", no_wrap=True)
    for run in runs:
        table.add_row(*_row(store, run, paces))
    return table


def _row(store: Store, run: RunRecord, paces: dict[str, _Pace]) -> list[str]:
    latest = store.latest(run.id)
    loss = latest.get("train/loss", math.nan)
    step, total = run.progress_step or 0, run.progress_total
    pace = paces.get(run.id)
    if pace is None or pace.phase != run.phase:
        pace = paces[run.id] = _Pace(run.phase, step, time.monotonic())
    per_second = pace.per_second(step, time.monotonic())
    running = run.state == "running"
    return [
        run.id,
        run.state,
        (run.phase or "starting") if running else "",
        f"{step}/{total}" if total and running else str(run.step if run.step is not None else ""),
        "" if math.isnan(loss) and "train/loss" not in latest else f"{loss:.4g}",
        rate_with_interval(latest),
        f"{per_second * 60:.3g}/min" if per_second and running else "",
        duration((total - step) / per_second) if per_second and total and running else "",
    ]
