"""Bytes to token ids of a tokenizer, losslessly: whatever the bytes, the ids stand for exactly them."""

import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from atlas.training.alignment.byte_table import BYTE_CHARACTERS, SPACE, ByteTable, lossless_backend, spelling
from atlas.training.alignment.pieces import NO_UTF8, Pieces, Texts, splits_in_pieces
from atlas.training.alignment.ragged import Ragged, totals


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
        self._raw = re.compile(f"([{NO_UTF8}{SPACE if self._spelling == 'sentencepiece' else ''}]+)")
        self._in_pieces = splits_in_pieces(tokenizer, self._backend)
        self._pieces = Pieces()
        self._ids_of_piece = Ragged.of([])

    def __call__(self, texts: Sequence[bytes]) -> list[list[int]]:
        return self.encode(Texts(texts, self._pieces.kept())).rows()

    def encode(self, texts: Texts) -> Ragged:
        """The same, as arrays. The pieces are remembered as long as it is asked with the same `Pieces`."""
        if not self._in_pieces:
            decoded = [text.decode(errors="surrogateescape") for text in texts.texts]
            return self._exact(Ragged.of(self._spelled(decoded)), texts.texts)
        piece_N, pieces_G = texts.cut
        if texts.pieces is not self._pieces:
            self._pieces, self._ids_of_piece = texts.pieces, Ragged.of([])
        if new := self._pieces.since(len(self._ids_of_piece)):
            self._ids_of_piece += Ragged.of(self._spelled(new))
        ids_M, ids_N = self._ids_of_piece.take(piece_N)
        return self._exact(Ragged(ids_M, totals(ids_N, pieces_G)), texts.texts)

    def _spelled(self, texts: Sequence[str]) -> list[list[int]]:
        # Every second part of a text is raw: what the tokenizer would not read as these bytes.
        parts = [self._raw.split(text) for text in texts]
        readable = [part for text in parts for part in text[::2]]
        ids = iter(encoding.ids for encoding in self._backend.encode_batch_fast(readable, add_special_tokens=False))
        rows = []
        for text in parts:
            row = next(ids)
            for raw in text[1::2]:
                row = [*row, *self._raw_ids(raw.encode(errors="surrogateescape")), *next(ids)]
            rows.append(row)
        return rows

    def _raw_ids(self, raw: bytes) -> list[int]:
        if self._spelling == "byte_level":
            return [token.id for token in self._backend.model.tokenize("".join(BYTE_CHARACTERS[byte] for byte in raw))]
        ids = [self._backend.token_to_id(f"<0x{byte:02X}>") for byte in raw]
        return [i for i in ids if i is not None]

    def _exact(self, ids: Ragged, texts: Sequence[bytes]) -> Ragged:
        """The ids, of each text up to where they no longer stand for it: tokenizers leave out bytes that they lack."""
        if self._table.text(ids.values).tobytes() == b"".join(texts):
            return ids
        return Ragged.of([self._beginning(row, text) for row, text in zip(ids.rows(), texts, strict=True)])

    def _beginning(self, row: list[int], text: bytes) -> list[int]:
        position = 0
        for n, i in enumerate(row):
            token = self._table.bytes_V[i]
            if token is None or not text.startswith(token, position):
                return row[:n]
            position += len(token)
        return row
