"""The parts of a job file that belong to no plugin. A field's docstring is its documentation everywhere:
`atlas explain`, the JSON Schema, the README.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from atlas.secrets import names_secret

SPEC_VERSION = 1
"""The version of the job file format that this Atlas writes; it reads this one and older ones."""


class Spec(BaseModel):
    """Base of everything that can be written in a job file: strict, frozen, and unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )


class SourceString(str):
    """A string that knows the folder of the file it was written in, so that a relative path means that folder."""

    folder: Path

    def __new__(cls, text: str, folder: Path) -> "SourceString":
        string = super().__new__(cls, text)
        string.folder = folder
        return string


_ENV = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")


def _expand_env(value: Any) -> Any:
    """Replaces `${env:NAME}` by the environment variable. Raises ValueError if it is not set or names a secret."""
    if not isinstance(value, str):
        return value

    def look_up(match: re.Match[str]) -> str:
        name = match[1]
        if names_secret(name):
            raise ValueError(
                f"{name} is the name of a secret, and job files are stored and shown; name another variable"
            )
        if name not in os.environ:
            raise ValueError(f"the environment variable {name} is not set; export it or write the value here")
        return os.environ[name]

    text = _ENV.sub(look_up, value)
    return SourceString(text, value.folder) if isinstance(value, SourceString) else text


def _absolute(value: Any) -> Any:
    if not isinstance(value, str) or not value:
        return value
    if "://" in value:
        scheme = value.split("://", 1)[0]
        raise ValueError(f"{scheme}:// is not supported; expected a path to a local file or directory")
    folder = getattr(value, "folder", None) or Path.cwd()
    try:
        return os.path.normpath(folder / Path(value).expanduser())
    except RuntimeError as error:
        raise ValueError(f"{str(value)!r}: {error}; write the whole path") from error


def _model_reference(value: Any) -> Any:
    """A local directory starts with `.`, `/` or `~`; everything else is a hub id, never looked up on the disk."""
    if not isinstance(value, str):
        return value
    if value.startswith((".", "/", "~")):
        return _absolute(value)
    if not _HUB_ID.fullmatch(value):
        raise ValueError(f"expected a Hub id or a local path (a path starts with ./, ../, / or ~), got {str(value)!r}")
    return str(value)


_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")

EnvString = Annotated[str, BeforeValidator(_expand_env), Field(json_schema_extra={"env": True})]
"""A string in which `${env:NAME}` is replaced. Anywhere else it is an error."""
LocalPath = Annotated[
    str, BeforeValidator(_absolute), BeforeValidator(_expand_env), Field(min_length=1, json_schema_extra={"env": True})
]
"""A local file or directory, relative to the file it is written in; absolute once loaded."""
ModelReference = Annotated[
    str,
    BeforeValidator(_model_reference),
    BeforeValidator(_expand_env),
    Field(min_length=1, json_schema_extra={"env": True}),
]
"""A hub id (`Qwen/Qwen2.5-7B-Instruct`) or a local directory (`./weights/student`)."""


def is_local(model: str) -> bool:
    """Whether a loaded `ModelReference` is a directory rather than a hub id."""
    return model.startswith("/")


class LoraSpec(Spec):
    """Low-rank adapters (arXiv:2106.09685) through peft; the base weights stay frozen."""

    r: int = Field(16, ge=1, le=1024)
    """Rank of the update matrices."""
    alpha: int = Field(32, ge=1)
    """The update is scaled by alpha / r."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input, during training only."""
    target_modules: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)] = "all-linear"
    """Which modules get an adapter: `all-linear` or a list of module names."""
    merge: bool = False
    """Export the student with the adapter merged into its weights as well: `checkpoints/merged`."""


