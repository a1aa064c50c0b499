"""How numbers are written in sentences and tables for a person."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from atlas.comparison.model import RunResult


@dataclass(frozen=True)
class DeviceTime:
    """What training times are shown in: `GPU-h`, `CPU-min`, ..."""

    unit: str
    unit_seconds: float

    def number(self, seconds: float) -> str:
        return number(seconds / self.unit_seconds)

    def text(self, seconds: float) -> str:
        """`5.0 GPU-h`"""
        return f"{self.number(seconds)} {self.unit}"


def device_time(runs: Sequence[RunResult]) -> DeviceTime:
    """Hours of GPU; for runs on the CPU, hours, minutes or seconds, as the longest run wants it."""
    if any(run.environment.get("gpus") for run in runs):
        return DeviceTime("GPU-h", 3600)
    longest = max((run.used.get("gpu_seconds", 0.0) for run in runs), default=0.0)
    name, unit_seconds = ("h", 3600) if longest >= 3600 else ("min", 60) if longest >= 60 else ("s", 1)
    return DeviceTime(f"CPU-{name}", unit_seconds)


def number(value: float) -> str:
    """Two digits or more: `128`, `6.8`, `0.12`; `?` if it is no number."""
    if not math.isfinite(value):
        return "?"
    if abs(value) >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 0.995 or value == 0 else f"{value:.2g}"


def count(value: float) -> str:
    """`960`, `12.3k`, `4.5M`."""
    if not math.isfinite(value):
        return "?"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 10 * size or (value >= size and unit != "k"):
            return f"{value / size:.1f}{unit}"
    return f"{value:.0f}"


def points(rate: float) -> str:
    """A difference of pass rates in percentage points."""
    return f"{100 * rate:.1f}"


def percent_with_interval(rate: float, low: float, high: float) -> str:
    """A pass rate in percent: `41.5 [35, 48]`."""
    return f"{100 * rate:.1f} [{100 * low:.0f}, {100 * high:.0f}]"


def percent(level: float) -> str:
    """A level of confidence: `95`, `98.3`."""
    return f"{100 * level:.1f}".removesuffix(".0")


def counted_noun(n: int, noun: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def seeds_text(sides: Sequence[tuple[int, int]]) -> str:
    """`3 seeds`, `2 of 3 seeds`, `3 and 2 of 3 seeds`: (used, all) of each arm."""
    words = list(dict.fromkeys(f"{used} of {there}" if used < there else str(used) for used, there in sides))
    return f"{' and '.join(words)} {'seed' if words == ['1'] else 'seeds'}"
