"""A run that was interrupted ends with the same numbers as one that was not."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from atlas.errors import RunFailed
from atlas.run import Stopped
from atlas.training import checkpoints

from .tiny import lines, series, train

METHODS = {
    "sft": {"type": "sft"},
    "gkd": {"type": "gkd"},
    "gkd-mixed": {"type": "gkd", "lmbda": 0.5},
    "gkd-seq": {"type": "gkd", "lmbda": 0.5, "seq_kd": True, "top_k": {"k": 4}},
    "grpo": {"type": "grpo", "num_generations": 2, "beta": 0.1},
    "gkd_reward": {"type": "gkd_reward", "num_generations": 2},
}
COUNTS = ("tokens_generated", "tokens_trained", "rollouts")
LONG = {"max_steps": 7, "micro_batch_size": 2, "save_every_steps": 3, "lr_scheduler_type": "cosine", "warmup_steps": 2}


def stop_after(run, step):
    """As SIGTERM would, while that step is running."""
    progress = run.progress

    def show_and_stop(phase, at=None, total=None):
        progress(phase, at, total)
        run.stop_requested = phase == "train" and at == step - 1

    run.progress = show_and_stop


def weights(run):
    return load_file(run.checkpoints / "final" / "model.safetensors")


def assert_same(unbroken, resumed):
    for name in ("train/loss", "train/grad_norm", "train/learning_rate", "eval/pass_rate", "eval/mean_tokens"):
        assert series(resumed, name) == series(unbroken, name) != {}
    for name in COUNTS:
        assert getattr(resumed.clock, name) == getattr(unbroken.clock, name)
    expected = weights(unbroken)
    for name, tensor in weights(resumed).items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("method", METHODS)
def test_resuming_is_bit_equal_at_every_step(make_run, method):
    settings = {"training": LONG, "evaluation": {"every_steps": 2}}
    unbroken = make_run(METHODS[method], "unbroken", **settings)
    train(unbroken)
    # 8 rows: an epoch has 2 steps (grpo: 4), so that some stops are within an epoch and others at the end of one
    for stop in range(1, 7):
        broken = make_run(METHODS[method], "broken", **settings)
        stop_after(broken, stop)
        with pytest.raises(Stopped):
            train(broken)
        assert max(series(broken, "train/loss")) == stop
    again = make_run(METHODS[method], "broken", **settings)
    final = train(again)
    assert final == again.checkpoints / "final"
    assert sorted(series(again, "train/loss")) == [1, 2, 3, 4, 5, 6, 7]
    assert_same(unbroken, again)


@pytest.mark.parametrize("method", ["gkd", "grpo"])
def test_an_adapter_with_dropout_resumes_bit_equal_too(make_run, method):
    settings = {"student": {"lora": {"r": 4, "dropout": 0.2}}, "training": LONG}
    unbroken = make_run(METHODS[method], "unbroken", **settings)
    train(unbroken)
    first = make_run(METHODS[method], "broken", **settings)
    stop_after(first, 4)
    with pytest.raises(Stopped):
        train(first)
    again = make_run(METHODS[method], "broken", **settings)
    train(again)
    for name in ("train/loss", "train/grad_norm"):
        assert series(again, name) == series(unbroken, name) != {}


class Killed(BaseException):
    """Stands for kill -9: nothing in Atlas may catch it."""


@pytest.mark.parametrize("moment", ["commit", "_sync", "rotate"])
def test_a_kill_in_the_middle_of_a_save_loses_nothing_but_time(make_run, monkeypatch, moment):
    settings = {"training": {"max_steps": 5, "save_every_steps": 2}}
    unbroken = make_run({"type": "gkd"}, "unbroken", **settings)
    train(unbroken)
    killed = make_run({"type": "gkd"}, "killed", **settings)
    real = getattr(checkpoints, moment)

    def kill(*args, **kwargs):
        if killed.step == 4:
            raise Killed
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, moment, kill)
        with pytest.raises(Killed):
            train(killed)
    again = make_run({"type": "gkd"}, "killed", **settings)
    train(again)
    rewound = [line["rewind"] for line in lines(again) if "rewind" in line]
    assert rewound == ([4] if moment == "rotate" else [2])
    assert_same(unbroken, again)
    passed_over = [line["message"] for line in lines(again) if line.get("event") == "checkpoint_passed_over"]
    assert len(passed_over) == (0 if moment == "rotate" else 1)


def test_a_spoiled_checkpoint_is_passed_over_with_its_reason(make_run):
    settings = {"training": {"max_steps": 6, "save_every_steps": 2, "keep_checkpoints": 3}}
    unbroken = make_run({"type": "grpo", "num_generations": 2}, "run", **settings)
    train(unbroken)
    expected = series(unbroken, "train/grad_norm")
    shutil.rmtree(unbroken.checkpoints / "step-6")
    (unbroken.checkpoints / "step-4" / "optimizer.pt").write_bytes(b"torn")
    again = make_run({"type": "grpo", "num_generations": 2}, "run", **settings)
    train(again)
    assert {
        "event": "checkpoint_passed_over",
        "message": "passed over step-4: optimizer.pt is not as it was written",
    } in (lines(again))
    assert {"rewind": 2} in lines(again) and series(again, "train/grad_norm") == expected


def test_with_spoiled_checkpoints_only_the_run_fails_and_says_how_to_go_on(make_run):
    run = make_run({"type": "sft"}, training={"max_steps": 2})
    train(run)
    (run.checkpoints / "step-2" / "model.safetensors").unlink()
    with pytest.raises(RunFailed, match="atlas rerun") as caught:
        train(make_run({"type": "sft"}))
    assert caught.value.reason == "bad_checkpoint"


def test_a_finished_run_that_was_killed_before_its_result_is_only_exported_again(make_run, monkeypatch):
    run = make_run({"type": "gkd"})
    train(run)
    expected, count = weights(run), len(lines(run))
    shutil.rmtree(run.checkpoints / "final")
    again = make_run({"type": "gkd"})
    train(again)
    assert not [line for line in lines(again)[count:] if "values" in line]
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(again).items())
    assert again.step == again.planned_step == 4


def test_an_evaluation_that_was_cut_off_is_made_up_for(make_run):
    settings = {"evaluation": {"every_steps": 2, "batch_size": 1}, "training": {"max_steps": 4, "save_every_steps": 9}}
    for at_step in (2, 4):
        run = make_run({"type": "gkd"}, f"cut-{at_step}", **settings)
        progress = run.progress

        def interrupt(phase, step=None, total=None, run=run, progress=progress, at_step=at_step):
            progress(phase, step, total)
            run.stop_requested = phase == "evaluate" and step == 1 and run.step == at_step - 1

        run.progress = interrupt
        with pytest.raises(Stopped):
            train(run)
        assert at_step not in series(run, "eval/pass_rate") and at_step in series(run, "train/loss")
        again = make_run({"type": "gkd"}, f"cut-{at_step}", **settings)
        train(again)
        assert sorted(series(again, "eval/pass_rate")) == [0, 2, 4]


def test_a_run_that_never_saved_voids_what_it_logged(make_run):
    run = make_run({"type": "sft"})
    run.log({"train/loss": 9.0}, 1)
    again = make_run({"type": "sft"})
    train(again)
    assert [line for line in lines(again) if "rewind" in line] == [{"rewind": -1}]
    assert series(again, "train/loss")[1] != 9.0


def test_old_checkpoints_go_and_nothing_is_left_in_staging(make_run):
    run = make_run({"type": "sft"}, training={"max_steps": 5, "save_every_steps": 1, "keep_checkpoints": 2})
    train(run)
    assert sorted(path.name for path in run.checkpoints.iterdir() if not path.name.startswith(".")) == [
        "final",
        "step-4",
        "step-5",
    ]
    assert not list((run.checkpoints / checkpoints.STAGING).iterdir())
    assert not list(Path(run.checkpoints).rglob("training_args.bin"))
