"""Rollouts of different lengths as one row without padding, in which a prompt that several completions share is there
once.

T tokens of the packed row, N predicted tokens (all completion tokens).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

Row = tuple[Sequence[int], Sequence[int]]
"""(prompt_ids, completion_ids)."""


@dataclass(frozen=True)
class Segment:
    """Tokens `start:end` of the packed row see those of `prefix_start:prefix_end`, and their own up to themselves."""

    start: int
    end: int
    prefix_start: int
    prefix_end: int


@dataclass(frozen=True)
class Packed:
    """The token at `predicting_N[i]` predicts `target_ids_N[i]`, of row `row_N[i]`; by row, then by place."""

    input_ids_T: torch.Tensor
    position_ids_T: torch.Tensor
    segments: tuple[Segment, ...]
    predicting_N: torch.Tensor
    target_ids_N: torch.Tensor
    row_N: torch.Tensor


def pack(rows: Sequence[Row], device: torch.device | str = "cpu") -> Packed:
    """Packs rows; neighbours with equal prompts share it. Neither prompts nor completions may be empty.

    The last token of a completion predicts nothing and is left out.
    """
    input_ids: list[int] = []
    positions: list[int] = []
    segments: list[Segment] = []
    predicting: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    row = 0
    for prompt, group in groupby(rows, key=lambda row: row[0]):
        assert len(prompt), "an empty prompt predicts nothing"
        prefix_start, prefix_end = len(input_ids), len(input_ids) + len(prompt)
        input_ids += prompt
        positions += range(len(prompt))
        for number, (_, completion) in enumerate(group):
            assert len(completion), "an empty completion has nothing to predict"
            start, body = len(input_ids), completion[:-1]
            input_ids += body
            positions += range(len(prompt), len(prompt) + len(body))
            if number == 0:  # the first completion goes on where the prompt ends: one causal block
                segments.append(Segment(prefix_start, start + len(body), prefix_start, prefix_start))
            elif body:
                segments.append(Segment(start, start + len(body), prefix_start, prefix_end))
            predicting += [prefix_end - 1, *range(start, start + len(body))]
            targets += completion
            owners += [row] * len(completion)
            row += 1
    tensors = [torch.tensor(values, device=device) for values in (input_ids, positions, predicting, targets, owners)]
    input_ids_T, position_ids_T, predicting_N, target_ids_N, row_N = tensors
    return Packed(input_ids_T, position_ids_T, tuple(segments), predicting_N, target_ids_N, row_N)


def micro_batches(rows: Sequence[Row], max_rows: int | None, max_tokens: int) -> Iterator[list[int]]:
    """Indices of rows that are packed together: at most `max_rows`, and `max_tokens` of the packed row unless one row
    alone has more. Rows with equal prompts come together; the longest first, so that what does not fit into memory
    shows at once."""
    order = sorted(range(len(rows)), key=lambda i: (-len(rows[i][0]), list(rows[i][0]), -len(rows[i][1])))
    chosen: list[int] = []
    tokens = 0
    for i in order:
        prompt, completion = rows[i]
        shared = chosen and rows[chosen[-1]][0] == prompt
        added = len(completion) - 1 + (0 if shared else len(prompt))
        if chosen and (tokens + added > max_tokens or len(chosen) == max_rows):
            yield chosen
            chosen, tokens, added = [], 0, len(completion) - 1 + len(prompt)
        chosen.append(i)
        tokens += added
    if chosen:
        yield chosen
