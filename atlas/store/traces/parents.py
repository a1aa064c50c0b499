"""No record follows from itself, over however many others."""

import json
import sqlite3
from collections.abc import Sequence

from atlas.traces.records import AnyRecord

_SHOWN = 5
"""Records of a cycle that are named."""


class Parents:
    """What the records of a batch, and those stored of the same sessions, name as their parents."""

    def __init__(self, connection: sqlite3.Connection, batch: Sequence[AnyRecord]) -> None:
        self._connection = connection
        self._parent: dict[str, str | None] = {}
        self._named: set[str] = set()
        sessions = json.dumps(list({record.session for record in batch}))
        query = """SELECT record.parent FROM record JOIN session ON session.number = record.session
            WHERE session.id IN (SELECT value FROM json_each(?1)) AND record.parent IS NOT NULL
            UNION SELECT parent FROM session WHERE parent IN (SELECT value FROM json_each(?1))"""
        self._named.update(parent for (parent,) in connection.execute(query, [sessions]))

    def add(self, record: AnyRecord) -> None:
        """The record is taken."""
        self._parent[record.id] = record.parent
        if record.parent:
            self._named.add(record.parent)

    def cycle(self, record: AnyRecord) -> str | None:
        """What is wrong with a new record that closes a cycle. Only one that was named before it came can do that."""
        if not record.parent or record.id not in self._named:
            return None
        way = [record.id, record.parent]
        while way[-1] != record.id:
            parent = self._of(way[-1])
            if not parent:
                return None
            way.append(parent)
        shown = " -> ".join(way if len(way) <= _SHOWN else [*way[: _SHOWN - 1], "...", way[-1]])
        return f"the parents form a cycle: {shown}"

    def _of(self, id: str) -> str | None:
        if id in self._parent:
            return self._parent[id]
        found = self._connection.execute("SELECT parent FROM record WHERE id = ?", [id]).fetchone()
        return found[0] if found else None
