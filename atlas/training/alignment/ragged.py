"""Rows of different lengths in one array."""

from collections.abc import Sequence
from itertools import chain

import numpy as np


class Ragged:
    """Rows of numbers, one after the other in `values`.

    N any number of rows, in any order.
    """

    def __init__(self, values: np.ndarray, lengths: np.ndarray) -> None:
        """`lengths`: int64, of each row."""
        self.values = values
        self.lengths = lengths
        self._first = lengths.cumsum() - lengths

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> "Ragged":
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        return cls(np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=lengths.sum()), lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def __add__(self, other: "Ragged") -> "Ragged":
        return Ragged(np.append(self.values, other.values), np.append(self.lengths, other.lengths))

    def take(self, row_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The values of these rows, one row after the other, and their lengths [N]."""
        length_N = self.lengths[row_N]
        row_M = row_N[length_N > 0]
        if not len(row_M):
            return self.values[:0], length_N
        # Steps from each place to the next and their sum, which is half the work of repeating a shift for each row.
        first_M, length_M = self._first[row_M], length_N[length_N > 0]
        step = np.ones(length_M.sum(), dtype=np.int64)
        step[length_M.cumsum() - length_M] = first_M - np.append(0, (first_M + length_M - 1)[:-1])
        return self.values[step.cumsum()], length_N

    def rows(self) -> list[list[int]]:
        stops = self.lengths.cumsum().tolist()
        values = self.values.tolist()
        return [values[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]


def totals(value_N: np.ndarray, length_G: np.ndarray) -> np.ndarray:
    """[G]: the sums of G stretches of these lengths."""
    before = np.append(0, value_N.cumsum())
    stop_G = length_G.cumsum()
    return before[stop_G] - before[stop_G - length_G]
