"""Rebuilds the database from the run directories, which hold everything that was measured."""

import json
import logging
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from atlas.errors import StoreError
from atlas.store import database
from atlas.store.store import Store

logger = logging.getLogger(__name__)

_STATES = {"succeeded": "succeeded", "failed": "failed", "stopped": "cancelled"}
"""What a result.json says, as a state. Who stopped the run is not known; `cancelled` never restarts by itself."""


Worker = tuple[str, list[int]]
"""Handle and GPUs of a worker."""


def reindex(home: Path, worker_of: Callable[[Path], Worker | None]) -> int:
    """Replaces the database in `home` by one made from `runs/*/`; the old file stays as `atlas.db.bak-reindex`.

    A run without a result becomes `running` if `worker_of` knows who works in its directory, else `lost`. What only the
    database knew (claims, handles, the history of states) is gone.
    A directory that cannot be understood is passed over with a warning. Returns the number of runs.
    Raises StoreError if another process has the database open.
    """
    path, new = home / database.FILE_NAME, home / "atlas.db.reindex"
    with database.explained(path, database.RUNS):
        _remove(new)
        try:
            with Store.open_file(new) as store:
                count = sum(
                    _add(store, arguments, run_dir, worker_of(run_dir)) for arguments, run_dir in _described(home)
                )
            assert not _beside(new, "-wal").exists(), "closing the last connection empties the write-ahead log"
            if path.exists():
                _set_aside(path)
            new.replace(path)
        finally:
            _remove(new)
    return count


def enqueue_arguments(document: Mapping[str, Any]) -> dict[str, Any]:
    """What `Store.enqueue` needs to know (but the run directory) from the content of spec.json."""
    job = document["job"]
    training, resources = job.get("training") or {}, job.get("resources") or {}
    return {
        "id": document["run_id"],
        "name": job["name"],
        "method": job["method"]["type"],
        "student": job["student"]["model"],
        "teacher": job["teacher"]["model"] if job.get("teacher") else None,
        "dataset": job["dataset"]["type"],
        "executor": job["executor"]["type"],
        "digest": document["digest"],
        "spec": json.dumps(job),
        "tags": job.get("tags", []),
        "notes": job.get("notes", ""),
        "gpus": resources.get("gpus"),
        "planned_steps": training.get("max_steps") if training else 0,
        "created_seconds": document["submitted_at_seconds"],
    }


def _described(home: Path) -> list[tuple[dict[str, Any], Path]]:
    """The arguments of `Store.enqueue` for every run directory, oldest first."""
    found = []
    for run_dir in (home / "runs").glob("*/"):
        try:
            found.append((enqueue_arguments(json.loads((run_dir / "spec.json").read_bytes())), run_dir))
        except (OSError, ValueError, LookupError, TypeError) as error:
            logger.warning("passed over %s: its spec.json is not that of a run: %r", run_dir, error)
    return sorted(found, key=lambda pair: (pair[0]["created_seconds"], pair[0]["id"]))


def _add(store: Store, arguments: dict[str, Any], run_dir: Path, worker: Worker | None) -> int:
    """Stores one run as it stands; returns how many runs that makes."""
    run_id = arguments["id"]
    try:
        store.enqueue(**arguments, run_dir=run_dir)
    except StoreError as error:
        logger.warning("passed over %s: %s", run_dir, error)
        return 0
    run = store.claim("reindex", run_id)
    assert run is not None
    store.ingest(run_id)
    result_file = run_dir / "result.json"
    try:
        result = json.loads(result_file.read_bytes())
        state, step, planned_step = _STATES[result["state"]], result["step"], result.get("planned_step", 0)
    except FileNotFoundError:
        if worker is not None:
            store.started(run_id, run.fence, *worker)
            return 1
        store.finish(run_id, run.fence, "lost", message="reindexed without a result")
        return 1
    except (OSError, ValueError, LookupError, TypeError) as error:
        store.finish(run_id, run.fence, "lost", message=f"result.json cannot be understood: {error!r}")
        return 1
    reason, message = result.get("reason"), result.get("message")
    if state == "succeeded" and step < planned_step:
        state, reason, message = "failed", "error", f"ended at step {step} of {planned_step}"
    store.finish(run_id, run.fence, state, reason, message, at_seconds=result_file.stat().st_mtime)
    return 1


def _set_aside(path: Path) -> None:
    """Makes the old database one closed file and copies it: a log left beside it would be replayed into the new one."""
    try:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=1)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.OperationalError as error:
        raise StoreError(
            f"{path} is in use ({error}); end `atlas up`, `atlas dashboard` and other Atlas commands, then try again"
        ) from error
    except sqlite3.DatabaseError as error:
        logger.warning("the old database %s is damaged: %s", path, error)
    shutil.copy2(path, _beside(path, ".bak-reindex"))
    for suffix in ("-wal", "-shm"):
        _beside(path, suffix).unlink(missing_ok=True)


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", ".lock"):
        _beside(path, suffix).unlink(missing_ok=True)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
