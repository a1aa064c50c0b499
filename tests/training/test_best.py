"""Dev chooses the checkpoint, and test is scored once: on exactly the weights that were chosen."""

import json
import shutil

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from atlas.errors import RunFailed
from atlas.run import Stopped
from atlas.training import checkpoints, generation
from atlas.training.evaluation import Evaluator
from atlas.training.prompts import render_prompt

from .tiny import Copying, character_tokenizer, lines, names, series, train

SFT = {"type": "sft"}
GKD = {"type": "gkd"}
GRPO = {"type": "grpo", "num_generations": 2, "beta": 0.1}
FAST = {"max_steps": 4, "learning_rate": 0.01}
LORA = {"lora": {"r": 4, "target_modules": ["q_proj", "v_proj"]}}


class Killed(BaseException):
    """Stands for kill -9: nothing in Atlas may catch it."""


@pytest.fixture
def dev(monkeypatch):
    """`dev({step: pass rate})`: what every run measures on dev from now on, 0 at all other steps."""
    rates, at = {}, [0]
    student, measure = Evaluator.student, Evaluator._measure

    def note_step(self, model, step):
        at[0] = step
        student(self, model, step)

    def replace_rate(self, model, examples, phase, *tokenizer):
        values, samples = measure(self, model, examples, phase, *tokenizer)
        if examples is self.examples:
            values["pass_rate"] = rates.get(at[0], 0.0)
        return values, samples

    monkeypatch.setattr(Evaluator, "student", note_step)
    monkeypatch.setattr(Evaluator, "_measure", replace_rate)
    return rates.update


@pytest.fixture
def scored(monkeypatch):
    """The weights that a model has while it is scored on test (with LoRA: those of its adapter), and its logits."""
    found = {}
    test = Evaluator.test

    def note_weights(self, model, step):
        weights = get_peft_model_state_dict(model) if isinstance(model, PeftModel) else model.state_dict()
        found.update({name: tensor.clone() for name, tensor in weights.items()})
        found["logits"] = logits(model)
        test(self, model, step)

    monkeypatch.setattr(Evaluator, "test", note_weights)
    return found


def logits(model):
    with torch.no_grad():
        return model.eval()(torch.tensor([[1, 20, 30]])).logits


def assert_equal(found, expected):
    """The weights of a file may lack a tied head."""
    assert expected and expected.keys() <= found.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def folders(run):
    return sorted(path.name for path in run.checkpoints.iterdir() if not path.name.startswith("."))


def samples_of_test(run):
    return [line for line in lines(run, "samples.jsonl") if line.get("split") == "test"]


def completions(model):
    """What a model writes for the problems of test."""
    tokenizer = character_tokenizer()
    prompts = [render_prompt(tokenizer, example.messages) for example in Copying().load().test]
    written = generation.generate(model.eval(), tokenizer, prompts, max_completion_length=6, batch_size=3)
    return [completion.text for completion in written]


def kill_at_step(run, step):
    progress = run.progress

    def show_and_die(phase, at=None, total=None):
        progress(phase, at, total)
        if (phase, at) == ("train", step):
            raise Killed

    run.progress = show_and_die


