"""The run directory, written by the job and read by everything else."""

import json
import math
import os
import stat
from dataclasses import replace

import pytest

from atlas.datasets.base import Example, Splits
from atlas.errors import RunFailed
from atlas.job import JobSpec
from atlas.run import CLOCKS, Clock, Run, Sample

JOB = {
    "name": "tiny",
    "student": {"model": "org/tiny"},
    "method": {"type": "sft"},
    "dataset": {"type": "arithmetic"},
    "training": {"max_steps": 3},
}


@pytest.fixture
def run_dir(tmp_path):
    document = {"run_id": "tiny-abc123", "job": JobSpec.model_validate(JOB).model_dump(mode="json")}
    (tmp_path / "spec.json").write_text(json.dumps(document))
    return tmp_path


@pytest.fixture
def run(run_dir):
    return Run(run_dir)


def lines(run_dir, name="metrics.jsonl"):
    return [json.loads(line) for line in (run_dir / name).read_text().splitlines()]


def test_a_run_knows_its_id_and_its_job(run):
    assert run.id == "tiny-abc123"
    assert run.job == JobSpec.model_validate(JOB)


def test_a_metric_line_has_the_step_all_clocks_and_the_values(run, run_dir):
    run.clock.rollouts = 64
    run.log({"train/loss": 0.5, "train/reward": None, "eval/correct": 3}, step=10)
    [line] = lines(run_dir)
    assert line["step"] == 10
    assert line["values"] == {"train/loss": 0.5, "eval/correct": 3.0}
    assert set(line["clocks"]) == set(CLOCKS)
    assert line["clocks"]["rollouts"] == 64


def test_what_is_not_finite_stays_visible_in_lines_that_any_json_reader_accepts(run, run_dir):
    run.log({"a": math.nan, "b": math.inf, "c": -math.inf}, step=1)

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    [line] = (run_dir / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=refuse)["values"] == {"a": "NaN", "b": "Infinity", "c": "-Infinity"}


class TensorOfMany:
    def __float__(self):
        raise RuntimeError("a Tensor with 2 elements cannot be converted to Scalar")


@pytest.mark.parametrize("value", ["low", [1.0], TensorOfMany(), 10**400])
def test_a_value_that_is_no_number_costs_only_itself(run, run_dir, caplog, value):
    run.log({"bad": value, "good": 1.0}, step=1)
    assert lines(run_dir)[0]["values"] == {"good": 1.0}
    assert "bad is no number at step 1" in caplog.text


def test_a_full_disk_does_not_stop_the_job(run, caplog):
    os.dup2(os.open("/dev/full", os.O_WRONLY), run._metrics.fileno())
    run.log({"train/loss": 0.5}, step=1)
    run.event("checkpoint", "saved")
    assert "No space left" in caplog.text


def test_every_line_can_be_read_at_once(run, run_dir):
    run.progress("train", step=1, total=3)
    run.event("checkpoint", "step 1 \ud800 é\n")
    run.log({"a": 1.0}, step=1)
    progress, event, metric = lines(run_dir)
    assert progress == {"progress": {"phase": "train", "step": 1, "total": 3}}
    assert event == {"event": "checkpoint", "message": "step 1 \ud800 é\n"}
    assert metric["values"] == {"a": 1.0}


def test_the_total_of_training_is_the_planned_step(run):
    run.progress("evaluate", total=500)
    assert run.planned_step == 0
    run.progress("train", step=1, total=3)
    run.progress("evaluate", total=500)
    assert run.planned_step == 3


def test_samples_are_lines_with_step_and_split(run, run_dir):
    sample = Sample("p1", "The answer is 4", "4", found=True, correct=True, tokens=5, clipped=False)
    run.log_samples([sample], step=2, split="dev")
    [line] = lines(run_dir, "samples.jsonl")
    assert line["step"] == 2 and line["split"] == "dev" and line["problem_id"] == "p1" and line["sample"] == 0


def test_what_was_logged_at_a_step_is_found_by_a_later_attempt_unless_a_rewind_voids_it(run, run_dir):
    run.log({"test/pass_rate": 0.5}, step=7)
    run.progress("train", 7, 7)
    run.rewind(7)
    with open(run_dir / "metrics.jsonl", "a") as file:
        file.write('{"step": 7, "val')
    again = Run(run_dir)
    assert again.logged("test/pass_rate", 7) == {"test/pass_rate": 0.5}
    assert again.logged("test/pass_rate", 6) is None and again.logged("eval/pass_rate", 7) is None
    again.rewind(6)
    assert again.logged("test/pass_rate", 7) is None


