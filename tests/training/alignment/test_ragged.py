"""Rows of different lengths in one array."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas.training.alignment.ragged import Ragged, totals

rows = st.lists(st.lists(st.integers(-9, 9), max_size=3), max_size=6)


@given(rows, rows, st.data())
def test_rows_come_back_in_any_order(first, more, data):
    ragged = Ragged.of(first) + Ragged.of(more)
    assert ragged.rows() == [*first, *more]
    chosen = data.draw(st.lists(st.integers(0, len(ragged) - 1), max_size=9)) if len(ragged) else []
    values, lengths = ragged.take(np.array(chosen, dtype=np.int64))
    assert Ragged(values, lengths).rows() == [ragged.rows()[row] for row in chosen]


@pytest.mark.parametrize("stretches", [[], [[]], [[1, 2], [], [3]]])
def test_totals_are_of_each_stretch(stretches):
    made = Ragged.of(stretches)
    assert totals(made.values, made.lengths).tolist() == [sum(stretch) for stretch in stretches]
