"""What is drawn across the chart of the pass rate: the models as they are, and the targets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from atlas.comparison.model import Comparison
from atlas.comparison.rows import target_name
from atlas.report.chart import baseline_rate, teacher_rate

_LABEL_HEIGHT = 15
"""Pixels of a label's line."""


@dataclass(frozen=True)
class Level:
    """A pass rate that is drawn across the chart."""

    name: str
    kind: str
    """`model` (the student or the teacher as they are) or `target`."""
    rate: float


def levels_of(comparison: Comparison) -> list[Level]:
    """Step 0 of the student, the teacher, and the targets."""
    first = comparison.arms[0].first if comparison.arms else None
    student = baseline_rate(comparison, "student")
    student = first.pass_rate if student is None and first is not None else student
    models = {"step 0": student, "teacher": teacher_rate(comparison)}
    found = [Level(name, "model", 100 * rate) for name, rate in models.items() if rate is not None and rate == rate]
    return found + [Level(target_name(target), "target", 100 * target.level) for target in comparison.targets]


def level_table(levels: Sequence[Level], bottom: float, top: float, height: int) -> pd.DataFrame:
    """Name, level, and where the name goes, on a plot from `bottom` to `top` (%) that is so many pixels high."""
    rates = [level.rate for level in levels]
    inside = [bottom <= rate <= top for rate in rates]
    arrows = ["" if there else "↑ " if rate > top else "↓ " for rate, there in zip(rates, inside, strict=True)]
    gap = (top - bottom) * _LABEL_HEIGHT / height
    return pd.DataFrame(
        {
            "text": [arrow + level_text(level) for arrow, level in zip(arrows, levels, strict=True)],
            "kind": [level.kind for level in levels],
            "rate": rates,
            "inside": pd.Series(inside, dtype=bool),
            "at": _apart(rates, gap, bottom, top),
        }
    )


def level_text(level: Level) -> str:
    """`teacher 96.0 %`"""
    return f"{level.name} {level.rate:.1f} %"


def _apart(rates: Sequence[float], gap: float, bottom: float, top: float) -> list[float]:
    """Where the names go: at their levels, or the edge nearest to it, pushed apart where these are close."""
    order = sorted(range(len(rates)), key=lambda i: rates[i])
    at = [0.0] * len(rates)
    lowest = -np.inf
    for i in order:
        at[i] = lowest = max(rates[i], bottom, lowest + gap)
    highest = top
    for i in reversed(order):
        at[i] = min(at[i], highest)
        highest = at[i] - gap
    return at
