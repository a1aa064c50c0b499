"""The chunks of two tokenizations of the same text: the pieces between the boundaries that they share.

Legend: S tokens of the student and T of the teacher, of all rows one after the other; R rows; U units of text.
"""

import numpy as np


def chunk(
    student_end_S: np.ndarray, teacher_end_T: np.ndarray, row_end_R: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The chunk of each token, counted from 0 in its row, and the number of chunks of each row [R].

    The ends are positions in the text of all rows, so that no two tokens of a side have the same; `row_end_R` is where
    the text of each row ends. A chunk is what lies between two neighbouring positions at which tokens of both sides
    end: chunks are minimal, in order, and without gaps from the start of their row. Tokens after the last shared end
    of a row, which one side does not write to its end, are in no chunk: -1.

    A bitmap over positions marks the shared ends: O(S + T + U), without a loop.
    """
    units = int(row_end_R[-1]) if len(row_end_R) else 0
    shared_S = _bitmap(teacher_end_T, units)[student_end_S]
    shared_T = _bitmap(student_end_S, units)[teacher_end_T]
    row_S, row_T = row_of(student_end_S, row_end_R), row_of(teacher_end_T, row_end_R)
    chunks_R = np.bincount(row_S[shared_S], minlength=len(row_end_R))
    return _within_row(shared_S, row_S, chunks_R), _within_row(shared_T, row_T, chunks_R), chunks_R


def row_of(end_N: np.ndarray, row_end_R: np.ndarray) -> np.ndarray:
    """[N]: the row of what ends at these positions, which go up."""
    stop_R = np.searchsorted(end_N, row_end_R, side="right")
    return np.arange(len(row_end_R)).repeat(np.diff(stop_R, prepend=0))


def _bitmap(end_N: np.ndarray, units: int) -> np.ndarray:
    ends_U = np.zeros(units + 1, dtype=bool)
    ends_U[end_N] = True
    return ends_U


def _within_row(shared_N: np.ndarray, row_N: np.ndarray, chunks_R: np.ndarray) -> np.ndarray:
    chunk_N = shared_N.cumsum() - shared_N - (chunks_R.cumsum() - chunks_R)[row_N]
    # What comes after the last shared end would be in the chunk that the row does not have any more.
    return np.where(chunk_N < chunks_R[row_N], chunk_N, -1)
