"""Rows of `traces.db` become rows of a list, or sessions."""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from atlas.store.traces.choosing import condition
from atlas.traces.filter import Filter
from atlas.traces.records import ADAPTER, AnyRecord, OutcomeRecord, ReviewRecord, SessionRecord
from atlas.traces.sessions import Session, assemble

_AT_ONCE = 200
"""Sessions whose records are in memory."""


@dataclass(frozen=True)
class SessionRow:
    """What a list shows of a session."""

    id: str
    task: str
    agent: str | None
    tags: tuple[str, ...]
    at_seconds: float
    ended_seconds: float | None
    end: str | None
    """Status of its end; None: the agent is still at it, or was killed."""
    records: int
    attempts: int
    interventions: int
    outcomes: tuple[tuple[str, float | None, bool | None], ...]
    """(scorer, score, passed) of the final outcomes."""
    passed: bool | None
    models: tuple[str, ...]
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    status: str
    reviewed_by: str | None
    reviewed_seconds: float | None


_COLUMNS = """
    session.id, session.task, agent, tags, session.at_seconds, ended_seconds, "end", records, attempts, interventions,
    outcomes, passed, models, input_tokens, output_tokens, cost_usd, session.status, review."by", review.at_seconds
"""
_NEWEST_REVIEW = """
    LEFT JOIN review ON review.number = (SELECT max(number) FROM review WHERE review.session = session.number)
"""


def rows(connection: sqlite3.Connection, filter: Filter, limit: int | None, offset: int) -> list[SessionRow]:
    """The newest first."""
    where, parameters = condition(filter)
    return _rows(connection, where, parameters, limit, offset)


def row(connection: sqlite3.Connection, number: int) -> SessionRow:
    """Of the session with this number."""
    return _rows(connection, "number = ?", [number])[0]


def parts(connection: sqlite3.Connection, id: str) -> list[SessionRow]:
    """Sessions that were begun inside this one, the newest first."""
    return _rows(connection, "parent = ? AND at_seconds IS NOT NULL", [id])


def _rows(
    connection: sqlite3.Connection, where: str, parameters: Sequence[Any], limit: int | None = None, offset: int = 0
) -> list[SessionRow]:
    found = connection.execute(
        f"""SELECT {_COLUMNS} FROM (
            SELECT * FROM session WHERE {where} ORDER BY at_seconds DESC, id DESC LIMIT ? OFFSET ?
        ) AS session {_NEWEST_REVIEW} ORDER BY session.at_seconds DESC, session.id DESC""",
        [*parameters, -1 if limit is None else limit, offset],
    )
    return [_row(values) for values in found]


def _row(values: Sequence[Any]) -> SessionRow:
    found = list(values)
    found[3] = tuple(json.loads(found[3]))
    found[10] = tuple((scorer, score, passed) for scorer, score, passed in json.loads(found[10]))
    found[11] = None if found[11] is None else bool(found[11])
    found[12] = tuple(json.loads(found[12]))
    return SessionRow(*found)


def outlines(connection: sqlite3.Connection) -> Iterator[Session]:
    """Every session with just what `Filter.why_not` asks for."""
    query = "SELECT id, at_seconds, agent, tags, outcomes, status, task FROM session WHERE at_seconds IS NOT NULL"
    for id, at_seconds, agent, tags, outcomes, status, task in connection.execute(query):
        base: dict[str, Any] = {"id": id, "session": id, "at_seconds": at_seconds}
        begin = SessionRecord.model_construct(**base, task=task, agent=agent, tags=json.loads(tags))
        final = [
            OutcomeRecord.model_construct(**base, scorer=scorer, score=score, passed=passed)
            for scorer, score, passed in json.loads(outcomes)
        ]
        yield Session(begin, outcomes=tuple(final), review=ReviewRecord.model_construct(**base, status=status, by=""))


def chosen(connection: sqlite3.Connection, filter: Filter) -> list[tuple[int, str]]:
    """(number, id) of the sessions, in the order of their beginning."""
    where, parameters = condition(filter)
    return connection.execute(
        f"SELECT number, id FROM session WHERE {where} ORDER BY at_seconds, id", parameters
    ).fetchall()


def lines_of(
    connection: sqlite3.Connection, numbers: Sequence[int]
) -> Iterator[tuple[int, list[str], ReviewRecord | None]]:
    """(number, lines of its records as they happened, newest review) of each session, in this order."""
    for start in range(0, len(numbers), _AT_ONCE):
        part = numbers[start : start + _AT_ONCE]
        lines: dict[int, list[str]] = {number: [] for number in part}
        query = """SELECT session, line FROM record WHERE session IN (SELECT value FROM json_each(?))
            ORDER BY session, at_seconds, number"""
        for number, line in connection.execute(query, [json.dumps(part)]):
            lines[number].append(line)
        reviews = newest_reviews(connection, part)
        for number in part:
            yield number, lines[number], reviews.get(number)


def sessions_of(connection: sqlite3.Connection, numbers: Sequence[int]) -> Iterator[Session]:
    """The sessions with these numbers, in this order."""
    for _, lines, review in lines_of(connection, numbers):
        records: list[AnyRecord] = [ADAPTER.validate_json(line) for line in lines]
        yield from assemble([*records, review] if review else records)


def newest_reviews(connection: sqlite3.Connection, numbers: Sequence[int]) -> dict[int, ReviewRecord]:
    """By number of session."""
    query = """SELECT session.number, session.id, review.at_seconds, review.status, review."by", reason
        FROM review JOIN session ON session.number = review.session
        WHERE session.number IN (SELECT value FROM json_each(?)) ORDER BY review.number"""
    return {row[0]: _review(*row[1:]) for row in connection.execute(query, [json.dumps(list(numbers))])}


def history(connection: sqlite3.Connection, number: int) -> list[ReviewRecord]:
    """All reviews of a session, the oldest first."""
    query = """SELECT session.id, review.at_seconds, review.status, review."by", reason
        FROM review JOIN session ON session.number = review.session WHERE session.number = ? ORDER BY review.number"""
    return [_review(*row) for row in connection.execute(query, [number])]


def _review(session: str, at_seconds: float, status: Any, by: str, reason: str | None) -> ReviewRecord:
    """Its id follows from what it says, so that equal stores export equal bytes."""
    said = json.dumps([session, at_seconds, status, by, reason])
    return ReviewRecord(
        id=hashlib.sha256(said.encode()).hexdigest()[:32],
        session=session,
        at_seconds=at_seconds,
        status=status,
        by=by,
        reason=reason,
    )
