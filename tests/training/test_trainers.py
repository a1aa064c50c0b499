"""What the three methods compute, against slow and obvious references, and what they log."""

import math
from types import SimpleNamespace

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from atlas.errors import RunFailed
from atlas.spec import TrainingSpec
from atlas.training import generation, gkd, loop, trainer
from atlas.training.prompts import encode_prompts, render_prompt

from .tiny import Copying, character_tokenizer, lines, names, save, series, tiny_llama, train

GRPO = {"type": "grpo", "num_generations": 2}
METHODS = {"sft": {"type": "sft"}, "gkd": {"type": "gkd"}, "grpo": GRPO}


def batches(monkeypatch):
    """Everything that reaches a loss, in order."""
    seen = []
    compute_loss = trainer.Measured.compute_loss

    def spy(self, model, inputs, *args, **kwargs):
        seen.append({name: value.clone() for name, value in inputs.items() if isinstance(value, torch.Tensor)})
        return compute_loss(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(trainer.Measured, "compute_loss", spy)
    return seen


def rollouts(batch):
    return zip(batch["completion_ids"], batch["completion_mask"], strict=True)


def scored(batch, *models):
    """Log-probabilities [tokens, vocabulary] of each model at every completion token of a batch, row by row."""
    found = [[] for _ in models]
    for prompt, prompt_mask, completion, mask in zip(
        batch["prompt_ids"], batch["prompt_mask"], batch["completion_ids"], batch["completion_mask"], strict=True
    ):
        prompt, completion = prompt[prompt_mask.bool()], completion[mask.bool()]
        for rows, model in zip(found, models, strict=True):
            with torch.no_grad():
                logits = model(torch.cat([prompt, completion])[None]).logits[0]
            rows.append(logits[len(prompt) - 1 : -1].double())
    return [torch.cat(rows) for rows in found]


@pytest.mark.parametrize(("beta", "temperature"), [(0.0, 1.0), (1.0, 1.0), (0.3, 1.0), (1.0, 2.5)])
def test_the_gkd_loss_is_the_divergence_of_the_paper(make_run, student, teacher, monkeypatch, beta, temperature):
    seen = batches(monkeypatch)
    run = make_run(
        {"type": "gkd", "beta": beta, "temperature": temperature}, training={"max_steps": 1, "micro_batch_size": 2}
    )
    train(run)
    terms = []
    for batch in seen:
        logits = scored(batch, *(AutoModelForCausalLM.from_pretrained(path) for path in (student, teacher)))
        p_s, p_t = (torch.softmax(each / temperature, -1) for each in logits)
        mixture = beta * p_t + (1 - beta) * p_s

        def kl(p, q):
            return (p * (p.log() - q.log())).sum(-1)

        divergence = {0.0: kl(p_t, p_s), 1.0: kl(p_s, p_t)}.get(
            beta, beta * kl(p_t, mixture) + (1 - beta) * kl(p_s, mixture)
        )
        terms.append(divergence)
    assert len(seen) == 2
    expected = torch.cat(terms).mean().item()
    assert series(run, "train/loss")[1] == pytest.approx(expected, rel=1e-4)
    exact = beta == temperature == 1
    assert series(run, "train/reverse_kl") == (pytest.approx({1: expected}, rel=1e-4) if exact else {})


def test_the_grpo_loss_is_the_token_mean_of_advantages_and_kl(make_run, student, teacher, monkeypatch):
    seen = batches(monkeypatch)
    # another model than the student's own initial weights would give another KL; after a step they differ
    run = make_run(GRPO | {"beta": 0.5}, dataset={"rows": 2}, training={"max_steps": 2, "learning_rate": 0.05})
    rewards = iter([1.0, 0.0, 0.0, 0.0] * 2)
    object.__setattr__(run.job.dataset, "score", lambda example, completion: next(rewards))
    states = []
    monkeypatch.setattr(
        trainer.Recorder,
        "on_pre_optimizer_step",
        lambda self, *a, model, **k: states.append({n: p.detach().clone() for n, p in model.state_dict().items()}),
    )
    monkeypatch.setattr(trainer.Recorder, "on_optimizer_step", lambda self, *a, **k: None)
    train(run)
    for step, (batch, state) in enumerate(zip(seen, states, strict=True), start=1):
        policy = AutoModelForCausalLM.from_pretrained(student)
        policy.load_state_dict(state)
        chosen = torch.cat([row[m.bool()] for row, m in rollouts(batch)])
        now, initial = (
            torch.log_softmax(logits, -1).gather(1, chosen[:, None])[:, 0]
            for logits in scored(batch, policy, AutoModelForCausalLM.from_pretrained(student))
        )
        advantages = torch.repeat_interleave(batch["advantages"].double(), batch["completion_mask"].sum(1))
        kl = torch.exp(initial - now) - (initial - now) - 1
        assert series(run, "train/kl")[step] == pytest.approx(kl.mean().item(), rel=1e-3, abs=1e-6)
        assert series(run, "train/loss")[step] == pytest.approx((-advantages + 0.5 * kl).mean().item(), rel=1e-3)
        assert sorted(batch["advantages"].tolist()) == [-0.5, 0.0, 0.0, 0.5]  # reward - mean of its group of two
    assert series(run, "train/kl")[2] > 1e-3
    assert series(run, "train/reward") == {1: 0.25, 2: 0.25}
    assert series(run, "train/frac_reward_zero_std") == {1: 0.5, 2: 0.5}


def test_scaled_rewards_are_divided_by_the_spread_of_their_group(make_run, monkeypatch):
    seen = batches(monkeypatch)
    run = make_run(GRPO | {"scale_rewards": True}, training={"max_steps": 1})
    rewards = iter([1.0, 0.0, 0.0, 0.0])
    object.__setattr__(run.job.dataset, "score", lambda example, completion: next(rewards))
    train(run)
    advantages = sorted(seen[0]["advantages"].tolist())
    assert advantages == pytest.approx([-math.sqrt(0.5), 0, 0, math.sqrt(0.5)], abs=1e-3)


def test_the_reward_is_the_datasets_score_of_the_evaluated_text(make_run, monkeypatch):
    graded = []
    run = make_run(GRPO, training={"max_steps": 1}, evaluation={"max_problems": 1})
    object.__setattr__(run.job.dataset, "score", lambda example, text: graded.append((example, text)) or 0.0)
    seen = batches(monkeypatch)
    train(run)
    tokenizer = character_tokenizer()
    rows = {
        (tuple(p[m.bool()].tolist()), tokenizer.decode(c[k.bool()], skip_special_tokens=True))
        for batch in seen
        for p, m, c, k in zip(
            batch["prompt_ids"], batch["prompt_mask"], batch["completion_ids"], batch["completion_mask"], strict=True
        )
    }
    assert rows == {(tuple(encode_prompts(tokenizer, [render_prompt(tokenizer, e.messages)])[0]), t) for e, t in graded}


def test_the_sft_loss_is_the_cross_entropy_of_the_solution_and_its_eos_alone(make_run, student, monkeypatch):
    seen = batches(monkeypatch)
    run = make_run({"type": "sft"}, training={"max_steps": 1, "micro_batch_size": 2})
    train(run)
    tokenizer, model = character_tokenizer(), AutoModelForCausalLM.from_pretrained(student)
    solutions = {f"{e.solution}<eos>" for e in Copying().load().train}
    terms = []
    for batch in seen:
        for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
            assert tokenizer.decode(labels[labels >= 0]) in solutions
            logits = model(ids[None]).logits[0].double()
            wanted = [i for i in range(1, len(ids)) if labels[i] >= 0]
            terms += [-torch.log_softmax(logits[i - 1], -1)[labels[i]].item() for i in wanted]
    assert series(run, "train/loss")[1] == pytest.approx(sum(terms) / len(terms), rel=1e-4)
    assert run.clock.tokens_trained == len(terms)


def test_eos_stays_in_the_loss_when_it_also_pads(make_run, tmp_path, monkeypatch):
    tokenizer = character_tokenizer()
    tokenizer.pad_token = None
    path = save(tmp_path / "no-pad", tiny_llama(len(tokenizer)), tokenizer)
    seen = batches(monkeypatch)
    train(make_run({"type": "sft"}, student={"model": str(path)}, training={"max_steps": 1}))
    for ids, labels in zip(seen[0]["input_ids"], seen[0]["labels"], strict=True):
        assert (labels == 2).sum() == 1
        assert all(ids[i] == 2 for i in range(int((labels == 2).nonzero()[0]) + 1, len(ids)))


@pytest.mark.parametrize("method", METHODS)
def test_the_clocks_count_exactly_and_leave_out_evaluation(make_run, monkeypatch, method):
    seen = batches(monkeypatch)
    training = {"max_steps": 2, "micro_batch_size": 2, "save_every_steps": 1}
    run = make_run(METHODS[method], training=training, evaluation={"every_steps": 1})
    train(run)
    masks = [b["completion_mask"] if "completion_mask" in b else b["labels"] >= 0 for b in seen]
    trained = sum(int(mask.sum()) for mask in masks)
    assert run.clock.tokens_trained == trained
    assert (run.clock.tokens_generated, run.clock.rollouts) == ((0, 0) if method == "sft" else (trained, 8))
    logged = [line for line in lines(run) if "train/loss" in line.get("values", {})]
    phases = sum(v for line in logged for k, v in line["values"].items() if k in TRAINING_PHASES)
    assert 0 < phases <= run.clock.train_seconds + 1e-6
    assert run.clock.train_seconds < run.clock.wall_seconds
    first = next(line for line in lines(run) if "eval/pass_rate" in line.get("values", {}))
    assert first["step"] == 0 and first["clocks"]["train_seconds"] == 0
    expected = {"sft": set(), "gkd": {"generate", "teacher"}, "grpo": {"generate", "reward"}}[method]
    expected |= {"forward_backward", "optimizer", "evaluate", "checkpoint"}
    assert {name for name in names(run) if name.startswith("phase/")} == {f"phase/{n}_seconds" for n in expected}
    assert all(line["values"]["memory/peak_bytes"] > 2**20 for line in logged)


TRAINING_PHASES = {f"phase/{n}_seconds" for n in ("generate", "teacher", "reward", "forward_backward", "optimizer")}


@pytest.mark.parametrize("method", METHODS)
def test_evaluation_does_not_change_training(make_run, method):
    often = make_run(METHODS[method], "often", evaluation={"every_steps": 1, "temperature": 1.0, "num_samples": 2})
    never = make_run(METHODS[method], "never")
    train(often)
    train(never)
    assert sorted(series(often, "eval/pass_rate")) == [0, 1, 2, 3, 4]
    assert sorted(series(never, "eval/pass_rate")) == [0, 4]
    for name in ("train/loss", "train/grad_norm"):
        assert series(often, name) == series(never, name)


@pytest.mark.parametrize("method", ["gkd", "grpo"])
def test_gradient_checkpointing_leaves_the_cache_on_and_rollouts_see_no_dropout(make_run, monkeypatch, method):
    calls = []
    forward = LlamaForCausalLM.forward

    def spy(self, input_ids=None, *args, past_key_values=None, **kwargs):
        if past_key_values is not None:
            calls.append((input_ids.shape[1], self.training))
        return forward(self, input_ids, *args, past_key_values=past_key_values, **kwargs)

    monkeypatch.setattr(LlamaForCausalLM, "forward", spy)
    run = make_run(METHODS[method], training={"max_steps": 1, "gradient_checkpointing": True})
    train(run)
    decoded = [width for width, _ in calls if width == 1]
    prefills = [width for width, _ in calls if width > 1]
    assert len(decoded) == 5 * len(prefills)  # 6 tokens: one from the prefill, five from one token each
    assert not any(training for _, training in calls)
    assert series(run, "train/grad_norm")[1] >= 0


def test_gradient_checkpointing_changes_no_number(make_run):
    plain, checkpointed = (
        make_run({"type": "gkd"}, "plain"),
        make_run({"type": "gkd"}, "checkpointed", training={"gradient_checkpointing": True}),
    )
    train(plain)
    train(checkpointed)
    assert series(plain, "train/grad_norm") == pytest.approx(series(checkpointed, "train/grad_norm"), rel=1e-5)


def test_rollouts_are_sampled_at_their_own_temperature(make_run):
    cold = make_run({"type": "gkd"}, "cold", sampling={"temperature": 0.001, "max_completion_length": 4})
    train(cold)
    hot = make_run({"type": "gkd"}, "hot", sampling={"temperature": 1.0, "max_completion_length": 4})
    train(hot)
    assert series(cold, "train/loss")[1] != series(hot, "train/loss")[1]


def test_off_policy_steps_learn_from_solutions_and_say_so(make_run, monkeypatch):
    seen = batches(monkeypatch)
    run = make_run({"type": "gkd", "lmbda": 0.5}, training={"max_steps": 8})
    train(run)
    on_policy = series(run, "train/on_policy")
    assert sorted(on_policy) == list(range(1, 9)) and set(on_policy.values()) == {0.0, 1.0}
    tokenizer, solutions = character_tokenizer(), {f"{e.solution}<eos>" for e in Copying().load().train}
    for step, batch in enumerate(seen, start=1):
        texts = {tokenizer.decode(c[m.bool()]) for c, m in rollouts(batch)}
        assert (texts <= solutions) == (not on_policy[step])
        assert (step in series(run, "train/completions/mean_length")) == bool(on_policy[step])
        assert (step in series(run, "train/reverse_kl")) == bool(on_policy[step])
    assert run.clock.rollouts == 4 * sum(on_policy.values())


def test_without_solutions_only_methods_that_write_their_own_can_learn(make_run):
    train(make_run({"type": "gkd"}, "gkd", dataset={"solutions": False}, training={"max_steps": 1}))
    for name, method in {"sft": {"type": "sft"}, "mixed": {"type": "gkd", "lmbda": 0.5}}.items():
        with pytest.raises(RunFailed, match="example row-4 has no worked solution") as caught:
            train(make_run(method, name, dataset={"solutions": False}))
        assert caught.value.reason == "bad_data"


@pytest.mark.parametrize("method", METHODS)
def test_a_loss_that_is_not_a_number_stops_before_the_optimizer(make_run, monkeypatch, method):
    run = make_run(METHODS[method], training={"save_every_steps": 1})
    steps = []
    compute_loss = trainer.Measured.compute_loss

    def poison(self, model, *args, **kwargs):
        if self.state.global_step == 2:
            next(model.parameters()).data[:] = math.nan
        return compute_loss(self, model, *args, **kwargs)

    monkeypatch.setattr(trainer.Measured, "compute_loss", poison)
    monkeypatch.setattr(trainer.Recorder, "on_optimizer_step", lambda self, a, state, *b, **c: steps.append(1))
    monkeypatch.setattr(trainer.Recorder, "on_pre_optimizer_step", lambda *a, **b: None)
    with pytest.raises(RunFailed, match=r"the loss at step 3 is nan; lower training\.learning_rate") as caught:
        train(run)
    assert caught.value.reason == "non_finite_loss" and len(steps) == 2 and run.step == 2
    assert [path.name for path in run.checkpoints.glob("step-*")] and not (run.checkpoints / "final").exists()


def test_a_gradient_that_overflows_stops_before_the_optimizer(make_run, monkeypatch):
    def overflow(self, model, inputs, *args, **kwargs):
        # finite loss, infinite gradient: the derivative of a root at zero
        return next(model.parameters()).mul(0).sum().sqrt()

    monkeypatch.setattr(trainer.Measured, "compute_loss", overflow)
    with pytest.raises(RunFailed, match="the norm of the gradient at step 1 is nan") as caught:
        train(make_run({"type": "sft"}))
    assert caught.value.reason == "non_finite_loss"


@pytest.mark.parametrize("method", METHODS)
def test_the_trained_model_loads_back_with_its_tokenizer(make_run, student, method):
    run = make_run(METHODS[method] | ({"beta": 0.1} if method == "grpo" else {}))
    final = train(run)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(final), AutoTokenizer.from_pretrained(final)
    before = AutoModelForCausalLM.from_pretrained(student)
    assert not torch.equal(model.lm_head.weight, before.lm_head.weight)
    assert tokenizer.chat_template == character_tokenizer().chat_template
    last = [line for line in lines(run, "samples.jsonl") if (line["step"], line["split"]) == (4, "dev")]
    prompts = [render_prompt(tokenizer, example.messages) for example in Copying().load().dev]
    again = generation.generate(model.eval(), tokenizer, prompts, max_completion_length=6, batch_size=3)
    assert [c.text for c in again] == [line["completion"] for line in last]


@pytest.mark.parametrize("method", METHODS)
def test_with_lora_only_the_adapter_is_trained_and_exported(make_run, student, method):
    lora = {"r": 4, "alpha": 8, "target_modules": ["q_proj", "v_proj"]}
    run = make_run(METHODS[method] | ({"beta": 0.1} if method == "grpo" else {}), student={"lora": lora})
    final = train(run)
    assert not (final / "model.safetensors").exists()
    model = AutoPeftModelForCausalLM.from_pretrained(final)
    base = AutoModelForCausalLM.from_pretrained(student)
    assert torch.equal(model.get_base_model().lm_head.weight, base.lm_head.weight)
    assert any(p.abs().max() > 0 for n, p in model.named_parameters() if "lora_B" in n)


def test_the_teacher_is_measured_once_and_never_changed(make_run, teacher):
    run = make_run({"type": "gkd"}, evaluation={"every_steps": 2})
    train(run)
    assert sorted(series(run, "eval/teacher_pass_rate")) == sorted(series(run, "eval/teacher_pass_rate_high")) == [0]
    assert run.summary["teacher"]["step"] == 0
    off = make_run({"type": "gkd"}, "off", evaluation={"teacher": False})
    train(off)
    assert series(off, "eval/teacher_pass_rate") == {} and "teacher" not in off.summary


def test_a_teacher_of_another_tokenizer_or_width_is_refused_before_training(make_run, tmp_path):
    other = character_tokenizer("!" + "".join(chr(0x3B1 + i) for i in range(42)))
    path = save(tmp_path / "other", tiny_llama(len(other)), other)
    with pytest.raises(RunFailed, match="tokenizers of student and teacher differ: the first differing id is 4"):
        train(make_run({"type": "gkd"}, "tokens", teacher={"model": str(path)}))
    wide = save(tmp_path / "wide", tiny_llama(64), character_tokenizer())
    with pytest.raises(RunFailed, match="the student has 47 logits and the teacher 64"):
        train(make_run({"type": "gkd"}, "widths", teacher={"model": str(wide)}))


def test_epochs_are_whole_steps_over_the_split(make_run):
    for method, steps in [("sft", 4), ("gkd", 4), ("grpo", 9)]:  # 9 rows: 2 steps of 4, or 4 of 2 prompts
        run = make_run(
            METHODS[method],
            method,
            dataset={"rows": 9},
            training={"max_steps": None, "epochs": 2.1 if steps == 9 else 2},
        )
        train(run)
        assert sorted(series(run, "train/loss")) == list(range(1, steps + 1)) and run.planned_step == steps


def test_a_split_smaller_than_a_step_is_refused(make_run):
    with pytest.raises(RunFailed, match="training split has 3 examples and one step needs 4") as caught:
        train(make_run({"type": "sft"}, dataset={"rows": 3}))
    assert caught.value.reason == "bad_data"


def test_a_constant_learning_rate_warms_up_too(make_run):
    run = make_run({"type": "sft"}, training={"warmup_steps": 2, "learning_rate": 0.01})
    train(run)
    assert series(run, "train/learning_rate") == pytest.approx({1: 0.0, 2: 0.005, 3: 0.01, 4: 0.01})


def test_equal_seeds_are_equal_runs_and_others_are_not(make_run):
    runs = [make_run({"type": "gkd"}, f"run-{i}", seed=seed) for i, seed in enumerate((1, 1, 2))]
    for run in runs:
        train(run)
    first, same, other = (series(run, "train/loss") for run in runs)
    assert first == same != other


def test_methods_see_the_same_prompts_in_the_same_order(make_run, monkeypatch):
    def prompts(method):
        with monkeypatch.context() as patch:
            seen = batches(patch)
            train(make_run(METHODS[method], method))
        tokenizer = character_tokenizer()
        rows = [
            row[mask.bool()] if "prompt_ids" in batch else row[: int((mask < 0).sum())]
            for batch in seen
            for row, mask in zip(
                batch.get("prompt_ids", batch.get("input_ids")),
                batch.get("prompt_mask", batch.get("labels")),
                strict=True,
            )
        ]
        texts = [tokenizer.decode(row).split("?")[0] for row in rows]
        return [sorted(texts[i : i + 4]) for i in range(0, len(texts), 4)]

    assert prompts("sft") == prompts("gkd")


def test_the_coin_of_lmbda_is_fair(make_run):
    coin = gkd.GkdTrainer.on_policy

    stub = SimpleNamespace(args=SimpleNamespace(seed=3), method=SimpleNamespace(lmbda=0.3))
    thrown = [coin(stub, step) for step in range(3000)]
    assert abs(sum(thrown) / 3000 - 0.3) < 0.03 and thrown == [coin(stub, step) for step in range(3000)]


def test_planned_steps_need_a_whole_batch():
    assert loop.planned_steps(TrainingSpec(epochs=1.5), 100, 32) == 5
    assert loop.planned_steps(TrainingSpec(epochs=0.01), 100, 32) == 1
    assert loop.planned_steps(TrainingSpec(max_steps=7), 100, 32) == 7
