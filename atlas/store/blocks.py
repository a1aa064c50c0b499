"""Blocks: the metric rows of BLOCK_STEPS steps in one, so that a long curve can be drawn without reading all of it.

They are written in the transaction of the rows, out of the rows, and so always say what those say.
"""

import sqlite3
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

BLOCK_STEPS = 64
"""Of one block: steps 0 to 63, 64 to 127, ... The databases out there have it: another size needs a migration."""

Point = tuple[int, int, int, float | None, str | None]
"""One row of `metric`: run, key id, step, value, nonfinite."""
Block = tuple[int, int]
"""Key id and number of a block, inside one run."""

_COLUMNS = "run, key_id, block, count, nonfinite, total, low, low_step, high, high_step"
_INSERT = f"INSERT INTO metric_block ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
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


def update(connection: sqlite3.Connection, run: int, points: Sequence[Point], damaged: Collection[Block]) -> None:
    """Brings the blocks of a run up to date after these rows of it, and `latest`, were stored.

    Of equal key and step the last row holds.
    `damaged` are blocks that may have lost rows. Only blocks that were there, or are damaged, are read again.
    """
    rows = _summaries(points)
    there = connection.execute(
        "SELECT key_id, block FROM metric_block "
        "WHERE run = ?1 AND key_id IN (SELECT key_id FROM latest WHERE run = ?1) AND block >= ?2",
        (run, min((block for _, _, block, *_ in rows), default=0)),
    )
    old = {*damaged, *(there if rows else ())}
    connection.executemany(_INSERT, [row for row in rows if (row[1], row[2]) not in old])
    again = {*damaged, *((key_id, block) for _, key_id, block, *_ in rows if (key_id, block) in old)}
    connection.executemany(
        _REFRESH,
        [(run, key_id, block * BLOCK_STEPS, (block + 1) * BLOCK_STEPS - 1) for key_id, block in sorted(again)],
    )


def rewind(connection: sqlite3.Connection, run: int, step: int) -> set[Block]:
    """Deletes the blocks that have, or may have, steps after `step`. Returns those that may have others too."""
    gone = connection.execute(
        "DELETE FROM metric_block WHERE run = ? AND block >= ? RETURNING key_id, block", (run, block_of(step))
    ).fetchall()
    return {(key_id, block) for key_id, block in gone if block == block_of(step)}


def _summaries(points: Sequence[Point]) -> list[tuple[Any, ...]]:
    """The rows of `metric_block` that these points make. (In numpy: SQLite would need several times as long.)"""
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
    return [
        row if row[3] else (*row[:5], *[None] * 5) for row in zip(*(column.tolist() for column in columns), strict=True)
    ]
