import json
import math

import numpy as np
import pytest
from lab import append

from atlas.comparison.collect import collect
from atlas.errors import NotFoundError, StoreError, UsageError

GRADER = {"version": 1, "percent": "unit", "ordered_lists": False}


def splits(dev="d", test="e"):
    return {"dev": {"examples": 100, "sha256": dev * 64}, "test": {"examples": 10, "sha256": test * 64}}


def shape(comparison):
    return {arm.name: [run.seed for run in arm.runs] for arm in comparison.arms}


def refusal(lab, *references):
    with pytest.raises(UsageError) as raised:
        collect(lab.store, references)
    return str(raised.value)


def test_equal_jobs_but_for_name_seed_and_labels_are_one_arm_and_the_first_named_is_the_reference(lab):
    a = lab.run("grpo", 1, [0.1], name="b-s1", tags=["x"], notes="second")
    b = lab.run("gkd", 0, [0.1])
    c = lab.run("grpo", 0, [0.1], name="b-s0", wandb={"project": "p"})
    assert shape(collect(lab.store, [a, b, c])) == {"grpo": [0, 1], "gkd": [0]}
    assert collect(lab.store, [a, b]).title == "grpo, gkd"


def test_arms_of_one_method_are_called_by_their_jobs_and_jobs_of_one_name_by_their_runs(lab):
    fast = lab.run("sft", 0, [0.1], name="fast-s0", training={"max_steps": 20, "learning_rate": 1e-3})
    slow = lab.run("sft", 0, [0.1], name="slow", training={"max_steps": 20, "learning_rate": 1e-6})
    same = lab.run("sft", 0, [0.1], name="slow", training={"max_steps": 20, "learning_rate": 1e-5})
    assert list(shape(collect(lab.store, [fast, slow]))) == ["fast", "slow"]
    assert list(shape(collect(lab.store, [fast, slow, same]))) == ["fast", slow, same]


def test_a_run_named_twice_counts_once_and_a_seed_twice_is_a_caution(lab):
    a, b = (lab.run("sft", 0, [0.1]) for _ in range(2))
    assert shape(collect(lab.store, [a, a])) == {"sft": [0]}
    twice = collect(lab.store, [a, b])
    assert shape(twice) == {"sft": [0, 0]}
    assert twice.notes == (
        f"sft has seed 0 more than once: these runs are not independent of each other, so only {a} counts",
    )


def test_equal_seeds_of_an_arm_are_no_evidence_beyond_the_first(lab):
    one = [lab.run("grpo", 0, [0.1], "1100000000"), lab.run("gkd", 0, [0.1], "1111100000")]
    again = [lab.run("grpo", 0, [0.1], "1100000000"), lab.run("gkd", 0, [0.1], "1111100000")]
    comparison = collect(lab.store, [*one, *again])
    assert comparison.verdicts[0].difference == collect(lab.store, one).verdicts[0].difference
    going_on = lab.run("gkd", 0, [0.1], state="running")
    assert collect(lab.store, [one[0], going_on, one[1]]).verdicts[0].difference is not None
    assert len(comparison.arms[0].runs) == 2 and comparison.arms[0].test.seeds == 1


def test_a_seed_that_failed_and_was_run_again_is_not_there_twice(lab):
    failed, rerun = lab.run("gkd", 0, [0.1], state="failed"), lab.run("gkd", 0, [0.1, 0.5], "1111100000")
    comparison = collect(lab.store, [failed, rerun])
    assert comparison.notes == () and comparison.arms[0].test.seeds == 1


def test_measurements_of_the_student_and_the_teacher_are_baselines_and_of_others_arms(lab):
    gkd = lab.run("gkd", 0, [0.1])
    student = lab.run("evaluate", 0, [0.1], "1000000000")
    teacher = lab.run("evaluate", 0, [0.8], student={"model": "org/teacher"})
    other = lab.run("evaluate", 0, [0.4], "1111000000", student={"model": "org/other"})
    comparison = collect(lab.store, [gkd, student, teacher, other])
    assert {role: run.id for role, run in comparison.baselines.items()} == {"student": student, "teacher": teacher}
    assert shape(comparison) == {"gkd": [0], "evaluate": [0]}
    evaluated = comparison.arms[1]
    assert evaluated.peak is None and evaluated.test.pass_rate == 0.4
    assert all(times[0].censored for times in evaluated.to_peak.values())


def test_only_baselines_are_arms(lab):
    one = lab.run("evaluate", 0, [0.1], "1000000000", name="small")
    two = lab.run("evaluate", 0, [0.8], "1111111100", name="large", student={"model": "org/teacher"})
    comparison = collect(lab.store, [one, two])
    assert list(shape(comparison)) == ["small", "large"] and not comparison.baselines
    (verdict,) = comparison.verdicts
    assert len(verdict.sentences) == 1 and "large ends 70.0 points above small on test" in verdict.sentences[0]


