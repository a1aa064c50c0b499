"""TRL's trainers as the oracle: on the same rollouts, the same loss and the same gradient."""

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM
from trl.trainer.distillation_config import DistillationConfig
from trl.trainer.distillation_trainer import DistillationTrainer
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from atlas.training.gkd import GkdTrainer
from atlas.training.grpo import GrpoTrainer
from atlas.training.loop import prepare
from atlas.training.rollouts import Rollout
from atlas.training.teacher import load_teacher

from .tiny import character_tokenizer

PROMPTS = ["copy abc?", "copy z?", "12+3="]
COMPLETIONS = [["abc.", "a"], ["", "zzzzzzzzzz"], ["15", "0123."]]
REWARDS = [1.0, 0.25, 0.5, 0.5, 0.0, 1.0]
WITHIN = 1e-5


@pytest.fixture
def strong(tmp_path):
    """`strong(path)`: the model there with logits that are far from uniform, so that differences show."""

    def build(path):
        model = AutoModelForCausalLM.from_pretrained(path)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "norm" not in name:
                    parameter *= 6
        target = tmp_path / f"strong-{path.name}"
        model.save_pretrained(target)
        character_tokenizer().save_pretrained(target)
        return target

    return build


def fixed_rollouts(per_prompt):
    """Prompts and completions of different lengths. Those that end with a point end with EOS, the others are cut."""
    tokenizer = character_tokenizer()
    rollouts = []
    for prompt, completions in zip(PROMPTS, COMPLETIONS, strict=True):
        for completion in completions[:per_prompt]:
            ids = tokenizer(completion + ("<eos>" if not completion or "." in completion else ""))["input_ids"]
            rollouts.append(Rollout(tokenizer(prompt)["input_ids"], ids, [0.0] * len(ids), ids[-1] != 2))
    return rollouts


def padded(rows, side):
    width = max(map(len, rows))
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[i, place], mask[i, place] = torch.tensor(row), 1
    return ids, mask


def inputs_of(rollouts):
    """A batch as TRL's trainers have it: prompts padded on the left, completions on the right."""
    prompt_ids, prompt_mask = padded([rollout.prompt_ids for rollout in rollouts], "left")
    completion_ids, completion_mask = padded([rollout.completion_ids for rollout in rollouts], "right")
    return {
        "prompt_ids": prompt_ids,
        "prompt_mask": prompt_mask,
        "completion_ids": completion_ids,
        "completion_mask": completion_mask,
        "num_items_in_batch": completion_mask.sum(),
    }


def gradients(model):
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def ours(trainer, rollouts):
    """(loss, gradients) of the rollouts, in micro-batches of two."""
    trainer.max_tokens, trainer.max_rows = 10_000, 2
    trainer.score([trainer.examples[0]] * len(rollouts), rollouts)
    trainer.model.train()
    loss, _ = trainer._backward(rollouts)
    return float(loss), gradients(trainer.student)


def assert_agree(got, wanted):
    (loss, grads), (wanted_loss, wanted_grads) = got, wanted
    assert loss == pytest.approx(wanted_loss, rel=WITHIN, abs=WITHIN)
    assert grads.keys() == wanted_grads.keys() and len(grads) > 10
    size = torch.cat([grad.flatten() for grad in wanted_grads.values()]).norm()
    assert size > 0.001
    for name, grad in grads.items():
        assert (grad - wanted_grads[name]).norm() <= WITHIN * size, name


def settings(tmp_path, **options):
    return {
        "output_dir": str(tmp_path / "trl"),
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_dropout": False,
        **options,
    }


@pytest.mark.parametrize("temperature", [1.0, 0.7, 3.0])
@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 1.0])
def test_gkd_agrees_with_the_distillation_trainer(make_run, strong, student, teacher, tmp_path, beta, temperature):
    paths = {"student": strong(student), "teacher": strong(teacher)}
    rollouts = fixed_rollouts(per_prompt=2)
    models = {side: {"model": str(path)} for side, path in paths.items()}
    run = make_run({"type": "gkd", "beta": beta, "temperature": temperature}, **models)
    prepared = prepare(run)
    got = ours(GkdTrainer(run, prepared, run.job.method, load_teacher(run, prepared)), rollouts)

    oracle = DistillationTrainer(
        model=AutoModelForCausalLM.from_pretrained(paths["student"]),
        teacher_model=AutoModelForCausalLM.from_pretrained(paths["teacher"]),
        args=DistillationConfig(**settings(tmp_path, beta=beta, temperature=temperature)),
        train_dataset=Dataset.from_dict({"prompt": PROMPTS}),
        processing_class=character_tokenizer(),
    )
    oracle.model.train()
    loss = oracle.compute_loss(oracle.model, inputs_of(rollouts))
    loss.backward()
    assert_agree(got, (float(loss), gradients(oracle.model)))


