"""How numbers are written in a report's tables. What is no finite number is `Missing`, with the caller's reason."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from atlas.analysis.curves import Reached
from atlas.analysis.seeds import MeanError, Pooled
from atlas.comparison.wording import DeviceTime, count, counted_noun, number
from atlas.duration import duration as whole_duration
from atlas.report.document import Cell, Missing


def percent(rate: float) -> str:
    """`41.5`: a pass rate in percent; `?` if it is no number."""
    return f"{100 * rate:.1f}" if math.isfinite(rate) else "?"


def percent_with_interval(rate: float, low: float, high: float) -> str:
    """`41.5 [35.0, 48.3]`"""
    return f"{percent(rate)} [{percent(low)}, {percent(high)}]"


def pass_rate(pooled: Pooled | None, reason: str) -> Cell:
    """An arm's pass rate with its Wilson interval."""
    if pooled is None or not math.isfinite(pooled.pass_rate):
        return Missing(reason)
    return percent_with_interval(pooled.pass_rate, pooled.low, pooled.high)


def error_over_seeds(pooled: Pooled | None, reason: str) -> Cell:
    """The standard error over seeds, in points."""
    if pooled is None or not math.isfinite(pooled.pass_rate):
        return Missing(reason)
    if not math.isfinite(pooled.standard_error):
        return Missing("one seed has no standard error over seeds")
    return percent(pooled.standard_error)


def signed_points(difference: float) -> str:
    """`+3.2`: a difference of pass rates in percentage points; the minus is a real one."""
    return f"{100 * difference:+.1f}".replace("-", "−") if math.isfinite(difference) else "?"


def p_value(p: float) -> Cell:
    """`0.012`, `< 0.001`"""
    if not math.isfinite(p):
        return Missing("McNemar's test is defined for right and wrong only, not for several completions of a problem")
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def ratio(value: float) -> str:
    """`4.8×`"""
    return f"{number(value)}×"


def duration(seconds: float) -> str:
    """`atlas.duration`, with a decimal below ten seconds: `4.2s`."""
    return f"{seconds:.1f}s" if math.isfinite(seconds) and seconds < 9.95 else whole_duration(seconds)


@dataclass(frozen=True)
class Readings:
    """Writes readings of the clocks: device time in `device.unit`, other time as a duration, else a count."""

    device: DeviceTime

    def one(self, clock: str, value: float) -> str:
        if clock == "gpu_seconds":
            return self.device.number(value)
        return duration(value) if clock.endswith("_seconds") else count(value)

    def of_run(self, clock: str, value: float | None) -> Cell:
        if value is None or not math.isfinite(value):
            return Missing("no clock was recorded")
        return self.one(clock, value)

    def mean(self, clock: str, mean: MeanError | None) -> Cell:
        """Over seeds, with the standard error where there are several and they differ."""
        if mean is None:
            return Missing("no clock was recorded")
        shown = self.of_run(clock, mean.mean)
        if isinstance(shown, Missing) or not mean.standard_error > 0:
            return shown
        return f"{shown} ± {self.one(clock, mean.standard_error)}"

    def reached(self, clock: str, readings: Sequence[Reached], reason: str) -> Cell:
        """One seed: `1.2` or `> 3.0`. Several: mean and range, or in how many the level was never reached."""
        known = [each for each in readings if not each.censored or math.isfinite(each.limit)]
        if not known:
            return Missing(reason)
        limits = [each.limit for each in known if each.censored]
        if limits:
            text = f"> {self.one(clock, min(limits))}"
            return text if len(known) == 1 else f"{text} in {len(limits)} of {counted_noun(len(known), 'seed')}"
        values = [each.value for each in known if each.value is not None]
        text = self.one(clock, sum(values) / len(values))
        low, high = self.one(clock, min(values)), self.one(clock, max(values))
        if low != high:
            text += f" ({low} to {high})"
        return text if len(known) == len(readings) else f"{text} in {len(known)} of {len(readings)} seeds"
