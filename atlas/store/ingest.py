"""Puts what a worker wrote into the database, with the raw driver: one metric point costs a few microseconds.

Every function here runs inside the caller's transaction, so the rows and the byte offset that accounts for them are
committed together or not at all.
"""

import sqlite3
import time

from atlas.run import CLOCKS
from atlas.store import blocks
from atlas.store.stream import SAMPLE_COLUMNS, MetricsStretch, SamplesStretch, Stretch

_TABLES = {"metrics": ("metric", "metric_block", "clock", "latest"), "samples": ("sample",)}
_SHOWN_BAD_LINES = 5
_INSERT_POINT = "INSERT OR REPLACE INTO metric (run, key_id, step, value, nonfinite) VALUES (?, ?, ?, ?, ?)"
_INSERT_CLOCKS = f"INSERT OR REPLACE INTO clock (run, step, {', '.join(CLOCKS)}) VALUES (?, ?{', ?' * len(CLOCKS)})"
_INSERT_SAMPLE = (
    f"INSERT OR REPLACE INTO sample (run, {', '.join(SAMPLE_COLUMNS)}) VALUES (?{', ?' * len(SAMPLE_COLUMNS)})"
)
_REFRESH_LATEST = """
    INSERT OR REPLACE INTO latest (run, key_id, step, value, nonfinite)
    SELECT run, key_id, step, value, nonfinite FROM metric WHERE run = ? AND key_id = ? ORDER BY step DESC LIMIT 1
"""


def store_stretch(connection: sqlite3.Connection, run: int, stretch: Stretch) -> None:
    """Stores what a stretch says, moves the stream's offset to its end, and records its bad lines in one event."""
    if isinstance(stretch, MetricsStretch):
        _store_metrics(connection, run, stretch)
    elif isinstance(stretch, SamplesStretch):
        _store_samples(connection, run, stretch)
    if stretch.bad:
        shown = stretch.bad[:_SHOWN_BAD_LINES]
        more = [f"and {len(stretch.bad) - len(shown)} more"] if len(stretch.bad) > len(shown) else []
        problems = "; ".join(shown + more)
        _note(connection, run, "ingest:bad_lines", f"{stretch.stream}.jsonl, {len(stretch.bad)} bad: {problems}")
    connection.execute(f"UPDATE run SET {stretch.stream}_offset_bytes = ? WHERE number = ?", (stretch.end, run))


def start_over(connection: sqlite3.Connection, run: int, stream: str) -> None:
    """Forgets everything that was read from a stream, so that it is read again from its first byte."""
    for table in _TABLES[stream]:
        connection.execute(f"DELETE FROM {table} WHERE run = ?", (run,))
    if stream == "metrics":
        connection.execute("DELETE FROM event WHERE run = ? AND kind GLOB 'worker:*'", (run,))
        connection.execute("UPDATE run SET metrics_rewrites = metrics_rewrites + 1 WHERE number = ?", (run,))
    connection.execute(f"UPDATE run SET {stream}_offset_bytes = 0 WHERE number = ?", (run,))
    message = f"{stream}.jsonl is not the file that was read before; it is read again from its start"
    _note(connection, run, "ingest:start_over", message)


def _store_metrics(connection: sqlite3.Connection, run: int, stretch: MetricsStretch) -> None:
    changed: set[int] = set()
    if stretch.rewind is not None:
        changed = _rewind_metrics(connection, run, stretch.rewind)
    ids = _key_ids(connection, {point[0] for point in stretch.points})
    newest = dict.fromkeys(changed, stretch.rewind or 0)
    newest.update(connection.execute("SELECT key_id, step FROM latest WHERE run = ?", (run,)).fetchall())
    rewritten = stretch.rewind is not None or _is_behind(stretch, max(newest.values(), default=0))
    changed.update(ids.values())
    points = [(run, ids[name], step, value, word) for name, step, value, word in stretch.points]
    connection.executemany(_INSERT_POINT, points)
    connection.executemany(_INSERT_CLOCKS, [(run, *clocks) for clocks in stretch.clocks])
    connection.executemany(_REFRESH_LATEST, [(run, key_id) for key_id in changed])
    blocks.add(connection, run, points, newest)
    for kind, message in stretch.events:
        _note(connection, run, f"worker:{kind}", message)
    if stretch.progress:
        connection.execute(
            "UPDATE run SET phase = ?, progress_step = ?, progress_total = ? WHERE number = ?", (*stretch.progress, run)
        )
    connection.execute(
        """UPDATE run SET step = (SELECT max(step) FROM latest WHERE run = number),
           metrics_rewrites = metrics_rewrites + ?, planned_steps = coalesce(?, planned_steps) WHERE number = ?""",
        (rewritten, stretch.planned_steps, run),
    )


def _store_samples(connection: sqlite3.Connection, run: int, stretch: SamplesStretch) -> None:
    if stretch.rewind is not None:
        connection.execute("DELETE FROM sample WHERE run = ? AND step > ?", (run, stretch.rewind))
    connection.executemany(_INSERT_SAMPLE, [(run, *sample) for sample in stretch.samples])


def _note(connection: sqlite3.Connection, run: int, kind: str, message: str) -> None:
    connection.execute(
        "INSERT INTO event (run, at_seconds, kind, message) VALUES (?, ?, ?, ?)", (run, time.time(), kind, message)
    )


def _is_behind(stretch: MetricsStretch, newest: int) -> bool:
    """Whether some of it belongs before the block of the step `newest`."""
    steps = [point[1] for point in stretch.points] + [clocks[0] for clocks in stretch.clocks]
    return blocks.block_of(min(steps, default=newest)) < blocks.block_of(newest)


def _rewind_metrics(connection: sqlite3.Connection, run: int, step: int) -> set[int]:
    """Deletes what came after `step`; returns the keys whose latest value went with it."""
    for table in ("metric", "clock"):
        connection.execute(f"DELETE FROM {table} WHERE run = ? AND step > ?", (run, step))
    blocks.rewind(connection, run, step)
    gone = connection.execute("DELETE FROM latest WHERE run = ? AND step > ? RETURNING key_id", (run, step))
    return {key_id for (key_id,) in gone}


def _key_ids(connection: sqlite3.Connection, names: set[str]) -> dict[str, int]:
    connection.executemany("INSERT OR IGNORE INTO metric_key (name) VALUES (?)", [(name,) for name in sorted(names)])
    select = "SELECT id FROM metric_key WHERE name = ?"
    return {name: connection.execute(select, (name,)).fetchone()[0] for name in names}
