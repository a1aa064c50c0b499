"""Lines of a file become rows: what is new, what is known, what is wrong. One batch, one transaction."""

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atlas.store.traces.parents import Parents
from atlas.store.traces.summary import summarise
from atlas.traces.arc import Counts
from atlas.traces.read import Line, read_lines, redact_line
from atlas.traces.records import AnyRecord, ReviewRecord, SessionRecord

BATCH_BYTES = 4 << 20
"""About how much of a file is read at once: bounds memory and how long a transaction takes."""
IMPORTER = "atlas traces import"
"""Who sets a review back."""
_FINGERPRINT_BYTES = 4096


@dataclass(frozen=True)
class Problem:
    """What is wrong, or odd, with a line of a file."""

    line: int
    what: str
    taken: bool = False
    """The line is in the store all the same."""


@dataclass
class ImportReport:
    """What an import did. Records: those of this time, not of earlier imports of the same file."""

    path: Path
    new: int = 0
    """Records that were added."""
    known: int = 0
    """Records that were there already."""
    begun: int = 0
    """Sessions that are new in the store."""
    changed: int = 0
    """Sessions that were there and have new records."""
    set_back: int = 0
    """Approved sessions that are unreviewed again, because records came."""
    reviews_ignored: int = 0
    bad: list[Problem] = field(default_factory=list)
    """Lines, or records of them, that were not taken."""
    odd: list[Problem] = field(default_factory=list)
    """Lines that were taken, and deserve a look."""
    restarted: bool = False
    """The file is another one than last time, and was read from its beginning."""
    unfinished: bool = False
    """Its last line has no end yet; the next import reads it."""
    arc: Counts = field(default_factory=Counts)
    """What became of the fields of Arc's sessions."""
    waiting: int = 0
    """Records in the store, of any file, whose session record has not come."""


def batches(path: Path, start_bytes: int, newlines: int) -> Iterator[list[Line]]:
    """The lines from there on, about BATCH_BYTES of them at once."""
    batch: list[Line] = []
    for line in read_lines(path, start_bytes, newlines):
        batch.append(line)
        if line.end_bytes - start_bytes >= BATCH_BYTES:
            yield batch
            start_bytes, batch = line.end_bytes, []
    if batch:
        yield batch


def fingerprint(path: Path, offset_bytes: int) -> str:
    """What tells the file that was read up to there from another of this name: it changes when the file's beginning
    or the place before the offset does, and when the file is shorter."""
    with path.open("rb") as file:
        head = file.read(min(_FINGERPRINT_BYTES, offset_bytes))
        file.seek(max(0, offset_bytes - _FINGERPRINT_BYTES))
        tail = file.read(min(_FINGERPRINT_BYTES, offset_bytes))
    return hashlib.sha256(head + tail).hexdigest()


def store_batch(
    connection: sqlite3.Connection, source: int, batch: Sequence[Line], mark: str, report: ImportReport
) -> None:
    """Adds what is new in the batch and moves the source on to its end, in the transaction that is open. `mark`: the
    fingerprint there."""
    bad: list[Problem] = []
    _add(connection, _sorted_out(connection, batch, bad, report), report)
    odd = [Problem(line.number, doubt, taken=True) for line in batch for doubt in line.doubts]
    report.bad += bad
    report.odd += odd
    connection.executemany(
        "INSERT OR IGNORE INTO problem (source, line, what, taken) VALUES (?, ?, ?, ?)",
        [(source, problem.line, problem.what, problem.taken) for problem in (*bad, *odd)],
    )
    connection.execute(
        "UPDATE source SET offset_bytes = ?, newlines = ?, fingerprint = ? WHERE number = ?",
        (batch[-1].end_bytes, batch[-1].newlines, mark, source),
    )


@dataclass(frozen=True)
class _Fresh:
    """A record that the store does not have yet, and its line."""

    record: AnyRecord
    line: str


def _sorted_out(
    connection: sqlite3.Connection, batch: Sequence[Line], bad: list[Problem], report: ImportReport
) -> list[_Fresh]:
    """The records that are new. Of the others, `bad` and the report say what they are."""
    ids = [record.id for line in batch for record in line.records]
    known = dict(
        connection.execute(
            "SELECT id, line FROM record WHERE id IN (SELECT value FROM json_each(?))", [json.dumps(ids)]
        )
    )
    fresh: list[_Fresh] = []
    parents = Parents(connection, [record for line in batch for record in line.records])
    for line in batch:
        if line.arc:
            report.arc += line.arc
        if line.problem:
            bad.append(Problem(line.number, line.problem))
        for record in line.records:
            if isinstance(record, ReviewRecord):
                report.reviews_ignored += 1
                continue
            text = record.model_dump_json(exclude_none=True)
            there = known.get(record.id)
            if there is None and (cycle := parents.cycle(record)):
                bad.append(Problem(line.number, cycle))
            elif there is None:
                known[record.id] = text
                parents.add(record)
                fresh.append(_Fresh(record, text))
            elif there == text or redact_line(there) == text:  # an older Atlas may have redacted less
                report.known += 1
            else:
                bad.append(Problem(line.number, f"id {record.id} is taken by another record"))
    return fresh


def _add(connection: sqlite3.Connection, fresh: Sequence[_Fresh], report: ImportReport) -> None:
    """Adds the records, and brings the rows of their sessions up to date."""
    of_session: dict[str, list[AnyRecord]] = {}
    for item in fresh:
        of_session.setdefault(item.record.session, []).append(item.record)
    before = _sessions(connection, of_session)
    created = [(id,) for id in of_session if id not in before]
    connection.executemany(
        "INSERT INTO session (id, status, records, attempts, interventions, tags, models, outcomes, task)"
        " VALUES (?, 'unreviewed', 0, 0, 0, '[]', '[]', '[]', '')",
        created,
    )
    sessions = before | _sessions(connection, [id for (id,) in created])
    connection.executemany(
        "INSERT INTO record (id, session, at_seconds, parent, line) VALUES (?, ?, ?, ?, ?)",
        [
            (
                item.record.id,
                sessions[item.record.session].number,
                item.record.at_seconds,
                item.record.parent,
                item.line,
            )
            for item in fresh
        ],
    )
    for id, records in of_session.items():
        session = sessions[id]
        began = any(isinstance(record, SessionRecord) for record in records)
        report.begun += began
        report.changed += session.began
        if session.began and session.status == "approved":
            _set_back(connection, session.number, len(records))
            report.set_back += 1
        summarise(connection, session.number, records if session.records == 0 else None)
    report.new += len(fresh)


@dataclass(frozen=True)
class _Known:
    number: int
    began: bool
    status: str
    records: int


def _sessions(connection: sqlite3.Connection, ids: Iterable[str]) -> dict[str, _Known]:
    query = """SELECT id, number, at_seconds IS NOT NULL, status, records FROM session
        WHERE id IN (SELECT value FROM json_each(?))"""
    return {
        id: _Known(number, bool(began), status, records)
        for id, number, began, status, records in connection.execute(query, [json.dumps(list(ids))])
    }


def _set_back(connection: sqlite3.Connection, session: int, records: int) -> None:
    """A review is of what was there: more has come."""
    connection.execute("UPDATE session SET status = 'unreviewed' WHERE number = ?", [session])
    reason = f"{records} new record{'s' if records > 1 else ''} after the approval"
    values: list[Any] = [session, time.time(), "unreviewed", IMPORTER, reason]
    connection.execute('INSERT INTO review (session, at_seconds, status, "by", reason) VALUES (?, ?, ?, ?, ?)', values)
