"""Completions outside of training: batched, with the KV cache, and without touching the training's random numbers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from atlas.training.prompts import encode_prompts


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
    eos = eos_token_ids(model, tokenizer)
    sampling = {"temperature": temperature, "top_p": top_p, "top_k": top_k} if temperature > 0 else {}
    config = GenerationConfig(
        max_new_tokens=max_completion_length,
        do_sample=temperature > 0,
        num_beams=1,
        repetition_penalty=1.0,
        use_cache=True,
        eos_token_id=eos,
        pad_token_id=tokenizer.pad_token_id,
        disable_compile=True,
        **sampling,
    )
    completions: dict[int, Completion] = {}
    with _aside(model, seed):
        for start in range(0, len(order), batch_size):
            before_batch(start, len(order))
            batch = order[start : start + batch_size]
            input_ids, mask = _pad_left([rows[i] for i in batch], tokenizer.pad_token_id)
            output = model.generate(
                input_ids=input_ids.to(model.device), attention_mask=mask.to(model.device), generation_config=config
            )
            for i, row in zip(batch, output[:, input_ids.shape[1] :].tolist(), strict=True):
                completions[i] = _completion(tokenizer, row, eos)
    before_batch(len(order), len(order))
    return [completions[i] for i in range(len(prompts))]


def eos_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token that ends a completion: the tokenizer's EOS and those of the model's generation config."""
    declared = model.generation_config.eos_token_id if model.generation_config else None
    others = declared if isinstance(declared, list) else [] if declared is None else [declared]
    return list(dict.fromkeys([tokenizer.eos_token_id, *others]))


def _completion(tokenizer: PreTrainedTokenizerBase, row: list[int], eos: list[int]) -> Completion:
    end = next((i for i, token in enumerate(row) if token in eos), None)
    token_ids = row if end is None else row[: end + 1]
    return Completion(tokenizer.decode(token_ids, skip_special_tokens=True), token_ids, clipped=end is None)


def _pad_left(rows: list[list[int]], pad_token_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    ids = [[pad_token_id] * (width - len(row)) + row for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)


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
