"""The pass rate over a clock: who gets how far, and when.

One chart of layers; their tables are made in `evaluations.py` and `levels.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import altair as alt
import pandas as pd

from atlas.comparison.model import ArmResult, Comparison
from atlas.comparison.rows import target_name
from atlas.report.chart import split_of
from dashboard.charts.arms import Arms, highlight, lit, places
from dashboard.charts.drawing import Drawing, layered, table, unchecked
from dashboard.charts.evaluations import evaluation_points, evaluations_without_a_number, seed_bands
from dashboard.charts.levels import Level, level_table, level_text, levels_of
from dashboard.charts.look import INK
from dashboard.clocks import Axis

HEIGHT = 440


@dataclass(frozen=True)
class _Plot:
    """What the layers share."""

    arms: Arms
    axis: Axis
    measured_on: str
    bottom: float
    top: float

    def x(self) -> alt.X:
        scale = alt.Scale(nice=False, zero=True, padding=6)
        return alt.X("clock:Q", title=self.axis.title, scale=scale, axis=alt.Axis(tickCount=12))

    def y(self, field: str = "rate") -> alt.Y:
        return alt.Y(f"{field}:Q", title=f"pass rate on {self.measured_on} (%)", scale=self.y_scale())

    def y_scale(self) -> alt.Scale:
        return alt.Scale(domain=[self.bottom, self.top], nice=False, zero=False)


def pass_rate_chart(
    comparison: Comparison, axis: Axis, shown: Sequence[ArmResult], fit: bool = False
) -> Drawing | None:
    """A mean line and a band from the lowest to the highest seed for each arm, a thin line with markers for each seed;
    with one seed its 95 % Wilson intervals. Teacher, step 0 and targets are lines with names; crosses mark targets that
    were reached. With `fit` the scale is that of the runs, and lines beyond it are named at the edge. None where
    nothing was evaluated."""
    points = evaluation_points(shown, axis)
    if points.empty:
        return None
    levels = levels_of(comparison)
    names = tuple(arm.name for arm in shown)
    plot = _Plot(Arms(names), axis, split_of(comparison), *_domain(points, [] if fit else levels))
    named, bands = level_table(levels, plot.bottom, plot.top, HEIGHT), seed_bands(shown, axis)
    points["place"], bands["place"] = places(names, points["arm"]), places(names, bands["arm"])
    tables = {
        "models": named[named["inside"] & (named["kind"] == "model")],
        "targets": named[named["inside"] & (named["kind"] == "target")],
        "levels": named,
        "bands": bands,
        "seeds": points[~points["alone"]],
        "alone": points[points["alone"]],
        "crosses": _crosses(comparison, shown, plot),
        "nans": evaluations_without_a_number(shown, axis),
    }
    tables = {name: rows for name, rows in tables.items() if len(rows)}
    return Drawing(_spec(plot, tuple(tables)), tables, _in_words(comparison, axis, shown))


@lru_cache(maxsize=32)
@unchecked()
def _spec(plot: _Plot, tables: tuple[str, ...]) -> dict[str, Any]:
    drawn: dict[str, Callable[[], list[alt.Chart]]] = {
        "models": lambda: [_rule("models", plot, [1, 0])],
        "targets": lambda: [_rule("targets", plot, [2, 3])],
        "levels": lambda: [_level_names(plot)],
        "bands": lambda: _band_layers(plot),
        "seeds": lambda: _seed_layers("seeds", plot),
        "alone": lambda: [_whiskers(plot), *_seed_layers("alone", plot)],
        "crosses": lambda: [_cross_layer(plot)],
        "nans": lambda: [_nan_layer(plot)],
    }
    return layered([layer for name in tables for layer in drawn[name]()], HEIGHT, highlight())


def _in_words(comparison: Comparison, axis: Axis, shown: Sequence[ArmResult]) -> str:
    peaks = "; ".join(f"{arm.name} peaks at {100 * arm.peak.pass_rate:.1f} %" for arm in shown if arm.peak)
    levels = ", ".join(level_text(level) for level in levels_of(comparison))
    return f"Pass rate on {split_of(comparison)} over {axis.title}. {peaks}. Lines across: {levels}."


def _crosses(comparison: Comparison, shown: Sequence[ArmResult], plot: _Plot) -> pd.DataFrame:
    """When which run reached which target; the step at which it did is not known exactly, so there is none."""
    rows = [
        (arm.name, run.id, target_name(target), when.value / plot.axis.divisor, 100 * target.level)
        for target in comparison.targets
        if plot.bottom <= 100 * target.level <= plot.top
        for arm in shown
        for run, when in zip(arm.runs, target.reached.get(arm.name, {}).get(plot.axis.clock, ()), strict=False)
        if when.value is not None
    ]
    return pd.DataFrame(rows, columns=["arm", "run", "target", "clock", "rate"])


def _domain(points: pd.DataFrame, levels: Sequence[Level]) -> tuple[float, float]:
    rates = [*points["rate"], *points[points["alone"]]["low"], *points[points["alone"]]["high"]]
    rates += [level.rate for level in levels]
    room = 0.05 * max(max(rates) - min(rates), 4.0)
    return max(0.0, min(rates) - room), min(100.0, max(rates) + room)


def _level_names(plot: _Plot) -> alt.Chart:
    names = table("levels").mark_text(align="left", baseline="middle", dx=8, color=INK, fontSize=12)
    return names.encode(x=alt.value("width"), y=plot.y("at"), text=alt.Text("text:N"))


def _rule(name: str, plot: _Plot, dashes: list[int]) -> alt.Chart:
    rule = table(name).mark_rule(color=INK, strokeWidth=1.2, strokeDash=dashes)
    return rule.encode(y=plot.y(), tooltip=[alt.Tooltip("text:N", title="level")])


def _band_layers(plot: _Plot) -> list[alt.Chart]:
    area = (
        table("bands")
        .mark_area(clip=True)
        .encode(
            x=plot.x(),
            y=plot.y("low"),
            y2=alt.Y2("high:Q"),
            color=plot.arms.colour(Arms.legend()),
            opacity=lit(0.16, 0.03),
        )
    )
    mean = (
        table("bands")
        .mark_line(strokeWidth=3, clip=True)
        .encode(
            x=plot.x(),
            y=plot.y(),
            color=plot.arms.colour(Arms.legend()),
            strokeDash=plot.arms.dash(),
            opacity=lit(1.0),
            tooltip=[
                alt.Tooltip("arm:N"),
                alt.Tooltip("seeds:Q", title="mean of seeds"),
                alt.Tooltip("rate:Q", title="mean (%)", format=".1f"),
                alt.Tooltip("low:Q", title="lowest seed (%)", format=".1f"),
                alt.Tooltip("high:Q", title="highest seed (%)", format=".1f"),
            ],
        )
    )
    return [area, mean]


def _seed_layers(name: str, plot: _Plot) -> list[alt.Chart]:
    """Lines and markers of the runs: `seeds` of an arm that has several, thin, or `alone`."""
    alone = name == "alone"
    base = table(name).encode(x=plot.x(), y=plot.y(), color=plot.arms.colour(Arms.legend()), detail=alt.Detail("run:N"))
    lines = base.mark_line(strokeWidth=2.5 if alone else 0.9, clip=True).encode(
        strokeDash=plot.arms.dash(), opacity=lit(1.0 if alone else 0.55)
    )
    clock = alt.Tooltip("clock:Q", title=plot.axis.title, format=".4~g")
    marks = base.mark_point(filled=True, size=70 if alone else 28, clip=True).encode(
        shape=plot.arms.shape(Arms.legend()),
        opacity=lit(1.0 if alone else 0.75),
        tooltip=[
            alt.Tooltip("run:N"),
            alt.Tooltip("arm:N"),
            alt.Tooltip("seed:O"),
            alt.Tooltip("state:N"),
            alt.Tooltip("step:Q"),
            *([] if plot.axis.clock == "step" else [clock]),
            alt.Tooltip("rate:Q", title="pass rate (%)", format=".1f"),
            alt.Tooltip("low:Q", title="95 % from", format=".1f"),
            alt.Tooltip("high:Q", title="95 % to", format=".1f"),
        ],
    )
    return [lines, marks]


def _whiskers(plot: _Plot) -> alt.Chart:
    """Wilson's intervals of runs that have no other seed beside them."""
    rule = table("alone").mark_rule(strokeWidth=1.4, clip=True)
    return rule.encode(
        x=plot.x(), y=plot.y("low"), y2=alt.Y2("high:Q"), color=plot.arms.colour(Arms.legend()), opacity=lit(0.7)
    )


def _cross_layer(plot: _Plot) -> alt.Chart:
    return (
        table("crosses")
        .mark_text(text="✕", fontSize=15, fontWeight="bold")
        .encode(
            x=plot.x(),
            y=plot.y(),
            color=plot.arms.colour(Arms.legend()),
            opacity=lit(1.0),
            tooltip=[
                alt.Tooltip("target:N", title="reached"),
                alt.Tooltip("run:N"),
                alt.Tooltip("clock:Q", title=plot.axis.title, format=".4~g"),
                alt.Tooltip("rate:Q", title="level (%)", format=".1f"),
            ],
        )
    )


def _nan_layer(plot: _Plot) -> alt.Chart:
    marks = table("nans").mark_text(text="NaN", fontSize=10, fontWeight="bold", color="#D55E00", dy=-6)
    return marks.encode(
        x=plot.x(),
        y=alt.YDatum(plot.bottom, scale=plot.y_scale()),
        tooltip=[alt.Tooltip("run:N"), alt.Tooltip("arm:N"), alt.Tooltip("step:Q")],
    )
