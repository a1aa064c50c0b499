"""Texts cut where usual tokenizers cut them too, so that what was met before need not be tokenized again."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import count, islice

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from atlas.training.alignment.byte_table import pre_tokenizer_steps
from atlas.training.alignment.ragged import Ragged, totals

# How Llama-3, Qwen2 and GPT-2 split text. No match has a space after anything but white space, and none looks back or,
# at the end of a word, ahead: a text can be cut before any space that follows no white space, as they cut there too.
_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CUT_BEFORE_SPACES = {f"{_LETTERS}|{numbers}|{_REST}" for numbers in (r"\p{N}", r"\p{N}{1,3}")}

# A stretch up to the next such space.
_WORD = re.compile(r"\s+(?:\S+(?:[^\S ]\s*)?)*|(?:\S+(?:[^\S ]\s*)?)+")

# In ASCII they cut also where letters end, where a number ends, and where one begins after what is no white space.
_PIECE = re.compile(r"[0-9]+|[A-Za-z]+|[^A-Za-z0-9]+(?:[A-Za-z]+|(?<=\s)[0-9]+)?")

# A word with one is left whole: it may be an added token, such as Qwen's <tool_call>.
_TAG = re.compile("<[^<>]*[A-Za-z][^<>]*>")

# What bytes that are no UTF-8 decode to.
NO_UTF8 = "\udc80-\udcff"
_RAW = re.compile(f"([{NO_UTF8}]+)")

# Words to remember, of some hundred bytes each.
_REMEMBERED = 1_000_000


class Pieces:
    """Numbers for pieces of text, in the order in which they were met.

    A text is its pieces, one after the other. A tokenizer that `splits_in_pieces` splits it as it splits each piece. A
    run of bytes that are no UTF-8 is a piece by itself, as surrogate escapes.

    Most words were met before and most new words are of pieces that were, so that both are remembered.
    """

    def __init__(self) -> None:
        self._word: dict[str, int] = defaultdict(count().__next__)
        self._piece: dict[str, int] = defaultdict(count().__next__)
        self._piece_of_word = Ragged.of([])

    def kept(self) -> "Pieces":
        """These, or when they are too many others to begin with."""
        return self if len(self._word) <= _REMEMBERED else Pieces()

    def since(self, number: int) -> list[str]:
        """The pieces from this number on."""
        return _last(self._piece, len(self._piece) - number)

    def cut(self, texts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """The pieces of all texts, and how many each text has [texts]."""
        words, words_G = _joined(map(_words, texts))
        word_N = _numbers(words, self._word)
        new_words = _last(self._word, len(self._word) - len(self._piece_of_word))
        pieces, pieces_W = _joined(map(_pieces, new_words))
        self._piece_of_word += Ragged(_numbers(pieces, self._piece), pieces_W)
        piece_M, pieces_N = self._piece_of_word.take(word_N)
        return piece_M, totals(pieces_N, words_G)


class Texts:
    """Texts to be tokenized by one tokenizer or more, and cut once for all of them."""

    def __init__(self, texts: Sequence[bytes], pieces: Pieces) -> None:
        self.texts = texts
        self.pieces = pieces

    @cached_property
    def cut(self) -> tuple[np.ndarray, np.ndarray]:
        """As `Pieces.cut`."""
        return self.pieces.cut(self.texts)


def splits_in_pieces(tokenizer: PreTrainedTokenizerBase, backend: Tokenizer) -> bool:
    """Whether the tokenizer splits every text as it splits its `Pieces`."""
    steps = pre_tokenizer_steps(backend)
    kinds = [step["type"] for step in steps]
    gpt2 = kinds in (["ByteLevel"], ["Digits", "ByteLevel"]) and steps[-1]["use_regex"]
    llama3 = (
        kinds == ["Split", "ByteLevel"]
        and steps[0]["pattern"].get("Regex") in _CUT_BEFORE_SPACES
        and (steps[0]["behavior"], steps[0]["invert"]) == ("Isolated", False)
        and not steps[1]["use_regex"]
    )
    added = [token for token in tokenizer.added_tokens_decoder.values() if not token.special]
    whole = all(" " not in token.content and len(_pieces(token.content)) == 1 for token in added)  # none is cut
    plain = whole and not any(token.lstrip or token.rstrip or token.single_word for token in added)
    return (gpt2 or llama3) and plain


def _words(text: bytes) -> list[str]:
    try:
        return _WORD.findall(text.decode())
    except UnicodeDecodeError:
        parts = _RAW.split(text.decode(errors="surrogateescape"))
        return [word for n, part in enumerate(parts) for word in ([part] if n % 2 else _WORD.findall(part))]


def _pieces(word: str) -> list[str]:
    return _PIECE.findall(word) if word.isascii() and not _TAG.search(word) else [word]


def _joined(rows: Iterable[list[str]]) -> tuple[list[str], np.ndarray]:
    """All rows as one, and their lengths. Lists that live on would make Python look for garbage."""
    joined: list[str] = []
    lengths = []
    for row in rows:
        joined += row
        lengths.append(len(row))
    return joined, np.array(lengths, dtype=np.int64)


def _numbers(keys: list[str], number: dict[str, int]) -> np.ndarray:
    """Of each key; new ones get the next numbers."""
    return np.fromiter(map(number.__getitem__, keys), dtype=np.int64, count=len(keys))


def _last(number: dict[str, int], how_many: int) -> list[str]:
    return list(islice(reversed(number), how_many))[::-1]
