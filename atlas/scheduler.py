"""Starts queued runs where there is room and settles those that ended. No threads, no sleeping: call `tick` in a loop.

A settling step may be repeated or done by two processes at once: every change of state is guarded by the run's fence.
"""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from atlas.errors import REASONS, AtlasError, ExecutorError, StoreError
from atlas.executors.base import Executor
from atlas.executors.local import cores
from atlas.failure import reason_in_log
from atlas.job import JobSpec
from atlas.private import open_private
from atlas.provenance import gpus as installed_gpus
from atlas.store import RunRecord, StaleFence, Store
from atlas.worker import log_tail, recorded_handle

GRACE_SECONDS = 120.0
"""How long a cancelled worker may take to checkpoint before it is killed: longer than one step of a large model."""

ACTIVE = ("claimed", "running")


def tick(store: Store, gpus: Sequence[int] | None = None, now_seconds: float | None = None) -> bool:
    """One round: settles every active run, then starts the queued runs that fit.

    Any number of processes may call this on one store: while one of them is in its round, the others only settle.
    `gpus`: the GPU indices that may be given out; default: all of this machine. Returns whether any run is still
    queued or active.
    """
    with scheduler_lock(store.home) as ours:
        settle(store, now_seconds, owns_claims=ours)
        if ours:
            _start_what_fits(store, gpus)
    return bool(store.runs(states=("queued", "preempted", *ACTIVE)))


def settle(store: Store, now_seconds: float | None = None, owns_claims: bool = False) -> None:
    """Brings the store up to date with the run directories. Safe for any reader to call.

    With `owns_claims` (only under the scheduler's lock) a claim that was never turned into a running worker is
    queued again.
    """
    now_seconds = time.time() if now_seconds is None else now_seconds
    for run in store.runs(states=(*ACTIVE, "preempted")):
        try:
            _settle_one(store, run, now_seconds, owns_claims)
        except StaleFence:
            continue
        except ExecutorError as error:  # nobody knows whether it lives: that is no death
            _note_once(store, run, "executor:unreachable", str(error))


def observed_state(store: Store, run: RunRecord) -> str:
    """The run's state for somebody who may not settle it: `lost` if it should run, but its worker is dead and has left
    no result. Until it is settled, a run that has ended is still `running`."""
    if run.state != "running":
        return run.state
    assert run.handle is not None
    if _executor(store, run).alive(run.handle) or (Path(run.run_dir) / "result.json").exists():
        return "running"
    return "lost"


@contextmanager
def scheduler_lock(home: Path) -> Iterator[bool]:
    """Yields whether this process is now the only one that starts runs. Released on exit or death.

    Raises StoreError if the home cannot be written."""
    try:
        lock = open_private(home / "scheduler.lock", "a")
    except OSError as error:
        raise StoreError(f"cannot run the queue of {home}: {error}; make it writable, or set ATLAS_HOME") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _settle_one(store: Store, run: RunRecord, now_seconds: float, owns_claims: bool) -> None:
    run_dir = Path(run.run_dir)
    if run.state == "preempted":
        store.requeue(run.id, run.fence, "continues from its last checkpoint")
        return
    if not run_dir.is_dir():
        if run.handle is not None:  # nobody can read what it writes, and the device is given to the next run
            _executor(store, run).terminate(run.handle)
        store.finish(run.id, run.fence, "lost", reason="missing_file", message=f"{run_dir} is gone")
        return
    if run.state == "claimed":
        if owns_claims:
            _recover_claim(store, run, run_dir)
        return
    # The order matters: a result read, or metrics ingested, before asking whether the worker lives would miss
    # what it wrote in between.
    assert run.handle is not None
    alive = _executor(store, run).alive(run.handle)
    result = None if alive else _read_result(run_dir)
    store.ingest(run.id)
    if alive:
        if not _gave_up_waiting(store, run, now_seconds):
            _pass_on_cancellation(store, run, now_seconds)
        return
    worker = recorded_handle(run_dir) if result is None else None
    if worker is not None and worker[0] != run.handle:
        # Ours found the directory held and gave up: the one that holds it was started for an earlier claim.
        store.adopt(run.id, run.fence, *worker)
        return
    _conclude(store, run, result)


def _note_once(store: Store, run: RunRecord, kind: str, message: str) -> None:
    """An event, unless it is the newest already."""
    newest = store.events(run.id)[-1]
    if (newest.kind, newest.message) != (kind, message):
        store.event(run.id, kind, message)


def _recover_claim(store: Store, run: RunRecord, run_dir: Path) -> None:
    """A scheduler died between claiming this run and noting its worker: adopts the worker if there is one."""
    worker = recorded_handle(run_dir)
    if worker is not None:
        store.started(run.id, run.fence, *worker)
    else:
        store.requeue(run.id, run.fence, "its scheduler ended before the worker was started")


def _gave_up_waiting(store: Store, run: RunRecord, now_seconds: float) -> bool:
    """Ends a run that another queue never starts."""
    assert run.handle is not None and run.started_seconds is not None
    executor = _executor(store, run)
    message = executor.overdue(run.handle, now_seconds - run.started_seconds)
    if message is None:
        return False
    executor.terminate(run.handle, force=True)
    store.finish(run.id, run.fence, "failed", reason="launch_failed", message=message)
    return True


def _pass_on_cancellation(store: Store, run: RunRecord, now_seconds: float) -> None:
    assert run.handle is not None
    if not run.cancel_requested:
        return
    if run.terminated_seconds is None:
        _executor(store, run).terminate(run.handle)
        store.note_terminated(run.id, run.fence, now_seconds)
    elif now_seconds - run.terminated_seconds > GRACE_SECONDS:
        _executor(store, run).terminate(run.handle, force=True)


