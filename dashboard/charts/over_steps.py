"""Small panels: one metric of a few runs over steps, and one key for all panels."""

from collections.abc import Mapping

import altair as alt
import pandas as pd

from dashboard.charts.look import INK, colour, dash
from dashboard.curves import Curve

_HEIGHT = 215


def panel(
    curves: Mapping[str, Curve], numbers: Mapping[str, int], title: str, line: float | None = None
) -> alt.LayerChart:
    """The curves by name; a name has the colour and the dash of its number. A run of one step is a point. `line` is a
    level worth seeing."""
    table = pd.concat(
        [pd.DataFrame({"step": curve.clock_N, "value": curve.value_N, "run": name}) for name, curve in curves.items()]
    )
    names = list(numbers)
    scales = {
        "color": alt.Color(
            "run:N", scale=alt.Scale(domain=names, range=[colour(numbers[name]) for name in names]), legend=None
        ),
        "strokeDash": alt.StrokeDash(
            "run:N", scale=alt.Scale(domain=names, range=[dash(numbers[name]) or [1, 0] for name in names]), legend=None
        ),
    }
    base = alt.Chart(table).encode(
        x=alt.X("step:Q", title="step", axis=alt.Axis(tickMinStep=1)),
        y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(format="~g", tickCount=5)),
        tooltip=[
            alt.Tooltip("run:N"),
            alt.Tooltip("step:Q", format=",.0f"),
            alt.Tooltip("value:Q", format=".4g", title=title),
        ],
    )
    layers = [
        base.mark_line(strokeWidth=1.6).encode(**scales),
        base.mark_point(size=22, filled=True, opacity=0.75).encode(color=scales["color"]),
    ]
    if line is not None:
        rule = alt.Chart(pd.DataFrame({"value": [line]})).mark_rule(color=INK, strokeDash=[4, 4])
        layers.insert(0, rule.encode(y=alt.Y("value:Q", title=None)))
    return alt.LayerChart(
        layer=layers, height=_HEIGHT, title=alt.Title(title, fontSize=13, anchor="start", fontWeight="normal")
    )


def key(numbers: Mapping[str, int]) -> alt.LayerChart:
    """Which line is which run."""
    table = pd.DataFrame({"run": list(numbers), "from": 0, "to": 36, "text": 44})
    names = list(numbers)
    base = alt.Chart(table).encode(y=alt.Y("run:N", sort=names, axis=None))
    x = alt.Scale(domain=[0, 600], nice=False)
    line = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("from:Q", axis=None, scale=x),
        x2="to:Q",
        color=alt.Color(
            "run:N", scale=alt.Scale(domain=names, range=[colour(numbers[name]) for name in names]), legend=None
        ),
        strokeDash=alt.StrokeDash(
            "run:N", scale=alt.Scale(domain=names, range=[dash(numbers[name]) or [1, 0] for name in names]), legend=None
        ),
    )
    text = base.mark_text(align="left", color=INK, fontSize=12).encode(
        x=alt.X("text:Q", axis=None, scale=x), text="run:N"
    )
    return alt.LayerChart(
        layer=[line, text], height=20 * len(names) + 10, width=600, view=alt.ViewBackground(stroke=None)
    )
