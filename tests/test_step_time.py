"""Estimated seconds follow from the sizes of models and texts, and from what a machine achieves."""

from dataclasses import replace
from pathlib import Path

import pytest
from test_models import directory

from atlas import models
from atlas.job import JobSpec
from atlas.models import Lengths, describe
from atlas.step_time import Machine, StepTime, evaluation_seconds, step_time

NEVER = float("inf")
"""A rate at which something takes no time."""
COMPUTES = Machine("computes", 1.0, NEVER, NEVER, NEVER, 0.0)
READS_WEIGHTS = Machine("reads", NEVER, 1.0, NEVER, NEVER, 0.0)
CALLS = Machine("calls", NEVER, NEVER, NEVER, NEVER, 1.0)
UPDATES = Machine("updates", NEVER, NEVER, 1.0, NEVER, 0.0)
LENGTHS = Lengths(10, 12, 6, 20)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return directory(tmp_path / "model", tie_word_embeddings=True)


def job(model: Path, kind: str = "gkd", **changes: object) -> JobSpec:
    base = {
        "name": "a",
        "student": {"model": str(model)},
        "method": {"type": kind} | ({"num_generations": 4} if kind == "grpo" else {}),
        "dataset": {"type": "arithmetic"},
        "training": {"max_steps": 1, "batch_size": 8},
        "evaluation": {"max_completion_length": 20, "batch_size": 8},
        "resources": {"gpus": 0},
    }
    base |= {"teacher": {"model": str(model)}} if kind == "gkd" else {}
    base |= {"sampling": {"max_completion_length": 20}} if kind != "sft" else {}
    return JobSpec.model_validate(base | changes)


def timed(job: JobSpec, machine: Machine, completion: float | None = None) -> StepTime:
    found = step_time(job, machine, LENGTHS, completion)
    assert found is not None
    return found


def products(model: Path) -> tuple[int, int, int]:
    """Weights in the layers, in the head, and attention's part that a token pays for each key that it sees."""
    size = describe(JobSpec.model_validate(job(model)).student)
    assert size is not None
    layers = size.layers * sum(inputs * outputs for inputs, outputs in size.linears.values())
    return layers, size.hidden * size.vocabulary, 2 * size.layers * size.queries


def test_a_distillation_step_computes_each_token_once_for_every_product(model: Path) -> None:
    layers, head, attention = products(model)
    found = timed(job(model), COMPUTES, completion=16)
    tokens, predicted, context = 8 * (10 + 16), 8 * 16, (10 + 16) / 2
    forward = 2 * tokens * (layers + attention * context)
    assert found.teacher == pytest.approx(forward)
    assert found.forward_backward == pytest.approx(3 * forward + (3 + 1) * 2 * predicted * head)
    reading = 2 * 8 * 10 * (layers + attention * 10 / 2)
    writing = 2 * predicted * (layers + attention * (10 + 16 / 2) + head)
    assert found.generate == pytest.approx(reading + writing)


def test_prompts_that_rollouts_share_are_read_and_learnt_from_once(model: Path) -> None:
    layers, head, attention = products(model)
    found = timed(job(model, "grpo"), COMPUTES, completion=16)
    tokens = 2 * 10 + 8 * 16
    expected = 3 * 2 * tokens * (layers + attention * 13) + 3 * 2 * 8 * 16 * head
    assert found.forward_backward == pytest.approx(expected) and found.teacher == 0