def test_an_experiment_knows_its_arms_and_says_what_is_gone(lab):
    a, b = lab.run("grpo", 0, [0.1]), lab.run("gkd", 0, [0.2])
    lab.experiment([("grpo", 0, a), ("gkd", 0, b), ("gkd", 1, "gone-1")], {"student": "gone-2"})
    for reference in ("study", "study-0a0a0a"):
        comparison = collect(lab.store, [reference])
        assert comparison.title == "study" and shape(comparison) == {"grpo": [0], "gkd": [0]}
        assert comparison.experiment.id == "study-0a0a0a"
        assert comparison.differences == {"method.type": {"grpo": "grpo", "gkd": "gkd"}}
        assert comparison.missing == (
            "gkd s1: run gone-1 is not in the store any more",
            "student baseline: run gone-2 is not in the store any more",
        )


def test_an_experiment_is_compared_alone(lab):
    run = lab.run("grpo", 0, [0.1])
    lab.experiment([("grpo", 0, run)])
    assert "study is an experiment and is compared alone, got 2 references" in refusal(lab, "study", run)


def test_an_experiment_without_any_run_left_is_still_shown(lab):
    lab.experiment([("grpo", 0, "gone-1"), ("gkd", 0, "gone-2")])
    comparison = collect(lab.store, ["study"])
    assert shape(comparison) == {"grpo": [], "gkd": []} and len(comparison.missing) == 2
    assert comparison.verdicts[0].sentences == (
        "gkd and grpo cannot be compared on test: gkd and grpo have no test score yet.",
    )


def test_an_unknown_reference_is_not_found(lab):
    run_id = lab.run("grpo", 0, [0.1])
    lab.experiment([("grpo", 0, run_id)])
    for references in (["nope"], [run_id, "nope"]):
        with pytest.raises(NotFoundError) as raised:
            collect(lab.store, references)
        assert str(raised.value) == "no run and no experiment 'nope'; `atlas ls` and `atlas ls --experiments` show all"


def test_a_misspelt_reference_brings_the_nearest_names_of_runs_and_experiments(lab):
    lab.experiment([("grpo", 0, lab.run("grpo", 0, [0.1]))])
    for wrong, right in (("studdy", "study"), ("grop", "grpo")):
        with pytest.raises(NotFoundError, match=f"no run and no experiment '{wrong}'; did you mean {right}"):
            collect(lab.store, [wrong])


def test_a_beginning_of_several_ids_brings_all_that_it_could_mean(lab):
    a = lab.run("gkd", 0, [0.1], id="stuck-1", name="stuck")
    for end in ("a", "b"):
        lab.experiment([("gkd", 0, a)], id=f"study-{end}")
    b = lab.run("gkd", 0, [0.1], id="stuck-2", name="stuck")
    with pytest.raises(NotFoundError, match=f"'stuck-' could mean {b}, {a}; write more of the id"):
        collect(lab.store, ["stuck-"])
    with pytest.raises(NotFoundError, match="'study-' could mean study-"):
        collect(lab.store, ["study-"])


def test_a_run_is_read_as_it_was_written(lab):
    metrics = {"phase/generate_seconds": 4.0, "train/reverse_kl": 0.25, "eval/teacher_pass_rate": 0.9}
    run_id = lab.run("gkd", 3, [0.25, math.nan, 0.5], "0110000000", test_step=10, metrics=metrics)
    (run,) = collect(lab.store, [run_id]).arms[0].runs
    assert (run.id, run.arm, run.seed, run.state, run.failure) == (run_id, "gkd", 3, "succeeded", "")
    assert run.steps_E == (0, 10, 20) and run.step == 20 and run.planned_steps == 20
    assert np.isnan(run.pass_rate_E[1]) and run.pass_rate_E[2] == 0.5 and run.problems == 100
    assert list(run.clocks_E["rollouts"]) == [0, 80, 160]
    assert run.test_step == 10 and run.test_problems_P[:3] == ("p0", "p1", "p2")
    assert list(run.test_correct_P) == [0, 1, 1, 0, 0, 0, 0, 0, 0, 0]
    assert run.used["train_seconds"] == 20
    assert run.phase_seconds == {"generate": 4.0}
    assert (run.reverse_kl, run.teacher_pass_rate) == (0.25, 0.9)
    assert run.splits["dev"]["examples"] == 100 and run.grader == GRADER
    assert run.environment["packages"]["torch"] == "2.8.0", "the newest attempt"
    assert run.git == {"commit": "c0ffee", "dirty": False}


