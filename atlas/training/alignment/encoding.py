"""Bytes to token ids of a tokenizer, losslessly: whatever the bytes, the ids stand for exactly them."""

import re
from collections.abc import Sequence
from itertools import chain

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from atlas.training.alignment.byte_table import (
    BYTE_CHARACTERS,
    SPACE,
    ByteTable,
    lossless_backend,
    pre_tokenizer_steps,
    spelling,
)

# How Llama-3, Qwen2 and GPT-2 split text. No match has a space after anything but white space, and none looks back or,
# at the end of a word, ahead: a text can be cut before any space that follows no white space, as they cut there too.
_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CUT_BEFORE_SPACES = {f"{_LETTERS}|{numbers}|{_REST}" for numbers in (r"\p{N}", r"\p{N}{1,3}")}

# A stretch up to the next such space.
_WORD = re.compile(r"\s+(?:\S+(?:[^\S ]\s*)?)*|(?:\S+(?:[^\S ]\s*)?)+")

# In ASCII they cut also where a number begins after what is no white space, and where one ends.
_AT_NUMBERS = re.compile(r"(?:[^0-9]*\s)?[0-9]+|[^0-9]+")

# Words to remember, of some hundred bytes each.
_REMEMBERED = 1_000_000

# What bytes that are no UTF-8 decode to.
_NO_UTF8 = "\udc80-\udcff"


class Encoder:
    """`encoder(texts)`: for each text, given in bytes, the ids that stand for it.

    What is valid UTF-8 is split as the tokenizer splits such a text: nothing is normalised, no space is put in front,
    and the strings of control tokens are text. Bytes that are no UTF-8, and for SentencePiece U+2581, which it would
    read as a space, are spelled apart: a byte-level vocabulary merges a run of them as far as its merges go,
    SentencePiece's has a token for each byte.

    Where the tokenizer has no token for a byte the ids end: they stand for the beginning of the text before it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, table: ByteTable) -> None:
        self._table = table
        self._backend = lossless_backend(tokenizer)
        self._spelling = spelling(tokenizer)
        raw = _NO_UTF8 + (SPACE if self._spelling == "sentencepiece" else "")
        self._raw = re.compile(f"([{raw}]+)")
        self._in_words = _in_words(tokenizer, self._backend)
        self._words: dict[str, list[int]] = {}

    def __call__(self, texts: Sequence[bytes]) -> list[list[int]]:
        # Every second part of a text is raw: what the tokenizer would not read as these bytes.
        parts = [self._raw.split(text.decode(errors="surrogateescape")) for text in texts]
        ids = iter(self._readable_ids([part for text in parts for part in text[::2]]))
        rows = []
        for text in parts:
            row = next(ids)
            for raw in text[1::2]:
                row = [*row, *self._raw_ids(raw.encode(errors="surrogateescape")), *next(ids)]
            rows.append(row)
        return self._exact(rows, texts)

    def _readable_ids(self, texts: list[str]) -> list[list[int]]:
        if not self._in_words:
            return [encoding.ids for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)]
        words = [_WORD.findall(text) for text in texts]
        if len(self._words) > _REMEMBERED:
            self._words.clear()
        # Words with numbers are new most of the time, and their pieces are not.
        pieces = {
            word: _AT_NUMBERS.findall(word) if word.isascii() else [word]
            for word in set().union(*words) - self._words.keys()
        }
        new = list(set().union(*pieces.values()) - self._words.keys())
        split = self._backend.encode_batch_fast(new, add_special_tokens=False)
        self._words.update(zip(new, [encoding.ids for encoding in split], strict=True))
        for word, parts in pieces.items():
            self._words[word] = list(chain.from_iterable(map(self._words.__getitem__, parts)))
        return [list(chain.from_iterable(map(self._words.__getitem__, row))) for row in words]

    def _raw_ids(self, raw: bytes) -> list[int]:
        if self._spelling == "byte_level":
            return [token.id for token in self._backend.model.tokenize("".join(BYTE_CHARACTERS[byte] for byte in raw))]
        ids = [self._backend.token_to_id(f"<0x{byte:02X}>") for byte in raw]
        return [i for i in ids if i is not None]

    def _exact(self, rows: list[list[int]], texts: Sequence[bytes]) -> list[list[int]]:
        """The rows, each ended where it no longer stands for its text: tokenizers leave out bytes that they lack."""
        ids_N = np.fromiter(chain.from_iterable(rows), dtype=np.int64)
        if self._table.text(ids_N).tobytes() == b"".join(texts):
            return rows
        return [self._beginning(row, text) for row, text in zip(rows, texts, strict=True)]

    def _beginning(self, row: list[int], text: bytes) -> list[int]:
        position = 0
        for n, i in enumerate(row):
            token = self._table.bytes_V[i]
            if token is None or not text.startswith(token, position):
                return row[:n]
            position += len(token)
        return row


def _in_words(tokenizer: PreTrainedTokenizerBase, backend: Tokenizer) -> bool:
    """Whether the tokenizer splits every text as it splits its words, so that a word can be remembered."""
    steps = pre_tokenizer_steps(backend)
    gpt2 = [step["type"] for step in steps] == ["ByteLevel"] and steps[0]["use_regex"]
    llama3 = (
        [step["type"] for step in steps] == ["Split", "ByteLevel"]
        and steps[0]["pattern"].get("Regex") in _CUT_BEFORE_SPACES
        and (steps[0]["behavior"], steps[0]["invert"]) == ("Isolated", False)
        and not steps[1]["use_regex"]
    )
    added = [token for token in tokenizer.added_tokens_decoder.values() if not token.special]
    whole = all(not re.search("[ 0-9]", token.content) for token in added)  # no cut goes through one
    plain = whole and not any(token.lstrip or token.rstrip or token.single_word for token in added)
    return (gpt2 or llama3) and plain
