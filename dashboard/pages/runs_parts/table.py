"""The table of runs: its cells, its columns, and the file with the numbers behind it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from atlas.report.chart import COLOURS
from dashboard.links import RUNS, address
from dashboard.pages.runs_parts.chosen import choosing_table
from dashboard.pages.runs_parts.rows import Row
from dashboard.states import with_sign
from dashboard.text import visible

ROWS = 24
"""Of a table that are seen at once; the others scroll."""
_ROW_PIXELS, _CHARACTERS, _POINTS = 32, 200, 60
_OPTIONAL = ("gpu", "cpu", "arm", "experiment", "notes", "tags")


@dataclass(frozen=True)
class Layout:
    """What the tables of one page have in common, so that their columns stand under one another."""

    columns: dict[str, Any]
    empty: frozenset[str]
    """Columns in which no table has anything."""
    cpu_seconds: float
    """Of the unit for runs without a GPU."""


def layout_of(rows: Sequence[Row]) -> Layout:
    """Of the tables that hold these rows."""
    name, seconds = _cpu_unit(rows)
    frame = pd.DataFrame([_cells(row, seconds) for row in rows])
    empty = [column for column in _OPTIONAL if not _any(frame[column])]
    return Layout(_columns(rows, name), frozenset(empty), seconds)


def show_table(name: str, rows: Sequence[Row], layout: Layout) -> None:
    """The runs, with boxes to choose them."""
    frame = pd.DataFrame([_cells(row, layout.cpu_seconds) for row in rows])
    choosing_table(
        name,
        frame.drop(columns=list(layout.empty)),
        [row.id for row in rows],
        column_config=layout.columns,
        height=_ROW_PIXELS * (min(len(rows), ROWS) + 1) + 3,
        row_height=_ROW_PIXELS,
        placeholder="",
        alt=f"{len(rows)} runs: state, progress, pass rate, device time",
    )


def csv(rows: Sequence[Row]) -> str:
    """Everything that the table shows, with unrounded numbers; rates from 0 to 1, times in seconds."""
    found = []
    for row in rows:
        run, score = row.of.run, row.of.score
        found.append(
            {
                "run": run.id,
                "state": row.state,
                "reason": run.reason,
                "step": run.step,
                "planned_steps": run.planned_steps,
                "phase": run.phase,
                "method": run.method,
                "student": run.student,
                "teacher": run.teacher,
                "pass_rate": score and score.pass_rate,
                "pass_rate_low": score and score.low,
                "pass_rate_high": score and score.high,
                "split": score and score.split,
                "scored_step": score and score.step,
                "device_seconds": row.of.device_seconds,
                "gpus": len(run.gpus),
                "created_seconds": run.created_seconds,
                "ended_seconds": run.ended_seconds,
                "experiment": row.of.experiment,
                "arm": row.of.arm,
                "seed": row.of.seed,
                "tags": " ".join(run.tags),
                "notes": run.notes,
            }
        )
    return str(pd.DataFrame(found).map(_harmless).to_csv(index=False))


def _cells(row: Row, cpu_seconds: float) -> dict[str, Any]:
    run, score, seconds = row.of.run, row.of.score, row.of.device_seconds
    return {
        "run": address("run", **{RUNS: run.id}),
        "state": with_sign(row.state, run.reason),
        "done": None if row.share_done is None else 100 * row.share_done,
        "step": _progress(row),
        "method": run.method,
        "rate": None if score is None else 100 * score.pass_rate,
        "interval": _interval(row),
        "on": None if score is None else f"{score.split} @{'?' if score.step is None else score.step}",
        "curve": _thinned([100 * rate for _, rate in row.of.evaluations if math.isfinite(rate)]),
        "gpu": seconds / 3600 if seconds is not None and row.of.on_gpu else None,
        "cpu": seconds / cpu_seconds if seconds is not None and not row.of.on_gpu else None,
        "created": pd.Timestamp(run.created_seconds, unit="s", tz="UTC"),
        "models": _cut(
            f"{Path(run.student).name} ← {Path(run.teacher).name}" if run.teacher else Path(run.student).name
        ),
        "experiment": row.of.experiment,
        "arm": row.of.arm,
        "seed": row.of.seed,
        "tags": _cut(", ".join(run.tags)),
        "notes": _cut(run.notes),
    }


def _columns(rows: Sequence[Row], cpu_unit: str) -> dict[str, Any]:
    column, bottom, top = st.column_config, *_range(rows)
    return {
        "run": column.LinkColumn(
            "run",
            display_text=rf"{RUNS}=(.*)$",
            alignment="left",
            pinned=True,
            width=_width([row.id for row in rows], 300),
        ),
        "state": column.TextColumn(
            "state", width=_width((with_sign(row.state, row.of.run.reason) for row in rows), 190)
        ),
        "done": column.ProgressColumn("done", min_value=0, max_value=100, format="%d %%", width=95, color=COLOURS[0]),
        "step": column.TextColumn(
            "step", help="Of the planned ones, and what the worker is doing", width=_width(map(_progress, rows), 190)
        ),
        "method": column.TextColumn("method", width=65),
        "rate": column.NumberColumn("pass rate (%)", format="%.1f", width=92),
        "interval": column.TextColumn("95 % interval", help="Of the pass rate, Wilson's, in percent", width=92),
        "on": column.TextColumn("scored on", help="Test where it was scored, else the newest on dev; @ step", width=80),
        "curve": column.LineChartColumn(
            f"evals {bottom:.0f}–{top:.0f} %",
            y_min=bottom,
            y_max=top,
            help="Pass rate of the evaluations during training; the same scale in every row",
            width=110,
            color=COLOURS[0],
        ),
        "gpu": column.NumberColumn("GPU-h", format="%.3g", width=68, help="Training time × GPUs"),
        "cpu": column.NumberColumn(cpu_unit, format="%.1f", width=68, help="Training time of runs without a GPU"),
        "created": column.DatetimeColumn("submitted", format="distance", width=110),
        "models": column.TextColumn("student ← teacher", width=170),
        "experiment": column.TextColumn("experiment", width=170),
        "arm": column.TextColumn("arm", width=130),
        "seed": column.NumberColumn("seed", format="%d", width=50),
        "tags": column.TextColumn("tags", width=120),
        "notes": column.TextColumn("notes", width=240),
    }


def _width(texts: Iterable[str], most: int) -> int:
    """Pixels that the longest of these takes."""
    return min(most, 16 + round(6.5 * max(map(len, texts), default=0)))


def _range(rows: Sequence[Row]) -> tuple[float, float]:
    """Of the small curves: tens of percent, around all of them."""
    curves = [row.of.evaluations for row in rows if len(row.of.evaluations) > 1]
    rates = [100 * rate for curve in curves for _, rate in curve if math.isfinite(rate)]
    if not rates:
        return 0.0, 100.0
    bottom, top = 10 * math.floor(min(rates) / 10), 10 * math.ceil(max(rates) / 10)
    return bottom, max(top, bottom + 10)


def _progress(row: Row) -> str:
    run = row.of.run
    step = f"{'–' if run.step is None else run.step}/{'?' if run.planned_steps is None else run.planned_steps}"
    if row.state != "running" or run.phase is None:
        return step
    counts = run.phase != "train" and run.progress_step is not None
    inside = f" {run.progress_step}/{'?' if run.progress_total is None else run.progress_total}" if counts else ""
    return f"{step} · {visible(run.phase)}{inside}"


def _interval(row: Row) -> str | None:
    score = row.of.score
    if score is None:
        return None
    if not math.isfinite(score.pass_rate):
        return "no number"
    if not (math.isfinite(score.low) and math.isfinite(score.high)):
        return None
    return f"{100 * score.low:.0f} – {100 * score.high:.0f}"


def _cpu_unit(rows: Sequence[Row]) -> tuple[str, float]:
    """As `atlas.comparison.wording.device_time` says it: what the longest run on a CPU wants."""
    longest = max((row.of.device_seconds or 0.0 for row in rows if not row.of.on_gpu), default=0.0)
    return ("CPU-h", 3600.0) if longest >= 3600 else ("CPU-min", 60.0) if longest >= 60 else ("CPU-s", 1.0)


def _any(column: "pd.Series[Any]") -> bool:
    return bool((column.notna() & (column != "")).any())


def _thinned(values: list[float]) -> list[float]:
    stride = -(-len(values) // _POINTS)
    return values if stride <= 1 else [*values[:-1:stride], values[-1]]


def _cut(text: str) -> str:
    line = " ".join(visible(text).split())
    return line if len(line) <= _CHARACTERS else f"{line[:_CHARACTERS]}…"


def _harmless(cell: Any) -> Any:
    """A spreadsheet runs what begins like a formula; text with an apostrophe before it is text."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell
