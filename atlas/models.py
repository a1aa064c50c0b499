"""What can be known of a model without loading it: its config, its size, and how much memory a job needs.

Reads configs from local directories and the hub's cache; only `fetch_config` asks the network.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.network import why_unreachable
from atlas.spec import ModelSpec, StudentSpec, TeacherSpec, is_local

if TYPE_CHECKING:
    from atlas.job import JobSpec

logger = logging.getLogger(__name__)

_HUB_TIMEOUT_SECONDS = 3.0


def file_of(spec: ModelSpec, name: str) -> Path | None:
    """Where a file of the model is on this machine: in its directory or in the hub's cache. None if it is not there."""
    if is_local(spec.model):
        file = Path(spec.model) / name
        return file if file.is_file() else None
    try:
        from huggingface_hub import constants, try_to_load_from_cache
    except ImportError:
        return None
    found = try_to_load_from_cache(spec.model, name, cache_dir=constants.HF_HUB_CACHE, revision=spec.revision)
    return Path(found) if isinstance(found, str) else None


def fetch_config(spec: ModelSpec) -> None:
    """Puts a hub model's config.json (kilobytes) into the hub's cache, if it is not there and the hub answers."""
    if is_local(spec.model) or file_of(spec, "config.json"):
        return
    try:
        from huggingface_hub import constants, hf_hub_download
    except ImportError:
        return
    if constants.HF_HUB_OFFLINE or why_unreachable(constants.ENDPOINT, _HUB_TIMEOUT_SECONDS):
        return
    try:
        hf_hub_download(spec.model, "config.json", revision=spec.revision)
    except OSError as error:  # every error of the hub is one: gated, missing, interrupted
        logger.warning("no config of %s: %s", spec.model, error)


def config_of(spec: ModelSpec) -> dict[str, Any] | None:
    """The model's config.json; None when it is not at hand or unreadable, and for a GGUF file, which has its own."""
    file = None if spec.gguf_file else file_of(spec, "config.json")
    if file is None:
        return None
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) else None


def context_length(spec: ModelSpec) -> int | None:
    """Tokens of prompt and completion that the model was built for; None when its config is not at hand."""
    length = (config_of(spec) or {}).get("max_position_embeddings")
    return length if isinstance(length, int) else None


@dataclass(frozen=True)
class ModelSize:
    """The shape of a decoder with grouped-query attention and a gated MLP."""

    hidden: int
    intermediate: int
    layers: int
    queries: int
    """Width of all query heads together."""
    keys: int
    """Width of all key heads together, which is also that of the values."""
    vocabulary: int
    parameters: int
    """Exact; a tied embedding counts once."""
    dtype: str
    """Type of the stored weights."""

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of the linear modules of one layer."""
        return {
            "q_proj": (self.hidden, self.queries),
            "k_proj": (self.hidden, self.keys),
            "v_proj": (self.hidden, self.keys),
            "o_proj": (self.queries, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }


@dataclass(frozen=True)
class _Family:
    """How a model type departs from Llama."""

    tied: bool = False
    head_dim: int | None = None
    qkv_bias: bool = False
    norms: int = 2
    """Norms per layer, of hidden size."""
    head_norms: int = 0
    """Norms per layer, of a head's size."""


_FAMILIES = {
    "llama": _Family(),
    "mistral": _Family(),
    "qwen2": _Family(qkv_bias=True),
    "qwen3": _Family(head_dim=128, head_norms=2),
    "gemma": _Family(tied=True, head_dim=256),
    "gemma2": _Family(tied=True, head_dim=256, norms=4),
    "gemma3_text": _Family(tied=True, head_dim=256, norms=4, head_norms=2),
}
_BIASED = ("llama", "qwen3", "gemma", "gemma2", "gemma3_text")
"""Families that read `attention_bias`."""


def describe(spec: ModelSpec) -> ModelSize | None:
    """The size of a model of a known family; None when its config is not at hand or of another family."""
    config = config_of(spec)
    family = _FAMILIES.get(str((config or {}).get("model_type")))
    if config is None or family is None:
        return None
    try:
        return _size(config, family)
    except (KeyError, TypeError):
        return None


