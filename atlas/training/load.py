"""Models and tokenizers, from a spec to memory, or a reason why not."""

import inspect
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from peft import LoraConfig
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TorchAoConfig,
)

from atlas.errors import RunFailed
from atlas.spec import LoraSpec, ModelSpec, StudentSpec, is_local
from atlas.training import ranks
from atlas.training.gguf import converted

logger = logging.getLogger(__name__)

_HALF = (torch.float16, torch.bfloat16)


def device() -> torch.device:
    """The device of this worker: the executor shows it the GPUs it may use, and none means the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_tokenizer(spec: ModelSpec, cache: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, with a padding token. GGUF files are converted below `cache` once.

    Raises RunFailed: `missing_file`, `hub_unreachable`, or `bad_model` (no EOS token, so that no completion could end).
    """
    with _explained(spec):
        tokenizer = AutoTokenizer.from_pretrained(_source(spec, cache), **_hub_options(spec))
    if tokenizer.eos_token_id is None:
        raise RunFailed(
            "bad_model",
            f"the tokenizer of {spec.model} has no EOS token, so no completion could ever end; "
            'set "eos_token" in its tokenizer_config.json',
        )
    if tokenizer.pad_token_id is None:
        # Only the attention mask says what is padding, so that an EOS which pads and one which ends a text differ.
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(spec: ModelSpec, cache: Path, *, trainable: bool) -> PreTrainedModel:
    """A model on this worker's device; frozen and in eval mode unless `trainable`.

    `dtype: auto` is float32 for a student whose own weights are trained, and as stored otherwise, but never a half
    precision on a CPU, where it is slower than float32; bfloat16 for int4. Raises RunFailed as `load_tokenizer` does,
    and `missing_package` or `bad_model` for a teacher that cannot be quantized here.
    """
    model = _read(spec, cache, trainable=trainable)
    _count_positions_from_mask(model)
    model.to(device())
    return model if trainable else model.requires_grad_(False).eval()


def load_again(model: PreTrainedModel, spec: StudentSpec, cache: Path) -> None:
    """Gives a trained model back the weights that `load_model` gave it, in place: a second model might not fit on the
    device. For a student from scratch the caller sets the same seed before. Raises RunFailed as `load_tokenizer` does.
    """
    ranks.load_state(model, _read(spec, cache, trainable=True).state_dict())


def resolved_revision(model: PreTrainedModel) -> str | None:
    """The commit of a hub model; None for a local one."""
    return getattr(model.config, "_commit_hash", None)


def lora_config(spec: LoraSpec) -> LoraConfig:
    """peft's configuration of the adapters."""
    targets = spec.target_modules
    if targets != "all-linear" and "lm_head" in targets:
        raise RunFailed(
            "bad_model",
            "student.lora.target_modules names lm_head, whose adapter would never be trained: the losses read the "
            "head's weights directly; remove it",
        )
    return LoraConfig(
        r=spec.r, lora_alpha=spec.alpha, lora_dropout=spec.dropout, target_modules=targets, task_type="CAUSAL_LM"
    )


def logit_width(model: PreTrainedModel) -> int:
    """How many token ids the model's head can tell apart; often more than the tokenizer has."""
    return model.get_output_embeddings().weight.shape[0]


def vocabulary_size(tokenizer: PreTrainedTokenizerBase) -> int:
    """One more than the highest token id that the tokenizer has."""
    return max(tokenizer.get_vocab().values()) + 1


