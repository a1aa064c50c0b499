"""What the job takes of its machine while it trains: GPUs as NVML sees them, and its processes. Nothing here raises."""

import logging
import time
from collections.abc import Callable
from typing import Any

import psutil

from atlas.provenance import Gpu
from atlas.provenance import gpus as usable_gpus

logger = logging.getLogger(__name__)

EVERY_SECONDS = 1.0
"""Readings closer together are left out, so that quick steps stay quick."""


class Meter:
    """Reads now and then. GPU 0 is the first that the job may use, whatever its number in the machine is."""

    def __init__(self) -> None:
        self._next_seconds = 0.0
        self._processes: dict[int, psutil.Process] = {}
        self._nvml: Any = None
        self._devices: list[Any] = []
        self._open_devices()
        self._of_processes()  # the first reading of a process has nothing to compare with

    def reading(self) -> dict[str, float]:
        """Metrics `resources/*` of now; empty within a second of the last ones."""
        now = time.monotonic()
        if now < self._next_seconds:
            return {}
        self._next_seconds = now + EVERY_SECONDS
        found: dict[str, float] = {}
        for number, device in enumerate(self._devices):
            found |= self._of_gpu(number, device)
        return found | self._of_processes()

    def _open_devices(self) -> None:
        mine: list[Gpu] = usable_gpus()
        if not mine:
            return
        import pynvml

        try:
            pynvml.nvmlInit()  # stays open: opening takes longer than reading
            self._devices = [pynvml.nvmlDeviceGetHandleByIndex(gpu.index) for gpu in mine]
        except (OSError, pynvml.NVMLError):
            logger.debug("NVML gives no devices", exc_info=True)
            self._devices = []
        self._nvml = pynvml

    def _of_gpu(self, number: int, device: Any) -> dict[str, float]:
        """What this GPU tells; some tell no power, and those shared in parts no utilization."""
        readings: dict[str, Callable[[], float]] = {
            "utilization_percent": lambda: self._nvml.nvmlDeviceGetUtilizationRates(device).gpu,
            "memory_bytes": lambda: self._nvml.nvmlDeviceGetMemoryInfo(device).used,
            "power_watts": lambda: self._nvml.nvmlDeviceGetPowerUsage(device) / 1000,
        }
        found = {}
        for name, read in readings.items():
            try:
                found[f"resources/gpu{number}_{name}"] = float(read())
            except (OSError, self._nvml.NVMLError):
                continue
        return found

    def _of_processes(self) -> dict[str, float]:
        """CPU in percent of one core, since the last call, by the worker and all that it has started."""
        try:
            worker = psutil.Process()
            there = {process.pid: process for process in (worker, *worker.children(recursive=True))}
            memory = worker.memory_info().rss
        except (psutil.Error, OSError):
            logger.debug("could not read what the worker's processes take", exc_info=True)
            return {}
        known = self._processes
        self._processes = {pid: known[pid] if known.get(pid) == process else process for pid, process in there.items()}
        percent = sum(map(_percent, self._processes.values()))
        return {"resources/process_memory_bytes": float(memory), "resources/cpu_percent": percent}


def _percent(process: psutil.Process) -> float:
    try:
        return process.cpu_percent()
    except psutil.Error:  # it has just ended
        return 0.0
