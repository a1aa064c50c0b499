"""The step that reaches a limit of the budget is the last one, and ends the run as its planned end would."""

import pytest

from atlas.run import Stopped

from .tiny import lines, series, train

GKD = {"type": "gkd"}
TRAINING = {"max_steps": 8, "lr_scheduler_type": "linear", "learning_rate": 0.01}
HALF_AN_HOUR = 1800.0


class Killed(BaseException):
    """Stands for kill -9: nothing in Atlas may catch it."""


def at_each_step(run, act):
    """Calls `act(step)` when the end of a training step is reported."""
    progress = run.progress

    def show(phase, step=None, total=None):
        progress(phase, step, total)
        if phase == "train" and step:
            act(step)

    run.progress = show


def spend_half_an_hour_each(run):
    """Every step but the first takes half an hour more than it does."""

    def spend(step):
        run.clock.train_seconds += HALF_AN_HOUR
        run.clock.gpu_seconds += HALF_AN_HOUR

    at_each_step(run, spend)


def events(run):
    return [line["message"] for line in lines(run) if line.get("event") == "budget"]


@pytest.mark.parametrize(
    ("budget", "ended_by"),
    [
        ({"gpu_hours": 1.0}, "gpu_hours"),
        ({"train_minutes": 60.0}, "train_minutes"),
        ({"rollouts": 9}, "rollouts"),
        ({"rollouts": 12}, "rollouts"),
        ({"steps": 3}, "steps"),
        ({"gpu_hours": 2.0, "train_minutes": 99.0, "rollouts": 12, "steps": 7}, "rollouts"),
    ],
)
def test_the_step_that_reaches_a_limit_is_the_last(make_run, budget, ended_by):
    run = make_run(GKD, budget=budget, training=TRAINING | {"save_every_steps": 8})
    spend_half_an_hour_each(run)
    final = train(run)
    assert sorted(series(run, "train/loss")) == [1, 2, 3]
    assert (run.step, run.planned_step) == (3, 3)
    assert sorted(series(run, "eval/pass_rate")) == [0, 3] and list(series(run, "test/pass_rate")) == [3]
    assert final.is_dir() and (run.checkpoints / "step-3").is_dir()
    assert run.summary["ended_by"] == f"budget.{ended_by}"
    [event] = events(run)
    assert f"after step 3: budget.{ended_by} is {budget[ended_by]}, used " in event


def test_a_budget_changes_nothing_before_its_end(make_run):
    long, short = (
        make_run(GKD, "long", training=TRAINING),
        make_run(GKD, "short", training=TRAINING, budget={"steps": 3}),
    )
    train(long)
    train(short)
    for name in ("train/loss", "train/grad_norm", "train/learning_rate"):
        assert series(short, name) == {step: value for step, value in series(long, name).items() if step <= 3}
    assert not events(long) and "ended_by" not in long.summary


def test_a_budget_that_is_not_used_up_is_not_mentioned(make_run):
    run = make_run(GKD, budget={"gpu_hours": 100.0, "rollouts": 1000})
    train(run)
    assert run.step == run.planned_step == 4 and not events(run) and "ended_by" not in run.summary


def test_a_run_that_died_behind_the_end_of_its_budget_trains_no_more(make_run):
    settings = {"budget": {"train_minutes": 60.0}, "training": TRAINING}
    run = make_run(GKD, **settings)
    spend_half_an_hour_each(run)
    train(run)
    count = len(lines(run))
    again = make_run(GKD, **settings)
    train(again)
    assert not [line for line in lines(again)[count:] if "values" in line]
    assert (again.step, again.planned_step) == (3, 3) and len(events(again)) == 1
    assert again.summary["ended_by"] == "budget.train_minutes"


def test_a_stop_in_the_last_evaluation_is_made_up_for_without_training(make_run):
    settings = {"budget": {"rollouts": 12}, "training": TRAINING, "evaluation": {"batch_size": 1}}
    stopped = make_run(GKD, **settings)
    progress = stopped.progress

    def interrupt(phase, step=None, total=None):
        progress(phase, step, total)
        stopped.stop_requested = (phase, step) == ("evaluate", 1) and "ended_by" in stopped.summary

    stopped.progress = interrupt
    with pytest.raises(Stopped):
        train(stopped)
    again = make_run(GKD, **settings)
    train(again)
    assert sorted(series(again, "train/loss")) == [1, 2, 3] and sorted(series(again, "eval/pass_rate")) == [0, 3]
    assert (again.step, again.planned_step) == (3, 3) and len(events(again)) == 1


def test_a_kill_in_the_last_evaluation_ends_at_the_same_step(make_run):
    settings = {"budget": {"rollouts": 12}, "training": TRAINING | {"save_every_steps": 2}}
    unbroken = make_run(GKD, "unbroken", **settings)
    train(unbroken)
    killed = make_run(GKD, "killed", **settings)
    progress = killed.progress

    def die(phase, step=None, total=None):
        progress(phase, step, total)
        if phase == "evaluate" and "ended_by" in killed.summary:
            raise Killed

    killed.progress = die
    with pytest.raises(Killed):
        train(killed)
    again = make_run(GKD, "killed", **settings)
    train(again)
    assert {"rewind": 2} in lines(again) and (again.step, again.planned_step) == (3, 3)
    for name in ("train/loss", "eval/pass_rate", "test/pass_rate"):
        assert series(again, name) == series(unbroken, name)


def test_a_checkpoint_whose_clocks_have_passed_the_limit_is_the_end(make_run):
    # The limit passes between the look at the clocks and the checkpoint, and the step after that is never saved.
    settings = {"budget": {"train_minutes": 60.0}, "training": TRAINING | {"save_every_steps": 2}}
    killed = make_run(GKD, **settings)

    def pass_the_limit_and_die(step):
        if step == 2:
            killed.clock.train_seconds += 2 * HALF_AN_HOUR
        if step == 3:
            raise Killed

    at_each_step(killed, pass_the_limit_and_die)
    with pytest.raises(Killed):
        train(killed)
    again = make_run(GKD, **settings)
    train(again)
    assert (again.step, again.planned_step) == (2, 2) and sorted(series(again, "train/loss")) == [1, 2]
    assert sorted(series(again, "eval/pass_rate")) == [0, 2] and again.summary["ended_by"] == "budget.train_minutes"
    assert list(series(again, "test/pass_rate")) == [2] and "after step 2" in events(again)[-1]