def _size(config: dict[str, Any], family: _Family) -> ModelSize:
    hidden, intermediate, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    heads, vocabulary = config["num_attention_heads"], config["vocab_size"]
    head_dim = config.get("head_dim") or family.head_dim or hidden // heads
    queries = heads * head_dim
    keys = (config.get("num_key_value_heads") or heads) * head_dim
    size = ModelSize(
        hidden,
        intermediate,
        layers,
        queries,
        keys,
        vocabulary,
        0,
        str(config.get("dtype") or config.get("torch_dtype") or "float32"),
    )
    biased = config["model_type"] in _BIASED and config.get("attention_bias", False)
    layer = sum(inputs * outputs for inputs, outputs in size.linears.values())
    layer += family.norms * hidden + family.head_norms * head_dim
    layer += queries + 2 * keys if family.qkv_bias or biased else 0
    layer += hidden if biased else 0
    layer += 2 * intermediate + hidden if config["model_type"] == "llama" and config.get("mlp_bias") else 0
    embeddings = vocabulary * hidden * (1 if config.get("tie_word_embeddings", family.tied) else 2)
    parameters = embeddings + layers * layer + hidden
    return ModelSize(hidden, intermediate, layers, queries, keys, vocabulary, parameters, size.dtype)


_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}
_QUANTIZED_BYTES = {"int8": 1.0, "fp8": 1.0, "int4": 0.5}
"""Of a weight of a linear layer, without the scales: less than a tenth more."""
PROMPT_TOKENS = 256
"""Length of a prompt that the estimate assumes, since it does not read the dataset."""
MICRO_BATCH_BYTES = 3 * 2**28
"""What the activations of a packed micro-batch of the on-policy engine may take on a CPU: more is no faster there. On a
GPU it takes more where there is room."""
MICRO_BATCH_TOKENS = (64, 4096)
"""And at least and at most so many tokens, whatever a token takes."""
CHUNK_LOGITS = 2**23
"""Logits that the on-policy engine has at once: large enough to keep a processor busy, small enough that some copies of
them do not matter."""


@dataclass(frozen=True)
class Estimate:
    """Peak memory of a job by part, in bytes. Rough: within a factor of two, and without the framework's own."""

    weights_bytes: int
    teacher_bytes: int
    optimizer_bytes: int
    gradients_bytes: int
    activations_bytes: int
    logits_bytes: int
    kv_cache_bytes: int

    @property
    def total_bytes(self) -> int:
        """The larger of the two phases: a training step, or generation between steps."""
        step = self.gradients_bytes + self.activations_bytes + self.logits_bytes
        return self.weights_bytes + self.teacher_bytes + self.optimizer_bytes + max(step, self.kv_cache_bytes)


def estimate_peak_bytes(job: "JobSpec") -> Estimate | None:
    """Estimates the memory that a job needs; None when a model's config is not at hand.

    With P parameters of which T are trained, b bytes per weight, S = PROMPT_TOKENS + completion tokens,
    m = micro_batch_size:
    weights P b (a reference model for `grpo` with `beta` > 0: twice); teacher likewise, less its quantization;
    gradients T b; AdamW 2 T b;
    LoRA: T = sum of r (inputs + outputs) over the adapted modules, in float32;
    activations m S layers (8 hidden + 4 intermediate + 2 (queries + 2 keys)) b, after arXiv:2205.05198, eq. 1, for a
    gated MLP and without the attention matrix; with checkpointing m S hidden b per layer, and one layer in full;
    logits m S vocabulary 4 bytes, twice for their gradient;
    for methods that learn from rollouts m S is what MICRO_BATCH_BYTES allows unless `micro_batch_size` says
    otherwise, and four copies of at most CHUNK_LOGITS logits are there at once, with a teacher six;
    KV cache 2 layers keys b (S per sequence) for the larger of rollouts and evaluation batch.
    """
    student = describe(job.student)
    teacher = describe(job.teacher) if job.teacher else None
    if student is None or (job.teacher and teacher is None):
        return None
    weight_bytes = _weight_bytes(job.student, student, trained=job.training is not None)
    longest = max(job.sampling.max_completion_length if job.sampling else 0, job.evaluation.max_completion_length)
    cached_tokens = job.evaluation.batch_size * (PROMPT_TOKENS + job.evaluation.max_completion_length)
    if job.training and job.sampling:
        cached_tokens = max(
            cached_tokens, job.training.batch_size * (PROMPT_TOKENS + job.sampling.max_completion_length)
        )
    trained, trained_bytes = _trained(job, student, weight_bytes)
    tokens, activations, logits = 0, 0, 0
    if job.training:
        tokens = (job.training.micro_batch_size or job.training.batch_size) * (PROMPT_TOKENS + longest)
        if job.method.samples_rollouts and job.training.micro_batch_size is None:
            tokens = min(tokens, micro_batch_tokens(job, student))
        activations = tokens * activation_bytes_per_token(job, student)
        logits = 2 * tokens * student.vocabulary
        if job.method.samples_rollouts:
            logits = (6 if job.teacher else 4) * min(tokens * student.vocabulary, CHUNK_LOGITS)
    copies = 2 if job.method.type == "grpo" and job.method.beta > 0 and not job.student.lora else 1
    return Estimate(
        weights_bytes=copies * student.parameters * weight_bytes + (trained * trained_bytes if job.student.lora else 0),
        teacher_bytes=_teacher_bytes(job.teacher, teacher) if job.teacher and teacher else 0,
        optimizer_bytes=2 * trained * trained_bytes,
        gradients_bytes=trained * trained_bytes,
        activations_bytes=activations,
        logits_bytes=4 * logits,
        kv_cache_bytes=2 * student.layers * student.keys * weight_bytes * cached_tokens,
    )


