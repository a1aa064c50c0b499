"""Sampled tokens beside the teacher's tokens for the same bytes.

Legend: R rows; N tokens of the student, of all rows one after the other; S those of them that are text or end a turn;
T tokens of the teacher; G segments, the stretches of text between control tokens; C chunks; U units of text: a byte,
or an end of turn.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
from transformers import PreTrainedTokenizerBase

from atlas.errors import RunFailed
from atlas.training.alignment.byte_table import ByteTable, byte_table
from atlas.training.alignment.chunking import chunk, row_of
from atlas.training.alignment.encoding import Encoder
from atlas.training.alignment.pieces import Pieces, Texts
from atlas.training.alignment.ragged import Ragged, totals

Values = TypeVar("Values", list[int], np.ndarray)


@dataclass(frozen=True)
class Alignment:
    """Per row: the teacher's tokens, and which of them face which of the student's.

    A chunk is the same bytes on both sides, as few as possible. Chunks are in order and without gaps; none goes across
    a control token, and an end of turn faces an end of turn in a chunk of its own. Masked (-1) are holes (control
    tokens that end no turn, ids without a token), and the rest of a row from its last shared boundary before what the
    teacher has no token for.
    """

    teacher_ids: list[list[int]]
    """What the teacher reads, up to its last token that is in a chunk."""
    student_chunk: list[np.ndarray]
    """int64 [tokens]: the chunk of each student token, counted from 0 in its row; -1: masked."""
    teacher_chunk: list[np.ndarray]
    """int64 [teacher tokens]: the same; none is masked."""
    canonical: list[np.ndarray]
    """bool [chunks]: whether the student's own tokenizer would have split the text into just these tokens here."""
    closes_number: list[np.ndarray]
    """bool [chunks]: it ends with a digit, and the next chunk follows at once and starts with none. False where
    unknown, at the end of a row without end of turn, and before a hole."""
    figures: dict[str, float]
    """Shares of all, 1 of none: `coverage`, student tokens in a chunk; `eot_aligned`, ends of turn in a chunk;
    `one_to_one`, chunks of one token on both sides. `noncanonical`: chunks that are not canonical, of all, 0 of none.
    `chunk_len_student`, `chunk_len_teacher`: tokens per chunk. `holes`: how many. `align_ms`: milliseconds it took."""


def align(
    student_ids: Sequence[Sequence[int]],
    student_tokenizer: PreTrainedTokenizerBase,
    teacher_tokenizer: PreTrainedTokenizerBase,
) -> Alignment:
    """Aligns completions, given as the ids that were sampled, with the teacher's tokens.

    Raises RunFailed(`bad_model`) if the bytes of a token of either tokenizer cannot be known, and for an id beyond the
    student's. An id among them that has no token is a hole.
    """
    # A tokenizer can be changed in place; what was made of it before then is of another.
    states = [(len(tokenizer), tokenizer.eos_token_id) for tokenizer in (student_tokenizer, teacher_tokenizer)]
    return _aligner(student_tokenizer, teacher_tokenizer, *states)(student_ids)