@pytest.mark.parametrize("changes", [{}, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("best", [2, 4])
def test_the_weights_that_were_best_on_dev_are_scored_on_test(make_run, dev, scored, changes, best):
    dev({0: 0.1, best: 0.9})
    run = make_run(SFT, student=changes, training=FAST, evaluation={"every_steps": 1, "max_problems": 2})
    final = train(run)
    kept = run.checkpoints / f"best-step-{best}"
    assert final == run.checkpoints / "final" and folders(run) == [kept.name, "final", "step-2", "step-4"]
    assert_equal(scored, load_file(kept / ("adapter_model.safetensors" if changes else "model.safetensors")))
    model = (AutoPeftModelForCausalLM if changes else AutoModelForCausalLM).from_pretrained(kept)
    assert [sample["completion"] for sample in samples_of_test(run)] == completions(model)
    assert {sample["step"] for sample in samples_of_test(run)} == {best}
    assert series(run, "test/step") == {4: best} and series(run, "test/problems") == {4: 3}
    expected = sum(sample["correct"] for sample in samples_of_test(run)) / 3
    assert series(run, "test/pass_rate") == {4: expected}
    assert run.summary["test"] == run.summary["best"] | {
        "pass_rate": expected,
        "low": series(run, "test/pass_rate_low")[4],
        "high": series(run, "test/pass_rate_high")[4],
    }
    assert run.summary["best"]["step"] == best and run.summary["best_checkpoint"] == str(kept)
    assert {"test/format_rate", "test/mean_tokens", "test/clipped_share"} <= set(names(run))


def test_the_final_export_is_the_last_step_and_not_the_best(make_run, dev):
    dev({2: 0.9})
    run = make_run(SFT, training=FAST, evaluation={"every_steps": 2})
    final = train(run)
    last, exported, best = (
        load_file(run.checkpoints / name / "model.safetensors") for name in ("step-4", final.name, "best-step-2")
    )
    assert_equal(exported, last)
    assert not all(torch.equal(tensor, best[name]) for name, tensor in exported.items())


@pytest.mark.parametrize(
    ("method", "changes"),
    [(SFT, {}), (SFT, LORA), (SFT, {"from_scratch": True}), (GKD, {}), (GKD, LORA), (GRPO, {}), (GRPO, LORA)],
    ids=str,
)
def test_if_nothing_was_better_than_the_student_it_is_scored_as_it_was(make_run, dev, scored, student, method, changes):
    dev({0: 0.5, 4: 0.5})
    run = make_run(method, student=changes, training=FAST)
    train(run)
    assert not list(run.checkpoints.glob("best-*")) and "best_checkpoint" not in run.summary
    assert run.summary["test"]["step"] == 0 and {sample["step"] for sample in samples_of_test(run)} == {0}
    model = AutoModelForCausalLM.from_pretrained(student)
    if "from_scratch" in changes:
        torch.manual_seed(run.job.seed)
        model = AutoModelForCausalLM.from_config(model.config)
    assert torch.equal(scored["logits"], logits(model))
    assert [sample["completion"] for sample in samples_of_test(run)] == completions(model)


def test_an_equal_pass_rate_is_no_improvement(make_run, dev):
    dev({1: 0.5, 3: 0.5})
    run = make_run(SFT, evaluation={"every_steps": 1})
    train(run)
    assert [name for name in folders(run) if name.startswith("best")] == ["best-step-1"]
    assert series(run, "test/step") == {4: 1}


def test_best_weights_that_no_summary_names_are_removed(make_run, dev):
    dev({step: step / 10 for step in range(1, 8)})
    training = {"max_steps": 7, "save_every_steps": 3, "keep_checkpoints": 2}
    run = make_run(SFT, training=training, evaluation={"every_steps": 1})
    seen = []
    progress = run.progress

    def look(phase, step=None, total=None):
        progress(phase, step, total)
        if phase == "train" and run.checkpoints.exists():
            seen.append(sum(name.startswith("best") for name in folders(run)))

    run.progress = look
    train(run)
    assert [name for name in folders(run) if name.startswith("best")] == ["best-step-6", "best-step-7"]
    assert max(seen) == training["keep_checkpoints"] + 1


@pytest.mark.parametrize("method", [SFT, GKD, GRPO], ids=str)
@pytest.mark.parametrize("second_time", [0.6, 0.0])
def test_a_killed_run_finds_the_best_weights_that_its_checkpoint_names(make_run, dev, scored, method, second_time):
    settings = {"training": FAST | {"max_steps": 6, "save_every_steps": 3}, "evaluation": {"every_steps": 1}}
    dev({1: 0.3, 4: second_time})
    unbroken = make_run(method, "unbroken", **settings)
    train(unbroken)
    dev({4: 0.6})
    killed = make_run(method, "killed", **settings)
    kill_at_step(killed, 5)
    with pytest.raises(Killed):
        train(killed)
    assert folders(killed) == ["best-step-1", "best-step-4", "step-3"]
    dev({4: second_time})  # the same, or another, as it may be on a GPU, whose sums are not repeatable
    again = make_run(method, "killed", **settings)
    train(again)
    assert {"rewind": 3} in lines(again) and folders(again) == folders(unbroken)
    best = 4 if second_time else 1
    expected, kept = (load_file(r.checkpoints / f"best-step-{best}" / "model.safetensors") for r in (unbroken, again))
    assert_equal(kept, expected)
    assert_equal(scored, expected)
    assert series(again, "test/step") == {6: best}
    assert samples_of_test(again) == samples_of_test(unbroken)


@pytest.mark.parametrize("changes", [{}, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("loss", ["gone", "torn"])
def test_lost_best_weights_say_what_to_do_after_the_export(make_run, dev, tmp_path, changes, loss):
    dev({2: 0.9})
    settings = {"student": changes, "evaluation": {"every_steps": 2}}
    run = make_run(SFT, **settings)
    weights, copy = run.checkpoints / "best-step-2", tmp_path / "copy"
    progress = run.progress

    def lose(phase, step=None, total=None):
        progress(phase, step, total)
        if phase == "export":
            shutil.copytree(weights, copy)
            if loss == "gone":
                shutil.rmtree(weights)
            else:
                next(weights.glob("*.safetensors")).write_bytes(b"torn")

    run.progress = lose
    with pytest.raises(RunFailed, match=r"cannot be read.*put .*best-step-2 back.*atlas resume") as caught:
        train(run)
    assert caught.value.reason == "bad_checkpoint" and (run.checkpoints / "final").is_dir()
    shutil.rmtree(weights, ignore_errors=True)
    copy.rename(weights)
    again = make_run(SFT, **settings)
    train(again)
    assert again.summary["test"]["step"] == 2


@pytest.mark.parametrize("changes", [{}, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("best", [0, 2, 4])
def test_a_stop_during_the_score_resumes_with_the_score_alone(make_run, dev, scored, changes, best):
    dev({best: 0.9})
    settings = {"student": changes, "training": FAST, "evaluation": {"every_steps": 2, "batch_size": 1}}
    unbroken = make_run(SFT, "unbroken", **settings)
    train(unbroken)
    expected = dict(scored)
    stopped = make_run(SFT, "stopped", **settings)
    progress = stopped.progress

    def interrupt(phase, step=None, total=None):
        progress(phase, step, total)
        stopped.stop_requested = (phase, step) == ("test", 1)

    stopped.progress = interrupt
    with pytest.raises(Stopped):
        train(stopped)
    assert not series(stopped, "test/pass_rate") and not samples_of_test(stopped)
    assert (stopped.step, stopped.planned_step) == (4, 4)
    count = len(lines(stopped))
    again = make_run(SFT, "stopped", **settings)
    train(again)
    assert_equal(scored, expected)
    assert not [line for line in lines(again)[count:] if "train/loss" in line.get("values", {})]
    assert samples_of_test(again) == samples_of_test(unbroken)
    assert series(again, "test/pass_rate") == series(unbroken, "test/pass_rate")


@pytest.mark.parametrize("method", [SFT, {"type": "evaluate"}], ids=["sft", "evaluate"])
def test_a_run_that_died_before_its_result_is_not_scored_again(make_run, method):
    first = make_run(method)
    train(first)
    count = len(samples_of_test(first))
    again = make_run(method)
    train(again)
    assert len([line for line in lines(again) if "test/pass_rate" in line.get("values", {})]) == 1
    assert len(samples_of_test(again)) == count == 3
    scored, kept = first.summary["test"], again.summary["test"]
    assert {name: kept[name] for name in ("step", "pass_rate", "low", "high")} == {
        name: scored[name] for name in ("step", "pass_rate", "low", "high")
    }


def test_split_test_keeps_nothing_and_scores_nothing(make_run, dev):
    dev({2: 0.9})
    run = make_run(SFT, evaluation={"split": "test", "every_steps": 2})
    train(run)
    assert folders(run) == ["final", "step-2", "step-4"]
    assert not [name for name in names(run) if name.startswith("test/")] and "test" not in run.summary


def test_keeping_the_best_is_not_on_the_training_clock(make_run, dev, monkeypatch):
    dev({1: 0.5})
    run = make_run(SFT, training={"max_steps": 1})
    clocks = []
    publish = checkpoints.publish

    def spy(staged, target):
        clocks.append(run.clock.readings())
        published = publish(staged, target)
        if target.name.startswith("best"):
            clocks.append(run.clock.readings())
        return published

    monkeypatch.setattr(checkpoints, "publish", spy)
    train(run)
    before, after = clocks[:2]
    assert after["train_seconds"] == before["train_seconds"] > 0 and after["wall_seconds"] > before["wall_seconds"]


def test_the_best_step_is_in_the_summary_of_the_checkpoint(make_run, dev):
    dev({2: 0.9})
    run = make_run(SFT, evaluation={"every_steps": 2})
    train(run)
    summary = json.loads((run.checkpoints / "step-4" / "summary.json").read_text())
    assert summary["best"]["step"] == 2 and "test" not in summary
