"""A process on this machine that outlives the terminal it was started from."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import psutil

from atlas.errors import ExecutorError
from atlas.executors.base import Executor


class LocalExecutor(Executor):
    """Runs the job as a process group of its own on this machine."""

    type: Literal["local"] = "local"

    def launch(self, run_dir: Path, gpus: Sequence[int]) -> str:
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus))}
        with open(run_dir / "worker.log", "ab") as log:
            try:
                process = subprocess.Popen(
                    [sys.executable, "-m", "atlas.worker", str(run_dir)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,
                )
            except OSError as error:
                raise ExecutorError(f"could not start {sys.executable}: {error}") from error
        return f"{process.pid}:{_start_time(process.pid)}"

    def alive(self, handle: str) -> bool:
        pid, start_time = handle.split(":")
        return _start_time(int(pid)) == start_time

    def terminate(self, handle: str, force: bool = False) -> None:
        pid = int(handle.split(":")[0])
        if not self.alive(handle):
            return
        try:
            os.killpg(pid, signal.SIGKILL if force else signal.SIGTERM)
        except ProcessLookupError:
            return


def _start_time(pid: int) -> str | None:
    """When the process started, as text that no other process with this id can share; None if it is gone."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.NoSuchProcess:
        return None