def activation_bytes_per_token(job: "JobSpec", size: ModelSize) -> int:
    """What a forward pass keeps of each token for the backward pass; see `estimate_peak_bytes`."""
    layer = 8 * size.hidden + 4 * size.intermediate + 2 * (size.queries + 2 * size.keys)
    checkpointing = job.training is not None and job.training.gradient_checkpointing
    kept = size.layers * size.hidden + layer if checkpointing else size.layers * layer
    return kept * _weight_bytes(job.student, size, trained=job.training is not None)


def micro_batch_tokens(job: "JobSpec", size: ModelSize) -> int:
    """How many tokens the on-policy engine forwards at once on a CPU."""
    least, most = MICRO_BATCH_TOKENS
    return min(most, max(least, MICRO_BATCH_BYTES // activation_bytes_per_token(job, size)))


def checkpoint_bytes(job: "JobSpec") -> int:
    """Disk space that a run's checkpoints take at most: each holds the trained weights and AdamW's two moments of them,
    one more than `keep_checkpoints` exists while it is saved, and the final export has the weights once more.
    Where dev chooses, each of these checkpoints may name other weights as the best so far, which are kept with it.
    An adapter that is merged is exported with the whole model once more.
    0 when nothing is trained or the model's config is not at hand."""
    student = describe(job.student)
    if student is None or job.training is None:
        return 0
    weight_bytes = _weight_bytes(job.student, student, trained=True)
    trained, trained_bytes = _trained(job, student, weight_bytes)
    merged_bytes = student.parameters * weight_bytes if job.student.lora and job.student.lora.merge else 0
    weights_each = 4 if job.evaluation.split == "dev" else 3
    return trained * trained_bytes * (weights_each * (job.training.keep_checkpoints + 1) + 1) + merged_bytes


def _weight_bytes(spec: ModelSpec, size: ModelSize, trained: bool) -> int:
    full = trained and not (isinstance(spec, StudentSpec) and spec.lora)
    name = spec.dtype if spec.dtype != "auto" else "float32" if full else size.dtype
    return _BYTES.get(name.removeprefix("torch."), 4)


def _teacher_bytes(spec: TeacherSpec, size: ModelSize) -> int:
    """Of the weights: embeddings, head, norms and biases are never quantized."""
    weight_bytes = _weight_bytes(spec, size, trained=False)
    if spec.quantization is None:
        return size.parameters * weight_bytes
    linear = size.layers * sum(inputs * outputs for inputs, outputs in size.linears.values())
    return int(linear * _QUANTIZED_BYTES[spec.quantization]) + (size.parameters - linear) * weight_bytes


def _trained(job: "JobSpec", size: ModelSize, weight_bytes: int) -> tuple[int, int]:
    """Trained parameters, and bytes of each."""
    lora = job.student.lora
    if job.training is None:
        return 0, weight_bytes
    if lora is None:
        return size.parameters, weight_bytes
    adapted = [
        shape
        for name, shape in size.linears.items()
        if lora.target_modules == "all-linear" or name in lora.target_modules
    ]
    return size.layers * sum(lora.r * (inputs + outputs) for inputs, outputs in adapted), 4
