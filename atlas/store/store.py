"""The record of all runs: the queue, the states, what was measured.

A `Store` may be shared by threads, and any number of processes may open the same one.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from sqlalchemy import Engine, update
from sqlalchemy.dialects.sqlite import insert
from sqlmodel import Session, col, select

from atlas.errors import StoreError
from atlas.store import database
from atlas.store.ingest import start_over, store_stretch
from atlas.store.models import EventRecord, RunRecord, SpecSnapshot
from atlas.store.queries import Queries, driver_connection, find
from atlas.store.states import ENDED, IDLE, OVER, RESUMABLE, TRANSITIONS
from atlas.store.stream import READERS, was_replaced


class StaleFence(StoreError):
    """The run has been claimed or queued again since: whoever holds the old fence number has lost the run."""


class Store(Queries, database.Closing):
    """The database of one home. A change of a claimed run names the fence of its claim: an older one raises StaleFence
    and changes nothing. A change that no rule of `atlas.store.states` allows raises StoreError."""

    def __init__(self, path: Path, reader: Engine, writer: Engine | None) -> None:
        """Use `open` or `open_read_only`."""
        super().__init__(path, reader)
        self._writer = writer

    @classmethod
    def open(cls, home: Path) -> Self:
        """Opens the store in `home` for reading and writing; creates or migrates it first.

        Raises StoreError if the folder cannot be written, the file is no database of Atlas, or a newer Atlas wrote it.
        """
        return cls.open_file(home / database.FILE_NAME)

    @classmethod
    def open_file(cls, path: Path) -> Self:
        """`open`, for a database file of another name."""
        writer = database.open_for_writing(path, database.RUNS)
        return cls(path, database.open_for_reading(path, database.RUNS), writer)

    @classmethod
    def open_read_only(cls, home: Path) -> Self:
        """Opens the store in `home` so that nothing can change it. Raises StoreError if there is none."""
        path = home / database.FILE_NAME
        return cls(path, database.open_for_reading(path, database.RUNS), None)

    def enqueue(
        self,
        *,
        id: str,
        name: str,
        method: str,
        student: str,
        teacher: str | None,
        dataset: str,
        executor: str,
        digest: str,
        spec: str,
        run_dir: str | Path,
        tags: Sequence[str] = (),
        notes: str = "",
        gpus: int | None = None,
        planned_steps: int | None = None,
        created_seconds: float | None = None,
    ) -> None:
        """Adds a run to the queue. `spec` is the resolved job as JSON. Raises StoreError if the id is taken."""
        spec = json.dumps(json.loads(spec))
        snapshot = SpecSnapshot(digest=hashlib.sha256(spec.encode()).hexdigest(), text=spec)
        run = RunRecord(
            id=id,
            name=name,
            method=method,
            student=student,
            teacher=teacher,
            dataset=dataset,
            executor=executor,
            digest=digest,
            spec_digest=snapshot.digest,
            run_dir=str(run_dir),
            tags=list(tags),
            notes=notes,
            gpus_wanted=gpus,
            planned_steps=planned_steps,
            created_seconds=time.time() if created_seconds is None else created_seconds,
        )
        with self._writing() as session:
            if session.exec(select(RunRecord.number).where(RunRecord.id == id)).first() is not None:
                raise StoreError(f"there is a run {id} already; give the new one another id")
            session.exec(insert(SpecSnapshot).values(snapshot.model_dump()).on_conflict_do_nothing())
            session.add(run)
            session.flush()
            _note(session, run, "queued")

    def claim(self, scheduler: str, run_id: str | None = None) -> RunRecord | None:
        """Takes the oldest queued run, or `run_id` if it is still queued, for this scheduler; raises its fence."""
        queued = select(RunRecord.number).where(RunRecord.state == "queued")
        if run_id is not None:
            queued = queued.where(RunRecord.id == run_id)
        first = queued.order_by(col(RunRecord.created_seconds), col(RunRecord.number)).limit(1).scalar_subquery()
        change = (
            update(RunRecord)
            .where(col(RunRecord.number) == first)
            .values(
                state="claimed",
                fence=col(RunRecord.fence) + 1,
                claimed_by=scheduler,
                claimed_seconds=time.time(),
            )
        )
        with self._writing() as session:
            run = session.scalars(change.returning(RunRecord)).one_or_none()
            if run:
                _note(session, run, "claimed", f"by {scheduler}, fence {run.fence}")
            return run

    def started(self, run_id: str, fence: int, handle: str, gpus: Sequence[int]) -> None:
        """The executor has started the worker."""
        with self._writing() as session:
            run = _held(session, run_id, fence)
            devices = f"GPU {', '.join(map(str, gpus))}" if gpus else "the CPU"
            _move(session, run, "running", f"{handle} on {devices}")
            run.handle, run.gpus, run.started_seconds = handle, list(gpus), time.time()

    def adopt(self, run_id: str, fence: int, handle: str, gpus: Sequence[int]) -> None:
        """A running run turns out to be the work of another worker than the one that was started for it."""
        with self._writing() as session:
            run = _held(session, run_id, fence)
            if run.state != "running":
                raise StoreError(f"run {run_id} is {run.state}; expected one that is running")
            run.handle, run.gpus = handle, list(gpus)
            _note(session, run, "adopted", handle)

    def requeue(self, run_id: str, fence: int, reason: str) -> None:
        """Puts a run whose worker is proven dead back into the queue, or cancels it if that was asked for meanwhile."""
        with self._writing() as session:
            run = _held(session, run_id, fence)
            _move(session, run, "cancelled" if run.cancel_requested else "queued", reason)

    def finish(
        self,
        run_id: str,
        fence: int,
        state: str,
        reason: str | None = None,
        message: str | None = None,
        exit_code: int | None = None,
        at_seconds: float | None = None,
    ) -> None:
        """The worker is gone: `state` is succeeded, failed, cancelled, preempted or lost. Default time: now."""
        assert state in OVER, state
        with self._writing() as session:
            run = _held(session, run_id, fence)
            _move(session, run, state, ": ".join(part for part in (reason, message) if part))
            run.reason, run.message, run.exit_code = reason, message, exit_code
            run.ended_seconds = run.ended_seconds if at_seconds is None else at_seconds

    def request_cancel(self, run_id: str) -> str:
        """Cancels a run that has no worker at once; otherwise sets the flag that makes the scheduler stop it.

        Returns the state of the run afterwards. Raises StoreError if the run has ended.
        """
        with self._writing() as session:
            run = find(session, run_id)
            if run.state in ENDED:
                raise StoreError(f"run {run_id} has {run.state} already; there is nothing to cancel")
            run.cancel_requested = True
            _note(session, run, "cancel_requested")
            if run.state in IDLE:
                _move(session, run, "cancelled", "before it was started")
            return run.state

    def resume(self, run_id: str) -> None:
        """Queues a failed, cancelled, preempted or lost run again because the user asked for it, under a new fence."""
        with self._writing() as session:
            run = find(session, run_id)
            if run.state not in RESUMABLE:
                expected = ", ".join(sorted(RESUMABLE))
                raise StoreError(f"run {run_id} is {run.state} and cannot be resumed; expected one that is {expected}")
            _note(session, run, "resumed", f"was {run.state}")
            _queue_again(session, run, "the user asked for it")

    def note_terminated(self, run_id: str, fence: int, at_seconds: float) -> None:
        """The worker was told to stop (TERM) at this Unix time."""
        with self._writing() as session:
            run = _held(session, run_id, fence)
            if run.state in OVER:
                raise StoreError(f"run {run_id} is {run.state}: it has no worker that could be told to stop")
            run.terminated_seconds = at_seconds
            _note(session, run, "terminated", "asked to stop")

    def event(self, run_id: str, kind: str, message: str = "") -> None:
        """Records something worth knowing about a run."""
        with self._writing() as session:
            _note(session, find(session, run_id), kind, message)

    def ingest(self, run_id: str, fence: int | None = None) -> int:
        """Reads what the worker has appended to its streams since the last time. Returns the number of good lines.

        Rows and byte offset are committed together, so a crash neither loses nor doubles a line. Bad lines are
        recorded in an event and skipped. A file that was replaced is read again from the start.
        """
        lines = 0
        for stream in READERS:
            while (stored := self._ingest_stretch(run_id, stream, fence)) is not None:
                lines += stored
        return lines

    def _ingest_stretch(self, run_id: str, stream: str, fence: int | None) -> int | None:
        """One transaction of `ingest`, read before it begins. None when there is nothing left."""
        with self._reading() as session:
            run = find(session, run_id)
        file, start = Path(run.run_dir) / f"{stream}.jsonl", _offset_bytes(run, stream)
        try:
            replaced = was_replaced(file, start)
            stretch = READERS[stream](file, start)
        except OSError as error:
            raise StoreError(f"cannot read what run {run_id} has measured: {error}; make it readable") from error
        if stretch.end == start and not replaced:
            return None
        with self._writing() as session:
            run = find(session, run_id) if fence is None else _held(session, run_id, fence)
            if _offset_bytes(run, stream) != start:
                return 0  # Another process was faster; go on from where it stopped.
            assert run.number is not None
            if replaced:
                start_over(driver_connection(session), run.number, stream)
                return 0
            store_stretch(driver_connection(session), run.number, stretch)
        return stretch.lines

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        """One transaction that holds the write lock from its first statement on."""
        if self._writer is None:
            raise StoreError(f"{self.path} was opened for reading only; use Store.open to change it")
        explained = database.explained(self.path, database.RUNS)
        with explained, Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session


def _held(session: Session, run_id: str, fence: int) -> RunRecord:
    """The run, if `fence` still holds it."""
    run = find(session, run_id)
    if run.fence != fence:
        raise StaleFence(f"run {run_id} was claimed or queued again: it has fence {run.fence}, this is fence {fence}")
    return run


def _move(session: Session, run: RunRecord, state: str, why: str) -> None:
    """The one place where a scheduler's change of state happens, inside a writing transaction."""
    if state not in TRANSITIONS[run.state]:
        allowed = ", ".join(sorted(TRANSITIONS[run.state])) or "nothing, it has ended"
        raise StoreError(f"run {run.id} is {run.state} and cannot become {state}; what may follow: {allowed}")
    if state == "queued":
        _queue_again(session, run, why)
        return
    run.state = state
    run.ended_seconds = time.time() if state in OVER else None
    _note(session, run, state, why)


def _queue_again(session: Session, run: RunRecord, why: str) -> None:
    """A new attempt knows nothing of the last one but what that left in the run directory."""
    run.state = "queued"
    run.fence += 1
    run.cancel_requested = False
    run.claimed_by = run.handle = run.reason = run.message = run.exit_code = None
    run.claimed_seconds = run.started_seconds = run.terminated_seconds = run.ended_seconds = None
    run.gpus = []
    _note(session, run, "queued", why)


def _note(session: Session, run: RunRecord, kind: str, message: str = "") -> None:
    assert run.number is not None
    session.add(EventRecord(run=run.number, at_seconds=time.time(), kind=kind, message=message))


def _offset_bytes(run: RunRecord, stream: str) -> int:
    return {"metrics": run.metrics_offset_bytes, "samples": run.samples_offset_bytes}[stream]
