"""An experiment file becomes runs that differ only in what it says."""

import pytest
from trial import EXPERIMENT, JOB, TINY

from atlas.differences import between
from atlas.errors import SpecError, UsageError
from atlas.experiment import Experiment, checked, expand
from atlas.job import load
from atlas.source import read


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "job.yaml").write_text(JOB)
    return tmp_path


def experiment(folder, text=EXPERIMENT, *overrides) -> Experiment:
    (folder / "trial.yaml").write_text(text)
    return expand(read(folder / "trial.yaml", overrides))


def refusal(folder, text=EXPERIMENT, *overrides) -> str:
    with pytest.raises(SpecError) as caught:
        experiment(folder, text, *overrides)
    return str(caught.value).replace(f"{folder}/", "")


def test_every_arm_runs_with_every_seed_and_the_seeds_take_turns(folder):
    trial = experiment(folder)
    names = [run.job.name for run in trial.runs]
    assert names == ["trial-gkd-s3", "trial-grpo-s3", "trial-gkd-s5", "trial-grpo-s5"]
    assert [(run.arm, run.seed, run.job.seed) for run in trial.runs][1:3] == [("grpo", 3, 3), ("gkd", 5, 5)]


def test_an_arm_is_the_base_with_what_it_says_on_top(folder):
    gkd, grpo, *_ = experiment(folder).runs
    assert (gkd.job.method.type, gkd.job.training.learning_rate) == ("gkd", 1e-4)
    assert (grpo.job.method.type, grpo.job.training.learning_rate, grpo.job.teacher) == ("grpo", 1e-5, None)
    assert grpo.job.training.max_steps == gkd.job.training.max_steps == 10


def test_runs_differ_from_the_plain_job_only_in_name_seed_and_who_measures_the_teacher(folder):
    gkd = experiment(folder).runs[0]
    found = between({"job": load(folder / "job.yaml"), "run": gkd.job})
    assert set(found) == {"name", "seed", "evaluation.teacher"}


def test_the_differences_are_those_of_the_resolved_arms(folder):
    differences = experiment(folder).differences
    assert differences["method.type"] == {"gkd": "gkd", "grpo": "grpo"}
    assert differences["teacher.model"] == {"gkd": f"{TINY}/teacher", "grpo": None}
    assert differences["training.learning_rate"] == {"gkd": 1e-4, "grpo": 1e-5}
    assert {path.split(".")[0] for path in differences} == {"method", "teacher", "training"}


def test_the_baselines_are_the_untrained_student_and_the_teacher(folder):
    baselines = experiment(folder).baselines
    assert {role: run.job.name for role, run in baselines.items()} == {
        "student": "trial-baseline-student",
        "teacher": "trial-baseline-teacher",
    }
    for role, run in baselines.items():
        job = run.job
        assert (job.method.type, job.student.model) == ("evaluate", f"{TINY}/{role}")
        assert (job.training, job.sampling, job.teacher, job.budget) == (None, None, None, None)
        assert (job.evaluation.every_steps, job.evaluation.max_completion_length) == (None, 8)


def test_what_the_file_says_of_measuring_the_teacher_is_kept(folder):
    assert not any(run.job.evaluation.teacher for run in experiment(folder).runs)
    assert not any(run.job.evaluation.teacher for run in experiment(folder, EXPERIMENT).runs)
    said = experiment(folder, EXPERIMENT, "base.evaluation.teacher=true")
    assert all(run.job.evaluation.teacher for run in said.runs)
    alone = experiment(folder, EXPERIMENT, "baselines=[student]")
    assert list(alone.baselines) == ["student"] and all(run.job.evaluation.teacher for run in alone.runs)


def test_each_other_teacher_is_a_baseline_of_its_own(folder):
    text = EXPERIMENT.replace("gkd: {}", f"gkd: {{}}\n  self_taught: {{teacher: {{model: {TINY}/student}}}}")
    assert list(experiment(folder, text).baselines) == ["student", "teacher", "teacher-self_taught"]


def test_a_student_from_scratch_is_no_baseline(folder):
    text = f"""
kind: experiment
name: scratch
base:
  extends: ./job.yaml
  teacher: null
  student: {{model: {TINY}/tiny, from_scratch: true}}
  method: {{type: sft}}
arms: {{slow: {{}}, fast: {{training: {{learning_rate: 1e-2}}}}}}
seeds: [0]
"""
    assert dict(experiment(folder, text).baselines) == {}


