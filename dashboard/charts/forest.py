"""The verdicts as a picture: each arm against the reference, with the interval that decides whether it is a claim."""

import math
from collections.abc import Sequence

import altair as alt
import pandas as pd

from atlas.comparison.model import Comparison, Verdict
from atlas.comparison.wording import number, percent
from dashboard.charts.arms import Arms
from dashboard.charts.drawing import Drawing, layered, table, unchecked
from dashboard.charts.look import INK

_ROW = 34
"""Pixels of an arm."""
_WIDEST = 32.0
"""Ratios beyond this, or under one over it, are drawn at the edge: two seeds may leave almost anything possible."""


def difference_chart(comparison: Comparison, names: Sequence[str]) -> Drawing | None:
    """Pass rate on test, arm minus reference, in points. `names`: of all arms, in the order of their colours."""
    rows = [
        (verdict.arm, 100 * found.value, 100 * found.low, 100 * found.high)
        for verdict in comparison.verdicts
        if (found := verdict.difference) is not None and math.isfinite(found.value)
    ]
    if not rows:
        return None
    frame = pd.DataFrame(rows, columns=["arm", "value", "low", "high"])
    frame["text"] = [f"{value:+.1f} [{low:+.1f}, {high:+.1f}]" for _, value, low, high in rows]
    title = f"points on test ({percent(comparison.level)} % interval)"
    return _forest(
        frame,
        names,
        title,
        f"Pass rate on test against {comparison.arms[0].name}",
        nothing=0.0,
        scale=alt.Scale(zero=False, padding=12),
    )


def speed_chart(comparison: Comparison, names: Sequence[str]) -> Drawing | None:
    """Training time to the weaker arm's peak: the reference's over the arm's, so that right of 1 the arm is sooner."""
    rows = [row for verdict in comparison.verdicts if (row := _speed_row(verdict)) is not None]
    if not rows:
        return None
    frame = pd.DataFrame(rows, columns=["arm", "value", "low", "high", "text"])
    title = f"right of 1: sooner; left: later (×, {percent(comparison.level)} % interval)"
    domain = [min(0.5, *frame["low"]), max(2.0, *frame["high"])]
    scale = alt.Scale(type="log", domain=domain, nice=False, clamp=True)
    return _forest(frame, names, title, f"Training time against {comparison.arms[0].name}", nothing=1.0, scale=scale)


def _speed_row(verdict: Verdict) -> tuple[str, float, float, float, str] | None:
    """None where no speed-up can be given; with one seed the interval is the point."""
    ratio = verdict.speed_up
    if verdict.sooner is None or ratio is None or not math.isfinite(ratio.value):
        return None
    low, high = (ratio.low, ratio.high) if math.isfinite(ratio.low) else (ratio.value, ratio.value)
    value = ratio.value
    if verdict.sooner != verdict.arm:
        value, low, high = 1 / value, 1 / high, (1 / low if low > 0 else math.inf)
    unknown = "" if math.isfinite(ratio.low) else ", one seed: no interval"
    text = f"{number(value)}×{unknown or f' [{number(low)}, {number(high)}]'}"
    value, low, high = (min(max(bound, 1 / _WIDEST), _WIDEST) for bound in (value, low, high))
    return verdict.arm, value, low, high, text


@unchecked()
def _forest(
    frame: pd.DataFrame, names: Sequence[str], title: str, what: str, nothing: float, scale: alt.Scale
) -> Drawing:
    arms = Arms(tuple(names))
    x = alt.X("value:Q", title=title, scale=scale, axis=alt.Axis(grid=False, titleFontWeight="normal"))
    y = alt.Y("arm:N", title=None, sort=None, axis=alt.Axis(labelLimit=160, labelFontSize=13, ticks=False))
    tooltip = [alt.Tooltip("arm:N"), alt.Tooltip("text:N", title=title)]
    base = table("verdicts").encode(y=y, color=arms.colour(), tooltip=tooltip)
    zero = table("nothing").mark_rule(color=INK, strokeDash=[3, 3]).encode(x=alt.X("value:Q"))
    interval = base.mark_rule(strokeWidth=3, opacity=0.55, strokeCap="round").encode(
        x=alt.X("low:Q"), x2=alt.X2("high:Q")
    )
    value = base.mark_point(filled=True, size=110, opacity=1).encode(x=x, shape=arms.shape())
    text = base.mark_text(dy=-12, fontSize=11).encode(x=x, text=alt.Text("text:N"), color=alt.ColorValue(INK))
    spec = layered([zero, interval, value, text], _ROW * len(frame) + 8)
    tables = {"verdicts": frame, "nothing": pd.DataFrame({"value": [nothing]})}
    said = "; ".join(f"{arm}: {text}" for arm, text in zip(frame["arm"], frame["text"], strict=True))
    return Drawing(spec, tables, f"{what}, {title}. {said}")