class ModelSpec(Spec):
    """A causal language model and its tokenizer."""

    model: ModelReference
    """Hub id (`Qwen/Qwen2.5-7B-Instruct`) or local directory (starts with `.`, `/` or `~`). May use `${env:NAME}`."""
    revision: str | None = None
    """Branch, tag or commit of a hub model. Pin a commit to make a run repeatable."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the weights in memory. `auto`: as stored for a teacher; float32 for a fully trained student."""
    quantization: Literal["int8", "int4", "fp8"] | None = None
    """Hold the weights of the linear layers in fewer bits, quantized as they are loaded; embeddings and head stay as
    they are. For a teacher, or a model that is only measured: of bfloat16 layers `int8` and `fp8` take half the memory
    and `int4` a quarter, and the distributions change slightly. Needs torchao: `pip install 'atlas[quantization]'`;
    `int4` also a GPU of compute capability 8.0. `int8` and `fp8` were run on a CPU only, `int4` never. Default: as
    stored."""
    gguf_file: str | None = None
    """Name of a GGUF file inside `model`, to be dequantized on load."""
    trust_remote_code: bool = False
    """Run Python code that the model's repository ships. Needs ATLAS_TRUST_REMOTE_CODE=1 in the environment as well."""


class StudentSpec(ModelSpec):
    """The model that is trained (or, with `method: evaluate`, measured)."""

    lora: LoraSpec | None = None
    """Train low-rank adapters instead of all weights."""
    from_scratch: bool = False
    """Start from random weights: `model` then needs only a config and a tokenizer."""


class TrainingSpec(Spec):
    """The optimizer's loop. Every method reads the same fields in the same way."""

    max_steps: int | None = Field(None, ge=1, le=1_000_000_000)
    """Optimizer steps. Either this or `epochs`."""
    epochs: float | None = Field(None, gt=0, le=1_000_000)
    """Passes over the training split. Either this or `max_steps`."""
    batch_size: int = Field(32, ge=1, le=1_000_000)
    """Sequences (for on-policy methods: rollouts) per optimizer step, over all devices."""
    micro_batch_size: int | None = Field(None, ge=1)
    """Sequences per forward pass; must divide `batch_size`. Default: `batch_size`."""
    learning_rate: float = Field(1e-5, gt=0, le=1)
    """Peak learning rate of AdamW."""
    lr_scheduler_type: Literal["constant", "linear", "cosine"] = "constant"
    """Shape of the learning rate after warm-up."""
    warmup_steps: int = Field(0, ge=0, le=1_000_000_000)
    """Steps over which the learning rate rises from 0."""
    weight_decay: float = Field(0.0, ge=0, le=1)
    """AdamW's decoupled weight decay."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this global norm."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory. Never turns the KV cache of generation off."""
    save_every_steps: int = Field(50, ge=1)
    """Steps between checkpoints. The last step is always saved."""
    keep_checkpoints: int = Field(2, ge=1)
    """How many of the newest checkpoints are kept."""

    @model_validator(mode="after")
    def _consistent(self) -> "TrainingSpec":
        if (self.max_steps is None) == (self.epochs is None):
            got = "neither" if self.max_steps is None else "both"
            raise ValueError(f"set max_steps or epochs, not both: got {got}")
        if self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"micro_batch_size must divide batch_size, got {self.micro_batch_size} and {self.batch_size}"
            )
        return self


class BudgetSpec(Spec):
    """What a run may use. At the end of the step that reaches the first of these limits, the run ends as it does after
    its last step: with an evaluation, a checkpoint and the score on test. `training` still says how long the learning
    rate's schedule is, and ends the run if that comes first."""

    gpu_hours: float | None = Field(None, gt=0)
    """Training time x GPUs, in hours; the CPU counts as one device. Loading and evaluation are not counted."""
    train_minutes: float | None = Field(None, gt=0)
    """Training time, in minutes. Loading and evaluation are not counted."""
    rollouts: int | None = Field(None, ge=1)
    """Completions that the student writes for training."""
    steps: int | None = Field(None, ge=1)
    """Optimizer steps."""

    @model_validator(mode="after")
    def _limits_something(self) -> "BudgetSpec":
        if all(limit is None for limit in vars(self).values()):
            raise ValueError(f"a budget without a limit; set one of {', '.join(type(self).model_fields)}")
        return self


