"""Experiments on the command line, without a worker."""

import json
from pathlib import Path

import pytest
from command_line import atlas
from trial import EXPERIMENT, JOB

from atlas import scheduler
from atlas.errors import NotFoundError
from atlas.run import CLOCKS as CLOCK_NAMES
from atlas.store import Store

CLOCKS = dict.fromkeys(CLOCK_NAMES, 1.0)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ATLAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scheduler, "_start_what_fits", lambda store, gpus: None)
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "trial.yaml").write_text(EXPERIMENT)
    return tmp_path / "home"


def submitted(home):
    atlas("submit", "trial.yaml", "--detach")
    store = Store.open(home)
    return store, store.experiment("trial")


def finish(store, run_id, state):
    run = store.claim("test", run_id)
    store.started(run_id, run.fence, "1:1", [])
    store.finish(run_id, run.fence, state, reason="error" if state == "failed" else None)


def test_submit_queues_baselines_then_seed_by_seed(home):
    store, record = submitted(home)
    names = [run.name for run in reversed(store.runs())]
    assert names[:2] == ["trial-baseline-student", "trial-baseline-teacher"]
    assert names[2:] == ["trial-gkd-s3", "trial-grpo-s3", "trial-gkd-s5", "trial-grpo-s5"]
    assert set(record.run_ids) == {run.id for run in store.runs()}


def test_the_record_holds_the_file_the_differences_and_the_runs_by_arm_and_seed(home):
    store, record = submitted(home)
    assert (record.spec_text, record.spec_file, record.spec["seeds"]) == (EXPERIMENT, "trial.yaml", [3, 5])
    assert record.differences["method.type"] == {"gkd": "gkd", "grpo": "grpo"}
    assert [(run.arm, run.seed) for run in record.runs] == [("gkd", 3), ("gkd", 5), ("grpo", 3), ("grpo", 5)]
    assert all(run.run_id.startswith(f"trial-{run.arm}-s{run.seed}-") for run in record.runs)
    assert store.experiment(record.id) == record == store.experiments()[0]


def test_submitting_the_same_file_again_changes_nothing(home):
    store, record = submitted(home)
    assert "already queued as" in atlas("submit", "trial.yaml", "--detach")
    assert store.experiments() == [record] and len(store.runs()) == 6


def test_another_seed_runs_only_that_seed(home):
    store, first = submitted(home)
    Path("trial.yaml").write_text(EXPERIMENT.replace("[3, 5]", "[3, 5, 8]"))
    atlas("submit", "trial.yaml", "--detach")
    second = store.experiment("trial")
    assert second.id != first.id and len(store.runs()) == 8
    assert set(first.run_ids) < set(second.run_ids)
    assert {run.seed for run in second.runs if run.run_id not in first.run_ids} == {8}


def test_a_failed_run_is_run_again_and_the_experiment_holds_the_new_one(home):
    store, first = submitted(home)
    finish(store, first.runs[0].run_id, "failed")
    atlas("submit", "trial.yaml", "--detach")
    second = store.experiment("trial")
    assert second.runs[0].run_id != first.runs[0].run_id
    assert second.runs[1:] == first.runs[1:]


def test_submit_says_that_resume_would_continue_what_it_starts_from_scratch(home):
    store, first = submitted(home)
    finish(store, first.runs[0].run_id, "failed")
    finish(store, first.runs[1].run_id, "cancelled")
    output = atlas("submit", "trial.yaml", "--detach")
    second = store.experiment("trial")
    (line,) = [line for line in output.splitlines() if "from scratch" in line]
    assert line == (
        f"trial.yaml: experiment {second.id}; starts 2 runs from scratch that failed, were cancelled or lost: "
        f"`atlas resume {first.id}` would continue them instead"
    )
    assert "from scratch" not in atlas("submit", "trial.yaml", "--detach"), "they are queued already"


def test_submit_says_nothing_of_resume_where_nothing_can_be_resumed_or_force_was_said(home):
    store, first = submitted(home)
    assert "from scratch" not in atlas("submit", "trial.yaml", "--set", "seeds=[3, 5, 8]", "--detach")
    finish(store, first.runs[0].run_id, "failed")
    assert "from scratch" not in atlas("submit", "trial.yaml", "--detach", "--force")


def test_force_runs_everything_again(home):
    store, first = submitted(home)
    atlas("submit", "trial.yaml", "--detach", "--force")
    assert len(store.runs()) == 12 and not set(store.experiment("trial").run_ids) & set(first.run_ids)


def test_what_does_not_fit_on_the_disk_in_all_is_refused_before_anything_is_queued(home, monkeypatch):
    monkeypatch.setattr("atlas.submission.checkpoint_bytes", lambda job: 30)
    monkeypatch.setattr("atlas.submission.shutil.disk_usage", lambda home: type("Usage", (), {"free": 100}))
    assert "are needed for checkpoints" in atlas("submit", "trial.yaml", "--detach", expect=2)
    assert Store.open(home).runs() == []


