"""What capture has written into a folder."""

from pathlib import Path

from atlas.traces.records import ADAPTER, AnyRecord
from atlas.traces.sessions import Session, assemble


def lines_in(folder: Path) -> list[str]:
    return [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines() if line]


def records_in(folder: Path) -> list[AnyRecord]:
    return [ADAPTER.validate_json(line) for line in lines_in(folder)]


def sessions_in(folder: Path) -> list[Session]:
    return assemble(records_in(folder))


def session_in(folder: Path) -> Session:
    [session] = sessions_in(folder)
    return session
