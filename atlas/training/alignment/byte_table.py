"""What every token id of a tokenizer stands for, in bytes: the ground on which two tokenizers are compared.

Legend: V token ids of the tokenizer, from 0 to its highest; N any number of ids.
"""

import copy
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from atlas.errors import RunFailed
from atlas.training.alignment.ragged import Ragged

Spelling = Literal["byte_level", "sentencepiece", "literal"]
"""How a vocabulary writes bytes: a character for each; text with `▁` for a space and `<0x41>` for a byte; text."""

SPACE = "▁"

BYTE_CHARACTERS = bytes_to_unicode()
"""The character that stands for each byte in a byte-level vocabulary (GPT-2's table)."""

_BYTE = {character: byte for byte, character in BYTE_CHARACTERS.items()}
_BYTE_TOKEN = re.compile("<0x([0-9A-Fa-f]{2})>")

# What chat models end a turn with where the tokenizer's EOS may end a document (Gemma's is <eos>).
_TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>")


@dataclass(frozen=True)
class ByteTable:
    """The exact bytes of every token id.

    A control token stands for no text, and its string in a text is not the token. Added tokens that are not special
    (`<tool_call>` of Qwen) are text.
    """

    bytes_V: tuple[bytes | None, ...]
    """By id. None: a control token, or an id without a token."""
    control: frozenset[int]
    """Ids that stand for no text."""
    eot: frozenset[int]
    """Of these, the ones that end a turn."""
    end_of_turn: int | None
    """Of these, the one to write where a turn ends. None: the tokenizer has none."""
    digest: str
    """sha256 of all the above and of how the tokenizer splits text."""

    @cached_property
    def lengths(self) -> np.ndarray:
        """Bytes of each id: int64 [V], 0 for those that stand for no text."""
        return np.array([len(token or b"") for token in self.bytes_V], dtype=np.int64)

    @cached_property
    def ends_turn(self) -> np.ndarray:
        """Whether each id is of `eot`: bool [V]."""
        ends_V = np.zeros(len(self.bytes_V), dtype=bool)
        ends_V[list(self.eot)] = True
        return ends_V

    def text(self, ids_N: np.ndarray) -> np.ndarray:
        """The bytes of ids, one after the other: uint8 [sum of their lengths]."""
        return self._ragged.take(ids_N)[0]

    @cached_property
    def _ragged(self) -> Ragged:
        text = b"".join(token or b"" for token in self.bytes_V)
        return Ragged(np.frombuffer(text, dtype=np.uint8), self.lengths)


def byte_table(tokenizer: PreTrainedTokenizerBase, eot_token_ids: Iterable[int] = ()) -> ByteTable:
    """The table of a tokenizer. What ends a turn: its EOS, a chat's end of turn if it has one, and `eot_token_ids`.

    Raises RunFailed(`bad_model`), naming the first token whose bytes cannot be known from the token alone, as with
    WordPiece's `##`; or an id of `eot_token_ids` that is no token.
    """
    backend = lossless_backend(tokenizer)
    tokens = {i: token for token, i in tokenizer.get_vocab().items()}
    added = {i: token.content for i, token in tokenizer.added_tokens_decoder.items()}
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}

    eos = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    turn_ends = [i for i in sorted(special) if added[i] in _TURN_ENDS]
    eot = frozenset([*eos, *turn_ends, *eot_token_ids])
    if unknown := eot - tokens.keys():
        raise RunFailed(
            "bad_model",
            f"token {min(unknown)} should end a turn, but the tokenizer {tokenizer.name_or_path} has no such token; "
            "correct eos_token_id in its generation_config.json",
        )
    end_of_turn = next(iter([i for i in eos if i in turn_ends] + turn_ends + eos + sorted(eot)), None)

    unknown_token = getattr(backend.model, "unk_token", None)
    unspoken = {i for i, token in tokens.items() if not token or token == unknown_token}
    control = frozenset(special | set(tokenizer.all_special_ids) | eot | unspoken)
    spell = _SPELLERS[spelling(tokenizer)]
    spell_added = str.encode if spell is _byte_level else spell
    bytes_V: list[bytes | None] = [None] * (max(tokens, default=-1) + 1)
    for i, token in sorted(tokens.items()):
        if i not in control:
            bytes_V[i] = spell_added(token) if i in added else spell(token)
            if bytes_V[i] is None:
                raise _no_bytes(tokenizer, i, token)

    content = hashlib.sha256(backend.to_str().encode())
    content.update(repr((bytes_V, sorted(control), sorted(eot), end_of_turn)).encode())
    return ByteTable(tuple(bytes_V), control, eot, end_of_turn, content.hexdigest())


