"""The bytes of every token, against the tokenizers' own decoding."""

import pytest
from alignment_reference import REAL, TINY, byte_level, real_tokenizer, tiny_tokenizer
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from atlas.errors import RunFailed
from atlas.training.alignment.byte_table import BYTE_CHARACTERS, ByteTable, byte_table


def decodes_the_same(tokenizer, table: ByteTable) -> bool:
    """Every id, after a letter, since decoders strip a text's first space; not after the letter's byte token."""
    before = max(i for i, token in enumerate(table.bytes_V) if token and token.isalpha() and len(token) == 1)
    decode = tokenizer.backend_tokenizer.decode
    return all(
        token is None
        or (table.bytes_V[before] + token).decode(errors="replace") == decode([before, i], skip_special_tokens=False)
        for i, token in enumerate(table.bytes_V)
    )


@pytest.mark.parametrize("name", TINY)
def test_every_token_decodes_to_its_bytes(name):
    tokenizer = tiny_tokenizer(name)
    assert decodes_the_same(tokenizer, byte_table(tokenizer))


@pytest.mark.real
@pytest.mark.parametrize("name", [pytest.param(i, marks=pytest.mark.slow if i == "gemma-3" else ()) for i in REAL])
def test_every_token_of_a_real_tokenizer_decodes_to_its_bytes(name, shared):
    tokenizer = real_tokenizer(name, shared)
    assert decodes_the_same(tokenizer, byte_table(tokenizer))


def test_byte_tokens_that_are_no_text_have_their_bytes():
    table, tokenizer = byte_table(tiny_tokenizer("sentencepiece")), tiny_tokenizer("sentencepiece")
    assert [table.bytes_V[tokenizer.convert_tokens_to_ids(f"<0x{byte:02X}>")] for byte in range(256)] == [
        bytes([byte]) for byte in range(256)
    ]
    table, tokenizer = byte_table(tiny_tokenizer("digits in threes")), tiny_tokenizer("digits in threes")
    for byte, character in BYTE_CHARACTERS.items():
        assert table.bytes_V[tokenizer.convert_tokens_to_ids(character)] == bytes([byte])


def test_control_tokens_have_no_bytes_and_added_text_has():
    tokenizer = tiny_tokenizer("digits in threes")
    table = byte_table(tokenizer)
    control = {tokenizer.convert_tokens_to_ids(token) for token in ("<pad>", "<eos>", "<tool>", "<|im_end|>")}
    assert table.control == control
    assert all((token is None) == (i in control) for i, token in enumerate(table.bytes_V))
    assert table.bytes_V[tokenizer.convert_tokens_to_ids("<call>")] == b"<call>"


def test_a_turn_ends_with_the_chats_token_where_eos_ends_a_document():
    tokenizer = tiny_tokenizer("sentencepiece")
    eos, end_of_turn = tokenizer.convert_tokens_to_ids(["<eos>", "<end_of_turn>"])
    table = byte_table(tokenizer)
    assert table.eot == {eos, end_of_turn} and table.end_of_turn == end_of_turn
    start = tokenizer.convert_tokens_to_ids("<start>")
    more = byte_table(tokenizer, [start])
    assert more.eot == {eos, end_of_turn, start} and more.end_of_turn == end_of_turn
    assert more.digest != table.digest


def test_an_end_of_turn_that_is_no_token_is_refused():
    with pytest.raises(RunFailed, match="token 99999 should end a turn"):
        byte_table(tiny_tokenizer("sentencepiece"), [99999])


def test_a_tokenizer_without_exact_bytes_is_refused_by_its_first_token():
    vocabulary = {token: i for i, token in enumerate(["[UNK]", "play", "##ing"])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.decoder = decoders.WordPiece()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")
    with pytest.raises(RunFailed, match="which bytes its token 1 \\('play'\\) stands for") as refused:
        byte_table(wrapped)
    assert refused.value.reason == "bad_model"


def test_a_token_outside_the_byte_alphabet_is_named():
    vocabulary = {token: i for i, token in enumerate([*BYTE_CHARACTERS.values(), "小"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.decoder = decoders.ByteLevel()
    with pytest.raises(RunFailed, match="token 256 \\('小'\\)"):
        byte_table(PreTrainedTokenizerFast(tokenizer_object=tokenizer))


def test_the_digest_is_of_the_content():
    assert byte_table(byte_level()).digest == byte_table(byte_level()).digest
    digits = byte_table(byte_level(r"\p{N}"))
    assert digits.digest != byte_table(byte_level()).digest


def test_the_tokenizer_itself_is_left_as_it_was():
    tokenizer = byte_level()
    before = tokenizer.backend_tokenizer.to_str()
    byte_table(tokenizer)
    assert tokenizer.backend_tokenizer.to_str() == before