class SamplingSpec(Spec):
    """How the student writes its rollouts during training."""

    temperature: float = Field(1.0, gt=0, le=10)
    """Softmax temperature of sampling."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus sampling: keep the smallest set of tokens with this probability."""
    top_k: int = Field(0, ge=0)
    """Keep the k likeliest tokens; 0 keeps all."""
    max_completion_length: int = Field(256, ge=1)
    """Tokens after which a rollout is cut."""
    engine: Literal["atlas", "vllm"] = "atlas"
    """What writes them. `vllm`: vLLM through TRL, on the worker's own GPU, for large models and many rollouts
    (`pip install 'atlas[vllm]'`). It gets the student's weights before each step, and leaves the memory between steps.
    It was never run for real by us, only against a stand-in. Evaluation is always by Atlas."""


class EvaluationSpec(Spec):
    """Pass rate on held-out problems: at step 0, on the way, and at the end. Its time is not on the training clock."""

    split: Literal["dev", "test"] = "dev"
    """What is measured on the way. `dev`: the checkpoint that is best on it is kept, and scored once on test when
    training has ended. `test`: nothing is chosen and nothing else is measured."""
    every_steps: int | None = Field(None, ge=1)
    """Measure every N steps. May be combined with `every_minutes`."""
    every_minutes: float | None = Field(None, gt=0)
    """Measure when this much training time has passed since the last measurement."""
    max_problems: int | None = Field(None, ge=1)
    """Measure only the first N problems of `split` (its order is fixed). Default: all. The final score on test always
    takes all of `dataset.test_size`."""
    batch_size: int = Field(64, ge=1)
    """Completions generated at once."""
    temperature: float = Field(0.0, ge=0, le=10)
    """0 is greedy decoding."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus sampling, when the temperature is above 0."""
    num_samples: int = Field(1, ge=1, le=1000)
    """Completions per problem; the pass rate is the mean over all of them."""
    max_completion_length: int = Field(256, ge=1)
    """Tokens after which a completion is cut."""
    teacher: bool = True
    """Also measure the teacher, if there is one, at step 0."""

    @model_validator(mode="after")
    def _consistent(self) -> "EvaluationSpec":
        if self.temperature == 0 and self.num_samples > 1:
            raise ValueError(
                f"num_samples {self.num_samples} with temperature 0 would write the same completion each time; "
                "set a temperature above 0 or num_samples to 1"
            )
        if self.temperature == 0 and self.top_p < 1:
            raise ValueError("top_p is unused with temperature 0 (greedy); remove it or set a temperature")
        return self


class ResourcesSpec(Spec):
    """What the job needs from the machine."""

    gpus: int | None = Field(None, ge=0)
    """GPUs of one machine to use: 0 is the CPU. Default: one if the machine has any. Several train one model together:
    its weights and optimizer states are split among them (FSDP2), and each learns from its share of every step, so that
    `batch_size` is that of all together. A teacher is whole on each."""
    cpus: int | None = Field(None, ge=1)
    """CPU cores of a job without a GPU (`gpus: 0`): jobs run side by side as long as there are cores for them, each on
    its own. Default: all cores, so that one job runs at a time."""

    @model_validator(mode="before")
    @classmethod
    def _on_one_machine(cls, data: Any) -> Any:
        if isinstance(data, dict) and "nodes" in data:
            raise ValueError(
                f"nodes: {data['nodes']} is not supported: a job runs on one machine; remove it, and use gpus for "
                "several GPUs of that machine"
            )
        return data

    @model_validator(mode="after")
    def _consistent(self) -> "ResourcesSpec":
        if self.cpus is not None and self.gpus != 0:
            raise ValueError("cpus is for jobs on the CPU and would be ignored; set gpus: 0 or remove it")
        return self


class WandbSpec(Spec):
    """Stream the run's metrics to Weights & Biases. The API key is read from WANDB_API_KEY or `wandb login`."""

    project: EnvString = Field(min_length=1)
    """W&B project. May use `${env:NAME}`."""
    entity: EnvString | None = None
    """W&B user or team. Default: the key's own. May use `${env:NAME}`."""
    mode: Literal["auto", "online", "offline"] = "auto"
    """`auto`: online when there is a key and a network, otherwise offline (and says so)."""
