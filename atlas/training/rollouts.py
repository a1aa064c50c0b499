"""Completions for training: the prompts of a whole step at once, each prompt read once, finished rows leave the batch.

B rows that go on, L keys in the cache, K heads of keys and values, D size of a head, V logits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import torch
from transformers import PreTrainedModel, TopKLogitsWarper, TopPLogitsWarper
from transformers.cache_utils import Cache, DynamicLayer

from atlas.errors import RunFailed
from atlas.training.attention import own_attention
from atlas.training.distributions import log_softmax
from atlas.training.head import Head, head_of
from atlas.training.packing import Row, pack

_MIN_GROWTH = 64
"""Keys that the cache grows by at least."""


@dataclass(frozen=True)
class Rollout:
    """What a model wrote after a prompt. `completion_ids` ends with EOS unless `clipped`."""

    prompt_ids: list[int]
    completion_ids: list[int]
    logprobs: list[float]
    """Of each token, at the sampling temperature, before top-k and top-p."""
    clipped: bool

    @property
    def row(self) -> Row:
        return self.prompt_ids, self.completion_ids


@dataclass(frozen=True)
class Writer:
    """A model that writes completions, in the tokens of its own tokenizer."""

    model: PreTrainedModel
    vocabulary: int
    """How many of its logits count."""
    prompts: Sequence[list[int]]
    """Of every example."""
    eos_token_ids: Sequence[int]

    @property
    def head(self) -> Head:
        return head_of(self.model, self.vocabulary)


class Sampling(Protocol):
    """How tokens are chosen: `SamplingSpec` is one, `Decoding` another."""

    @property
    def temperature(self) -> float:
        """0 takes the likeliest token."""

    @property
    def top_p(self) -> float: ...

    @property
    def top_k(self) -> int: ...

    @property
    def max_completion_length(self) -> int: ...


@dataclass(frozen=True)
class Decoding:
    """A way of choosing tokens that may be greedy."""

    temperature: float
    max_completion_length: int
    top_p: float = 1.0
    top_k: int = 0


def roll_out(
    model: PreTrainedModel,
    head: Head,
    prompts: Sequence[list[int]],
    num_generations: int,
    sampling: Sampling,
    *,
    eos_token_ids: Sequence[int],
    seed: int,
) -> list[Rollout]:
    """`num_generations` rollouts of each prompt, in the order of the prompts. Equal arguments give equal rollouts.

    Without dropout, whatever the model's mode, which is left as it was.
    """
    device = model.device
    generator = torch.Generator(device).manual_seed(seed)
    warpers = _warpers(sampling)
    eos = torch.tensor(list(eos_token_ids), device=device)
    rows = [prompt for prompt in prompts for _ in range(num_generations)]
    written: list[list[int]] = [[] for _ in rows]
    logprobs: list[list[float]] = [[] for _ in rows]
    ended = [False] * len(rows)
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), own_attention(model):
            cache, visible_BL, hidden_BD = _read(model, prompts, num_generations)
            alive_B = torch.arange(len(rows), device=device)
            position_B = torch.tensor([len(row) for row in rows], device=device)
            for length in range(1, sampling.max_completion_length + 1):
                logits_BV = head.logits(hidden_BD) / (sampling.temperature or 1.0)
                tokens_B, logprobs_B = _sample(logits_BV, warpers, generator if sampling.temperature else None)
                done_B = torch.isin(tokens_B, eos)
                columns = (column.tolist() for column in (alive_B, tokens_B, logprobs_B, done_B))
                for row, token, logprob, done in zip(*columns, strict=True):
                    written[row].append(token)
                    logprobs[row].append(logprob)
                    ended[row] = done
                if length == sampling.max_completion_length or bool(done_B.all()):
                    break
                if bool(done_B.any()):
                    kept = (~done_B).nonzero()[:, 0]
                    alive_B, tokens_B, position_B = alive_B[kept], tokens_B[kept], position_B[kept]
                    visible_BL = visible_BL[kept]
                    cache.batch_select_indices(kept)
                visible_BL = torch.cat([visible_BL, visible_BL.new_ones(len(visible_BL), 1)], dim=1)
                hidden_BD = model.get_decoder()(
                    input_ids=tokens_B[:, None],
                    position_ids=position_B[:, None],
                    past_key_values=cache,
                    use_cache=True,
                    visible_BL=visible_BL,
                ).last_hidden_state[:, -1]
                position_B = position_B + 1
    finally:
        model.train(was_training)
    finished = zip(rows, written, logprobs, ended, strict=True)
    return [Rollout(row, ids, of_ids, clipped=not end) for row, ids, of_ids, end in finished]


class _GrowingLayer(DynamicLayer):
    """Writes new keys into room that is there already, where `DynamicLayer` copies all old ones for every token."""

    def __init__(self) -> None:
        super().__init__()
        self.length = 0
        self.key_room: torch.Tensor | None = None
        self.value_room: torch.Tensor | None = None

    def fill(self, keys_BKLD: torch.Tensor, values_BKLD: torch.Tensor) -> None:
        """Starts with these."""
        self.lazy_initialization(keys_BKLD, values_BKLD)
        self.keys, self.values, self.length = keys_BKLD, values_BKLD, keys_BKLD.shape[2]
        self.key_room, self.value_room = _with_room(keys_BKLD), _with_room(values_BKLD)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.key_room is None:
            self.fill(key_states, value_states)
            return self.keys, self.values
        assert self.value_room is not None
        end = self.length + key_states.shape[2]
        if end > self.key_room.shape[2]:
            self.key_room, self.value_room = _with_room(self.keys), _with_room(self.values)
        self.key_room[:, :, self.length : end] = key_states
        self.value_room[:, :, self.length : end] = value_states
        self.length = end
        self.keys, self.values = self.key_room[:, :, :end], self.value_room[:, :, :end]
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self.fill(self.keys[indices], self.values[indices])


def _with_room(states_BKLD: torch.Tensor) -> torch.Tensor:
    rows, heads, length, size = states_BKLD.shape
    room = states_BKLD.new_empty(rows, heads, length + max(_MIN_GROWTH, length // 4), size)
    room[:, :, :length] = states_BKLD
    return room


def _read(
    model: PreTrainedModel, prompts: Sequence[list[int]], num_generations: int
) -> tuple[Cache, torch.Tensor, torch.Tensor]:
    """The cache of all prompts, repeated for their rollouts, the keys that are visible in it, and what the head reads.

    The prompts are read as one packed row: padding them to the longest would cost as much again.
    """
    layers = model.config.get_text_config().num_hidden_layers
    runs = [(prompt, sum(num_generations for _ in run)) for prompt, run in groupby(prompts)]  # equal prompts once
    prompts = [prompt for prompt, _ in runs]
    repeats = torch.tensor([number for _, number in runs], device=model.device)
    packed = pack([(prompt, [0]) for prompt in prompts], model.device)
    once = Cache(layers=[_GrowingLayer() for _ in range(layers)])
    hidden_TD = (
        model.get_decoder()(
            input_ids=packed.input_ids_T[None],
            position_ids=packed.position_ids_T[None],
            past_key_values=once,
            use_cache=True,
            segments=packed.segments,
        )
    ).last_hidden_state[0]
    width = max(map(len, prompts))
    visible_BL = torch.zeros(len(prompts), width, dtype=torch.bool, device=model.device)
    for row, prompt in enumerate(prompts):
        visible_BL[row, width - len(prompt) :] = True
    cache = Cache(layers=[_GrowingLayer() for _ in range(layers)])
    for source, target in zip(once.layers, cache.layers, strict=True):
        spread = (_spread(states, visible_BL).repeat_interleave(repeats, 0) for states in (source.keys, source.values))
        target.fill(*spread)
        source.keys = source.values = source.key_room = source.value_room = None
    hidden_BD = hidden_TD[packed.predicting_N].repeat_interleave(repeats, 0)
    return cache, visible_BL.repeat_interleave(repeats, 0), hidden_BD


def _spread(states_1KTD: torch.Tensor, visible_BL: torch.Tensor) -> torch.Tensor:
    """The packed keys of all prompts, one row each, ending at the same column."""
    rows, width = visible_BL.shape
    spread_BLKD = states_1KTD.new_zeros(rows, width, states_1KTD.shape[1], states_1KTD.shape[3])
    spread_BLKD[visible_BL] = states_1KTD[0].transpose(0, 1)
    return spread_BLKD.transpose(1, 2).contiguous()


def _warpers(sampling: Sampling) -> list[TopKLogitsWarper | TopPLogitsWarper]:
    warpers: list[TopKLogitsWarper | TopPLogitsWarper] = []
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    return warpers


def _sample(
    logits_BV: torch.Tensor, warpers: Sequence[TopKLogitsWarper | TopPLogitsWarper], generator: torch.Generator | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and their log-probabilities: the likeliest ones without a generator."""
    logprobs_BV = log_softmax(logits_BV)
    if bool(logprobs_BV[:, 0].isnan().any()):
        raise RunFailed(
            "non_finite_loss",
            "the logits of the model are NaN or infinite while it writes; lower training.learning_rate, add "
            "training.warmup_steps, or use dtype float32",
        )
    if generator is None:
        best = logprobs_BV.max(-1)
        return best.indices, best.values
    for warper in warpers:
        logits_BV = warper(None, logits_BV)
    probs_BV = logits_BV.softmax(-1) if warpers else logprobs_BV.exp()
    tokens_B1 = torch.multinomial(probs_BV, 1, generator=generator)
    return tokens_B1[:, 0], logprobs_BV.gather(1, tokens_B1)[:, 0]
