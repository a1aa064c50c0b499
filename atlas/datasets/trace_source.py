"""Where sessions come from: a file that `atlas traces export` wrote, or the store of this home, frozen."""

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

from atlas.datasets.files import reading, unusable
from atlas.datasets.rows import SHOWN
from atlas.errors import Problem, SpecError
from atlas.traces.filter import Filter
from atlas.traces.read import read_lines
from atlas.traces.records import AnyRecord
from atlas.traces.sessions import Session, assemble


def recorded_sessions(path: str | None) -> list[Session]:
    """All sessions of the file, or of the store. Raises SpecError if there are none, or a line cannot be read."""
    return _stored() if path is None else _in_file(Path(path))


def state_of(path: str | None) -> tuple[object, ...]:
    """Changes whenever the sessions do. Raises SpecError at `dataset.path` if the file is missing."""
    if path is None:
        database = _database()
        files = [file for file in (database, database.with_name(f"{database.name}-wal")) if file.exists()]
        return tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    with reading(Path(path)):
        found = Path(path).stat()
    return found.st_mtime_ns, found.st_size


def frozen_copy(home: Path, chosen: Filter, keep: bool) -> Path:
    """An export of the store of `home`, in a file named by its content. Without `keep` it is only named."""
    from atlas.store.traces import TraceStore

    with (
        TraceStore.open_read_only(home) as store,
        TemporaryDirectory(prefix=".traces-", dir=home if keep else None) as staging,
    ):
        export = Path(staging) / "export.jsonl"
        store.export(chosen, export)
        with export.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        copy = home / "traces" / f"{digest}.jsonl"
        if keep and not copy.exists():
            copy.parent.mkdir(mode=0o700, exist_ok=True)
            export.replace(copy)
    return copy


def quarantined() -> frozenset[str]:
    """Sessions that the store of this home calls quarantined."""
    from atlas.store.traces import TraceStore

    database = _database()
    if not database.exists():
        return frozenset()
    with TraceStore.open_read_only(database.parent) as store:
        return frozenset(row.id for row in store.rows(Filter(status=("quarantined",))))


def _in_file(path: Path) -> list[Session]:
    records: dict[str, AnyRecord] = {}
    problems = []
    with reading(path):
        for line in read_lines(path):
            records |= {record.id: record for record in line.records}
            if line.problem:
                problems.append(Problem(f"{path}: line {line.number}: {line.problem}", "dataset.path"))
    if problems:
        more = [Problem(f"{path}: {len(problems) - SHOWN} more such lines", "dataset.path")]
        raise SpecError(problems[:SHOWN] + more * (len(problems) > SHOWN))
    sessions = assemble(records.values())
    if not sessions:
        raise unusable(path, "holds no traces; expected a file written by `atlas traces export`")
    return sessions


def _stored() -> list[Session]:
    from atlas.store.traces import TraceStore

    database = _database()
    sessions: list[Session] = []
    if database.exists():
        with TraceStore.open_read_only(database.parent) as store:
            sessions = list(store.sessions())
    if not sessions:
        raise SpecError(
            f"no traces in {database.parent}; `atlas traces import FILE` takes them in, and `atlas traces approve` "
            "lets training see them",
            "dataset",
        )
    return sessions


def _database() -> Path:
    from atlas.store import home_from_environment
    from atlas.store.traces import FILE_NAME

    return home_from_environment() / FILE_NAME
