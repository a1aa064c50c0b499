"""What the on-policy loop does around the methods."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from atlas.errors import RunFailed
from atlas.training import engine

from .tiny import character_tokenizer, lines, save, series, train

GRPO = {"type": "grpo", "num_generations": 2}


def test_running_out_of_memory_halves_the_micro_batch_and_changes_no_number(make_run, monkeypatch):
    plain = make_run({"type": "gkd"}, "plain", training={"max_steps": 2})
    train(plain)
    hidden_states, sizes = engine.hidden_states, []

    def small(model, packed):
        if len(packed.input_ids_T) > 40:
            raise torch.OutOfMemoryError("no room")
        sizes.append(len(packed.input_ids_T))
        return hidden_states(model, packed)

    monkeypatch.setattr(engine, "hidden_states", small)
    monkeypatch.setattr(engine, "_affordable_tokens", lambda job, device: 100)
    monkeypatch.setattr(engine, "_LEAST_TOKENS", 8)
    tight = make_run({"type": "gkd"}, "tight", training={"max_steps": 2})
    train(tight)
    assert series(tight, "train/loss") == pytest.approx(series(plain, "train/loss"), rel=1e-5)
    assert series(tight, "train/grad_norm") == pytest.approx(series(plain, "train/grad_norm"), rel=1e-4)
    events = [line["message"] for line in lines(tight) if line.get("event") == "out_of_memory"]
    assert events[0] == "step 1: tokens of a micro-batch are now 50" and len(events) <= 2


def test_running_out_of_memory_in_rollouts_writes_fewer_at_once(make_run, monkeypatch):
    roll_out, widths = engine.roll_out, []

    def narrow(model, head, prompts, *others, **options):
        if len(prompts) > 1:
            raise torch.OutOfMemoryError("no room")
        widths.append(len(prompts))
        return roll_out(model, head, prompts, *others, **options)

    monkeypatch.setattr(engine, "roll_out", narrow)
    run = make_run(GRPO, training={"max_steps": 1})
    train(run)
    assert widths == [1, 1] and run.clock.rollouts == 4
    assert any(line.get("event") == "out_of_memory" for line in lines(run))


def test_running_out_of_memory_with_the_least_fails_the_run(make_run, monkeypatch):
    def none(*args, **kwargs):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(engine, "hidden_states", none)
    with pytest.raises(torch.OutOfMemoryError):
        train(make_run({"type": "gkd"}))


def test_a_batch_that_went_wrong_is_kept(make_run, monkeypatch):
    monkeypatch.setattr(engine, "linear_loss", lambda hidden, *_: (hidden.sum() * torch.nan, {}))
    run = make_run({"type": "gkd"})
    with pytest.raises(RunFailed, match="the loss at step 1 is nan"):
        train(run)
    kept = [json.loads(line) for line in (run.directory / "failed_batch.jsonl").read_text().splitlines()]
    assert len(kept) == 4 and all(row["completion_ids"] and row["completion"] for row in kept)


def test_every_method_shows_entropy_lengths_speed_and_the_distance_to_its_teacher(make_run):
    for method in ({"type": "gkd", "beta": 0.0}, GRPO, {"type": "gkd_reward", "num_generations": 2}):
        run = make_run(method, method["type"], training={"max_steps": 2}, **_teacher(make_run, method))
        train(run)
        newest = [line["values"] for line in lines(run) if "train/loss" in line.get("values", {})][-1]
        for name in (
            "entropy",
            "completions/mean_length",
            "completions/clipped_ratio",
            "tokens_per_second",
            "grad_norm",
        ):
            assert f"train/{name}" in newest, (method, name)
        assert ("train/reverse_kl" in newest) == (method["type"] != "grpo")


def _teacher(make_run, method):
    if method["type"] != "gkd_reward":
        return {}
    teacher = make_run({"type": "gkd"}, "for-its-teacher").job.teacher
    return {"teacher": teacher.model_dump(), "sampling": {"max_completion_length": 6}}


def test_weights_that_are_no_numbers_end_the_run_while_it_writes(make_run, student, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(student)
    model.model.norm.weight.data[:] = torch.nan
    path = save(tmp_path / "broken", model, character_tokenizer())
    run = make_run(GRPO, student={"model": str(path)}, evaluation={"max_problems": 1})
    with pytest.raises(RunFailed, match="NaN or infinite while it writes") as caught:
        train(run)
    assert caught.value.reason == "non_finite_loss"
