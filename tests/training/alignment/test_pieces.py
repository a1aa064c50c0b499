"""Texts cut into pieces that come back."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from atlas.training.alignment import pieces as module
from atlas.training.alignment.pieces import Pieces, Texts
from atlas.training.alignment.ragged import Ragged

texts = st.lists(st.one_of(st.binary(max_size=12), st.text(alphabet="aB1 \n.,'<>é", max_size=20).map(str.encode)))


def cut(pieces: Pieces, data: list[bytes]) -> list[list[str]]:
    """The pieces of each text."""
    known = pieces.since(0)
    numbers, counts = Texts(data, pieces).cut
    met = pieces.since(0)
    assert met[: len(known)] == known, "a piece keeps its number"
    return [[met[number] for number in row] for row in Ragged(numbers, counts).rows()]


@given(texts, texts)
def test_a_text_is_its_pieces_whatever_was_met_before(first, more):
    pieces = Pieces()
    for data in (first, more, first):
        rows = cut(pieces, data)
        assert ["".join(row).encode(errors="surrogateescape") for row in rows] == data
        assert rows == cut(Pieces(), data)


def test_cuts_are_at_spaces_numbers_and_ends_of_letters():
    assert cut(Pieces(), [b"She don't pay $12.50 = 5*(2+.5)\nBut  7"]) == [
        ["She", " don", "'t", " pay", " $", "12", ".", "50", " =", " 5", "*(", "2", "+.", "5", ")\nBut", "  7"]
    ]


def test_what_may_be_an_added_token_and_what_is_no_text_stay_whole():
    assert cut(Pieces(), [b"ab<tool_call>12 c\xff\xfe1"]) == [["ab<tool_call>12", " c", "\udcff\udcfe", "1"]]


def test_too_many_words_are_forgotten(monkeypatch):
    monkeypatch.setattr(module, "_REMEMBERED", 2)
    pieces = Pieces()
    assert pieces.kept() is pieces
    cut(pieces, [b"a b c"])
    assert pieces.kept() is not pieces
    assert np.array_equal(Texts([b"a"], pieces.kept()).cut[0], [0])
