"""Sizes computed from configs are those of the real models, and estimates follow from them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from atlas import models
from atlas.job import JobSpec
from atlas.models import (
    Estimate,
    Lengths,
    checkpoint_bytes,
    context_length,
    describe,
    estimate_peak_bytes,
    fetch_config,
)
from atlas.spec import ModelSpec, StudentSpec

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 512,
}


def directory(path: Path, **changes: object) -> Path:
    """A model directory that passes every check."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"model_type": "llama"} | SMALL | changes))
    (path / "tokenizer.json").write_text("{}")
    (path / "model.safetensors").write_bytes(b"")
    return path


def model(path: Path, **fields: object) -> StudentSpec:
    return StudentSpec.model_validate({"model": str(path), **fields})


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("llama", {}),
        ("llama", {"tie_word_embeddings": True}),
        ("llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 24}),
        ("mistral", {"head_dim": 32}),
        ("qwen2", {}),
        ("qwen2", {"tie_word_embeddings": True}),
        ("qwen3", {"head_dim": 16}),
        ("qwen3", {"attention_bias": True}),
        ("gemma", {"head_dim": 16}),
        ("gemma2", {"head_dim": 16}),
        ("gemma3_text", {"head_dim": 16}),
    ],
)
def test_the_parameter_count_is_that_of_the_real_model(
    tmp_path: Path, model_type: str, changes: dict[str, object]
) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model(model_type, **SMALL, **changes)
    with torch.device("meta"):
        real = transformers.AutoModelForCausalLM.from_config(config)
    config.save_pretrained(tmp_path)
    size = describe(model(tmp_path))
    assert size is not None and size.parameters == sum(parameter.numel() for parameter in real.parameters())
    linears = {
        name.rsplit(".", 1)[-1]: (module.in_features, module.out_features)
        for name, module in real.named_modules()
        if isinstance(module, torch.nn.Linear) and ".layers.0." in name
    }
    assert size.linears == linears
    assert context_length(model(tmp_path)) == 512


def test_an_unknown_or_broken_config_has_no_size(tmp_path: Path) -> None:
    assert describe(StudentSpec(model="a/b")) is None
    assert describe(model(directory(tmp_path / "other", model_type="mamba"))) is None
    assert describe(model(directory(tmp_path / "broken", hidden_size="64"))) is None
    assert describe(model(tmp_path / "nope")) is None
    assert context_length(model(tmp_path / "nope")) is None


def job(student: StudentSpec, **changes: object) -> JobSpec:
    return JobSpec.model_validate(
        {"name": "a", "student": student, "method": {"type": "sft"}, "dataset": {"type": "arithmetic"}}
        | {"training": {"max_steps": 1, "batch_size": 8}}
        | changes
    )


def test_full_training_needs_weights_gradients_and_two_adam_states(tmp_path: Path) -> None:
    student = model(directory(tmp_path / "m"))
    size, estimate = describe(student), estimate_peak_bytes(job(student))
    assert size is not None and estimate is not None
    assert estimate.weights_bytes == estimate.gradients_bytes == 4 * size.parameters
    assert estimate.optimizer_bytes == 8 * size.parameters and estimate.teacher_bytes == 0
    assert estimate.total_bytes >= 16 * size.parameters


def test_lora_trains_little_and_evaluation_nothing(tmp_path: Path) -> None:
    path = directory(tmp_path / "m", dtype="bfloat16")
    size = describe(model(path))
    assert size is not None and size.dtype == "bfloat16"
    lora = estimate_peak_bytes(job(model(path, lora={"r": 2, "target_modules": ["q_proj"]})))
    assert lora is not None and lora.gradients_bytes == 4 * 3 * 2 * (64 + 64)
    full = estimate_peak_bytes(job(model(path)))
    assert full is not None and lora.logits_bytes == full.logits_bytes - 4 * 300 * 64, "no gradient of the head"
    assert lora.weights_bytes == 2 * size.parameters + lora.gradients_bytes
    evaluation = estimate_peak_bytes(job(model(path), method={"type": "evaluate"}, training=None))
    assert evaluation is not None and evaluation.weights_bytes == 2 * size.parameters
    assert evaluation.optimizer_bytes == evaluation.gradients_bytes == evaluation.activations_bytes == 0


def test_half_precision_is_float32_on_a_cpu_unless_asked_for(tmp_path: Path) -> None:
    path = directory(tmp_path / "m", dtype="float16")
    size = describe(model(path))
    on_cpu = {"method": {"type": "evaluate"}, "training": None, "resources": {"gpus": 0}}
    found, asked = (
        estimate_peak_bytes(job(model(path), **on_cpu)),
        estimate_peak_bytes(job(model(path, dtype="float16"), **on_cpu)),
    )
    assert size is not None and found is not None and asked is not None
    assert found.weights_bytes == 2 * asked.weights_bytes == 4 * size.parameters


