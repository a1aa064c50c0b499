import math

import numpy as np
import pytest

from atlas.analysis.curves import Reached
from atlas.analysis.seeds import MeanError, pooled
from atlas.comparison.wording import DeviceTime
from atlas.report import numbers
from atlas.report.document import Missing

READINGS = numbers.Readings(DeviceTime("GPU-h", 3600))


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.04, "0.0s"),
        (9.94, "9.9s"),
        (9.97, "10s"),
        (59.6, "1m 00s"),
        (3599.6, "1h 00m"),
        (190000, "2d 04h"),
        (math.nan, "?"),
    ],
)
def test_a_duration_rounds_up_into_the_next_unit(seconds, shown):
    assert numbers.duration(seconds) == shown


def test_a_target_that_was_reached_by_all_seeds_has_a_mean_and_a_range():
    times = [Reached(3600.0 * n, 9000.0) for n in (1, 2, 3)]
    assert READINGS.reached("gpu_seconds", times, "") == "2.0 (1.0 to 3.0)"
    assert READINGS.reached("train_seconds", times[:1], "") == "1h 00m"


def test_no_mean_is_claimed_of_the_seeds_that_happened_to_reach_a_target():
    times = [Reached(3600.0, 9000.0), Reached(None, 7200.0), Reached(None, 9000.0)]
    assert READINGS.reached("gpu_seconds", times, "") == "> 2.0 in 2 of 3 seeds"
    assert READINGS.reached("rollouts", times[1:2], "") == "> 7200"


def test_seeds_without_evaluations_are_counted_as_absent():
    never = Reached(None, math.nan)
    assert READINGS.reached("rollouts", [Reached(640.0, 900.0), never], "") == "640 in 1 of 2 seeds"
    assert READINGS.reached("rollouts", [never], "no evaluation") == Missing("no evaluation")


def test_an_error_of_one_seed_or_of_equal_seeds_is_left_out():
    assert READINGS.mean("gpu_seconds", MeanError(7200.0, math.nan, 1)) == "2.0"
    assert READINGS.mean("rollouts", MeanError(640.0, 0.0, 3)) == "640"
    assert READINGS.mean("rollouts", MeanError(640.0, 8.0, 3)) == "640 ± 8"
    assert isinstance(READINGS.mean("rollouts", MeanError(math.nan, math.nan, 0)), Missing)


def test_pass_rates_are_in_percent_with_their_interval():
    half = pooled(np.array([[1.0, 0.0] * 50]))
    assert numbers.pass_rate(half, "") == "50.0 [40.4, 59.6]"
    assert numbers.error_over_seeds(half, "") == Missing("one seed has no standard error over seeds")
    assert numbers.pass_rate(None, "no test") == Missing("no test")


def test_differences_carry_their_sign_and_p_values_do_not_vanish():
    assert numbers.signed_points(0.0321) == "+3.2"
    assert numbers.signed_points(-0.127) == "−12.7"
    assert numbers.p_value(0.00002) == "< 0.001"
    assert numbers.p_value(0.0123) == "0.012"
    assert isinstance(numbers.p_value(math.nan), Missing)
