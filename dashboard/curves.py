"""Curves as they are drawn: thinned to what the pixels can show, read again only where a run has gone on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atlas.store import Store

POINTS = 800
"""Of one curve, at most: about one for each pixel of width."""


@dataclass(frozen=True)
class Curve:
    """One metric of one run over a clock. N points, by step; a thinned curve keeps its extremes (MinMaxLTTB)."""

    clock_N: NDArray[np.float64]
    value_N: NDArray[np.float64]
    """Finite."""
    nonfinite: tuple[tuple[float, str], ...]
    """(clock, `NaN` | `Infinity` | `-Infinity`) of the first such points."""
    points: int
    """How many were recorded, before thinning."""


def curves(store: Store, run_ids: Sequence[str], metric: str, clock: str, points: int = POINTS) -> dict[str, Curve]:
    """Run id -> its curve; `clock` is `step` or one of `atlas.run.CLOCKS`. Runs without the metric are left out."""
    return {run_id: curve for run_id in run_ids if (curve := _curve(store, run_id, metric, clock, points)).points}


def _curve(store: Store, run_id: str, metric: str, clock: str, points: int) -> Curve:
    rows = store.metrics(run_id, metric) if clock == "step" else store.curve(run_id, metric, clock)
    clock_N, value_N = (
        np.array(column, dtype=np.float64) for column in (zip(*rows, strict=True) if rows else ((), ()))
    )
    finite_N = np.isfinite(value_N)
    words = {True: "Infinity", False: "-Infinity"}
    nonfinite = tuple(
        (float(at), "NaN" if np.isnan(value) else words[bool(value > 0)])
        for at, value in zip(clock_N[~finite_N], value_N[~finite_N], strict=True)
    )
    return Curve(clock_N[finite_N], value_N[finite_N], nonfinite[:20], len(rows))