def spelling(tokenizer: PreTrainedTokenizerBase) -> Spelling:
    """How the tokenizer's vocabulary writes bytes, by its decoder. Raises RunFailed(`bad_model`) if in another way."""
    model = _backend(tokenizer).model
    affixes = [getattr(model, name, None) for name in ("continuing_subword_prefix", "end_of_word_suffix")]
    kinds = {step["type"] for step in _steps(_backend(tokenizer).decoder, "decoders")}
    if not any(affixes):
        if "ByteLevel" in kinds and kinds <= {"ByteLevel", "Fuse"}:
            return "byte_level"
        if kinds & {"ByteFallback", "Metaspace"} and kinds <= {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}:
            return "sentencepiece"
        if kinds == {"Fuse"}:
            return "literal"
    control = set(tokenizer.all_special_ids)
    i, token = min((i, token) for token, i in tokenizer.get_vocab().items() if i not in control)
    raise _no_bytes(tokenizer, i, token)


def lossless_backend(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """A copy that splits text and does nothing else.

    No Unicode normalisation, no space put in front, nothing added, and the strings of control tokens are text.
    """
    backend = copy.deepcopy(_backend(tokenizer))
    kind = spelling(tokenizer)
    backend.normalizer = normalizers.Replace(" ", SPACE) if kind == "sentencepiece" else None
    steps = [_without_prefix(step) for step in pre_tokenizer_steps(backend)]
    backend.pre_tokenizer = pre_tokenizers.Sequence([_pre_tokenizer(step) for step in steps if step])
    backend.post_processor = None
    backend.encode_special_tokens = True
    backend.no_padding()
    backend.no_truncation()
    return backend


def pre_tokenizer_steps(backend: Tokenizer) -> list[dict[str, Any]]:
    """The settings of each step by which a backend splits text into what its model sees."""
    return list(_steps(backend.pre_tokenizer, "pretokenizers"))


def _backend(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise RunFailed(
            "bad_model",
            f"the tokenizer {tokenizer.name_or_path} is a {type(tokenizer).__name__} without a tokenizer.json; "
            "distillation across tokenizers needs one: save a fast tokenizer beside the model",
        )
    return backend


def _no_bytes(tokenizer: PreTrainedTokenizerBase, i: int, token: str) -> RunFailed:
    return RunFailed(
        "bad_model",
        f"the tokenizer {tokenizer.name_or_path} does not say which bytes its token {i} ({token!r}) stands for; "
        "distillation across tokenizers needs a byte-level or SentencePiece vocabulary: choose another model",
    )


def _steps(part: Any, name: str) -> Iterator[dict[str, Any]]:
    """The settings of a part of a backend: of each step, if it is a sequence of them."""
    if part is None:
        return
    pending = [json.loads(part.__getstate__())]
    while pending:
        step = pending.pop(0)
        if step["type"] != "Sequence":
            yield step
        else:
            pending[:0] = step[name]


def _without_prefix(step: dict[str, Any]) -> dict[str, Any] | None:
    """The same split of a text that goes on. Metaspace's part of writing spaces is the normalizer's."""
    if step["type"] == "ByteLevel":
        return step | {"add_prefix_space": False}
    if step["type"] != "Metaspace":
        return step
    split = {"type": "Split", "pattern": {"String": SPACE}, "behavior": "MergedWithNext", "invert": False}
    return split if step.get("split", True) else None


def _pre_tokenizer(step: dict[str, Any]) -> pre_tokenizers.PreTokenizer:
    made = pre_tokenizers.ByteLevel()
    made.__setstate__(json.dumps(step).encode())
    return made


def _byte_level(token: str) -> bytes | None:
    if any(character not in _BYTE for character in token):
        return None
    return bytes(_BYTE[character] for character in token)


def _sentencepiece(token: str) -> bytes:
    if byte := _BYTE_TOKEN.fullmatch(token):
        return bytes.fromhex(byte[1])
    return token.replace(SPACE, " ").encode()


_SPELLERS: dict[Spelling, Callable[[str], bytes | None]] = {
    "byte_level": _byte_level,
    "sentencepiece": _sentencepiece,
    "literal": str.encode,
}
