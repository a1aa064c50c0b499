"""What a whole job takes: steps, evaluations and the budget, and what earlier runs have shown."""

import json
import os
import platform
from pathlib import Path
from typing import Any

import pytest
from command_line import atlas
from trial import EXPERIMENT, JOB, TINY

from atlas import machine, scheduler
from atlas.datasets.base import Example, Splits
from atlas.job import JobSpec
from atlas.job_time import JobTime, job_time
from atlas.run import Run
from atlas.step_time import Machine, evaluation_seconds, step_time
from atlas.store import Store
from atlas.store.reindex import enqueue_arguments

HERE = Machine("here", 1e9, 1e9, 1e9, 1e9, 1e-6)
NO_DATA = Splits([], [], [])


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(machine, "_measured", lambda name, threads: HERE)
    monkeypatch.setattr(machine, "gpus", lambda: [])
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    monkeypatch.setenv("ATLAS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def job(**changes: Any) -> JobSpec:
    base = {
        "name": "a",
        "student": {"model": str(TINY / "student")},
        "method": {"type": "grpo"},
        "dataset": {"type": "arithmetic", "size": 400, "dev_size": 4, "test_size": 8},
        "training": {"max_steps": 10, "batch_size": 8},
        "sampling": {"max_completion_length": 20},
        "evaluation": {"max_completion_length": 20},
        "resources": {"gpus": 0, "cpus": 1},
    }
    return JobSpec.model_validate(base | changes)


def timed(home: Path, store: Store | None = None, splits: Splits = NO_DATA, **changes: Any) -> JobTime:
    found = job_time(job(**changes), splits, home, store)
    assert found is not None
    return found


def ran(store: Store, spec: JobSpec, seconds: list[float], length: float, host: str = platform.node()) -> str:
    """A run of this job in the store, with the seconds of its phases at each step. Returns its id."""
    run_id = f"run-{len(store.runs())}"
    directory = store.home / "runs" / run_id
    directory.mkdir(parents=True)
    document = {"run_id": run_id, "job": spec.model_dump(mode="json"), "digest": spec.digest()}
    document["submitted_at_seconds"] = float(len(store.runs()))
    (directory / "spec.json").write_text(json.dumps(document))
    (directory / "environment.json").write_text(json.dumps({"host": host}) + "\n")
    store.enqueue(**enqueue_arguments(document), run_dir=directory)
    run = Run(directory)
    for step, taken in enumerate(seconds, start=1):
        phases = {"phase/generate_seconds": taken, "phase/forward_backward_seconds": 2 * taken}
        run.log(phases | {"train/completions/mean_length": length}, step)
    store.ingest(run_id)
    return run_id


def test_a_job_takes_its_steps_and_its_evaluations(home: Path) -> None:
    step = step_time(job(), HERE)
    found = timed(home)
    assert step is not None and found.step == step and found.steps == 10
    assert found.training_seconds == pytest.approx(10 * step.total)
    dev, test = evaluation_seconds(job(), HERE, 4), evaluation_seconds(job(), HERE, 8)
    assert dev is not None and test is not None
    assert found.evaluations == 3 and found.evaluation_seconds == pytest.approx(2 * dev + test), "start, end, and test"
    assert found.at_most and found.source == "by estimate, for here"


@pytest.mark.parametrize(
    ("evaluation", "times"),
    [
        ({"every_steps": 5}, 4),
        ({"every_steps": 4}, 5),
        ({"every_steps": 5, "split": "test"}, 3),
        ({"split": "test"}, 2),
    ],
)
def test_evaluations_are_those_that_the_worker_makes(home: Path, evaluation: dict[str, Any], times: int) -> None:
    assert timed(home, evaluation=evaluation).evaluations == times


def test_a_teacher_is_measured_once_and_an_evaluation_trains_nothing(home: Path) -> None:
    taught = {"method": {"type": "gkd"}, "teacher": {"model": str(TINY / "teacher")}}
    assert timed(home, **taught).evaluations == 4
    assert timed(home, **taught, evaluation={"teacher": False}).evaluations == 3
    alone = timed(home, method={"type": "evaluate"}, training=None, sampling=None)
    assert alone.step is None and alone.steps is None and alone.training_seconds == 0 and alone.evaluations == 2


def test_epochs_are_whole_steps_of_the_data(home: Path) -> None:
    example = Example("1", "1", ({"role": "user", "content": "1 + 1"},), "2", "2")
    data = Splits([example] * 25, [], [])
    epochs = {"training": {"epochs": 2.0, "batch_size": 8}}
    assert timed(home, splits=data, method={"type": "sft"}, sampling=None, **epochs).steps == 6
    assert timed(home, splits=data, **epochs).steps == 50, "a prompt has 8 rollouts"
    assert job_time(job(**epochs), None, home, None) is None


def test_a_budget_ends_training(home: Path) -> None:
    whole = timed(home)
    assert timed(home, budget={"steps": 3}).steps == 3
    assert timed(home, budget={"rollouts": 33}).steps == 5
    taught = {"teacher": {"model": str(TINY / "teacher")}, "budget": {"rollouts": 24}}
    for lmbda, steps in ((1, 3), (0.5, 6), (0, 10)):  # the share of steps that have 8 rollouts
        assert timed(home, **taught, method={"type": "gkd", "lmbda": lmbda}).steps == steps
    minutes = whole.training_seconds / 60 / 2
    assert timed(home, budget={"train_minutes": minutes}).training_seconds == pytest.approx(whole.training_seconds / 2)
    assert timed(home, budget={"gpu_hours": minutes / 60}).training_seconds == pytest.approx(60 * minutes)
    assert timed(home, budget={"gpu_hours": 10.0}).training_seconds == whole.training_seconds


def test_a_run_of_the_same_work_here_says_what_a_step_takes(home: Path) -> None:
    with Store.open(home) as store:
        run_id = ran(store, job(), [100.0, 1.0, 2.0], length=7.0)
        found = timed(home, store, name="another", seed=3)
        assert found.step is not None and found.step.generate == 1.5 and found.step.forward_backward == 3.0
        assert found.training_seconds == pytest.approx(45), "the first step warms up"
        assert run_id in found.source and not found.at_most
        wide = timed(home, store, training={"max_steps": 10, "batch_size": 16})
        assert wide.step is not None and wide.step.generate == 3.0


@pytest.mark.parametrize(
    "changes",
    [
        {"sampling": {"max_completion_length": 19}},
        {"method": {"type": "grpo", "beta": 0.1}},
        {"training": {"max_steps": 10, "batch_size": 8, "gradient_checkpointing": True}},
        {"resources": {"gpus": 0, "cpus": 2}},
        {"student": {"model": str(TINY / "teacher")}},
    ],
)
def test_other_work_says_at_most_how_long_completions_are(home: Path, changes: dict[str, Any]) -> None:
    with Store.open(home) as store:
        ran(store, job(), [1.0, 1.0], length=7.0)
        found, elsewhere = timed(home, store, **changes), timed(home, store, **changes, name="another")
    assert found.step == step_time(job(**changes), HERE, completion_tokens=7.0) and not found.at_most
    assert elsewhere.step == step_time(job(**changes), HERE) and elsewhere.at_most, "of another name"


def test_a_run_on_another_machine_or_too_short_says_nothing_of_the_time(home: Path) -> None:
    with Store.open(home) as store:
        ran(store, job(), [1.0, 1.0], length=7.0, host="elsewhere")
        assert "estimate" in timed(home, store).source and not timed(home, store).at_most
    with Store.open(home.parent / "other") as store:
        ran(store, job(), [1.0], length=7.0)
        assert "estimate" in timed(home, store).source and timed(home, store).at_most


def test_nothing_is_said_of_a_machine_or_models_that_are_not_known(home: Path) -> None:
    assert job_time(job(resources={"gpus": 1}), NO_DATA, home, None) is None
    assert job_time(job(student={"model": "org/a"}), NO_DATA, home, None) is None


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(scheduler, "_start_what_fits", lambda store, gpus: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "trial.yaml").write_text(EXPERIMENT)


@pytest.mark.usefixtures("files")
def test_plan_says_what_a_step_and_the_job_take() -> None:
    output = atlas("plan", "job.yaml")
    assert "time      at most about " in output and " s a step (generate " in output
    assert " for 10 steps, and " in output and " for 5 evaluations" in output and "by estimate" in output
    assert "when the budget ends it" in atlas("plan", "job.yaml", "--set", "budget.gpu_hours=0.00001")
    plan = json.loads(atlas("plan", "job.yaml", "--json"))
    time = plan["estimated_time"]
    assert time["total_seconds"] == pytest.approx(time["training_seconds"] + time["evaluation_seconds"])
    assert time["training_seconds"] == pytest.approx(10 * time["step_seconds"]["total"])
    assert plan["estimated_peak_bytes"]["total_bytes"] > 650_000_000


@pytest.mark.usefixtures("files")
def test_plan_of_an_evaluation_has_no_steps() -> None:
    alone = ("method={type: evaluate}", "teacher=null", "training=null", "sampling=null", "evaluation.every_steps=null")
    output = atlas("plan", "job.yaml", *(word for change in alone for word in ("--set", change)))
    assert "for 2 evaluations" in output and "a step" not in output


@pytest.mark.usefixtures("files")
def test_plan_of_an_experiment_adds_up_what_its_new_runs_take() -> None:
    output = atlas("plan", "trial.yaml")
    assert "time      gkd: at most about " in output and "time      grpo: " in output
    assert "for all new runs, one after another" in output
    plan = json.loads(atlas("plan", "trial.yaml", "--json"))
    arms = sum(2 * time["total_seconds"] for time in plan["estimated_time"].values())
    assert plan["estimated_seconds_of_new_runs"] > arms, "the baselines come on top"
    atlas("submit", "trial.yaml", "--detach")
    assert json.loads(atlas("plan", "trial.yaml", "--json"))["estimated_seconds_of_new_runs"] is None


@pytest.mark.usefixtures("files")
def test_plan_says_when_the_time_is_not_known() -> None:
    assert "time      unknown" in atlas("plan", "job.yaml", "--set", "resources.gpus=1")
