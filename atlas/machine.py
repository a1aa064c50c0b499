"""What this machine achieves: public figures of known GPUs, and a quick measurement of a CPU."""

import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.executors.local import cores
from atlas.private import open_private
from atlas.provenance import gpus, installed_version
from atlas.step_time import Machine

if TYPE_CHECKING:
    from atlas.job import JobSpec

_GPUS = {
    "H200": (989e12, 4.8e12),
    "H100 PCIe": (756e12, 2.0e12),
    "H100": (989e12, 3.35e12),
    "A100": (312e12, 2.0e12),
    "GB10": (125e12, 0.273e12),
}
"""Part of the name -> dense bfloat16 FLOP/s and bytes/s, from NVIDIA's data sheets. GB10's FLOP/s are an eighth of its
petaflop of sparse FP4."""
_ACHIEVED_FLOPS, _ACHIEVED_BANDWIDTH = 0.4, 0.6
"""Shares of the peak that are assumed to be achieved. Not measured."""
_LAUNCH_SECONDS = 5e-6
"""Of one operation on a GPU, from Python. Assumed."""
_ROUNDS = 6
_FILE = "machines.json"


def machine_of(job: "JobSpec", home: Path) -> Machine | None:
    """The device that the job runs on here; None for an unknown GPU, for several, and for a CPU without torch.

    A CPU is measured with as many threads as the job will use, in about a second; `home` remembers it, unless the
    machine was busy.
    """
    found = gpus()
    if (job.resources.gpus or 1) > 1:
        return None  # what they lose by waiting for each other was never measured
    if job.resources.gpus != 0 and found:
        return gpu(found[0].name)
    if job.resources.gpus:
        return None  # the job is for another machine
    return _cpu(threads_of(job), home / "cache" / _FILE)


def gpu(name: str) -> Machine | None:
    """What a GPU of this name is assumed to achieve."""
    peak = next((peak for part, peak in _GPUS.items() if f" {part}" in name), None)  # a GH200 is no H200
    if peak is None:
        return None
    flops, bandwidth = peak[0] * _ACHIEVED_FLOPS, peak[1] * _ACHIEVED_BANDWIDTH
    return Machine(name, flops, bandwidth, bandwidth, bandwidth, _LAUNCH_SECONDS)


def threads_of(job: "JobSpec") -> int:
    """Threads that torch will have in a job on the CPU."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return job.resources.cpus or (int(told) if told.isdigit() and int(told) else len(cores()))


def _cpu(threads: int, file: Path) -> Machine | None:
    version = installed_version("torch")
    if version is None:
        return None
    name = f"{_cpu_name()}, {threads} thread{'s' if threads > 1 else ''}"
    key = f"{platform.node()}, {name}, torch {version}"
    known = _read(file)
    try:
        return Machine(**known[key])
    except (KeyError, TypeError):
        pass  # not measured yet, or by another Atlas
    try:
        machine = _measured(name, threads)
    except (ImportError, OSError):
        return None
    if os.getloadavg()[0] > len(cores()) - threads + 0.5:  # others took part of what was measured
        return replace(machine, name=f"{name} (busy now, so in truth faster)")
    _write(file, {**known, key: asdict(machine)})
    return machine


@cache
def _measured(name: str, threads: int) -> Machine:
    """Each rate is that of the fastest of some rounds: others may use the machine meanwhile."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            size, rows = 1024, 512
            wide, square = torch.ones(rows, size), torch.ones(size, size)
            many = torch.ones(24 * size, size)  # more than a cache holds
            few, plain = torch.ones(8, size), torch.ones(2**24)
            tiny, small = torch.ones(8, 8), torch.nn.Linear(8, 8)
            calls = 200

            def call() -> None:
                for _ in range(calls):
                    small(tiny)

            flops_per_second = 2 * rows * size * size / _fastest(lambda: wide @ square.t())
            narrow_seconds = _fastest(lambda: few @ many.t())
            computing_seconds = min(2 * len(few) * many.numel() / flops_per_second, 0.9 * narrow_seconds)
            return Machine(
                name=name,
                flops_per_second=flops_per_second,
                weight_bytes_per_second=4 * many.numel() / (narrow_seconds - computing_seconds),
                memory_bytes_per_second=8 * plain.numel() / _fastest(lambda: plain.mul_(1)),
                new_memory_bytes_per_second=8 * plain.numel() / _fastest(lambda: plain * 2),
                seconds_per_operation=_fastest(call) / calls,
            )
    finally:
        torch.set_num_threads(before)


def _fastest(work: Callable[[], object]) -> float:
    """Seconds."""
    work()
    seconds = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def _read(file: Path) -> dict[str, dict[str, Any]]:
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(path: Path, machines: dict[str, dict[str, Any]]) -> None:
    """Where it cannot be written, it is measured again next time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.with_suffix(f".{os.getpid()}.part")
        with open_private(temporary, "w") as file:
            json.dump(machines, file, indent=2)
        temporary.replace(path)
    except OSError:
        return
