"""The curves of one run: a few lines over a clock, with what is no number at the edges.

N points of a line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import altair as alt
import pandas as pd

from dashboard.charts.drawing import Drawing, layered, table, unchecked
from dashboard.charts.look import INK, colour, dash
from dashboard.clocks import Axis
from dashboard.curves import Curve

HEIGHT = 190
_KINDS = {"NaN": "NaN", "Infinity": "+∞", "-Infinity": "−∞"}
_SHAPES = {"NaN": "cross", "+∞": "triangle-up", "−∞": "triangle-down"}
_WARNING = "#D55E00"
_COUNT = "datum.value ? format(datum.value, '~s') : '0'"
"""A label of a count at the axis: `12k`; Vega calls an axis of nothing but 0 `NaN`."""
_FEW = 60
"""A line of fewer points shows them as points, too."""


@dataclass(frozen=True)
class Line:
    """One line of a panel."""

    name: str
    curve: Curve
    low: Curve | None = None
    high: Curve | None = None
    """Its interval, where there is one."""


def panel(title: str, lines: Sequence[Line], axis: Axis, factor: float, levels: Mapping[str, float]) -> Drawing:
    """The lines times `factor`; `levels` are drawn across. NaN and infinities are marks at the lower and upper edge."""
    points = _points(lines, axis, factor)
    tables = {
        "band": _band(lines, axis, factor),
        "levels": pd.DataFrame({"name": list(levels), "value": [level * factor for level in levels.values()]}),
        "lines": points,
        "dots": _points([line for line in lines if len(line.curve.clock_N) <= _FEW], axis, factor),
        "below": _marks(lines, axis, ("NaN", "-Infinity")),
        "above": _marks(lines, axis, ("Infinity",)),
    }
    tables = {name: rows for name, rows in tables.items() if len(rows)}
    spec = _spec(title, tuple(line.name for line in lines), axis, _format(points), tuple(tables))
    return Drawing(spec, tables, f"{title} over {axis.title}: {_in_words(lines, factor)}")


@lru_cache(maxsize=128)
@unchecked()
def _spec(title: str, names: tuple[str, ...], axis: Axis, numbers: str, there: tuple[str, ...]) -> dict[str, Any]:
    """Of the tables that are there."""
    ticks = alt.Axis(format=".3~r") if axis.unit else alt.Axis(labelExpr=_COUNT, tickMinStep=1)
    x = alt.X("clock:Q", title=axis.title, scale=alt.Scale(nice=False, padding=3), axis=ticks)
    labels = alt.Axis(format=numbers, tickCount=4)
    y = alt.Y("value:Q", title=None, scale=alt.Scale(zero=False, padding=6), axis=labels)
    scale, dashes = _scales(names)
    legend = alt.Legend(orient="top", title=None, symbolType="stroke") if len(names) > 1 else None
    colours, dash_of = (
        alt.Color("name:N", scale=scale, legend=legend),
        alt.StrokeDash("name:N", scale=dashes, legend=legend),
    )
    when = alt.Tooltip("clock:Q", title=axis.title, format=".4~g")
    value = alt.Tooltip("value:Q", title=title, format=".5~g")
    # What is near the pointer is named, without having to hit a line of one pixel.
    near = alt.selection_point(name="near", nearest=True, on="pointermove", empty=False, fields=["clock"])
    layers = {
        "band": table("band").mark_area(opacity=0.18, clip=True).encode(x=x, y=alt.Y("low:Q"), y2="high:Q"),
        "levels": table("levels").mark_rule(color=INK, strokeDash=[4, 3]).encode(y=y, tooltip=["name:N", value]),
        "level names": table("levels")
        .mark_text(align="right", baseline="bottom", dy=-2, color=INK, fontSize=11)
        .encode(x=alt.value("width"), y=y, text="name:N"),
        "lines": table("lines").mark_line(strokeWidth=1.6, clip=True).encode(x=x, y=y, strokeDash=dash_of),
        "dots": table("dots").mark_point(filled=True, size=26, opacity=1).encode(x=x, y=y),
        "below": _edge("below", x, HEIGHT - 7, when),
        "above": _edge("above", x, 7, when),
        "near": table("lines")
        .mark_point(filled=True, size=60)
        .encode(x=x, y=y, opacity=alt.condition(near, alt.value(1), alt.value(0)), tooltip=["name:N", when, value]),
    }
    drawn = [*there, *(["level names"] if "levels" in there else []), *(["near"] if "lines" in there else [])]
    coloured = ("band", "lines", "dots", "near")
    charts = [layers[name].encode(color=colours) if name in coloured else layers[name] for name in drawn]
    return layered(charts, HEIGHT, *([near] if "lines" in there else []))


def _edge(name: str, x: alt.X, pixels_from_above: int, when: alt.Tooltip) -> alt.Chart:
    shape = alt.Shape(
        "mark:N",
        title=None,
        scale=alt.Scale(domain=list(_SHAPES), range=list(_SHAPES.values())),
        legend=alt.Legend(orient="bottom", symbolFillColor=_WARNING, symbolStrokeColor=_WARNING),
    )
    return (
        table(name)
        .mark_point(filled=True, size=70, color=_WARNING, opacity=1)
        .encode(x=x, y=alt.value(pixels_from_above), shape=shape, tooltip=["name:N", "mark:N", when])
    )


def _format(points: pd.DataFrame) -> str:
    """Of the numbers at the axis: powers of ten where there would be many zeros."""
    largest = float(points["value"].abs().max()) if len(points) else 1.0
    return ".2~e" if largest and not 1e-3 <= largest < 1e5 else ".4~r"


def _scales(names: Sequence[str]) -> tuple[alt.Scale, alt.Scale]:
    numbers = range(len(names))
    dashes = [dash(number) or [1, 0] for number in numbers]
    return (
        alt.Scale(domain=list(names), range=[colour(number) for number in numbers]),
        alt.Scale(domain=list(names), range=dashes),
    )


def _points(lines: Sequence[Line], axis: Axis, factor: float) -> pd.DataFrame:
    frames = [
        pd.DataFrame(
            {"name": line.name, "clock": line.curve.clock_N / axis.divisor, "value": line.curve.value_N * factor}
        )
        for line in lines
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["name", "clock", "value"])


def _band(lines: Sequence[Line], axis: Axis, factor: float) -> pd.DataFrame:
    """Where both ends of the interval are drawn at the same reading of the clock."""
    rows = []
    for line in lines:
        if line.low is None or line.high is None:
            continue
        high = dict(zip(line.high.clock_N, line.high.value_N, strict=True))
        rows += [
            (line.name, at / axis.divisor, low * factor, high[at] * factor)
            for at, low in zip(line.low.clock_N, line.low.value_N, strict=True)
            if at in high
        ]
    return pd.DataFrame(rows, columns=["name", "clock", "low", "high"])


def _marks(lines: Sequence[Line], axis: Axis, words: Sequence[str]) -> pd.DataFrame:
    rows = [
        (line.name, at / axis.divisor, _KINDS[word])
        for line in lines
        for at, word in line.curve.nonfinite
        if word in words
    ]
    return pd.DataFrame(rows, columns=["name", "clock", "mark"])


def _in_words(lines: Sequence[Line], factor: float) -> str:
    ends = [f"{line.name} ends at {line.curve.value_N[-1] * factor:.4g}" for line in lines if len(line.curve.value_N)]
    return ", ".join(ends) or "no finite value"