def test_a_rewind_is_in_both_streams_and_sets_the_step_back(run, run_dir):
    run.log({"a": 1.0}, step=50)
    run.rewind(40)
    assert run.step == 40
    assert lines(run_dir)[-1] == lines(run_dir, "samples.jsonl")[-1] == {"rewind": 40}
    run.rewind(-1)
    assert run.step == 0


def test_a_second_attempt_appends_and_a_torn_line_spoils_only_itself(run, run_dir):
    run.log({"a": 1.0}, step=1)
    with open(run_dir / "metrics.jsonl", "a") as file:
        file.write('{"step": 2, "val')
    Run(run_dir).log({"a": 3.0}, step=3)
    first, torn, last = (run_dir / "metrics.jsonl").read_text().splitlines()
    assert json.loads(first)["step"] == 1
    assert torn == '{"step": 2, "val'
    assert json.loads(last)["step"] == 3


def test_a_second_attempt_after_whole_lines_adds_no_empty_one(run, run_dir):
    run.log({"a": 1.0}, step=1)
    Run(run_dir).log({"a": 2.0}, step=2)
    assert [line["step"] for line in lines(run_dir)] == [1, 2]


def test_the_result_is_whole_or_not_there_and_says_how_far_the_job_came(run, run_dir):
    run.log({"a": 1.0}, step=7)
    run.summary["eval/pass_rate"] = 0.5
    assert not (run_dir / "result.json").exists()
    run.finish("failed", planned_step=10, reason="error", message="no")
    result = json.loads((run_dir / "result.json").read_text())
    assert (result["state"], result["step"], result["planned_step"], result["reason"]) == ("failed", 7, 10, "error")
    assert result["summary"] == {"eval/pass_rate": 0.5}
    assert set(result["clocks"]) == set(CLOCKS)
    assert not (run_dir / "result.json.part").exists()


@pytest.fixture
def splits():
    def example(name, answer="4"):
        return Example(name, name, ({"role": "user", "content": f"{name}: 2 + 2?"},), answer)

    return Splits(train=[example("a"), example("b")], dev=[example("c")], test=[example("d"), example("e")])


def test_the_splits_and_the_grader_are_recorded(run, run_dir, splits):
    run.record_splits(splits)
    document = json.loads((run_dir / "splits.json").read_text())
    assert document == {
        "splits": {
            "train": {"examples": 2, "sha256": splits.fingerprint("train")},
            "dev": {"examples": 1, "sha256": splits.fingerprint("dev")},
            "test": {"examples": 2, "sha256": splits.fingerprint("test")},
        },
        "grader": run.job.dataset.grader(),
    }
    assert isinstance(document["grader"]["version"], int) and document["grader"]["percent"] == "unit"
    assert not (run_dir / "splits.json.part").exists()


def test_what_is_asked_in_dev_and_test_is_recorded(run, run_dir, splits):
    run.record_splits(splits)
    problems = [json.loads(line) for line in (run_dir / "problems.jsonl").read_text().splitlines()]
    assert [(problem["split"], problem["problem_id"]) for problem in problems] == [
        ("dev", "c"),
        ("test", "d"),
        ("test", "e"),
    ]
    assert problems[0]["messages"] == [{"role": "user", "content": "c: 2 + 2?"}] and problems[0]["answer"] == "4"
    assert not (run_dir / "problems.jsonl.part").exists()


def test_a_resumed_run_of_an_older_atlas_gets_its_problems(run, run_dir, splits):
    run.record_splits(splits)
    (run_dir / "problems.jsonl").unlink()
    run.record_splits(splits)
    assert (run_dir / "problems.jsonl").exists()


def test_an_attempt_with_the_same_data_goes_on(run, run_dir, splits):
    run.record_splits(splits)
    written = (run_dir / "splits.json").read_bytes()
    Run(run_dir).record_splits(splits)
    assert (run_dir / "splits.json").read_bytes() == written


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_data_that_changed_between_two_attempts_is_refused(run, run_dir, splits, split):
    run.record_splits(splits)
    written = (run_dir / "splits.json").read_bytes()
    examples = getattr(splits, split)
    corrected = replace(splits, **{split: [replace(examples[0], answer="5"), *examples[1:]]})
    count = len(examples)
    with pytest.raises(RunFailed, match=rf"in {split} \(then {count} examples, now {count}\),.*atlas rerun") as caught:
        Run(run_dir).record_splits(corrected)
    assert caught.value.reason == "bad_data"
    assert (run_dir / "splits.json").read_bytes() == written
    fewer = replace(splits, **{split: examples[1:]})
    with pytest.raises(RunFailed, match=rf"in {split} \(then {count} examples, now {count - 1}\)"):
        Run(run_dir).record_splits(fewer)


