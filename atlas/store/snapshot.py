"""Long metrics as arrays, for those who draw many runs and follow them: `atlas.store.queries` answers in lists.

N rows, B blocks, C clocks of `atlas.run.CLOCKS`.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atlas.run import CLOCKS
from atlas.store.blocks import BLOCK_STEPS

ROW = np.dtype([("step", "i8"), ("value", "f8")])
"""One metric row; NaN and infinities as such."""
BLOCK = np.dtype(
    [
        *((name, "i8") for name in ("block", "count", "nonfinite")),
        *((name, "f8") for name in ("total", "low")),
        ("low_step", "i8"),
        ("high", "f8"),
        ("high_step", "i8"),
    ]
)
"""One row of `atlas.store.models.MetricBlock`. With `count` 0: numbers NaN, steps -1."""
_VALUE = "ifnull(value, CASE nonfinite WHEN 'Infinity' THEN 9e999 WHEN '-Infinity' THEN -9e999 END)"
_OF_METRIC = "run = ? AND key_id = (SELECT id FROM metric_key WHERE name = ?)"


@dataclass(frozen=True)
class Mark:
    """How much of a run's metrics is stored. Equal marks of one database: nothing has changed."""

    number: int
    """What the tables call the run."""
    rewrites: int
    """As long as it is the same, nothing has changed before the block of `step`."""
    offset_bytes: int
    step: int | None
    """The newest step with a metric."""

    @property
    def block(self) -> int:
        """The block of `step`: all that will come is in it or after it, unless `rewrites` rises."""
        return 0 if self.step is None else self.step // BLOCK_STEPS


class Snapshot:
    """The database at one moment: what the methods return fits together. From `Store.snapshot()`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def marks(self, run_ids: Sequence[str]) -> dict[str, Mark]:
        """Run id -> its mark. Runs that the store does not know are left out."""
        rows = self._connection.execute(
            "SELECT id, number, metrics_rewrites, metrics_offset_bytes, step FROM run "
            "WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(run_ids)),),
        )
        return {run_id: Mark(*columns) for run_id, *columns in rows}

    def rows(self, mark: Mark, name: str, block: int = 0, until: int | None = None) -> NDArray[np.void]:
        """N ROWs of a metric by step, from `block` on (before the block `until`)."""
        end_step = 2**63 - 1 if until is None else until * BLOCK_STEPS - 1
        return _array(
            ROW,
            self._connection.execute(
                f"SELECT step, {_VALUE} FROM metric WHERE {_OF_METRIC} AND step BETWEEN ? AND ? ORDER BY step",
                (mark.number, name, block * BLOCK_STEPS, end_step),
            ),
        )

    def blocks(self, mark: Mark, name: str, block: int = 0) -> NDArray[np.void]:
        """B BLOCKs of a metric in order, from `block` on."""
        return _array(
            BLOCK,
            self._connection.execute(
                "SELECT block, count, nonfinite, total, low, ifnull(low_step, -1), high, ifnull(high_step, -1) "
                f"FROM metric_block WHERE {_OF_METRIC} AND block >= ? ORDER BY block",
                (mark.number, name, block),
            ),
        )

    def clocks(self, mark: Mark, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        """The clocks (CN) of a run at some of its steps, which are sorted; NaN where one was not recorded."""
        clocks = np.full((len(CLOCKS), len(steps)), np.nan)
        # CROSS: the steps outside, a search for each inside; left to itself SQLite goes through them for every clock.
        rows = self._connection.execute(
            f"SELECT step, {', '.join(CLOCKS)} FROM json_each(?) CROSS JOIN clock ON step = value AND run = ?",
            (json.dumps(steps.tolist()), mark.number),
        ).fetchall()
        found = _array(np.dtype([("step", "i8"), *((clock, "f8") for clock in CLOCKS)]), rows)
        at = np.searchsorted(steps, found["step"])
        for readings, clock in zip(clocks, CLOCKS, strict=True):
            readings[at] = found[clock]
        return clocks


def _array(dtype: np.dtype[np.void], rows: Iterable[tuple[object, ...]]) -> NDArray[np.void]:
    """SQL's NULL, in a column of floats, becomes NaN."""
    return np.fromiter(rows, dtype=dtype)
