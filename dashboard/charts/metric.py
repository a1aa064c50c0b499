"""Any metric over any clock, one chart for each metric.

G points of a mean.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from atlas.analysis.curves import FloatArray, band
from atlas.analysis.smoothing import smoothed
from dashboard.charts.arms import Arms, highlight, lit, places
from dashboard.charts.drawing import Drawing, layered, table, unchecked
from dashboard.clocks import Axis
from dashboard.curves import Curve

HEIGHT = 230
_MARKS = {"NaN": "NaN", "Infinity": "+∞", "-Infinity": "−∞"}


def metric_chart(
    name: str,
    arms: Mapping[str, Sequence[str]],
    raw: Mapping[str, Curve],
    span: float | None,
    axis: Axis,
    log: bool,
) -> Drawing | None:
    """What was recorded as thin lines, one for each run, and over them for each arm the mean over its runs, smoothed
    over `span` recorded points (None: not at all). What is no number is a mark at the edge.

    `arms`: name -> ids of its runs. `log` is heeded where all values are positive. None where no run has the metric.
    """
    if not raw:
        return None
    lines = _lines(arms, raw, axis)
    means = _means(arms, raw, span, axis)
    means["place"] = places(list(arms), means["arm"])
    positive = bool(len(lines)) and bool((lines["value"] > 0).all())
    tables = {"lines": lines, "means": means, "marks": _marks(arms, raw, axis)}
    tables = {key: rows for key, rows in tables.items() if len(rows)}
    spec = _spec(name, tuple(arms), axis, log and positive, tuple(tables))
    return Drawing(spec, tables, f"{name} over {axis.title}: {_in_words(means)}")


@lru_cache(maxsize=128)
@unchecked()
def _spec(name: str, arms: tuple[str, ...], axis: Axis, log: bool, tables: tuple[str, ...]) -> dict[str, Any]:
    scale = alt.Scale(type="log" if log else "linear", zero=False, nice=True, padding=4)
    x = alt.X("clock:Q", title=axis.title, scale=alt.Scale(nice=False), axis=alt.Axis(tickCount=6))
    y = alt.Y("value:Q", title=None, scale=scale, axis=alt.Axis(format="~g", tickCount=5))
    look = Arms(arms)
    colour = look.colour(
        alt.Legend(
            orient="bottom", columns=3, labelLimit=100, symbolOpacity=1, symbolType="stroke", symbolStrokeWidth=3
        )
    )
    clock = alt.Tooltip("clock:Q", title=axis.title, format=".4~g")
    value = alt.Tooltip("value:Q", title=name, format=".5~g")
    arm, run = alt.Tooltip("arm:N"), alt.Tooltip("run:N")
    layers = {
        "lines": table("lines")
        .mark_line(strokeWidth=0.8, clip=True)
        .encode(x, y, alt.Detail("run:N"), colour, lit(0.45), tooltip=[run, clock, value]),
        "means": table("means")
        .mark_line(strokeWidth=2.2, clip=True)
        .encode(
            x,
            y,
            colour,
            look.dash(),
            lit(1.0),
            tooltip=[arm, alt.Tooltip("runs:Q", title="mean of runs"), clock, value],
        ),
        "marks": table("marks")
        .mark_text(fontSize=10, fontWeight="bold", baseline="bottom")
        .encode(
            x,
            alt.Text("mark:N"),
            colour,
            lit(1.0),
            y=alt.value(HEIGHT - 2),
            tooltip=[run, alt.Tooltip("mark:N", title=name), clock],
        ),
    }
    return layered([layers[key] for key in tables], HEIGHT, highlight())


def all_positive(raw: Mapping[str, Curve]) -> bool:
    """Whether a logarithmic scale can show the metric."""
    return all(bool((curve.value_N > 0).all()) for curve in raw.values())


def _lines(arms: Mapping[str, Sequence[str]], raw: Mapping[str, Curve], axis: Axis) -> pd.DataFrame:
    """Every point; names are stored once for each run, not once for each point."""
    runs = [(arm, run_id) for arm, run_ids in arms.items() for run_id in run_ids if run_id in raw]
    sizes = [len(raw[run_id].clock_N) for _, run_id in runs]
    of_run_N = np.repeat(np.arange(len(runs)), sizes)
    arm_names = list(arms)
    of_arm_N = np.repeat([arm_names.index(arm) for arm, _ in runs], sizes)
    return pd.DataFrame(
        {
            "arm": pd.Categorical.from_codes(of_arm_N.astype(np.int32), arm_names),
            "run": pd.Categorical.from_codes(of_run_N.astype(np.int32), [run_id for _, run_id in runs]),
            "clock": np.concatenate([raw[run_id].clock_N for _, run_id in runs] or [np.empty(0)]) / axis.divisor,
            "value": np.concatenate([raw[run_id].value_N for _, run_id in runs] or [np.empty(0)]),
        }
    )


def _means(arms: Mapping[str, Sequence[str]], raw: Mapping[str, Curve], span: float | None, axis: Axis) -> pd.DataFrame:
    frames = []
    for arm, run_ids in arms.items():
        there = [_smooth(raw[run_id], span) for run_id in run_ids if run_id in raw and len(raw[run_id].mean_M)]
        if not there:
            continue
        over_runs = band(there) if len(there) > 1 else None
        clock_G, value_G = (over_runs.clock_G, over_runs.mean_G) if over_runs is not None else there[0]
        frames.append(pd.DataFrame({"arm": arm, "runs": len(there), "clock": clock_G / axis.divisor, "value": value_G}))
    columns = ["arm", "runs", "clock", "value"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def _smooth(curve: Curve, span: float | None) -> tuple[FloatArray, FloatArray]:
    """Of all recorded points, not of those that are drawn."""
    value_M = curve.mean_M if span is None else smoothed(curve.mean_M, curve.count_M, span)
    return curve.mean_clock_M, value_M


def _marks(arms: Mapping[str, Sequence[str]], raw: Mapping[str, Curve], axis: Axis) -> pd.DataFrame:
    rows = [
        (arm, run_id, at / axis.divisor, _MARKS[word])
        for arm, run_ids in arms.items()
        for run_id in run_ids
        if run_id in raw
        for at, word in raw[run_id].nonfinite
    ]
    return pd.DataFrame(rows, columns=["arm", "run", "clock", "mark"])


def _in_words(means: pd.DataFrame) -> str:
    if means.empty:
        return "no finite value"
    last = means.groupby("arm", sort=False)["value"].last()
    return ", ".join(f"{arm} ends at {value:.4g}" for arm, value in last.items())