def test_what_makes_a_job_need_more_or_less_memory(tmp_path: Path) -> None:
    student = model(directory(tmp_path / "m"))
    plain = estimate_peak_bytes(job(student))
    assert plain is not None
    saved = estimate_peak_bytes(
        job(student, training={"max_steps": 1, "batch_size": 8, "gradient_checkpointing": True})
    )
    small = estimate_peak_bytes(job(student, training={"max_steps": 1, "batch_size": 8, "micro_batch_size": 2}))
    taught = estimate_peak_bytes(job(student, method={"type": "gkd"}, teacher={"model": student.model}))
    anchored = estimate_peak_bytes(job(student, method={"type": "grpo", "beta": 0.1}))
    assert saved is not None and small is not None and taught is not None and anchored is not None
    assert saved.activations_bytes < plain.activations_bytes and saved.logits_bytes == plain.logits_bytes
    assert small.activations_bytes * 4 == plain.activations_bytes
    assert taught.teacher_bytes == plain.weights_bytes and taught.logits_bytes > anchored.logits_bytes
    assert anchored.weights_bytes == 2 * plain.weights_bytes


def on_policy(student: StudentSpec, **training: object) -> Estimate:
    changes = {
        "method": {"type": "grpo", "num_generations": 4},
        "training": {"max_steps": 1, "batch_size": 8, **training},
        "sampling": {"max_completion_length": 100},
        "evaluation": {"batch_size": 1},
    }
    estimate = estimate_peak_bytes(job(student, **changes), Lengths(30, 40, 0, 0))
    assert estimate is not None
    return estimate


def test_a_micro_batch_of_rollouts_has_every_prompt_once_and_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = model(directory(tmp_path / "m"))
    a_token = 3 * (8 * 64 + 4 * 112 + 2 * (64 + 2 * 32)) * 4
    assert on_policy(student).activations_bytes == (2 * 30 + 8 * 100) * a_token
    assert on_policy(student, micro_batch_size=2).activations_bytes == (30 + 2 * 100) * a_token
    monkeypatch.setattr(models, "MICRO_BATCH_BYTES_OF_GROUPS", 500 * a_token)
    assert on_policy(student).activations_bytes == 500 * a_token
    monkeypatch.setattr(models, "MICRO_BATCH_BYTES_OF_GROUPS", 0)
    assert on_policy(student).activations_bytes == (40 + 100) * a_token, "one row at least, however long"


def test_the_cache_grows_with_rows_and_completions(tmp_path: Path) -> None:
    student = model(directory(tmp_path / "m"))
    keys_and_values = 2 * 3 * 32 * 4
    cache = 2.25 * 8 * (40 + 100) * keys_and_values
    assert on_policy(student).generation_bytes == cache + 2 * 30 * (2 * 64 + 3 * 112) * 4, (
        "two prompts are read at once"
    )
    few = {"evaluation": {"batch_size": 64}, "dataset": {"type": "arithmetic", "dev_size": 2, "test_size": 3}}
    estimate = estimate_peak_bytes(job(student, **few), Lengths(40, 40, 0, 0))
    assert estimate is not None
    assert estimate.generation_bytes < 2.25 * 3 * (40 + 256) * keys_and_values * 1.5, "three problems, whatever fits"


def test_the_total_has_the_larger_phase_and_slack(tmp_path: Path) -> None:
    estimate = on_policy(model(directory(tmp_path / "m")))
    generating = replace(estimate, generation_bytes=10**9)
    kept = estimate.runtime_bytes + estimate.weights_bytes + estimate.optimizer_bytes
    step = estimate.activations_bytes + estimate.logits_bytes
    assert estimate.total_bytes == kept + estimate.gradients_bytes + step + round(0.3 * step)
    assert generating.total_bytes == kept + 10**9 + 3 * 10**8


def test_without_a_config_there_is_no_estimate(tmp_path: Path) -> None:
    assert estimate_peak_bytes(job(StudentSpec(model="a/b"))) is None
    student = model(directory(tmp_path / "m"))
    assert estimate_peak_bytes(job(student, method={"type": "gkd"}, teacher={"model": "a/b"})) is None


def test_checkpoints_take_the_trained_weights_and_two_moments_each(tmp_path: Path) -> None:
    folder = directory(tmp_path / "model")
    job = {
        "name": "job",
        "student": {"model": str(folder)},
        "method": {"type": "sft"},
        "dataset": {"type": "arithmetic"},
        "training": {"max_steps": 1, "keep_checkpoints": 3},
    }
    parameters = describe(JobSpec.model_validate(job).student).parameters
    assert checkpoint_bytes(JobSpec.model_validate(job)) == parameters * 4 * (3 * 4 + 4 + 1), "4 sets of best weights"
    on_test = job | {"evaluation": {"split": "test"}}
    assert checkpoint_bytes(JobSpec.model_validate(on_test)) == parameters * 4 * (3 * 4 + 1)
    untrained = {key: value for key, value in job.items() if key != "training"} | {"method": {"type": "evaluate"}}
    assert checkpoint_bytes(JobSpec.model_validate(untrained)) == 0
    unknown = job | {"student": {"model": "org/not-cached"}}
    assert checkpoint_bytes(JobSpec.model_validate(unknown)) == 0


def test_a_config_is_fetched_only_from_a_hub_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *arguments, **_: asked.append(arguments))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(models, "why_unreachable", lambda url, timeout_seconds: "no route")
    fetch_config(ModelSpec(model="org/not-cached"))
    fetch_config(ModelSpec(model="/local/model"))
    assert asked == []
    monkeypatch.setattr(models, "why_unreachable", lambda url, timeout_seconds: None)
    fetch_config(ModelSpec(model="org/not-cached"))
    assert asked == [("org/not-cached", "config.json")]
