"""What can be known of a model without loading it: its config, its size, and how much memory a job needs.

Reads configs from local directories and the hub's cache; only `fetch_config` asks the network.
"""

import json
import logging
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.network import why_unreachable
from atlas.spec import LoraSpec, ModelSpec, StudentSpec, is_local

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
MICRO_BATCH_BYTES, MICRO_BATCH_BYTES_OF_GROUPS = 3 * 2**27, 9 * 2**27
"""What the activations of a packed micro-batch of the on-policy engine may take on a CPU: more is no faster there.
Groups get more, since rollouts of one prompt that are packed together read it once. On a GPU it takes more where there
is room."""
MICRO_BATCH_TOKENS = (64, 4096)
"""And at least and at most so many tokens, whatever a token takes."""
CHUNK_LOGITS, CHUNK_LOGITS_ON_GPU = 2**21, 2**26
"""Logits that the on-policy engine has at once: large enough to keep the device busy (a GPU needs hundreds of rows to
read the head's weights for), small enough that some copies of them do not matter."""


_RUNTIME_BYTES = 650_000_000
"""Python, torch and transformers with the data, as measured on a CPU. A CUDA context with its kernels takes about as
much of a GPU."""
_SLACK = 0.3
"""Of what comes and goes within a step, how much more the allocator holds, as what was freed does not always fit."""
_LOGIT_COPIES = {"sft": 8, "with a teacher": 10, "alone": 6}
"""How many times the logits of a chunk are there at once: themselves, probabilities, differences, gradients."""
_SFT_CHUNK = (4096, 32768)
"""Rows and columns of the logits that TRL's SFTTrainer has at once."""
_CACHE_COPIES = 2.25
"""A cache is written once more when rows leave it, with room for a quarter more keys."""


@dataclass(frozen=True)
class Lengths:
    """Tokens of the texts of a training split, after the chat template: the mean and the longest."""

    prompt: float
    longest_prompt: int
    solution: float
    longest_row: int
    """Prompt and solution of one example together."""

    def padded(self, rows: int) -> float:
        """Length of the longest of so many rows in the mean, if lengths are spread evenly around theirs."""
        shortest = max(0.0, 2 * (self.prompt + self.solution) - self.longest_row)
        return shortest + (self.longest_row - shortest) * rows / (rows + 1)


ASSUMED_LENGTHS = Lengths(256, 256, 256, 512)
"""For data or a tokenizer that cannot be read."""


@dataclass(frozen=True)
class Estimate:
    """Peak memory of a job by part, in bytes: of each GPU, or of the process where there is none."""

    runtime_bytes: int
    weights_bytes: int
    teacher_bytes: int
    optimizer_bytes: int
    gradients_bytes: int
    activations_bytes: int
    logits_bytes: int
    """With the gradient of the head, which is made together with them."""
    generation_bytes: int
    """KV cache and logits of the widest batch of completions, for training or evaluation."""

    @property
    def slack_bytes(self) -> int:
        """What the allocator holds beyond what is used."""
        return round(_SLACK * max(self.activations_bytes + self.logits_bytes, self.generation_bytes))

    @property
    def total_bytes(self) -> int:
        """With the larger of the two phases: a training step, or generation between steps."""
        step = self.gradients_bytes + self.activations_bytes + self.logits_bytes
        kept = self.runtime_bytes + self.weights_bytes + self.teacher_bytes + self.optimizer_bytes
        return kept + max(step, self.generation_bytes) + self.slack_bytes


