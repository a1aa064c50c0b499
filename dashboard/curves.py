"""Curves as they are drawn: thinned to what the pixels can show, read again only where a run has gone on.

A curve of many rows is made of the store's blocks (`atlas.store.blocks`), of their extremes and their means, and of few
rows from the rows. Which points are kept does not depend on the clock: another clock costs no reading.
N points of a curve, M means, R rows, B blocks, C clocks, K steps whose clocks are known.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from tsdownsample import MinMaxLTTBDownsampler

from atlas.errors import UsageError
from atlas.run import CLOCKS
from atlas.store import Store
from atlas.store.blocks import BLOCK_STEPS
from atlas.store.snapshot import ROW, Mark, Snapshot

POINTS = 800
"""Of one curve, at most: about one for each pixel of width."""
ALL_POINTS = 20_000
"""Of all curves of one chart together, as long as each has LEAST_POINTS: the browser has to draw them."""
LEAST_POINTS = 50
ROWS_FOR_A_POINT = 20
"""Up to so many rows for each point that may be drawn, a metric is read whole; above, its blocks are."""
CACHE_BYTES = 256 << 20
NONFINITE = 20
"""Of one curve, at most."""

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Curve:
    """One metric of one run over a clock, by step. Steps at which the clock was not recorded are left out.

    N points that were recorded: all or, if thinned, those that show the most (MinMaxLTTB), with the first, the last
    and the extremes. Thinned points lean outwards: a smoothed line is made of the means, which are of all points, as
    `atlas.analysis.smoothing.smoothed(mean_M, count_M, span)` over `mean_clock_M`, `span` in recorded points.
    """

    clock_N: FloatArray
    value_N: FloatArray
    """Finite."""
    nonfinite: tuple[tuple[float, str], ...]
    """(clock, `NaN` | `Infinity` | `-Infinity`) of the first such points."""
    points: int
    """How many were recorded, before thinning."""
    mean_clock_M: FloatArray
    """When the last point of each mean was recorded; interpolated where that step is not among the N."""
    mean_M: FloatArray
    """Of neighbouring points, at most as many as points may be drawn; the points themselves if they are so few."""
    count_M: IntArray
    """Of how many finite points."""


def curves(store: Store, run_ids: Sequence[str], metric: str, clock: str, points: int = POINTS) -> dict[str, Curve]:
    """Run id -> its curve; `clock` is `step` or one of `atlas.run.CLOCKS`. Runs without the metric are left out.

    Each has at most `points` points, fewer where many runs share a chart. What was read is kept for all sessions (of
    one store up to CACHE_BYTES): of a run that has not gone on nothing is read again, of another what is new.
    Raises UsageError for an unknown clock.
    """
    if clock not in ("step", *CLOCKS):
        raise UsageError(f"unknown clock {clock!r}; expected step or one of {', '.join(CLOCKS)}")
    points = _share(points, len(run_ids))
    cache = _cache_of(store)
    drawn = {}
    with cache.lock, store.snapshot() as snapshot:
        marks = snapshot.marks(run_ids)
        for run_id in run_ids:
            if run_id in marks:
                series = cache.get((run_id, metric, points))
                if series is None or series.mark != marks[run_id]:
                    series = _read(snapshot, marks[run_id], metric, points, series)
                    cache.put((run_id, metric, points), series)
                drawn[run_id] = _over(series, clock)
    return {run_id: curve for run_id, curve in drawn.items() if len(curve.value_N) or curve.nonfinite}


def _share(points: int, curves: int) -> int:
    """Halved until all curves together are few enough. (In halves, so that one more run seldom changes it.)"""
    while points * curves > ALL_POINTS and points // 2 >= LEAST_POINTS:
        points //= 2
    return points


@dataclass(frozen=True)
class _Series:
    """One metric of one run, as it was at `mark`: what the next reading goes on from, and what is drawn."""

    mark: Mark
    block_B: NDArray[np.void]
    row_R: NDArray[np.void] | None
    """None: there are too many."""
    step_N: IntArray
    value_N: FloatArray
    nonfinite: NDArray[np.void]
    end_step_M: IntArray
    mean_M: FloatArray
    count_M: IntArray
    step_K: IntArray
    """Of the N points and of `nonfinite`."""
    clock_CK: FloatArray

    @property
    def bytes(self) -> int:
        arrays = [value for value in vars(self).values() if isinstance(value, np.ndarray)]
        return 1024 + sum(array.nbytes for array in arrays)


def _read(snapshot: Snapshot, mark: Mark, metric: str, points: int, old: _Series | None) -> _Series:
    """The series now; what `old` has of it before the block of its mark is not read again."""
    if old is not None and old.mark.rewrites != mark.rewrites:
        old = None
    begin = old.mark.block if old else 0
    new_B = snapshot.blocks(mark, metric, begin)
    block_B = np.concatenate([old.block_B[old.block_B["block"] < begin], new_B]) if old else new_B
    row_R = None
    if block_B["count"].sum() + block_B["nonfinite"].sum() <= ROWS_FOR_A_POINT * points:
        if old is None or old.row_R is None:
            row_R = snapshot.rows(mark, metric)
        else:
            kept_R = old.row_R[old.row_R["step"] < begin * BLOCK_STEPS]
            row_R = np.concatenate([kept_R, snapshot.rows(mark, metric, begin)])
        nonfinite = row_R[~np.isfinite(row_R["value"])][:NONFINITE]
        finite_R = row_R[np.isfinite(row_R["value"])]
        step_N, value_N = _columns(finite_R["step"], finite_R["value"])
        means = _means_of_rows(step_N, value_N, points)
    else:
        nonfinite = _first_nonfinite(snapshot, mark, metric, block_B)
        step_N, value_N = _extremes(snapshot, mark, metric, block_B)
        means = _means_of_blocks(block_B, step_N[-1:], points)
    shown = _shown(value_N, points)
    step_N, value_N = step_N[shown], value_N[shown]
    step_K = np.union1d(step_N, nonfinite["step"])
    clock_CK = _clocks(snapshot, mark, step_K, begin, old)
    return _Series(mark, block_B, row_R, step_N, value_N, nonfinite, *means, step_K, clock_CK)


def _clocks(snapshot: Snapshot, mark: Mark, step_K: IntArray, begin: int, old: _Series | None) -> FloatArray:
    """The clocks at these steps; those that `old` has before the block `begin` are not read again."""
    if old is None:
        return snapshot.clocks(mark, step_K)
    clock_CK = np.empty((len(CLOCKS), len(step_K)))
    known_K = np.isin(step_K, old.step_K[old.step_K < begin * BLOCK_STEPS])
    clock_CK[:, known_K] = old.clock_CK[:, np.searchsorted(old.step_K, step_K[known_K])]
    clock_CK[:, ~known_K] = snapshot.clocks(mark, step_K[~known_K])
    return clock_CK


def _shown(value_N: FloatArray, points: int) -> NDArray[np.intp]:
    """The indices of at most `points` of the values."""
    if len(value_N) <= points:
        return np.arange(len(value_N))
    chosen = MinMaxLTTBDownsampler().downsample(value_N, n_out=points - 2)  # type: ignore[no-untyped-call]
    return np.union1d(chosen.astype(np.intp), [value_N.argmin(), value_N.argmax()])


def _extremes(snapshot: Snapshot, mark: Mark, metric: str, block_B: NDArray[np.void]) -> tuple[IntArray, FloatArray]:
    """The finite points by step: the lowest and the highest of each block, the first and the last."""
    block_B = block_B[block_B["count"] > 0]
    if not len(block_B):
        return np.array([], np.int64), np.array([])
    ends = [
        snapshot.rows(mark, metric, block, block + 1) for block in block_B["block"][[0, -1][: len(block_B)]].tolist()
    ]
    ends_R = np.concatenate([end_R[np.isfinite(end_R["value"])][[0, -1]] for end_R in ends])
    step_N = np.concatenate([ends_R["step"], block_B["low_step"], block_B["high_step"]])
    value_N = np.concatenate([ends_R["value"], block_B["low"], block_B["high"]])
    step_N, first_N = np.unique(step_N, return_index=True)
    return _columns(step_N, value_N[first_N])


def _first_nonfinite(snapshot: Snapshot, mark: Mark, metric: str, block_B: NDArray[np.void]) -> NDArray[np.void]:
    found, count = [], 0
    for block, _, nonfinite, *_ in block_B[block_B["nonfinite"] > 0].tolist():
        rows = snapshot.rows(mark, metric, block, block + 1)
        found.append(rows[~np.isfinite(rows["value"])])
        count += nonfinite
        if count >= NONFINITE:
            break
    return np.concatenate(found)[:NONFINITE] if found else np.array([], ROW)


def _means_of_rows(step_N: IntArray, value_N: FloatArray, points: int) -> tuple[IntArray, FloatArray, IntArray]:
    return _means(step_N, value_N, np.ones(len(value_N), dtype=np.int64), points)


def _means_of_blocks(
    block_B: NDArray[np.void], last_step: IntArray, points: int
) -> tuple[IntArray, FloatArray, IntArray]:
    block_B = block_B[np.isfinite(block_B["total"])]
    end_step_B = (block_B["block"] + 1) * BLOCK_STEPS - 1
    end_step_B[-1:] = np.minimum(end_step_B[-1:], last_step)
    return _means(end_step_B, block_B["total"], block_B["count"], points)


def _means(
    end_step: IntArray, total: FloatArray, count: IntArray, points: int
) -> tuple[IntArray, FloatArray, IntArray]:
    """(M, M, M) End, mean and count of equally many neighbours together, so that there are at most `points`."""
    size = -(-len(total) // points) or 1
    first = np.arange(0, len(total), size)
    if not len(first):
        return np.array([], np.int64), np.array([]), np.array([], np.int64)
    count_M = np.add.reduceat(count, first)
    with np.errstate(over="ignore"):
        mean_M = np.add.reduceat(total, first) / count_M
    finite_M = np.isfinite(mean_M)
    return end_step[np.append(first[1:], len(total)) - 1][finite_M], mean_M[finite_M], count_M[finite_M]


def _over(series: _Series, clock: str) -> Curve:
    reading_K = series.step_K.astype(np.float64) if clock == "step" else series.clock_CK[CLOCKS.index(clock)]
    clock_N = reading_K[np.searchsorted(series.step_K, series.step_N)]
    there_N, there_K = ~np.isnan(clock_N), ~np.isnan(reading_K)
    nonfinite = [
        (float(reading), _word(value))
        for reading, value in zip(
            reading_K[np.searchsorted(series.step_K, series.nonfinite["step"])], series.nonfinite["value"], strict=True
        )
        if not np.isnan(reading)
    ]
    mean_clock_M = (
        np.interp(series.end_step_M, series.step_K[there_K], reading_K[there_K])
        if there_K.any()
        else np.full(len(series.end_step_M), np.nan)
    )
    return Curve(
        clock_N[there_N],
        series.value_N[there_N],
        tuple(nonfinite),
        int(series.block_B["count"].sum() + series.block_B["nonfinite"].sum()),
        mean_clock_M,
        series.mean_M,
        series.count_M,
    )


def _word(value: float) -> str:
    if np.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _columns(step: IntArray, value: FloatArray) -> tuple[IntArray, FloatArray]:
    """Out of a structured array, each in one piece."""
    return np.ascontiguousarray(step), np.ascontiguousarray(value)


class _Cache:
    """The series that were asked for last, up to `most_bytes`. Use it under `lock`: then sessions that ask for the same
    do not read it twice."""

    def __init__(self, most_bytes: int) -> None:
        self.lock = threading.Lock()
        self.bytes = 0
        self._most_bytes = most_bytes
        self._series: OrderedDict[tuple[str, str, int], _Series] = OrderedDict()

    def get(self, key: tuple[str, str, int]) -> _Series | None:
        if key in self._series:
            self._series.move_to_end(key)
        return self._series.get(key)

    def put(self, key: tuple[str, str, int], series: _Series) -> None:
        old = self._series.pop(key, None)
        self.bytes -= old.bytes if old else 0
        self._series[key] = series
        self.bytes += series.bytes
        while self.bytes > self._most_bytes:
            self.bytes -= self._series.popitem(last=False)[1].bytes


_CACHES: WeakKeyDictionary[Store, _Cache] = WeakKeyDictionary()
"""By store: a store that was opened again, after `atlas reindex`, shares nothing with the old one."""


def _cache_of(store: Store) -> _Cache:
    return _CACHES.setdefault(store, _Cache(CACHE_BYTES))