def _conclude(store: Store, run: RunRecord, result: dict[str, Any] | None) -> None:
    """Turns what a dead worker left behind into the run's final state."""
    if result is None:
        _conclude_without_result(store, run)
        return
    state, message = result["state"], result.get("message")
    if state == "succeeded" and result["step"] < result["planned_step"]:
        message = f"the worker ended at step {result['step']} of {result['planned_step']} and called it success"
        store.finish(run.id, run.fence, "failed", reason="error", message=message)
    elif state == "stopped" and run.cancel_requested:
        store.finish(run.id, run.fence, "cancelled", message=message)
    elif state == "stopped":
        store.finish(run.id, run.fence, "preempted", message=message)
        store.requeue(run.id, run.fence, "continues from its last checkpoint")
    else:
        store.finish(run.id, run.fence, state, reason=result.get("reason"), message=message)


def _conclude_without_result(store: Store, run: RunRecord) -> None:
    if run.cancel_requested:
        store.finish(run.id, run.fence, "cancelled", message="killed before it could write a checkpoint")
        return
    known = _executor(store, run).cause_of_end(run.handle) if run.handle else None
    if known is not None:
        reason, message = known
        message += f"; `atlas resume {run.id}` continues from the last checkpoint"
        store.finish(run.id, run.fence, "failed", reason=reason, message=message)
        return
    tail = log_tail(Path(run.run_dir))
    reason = reason_in_log(tail)
    cause = "kill -9, the kernel's out-of-memory killer, or a reboot" if reason == "killed" else REASONS[reason]
    last_line = tail.splitlines()[-1].strip() if tail.strip() else "its log is empty"
    message = (
        f"the worker ended without a result ({cause}); "
        f"last line: {last_line}; `atlas resume {run.id}` continues from the last checkpoint"
    )
    store.finish(run.id, run.fence, "failed", reason=reason, message=message)


def _start_what_fits(store: Store, gpus: Sequence[int] | None) -> None:
    waiting = store.runs(states=("queued",))
    if not waiting:
        return  # the GPUs are not asked for in every round of a long run
    gpus = [gpu.index for gpu in installed_gpus()] if gpus is None else gpus
    machine, cpu_is_full = cores(), False
    for queued in reversed(waiting):  # oldest first
        job = _job(store, queued)
        if job.executor.places_itself:
            _start(store, queued, job, [], [])
            continue
        wanted = job.resources.gpus if job.resources.gpus is not None else min(1, len(gpus))
        if wanted:
            free = _free_gpus(store, gpus)
            if wanted <= len(free):
                _start(store, queued, job, free[:wanted], [])
            continue
        needed = job.resources.cpus or len(machine)
        free = [] if cpu_is_full else _free_cores(store, machine)
        if needed > len(machine):
            _refuse(store, queued, f"asks for {needed} CPU cores, {len(machine)} can be used here")
        elif needed > len(free):
            cpu_is_full = True  # for younger runs too: small ones could keep a large one waiting for ever
        else:
            _start(store, queued, job, [], free[: job.resources.cpus or 0])


def _free_gpus(store: Store, gpus: Sequence[int]) -> list[int]:
    taken = {gpu for run in store.runs(states=ACTIVE) for gpu in run.gpus}
    return [gpu for gpu in gpus if gpu not in taken]


def _free_cores(store: Store, machine: Sequence[int]) -> list[int]:
    """The executor is asked and not the job, so that a scheduler that was started again knows which cores they are."""
    taken: set[int] = set()
    for run in store.runs(states=ACTIVE):
        executor = _executor(store, run)
        if run.gpus or executor.places_itself:
            continue
        try:
            held = executor.cpus(run.handle) if run.handle else []
        except ExecutorError:
            return []  # nobody knows
        if not held:
            return []  # it uses all of them
        taken.update(held)
    return [core for core in machine if core not in taken]


def _start(store: Store, queued: RunRecord, job: JobSpec, gpus: Sequence[int], cpus: Sequence[int]) -> None:
    run = _claim(store, queued)
    if run is None:
        return
    run_dir = Path(run.run_dir)
    _put_old_result_away(run_dir, run.fence)
    try:
        handle = job.executor.launch(run_dir, gpus, cpus)
    except (AtlasError, OSError) as error:
        store.finish(run.id, run.fence, "failed", reason="launch_failed", message=str(error))
        return
    store.started(run.id, run.fence, handle, gpus)


def _refuse(store: Store, queued: RunRecord, message: str) -> None:
    """It was accepted elsewhere, or with more cores: waiting for ever would say nothing and hold up the others."""
    run = _claim(store, queued)
    if run is not None:
        message += f"; `atlas resume {run.id}` where there are enough, or submit it again with fewer"
        store.finish(run.id, run.fence, "failed", reason="launch_failed", message=message)


def _claim(store: Store, queued: RunRecord) -> RunRecord | None:
    return store.claim(f"{socket.gethostname()}:{os.getpid()}", queued.id)


def _put_old_result_away(run_dir: Path, fence: int) -> None:
    """A result of an earlier attempt must not be taken for this one's."""
    result = run_dir / "result.json"
    if result.exists():
        result.rename(run_dir / f"result.before-attempt-{fence}.json")


def _read_result(run_dir: Path) -> dict[str, Any] | None:
    try:
        result: dict[str, Any] = json.loads((run_dir / "result.json").read_text())
    except FileNotFoundError:
        return None
    return result


def _job(store: Store, run: RunRecord) -> JobSpec:
    return JobSpec.model_validate_json(store.spec(run.id))


def _executor(store: Store, run: RunRecord) -> Executor:
    return _job(store, run).executor
