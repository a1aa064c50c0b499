import json

import pytest

from atlas.analysis.intervals import wilson
from atlas.errors import RunFailed
from atlas.run import Sample, Stopped
from atlas.training.evaluation import Evaluator, _statistics

from .tiny import Copying, character_tokenizer, lines, names, series, train

EVALUATE = {"type": "evaluate"}


def sample(problem, correct, found=True, tokens=3, clipped=False):
    return Sample(problem, "text", None, found, correct, tokens, clipped)


def test_rates_are_means_over_samples_and_the_interval_is_over_problems():
    samples = [
        sample("a", True),
        sample("a", False, tokens=5),
        sample("b", True, clipped=True),
        sample("b", False, False),
    ]
    values = _statistics(samples, problems=2)
    low, high = wilson(1, 2)
    assert values == {
        "pass_rate": 0.5,
        "pass_rate_low": low,
        "pass_rate_high": high,
        "format_rate": 0.75,
        "mean_tokens": 3.5,
        "clipped_share": 0.25,
        "problems": 2,
    }
    assert low < wilson(2, 4)[0] and high > wilson(2, 4)[1]


def test_evaluate_measures_dev_and_then_all_of_test_at_step_0_and_trains_nothing(make_run):
    run = make_run(EVALUATE, evaluation={"max_problems": 2})
    assert train(run) is None
    dev, test = [line for line in lines(run) if "values" in line]
    samples = lines(run, "samples.jsonl")
    assert [(s["split"], s["problem_id"]) for s in samples] == [
        ("dev", "row-0"),
        ("dev", "row-1"),
        ("test", "row-12"),
        ("test", "row-13"),
        ("test", "row-14"),
    ]
    for line, split, prefix in ((dev, "dev", "eval"), (test, "test", "test")):
        of_split = [s for s in samples if s["split"] == split]
        assert line["step"] == run.planned_step == 0 and line["values"][f"{prefix}/problems"] == len(of_split)
        assert line["values"][f"{prefix}/pass_rate"] == sum(s["correct"] for s in of_split) / len(of_split)
        assert line["values"][f"{prefix}/mean_tokens"] == sum(s["tokens"] for s in of_split) / len(of_split)
        assert line["clocks"]["train_seconds"] == 0
    assert not run.checkpoints.exists()
    assert run.summary["first"] == run.summary["best"] == run.summary["last"]
    assert run.summary["last"]["pass_rate"] == dev["values"]["eval/pass_rate"]
    assert run.summary["test"]["pass_rate"] == test["values"]["test/pass_rate"]
    assert run.summary["test"].keys() == run.summary["best"].keys() and test["values"]["test/step"] == 0


@pytest.mark.parametrize("method", [EVALUATE, {"type": "sft"}], ids=["evaluate", "sft"])
def test_the_splits_are_recorded_before_any_model_is_loaded(make_run, method):
    run = make_run(method, student={"model": "/nowhere"})
    with pytest.raises(RunFailed, match="/nowhere is not a directory"):
        train(run)
    recorded = json.loads((run.directory / "splits.json").read_text())
    assert recorded["splits"]["test"] == {"examples": 3, "sha256": Copying().load().fingerprint("test")}
    with pytest.raises(RunFailed, match="in train "):
        train(make_run(method, dataset={"rows": 9}))


def test_split_test_measures_nothing_else(make_run):
    run = make_run(EVALUATE, evaluation={"split": "test", "max_problems": 2})
    train(run)
    assert [(s["split"], s["problem_id"]) for s in lines(run, "samples.jsonl")] == [
        ("test", "row-12"),
        ("test", "row-13"),
    ]
    assert series(run, "eval/problems") == {0: 2} and not [name for name in names(run) if name.startswith("test/")]
    assert "test" not in run.summary