def test_small_micro_batches_repeat_the_shared_prompts(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = timed(job(model, "grpo"), COMPUTES, completion=16).forward_backward
    monkeypatch.setattr(models, "MICRO_BATCH_BYTES", 0)
    monkeypatch.setattr(models, "MICRO_BATCH_TOKENS", (26, 26))
    layers, _, attention = products(model)
    more = timed(job(model, "grpo"), COMPUTES, completion=16).forward_backward - whole
    assert more == pytest.approx(3 * 2 * (8 - 2) * 10 * (layers + attention * 13)), "each rollout with its own prompt"


def test_sft_pads_to_the_longest_and_computes_the_heads_logits_twice(model: Path) -> None:
    layers, head, attention = products(model)
    found = timed(job(model, "sft"), COMPUTES)
    longest = 12 + (20 - 12) * 8 / 9  # of 8 rows between 12 and 20 tokens
    forward = 2 * 8 * longest * (layers + attention * longest / 2)
    assert found.forward_backward == pytest.approx(3 * forward + 4 * 2 * 8 * longest * head)
    alone = timed(job(model, "sft", training={"max_steps": 1, "batch_size": 8, "micro_batch_size": 1}), COMPUTES)
    assert alone.forward_backward == pytest.approx(8 * 16 * (3 * 2 * (layers + attention * 8) + 4 * 2 * head))


def test_every_step_of_decoding_reads_all_weights_until_the_longest_rollout_ends(model: Path) -> None:
    layers, head, _ = products(model)
    assert timed(job(model), READS_WEIGHTS, completion=7).generate == pytest.approx(14 * 4 * (layers + head))
    assert timed(job(model), READS_WEIGHTS).generate == pytest.approx(20 * 4 * (layers + head))
    wide = job(model, training={"max_steps": 1, "batch_size": 800})
    assert timed(wide, READS_WEIGHTS, completion=7).generate == pytest.approx(14 * 4 * (layers + head))


def test_the_mean_length_is_at_most_what_is_allowed(model: Path) -> None:
    assert timed(job(model), COMPUTES, completion=1000) == timed(job(model), COMPUTES)


def test_adapters_spare_the_gradients_of_the_weights(model: Path) -> None:
    lora = {"model": str(model), "lora": {"r": 1}}
    layers, head, attention = products(model)
    found = timed(job(model, student=lora), COMPUTES, completion=16)
    forward = 2 * 8 * 26 * (layers + attention * 13)
    assert found.forward_backward == pytest.approx(2 * forward + (2 + 1) * 2 * 8 * 16 * head)
    assert timed(job(model, student=lora), UPDATES).optimizer < timed(job(model), UPDATES).optimizer / 10


def test_checkpointing_forwards_again_and_a_reference_once_more(model: Path) -> None:
    layers, head, attention = products(model)
    forward = 2 * (2 * 10 + 8 * 16) * (layers + attention * 13)
    plain = timed(job(model, "grpo"), COMPUTES, completion=16).forward_backward
    checkpointing = {"max_steps": 1, "batch_size": 8, "gradient_checkpointing": True}
    saved = timed(job(model, "grpo", training=checkpointing), COMPUTES, completion=16).forward_backward
    anchored = job(model, method={"type": "grpo", "num_generations": 4, "beta": 0.1}, teacher=None)
    assert saved - plain == pytest.approx(forward)
    memory = Machine("memory", NEVER, NEVER, NEVER, 1.0, 0.0)
    plain_memory = timed(job(model, "grpo"), memory, completion=16).forward_backward
    assert timed(job(model, "grpo", training=checkpointing), memory, completion=16).forward_backward > plain_memory
    more = timed(anchored, COMPUTES, completion=16).forward_backward - plain
    assert more == pytest.approx(forward + 2 * 8 * 16 * head)


def test_steps_on_solutions_write_nothing_and_steps_on_the_teachers_words_cost_the_teacher(model: Path) -> None:
    half = timed(job(model, method={"type": "gkd", "lmbda": 0.5}), COMPUTES, completion=16)
    never = timed(job(model, method={"type": "gkd", "lmbda": 0.0}), COMPUTES, completion=16)
    always = timed(job(model), COMPUTES, completion=16)
    assert never.generate == 0 and half.generate == pytest.approx(always.generate / 2)
    assert never.teacher < half.teacher < always.teacher, "a solution has 6 tokens"
    by_teacher = job(model, method={"type": "gkd", "lmbda": 0.0, "seq_kd": True})
    assert timed(by_teacher, COMPUTES, completion=16) == always, "student and teacher are of one size"


def test_calls_are_paid_by_the_token_and_not_by_the_row(model: Path) -> None:
    wide = job(model, training={"max_steps": 1, "batch_size": 80})
    assert timed(wide, CALLS).generate == timed(job(model), CALLS).generate > 0


def test_every_micro_batch_adds_its_gradients(model: Path) -> None:
    slow_memory = Machine("memory", NEVER, NEVER, NEVER, 1.0, 0.0)
    for kind in ("sft", "gkd"):
        small = job(model, kind, training={"max_steps": 1, "batch_size": 8, "micro_batch_size": 1})
        none_kept = replace(LENGTHS, prompt=0, solution=0, longest_row=0)
        whole, split = (step_time(it, slow_memory, none_kept, 1e-9) for it in (job(model, kind), small))
        assert whole is not None and split is not None
        parameters = describe(small.student).parameters
        more = split.forward_backward - whole.forward_backward
        assert more == pytest.approx(7 * 4 * 2 * parameters, rel=1e-3), kind


def test_an_evaluation_is_as_many_batches_as_it_takes(model: Path) -> None:
    layers, head, _ = products(model)
    a_batch = 20 * 4 * (layers + head)
    assert evaluation_seconds(job(model), READS_WEIGHTS, 8) == pytest.approx(a_batch)
    assert evaluation_seconds(job(model), READS_WEIGHTS, 17) == pytest.approx(3 * a_batch)
    assert evaluation_seconds(job(model), READS_WEIGHTS, 8, by_teacher=True) == pytest.approx(a_batch)
    several = job(model, evaluation={"batch_size": 8, "num_samples": 4, "temperature": 1.0})
    assert evaluation_seconds(several, READS_WEIGHTS, 4, completion_tokens=10) == pytest.approx(2 * a_batch)


def test_all_rates_count_and_faster_is_sooner(model: Path) -> None:
    slow = Machine("slow", 1e9, 1e9, 1e9, 1e9, 1e-6)
    for rate in (
        "flops_per_second",
        "weight_bytes_per_second",
        "memory_bytes_per_second",
        "new_memory_bytes_per_second",
    ):
        assert timed(job(model), replace(slow, **{rate: 2e9})).total < timed(job(model), slow).total, rate
    assert timed(job(model), replace(slow, seconds_per_operation=0)).total < timed(job(model), slow).total


def test_nothing_is_estimated_without_training_or_a_config(model: Path, tmp_path: Path) -> None:
    assert (
        step_time(job(model, method={"type": "evaluate"}, training=None, teacher=None, sampling=None), COMPUTES) is None
    )
    assert step_time(job(tmp_path / "nowhere", "sft"), COMPUTES) is None
    assert step_time(job(model, teacher={"model": str(tmp_path / "nowhere")}), COMPUTES) is None
    assert evaluation_seconds(job(model, "sft"), COMPUTES, 8, by_teacher=True) is None