def estimate_peak_bytes(job: "JobSpec", lengths: Lengths = ASSUMED_LENGTHS) -> Estimate | None:
    """Estimates the memory that a job needs; None when a model's config is not at hand.

    With P parameters of which T are trained, b bytes per weight:
    weights P b (a reference model for `grpo` with `beta` > 0: twice); teacher likewise, less its quantization;
    gradients T b; AdamW 2 T b; LoRA: T = sum of r (inputs + outputs) over the adapted modules, in float32;
    activations of the largest micro-batch, see `activation_bytes_per_token`; sft pads its rows to the longest, methods
    that learn from rollouts forward at most `micro_batch_tokens` at once, or one row;
    logits of a chunk of it in float32, and their copies;
    KV cache 2 layers keys b a token of the widest batch, its copies, and four times the logits of the newest tokens, or
    reading all prompts at once.
    Several GPUs split weights, gradients, optimizer states and rows; each has the head whole, and all weights while it
    writes completions.
    Completions are taken to be as long as they may be. On a GPU, which packs more tokens where there is room, it is
    what the job needs rather than what it takes.
    """
    student = as_loaded(job, describe(job.student))
    teacher = as_loaded(job, describe(job.teacher)) if job.teacher else None
    if student is None or (job.teacher and teacher is None):
        return None
    weight_bytes = bytes_per_weight(job.student, student, trained=job.training is not None)
    trained, trained_bytes = trained_parameters(job, student, weight_bytes)
    copies = 2 if job.method.type == "grpo" and job.method.beta > 0 and not job.student.lora else 1
    tokens, predicted = _largest_forward(job, student, lengths) if job.training else (0, 0)
    head_bytes = student.vocabulary * student.hidden * weight_bytes
    head_gradient = head_bytes if job.training and not job.student.lora else 0
    weights_bytes = _weights_bytes(job.student, student, weight_bytes)
    weights_bytes += trained * trained_bytes if job.student.lora else 0
    gpus = job.resources.gpus or 1
    return Estimate(
        runtime_bytes=_RUNTIME_BYTES,
        weights_bytes=_split(weights_bytes, gpus) + (head_bytes if gpus > 1 else 0) + (copies - 1) * weights_bytes,
        teacher_bytes=_teacher_bytes(job.teacher, teacher),
        optimizer_bytes=_split(2 * trained * trained_bytes, gpus),
        gradients_bytes=_split(trained * trained_bytes, gpus),
        activations_bytes=tokens * activation_bytes_per_token(job, student),
        logits_bytes=4 * _logits(job, student, predicted) + head_gradient,
        generation_bytes=_generation_bytes(job, student, lengths, weight_bytes)
        + weights_bytes
        - _split(weights_bytes, gpus),
    )


def _split(whole_bytes: int, gpus: int) -> int:
    return ceil(whole_bytes / gpus)


def _largest_forward(job: "JobSpec", size: ModelSize, lengths: Lengths) -> tuple[int, int]:
    """Tokens of the largest micro-batch, and how many of them go through the head."""
    assert job.training is not None
    of_gpu = job.training.batch_size // (job.resources.gpus or 1)
    rows = min(of_gpu, job.training.micro_batch_size or of_gpu)
    if not job.method.samples_rollouts or job.sampling is None:
        padded = rows * lengths.longest_row
        return padded, padded
    completion, group = job.sampling.max_completion_length, rollouts_of_a_prompt(job)
    together = ceil(rows / group) * lengths.prompt + rows * completion
    share = rows * completion / together
    tokens = ceil(max(lengths.longest_prompt + completion, min(together, micro_batch_tokens(job, size))))
    return tokens, ceil(tokens * share)


def _logits(job: "JobSpec", size: ModelSize, predicted: int) -> int:
    """Logits that are there at once, all copies together."""
    if not job.method.samples_rollouts:
        rows, columns = _SFT_CHUNK
        return _LOGIT_COPIES["sft"] * min(predicted, rows) * min(size.vocabulary, columns)
    copies = _LOGIT_COPIES["with a teacher" if job.teacher else "alone"]
    return copies * min(predicted * size.vocabulary, CHUNK_LOGITS)