def test_phase_times_are_summed_over_the_run_and_the_clocks_are_those_of_evaluations_and_of_the_end(lab):
    run_id = lab.run("gkd", 0, [0.25, 0.5], state="running")
    lines = [
        {"step": step, "values": {"phase/generate_seconds": 0.5}, "clocks": lab.clocks(step, 1.0, 8.0)}
        for step in range(11, 200)
    ]
    broken = {"step": 200, "values": {"phase/generate_seconds": 1.0, "phase/teacher_seconds": "NaN"}}
    append(lab.store.home / "runs" / run_id / "metrics.jsonl", [*lines, broken])
    lab.store.ingest(run_id)
    (run,) = collect(lab.store, [run_id]).arms[0].runs
    assert run.phase_seconds["generate"] == 95.5 and math.isnan(run.phase_seconds["teacher"])
    assert list(run.clocks_E["train_seconds"]) == [0, 10]
    assert run.used["train_seconds"] == 199


def test_a_test_score_counts_only_when_all_of_its_samples_are_there(lab):
    run_id = lab.run("gkd", 0, [0.1], "11", metrics={"test/problems": 3})
    comparison = collect(lab.store, [run_id])
    assert comparison.arms[0].test is None
    assert comparison.missing == (
        f"gkd s0 was scored on test, but not all of its samples are there: see `atlas show {run_id}`",
    )


def test_the_last_evaluation_on_test_of_the_previous_version_is_its_test_score(lab):
    old = {"eval_split": "test", "splits": None, "problems": 10}
    done = lab.run("gkd", 0, [0.1, 0.3], "1110000000", **old)
    crashed = lab.run("gkd", 1, [0.1, 0.3], "1110000000", state="failed", **old)
    comparison = collect(lab.store, [done, crashed])
    first, second = comparison.arms[0].runs
    assert (first.test_step, list(first.test_correct_P)) == (10, [1, 1, 1, *[0] * 7])
    assert second.test_correct_P is None, "it never came to its end"
    assert comparison.arms[0].test.pass_rate == 0.3
    assert comparison.missing == ("gkd s1 failed: out_of_memory: no memory left",)


def test_a_file_that_is_no_json_is_named(lab):
    run_id = lab.run("gkd", 0, [0.1])
    (lab.store.home / "runs" / run_id / "splits.json").write_text("{")
    with pytest.raises(StoreError, match=r"splits\.json"):
        collect(lab.store, [run_id])


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("splits.json", {"splits": [1]}, "splits: Input should be a valid dictionary"),
        ("splits.json", {"splits": {"dev": 3}}, "splits.dev: Input should be a valid dictionary"),
        ("splits.json", {"grader": 3}, "grader: "),
        ("environment.json", [1], "content: Input should be"),
        ("environment.json", {"packages": 3}, "packages: "),
        ("environment.json", {"gpus": [3]}, "gpus.0: "),
        ("environment.json", {"atlas": "0.1"}, "atlas: "),
        ("spec.json", {"git": 3}, "git: "),
    ],
)
def test_a_file_of_other_content_is_named_and_not_a_traceback(lab, file, content, message):
    run_id = lab.run("gkd", 0, [0.1])
    path = lab.store.home / "runs" / run_id / file
    path.write_text(json.dumps(content) + "\n")
    with pytest.raises(StoreError) as raised:
        collect(lab.store, [run_id])
    assert str(path) in str(raised.value) and message in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"splits": splits(dev="x")}, "dev problems differ (sha256): dddddddddddd in gkd s0; xxxxxxxxxxxx in grpo s0"),
        (
            {"splits": splits(test="x")},
            "test problems differ (sha256): eeeeeeeeeeee in gkd s0; xxxxxxxxxxxx in grpo s0",
        ),
        ({"problems": 50}, "the number of problems in an evaluation differs: 100 in gkd s0; 50 in grpo s0"),
        ({"grader": GRADER | {"version": 2}}, "the grader differs: {"),
        (
            {"evaluation": {"max_completion_length": 64}},
            "evaluation.max_completion_length differs: 256 in gkd s0; 64 in grpo s0",
        ),
        ({"evaluation": {"temperature": 0.5}}, "evaluation.temperature differs: 0.0 in gkd s0; 0.5 in grpo s0"),
        ({"evaluation": {"split": "test"}}, "evaluation.split differs: dev in gkd s0; test in grpo s0"),
        (
            {"splits": None, "dataset": {"type": "gsm8k", "split_seed": 7, "dev_size": 100, "test_size": 10}},
            "grpo s0: no splits.json (an older Atlas, or the directory is gone), and the dataset settings differ",
        ),
    ],
)
def test_runs_that_were_measured_differently_are_refused_unless_forced(lab, changes, says):
    gkd, grpo = lab.run("gkd", 0, [0.1, 0.2]), lab.run("grpo", 0, [0.1, 0.2], **changes)
    message = refusal(lab, gkd, grpo)
    assert says in message and message.endswith("--force") and message.count("differ") == 1
    (mismatch,) = collect(lab.store, [gkd, grpo], force=True).mismatches
    assert says in mismatch


