"""What the three methods compute, against slow and obvious references, and what they log."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaModel

from atlas.errors import RunFailed
from atlas.spec import TrainingSpec
from atlas.training import engine, generation, gkd, grpo, loop, trainer
from atlas.training.prompts import encode_prompts, render_prompt

from .tiny import Copying, character_tokenizer, lines, names, save, series, tiny_llama, train, watch_steps

GRPO = {"type": "grpo", "num_generations": 2}
METHODS = {"sft": {"type": "sft"}, "gkd": {"type": "gkd"}, "grpo": GRPO}


def batches(monkeypatch):
    """Everything that reaches the loss of sft, in order."""
    seen = []
    compute_loss = trainer.Measured.compute_loss

    def spy(self, model, inputs, *args, **kwargs):
        seen.append({name: value.clone() for name, value in inputs.items() if isinstance(value, torch.Tensor)})
        return compute_loss(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(trainer.Measured, "compute_loss", spy)
    return seen


def weights_before_each_step(monkeypatch):
    states = []
    monkeypatch.setattr(
        trainer.Recorder,
        "on_pre_optimizer_step",
        lambda self, *a, model, **k: states.append({n: p.detach().clone() for n, p in model.state_dict().items()}),
    )
    monkeypatch.setattr(trainer.Recorder, "on_optimizer_step", lambda self, *a, **k: None)
    return states


def scored(rows, model):
    """Logits [tokens, vocabulary] of a model at every completion token of some rows, each by itself, in float64."""
    found = []
    for prompt, completion in rows:
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *completion]])).logits[0]
        found.append(logits[len(prompt) - 1 : -1].double())
    return torch.cat(found)


def load(path):
    return AutoModelForCausalLM.from_pretrained(path)


def kl(p, q):
    return (p * (p.log() - q.log())).sum(-1)


def jsd(p_s, p_t, beta):
    """arXiv:2306.13649, eq. 1."""
    mixture = beta * p_t + (1 - beta) * p_s
    limits = {0.0: kl(p_t, p_s), 1.0: kl(p_s, p_t)}
    return limits.get(beta, beta * kl(p_t, mixture) + (1 - beta) * kl(p_s, mixture))


@pytest.mark.parametrize("temperature", [1.0, 0.6, 2.5])
@pytest.mark.parametrize("beta", [0.0, 0.3, 0.5, 1.0])
def test_the_gkd_loss_is_the_divergence_of_the_paper(make_run, student, teacher, monkeypatch, beta, temperature):
    seen = watch_steps(monkeypatch)
    method = {"type": "gkd", "beta": beta, "temperature": temperature}
    run = make_run(method, training={"max_steps": 1, "micro_batch_size": 2})
    train(run)
    (step,) = seen
    assert [len(batch) for batch in step.micro_batches] == [2, 2]
    assert sorted(step.learnt) == sorted(rollout.row for rollout in step.rollouts)
    logits_s, logits_t = (scored(step.learnt, load(path)) for path in (student, teacher))
    p_s, p_t = ((logits / temperature).softmax(-1) for logits in (logits_s, logits_t))
    expected = jsd(p_s, p_t, beta).mean().item()
    assert series(run, "train/loss")[1] == pytest.approx(expected, rel=1e-4, abs=2e-7)
    plain_s, plain_t = logits_s.softmax(-1), logits_t.softmax(-1)
    assert series(run, "train/reverse_kl")[1] == pytest.approx(kl(plain_s, plain_t).mean().item(), rel=1e-4)
    entropy = -(plain_s * plain_s.log()).sum(-1)
    assert series(run, "train/entropy")[1] == pytest.approx(entropy.mean().item(), rel=1e-4)


@pytest.mark.parametrize("of", ["student", "teacher"])
def test_the_top_k_loss_merges_all_other_tokens(make_run, student, teacher, monkeypatch, of):
    seen = watch_steps(monkeypatch)
    run = make_run({"type": "gkd", "beta": 0.3, "top_k": {"k": 3, "of": of}}, training={"max_steps": 1})
    train(run)
    p_s, p_t = (scored(seen[0].learnt, load(path)).softmax(-1) for path in (student, teacher))
    chosen = (p_s if of == "student" else p_t).topk(3).indices
    kept = [p.gather(1, chosen) for p in (p_s, p_t)]
    merged = [torch.cat([p, 1 - p.sum(1, keepdim=True)], dim=1) for p in kept]
    assert series(run, "train/loss")[1] == pytest.approx(jsd(*merged, 0.3).mean().item(), rel=1e-4)


def test_the_policy_gradient_is_the_teachers_word_on_the_tokens_that_were_written(
    make_run, student, teacher, monkeypatch
):
    seen, gradients = watch_steps(monkeypatch), []
    monkeypatch.setattr(
        trainer.Recorder,
        "on_pre_optimizer_step",
        lambda self, *a, model, **k: gradients.append(model.lm_head.weight.grad.clone()),
    )
    monkeypatch.setattr(trainer.Recorder, "on_optimizer_step", lambda *a, **k: None)
    run = make_run({"type": "gkd", "loss": "policy_gradient"}, training={"max_steps": 1, "max_grad_norm": 1e9})
    train(run)
    rows, model = seen[0].learnt, load(student)
    terms = []
    for prompt, completion in rows:
        ids = torch.tensor([[*prompt, *completion]])
        chosen = torch.tensor(completion)[:, None]
        now, wanted = (
            each(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1).gather(1, chosen)[:, 0]
            for each in (model, load(teacher))
        )
        terms.append((wanted - now).detach() * now)
    (-torch.cat(terms).mean()).backward()
    torch.testing.assert_close(gradients[0], model.lm_head.weight.grad, rtol=1e-4, atol=1e-7)
    chosen = torch.tensor([token for _, completion in rows for token in completion])[:, None]
    of_s, of_t = (scored(rows, load(path)).log_softmax(-1).gather(1, chosen) for path in (student, teacher))
    assert series(run, "train/reverse_kl")[1] == pytest.approx((of_s - of_t).mean().item(), rel=1e-4)


def test_the_grpo_loss_is_the_token_mean_of_advantages_and_kl(make_run, student, teacher, monkeypatch):
    seen, states = watch_steps(monkeypatch), weights_before_each_step(monkeypatch)
    # another model than the student's own initial weights would give another KL; after a step they differ
    training = {"max_steps": 2, "learning_rate": 0.05, "micro_batch_size": 2}
    sampling = {"max_completion_length": 24}  # long enough that some end, or the token mean would be the row mean
    run = make_run(GRPO | {"beta": 0.5}, dataset={"rows": 2}, training=training, sampling=sampling)
    rewards = iter([1.0, 0.0, 0.0, 0.0] * 2)
    object.__setattr__(run.job.dataset, "score", lambda example, completion: next(rewards))
    train(run)
    for number, (step, state) in enumerate(zip(seen, states, strict=True), start=1):
        assert step.advantages == [0.5, -0.5, 0.0, 0.0]  # reward - mean of its group of two
        rows = [rollout.row for rollout in step.rollouts]
        assert sorted(step.learnt) == sorted(rows) and [len(batch) for batch in step.micro_batches] == [2, 2]
        policy = load(student)
        policy.load_state_dict(state)
        chosen = torch.tensor([token for _, completion in rows for token in completion])[:, None]
        now, initial = (
            scored(rows, model).log_softmax(-1).gather(1, chosen)[:, 0] for model in (policy, load(student))
        )
        lengths = torch.tensor([len(completion) for _, completion in rows])
        assert lengths[0] != lengths[1]
        advantages = torch.tensor(step.advantages).double().repeat_interleave(lengths)
        kl = torch.exp(initial - now) - (initial - now) - 1
        assert series(run, "train/kl")[number] == pytest.approx(kl.mean().item(), rel=1e-3, abs=1e-6)
        expected = (-advantages + 0.5 * kl).mean().item()
        assert abs(expected) > 1e-3 and series(run, "train/loss")[number] == pytest.approx(expected, rel=1e-3)
    assert series(run, "train/kl")[2] > 1e-3
    assert series(run, "train/reward") == {1: 0.25, 2: 0.25}
    assert series(run, "train/frac_reward_zero_std") == {1: 0.5, 2: 0.5}


def test_scaled_rewards_are_divided_by_the_spread_of_their_group(make_run, monkeypatch):
    seen = watch_steps(monkeypatch)
    run = make_run(GRPO | {"scale_rewards": True}, training={"max_steps": 1})
    rewards = iter([1.0, 0.0, 0.0, 0.0])
    object.__setattr__(run.job.dataset, "score", lambda example, completion: next(rewards))
    train(run)
    assert seen[0].advantages == pytest.approx([math.sqrt(0.5), -math.sqrt(0.5), 0, 0], abs=1e-3)


def grpo_gradient(run, rewards, monkeypatch):
    """(the step, the gradient of the head) of one step of grpo with these rewards."""
    gradients = []
    with monkeypatch.context() as patch:
        seen, left = watch_steps(patch), iter(rewards)
        object.__setattr__(run.job.dataset, "score", lambda example, completion: next(left))
        patch.setattr(
            trainer.Recorder,
            "on_pre_optimizer_step",
            lambda self, *a, model, **k: gradients.append(model.lm_head.weight.grad.clone()),
        )
        patch.setattr(trainer.Recorder, "on_optimizer_step", lambda *a, **k: None)
        train(run)
    return seen[0], gradients[0]


@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_gkd_reward_adds_the_teachers_word_to_the_groups_advantage(make_run, student, teacher, monkeypatch, weight):
    rewards, method = [1.0, 0.0, 1.0, 1.0], {"type": "gkd_reward", "num_generations": 2, "distillation_weight": weight}
    settings = {"training": {"max_steps": 1, "max_grad_norm": 1e9}, "sampling": {"temperature": 0.7}}
    run = make_run(method, **settings)
    step, gradient = grpo_gradient(run, rewards, monkeypatch)
    assert step.advantages == [0.5, -0.5, 0.0, 0.0]
    # the group without a signal learns from the teacher all the same
    assert sorted(step.learnt) == sorted(rollout.row for rollout in step.rollouts)
    model, other, terms, away = load(student), load(teacher), [], []
    for advantage, rollout in zip(step.advantages, step.rollouts, strict=True):
        prompt, completion = rollout.row
        ids, chosen = torch.tensor([[*prompt, *completion]]), torch.tensor(completion)[:, None]
        now, wanted = (
            (each(ids).logits[0, len(prompt) - 1 : -1] / 0.7).log_softmax(-1).gather(1, chosen)[:, 0]
            for each in (model, other)
        )
        terms.append((advantage + weight * (wanted - now).detach()) * now)
        away.append((now - wanted).detach())
    (-torch.cat(terms).mean()).backward()
    torch.testing.assert_close(gradient, model.lm_head.weight.grad, rtol=1e-4, atol=1e-7)
    assert series(run, "train/reverse_kl")[1] == pytest.approx(torch.cat(away).mean().item(), rel=1e-3, abs=1e-6)


def test_groups_without_signal_cost_no_forward_and_change_nothing(make_run, monkeypatch):
    rewards, training = [1.0, 1.0, 1.0, 0.0], {"max_steps": 1, "max_grad_norm": 1e9}
    step, gradient = grpo_gradient(make_run(GRPO, "skipped", training=training), rewards, monkeypatch)
    assert sorted(step.learnt) == sorted(rollout.row for rollout in step.rollouts[2:])
    with monkeypatch.context() as patch:
        patch.setattr(grpo.GrpoTrainer, "learnt_from", lambda self, rollouts: list(range(len(rollouts))))
        all_of, expected = grpo_gradient(make_run(GRPO, "all", training=training), rewards, monkeypatch)
    assert len(all_of.learnt) == 4 and expected.abs().max() > 0
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-9)
    dropped_step, dropped = grpo_gradient(
        make_run(GRPO | {"zero_variance_groups": "drop"}, "dropped", training=training), rewards, monkeypatch
    )
    lengths = [len(rollout.completion_ids) for rollout in step.rollouts]
    assert [r.row for r in dropped_step.rollouts] == [r.row for r in step.rollouts]
    torch.testing.assert_close(dropped, expected * sum(lengths) / sum(lengths[2:]), rtol=1e-5, atol=1e-9)


def test_a_step_without_any_signal_is_no_failure(make_run):
    run = make_run(GRPO, training={"max_steps": 2})
    object.__setattr__(run.job.dataset, "score", lambda example, completion: 1.0)
    train(run)
    assert series(run, "train/loss") == series(run, "train/grad_norm") == {1: 0.0, 2: 0.0}
    assert series(run, "train/frac_reward_zero_std") == {1: 1.0, 2: 1.0}
    assert run.clock.tokens_trained == 0 and run.clock.rollouts == 8


def test_truncated_completions_are_left_out_by_choice_and_counted_in_their_group(make_run, monkeypatch):
    rewards, training = [1.0, 0.0, 0.0, 1.0], {"max_steps": 1}
    # long enough that about half of the rollouts end
    sampling, method = {"max_completion_length": 24}, GRPO | {"mask_truncated_completions": True}
    settings = {"training": training, "sampling": sampling, "seed": 3}
    step, _ = grpo_gradient(make_run(method, "masked", **settings), rewards, monkeypatch)
    clipped = [rollout.clipped for rollout in step.rollouts]
    assert set(clipped) == {True, False}
    assert sorted(step.learnt) == sorted(r.row for r in step.rollouts if not r.clipped)
    assert step.advantages == [0.5, -0.5, -0.5, 0.5]
    every, _ = grpo_gradient(make_run(GRPO, "every", **settings), rewards, monkeypatch)
    assert len(every.learnt) == 4 and every.rollouts == step.rollouts


def test_the_reward_is_the_datasets_score_of_the_evaluated_text(make_run, monkeypatch):
    graded = []
    run = make_run(GRPO, training={"max_steps": 1}, evaluation={"max_problems": 1})
    object.__setattr__(run.job.dataset, "score", lambda example, text: graded.append((example, text)) or 0.0)
    seen = watch_steps(monkeypatch)
    train(run)
    tokenizer = character_tokenizer()
    rows = [
        (rollout.prompt_ids, tokenizer.decode(rollout.completion_ids, skip_special_tokens=True))
        for rollout in seen[0].rollouts
    ]
    assert len(rows) == 4
    assert rows == [(encode_prompts(tokenizer, [render_prompt(tokenizer, e.messages)])[0], t) for e, t in graded]


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
    seen, steps = batches(monkeypatch), watch_steps(monkeypatch)
    training = {"max_steps": 2, "micro_batch_size": 2, "save_every_steps": 1}
    run = make_run(METHODS[method], training=training, evaluation={"every_steps": 1})
    train(run)
    of_sft = sum(int((batch["labels"] >= 0).sum()) for batch in seen)
    assert run.clock.tokens_trained == of_sft + sum(step.tokens_learnt for step in steps) > 0
    written = [rollout for step in steps for rollout in step.rollouts]
    assert run.clock.tokens_generated == sum(len(rollout.completion_ids) for rollout in written)
    assert run.clock.rollouts == len(written) == (0 if method == "sft" else 8)
    if method == "gkd":
        assert run.clock.tokens_trained == run.clock.tokens_generated
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
    assert logged[0]["values"]["resources/process_memory_bytes"] > 2**20


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
    seen, written, read = watch_steps(monkeypatch), [], []
    forward = LlamaModel.forward

    def spy(self, input_ids=None, *args, past_key_values=None, **kwargs):
        output = forward(self, input_ids, *args, past_key_values=past_key_values, **kwargs)
        if past_key_values is not None:
            written.append((input_ids.shape, past_key_values.get_seq_length(), self.training))
        else:
            read.append(self.training)
        return output

    monkeypatch.setattr(LlamaModel, "forward", spy)
    training = {"max_steps": 1, "gradient_checkpointing": True}
    run = make_run(METHODS[method], training=training, evaluation={"split": "test", "max_problems": 1})
    train(run)
    assert not any(training for *_, training in written) and True in read  # the student's own forward has dropout
    # One row of all prompts, then single tokens, each behind a cache that has grown by one. (Evaluations come too.)
    prompts = {tuple(rollout.prompt_ids) for rollout in seen[0].rollouts}
    start = [shape for shape, *_ in written].index((1, sum(map(len, prompts))))
    rollout = written[start + 1 : start + 6]
    assert all(shape[1] == 1 for shape, *_ in rollout)
    lengths = [length for _, length, _ in rollout]
    assert lengths == list(range(lengths[0], lengths[0] + 5))
    assert series(run, "train/grad_norm")[1] >= 0


@pytest.mark.parametrize("lora", [None, {"r": 4, "alpha": 8}])
@pytest.mark.parametrize("method", ["gkd", "grpo"])
def test_gradient_checkpointing_changes_no_number(make_run, method, lora):
    student = {"lora": lora} if lora else {}
    settings = METHODS[method] | ({"beta": 0.1} if method == "grpo" else {})
    plain = make_run(settings, "plain", student=student)
    checkpointed = make_run(settings, "checkpointed", student=student, training={"gradient_checkpointing": True})
    train(plain)
    train(checkpointed)
    for name in ("train/loss", "train/grad_norm"):
        assert series(plain, name) == pytest.approx(series(checkpointed, name), rel=1e-5) and series(plain, name)
    assert any(series(plain, "train/grad_norm").values())


@pytest.mark.parametrize("method", ["gkd", "grpo"])
def test_micro_batches_change_no_number(make_run, method):
    settings = METHODS[method] | ({"beta": 0.1} if method == "grpo" else {})
    # of which a step later the rollouts differ, by rounding: so one step
    runs = [make_run(settings, f"by-{n}", training={"max_steps": 1, "micro_batch_size": n}) for n in (1, 2, 4)]
    for run in runs:
        train(run)
    for name in ("train/loss", "train/grad_norm", "train/entropy"):
        values = [series(run, name)[1] for run in runs]
        assert values == pytest.approx([values[0]] * 3, rel=1e-4, abs=1e-7)


def test_rollouts_are_sampled_at_their_own_temperature(make_run):
    cold = make_run({"type": "gkd"}, "cold", sampling={"temperature": 0.001, "max_completion_length": 4})
    train(cold)
    hot = make_run({"type": "gkd"}, "hot", sampling={"temperature": 1.0, "max_completion_length": 4})
    train(hot)
    assert series(cold, "train/loss")[1] != series(hot, "train/loss")[1]


def test_off_policy_steps_learn_from_solutions_and_say_so(make_run, monkeypatch):
    seen = watch_steps(monkeypatch)
    run = make_run({"type": "gkd", "lmbda": 0.5}, training={"max_steps": 8})
    train(run)
    on_policy = series(run, "train/on_policy")
    assert sorted(on_policy) == list(range(1, 9)) and set(on_policy.values()) == {0.0, 1.0}
    tokenizer = character_tokenizer()
    solutions = {
        f"{tokenizer.decode(encode_prompts(tokenizer, [render_prompt(tokenizer, e.messages)])[0])}{e.solution}<eos>"
        for e in Copying().load().train
    }
    for number, step in enumerate(seen, start=1):
        texts = {tokenizer.decode([*prompt, *completion]) for prompt, completion in step.learnt}
        assert len(step.learnt) == 4 and (texts <= solutions) == (not on_policy[number])
        assert (number in series(run, "train/completions/mean_length")) == bool(on_policy[number])
        assert (number in series(run, "train/reverse_kl")) == bool(on_policy[number])
    assert run.clock.rollouts == 4 * sum(on_policy.values())


def test_seq_kd_learns_from_what_the_teacher_writes(make_run, teacher, monkeypatch):
    seen = watch_steps(monkeypatch)
    sampling = {"temperature": 1e-4}
    run = make_run(
        {"type": "gkd", "lmbda": 0.0, "seq_kd": True},
        dataset={"solutions": False},
        training={"max_steps": 1},
        sampling=sampling,
    )
    train(run)
    model, tokenizer = load(teacher), character_tokenizer()
    prompts = [tokenizer.decode(rollout.prompt_ids) for rollout in seen[0].rollouts]
    expected = generation.generate(model, tokenizer, prompts, max_completion_length=6, batch_size=4)
    got = [tokenizer.decode(rollout.completion_ids, skip_special_tokens=True) for rollout in seen[0].rollouts]
    assert got == [completion.text for completion in expected]
    assert run.clock.rollouts == 0 and series(run, "train/completions/mean_length") == {}


def test_without_solutions_only_methods_that_write_their_own_can_learn(make_run):
    train(make_run({"type": "gkd"}, "gkd", dataset={"solutions": False}, training={"max_steps": 1}))
    for name, method in {"sft": {"type": "sft"}, "mixed": {"type": "gkd", "lmbda": 0.5}}.items():
        with pytest.raises(RunFailed, match="example row-4 has no worked solution") as caught:
            train(make_run(method, name, dataset={"solutions": False}))
        assert caught.value.reason == "bad_data"


@pytest.mark.parametrize("method", METHODS)
def test_a_loss_that_is_not_a_number_stops_before_the_optimizer(make_run, monkeypatch, method):
    run = make_run(METHODS[method] | ({"beta": 0.1} if method == "grpo" else {}), training={"save_every_steps": 1})
    steps, seen = [], watch_steps(monkeypatch)
    owner, name = (trainer.Measured, "compute_loss") if method == "sft" else (engine.OnPolicyTrainer, "_backward")
    real = getattr(owner, name)

    def poison(self, *args, **kwargs):
        if self.state.global_step == 2:
            next(self.model.parameters()).data[:] = math.nan
        return real(self, *args, **kwargs)

    monkeypatch.setattr(owner, name, poison)
    monkeypatch.setattr(trainer.Recorder, "on_optimizer_step", lambda self, a, state, *b, **c: steps.append(1))
    monkeypatch.setattr(trainer.Recorder, "on_pre_optimizer_step", lambda *a, **b: None)
    with pytest.raises(RunFailed, match=r"the loss at step 3 is nan; lower training\.learning_rate") as caught:
        train(run)
    assert caught.value.reason == "non_finite_loss" and len(steps) == 2 and run.step == 2
    assert [path.name for path in run.checkpoints.glob("step-*")] and not (run.checkpoints / "final").exists()
    if method != "sft":
        assert_kept(run, seen[2])


def assert_kept(run, step):
    """The failed batch is there to be read: all its rollouts, with their text, for the owner alone."""
    kept = lines(run, "failed_batch.jsonl")
    assert [(row["prompt_ids"], row["completion_ids"]) for row in kept] == [rollout.row for rollout in step.rollouts]
    assert [row["completion"] for row in kept] == [character_tokenizer().decode(row["completion_ids"]) for row in kept]
    assert [(row["clipped"], row["logprobs"]) for row in kept] == [(r.clipped, r.logprobs) for r in step.rollouts]
    assert (run.directory / "failed_batch.jsonl").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("method", METHODS)
def test_a_gradient_that_overflows_stops_before_the_optimizer(make_run, monkeypatch, method):
    run, steps, seen = make_run(METHODS[method]), [], watch_steps(monkeypatch)

    def overflow(weight):
        return weight.mul(0).sum().sqrt()  # finite loss, infinite gradient: the derivative of a root at zero

    if method == "sft":
        monkeypatch.setattr(
            trainer.Measured, "compute_loss", lambda self, model, *a, **k: overflow(next(model.parameters()))
        )
    else:
        monkeypatch.setattr(engine, "linear_loss", lambda hidden_ND, head, loss: (overflow(head.weight_VD), {}))
        rewards = itertools.cycle([0.0, 1.0])
        object.__setattr__(run.job.dataset, "score", lambda example, completion: next(rewards))
    monkeypatch.setattr(trainer.Recorder, "on_optimizer_step", lambda *a, **b: steps.append(1))
    with pytest.raises(RunFailed, match="the norm of the gradient at step 1 is nan") as caught:
        train(run)
    assert caught.value.reason == "non_finite_loss" and not steps
    if method != "sft":
        assert_kept(run, seen[0])


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


def widened(path, directory, columns=17):
    """The model at `path` with a head that is wider than the vocabulary, and with much to say in the extra columns."""
    narrow = load(path)
    wide = tiny_llama(len(character_tokenizer()) + columns, **{n: getattr(narrow.config, n) for n in WIDTHS})
    state = narrow.state_dict()
    embeddings = torch.cat([state["model.embed_tokens.weight"], 5 * torch.randn(columns, narrow.config.hidden_size)])
    wide.load_state_dict(state | {"model.embed_tokens.weight": embeddings, "lm_head.weight": embeddings})
    return save(directory, wide, character_tokenizer())


WIDTHS = ("hidden_size", "intermediate_size")


@pytest.mark.parametrize("wider", ["teacher", "student", "both"])
@pytest.mark.parametrize(
    "method",
    [
        {"beta": 0.0},
        {"beta": 0.4, "temperature": 2.0},
        {"top_k": {"k": 4, "of": "teacher"}},
        {"loss": "policy_gradient"},
    ],
)
def test_columns_beyond_the_vocabulary_change_nothing(make_run, student, teacher, tmp_path, monkeypatch, method, wider):
    seen = watch_steps(monkeypatch)
    paths = {"student": student, "teacher": teacher}
    narrow = make_run({"type": "gkd"} | method, "narrow")
    for side in paths if wider == "both" else [wider]:
        paths[side] = widened(paths[side], tmp_path / side)
    models = {side: {"model": str(path)} for side, path in paths.items()}
    wide = make_run({"type": "gkd"} | method, "wide", **models)
    train(narrow)
    train(wide)
    for name in ("train/loss", "train/grad_norm", "train/reverse_kl", "train/entropy"):
        assert series(wide, name) == pytest.approx(series(narrow, name), rel=1e-4) and len(series(wide, name)) == 4
    assert [step.rollouts[0].completion_ids for step in seen[:4]] == [s.rollouts[0].completion_ids for s in seen[4:]]
    vocabulary = len(character_tokenizer())
    assert all(token < vocabulary for step in seen for r in step.rollouts for token in r.completion_ids)
    if wider == "teacher":
        return
    trained, before = load(wide.checkpoints / "final").lm_head.weight, load(paths["student"]).lm_head.weight
    assert torch.equal(trained[vocabulary:], before[vocabulary:]), "no loss has a gradient there"
    assert not torch.equal(trained[:vocabulary], before[:vocabulary])


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
    tokenizer = character_tokenizer()

    def prompts(method):
        # as many prompts a step; 9 rows, so that an epoch leaves one out and the third step begins another
        training = {"batch_size": 8 if method == "grpo" else 4, "max_steps": 5}
        with monkeypatch.context() as patch:
            seen, steps = batches(patch), watch_steps(patch)
            train(make_run(METHODS[method], method, dataset={"rows": 9}, training=training))
        rows = [
            row[: int((labels < 0).sum())]
            for batch in seen
            for row, labels in zip(batch["input_ids"], batch["labels"], strict=True)
        ]
        of_a_group = 2 if method == "grpo" else 1
        rows += [rollout.prompt_ids for step in steps for rollout in step.rollouts[::of_a_group]]
        texts = [tokenizer.decode(row).split("?")[0] for row in rows]
        return [texts[i : i + 4] for i in range(0, len(texts), 4)]

    of_sft = prompts("sft")
    assert len(of_sft) == 5 and all(len(set(step)) == 4 for step in of_sft)
    assert of_sft[:2] != of_sft[2:4], "every epoch has an order of its own"
    assert prompts("gkd") == prompts("grpo") == of_sft


def test_the_coin_of_lmbda_is_fair(make_run):
    coin = gkd.GkdTrainer.on_policy

    stub = SimpleNamespace(args=SimpleNamespace(seed=3), method=SimpleNamespace(lmbda=0.3))
    thrown = [coin(stub, step) for step in range(3000)]
    assert abs(sum(thrown) / 3000 - 0.3) < 0.03 and thrown == [coin(stub, step) for step in range(3000)]


def test_planned_steps_need_a_whole_batch():
    assert loop.planned_steps(TrainingSpec(epochs=1.5), 100, 32) == 5
    assert loop.planned_steps(TrainingSpec(epochs=0.01), 100, 32) == 1
    assert loop.planned_steps(TrainingSpec(max_steps=7), 100, 32) == 7