def _generation_bytes(job: "JobSpec", size: ModelSize, lengths: Lengths, weight_bytes: int) -> int:
    problems = max(job.dataset.dev_size if job.evaluation.split == "dev" else 0, job.dataset.test_size)
    rows = min(job.evaluation.batch_size, problems * job.evaluation.num_samples)
    widest = [(rows, rows, job.evaluation.max_completion_length)]
    if job.training and job.sampling:
        rows = job.training.batch_size // (job.resources.gpus or 1)
        widest.append((rows, rows // rollouts_of_a_prompt(job), job.sampling.max_completion_length))
    needed = []
    for rows, prompts, completion in widest:
        cache = 2 * size.layers * size.keys * weight_bytes * rows * (lengths.longest_prompt + completion)
        reading = prompts * lengths.prompt * (2 * size.hidden + 3 * size.intermediate) * weight_bytes
        needed.append(_CACHE_COPIES * cache + max(reading, 4 * 4 * rows * size.vocabulary))
    return round(max(needed))


def rollouts_of_a_prompt(job: "JobSpec") -> int:
    """Rollouts of one prompt."""
    assert job.training is not None
    return job.training.batch_size // job.method.prompts_per_step(job.training.batch_size)


def activation_bytes_per_token(job: "JobSpec", size: ModelSize) -> int:
    """What a forward pass keeps of each token for the backward pass: layers (8 hidden + 4 intermediate +
    2 (queries + 2 keys)) b, after arXiv:2205.05198, eq. 1, for a gated MLP and without the attention matrix; with
    checkpointing hidden b per layer, and one layer in full. An adapter keeps r more, and its input if that has to be
    converted to float32."""
    layer = 8 * size.hidden + 4 * size.intermediate + 2 * (size.queries + 2 * size.keys)
    weight_bytes = bytes_per_weight(job.student, size, trained=job.training is not None)
    layer *= weight_bytes
    lora = job.student.lora
    if lora is not None:
        layer += 4 * sum(lora.r + (inputs if weight_bytes < 4 else 0) for inputs, _ in _adapted(lora, size))
    checkpointing = job.training is not None and job.training.gradient_checkpointing
    return size.layers * size.hidden * weight_bytes + layer if checkpointing else size.layers * layer


def micro_batch_tokens(job: "JobSpec", size: ModelSize) -> int:
    """How many tokens the on-policy engine forwards at once on a CPU."""
    least, most = MICRO_BATCH_TOKENS
    available = MICRO_BATCH_BYTES if rollouts_of_a_prompt(job) == 1 else MICRO_BATCH_BYTES_OF_GROUPS
    return min(most, max(least, available // activation_bytes_per_token(job, size)))


def checkpoint_bytes(job: "JobSpec") -> int:
    """Disk space that a run's checkpoints take at most: each holds the trained weights and AdamW's two moments of them,
    one more than `keep_checkpoints` exists while it is saved, and the final export has the weights once more.
    Where dev chooses, each of these checkpoints may name other weights as the best so far, which are kept with it.
    An adapter that is merged is exported with the whole model once more.
    0 when nothing is trained or the model's config is not at hand."""
    student = describe(job.student)
    if student is None or job.training is None:
        return 0
    weight_bytes = bytes_per_weight(job.student, student, trained=True)
    trained, trained_bytes = trained_parameters(job, student, weight_bytes)
    merged_bytes = student.parameters * weight_bytes if job.student.lora and job.student.lora.merge else 0
    weights_each = 4 if job.evaluation.split == "dev" else 3
    return trained * trained_bytes * (weights_each * (job.training.keep_checkpoints + 1) + 1) + merged_bytes


def bytes_per_weight(spec: ModelSpec, size: ModelSize, trained: bool) -> int:
    full = trained and not (isinstance(spec, StudentSpec) and spec.lora)
    name = spec.dtype if spec.dtype != "auto" else "float32" if full else size.dtype
    return _BYTES.get(name.removeprefix("torch."), 4)


def _teacher_bytes(spec: ModelSpec | None, size: ModelSize | None) -> int:
    if spec is None or size is None:
        return 0
    return _weights_bytes(spec, size, bytes_per_weight(spec, size, trained=False))


def _weights_bytes(spec: ModelSpec, size: ModelSize, weight_bytes: int) -> int:
    """Embeddings, head, norms and biases are never quantized."""
    if spec.quantization is None:
        return size.parameters * weight_bytes
    linear = size.layers * sum(inputs * outputs for inputs, outputs in size.linears.values())
    return int(linear * _QUANTIZED_BYTES[spec.quantization]) + (size.parameters - linear) * weight_bytes


def trained_parameters(job: "JobSpec", size: ModelSize, weight_bytes: int) -> tuple[int, int]:
    """Trained parameters, and bytes of each."""
    lora = job.student.lora
    if job.training is None:
        return 0, weight_bytes
    if lora is None:
        return size.parameters, weight_bytes
    return size.layers * sum(lora.r * (inputs + outputs) for inputs, outputs in _adapted(lora, size)), 4


def _adapted(lora: LoraSpec, size: ModelSize) -> list[tuple[int, int]]:
    """Inputs and outputs of the modules of one layer that get an adapter."""
    return [
        shape
        for name, shape in size.linears.items()
        if lora.target_modules == "all-linear" or name in lora.target_modules
    ]


def as_loaded(job: "JobSpec", size: ModelSize | None) -> ModelSize | None:
    """On a CPU, half precision that nobody asked for is loaded as float32."""
    on_cpu = job.resources.gpus == 0
    return replace(size, dtype="float32") if size and on_cpu and _BYTES.get(size.dtype) == 2 else size