def test_the_budget_is_every_runs_and_said_in_one_place(folder):
    runs = experiment(folder, EXPERIMENT + "budget: {rollouts: 100}\n").runs
    assert [run.job.budget.rollouts for run in runs] == [100] * 4
    both = refusal(folder, EXPERIMENT + "budget: {rollouts: 100}\n", "base.budget.steps=1")
    assert "budget: the experiment has a budget too" in both
    assert [run.job.budget.steps for run in experiment(folder, EXPERIMENT, "base.budget.steps=1").runs] == [1] * 4


def test_the_base_may_be_written_in_the_experiment_and_extend_a_job(folder):
    text = EXPERIMENT.replace("base: ./job.yaml", "base: {extends: job.yaml, training: {max_steps: 7}}")
    assert {run.job.training.max_steps for run in experiment(folder, text).runs} == {7}


def test_overrides_reach_into_the_base_the_arms_and_the_seeds(folder):
    trial = experiment(
        folder, EXPERIMENT, "base.training.max_steps=2", "arms.grpo.training.learning_rate=2e-5", "seeds=[9]"
    )
    assert [(run.job.seed, run.job.training.max_steps) for run in trial.runs] == [(9, 2), (9, 2)]
    assert trial.runs[1].job.training.learning_rate == 2e-5


def test_an_override_may_name_another_base(folder, monkeypatch):
    (folder / "other.yaml").write_text(JOB.replace("max_steps: 10", "max_steps: 11"))
    monkeypatch.chdir(folder)
    assert experiment(folder, EXPERIMENT, "base=other.yaml").runs[0].job.training.max_steps == 11


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("arms.grpo.dataset.dev_size=5", "dataset.dev_size: the arms differ in it (gkd 4, grpo 5)"),
        ("arms.grpo.dataset.split_seed=1", "dataset.split_seed: the arms differ in it"),
        ("arms.grpo.dataset.instruction=Think", "dataset.instruction: the arms differ in it"),
        ("arms.grpo.dataset.grading.percent=fraction", "dataset.grading.percent: the arms differ in it"),
        ("arms.grpo.sampling.temperature=0.7", "sampling.temperature: the arms differ in it (gkd 1.0, grpo 0.7)"),
        ("arms.grpo.evaluation.max_completion_length=9", "evaluation.max_completion_length: the arms differ"),
        ("arms.grpo.student.lora.r=4", "student.lora.r: the arms differ in it (gkd None, grpo 4)"),
        ("arms.grpo.budget.steps=4", "budget.steps: the arms differ in it"),
    ],
)
def test_a_difference_elsewhere_is_refused_until_it_is_allowed(folder, override, message):
    found = refusal(folder, EXPERIMENT, override)
    assert message in found and f"--set {override}" in found
    path = override.split("=")[0].removeprefix("arms.grpo.")
    assert f"allow_differences: [{path}]" in found
    for allowed in (path, path.rpartition(".")[0])[path.startswith("student") :]:
        assert path in experiment(folder, EXPERIMENT, override, f"allow_differences=[{allowed}]").differences


