"""The store of traces: importing, listing, reviewing, exporting.

A `TraceStore` may be shared by threads, and any number of processes may open the same one.
"""

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self

from sqlalchemy import Engine

from atlas.errors import NotFoundError, StoreError
from atlas.store import database
from atlas.store.traces import choosing, exporting, reading
from atlas.store.traces.exporting import ExportReport
from atlas.store.traces.importing import ImportReport, Problem, batches, fingerprint, store_batch
from atlas.store.traces.reading import SessionRow
from atlas.traces.filter import Filter
from atlas.traces.records import ReviewRecord, Status
from atlas.traces.sessions import Session

FILE_NAME = "traces.db"
ALL = Filter()
TRACES = database.Schema(
    Path(__file__).parent / "migrations",
    where_missing="`atlas traces import FILE` makes it, or point ATLAS_HOME to the right folder",
    where_old="a command that writes, such as `atlas traces import`, brings it up to date",
    where_broken="move it away, put a backup in its place or import the trace files again; reviews are only in it",
)


class TraceStore(database.Closing):
    """The traces of one home."""

    def __init__(self, path: Path, reader: Engine, writer: Engine | None) -> None:
        """Use `open` or `open_read_only`."""
        self.path = path
        self._reader = reader
        self._writer = writer

    @classmethod
    def open(cls, home: Path) -> Self:
        """Opens the store in `home` for reading and writing; creates or migrates it first. Raises StoreError."""
        path = home / FILE_NAME
        writer = database.open_for_writing(path, TRACES)
        return cls(path, database.open_for_reading(path, TRACES), writer)

    @classmethod
    def open_read_only(cls, home: Path) -> Self:
        """Opens the store in `home` so that nothing can change it. Raises StoreError if there is none."""
        path = home / FILE_NAME
        return cls(path, database.open_for_reading(path, TRACES), None)

    def import_file(self, path: Path) -> ImportReport:
        """Takes in what the file has more than last time. A bad line never stops the rest.

        Rows and byte offset are committed together, so that a crash neither loses nor doubles a line; a record is
        known by its id, so that a copy of a file adds nothing. A file that was replaced is read from its beginning.
        Raises StoreError if it cannot be read.
        """
        path = path.absolute()
        report = ImportReport(path)
        try:
            while not self._import_from_where_it_stopped(path, report):
                pass
            size_bytes = path.stat().st_size
        except OSError as error:
            raise StoreError(f"cannot read traces from {path}: {error}; name a file that you may read") from error
        with self._reading() as connection:
            report.unfinished = size_bytes > _source(connection, path).offset_bytes
            query = "SELECT coalesce(sum(records), 0) FROM session WHERE at_seconds IS NULL"
            report.waiting = connection.execute(query).fetchone()[0]
        return report

    def _import_from_where_it_stopped(self, path: Path, report: ImportReport) -> bool:
        """False: another process has imported the same file meanwhile, or it was replaced; begin again."""
        with self._writing() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO source (path, offset_bytes, newlines, fingerprint) VALUES (?, 0, 0, '')",
                [_stored_name(path)],
            )
            source = _source(connection, path)
        start = source.offset_bytes
        if start and fingerprint(path, start) != source.fingerprint:
            with self._writing() as connection:
                if _source(connection, path) == source:
                    connection.execute("DELETE FROM problem WHERE source = ?", [source.number])
                    reset = "UPDATE source SET offset_bytes = 0, newlines = 0, fingerprint = '' WHERE number = ?"
                    connection.execute(reset, [source.number])
                    report.restarted = True
            return False
        for batch in batches(path, start, source.newlines):
            mark = fingerprint(path, batch[-1].end_bytes)
            with self._writing() as connection:
                if _source(connection, path).offset_bytes != start:
                    return False
                store_batch(connection, source.number, batch, mark, report)
            start = batch[-1].end_bytes
        return True

    def problems(self, path: Path) -> list[Problem]:
        """What was wrong with the lines of a file, as far as it was imported."""
        query = """SELECT line, what, taken FROM problem JOIN source ON source.number = problem.source
            WHERE path = ? ORDER BY line, what"""
        with self._reading() as connection:
            found = connection.execute(query, [_stored_name(path.absolute())]).fetchall()
        return [Problem(line, what, bool(taken)) for line, what, taken in found]

    def rows(self, filter: Filter = ALL, limit: int | None = None, offset: int = 0) -> list[SessionRow]:
        """What a list shows, the newest first."""
        with self._reading() as connection:
            return reading.rows(connection, filter, limit, offset)

    def count(self, filter: Filter = ALL) -> int:
        """How many sessions there are."""
        where, parameters = choosing.condition(filter)
        with self._reading() as connection:
            return int(connection.execute(f"SELECT count(*) FROM session WHERE {where}", parameters).fetchone()[0])

    def row(self, reference: str) -> SessionRow:
        """What a list shows of one session; `reference` as for `session`. Raises NotFoundError."""
        with self._reading() as connection:
            return reading.row(connection, _find(connection, reference)[0])

    def parts(self, reference: str) -> list[SessionRow]:
        """The sessions that were begun inside this one, the newest first. Raises NotFoundError."""
        with self._reading() as connection:
            return reading.parts(connection, _find(connection, reference)[1])

    def session(self, reference: str) -> Session:
        """The session with this id, or else the only one whose id starts so, with its newest review. Raises
        NotFoundError."""
        with self._reading() as connection:
            number, _ = _find(connection, reference)
            return next(reading.sessions_of(connection, [number]))

    def sessions(self, filter: Filter = ALL) -> Iterator[Session]:
        """The sessions in the order of their beginning, then of their ids: as they are at one moment, a few at a time
        in memory."""
        with self._reading() as connection:
            numbers = [number for number, _ in reading.chosen(connection, filter)]
            yield from reading.sessions_of(connection, numbers)

    def review(
        self,
        ids: Sequence[str],
        status: Status,
        by: str,
        reason: str | None = None,
        seen: Mapping[str, int] | None = None,
    ) -> int:
        """Records a decision about these sessions; returns of how many it changed the status. Those that have it
        already keep their review.

        `seen`: how many records of a session the reviewer was shown (`SessionRow.records`); raises StoreError if it has
        more by now. Raises NotFoundError for an id that is none. All or nothing.
        """
        with self._writing() as connection:
            return _review(connection, [_find(connection, id)[0] for id in ids], status, by, reason, seen or {})

    def review_all(self, filter: Filter, status: Status, by: str, reason: str | None = None) -> int:
        """`review` of all sessions that the filter means at this moment."""
        with self._writing() as connection:
            numbers = [number for number, _ in reading.chosen(connection, filter)]
            return _review(connection, numbers, status, by, reason, {})

    def reviews(self, reference: str) -> list[ReviewRecord]:
        """All decisions about a session, the oldest first. Raises NotFoundError."""
        with self._reading() as connection:
            return reading.history(connection, _find(connection, reference)[0])

    def tags(self) -> list[str]:
        """Every tag of a session."""
        return self._names("SELECT DISTINCT tag FROM tag ORDER BY tag")

    def scorers(self) -> list[str]:
        """Every scorer with a final outcome."""
        return self._names("SELECT DISTINCT scorer FROM outcome ORDER BY scorer")

    def agents(self) -> list[str]:
        """Every agent of a session."""
        return self._names("SELECT DISTINCT agent FROM session WHERE agent IS NOT NULL ORDER BY agent")

    def export(self, filter: Filter, path: Path) -> ExportReport:
        """Writes the sessions, each as its records and then its newest review, in the order of `sessions`; equal
        sessions make equal bytes. Mode 0600; the file is whole or as it was before."""
        with self._reading() as connection:
            try:
                return exporting.export(connection, filter, path)
            except OSError as error:
                raise StoreError(
                    f"cannot write {path}: {error}; name a file in a folder that you can write to"
                ) from error

    def _names(self, query: str) -> list[str]:
        with self._reading() as connection:
            return [str(name) for (name,) in connection.execute(query)]

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """One look at one moment. While it is open, SQLite cannot shorten its write-ahead log."""
        with database.explained(self.path, TRACES), self._reader.begin() as connection:
            driver = connection.connection.driver_connection
            assert isinstance(driver, sqlite3.Connection)
            choosing.prepare(driver)
            yield driver

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction that holds the write lock from its first statement on."""
        if self._writer is None:
            raise StoreError(f"{self.path} was opened for reading only; use TraceStore.open to change it")
        with database.explained(self.path, TRACES), self._writer.begin() as connection:
            driver = connection.connection.driver_connection
            assert isinstance(driver, sqlite3.Connection)
            choosing.prepare(driver)
            yield driver


class _Source(NamedTuple):
    """A row of `source`."""

    number: int
    offset_bytes: int
    newlines: int
    fingerprint: str


def _source(connection: sqlite3.Connection, path: Path) -> _Source:
    query = "SELECT number, offset_bytes, newlines, fingerprint FROM source WHERE path = ?"
    return _Source(*connection.execute(query, [_stored_name(path)]).fetchone())


def _stored_name(path: Path) -> str:
    """The path as text, also where its bytes are none."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _find(connection: sqlite3.Connection, reference: str) -> tuple[int, str]:
    """(number, id) of a session. Raises NotFoundError."""
    begun = "SELECT number, id FROM session WHERE at_seconds IS NOT NULL"
    exact = connection.execute(f"{begun} AND id = ?", [reference]).fetchone()
    if exact:
        return exact[0], exact[1]
    query = f"{begun} AND id >= ? AND id < ? ORDER BY id LIMIT 3"
    found = connection.execute(query, [reference, reference + chr(0x10FFFF)]).fetchall()
    if len(found) == 1 and reference:
        return found[0][0], found[0][1]
    if not found or not reference:
        raise NotFoundError(f"no session {reference!r}; `atlas traces ls` lists them")
    several = ", ".join(repr(id) for _, id in found)
    raise NotFoundError(f"{reference!r} could be several sessions, such as {several}; give more of the id")


def _review(
    connection: sqlite3.Connection,
    numbers: Sequence[int],
    status: Status,
    by: str,
    reason: str | None,
    seen: Mapping[str, int],
) -> int:
    changed = 0
    now = time.time()
    for number in dict.fromkeys(numbers):
        query = "SELECT id, status, records FROM session WHERE number = ?"
        id, before, records = connection.execute(query, [number]).fetchone()
        if records > seen.get(id, records):
            raise StoreError(f"session {id!r} has {records - seen[id]} more records than were shown; look at it again")
        if before == status:
            continue
        connection.execute("UPDATE session SET status = ? WHERE number = ?", [status, number])
        connection.execute(
            'INSERT INTO review (session, at_seconds, status, "by", reason) VALUES (?, ?, ?, ?, ?)',
            [number, now, status, by, reason],
        )
        changed += 1
    return changed
