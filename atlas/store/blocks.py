"""Blocks: the metric rows of BLOCK_STEPS steps in one, so that a long curve can be drawn without reading all of it.

They are written in the transaction of the rows, out of the rows, and so always say what those say.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

BLOCK_STEPS = 64
"""Of one block: steps 0 to 63, 64 to 127, ... The databases out there have it: another size needs a migration."""

Point = tuple[int, int, int, float | None, str | None]
"""One row of `metric`: run, key id, step, value, nonfinite."""

_COLUMNS = "run, key_id, block, count, nonfinite, total, low, low_step, high, high_step"
_ADD = f"""
    INSERT INTO metric_block ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
        count = count + excluded.count,
        nonfinite = nonfinite + excluded.nonfinite,
        total = CASE
            WHEN count = 0 THEN excluded.total WHEN excluded.count = 0 THEN total ELSE total + excluded.total
        END,
        low = CASE WHEN low IS NULL OR excluded.low < low THEN excluded.low ELSE low END,
        low_step = CASE WHEN low IS NULL OR excluded.low < low THEN excluded.low_step ELSE low_step END,
        high = CASE WHEN high IS NULL OR excluded.high > high THEN excluded.high ELSE high END,
        high_step = CASE WHEN high IS NULL OR excluded.high > high THEN excluded.high_step ELSE high_step END
"""
_REFRESH = f"""
    INSERT OR REPLACE INTO metric_block ({_COLUMNS})
    SELECT run, key_id, step / {BLOCK_STEPS}, count(value), count(nonfinite), sum(value),
        min(value), (
            SELECT step FROM metric WHERE run = ?1 AND key_id = ?2 AND step BETWEEN ?3 AND ?4 AND value IS NOT NULL
            ORDER BY value, step LIMIT 1
        ),
        max(value), (
            SELECT step FROM metric WHERE run = ?1 AND key_id = ?2 AND step BETWEEN ?3 AND ?4 AND value IS NOT NULL
            ORDER BY value DESC, step LIMIT 1
        )
    FROM metric WHERE run = ?1 AND key_id = ?2 AND step BETWEEN ?3 AND ?4 GROUP BY run, key_id
"""
_POINT = np.dtype([("run", "i8"), ("key_id", "i8"), ("step", "i8"), ("value", "f8"), ("nonfinite", "O")])


def block_of(step: int) -> int:
    """The number of the block that a step is in."""
    return step // BLOCK_STEPS


def add(connection: sqlite3.Connection, run: int, points: Sequence[Point], newest: Mapping[int, int]) -> None:
    """Brings the blocks of a run up to date after these rows of it were stored (of equal key and step the last holds).

    `newest`: key id -> the newest step that it had, or might have had, before. Blocks in which all is newer grow by it;
    others are made from their rows.
    """
    rows = [(first_step > newest.get(row[1], -1), row) for first_step, row in _summaries(points)]
    connection.executemany(_ADD, [row for grows, row in rows if grows])
    _refresh(connection, run, [(key_id, block) for grows, (_, key_id, block, *_) in rows if not grows])


def rewind(connection: sqlite3.Connection, run: int, step: int) -> None:
    """Brings the blocks of a run up to date after its rows after `step` were deleted."""
    gone = connection.execute(
        "DELETE FROM metric_block WHERE run = ? AND block >= ? RETURNING key_id, block", (run, block_of(step))
    ).fetchall()
    _refresh(connection, run, [(key_id, block) for key_id, block in gone if block == block_of(step)])


def _refresh(connection: sqlite3.Connection, run: int, blocks: Iterable[tuple[int, int]]) -> None:
    """Makes the blocks with these key ids and numbers from their rows; none where there are no rows."""
    connection.executemany(
        _REFRESH,
        [(run, key_id, block * BLOCK_STEPS, (block + 1) * BLOCK_STEPS - 1) for key_id, block in blocks],
    )


def _summaries(points: Sequence[Point]) -> list[tuple[int, tuple[Any, ...]]]:
    """First step and row of every `metric_block` that these points make. (SQLite would take several times as long.)"""
    if not points:
        return []
    rows = np.fromiter(points, _POINT, len(points))
    rows = rows[np.lexsort((rows["step"], rows["key_id"]))]
    again = (rows["key_id"][:-1] == rows["key_id"][1:]) & (rows["step"][:-1] == rows["step"][1:])
    rows = rows[np.append(~again, True)]
    steps, values, blocks = rows["step"], rows["value"], rows["step"] // BLOCK_STEPS
    begins = (rows["key_id"][:-1] != rows["key_id"][1:]) | (blocks[:-1] != blocks[1:])
    first = np.append(0, np.flatnonzero(begins) + 1)
    sizes = np.diff(np.append(first, len(rows)))
    finite = np.isfinite(values)
    counts = np.add.reduceat(finite, first, dtype=np.int64)
    with np.errstate(over="ignore", invalid="ignore"):
        totals = np.add.reduceat(np.where(finite, values, 0.0), first)
    columns = [rows["run"][first], rows["key_id"][first], blocks[first], counts, sizes - counts, totals]
    for extreme in (np.fmin, np.fmax):
        extremes = extreme.reduceat(values, first)
        at = np.where(values == np.repeat(extremes, sizes), steps, np.iinfo(np.int64).max)
        columns += [extremes, np.minimum.reduceat(at, first)]
    summaries = zip(*(column.tolist() for column in columns), strict=True)
    return [
        (first_step, row if row[3] else (*row[:5], *[None] * 5))
        for first_step, row in zip(steps[first].tolist(), summaries, strict=True)
    ]
