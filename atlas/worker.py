"""python -m atlas.worker RUN_DIR: runs one job, from spec.json to result.json.

The worker sees only its run directory and what the job names. It leaves a result.json unless it is killed. For several
GPUs it starts itself again for each (`atlas.ranks`).
"""

import fcntl
import json
import logging
import os
import signal
import sys
import traceback
import warnings
from pathlib import Path
from types import FrameType

from atlas.executors.base import GPUS, HANDLE
from atlas.executors.local import keep_to_cores, process_handle
from atlas.failure import reason_of
from atlas.monitors import wandb
from atlas.private import open_private
from atlas.provenance import environment
from atlas.ranks import end_with_parent, place, supervise
from atlas.run import Run, Stopped, is_working

logger = logging.getLogger(__name__)

SUCCEEDED, FAILED, BUSY, STOPPED = 0, 1, 3, 143
"""Exit codes of a worker. BUSY: another worker holds this run directory."""
_LOG_TAIL_LINES = 40


def work(run_dir: Path, ranks: int | None = None) -> int:
    """Runs the job of this directory to its end and returns the exit code. `ranks`: processes that train together;
    default: one for each GPU that the job asks for."""
    lock = open_private(run_dir / "worker.lock", "a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"another worker is running in {run_dir}", file=sys.stderr)
        return BUSY
    _record_handle(run_dir)
    _record_environment(run_dir)
    run = Run(run_dir)
    _stop_on_sigterm(run)
    ranks = ranks or run.job.resources.gpus or 1
    streamer = wandb.start(run_dir) if run.job.wandb else None
    try:
        return _run_method(run) if ranks == 1 else _run_ranks(run, ranks)
    finally:
        if streamer:
            wandb.stop(streamer, timeout_seconds=30)


def work_as_rank(run_dir: Path) -> int:
    """The part of one of several processes that the worker has started. Returns the exit code."""
    rank, _ = place()
    end_with_parent()
    run = Run(run_dir, rank)
    if rank == 0:
        _stop_on_sigterm(run)
    else:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the first speaks for all
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    code = _run_method(run)
    return SUCCEEDED if rank and code == STOPPED else code  # only a failure of theirs says something


def recorded_handle(run_dir: Path) -> tuple[str, list[int]] | None:
    """The handle and the GPUs of the worker that holds this directory, for a host that has not noted them; None if
    there is no such worker on this machine, or it has only just begun."""
    if not is_working(run_dir):
        return None
    try:
        document = json.loads((run_dir / "worker.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return document["handle"], document["gpus"]


def log_tail(run_dir: Path, lines: int = _LOG_TAIL_LINES) -> str:
    """The last lines of the worker's log; empty if there is none."""
    try:
        with open(run_dir / "worker.log", "rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, size - 65536))
            text = log.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _run_ranks(run: Run, ranks: int) -> int:
    command = [sys.executable, "-P", "-m", "atlas.worker", str(run.directory)]
    for old in run.directory.glob("rank-*.json"):
        old.unlink()
    codes, culprit = supervise(command, ranks, lambda: run.stop_requested)
    if run.stop_requested and -signal.SIGTERM in codes:  # told before it could listen
        run.finish("stopped", planned_step=run.planned_step, message="stopped by a signal while it was starting")
        return STOPPED
    if culprit is None:
        return codes[0]
    cause = run.directory / f"rank-{culprit}.json"
    if cause.exists():  # the first process knows no more than that another has left it
        cause.replace(run.directory / "result.json")
    else:
        how = f"was killed by signal {-codes[culprit]}" if codes[culprit] < 0 else f"exited with {codes[culprit]}"
        message = f"process {culprit} of {ranks} {how} and left no reason; the end of worker.log may have one"
        run.finish("failed", planned_step=run.planned_step, reason="killed", message=message)
    return FAILED


def _run_method(run: Run) -> int:
    try:
        checkpoint = run.job.method.train(run)
    except Stopped:
        run.finish("stopped", planned_step=run.planned_step, message=f"stopped by a signal after step {run.step}")
        return STOPPED
    except Exception as error:
        traceback.print_exc()
        reason, message = reason_of(error)
        run.finish(
            "failed",
            planned_step=run.planned_step,
            reason=reason,
            message=message,
            traceback=traceback.format_exc(),
            log_tail=log_tail(run.directory),
        )
        return FAILED
    run.finish("succeeded", planned_step=run.planned_step, checkpoint=str(checkpoint) if checkpoint else None)
    return SUCCEEDED


def _stop_on_sigterm(run: Run) -> None:
    def request_stop(signum: int, frame: FrameType | None) -> None:
        run.stop_requested = True

    signal.signal(signal.SIGTERM, request_stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _record_handle(run_dir: Path) -> None:
    handle = os.environ.get(HANDLE) or process_handle(os.getpid())
    gpus = [int(gpu) for gpu in os.environ.get(GPUS, "").split(",") if gpu]
    with open_private(run_dir / "worker.json", "w") as file:
        json.dump({"handle": handle, "gpus": gpus}, file)


def _record_environment(run_dir: Path) -> None:
    with open_private(run_dir / "environment.json", "a") as file:
        file.write(json.dumps(environment()) + "\n")


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    warnings.simplefilter("ignore", FutureWarning)  # trl's and transformers' words to each other would bury the rest
    if len(sys.argv) != 2:
        sys.exit("usage: python -m atlas.worker RUN_DIR")
    keep_to_cores()
    sys.exit(work(Path(sys.argv[1])) if place() == (0, 1) else work_as_rank(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