def test_several_samples_of_a_problem_are_kept_apart(make_run):
    run = make_run(EVALUATE, evaluation={"temperature": 1.0, "num_samples": 3, "batch_size": 5})
    train(run)
    samples = lines(run, "samples.jsonl")
    rows = [0, 1, 2, 3, 12, 13, 14]
    assert [(s["problem_id"], s["sample"]) for s in samples] == [(f"row-{i}", k) for i in rows for k in range(3)]
    assert len({s["completion"] for s in samples}) > 4


def test_sampled_evaluation_repeats_itself(make_run):
    completions = []
    for name in ("one", "two"):
        run = make_run(EVALUATE, name, evaluation={"temperature": 1.0})
        train(run)
        completions.append([line["completion"] for line in lines(run, "samples.jsonl")])
    assert completions[0] == completions[1]


def test_progress_is_shown_per_batch(make_run):
    run = make_run(EVALUATE, evaluation={"batch_size": 3})
    train(run)
    shown = [line["progress"] for line in lines(run) if "progress" in line]
    assert [(p["step"], p["total"]) for p in shown if p["phase"] == "evaluate"] == [(0, 4), (3, 4), (4, 4)]
    assert [(p["step"], p["total"]) for p in shown if p["phase"] == "test"] == [(0, 3), (3, 3)]


def test_an_evaluation_that_is_stopped_logs_nothing(make_run):
    run = make_run(EVALUATE)
    run.stop_requested = True
    with pytest.raises(Stopped):
        train(run)
    assert not [line for line in lines(run) if "values" in line] and not lines(run, "samples.jsonl")


@pytest.mark.parametrize(
    ("measured", "empty", "fails"),
    [("dev", "dev", True), ("dev", "test", True), ("test", "test", True), ("test", "dev", False)],
)
def test_an_empty_split_says_what_to_set(make_run, measured, empty, fails):
    run = make_run(EVALUATE, evaluation={"split": measured})
    splits = Copying().load()
    object.__setattr__(splits, empty, [])
    if not fails:
        Evaluator(run, character_tokenizer(), splits)
        return
    with pytest.raises(RunFailed, match=rf"dataset\.{empty}_size") as caught:
        Evaluator(run, character_tokenizer(), splits)
    assert caught.value.reason == "bad_data"


def test_a_problem_that_does_not_fit_is_named_before_anything_is_generated(make_run):
    run = make_run(EVALUATE, evaluation={"max_completion_length": 60})
    with pytest.raises(RunFailed, match="prompt of example row-0 has 13 tokens"):
        train(run)


def test_it_is_due_every_so_many_steps_or_minutes_and_at_the_last(make_run):
    run = make_run({"type": "sft"}, evaluation={"every_steps": 10, "every_minutes": 2.0})
    evaluator = Evaluator(run, character_tokenizer(), Copying().load())
    assert evaluator.due(0, last=False)
    run.summary["last"] = {"step": 10, "train_seconds": 100.0}
    run.clock.train_seconds = 219.0
    assert [step for step in range(10, 31) if evaluator.due(step, last=False)] == [20, 30]
    assert evaluator.due(17, last=True) and not evaluator.due(10, last=True)
    run.clock.train_seconds = 220.0
    assert evaluator.due(11, last=False) and not evaluator.due(10, last=False)


def test_the_summary_keeps_the_first_the_earliest_best_and_the_last(make_run, monkeypatch):
    run = make_run({"type": "sft"}, evaluation={"split": "test"})
    evaluator = Evaluator(run, character_tokenizer(), Copying().load())
    for step, correct in enumerate([1, 3, 3, 2]):
        measured = [sample(str(i), i < correct) for i in range(4)]
        monkeypatch.setattr(evaluator, "_measure", lambda *_, m=measured: (_statistics(m, 4), m))
        evaluator.student(None, step)
    steps = {name: run.summary[name]["step"] for name in ("first", "best", "last")}
    assert steps == {"first": 0, "best": 1, "last": 3}
    assert series(run, "eval/pass_rate") == {0: 0.25, 1: 0.75, 2: 0.75, 3: 0.5}
