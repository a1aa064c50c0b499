"""A process on this machine that outlives the terminal it was started from."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import psutil

from atlas.errors import ExecutorError
from atlas.executors.base import CPUS, GPUS, HANDLE, THREADS, Executor
from atlas.private import only_owner

_EXEC_SECONDS = 1.0
logger = logging.getLogger(__name__)


class LocalExecutor(Executor):
    """Runs the job as a process group of its own on this machine."""

    type: Literal["local"] = "local"

    def command(
        self, run_dir: Path, document: Mapping[str, Any], gpus: Sequence[int], cpus: Sequence[int]
    ) -> list[str]:
        # -P: a file of the user's folder called like a module (random.py) must not take its place.
        return [sys.executable, "-P", "-m", "atlas.worker", str(run_dir)]

    def launch(self, run_dir: Path, gpus: Sequence[int], cpus: Sequence[int]) -> str:
        indices = ",".join(map(str, gpus))
        # By PCI bus, an index means the same GPU to CUDA as to NVML and nvidia-smi.
        given = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": indices, GPUS: indices}
        given |= {CPUS: ",".join(map(str, cpus)), HANDLE: ""}
        if cpus:
            given |= dict.fromkeys(THREADS, str(len(cpus)))
        try:
            with open(run_dir / "worker.log", "ab", opener=only_owner) as log:
                process = subprocess.Popen(
                    self.command(run_dir, {}, gpus, cpus),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=os.environ | given,
                    start_new_session=True,
                )
        except OSError as error:
            raise ExecutorError(f"could not start a worker in {run_dir} with {sys.executable}: {error}") from error
        return process_handle(process.pid)

    def alive(self, handle: str) -> bool:
        pid, start_time = handle.split(":")
        return _start_time(int(pid)) == start_time

    def cpus(self, handle: str) -> list[int]:
        if not self.alive(handle):
            return []
        try:
            return _told(_environment(psutil.Process(int(handle.split(":")[0]))))
        except psutil.Error:  # it has ended since
            return []

    def terminate(self, handle: str, force: bool = False) -> None:
        pid, start_time = handle.split(":")
        if _start_time(int(pid)) not in (start_time, None):
            return  # the process id is somebody else's now
        # With the worker gone, the group holds what it left behind; no new process gets the id of a living group.
        try:
            os.killpg(int(pid), signal.SIGKILL if force else signal.SIGTERM)
        except (ProcessLookupError, PermissionError):
            return  # nothing is left, or the group is another user's


def cores() -> list[int]:
    """The CPU cores of this machine that this process and its workers may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def keep_to_cores() -> None:
    """For the worker, before it imports torch, whose threads stay where they began: uses only the cores it was started
    on. Where a process cannot choose its cores (macOS), only the number of threads is bounded."""
    told = _told(os.environ)
    if not told:
        return
    logger.info("uses CPU cores %s", ", ".join(map(str, told)))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, told)


def process_handle(pid: int) -> str:
    """`pid:start_time`, which names one process for ever."""
    return f"{pid}:{_start_time(pid)}"


def _environment(process: psutil.Process) -> Mapping[str, str]:
    """Of a process that may just have been started: the kernel shows none before the program is all in place, which is
    a moment after `launch` returns."""
    give_up = time.monotonic() + _EXEC_SECONDS
    while not (found := process.environ()) and time.monotonic() < give_up:
        time.sleep(0.001)
    return found


def _told(environment: Mapping[str, str]) -> list[int]:
    return [int(core) for core in environment.get(CPUS, "").split(",") if core]


def _start_time(pid: int) -> str | None:
    """When the process started, as text that no other process with this id can share; None if it is gone."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return _ticks_since_boot(pid) or f"{process.create_time():.2f}"
    except psutil.NoSuchProcess:
        return None


def _ticks_since_boot(pid: int) -> str | None:
    """Linux's own start time and boot. The time of day would do, were it not that setting the clock changes it for
    processes that already run."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    return f"{fields[19]}@{boot}"