def test_every_mismatch_is_listed_with_who_has_it(lab):
    runs = [lab.run("gkd", 0, [0.1]), lab.run("gkd", 1, [0.1])]
    runs.append(lab.run("grpo", 0, [0.1], splits=splits("x", "y"), problems=7))
    message = refusal(lab, *runs)
    assert message.count("differ") == 3 and message.count("gkd s0, gkd s1") == 3


def test_a_baseline_must_be_measured_in_the_same_way_too(lab):
    gkd, student = lab.run("gkd", 0, [0.1]), lab.run("evaluate", 0, [0.1], splits=splits(test="x"))
    assert "eeeeeeeeeeee in gkd s0; xxxxxxxxxxxx in student baseline" in refusal(lab, gkd, student)


@pytest.mark.parametrize(
    "evaluation",
    [{"every_steps": 10}, {"every_minutes": 5}, {"batch_size": 8}, {"teacher": False}, {"max_problems": 100}],
)
def test_the_schedule_of_evaluation_may_differ(lab, evaluation):
    gkd, grpo = lab.run("gkd", 0, [0.1, 0.2]), lab.run("grpo", 0, [0.1, 0.2], evaluation=evaluation)
    assert collect(lab.store, [gkd, grpo]).mismatches == ()


def test_dev_problems_that_nobody_measured_may_differ(lab):
    runs = [
        lab.run("gkd", n, [0.1], "1000000000", eval_split="test", splits=splits(dev=letter), problems=10)
        for n, letter in enumerate("xy")
    ]
    assert collect(lab.store, runs).mismatches == ()


def test_runs_of_the_previous_version_compare_by_equal_dataset_settings_with_a_caution(lab):
    old = lab.run("gkd", 0, [0.1, 0.2], splits=None)
    assert collect(lab.store, [old, lab.run("grpo", 0, [0.1], splits=None)]).notes == ()
    (note,) = collect(lab.store, [old, lab.run("grpo", 1, [0.1])]).notes
    assert note.startswith("no splits.json (an older Atlas, or the directory is gone): gkd s0; ")


def test_a_run_that_has_measured_nothing_cannot_have_measured_it_differently(lab):
    queued = lab.run("grpo", 0, state="queued", splits=None, evaluation={"temperature": 0.5}, dataset={"type": "gsm8k"})
    comparison = collect(lab.store, [lab.run("gkd", 0, [0.1, 0.2]), queued])
    assert comparison.missing == ("grpo s0 is queued",)


def test_a_model_that_changed_on_the_hub_between_runs_is_a_caution(lab):
    revisions = [{"student": "a" * 40, "teacher": "t" * 40}, {"student": "b" * 40}, {"student": None}, None]
    runs = [lab.run("gkd", seed, [0.1], revisions=found) for seed, found in enumerate(revisions)]
    assert collect(lab.store, runs).notes == (
        "the commit of the student's model differs: aaaaaaaaaaaa in gkd s0; bbbbbbbbbbbb in gkd s1",
    )


def test_other_versions_and_devices_are_cautions(lab):
    newer = {
        "atlas": {"version": "0.2.0", "commit": "c0ffee123"},
        "packages": {"torch": "2.9.0", "trl": "1.16.0"},
        "gpus": [{"name": "H200"}],
    }
    comparison = collect(lab.store, [lab.run("gkd", 0, [0.1]), lab.run("grpo", 0, [0.1], environment=newer)])
    assert comparison.notes == (
        "the version of torch differs: 2.8.0 in gkd s0; 2.9.0 in grpo s0",
        "the version of Atlas differs: 0.2.0 in gkd s0; 0.2.0 (c0ffee1) in grpo s0",
        "the devices differ: CPU in gkd s0; H200 in grpo s0",
    )


def test_runs_that_go_on_are_a_caution(lab):
    comparison = collect(lab.store, [lab.run("gkd", 0, [0.1, 0.2], state="running")])
    assert comparison.notes == ("gkd s0 still runs (step 10 of 20)",)
    assert comparison.arms[0].peak.pass_rate == 0.2


def test_the_differences_of_single_runs_leave_out_what_does_not_count(lab):
    gkd = lab.run("gkd", 0, [0.1], name="one", notes="a", training={"max_steps": 20})
    sft = lab.run("sft", 1, [0.1], name="two", tags=["b"], training={"max_steps": 40})
    differences = collect(lab.store, [gkd, sft]).differences
    assert differences["training.max_steps"] == {"gkd": 20, "sft": 40}
    assert {path.split(".")[0] for path in differences} == {"method", "teacher", "sampling", "training"}
