"""The clocks as people choose and read them: what they are called, and in which unit an axis shows them."""

from collections.abc import Sequence
from dataclasses import dataclass

from atlas.comparison.model import RunResult
from atlas.comparison.wording import device_time

CLOCKS = {
    "training time": "train_seconds",
    "device time": "gpu_seconds",
    "wall time": "wall_seconds",
    "step": "step",
    "tokens generated": "tokens_generated",
    "tokens trained": "tokens_trained",
    "rollouts": "rollouts",
}
"""What the choice says, which is also what the address says -> `step` or one of `atlas.run.CLOCKS`."""
_UNITS = (("h", 3600.0, 3 * 3600.0), ("min", 60.0, 180.0), ("s", 1.0, 0.0))
"""Name, seconds, and from how many seconds on it is used."""


@dataclass(frozen=True)
class Axis:
    """A clock on an axis."""

    name: str
    """A key of `CLOCKS`."""
    unit: str
    """`GPU-h`, `min`; empty for a count."""
    divisor: float
    """Readings of the clock over this are in `unit`."""

    @property
    def clock(self) -> str:
        return CLOCKS[self.name]

    @property
    def title(self) -> str:
        return f"{self.name} ({self.unit})" if self.unit else self.name


def axis_of(name: str, runs: Sequence[RunResult]) -> Axis:
    """The axis of the clock with this name, in the unit that the longest of these runs wants."""
    clock = CLOCKS[name]
    if clock == "gpu_seconds":
        device = device_time(runs)
        return Axis(name, device.unit, device.unit_seconds)
    if not clock.endswith("_seconds"):
        return Axis(name, "", 1.0)
    longest = max((run.used.get(clock, 0.0) for run in runs), default=0.0)
    unit, seconds = next((unit, seconds) for unit, seconds, start in _UNITS if not longest < start)
    return Axis(name, unit, seconds)