def test_an_experiment_that_cannot_run_in_full_is_refused_before_anything_is_queued(home):
    cores = ("--set", "arms.grpo.resources.cpus=100000", "--set", "allow_differences=[resources]")
    assert "asks for 100000 CPU cores" in atlas("submit", "trial.yaml", "--detach", *cores, expect=2)
    assert Store.open(home).runs() == []


def test_runs_of_another_grader_are_run_again(home, monkeypatch):
    submitted(home)
    monkeypatch.setattr("atlas.submission.VERSION", 1000)
    assert "6 of them new" in atlas("plan", "trial.yaml")


def test_plan_shows_the_runs_what_is_new_and_the_differences(home):
    output = atlas("plan", "trial.yaml")
    assert "2 arms x 2 seeds + 2 baselines = 6 runs, 6 of them new" in output
    assert "method.type" in output and "teacher.model" in output and "dataset" not in output
    store, record = submitted(home)
    finish(store, record.runs[0].run_id, "succeeded")
    output = atlas("plan", "trial.yaml", "--set", "seeds=[3, 9]")
    assert "6 runs, 2 of them new" in output and f"succeeded as {record.runs[0].run_id}" in output


def test_plan_adds_up_the_budget_of_the_new_runs_that_train(home):
    limits = ("--set", "budget={gpu_hours: 1.5, train_minutes: 20, steps: 7}")
    output = atlas("plan", "trial.yaml", *limits)
    assert "budget    1.5 gpu_hours, 20 train_minutes, 7 steps for each run\n" in output
    assert "          6 gpu_hours, 80 train_minutes for all new runs that train\n" in output
    atlas("submit", "trial.yaml", *limits, "--detach")
    assert "that train" not in atlas("plan", "trial.yaml", *limits)
    plan = json.loads(atlas("plan", "trial.yaml", *limits, "--set", "seeds=[3, 5, 8]", "--json"))
    assert plan["budget_of_new_runs"] == {"gpu_hours": 3.0, "train_minutes": 40.0}


def test_plan_shows_the_budget_that_the_base_has(home):
    output = atlas("plan", "trial.yaml", "--set", "base.budget={train_minutes: 0.1}")
    assert "budget    0.1 train_minutes for each run\n" in output
    assert "          0.4 train_minutes for all new runs that train\n" in output


def test_plan_says_that_the_budget_differs_between_arms(home):
    sets = ("allow_differences=[budget]", "arms.gkd.budget={gpu_hours: 1}", "arms.grpo.budget={gpu_hours: 2}")
    output = atlas("plan", "trial.yaml", *(word for assignment in sets for word in ("--set", assignment)))
    assert "budget    differs between the arms, see below\n          6 gpu_hours for all new" in output


def test_plan_adds_up_no_budget_of_steps(home):
    assert "that train" not in atlas("plan", "trial.yaml", "--set", "budget.steps=7")


def test_plan_as_json_holds_runs_and_differences(home):
    plan = json.loads(atlas("plan", "trial.yaml", "--json"))
    assert [run["name"] for run in plan["runs"]][2] == "trial-gkd-s3"
    assert plan["differences"]["training.learning_rate"] == {"gkd": 1e-4, "grpo": 1e-5}
    assert plan["experiment"]["seeds"] == [3, 5]


def test_check_takes_experiments(home):
    assert "trial.yaml: ok" in atlas("check", "trial.yaml", "job.yaml")
    assert "dataset.dev_size: the arms differ" in atlas(
        "check", "trial.yaml", "--set", "arms.gkd.dataset.dev_size=5", expect=2
    )


def test_ls_lists_experiments_with_the_states_of_their_runs(home):
    assert "no experiments" in atlas("ls", "--experiments")
    store, record = submitted(home)
    finish(store, record.runs[0].run_id, "failed")
    output = atlas("ls", "--experiments")
    assert record.id in output and "gkd, grpo" in output and "5 queued" in output and "1 failed" in output
    assert json.loads(atlas("ls", "--experiments", "--json"))[0]["id"] == record.id
    assert "leave one out" in atlas("ls", "--experiments", "--tag", "x", expect=2)


def test_show_of_an_experiment_lists_its_runs_and_what_to_do_next(home):
    store, record = submitted(home)
    output = atlas("show", "trial")
    listed = {line.split()[0]: line.split()[1:] for line in output.splitlines()}
    assert all(listed[run_id][0] == "queued" for run_id in record.run_ids)
    assert output.startswith(f"{record.id}  6 queued") and "resume" not in output
    finish(store, record.runs[0].run_id, "failed")
    assert f"`atlas resume {record.id}`" in atlas("show", record.id)
    assert EXPERIMENT in atlas("show", "trial", "--spec")
    assert json.loads(atlas("show", "trial", "--json")) == record.model_dump(mode="json")
    assert "no run 'nonsense'" in atlas("show", "nonsense", expect=102)


def test_the_spec_that_show_prints_of_a_run_is_that_run_with_its_set_when_it_is_submitted(home):
    atlas("submit", "trial.yaml", "--detach", "--set", "base.dataset.test_size=6")
    run_id = Store.open(home).experiment("trial").runs[0].run_id
    Path("elsewhere").mkdir()
    Path("elsewhere/again.yaml").write_text(atlas("show", run_id, "--spec"))
    assert f"already queued as {run_id}" in atlas("submit", "elsewhere/again.yaml", "--detach")