def check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises RunFailed(`bad_model`) if the tokenizer has ids that the model does not know."""
    highest = vocabulary_size(tokenizer) - 1
    if highest >= logit_width(model):
        raise RunFailed(
            "bad_model",
            f"the tokenizer has token ids up to {highest} and the model only {logit_width(model)} logits; "
            "they do not belong together: check `model` and `revision`",
        )


def tokenizer_difference(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase) -> str | None:
    """The first token id that does not mean the same text to both; None if there is none. Equal sizes prove nothing."""
    students, teachers = _token_by_id(student), _token_by_id(teacher)
    if students == teachers:
        return None
    first = min(i for i in students.keys() | teachers.keys() if students.get(i) != teachers.get(i))
    return (
        f"the first differing id is {first}, {_spoken(students.get(first))} for the student and "
        f"{_spoken(teachers.get(first))} for the teacher"
    )


def _read(spec: ModelSpec, cache: Path, *, trainable: bool) -> PreTrainedModel:
    """The model on the CPU; a quantized one where it stays."""
    source, options = _source(spec, cache), _hub_options(spec)
    adapted = isinstance(spec, StudentSpec) and spec.lora is not None
    dtype = _dtype(spec, fully_trained=trainable and not adapted)
    with _explained(spec):
        if isinstance(spec, StudentSpec) and spec.from_scratch:
            config = AutoConfig.from_pretrained(source, **options)
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32 if dtype == "auto" else dtype)
        else:
            options |= _quantized(spec)
            model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, use_safetensors=True, **options)
    if spec.dtype == "auto" and device().type == "cpu" and model.dtype in _HALF:
        model = model.float()
    return model


def _token_by_id(tokenizer: PreTrainedTokenizerBase) -> dict[int, tuple[str, bool]]:
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return {i: (token, i in special) for token, i in tokenizer.get_vocab().items()}


def _spoken(token: tuple[str, bool] | None) -> str:
    if token is None:
        return "none"
    text, special = token
    return f"{text!r} (special)" if special else repr(text)


def _dtype(spec: ModelSpec, fully_trained: bool) -> Any:
    if spec.dtype != "auto":
        return getattr(torch, spec.dtype)
    if spec.quantization == "int4":
        return torch.bfloat16  # the only type that its kernel computes in
    if fully_trained or (spec.quantization and device().type == "cpu"):
        return torch.float32
    return "auto"


def _quantized(spec: ModelSpec) -> dict[str, Any]:
    """Arguments of `from_pretrained` that quantize the linear layers as they are read, each on the device
    where it stays, so that the full weights are never there together."""
    if spec.quantization is None:
        return {}
    if spec.quantization == "int4" and not (torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)):
        raise RunFailed(
            "bad_model",
            "quantization int4 needs an NVIDIA GPU of compute capability 8.0 or more, which this worker does "
            "not have; use int8 or fp8",
        )
    try:
        from torchao import quantization as torchao
    except ImportError as error:
        raise RunFailed(
            "missing_package",
            f"quantization needs torchao ({error}); pip install 'atlas[quantization]'",
        ) from error
    kind = {
        "int8": torchao.Int8WeightOnlyConfig,
        "fp8": torchao.Float8WeightOnlyConfig,
        "int4": partial(torchao.Int4WeightOnlyConfig, int4_packing_format="tile_packed_to_4d"),  # torch's own kernel
    }[spec.quantization]
    # torchao would change settings of the whole process, in some versions the precision of the student's products.
    return {"quantization_config": TorchAoConfig(kind(set_inductor_config=False)), "device_map": device()}


def _source(spec: ModelSpec, cache: Path) -> str:
    if is_local(spec.model) and not Path(spec.model).is_dir():
        raise RunFailed("missing_file", f"{spec.model} is not a directory; put the model there or correct its path")
    if spec.gguf_file is None:
        return spec.model
    return str(converted(spec, cache))


def _hub_options(spec: ModelSpec) -> dict[str, Any]:
    if spec.trust_remote_code and os.environ.get("ATLAS_TRUST_REMOTE_CODE") != "1":
        raise RunFailed(
            "bad_model",
            f"the spec asks to run the code that {spec.model} ships and this machine does not allow it; "
            "read that code, then export ATLAS_TRUST_REMOTE_CODE=1, or remove `trust_remote_code`",
        )
    return {"revision": spec.revision or "main", "trust_remote_code": spec.trust_remote_code}


@contextmanager
def _explained(spec: ModelSpec) -> Iterator[None]:
    """Turns what transformers raises into a reason. It uses OSError without errno for everything about files."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            raise
        if is_local(spec.model):
            raise RunFailed(
                "missing_file",
                f"{spec.model} does not hold a model in Hugging Face format (config.json, tokenizer, *.safetensors): "
                f"{error}",
            ) from error
        raise RunFailed(
            "hub_unreachable",
            f"could not load {spec.model} from the hub: {error}; check its name and revision, the network and "
            "HF_TOKEN, or give a local directory",
        ) from error
    except (ValueError, KeyError, SafetensorError, StrictDataclassError) as error:
        raise RunFailed(
            "bad_model",
            f"{spec.model} cannot be loaded as a causal language model: {error}; copy the model again if a file is "
            "torn, or choose another",
        ) from error


def _count_positions_from_mask(model: PreTrainedModel) -> None:
    """Gives forwards that have a mask but no positions the same positions as generation uses.

    Without this, left padding shifts the positions of prompts in training, which models with absolute positions
    (GPT-2, for one) take for another text.
    """
    backbone = model.base_model
    if "position_ids" not in inspect.signature(backbone.forward).parameters:
        return

    def add_positions(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        mask = kwargs.get("attention_mask")
        known = kwargs.get("position_ids") is not None or kwargs.get("past_key_values") is not None
        if known or not isinstance(mask, torch.Tensor) or mask.dim() != 2:
            return None
        return args, kwargs | {"position_ids": (mask.long().cumsum(-1) - 1).clamp(min=0)}

    backbone.register_forward_pre_hook(add_positions, with_kwargs=True)
