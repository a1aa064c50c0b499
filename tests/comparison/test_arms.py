import math

import numpy as np
import pytest

from atlas.comparison.collect import collect


def arms(lab, *runs):
    return collect(lab.store, runs, force=True).arms


def test_an_arm_is_the_mean_over_its_seeds_with_as_many_problems_as_one_seed_has(lab):
    runs = [lab.run("gkd", 0, [0.1, 0.5, 0.4], "1100000000"), lab.run("gkd", 1, [0.2, 0.3, 0.7], "1000000001")]
    (arm,) = arms(lab, *runs)
    assert (arm.first.pass_rate, arm.peak.pass_rate, arm.test.pass_rate) == pytest.approx((0.15, 0.6, 0.2))
    assert (arm.first.problems, arm.peak.problems, arm.test.problems) == (100, 100, 10)
    assert arm.peak.standard_error == pytest.approx(0.1), "|0.7 - 0.5| / 2"
    assert arm.test.seeds == 2 and arm.test.standard_error == 0
    assert arm.first.low < 0.15 < arm.first.high


def test_time_to_peak_is_that_of_each_run_and_work_is_a_mean(lab):
    runs = [lab.run("gkd", 1, [0.1, 0.5, 0.5], seconds_per_step=3.0), lab.run("gkd", 0, [0.1, 0.3, 0.5])]
    (arm,) = arms(lab, *runs)
    assert [run.seed for run in arm.runs] == [0, 1]
    assert [time.value for time in arm.to_peak["train_seconds"]] == [20, 30]
    assert [time.value for time in arm.to_peak["rollouts"]] == [160, 80]
    assert (arm.used["train_seconds"].mean, arm.used["train_seconds"].n) == (40, 2)


def test_a_failed_seed_is_kept_but_does_not_count_unless_all_failed(lab):
    good, bad = lab.run("gkd", 0, [0.1, 0.5]), lab.run("gkd", 1, [0.3], state="failed")
    (arm,) = arms(lab, good, bad)
    assert [run.state for run in arm.runs] == ["succeeded", "failed"]
    assert (arm.first.pass_rate, arm.first.seeds) == (0.1, 1)
    assert len(arm.to_peak["train_seconds"]) == 2
    (alone,) = arms(lab, bad)
    assert alone.peak.pass_rate == 0.3


def test_a_run_without_evaluations_has_no_numbers(lab):
    (arm,) = arms(lab, lab.run("gkd", 0, state="queued"))
    assert arm.first is arm.peak is arm.test is arm.area is arm.reverse_kl is None
    assert arm.to_peak["gpu_seconds"][0].censored and math.isnan(arm.to_peak["gpu_seconds"][0].limit)
    assert arm.used["rollouts"].n == 0


def test_nan_is_never_a_peak(lab):
    (arm,) = arms(lab, lab.run("gkd", 0, [0.1, math.nan, 0.4]))
    assert arm.peak.pass_rate == 0.4
    (arm,) = arms(lab, lab.run("sft", 0, [math.nan, math.nan]))
    assert arm.first is arm.peak is None


def test_an_evaluation_without_a_clock_is_left_out_of_the_times(lab):
    run_id = lab.run("gkd", 0, [0.1, 0.5])
    with (lab.store.home / "runs" / run_id / "metrics.jsonl").open("a") as file:
        file.write('{"step": 30, "values": {"eval/pass_rate": 0.9, "eval/problems": 100}}\n')
    lab.store.ingest(run_id)
    (arm,) = arms(lab, run_id)
    assert arm.peak.pass_rate == 0.9 and np.isnan(arm.runs[0].clocks_E["rollouts"][2])
    assert arm.to_peak["train_seconds"][0].value == 10


def test_areas_end_where_the_shortest_run_does(lab):
    short, long = lab.run("grpo", 0, [0.2, 0.4]), lab.run("gkd", 0, [0.2, 0.6, 1.0])
    assert [arm.area.mean for arm in arms(lab, short, long)] == pytest.approx([0.3, 0.4])


def test_test_scores_of_seeds_with_other_problems_rest_on_those_in_common(lab):
    runs = [lab.run("gkd", 0, [0.1], "1100000000"), lab.run("gkd", 1, [0.1], "11111")]
    (arm,) = arms(lab, *runs)
    assert (arm.test.problems, arm.test.pass_rate) == (5, pytest.approx(0.7))


def test_targets_are_most_of_the_teacher_and_the_weaker_peak(lab):
    gkd, grpo = lab.run("gkd", 0, [0.1, 0.6]), lab.run("grpo", 0, [0.1, 0.5], seconds_per_step=4.0)
    teacher = lab.run("evaluate", 0, [0.7], student={"model": "org/teacher"})
    most, peak = collect(lab.store, [gkd, grpo, teacher]).targets
    assert (most.name, most.level) == ("90 % of the teacher", pytest.approx(0.63))
    assert most.reached["gkd"]["train_seconds"][0].censored
    assert most.reached["gkd"]["train_seconds"][0].limit == 10
    assert (peak.name, peak.level) == ("grpo's peak", pytest.approx(0.45)), "0.5 less sqrt(0.5 * 0.5 / 100)"
    assert peak.reached["gkd"]["train_seconds"][0].value == pytest.approx(7)
    assert peak.reached["grpo"]["train_seconds"][0].value == pytest.approx(35)


def test_the_teacher_may_have_been_measured_by_a_run_that_learns_from_it(lab):
    run = lab.run("gkd", 0, [0.1, 0.6], metrics={"eval/teacher_pass_rate": 0.5})
    (target,) = collect(lab.store, [run]).targets
    assert (target.name, target.level) == ("90 % of the teacher", pytest.approx(0.45))


def test_a_teacher_that_solves_nothing_or_was_measured_elsewhere_is_no_target(lab):
    gkd = lab.run("gkd", 0, [0.1])
    nothing = lab.run("evaluate", 0, [0.0], student={"model": "org/teacher"})
    elsewhere = lab.run("evaluate", 0, [0.7], "1111111000", student={"model": "org/teacher"}, eval_split="test")
    assert collect(lab.store, [gkd, nothing]).targets == ()
    assert collect(lab.store, [gkd, elsewhere], force=True).targets == ()


def test_a_peak_that_is_no_climb_is_no_target(lab):
    assert collect(lab.store, [lab.run("gkd", 0, [0.1, 0.6]), lab.run("grpo", 0, [0.3, 0.32])]).targets == ()