def test_a_run_that_is_called_exactly_so_is_shown_before_an_experiment_that_begins_so(home):
    submitted(home)
    atlas("submit", "job.yaml", "--set", "name=tri", "--detach")
    assert atlas("show", "tri").startswith("tri-")


def test_show_says_of_which_experiment_arm_and_seed_a_run_is(home):
    _, record = submitted(home)
    member, student = record.runs[1], record.baselines["student"]
    output = atlas("show", member.run_id)
    assert f"experiment {record.id}, {member.arm}\n" in output and f"seed {member.seed}:" in output
    assert f"experiment {record.id}, baseline student\n" in atlas("show", student)
    document = json.loads(atlas("show", member.run_id, "--json"))
    assert document["experiments"] == [{"id": record.id, "arm": member.arm, "seed": member.seed}]


def test_show_says_which_checkpoint_was_chosen_and_which_limit_ended_the_run(home):
    store, record = submitted(home)
    run = store.run(record.runs[0].run_id)
    lines = [
        {"event": "budget", "message": "training ended after step 7: budget.rollouts is 56, used 56"},
        {"step": 7, "clocks": CLOCKS, "values": {"test/pass_rate": 0.5, "test/step": 4}},
    ]
    (Path(run.run_dir) / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    store.ingest(run.id)
    output = atlas("show", run.id)
    assert "budget     training ended after step 7: budget.rollouts is 56, used 56\n" in output
    assert "test       pass rate 50.0 [nan, nan] at step 4, the best on dev: " in output
    assert f"{run.run_dir}/checkpoints/best-step-4 (gone)" in output


def test_cancel_takes_all_runs_of_an_experiment(home):
    store, record = submitted(home)
    atlas("cancel", "trial")
    assert {store.run(run_id).state for run_id in record.run_ids} == {"cancelled"}


def test_cancel_goes_on_after_a_run_that_ends_meanwhile(home, monkeypatch):
    store, record = submitted(home)
    ending = record.runs[0].run_id
    run = store.claim("test", ending)
    store.started(ending, run.fence, "1:1", [])

    def settle(store):
        if store.run(ending).state == "running":
            store.finish(ending, run.fence, "succeeded")

    monkeypatch.setattr("atlas.cli.stores.settle", lambda store: None)
    monkeypatch.setattr("atlas.scheduler.settle", settle)
    assert f"{ending}: succeeded" in atlas("cancel", "trial")
    states = {run_id: store.run(run_id).state for run_id in record.run_ids if run_id != ending}
    assert set(states.values()) == {"cancelled"}


def test_resume_continues_the_runs_of_an_experiment_that_can_be(home):
    store, record = submitted(home)
    finish(store, record.runs[0].run_id, "failed")
    finish(store, record.runs[1].run_id, "succeeded")
    atlas("resume", record.id, "--detach")
    states = {run.run_id: store.run(run.run_id).state for run in record.runs}
    assert list(states.values()) == ["queued", "succeeded", "queued", "queued"]
    assert "nothing to resume" in atlas("resume", record.id, "--detach", expect=2)


def test_resume_ends_with_the_whole_experiment_and_what_to_do_next(home, monkeypatch):
    store, record = submitted(home)
    for run_id in record.run_ids[1:]:
        finish(store, run_id, "succeeded")
    finish(store, record.run_ids[0], "failed")

    def fail_again(store):
        if store.run(record.run_ids[0]).state == "queued":
            finish(store, record.run_ids[0], "failed")

    monkeypatch.setattr("atlas.scheduler.tick", fail_again)
    output = atlas("resume", "trial", expect=100)
    assert "\ngkd " in output and "\ngrpo " in output, "the table has the arms, not only what was resumed"
    assert f"`atlas resume {record.id}`" in output


def test_cancel_takes_a_run_that_is_called_exactly_so_before_an_experiment_that_begins_so(home):
    store, record = submitted(home)
    atlas("submit", "job.yaml", "--set", "name=tri", "--detach")
    atlas("cancel", "tri")
    assert store.run("tri").state == "cancelled"
    assert {store.run(run_id).state for run_id in record.run_ids} == {"queued"}


def test_an_experiment_is_found_by_id_by_name_and_by_the_start_of_an_id(home):
    store, first = submitted(home)
    assert store.experiment(first.id[:-2]) == first
    atlas("submit", "trial.yaml", "--detach", "--force")
    assert store.experiment("trial").id != first.id
    with pytest.raises(NotFoundError, match="start so"):
        store.experiment("tria")
    with pytest.raises(NotFoundError, match="no experiment 'other'"):
        store.experiment("other")


def test_a_record_that_cannot_be_read_is_named(home):
    _, record = submitted(home)
    file = home / "experiments" / f"{record.id}.json"
    file.write_text("{")
    assert f"{file} is no record of an experiment" in atlas("ls", "--experiments", expect=2)
