"""Bytes to token ids of a tokenizer, losslessly: whatever the bytes, the ids stand for exactly them."""

import re
from collections.abc import Sequence
from itertools import chain

import numpy as np
from transformers import PreTrainedTokenizerBase

from atlas.training.alignment.byte_table import BYTE_CHARACTERS, SPACE, ByteTable, lossless_backend, spelling

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

    def __call__(self, texts: Sequence[bytes]) -> list[list[int]]:
        # Every second part of a text is raw: what the tokenizer would not read as these bytes.
        parts = [self._raw.split(text.decode(errors="surrogateescape")) for text in texts]
        readable = self._backend.encode_batch_fast(
            [part for text in parts for part in text[::2]], add_special_tokens=False
        )
        ids = iter([encoding.ids for encoding in readable])
        rows = []
        for text in parts:
            row = next(ids)
            for raw in text[1::2]:
                row = [*row, *self._raw_ids(raw.encode(errors="surrogateescape")), *next(ids)]
            rows.append(row)
        return self._exact(rows, texts)

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
