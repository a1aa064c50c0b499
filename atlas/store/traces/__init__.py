"""What agents did, and what somebody thought of it: `traces.db`, a record of its own beside that of the runs.

Reviews can be rebuilt from nothing, so `atlas reindex` does not touch this file (`docs/design/traces.md`).
"""

from atlas.store.traces.exporting import ExportReport
from atlas.store.traces.importing import ImportReport, Problem
from atlas.store.traces.reading import SessionRow
from atlas.store.traces.store import FILE_NAME, TraceStore

__all__ = ["FILE_NAME", "ExportReport", "ImportReport", "Problem", "SessionRow", "TraceStore"]
