"""How the arms of a comparison are drawn: the same colour, dash and marker in every chart of a page."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd

from atlas.report.chart import COLOURS
from dashboard.charts.look import colour, dash

SHOWN = 12
"""Arms that a chart can hold and a reader can tell apart; the tables have all of them."""
MARKS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")
"""Vega's shapes of the points, in the order of the arms."""
SIGNS = "●■▲◆▼✚"
"""The same as characters, for text and tables."""


def sign(number: int) -> str:
    """The marker of the arm with this number, as a character."""
    return SIGNS[_mark(number)]


def _mark(number: int) -> int:
    """Shifted by one with each round of colours: colour and marker together stand for one arm only."""
    return (number + number // len(COLOURS)) % len(MARKS)


@dataclass(frozen=True)
class Arms:
    """Scales over the field `arm`. A click on the legend (several with shift) highlights: `highlight` is its name."""

    names: tuple[str, ...]

    def colour(self, legend: alt.Legend | None = None) -> alt.Color:
        scale = alt.Scale(domain=list(self.names), range=[colour(number) for number in range(len(self.names))])
        return alt.Color("arm:N", title=None, scale=scale, legend=legend)

    def shape(self, legend: alt.Legend | None = None) -> alt.Shape:
        marks = [MARKS[_mark(number)] for number in range(len(self.names))]
        return alt.Shape("arm:N", title=None, scale=alt.Scale(domain=list(self.names), range=marks), legend=legend)

    def dash(self) -> alt.StrokeDash:
        """By `place` (`places`) and without a legend: dashes around its symbols would hide their shapes."""
        dashes: list[Any] = [dash(number) or [1, 0] for number in range(len(self.names))]
        scale = alt.Scale(domain=list(range(len(self.names))), range=dashes)
        return alt.StrokeDash("place:O", scale=scale, legend=None)

    @staticmethod
    def legend() -> alt.Legend:
        return alt.Legend(
            orient="top",
            symbolSize=130,
            symbolStrokeWidth=2.5,
            symbolOpacity=1,
            labelFontSize=13,
            labelLimit=160,
            columns=6,
        )


def places(names: Sequence[str], arms: pd.Series) -> pd.Series:
    """The number of each row's arm, which its dash goes by."""
    return arms.astype(str).map({name: number for number, name in enumerate(names)})


def highlight() -> alt.Parameter:
    """Chosen by a click on the legend; nothing chosen is all chosen."""
    return alt.selection_point(name="arms", fields=["arm"], bind="legend")


def lit(opacity: float, dimmed: float = 0.06) -> alt.OpacityValue:
    """This opacity where the arm is highlighted, nearly none where it is not."""
    return alt.OpacityValue(dimmed, condition={"param": "arms", "value": opacity})