def test_an_arm_that_samples_nothing_does_not_differ_in_how_it_samples(folder):
    text = EXPERIMENT.replace("gkd: {}", "gkd: {}\n  sft: {teacher: null, sampling: null, method: {type: sft}}")
    runs = experiment(folder, text).runs
    assert [run.job.sampling is None for run in runs[:3]] == [False, True, False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("gkd: {}", "Gkd-1: {}"), "arms: the name of an arm is made of a-z 0-9 _ (at most 30), got 'Gkd-1'"),
        (("seeds: [3, 5]", "seeds: [3, 3]"), "seeds: the same one twice: [3, 3]"),
        (("seeds: [3, 5]", "seeds: []"), "trial.yaml:11:8: seeds: expected at least 1 items"),
        (("name: trial", 'name: "${env:HOME}"'), "name: ${env:NAME} is not replaced here; write the value"),
        (("seeds: [3, 5]", "seeds: [-1]"), "trial.yaml:11:9: seeds[0]: expected at least 0, got -1"),
        (("gkd: {}", "gkd: 3"), "trial.yaml:6:8: arms.gkd: expected a mapping of keys"),
        (("seeds: [3, 5]", "seed: 3"), "seed: unknown key; did you mean 'seeds'?"),
        (("type: grpo}", "type: grop}"), "trial.yaml:9:20: method.type: in grpo: unknown type 'grop'"),
        (("teacher: null\n", "\n"), "teacher: in grpo: method grpo has no use for a teacher"),
        (("base: ./job.yaml", "base: ./nowhere.yaml"), "base: ./nowhere.yaml does not exist; expected a YAML file"),
        (("base: ./job.yaml", "base: trial.yaml"), "base: the files extend each other in a circle"),
        (("seeds:", "baselines: [student, student]\nseeds:"), "baselines: the same one twice"),
        (("seeds:", "allow_differences: [sampling.temprature]\nseeds:"), "did you mean 'sampling.temperature'?"),
    ],
)
def test_a_mistake_is_named_and_placed(folder, change, message, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(SpecError) as caught:
        (folder / "trial.yaml").write_text(EXPERIMENT.replace(*change))
        checked(read("trial.yaml"))
    assert message in str(caught.value)


def test_a_mistake_of_the_base_is_told_once_and_not_for_every_run(folder):
    (folder / "job.yaml").write_text(JOB.replace("max_steps: 10", "max_steps: ten"))
    found = refusal(folder)
    assert found.count("\n") == 0 and "job.yaml:7:23: training.max_steps: expected a whole number" in found


def test_a_teacher_that_no_arm_has_cannot_be_a_baseline(folder):
    (folder / "job.yaml").write_text(JOB.replace("type: gkd", "type: sft").replace("teacher: {", "notes: x\n# {"))
    text = EXPERIMENT.replace("seeds:", "baselines: [teacher]\nseeds:")
    assert "baselines: no arm has a teacher that could be measured" in refusal(folder, text)


def test_an_experiment_is_no_base(folder):
    (folder / "job.yaml").write_text(EXPERIMENT.replace("./job.yaml", "{name: x}"))
    found = refusal(folder)
    assert "job.yaml:2:7: base.kind: an experiment cannot be the base of another" in found and "\n" not in found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("kind: experiment", "kind: experimnt"),
            "trial.yaml:2:7: kind: expected one of: job, experiment, got the text",
        ),
        (
            ("kind: experiment", "kind: [experiment]"),
            "trial.yaml:2:7: kind: expected one of: job, experiment, got a list",
        ),
        (("kind: experiment\n", ""), "kind: required key is missing; write `kind: experiment` for a file with base"),
    ],
)
def test_a_file_of_unknown_kind_is_told_so_and_nothing_else(folder, change, message, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "trial.yaml").write_text(EXPERIMENT.replace(*change))
    with pytest.raises(SpecError) as caught:
        checked(read("trial.yaml"))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["name: mine", "seed: 7"])
def test_an_arm_does_not_name_or_seed_its_runs(folder, key):
    found = refusal(folder, EXPERIMENT.replace("gkd: {}", f"gkd: {{{key}}}"))
    assert f"trial.yaml:6:9: arms.gkd.{key.split(':')[0]}: " in found and "would be ignored; remove it" in found


def test_the_baselines_are_measured_as_the_arms_are(folder):
    text = EXPERIMENT.replace("gkd: {}", "gkd: {dataset: &size {test_size: 6}}").replace(
        "teacher: null", "teacher: null\n    dataset: *size"
    )
    trial = experiment(folder, text)
    assert {run.job.dataset.test_size for run in (*trial.runs, *trial.baselines.values())} == {6}


@pytest.mark.parametrize("base", ["[job.yaml]", "3", "null"])
def test_a_base_is_a_job_or_the_path_of_one(folder, base):
    found = refusal(folder, EXPERIMENT.replace("./job.yaml", base))
    assert "trial.yaml:4:7: base: expected the path of a job file, or the job itself, got" in found


def test_what_the_base_extends_belongs_in_the_file(folder):
    assert "base.extends belongs in the file, it cannot be overridden" in refusal(
        folder, EXPERIMENT, "base.extends=job.yaml"
    )


def test_a_missing_file_is_a_usage_error(folder):
    with pytest.raises(UsageError, match="does not exist"):
        read(folder / "gone.yaml")
