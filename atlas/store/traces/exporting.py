"""Sessions as a file of the line schema: the records of each, then its review."""

import os
import sqlite3
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from atlas.private import open_private
from atlas.store.traces.reading import chosen, lines_of, outlines
from atlas.traces.filter import Filter


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote, and what it left out."""

    path: Path
    sessions: int
    records: int
    left_out: dict[str, int]
    """Reason, in the words of `Filter.why_not`, -> sessions."""


def export(connection: sqlite3.Connection, filter: Filter, path: Path) -> ExportReport:
    """Writes the chosen sessions, readable by the owner only; the file is whole or as it was before."""
    numbers = [number for number, _ in chosen(connection, filter)]
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    partial.unlink(missing_ok=True)
    records = 0
    try:
        with open_private(partial, "x") as file:
            for _, lines, review in lines_of(connection, numbers):
                records += len(lines)
                if review:
                    lines = [*lines, review.model_dump_json(exclude_none=True)]
                file.writelines(f"{line}\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    left_out = Counter(why for session in outlines(connection) if (why := filter.why_not(session)))
    return ExportReport(path, len(numbers), records, dict(left_out.most_common()))