GRPO_CASES = {
    "plain": {},
    "scaled": {"scale_rewards": True},
    "with KL": {"beta": 0.3},
    "clipped unevenly": {"epsilon": 0.1, "epsilon_high": 0.3},
    "without the truncated": {"mask_truncated_completions": True},
    "all": {"scale_rewards": True, "beta": 0.3, "epsilon": 0.1, "epsilon_high": 0.3},
}


@pytest.mark.parametrize("method", GRPO_CASES.values(), ids=GRPO_CASES)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_grpo_agrees_with_the_grpo_trainer(make_run, strong, student, tmp_path, monkeypatch, method, temperature):
    path, rollouts = strong(student), fixed_rollouts(per_prompt=2)
    reference = AutoModelForCausalLM.from_pretrained(path)
    with torch.no_grad():
        reference.model.layers[0].mlp.down_proj.weight *= 1.2
    run = make_run(
        {"type": "grpo", "num_generations": 2} | method,
        student={"model": str(path)},
        training={"batch_size": 6},
        sampling={"temperature": temperature},
    )
    left = iter(REWARDS)
    object.__setattr__(run.job.dataset, "score", lambda example, completion: next(left))
    trainer = GrpoTrainer(run, prepare(run), run.job.method)
    if trainer.reference is not None:
        trainer.reference.load_state_dict(reference.state_dict())
    rollouts = [with_old_logprobs(rollout, trainer.student, temperature) for rollout in rollouts]
    got = ours(trainer, rollouts)

    wanted_rewards = iter([REWARDS])
    oracle = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(path),
        reward_funcs=lambda completions, **_: next(wanted_rewards),
        args=GRPOConfig(
            **settings(
                tmp_path,
                loss_type="dapo",
                num_generations=2,
                per_device_train_batch_size=6,
                gradient_accumulation_steps=1,
                temperature=temperature,
                beta=method.get("beta", 0.0),
                epsilon=method.get("epsilon", 0.2),
                epsilon_high=method.get("epsilon_high"),
                scale_rewards="group" if method.get("scale_rewards") else "none",
                mask_truncated_completions=method.get("mask_truncated_completions", False),
            )
        ),
        train_dataset=Dataset.from_dict({"prompt": PROMPTS}),
        processing_class=character_tokenizer(),
    )
    if oracle.ref_model is not None:
        oracle.ref_model.load_state_dict(reference.state_dict())
    texts = [character_tokenizer().decode(rollout.completion_ids) for rollout in rollouts]
    written = [rollout.prompt_ids for rollout in rollouts], [rollout.completion_ids for rollout in rollouts]
    monkeypatch.setattr(oracle, "_generate", lambda prompts: (*written, None, texts, None, {}, None, None))
    oracle.model.train()
    oracle.current_gradient_accumulation_steps = 1
    batch = oracle._generate_and_score_completions([{"prompt": prompt} for prompt in PROMPTS for _ in range(2)])
    width = batch["completion_ids"].shape[1]
    old = torch.tensor([rollout.logprobs + [0.0] * (width - len(rollout.logprobs)) for rollout in rollouts])
    loss = oracle.compute_loss(oracle.model, batch | {"old_per_token_logps": old})
    loss.backward()
    assert_agree(got, (float(loss), gradients(oracle.model)))
    clipped = oracle._metrics["train"]["clip_ratio/region_mean"][0]
    assert 0.1 < clipped < 0.9, "the bounds of the ratio are not tested"


def with_old_logprobs(rollout, model, temperature):
    """As if written a while ago: ratios on both sides of both bounds."""
    prompt, completion = rollout.row
    with torch.no_grad():
        logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1] / temperature
    logprobs = logits.log_softmax(-1).gather(1, torch.tensor(completion)[:, None])[:, 0]
    shifts = [(-0.6, 0.02, 0.15, 0.6, -0.15)[i % 5] for i in range(len(completion))]
    return Rollout(prompt, completion, (logprobs + torch.tensor(shifts)).tolist(), rollout.clipped)
