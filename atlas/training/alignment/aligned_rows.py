"""The chunks of a micro-batch as flat tensors.

S tokens of one side in all rows; C chunks; M tokens of one side's chunks, N as well, in the order of the text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch


@dataclass(frozen=True)
class Side:
    """The tokens of one side's chunks: first the C that start a chunk, in order; then the others, in order."""

    row_M: torch.Tensor
    """The hidden state that predicts it."""
    id_M: torch.Tensor
    chunk_M: torch.Tensor


@dataclass(frozen=True)
class AlignedRows:
    """The chunks of a micro-batch."""

    student: Side
    teacher: Side
    canonical_C: torch.Tensor
    """Whether the student's tokenizer splits these bytes as the student did."""
    closes_number_C: torch.Tensor
    """Whether it ends with a digit and a chunk follows that starts with none."""
    next_C: torch.Tensor
    """The chunk that follows directly, on both sides; -1 where none does."""

    @classmethod
    def of(
        cls,
        student_ids: Sequence[Sequence[int]],
        teacher_ids: Sequence[Sequence[int]],
        student_chunk: Sequence[np.ndarray],
        teacher_chunk: Sequence[np.ndarray],
        canonical: Sequence[np.ndarray],
        closes_number: Sequence[np.ndarray],
        device: torch.device | str = "cpu",
    ) -> Self:
        """From the fields of an `Alignment`, by row. Each side has one hidden state for each of its ids, row by row."""
        chunks = np.array([len(row) for row in canonical], dtype=np.int64)
        first_chunk = np.cumsum(chunks) - chunks
        student, student_next_C = _side(student_ids, student_chunk, first_chunk, device)
        teacher, teacher_next_C = _side(teacher_ids, teacher_chunk, first_chunk, device)
        next_C = np.where(student_next_C == teacher_next_C, student_next_C, -1)
        next_C[(first_chunk + chunks - 1)[chunks > 0]] = -1
        none = np.zeros(0, dtype=bool)
        canonical_C, closes_C = np.concatenate([none, *canonical]), np.concatenate([none, *closes_number])
        assert len(canonical_C) == len(closes_C) == len(next_C)
        return cls(student, teacher, *(torch.from_numpy(each).to(device) for each in (canonical_C, closes_C, next_C)))


def _side(
    ids: Sequence[Sequence[int]], chunk: Sequence[np.ndarray], first_chunk: np.ndarray, device: torch.device | str
) -> tuple[Side, np.ndarray]:
    """A side, and the chunk of the token after each chunk's last [C]; negative where it is in none."""
    assert all(len(a) == len(b) for a, b in zip(ids, chunk, strict=True)), "one chunk index for each token"
    none = np.zeros(0, dtype=np.int64)
    id_S = np.concatenate([none, *(np.asarray(row, dtype=np.int64) for row in ids)])
    shifted = [np.where(row < 0, -1, row + first) for row, first in zip(chunk, first_chunk, strict=True)]
    chunk_S = np.concatenate([none, *shifted])
    row_N = np.flatnonzero(chunk_S >= 0)
    chunk_N = chunk_S[row_N]
    starts_N, ends_N = np.diff(chunk_N, prepend=-1) != 0, np.diff(chunk_N, append=-1) != 0
    assert np.array_equal(chunk_N[starts_N], np.arange(starts_N.sum())), "chunks are in order and none is empty"
    next_C = np.append(chunk_S, -1)[row_N[ends_N] + 1]
    row_M = np.concatenate([row_N[starts_N], row_N[~starts_N]])
    return Side(*(torch.from_numpy(each).to(device) for each in (row_M, id_S[row_M], chunk_S[row_M]))), next_C
