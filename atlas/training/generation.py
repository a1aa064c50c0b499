"""Completions outside of training: batched, with the KV cache, and without touching the training's random numbers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from atlas.training.compatibility import why_not_ours
from atlas.training.head import head_of
from atlas.training.load import vocabulary_size
from atlas.training.prompts import encode_prompts
from atlas.training.rollouts import Decoding, roll_out


@dataclass(frozen=True)
class Completion:
    """One completion. `token_ids` includes the EOS that ended it; `clipped` if the length limit did instead."""

    text: str
    token_ids: list[int]
    clipped: bool


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    max_completion_length: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    batch_size: int,
    seed: int = 0,
    before_batch: Callable[[int, int], None] = lambda done, total: None,
) -> list[Completion]:
    """One completion per rendered prompt, in the order of the prompts; greedy if the temperature is 0.

    The longest prompts come first, so that what does not fit into memory shows at once. `before_batch(done, total)`
    may raise to stop early. The model's mode and all global random states are left as they were.
    """
    rows = encode_prompts(tokenizer, prompts)
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    decoding = Decoding(temperature, max_completion_length, top_p, top_k)
    vocabulary = vocabulary_size(tokenizer)
    model = causal_model(model)
    write = _write_plainly if why_not_ours(model, vocabulary) else _write
    completions: dict[int, Completion] = {}
    with _aside(model, seed), mixed_precision(model):
        for start in range(0, len(order), batch_size):
            before_batch(start, len(order))
            batch = order[start : start + batch_size]
            written = write(model, tokenizer, [rows[i] for i in batch], decoding, seed + start, vocabulary)
            completions |= zip(batch, written, strict=True)
    before_batch(len(order), len(order))
    return [completions[i] for i in range(len(prompts))]


def causal_model(model: Any) -> PreTrainedModel:
    """The causal language model inside what peft has put around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def mixed_precision(model: PreTrainedModel) -> AbstractContextManager[Any]:
    """float32 weights compute in bfloat16 on a GPU that can, in training and evaluation alike; elsewhere nothing."""
    halves = model.device.type == "cuda" and torch.cuda.is_bf16_supported() and model.dtype == torch.float32
    return torch.autocast("cuda", torch.bfloat16) if halves else nullcontext()


def eos_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token that ends a completion: the tokenizer's EOS and those of the model's generation config."""
    declared = model.generation_config.eos_token_id if model.generation_config else None
    others = declared if isinstance(declared, list) else [] if declared is None else [declared]
    return list(dict.fromkeys([tokenizer.eos_token_id, *others]))


def _write(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    decoding: Decoding,
    seed: int,
    vocabulary: int,
) -> list[Completion]:
    eos, head = eos_token_ids(model, tokenizer), head_of(model, vocabulary)
    return [
        Completion(_text(tokenizer, row.completion_ids), row.completion_ids, row.clipped)
        for row in roll_out(model, head, prompts, 1, decoding, eos_token_ids=eos, seed=seed)
    ]


def _write_plainly(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    decoding: Decoding,
    seed: int,
    vocabulary: int,
) -> list[Completion]:
    """By transformers' own `generate`, for models that `compatibility` finds to be of another kind."""
    eos, width = eos_token_ids(model, tokenizer), max(map(len, prompts))
    padded = [[tokenizer.pad_token_id] * (width - len(row)) + row for row in prompts]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in prompts]
    sampling = {"temperature": decoding.temperature, "top_p": decoding.top_p, "top_k": decoding.top_k}
    config = GenerationConfig(
        max_new_tokens=decoding.max_completion_length,
        do_sample=decoding.temperature > 0,
        num_beams=1,
        repetition_penalty=1.0,
        use_cache=True,
        eos_token_id=eos,
        pad_token_id=tokenizer.pad_token_id,
        disable_compile=True,
        **(sampling if decoding.temperature > 0 else {}),
    )
    output = model.generate(
        input_ids=torch.tensor(padded, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
        generation_config=config,
    )
    return [_completion(tokenizer, row, eos) for row in output[:, width:].tolist()]


def _completion(tokenizer: PreTrainedTokenizerBase, row: list[int], eos: list[int]) -> Completion:
    end = next((i for i, token in enumerate(row) if token in eos), None)
    token_ids = row if end is None else row[: end + 1]
    return Completion(_text(tokenizer, token_ids), token_ids, clipped=end is None)


def _text(tokenizer: PreTrainedTokenizerBase, token_ids: list[int]) -> str:
    return tokenizer.decode(token_ids, skip_special_tokens=True)


@contextmanager
def _aside(model: PreTrainedModel, seed: int) -> Iterator[None]:
    """Eval mode, no gradients, and random numbers of its own inside; everything as before outside."""
    was_training = model.training
    model.eval()
    forked = [model.device] if model.device.type == "cuda" else []
    try:
        with torch.inference_mode(), torch.random.fork_rng(devices=forked):
            torch.manual_seed(seed)
            yield
    finally:
        model.train(was_training)
