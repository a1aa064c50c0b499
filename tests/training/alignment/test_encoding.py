"""Bytes to ids: nothing is lost, and what a tokenizer reads well comes out as it would split it."""

import unicodedata

import pytest
from alignment_reference import REAL, TINY, Side, byte_level, real_side, tiny_side
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from atlas.training.alignment.byte_table import ByteTable, byte_table, lossless_backend
from atlas.training.alignment.encoding import Encoder
from atlas.training.alignment.pieces import splits_in_pieces

LOSSLESS = [name for name in TINY if name not in ("few bytes", "characters")]
BOUNDED = {"derandomize": True, "deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
SEAMS = [
    *[
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "\xa0",
        "\u3000",
        "\x1c",
        "\x85",
        "\u2028",
        "a",
        "Ab",
        "'s",
        "'",
        "12",
        "1234",
        "٣",
    ],
    *["½", "小", "e\u0301", ".", ".\n", "<call>", "<eos>", "👩\u200d", "\u200b", "ſ"],
    *["'LL", "=", "_", "-7", "<tool_call>"],
]
"""What a tokenizer that reads a text word by word could split in another way where words meet."""
TEXTS = [
    "Natalia sold 48/2 = 24 clips in May.\n#### 72",
    "小明有12个苹果",
    "ภาษาไทย",
    "x\n\n  y\t",
    " a",
    "\\frac{1}{2}",
    "",
]


def spelled(ids: list[int], table: ByteTable) -> bytes:
    return b"".join(table.bytes_V[i] for i in ids)


@pytest.mark.parametrize("name", LOSSLESS)
def test_any_bytes_come_back(name):
    side = tiny_side(name)

    @settings(max_examples=100, **BOUNDED)
    @given(st.lists(st.one_of(st.binary(max_size=12), st.text(max_size=8).map(str.encode)), max_size=4))
    def round_trips(texts):
        rows = side.encoder(texts)
        assert [spelled(row, side.table) for row in rows] == texts
        assert rows == [side.speller(text) for text in texts]

    round_trips()


def splits_seams_as_whole_texts(side: Side) -> None:
    @settings(max_examples=300, **BOUNDED)
    @given(st.lists(st.lists(st.sampled_from(SEAMS), max_size=12).map("".join), max_size=8))
    def splits(texts):
        assert side.encoder([text.encode() for text in texts]) == [side.speller(text.encode()) for text in texts]

    splits()


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_text_is_split_the_same_whatever_words_were_met_before(name):
    splits_seams_as_whole_texts(tiny_side(name))


@pytest.mark.parametrize("steps", [[], [pre_tokenizers.Digits(individual_digits=True)]])
def test_a_tokenizer_like_gpt2_splits_the_same_whatever_words_were_met_before(steps):
    tokenizer = byte_level()
    byte_steps = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*steps, byte_steps]) if steps else byte_steps
    assert splits_in_pieces(tokenizer, lossless_backend(tokenizer))
    splits_seams_as_whole_texts(Side(tokenizer))


@pytest.mark.real
@pytest.mark.parametrize("name", [pytest.param(i, marks=pytest.mark.slow if i == "gemma-3" else ()) for i in REAL])
def test_a_real_tokenizer_splits_the_same_whatever_words_were_met_before(name, shared):
    splits_seams_as_whole_texts(real_side(name, shared))


@pytest.mark.real
@pytest.mark.parametrize("name", [pytest.param(i, marks=pytest.mark.slow if i == "gemma-3" else ()) for i in REAL])
def test_plain_text_is_split_as_the_tokenizer_itself_splits_it(name, shared):
    side = real_side(name, shared)
    assert all(unicodedata.is_normalized("NFC", text) for text in TEXTS)
    rows = side.encoder([text.encode() for text in TEXTS])
    assert rows == [side.tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]


@pytest.mark.parametrize("name", LOSSLESS)
@pytest.mark.parametrize("text", ["Cafe\u0301", "<|im_end|>", "a<eos>b", "▁", "a ▁▁ b", "<0x41>", " a", "a"])
def test_text_that_tokenizers_change_keeps_its_bytes(name, text):
    side = tiny_side(name)
    [row] = side.encoder([text.encode()])
    assert spelled(row, side.table) == text.encode()
    assert not set(row) & side.table.control


def test_bytes_that_are_no_text_are_spelled_apart_from_the_text_beside_them():
    raw = b"\xf0\x9f\xa7"
    for name in ("sentencepiece", "digits in threes"):
        encoder = tiny_side(name).encoder
        apart = encoder([b"12 ", raw, b"34"])
        assert encoder([b"12 " + raw + b"34"])[0] == [i for row in apart for i in row]
    side = tiny_side("sentencepiece")
    assert side.tokenizer.convert_ids_to_tokens(side.encoder([raw])[0]) == ["<0xF0>", "<0x9F>", "<0xA7>"]
    assert side.tokenizer.convert_ids_to_tokens(side.encoder(["▁".encode()])[0]) == ["<0xE2>", "<0x96>", "<0x81>"]


def test_ids_end_before_a_byte_without_a_token():
    side = tiny_side("few bytes")
    for text in ("the zebra", "cost 9", "caf\u00e9 zoo", "Z"):
        [row] = side.encoder([text.encode()])
        missing = next(n for n, byte in enumerate(text.encode()) if bytes([byte]) not in side.table.bytes_V)
        assert spelled(row, side.table) == text.encode()[:missing]


def test_a_character_without_a_token_ends_a_literal_vocabulary():
    side = tiny_side("characters")
    assert [spelled(row, side.table) for row in side.encoder([b"1+2Z3", b"abc"])] == [b"1+2", b"abc"]


def test_a_number_in_an_added_token_does_not_cut_it():
    tokenizer = byte_level()
    tokenizer.add_tokens(["<part1>"])
    encoder = Encoder(tokenizer, byte_table(tokenizer))
    [row] = encoder([b"one <part1> of 12"])
    assert row == tokenizer("one <part1> of 12", add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_tokens_to_ids("<part1>") in row
