"""The row of a session: what lists and filters need, made of its records."""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from atlas.traces.records import ADAPTER, AnyRecord
from atlas.traces.sessions import assemble

_UPDATE = """UPDATE session SET records = ?, attempts = ?, interventions = ?, input_tokens = ?, output_tokens = ?,
    cost_usd = ?, models = ?, at_seconds = ?, agent = ?, parent = ?, tags = ?, task = ?, passed = ?, outcomes = ?,
    ended_seconds = ?, "end" = ? WHERE number = ?"""


def summarise(connection: sqlite3.Connection, number: int, records: Sequence[AnyRecord] | None = None) -> None:
    """Writes the row of a session anew, in the transaction that is open. `records`: all that it has, where they are at
    hand, in the order of import."""
    ordered = _stored(connection, number) if records is None else sorted(records, key=lambda record: record.at_seconds)
    session = next(iter(assemble(ordered)), None)
    counts: list[Any] = [
        len(ordered),
        sum(record.type == "attempt" for record in ordered),
        sum(record.type == "intervention" for record in ordered),
        _total([record.input_tokens for record in ordered]),
        _total([record.output_tokens for record in ordered]),
        _total([record.cost_usd for record in ordered]),
        json.dumps(sorted({record.model for record in ordered if record.model})),
    ]
    if session is None:
        connection.execute(_UPDATE, [*counts, None, None, None, "[]", "", None, "[]", None, None, number])
        return
    outcomes = session.final_outcomes()
    begin, end = session.record, session.end
    row = [
        begin.at_seconds,
        begin.agent,
        begin.parent,
        json.dumps(begin.tags),
        session.text,
        session.passed(),
        json.dumps([[outcome.scorer, outcome.score, outcome.passed] for outcome in outcomes]),
        end and end.at_seconds,
        end and end.status,
    ]
    connection.execute(_UPDATE, [*counts, *row, number])
    connection.executemany(
        "INSERT OR IGNORE INTO tag (tag, session) VALUES (?, ?)", [(tag, number) for tag in begin.tags]
    )
    if records is None:
        connection.execute("DELETE FROM outcome WHERE session = ?", [number])
    connection.executemany(
        "INSERT INTO outcome (scorer, session, passed) VALUES (?, ?, ?)",
        [(outcome.scorer, number, outcome.passed) for outcome in outcomes],
    )


def _stored(connection: sqlite3.Connection, number: int) -> list[AnyRecord]:
    query = "SELECT line FROM record WHERE session = ? ORDER BY at_seconds, number"
    return [ADAPTER.validate_json(line) for (line,) in connection.execute(query, [number])]


def _total(values: Sequence[float | None]) -> float | None:
    """None where nothing is known."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
