"""Where the hours went."""

from collections.abc import Mapping

import altair as alt
import pandas as pd

from atlas.comparison.phases import OFF_THE_CLOCK, in_order, phase_name
from atlas.report.chart import COLOURS, PHASE_COLOURS
from atlas.report.numbers import duration
from dashboard.charts.drawing import Drawing, layered, table, unchecked
from dashboard.charts.look import INK

_ROW = 36
_OFF = " (off the clock)"


@unchecked()
def phase_chart(phases: Mapping[str, Mapping[str, float]]) -> Drawing:
    """A bar for each arm, of mean seconds by phase. Hollow, dashed and said in the legend: what the training clock
    leaves out."""
    names = [*sorted(in_order(phases), key=lambda name: name in OFF_THE_CLOCK)]
    longest = max((sum(seconds.values()) for seconds in phases.values()), default=0.0)
    unit, divisor = next(
        each for each in (("h", 3600.0), ("min", 60.0), ("s", 1.0)) if longest >= 3 * each[1] or each[1] == 1
    )
    rows = []
    for arm, seconds in phases.items():
        start = 0.0
        for name in names:
            end = start + seconds.get(name, 0.0)
            share = seconds.get(name, 0.0) / (sum(seconds.values()) or 1.0)
            rows.append(
                (arm, _label(name), start / divisor, end / divisor, duration(end - start), share, name in OFF_THE_CLOCK)
            )
            start = end
    frame = pd.DataFrame(rows, columns=["arm", "phase", "start", "end", "time", "share", "off"])
    labels = [_label(name) for name in names]
    colours = [PHASE_COLOURS.get(name, COLOURS[number % len(COLOURS)]) for number, name in enumerate(names)]
    colour = alt.Scale(domain=labels, range=colours)
    legend = alt.Legend(orient="bottom", title=None, symbolOpacity=1, symbolStrokeWidth=0, labelLimit=240, columns=5)
    encoding = {
        "y": alt.Y(
            "arm:N", title=None, sort=list(phases), axis=alt.Axis(labelLimit=200, labelFontSize=13, ticks=False)
        ),
        "x": alt.X("start:Q", title=f"mean time of a run ({unit})", scale=alt.Scale(nice=False)),
        "x2": alt.X2("end:Q"),
        "tooltip": [
            alt.Tooltip("arm:N"),
            alt.Tooltip("phase:N"),
            alt.Tooltip("time:N"),
            alt.Tooltip("share:Q", title="of the whole run", format=".0%"),
        ],
    }
    on = table("on").mark_bar(height=22).encode(**encoding, color=alt.Color("phase:N", scale=colour, legend=legend))
    off = (
        table("off")
        .mark_bar(height=20, fillOpacity=0.25, stroke=INK, strokeWidth=1.4, strokeDash=[3, 2])
        .encode(
            **encoding,
            color=alt.Color("phase:N", scale=colour, legend=legend),
        )
    )
    tables = {name: part for name, part in (("on", frame[~frame["off"]]), ("off", frame[frame["off"]])) if len(part)}
    layers = [layer for name, layer in (("on", on), ("off", off)) if name in tables]
    spec = layered(layers, _ROW * len(phases) + 10)
    said = "; ".join(
        f"{arm}: " + ", ".join(f"{phase_name(name)} {duration(spent)}" for name, spent in seconds.items())
        for arm, seconds in phases.items()
    )
    return Drawing(spec, tables, f"Mean time of a run by phase. {said}")


def _label(phase: str) -> str:
    return phase_name(phase) + (_OFF if phase in OFF_THE_CLOCK else "")