def test_a_grader_that_changed_between_two_attempts_is_refused(run, run_dir, splits, monkeypatch):
    run.record_splits(splits)
    then = run.job.dataset.grader()
    monkeypatch.setattr(type(run.job.dataset), "grader", lambda self: then | {"version": then["version"] + 1})
    with pytest.raises(RunFailed, match=rf"graded otherwise.*'version': {then['version']}.*atlas rerun") as caught:
        Run(run_dir).record_splits(splits)
    assert caught.value.reason == "bad_data"


def test_only_the_owner_can_read_what_the_job_writes(run, run_dir, splits):
    run.record_splits(splits)
    run.finish("succeeded")
    for name in ("metrics.jsonl", "samples.jsonl", "splits.json", "problems.jsonl", "result.json"):
        assert stat.S_IMODE((run_dir / name).stat().st_mode) == 0o600


class Time:
    """Stands in for time.monotonic."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr("atlas.run.time.monotonic", lambda: self.now)

    def passes(self, seconds):
        self.now += seconds


@pytest.fixture
def time(monkeypatch):
    return Time(monkeypatch)


def clock_of_now(time, **changes):
    return Clock(_wall_mark=time.now, **changes)


def test_the_training_clock_runs_only_in_training_and_counts_devices(time):
    clock = clock_of_now(time, devices=2)
    time.passes(5)
    with clock.training():
        time.passes(10)
    time.passes(3)
    readings = clock.readings()
    assert (readings["wall_seconds"], readings["train_seconds"], readings["gpu_seconds"]) == (18.0, 10.0, 20.0)


def test_a_clock_read_in_the_middle_counts_nothing_twice(time):
    clock = clock_of_now(time)
    with clock.training():
        for _ in range(4):
            time.passes(2)
            clock.readings()
    assert clock.readings()["train_seconds"] == clock.readings()["wall_seconds"] == 8.0


def test_evaluation_stops_the_training_clock_but_is_a_phase(time):
    clock = clock_of_now(time)
    with clock.training():
        with clock.phase("generate"):
            time.passes(4)
        with clock.phase("evaluate", training=False):
            time.passes(7)
        time.passes(1)
    assert clock.readings()["train_seconds"] == 5.0
    assert clock.take_phases() == {"phase/generate_seconds": 4.0, "phase/evaluate_seconds": 7.0}
    assert clock.take_phases() == {}


def test_an_inner_phase_stands_apart_from_the_outer_one(time):
    clock = clock_of_now(time)
    with clock.phase("evaluate"):
        time.passes(1)
        with clock.phase("generate"):
            time.passes(4)
        time.passes(2)
    assert clock.take_phases() == {"phase/evaluate_seconds": 3.0, "phase/generate_seconds": 4.0}


def test_an_error_inside_a_phase_leaves_the_clock_right(time):
    clock = clock_of_now(time)
    with clock.training():
        with pytest.raises(KeyError), clock.phase("evaluate", training=False):
            time.passes(3)
            raise KeyError
        time.passes(2)
    time.passes(9)
    assert clock.readings()["train_seconds"] == 2.0


def test_a_restored_clock_goes_on_without_the_time_between(time):
    first = clock_of_now(time)
    first.rollouts = 64
    with first.training():
        time.passes(10)
    kept = first.readings()
    second = clock_of_now(time)
    time.passes(500)
    second.restore(kept)
    with second.training():
        time.passes(1)
    assert second.readings() == kept | {"wall_seconds": 11.0, "train_seconds": 11.0, "gpu_seconds": 11.0}


def test_the_worker_log_shows_the_headline_of_each_step(run_dir, caplog):
    with caplog.at_level("INFO"):
        Run(run_dir).log({"train/loss": 0.25, "train/entropy": 1.0, "train/reward": math.nan}, 7)
    assert [record.getMessage() for record in caplog.records] == ["step 7  train/loss 0.25  train/reward nan"]
