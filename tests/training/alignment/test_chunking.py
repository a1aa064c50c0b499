"""Chunks of ends alone, against a walk over every position."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.training.alignment.chunking import chunk

lengths = st.lists(st.integers(1, 4), max_size=8)


def walk(student: list[int], teacher: list[int]) -> tuple[list[int], list[int], int]:
    """The chunks of one row of ends."""
    shared = sorted(set(student) & set(teacher))
    last = shared[-1] if shared else 0

    def chunk_of(end: int) -> int:
        return -1 if end > last else sum(boundary < end for boundary in shared)

    return [chunk_of(end) for end in student], [chunk_of(end) for end in teacher], len(shared)


@settings(max_examples=400, derandomize=True, deadline=None, database=None)
@given(st.lists(st.tuples(lengths, lengths), max_size=5))
def test_chunks_are_those_of_a_walk_over_each_row(rows):
    student, teacher, row_ends, expected, before = [], [], [], [], 0
    for mine, its in rows:
        ends = [np.cumsum(np.array(side, dtype=np.int64)) for side in (mine, its)]
        expected.append(walk(*(side.tolist() for side in ends)))
        student.append(ends[0] + before)
        teacher.append(ends[1] + before)
        before += max([0, *ends[0].tolist(), *ends[1].tolist()])
        row_ends.append(before)
    empty = np.zeros(0, dtype=np.int64)
    found = chunk(
        np.concatenate([empty, *student]), np.concatenate([empty, *teacher]), np.array(row_ends, dtype=np.int64)
    )
    assert found[0].tolist() == [c for row in expected for c in row[0]]
    assert found[1].tolist() == [c for row in expected for c in row[1]]
    assert found[2].tolist() == [row[2] for row in expected]


def test_digits_in_threes_against_digits_one_by_one():
    student_chunk, teacher_chunk, chunks = chunk(np.array([3, 6, 7]), np.arange(1, 8), np.array([7]))
    assert student_chunk.tolist() == [0, 1, 2]
    assert teacher_chunk.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert chunks.tolist() == [3]
