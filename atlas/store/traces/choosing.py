"""`Filter` as SQL. A test holds it against `Filter.why_not`."""

import json
import sqlite3
from typing import Any

from atlas.traces.filter import Filter

_PASSED = {"passed": 1, "failed": 0, "unscored": None}


def prepare(connection: sqlite3.Connection) -> None:
    """Gives SQLite the functions that `condition` uses."""
    connection.create_function("casefold", 1, str.casefold, deterministic=True)


def condition(filter: Filter) -> tuple[str, list[Any]]:
    """What must hold of a row of `session`, and its parameters in order. Sessions that have not begun are none."""
    terms: list[str] = ["at_seconds IS NOT NULL"]
    parameters: list[Any] = []

    def need(term: str, *values: Any) -> None:
        if not all(_storable(value) for value in values):
            terms.append("FALSE")
            return
        terms.append(term)
        parameters.extend(values)

    if filter.status:
        need("status IN (SELECT value FROM json_each(?))", json.dumps(list(filter.status)))
    if filter.since_seconds is not None:
        need("at_seconds >= ?", filter.since_seconds)
    if filter.until_seconds is not None:
        need("at_seconds < ?", filter.until_seconds)
    for tag in sorted(set(filter.tags)):
        need("EXISTS (SELECT 1 FROM tag WHERE tag = ? AND session = session.number)", tag)
    if filter.agent is not None:
        need("agent = ?", filter.agent)
    if filter.text is not None:
        need("instr(casefold(task), ?) > 0", filter.text.casefold())
    if filter.scorer is not None:
        need("EXISTS (SELECT 1 FROM outcome WHERE scorer = ? AND session = session.number)", filter.scorer)
    if filter.outcome is not None and filter.scorer is not None:
        need(
            "(SELECT passed FROM outcome WHERE scorer = ? AND session = session.number) IS ?",
            filter.scorer,
            _PASSED[filter.outcome],
        )
    elif filter.outcome is not None:
        need("passed IS ?", _PASSED[filter.outcome])
    return " AND ".join(terms), parameters


def _storable(value: Any) -> bool:
    """Text of a command line may hold what UTF-8 does not have; no session does."""
    return not isinstance(value, str) or value.encode("utf-8", "replace").decode() == value