class Aligner:
    """`aligner(student_ids)`: what `align` does, with tables and encoders that are made once."""

    def __init__(
        self,
        student: ByteTable,
        teacher: ByteTable,
        student_tokenizer: PreTrainedTokenizerBase,
        teacher_tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        self._student = student
        self._teacher = teacher
        self._as_student = Encoder(student_tokenizer, student)
        self._as_teacher = Encoder(teacher_tokenizer, teacher)
        self._pieces = Pieces()

    def __call__(self, student_ids: Sequence[Sequence[int]]) -> Alignment:
        """As `align`."""
        started = time.perf_counter()
        text = _Text(student_ids, self._student)
        self._pieces = self._pieces.kept()
        segments = Texts(text.segments, self._pieces)
        teacher_ids_T, teacher_end_T = self._teacher_tokens(text, self._as_teacher.encode(segments))
        student_chunk_S, teacher_chunk_T, chunks_R = chunk(text.end_S, teacher_end_T, text.end_R)

        aligned_S, aligned_T = student_chunk_S >= 0, teacher_chunk_T >= 0
        first_R = chunks_R.cumsum() - chunks_R
        student_of_batch = (student_chunk_S + first_R[row_of(text.end_S, text.end_R)])[aligned_S]
        teacher_of_batch = (teacher_chunk_T + first_R[row_of(teacher_end_T, text.end_R)])[aligned_T]
        end_C = _last_of_each(student_of_batch, text.end_S[aligned_S])
        assert np.array_equal(end_C, _last_of_each(teacher_of_batch, teacher_end_T[aligned_T])), "chunks of other text"

        canonical_C = np.ones(len(end_C), dtype=bool)
        canonical_C[student_of_batch[~self._canonical(text, self._as_student.encode(segments))[aligned_S]]] = False
        followed_C = np.ones(len(end_C), dtype=bool)
        followed_C[(first_R + chunks_R - 1)[chunks_R > 0]] = False
        closes_C = text.digit_U[end_C - 1] & ~text.digit_U[end_C] & ~text.hole_U[end_C] & followed_C

        student_chunk_N = np.full(len(text.ids_N), -1)
        student_chunk_N[~text.hole_N] = student_chunk_S
        eot_S = text.eot_N[~text.hole_N]
        single_C = (np.bincount(student_of_batch) == 1) & (np.bincount(teacher_of_batch) == 1)
        figures = {
            "coverage": _share(aligned_S.sum(), len(text.ids_N)),
            "one_to_one": _share(single_C.sum(), len(end_C)),
            "chunk_len_student": _share(aligned_S.sum(), len(end_C)),
            "chunk_len_teacher": _share(aligned_T.sum(), len(end_C)),
            "noncanonical": 1 - _share(canonical_C.sum(), len(end_C)),
            "holes": float(text.hole_N.sum()),
            "eot_aligned": _share((aligned_S & eot_S).sum(), eot_S.sum()),
        }
        teacher_stop_R = np.searchsorted(teacher_end_T[aligned_T], text.end_R, side="right")
        return Alignment(
            teacher_ids=_rows(teacher_ids_T[aligned_T].tolist(), teacher_stop_R),
            student_chunk=_rows(student_chunk_N, text.stop_R),
            teacher_chunk=_rows(teacher_chunk_T[aligned_T], teacher_stop_R),
            canonical=_rows(canonical_C, chunks_R.cumsum()),
            closes_number=_rows(closes_C, chunks_R.cumsum()),
            figures=figures | {"align_ms": 1000 * (time.perf_counter() - started)},
        )

    def _teacher_tokens(self, text: "_Text", encoded: Ragged) -> tuple[np.ndarray, np.ndarray]:
        """The teacher's ids and where each ends in the text; of each row up to what the teacher cannot write.

        `encoded`: its ids for the segments.
        """
        ids_T = encoded.values
        start_T, written_G = _place(encoded, text.start_G, self._teacher)
        end_T = start_T + self._teacher.lengths[ids_T]
        unwritten = written_G < text.stop_G - text.start_G
        first_unwritten = [(text.start_G + written_G)[unwritten]]

        eot_end = text.end_N[text.eot_N]
        if self._teacher.end_of_turn is None:
            first_unwritten.append(eot_end - 1)
        else:
            places = np.searchsorted(end_T, eot_end)
            ids_T = np.insert(ids_T, places, self._teacher.end_of_turn)
            end_T = np.insert(end_T, places, eot_end)

        cuts = np.concatenate(first_unwritten)
        if not len(cuts):
            return ids_T, end_T
        cut_R = text.end_R.copy()
        np.minimum.at(cut_R, np.searchsorted(text.end_R, cuts + 1), cuts)
        kept_T = end_T <= cut_R[row_of(end_T, text.end_R)]
        return ids_T[kept_T], end_T[kept_T]

    def _canonical(self, text: "_Text", encoded: Ragged) -> np.ndarray:
        """bool [S]: whether the token is what the student's own tokenizer has here.

        `encoded`: its ids for the segments.
        """
        start, _ = _place(encoded, text.start_G, self._student)
        id_at_U = np.full(text.units + 1, -1)
        id_at_U[start] = encoded.values
        return text.eot_N[~text.hole_N] | (id_at_U[text.start_S] == text.ids_N[~text.hole_N])


@lru_cache(maxsize=4)
def _aligner(
    student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase, *states: tuple[int, int | None]
) -> Aligner:
    return Aligner(byte_table(student), byte_table(teacher), student, teacher)


class _Text:
    """What the student wrote: its tokens, where they are in the text of the whole batch, and the segments of this text.

    A position counts units, so that an end of turn has a place of its own between the bytes; a hole takes none.
    """

    def __init__(self, student_ids: Sequence[Sequence[int]], table: ByteTable) -> None:
        ids = Ragged.of(student_ids)
        self.ids_N, self.stop_R = ids.values, ids.lengths.cumsum()
        self._check_ids(table)
        self.eot_N = table.ends_turn[self.ids_N]
        units_N = table.lengths[self.ids_N] + self.eot_N
        self.hole_N = units_N == 0
        self.end_N = units_N.cumsum()
        self.end_S = self.end_N[~self.hole_N]
        self.start_S = self.end_S - units_N[~self.hole_N]

        before = np.append(0, self.end_N)
        self.units = int(before[-1])
        self.end_R = before[self.stop_R]
        self.hole_U = self._marks(self.end_N[self.hole_N])
        text_U = np.zeros(self.units + 1, dtype=np.uint8)
        text_U[:-1][~self._marks(self.end_N[self.eot_N] - 1)[:-1]] = table.text(self.ids_N)
        self.digit_U = text_U - np.uint8(ord("0")) < 10  # what is below "0" wraps around

        control = np.flatnonzero(self.hole_N | self.eot_N)
        row_starts = np.append(0, self.stop_R)[:-1]
        self.start_G = before[np.sort(np.append(row_starts, control + 1))]
        self.stop_G = before[np.sort(np.append(self.stop_R, control))]
        data = text_U.tobytes()
        self.segments = [
            data[start:stop] for start, stop in zip(self.start_G.tolist(), self.stop_G.tolist(), strict=True)
        ]

    def _marks(self, positions: np.ndarray) -> np.ndarray:
        """bool [U + 1]: whether each position is one of these."""
        marks_U = np.zeros(self.units + 1, dtype=bool)
        marks_U[positions] = True
        return marks_U

    def _check_ids(self, table: ByteTable) -> None:
        wrong = np.flatnonzero((self.ids_N < 0) | (self.ids_N >= len(table.bytes_V)))
        if len(wrong):
            row = np.searchsorted(self.stop_R, wrong[0], side="right")
            raise RunFailed(
                "bad_model",
                f"completion {row} holds the id {self.ids_N[wrong[0]]}, but the student's tokenizer has the ids 0 to "
                f"{len(table.bytes_V) - 1}; sample only ids of the tokenizer, however wide the model's head is",
            )


def _place(ids: Ragged, start_G: np.ndarray, table: ByteTable) -> tuple[np.ndarray, np.ndarray]:
    """Where each id of the segments starts in the text, and the bytes written of each segment."""
    length_N = table.lengths[ids.values]
    written_G = totals(length_N, ids.lengths)
    shift_G = start_G - (written_G.cumsum() - written_G)
    return length_N.cumsum() - length_N + shift_G.repeat(ids.lengths), written_G


def _last_of_each(chunk_N: np.ndarray, end_N: np.ndarray) -> np.ndarray:
    """[C]: the end of the last token of each chunk."""
    return end_N[np.diff(chunk_N, append=-1) != 0]


def _rows(values: Values, stop_R: np.ndarray) -> list[Values]:
    stops: list[int] = stop_R.tolist()
    return [values[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]


def _share(part: float, whole: int) -> float:
    return float(part / whole) if whole else 1.0
