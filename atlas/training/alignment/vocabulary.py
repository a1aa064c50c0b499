"""Two vocabularies on common ground: every token of either has a root, which is a token of both.

Legend: V token ids of a side.
"""

import hashlib
import json
import logging
import os
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from atlas.private import only_owner
from atlas.training.alignment.byte_table import ByteTable
from atlas.training.alignment.encoding import Encoder

logger = logging.getLogger(__name__)

_FORMAT = 1
"""Of the cache: another number for another way of making the map."""
_ARRAYS = ("student_root", "teacher_root", "student_shared", "teacher_shared", "digit")
_DIGIT_RUNS = [str(number).encode() for number in (*range(2000), 12345, 1234567, 1234567890123)]


@dataclass(frozen=True)
class VocabularyMap:
    """Every token of student and teacher -> its root: the longest start of it that is a token of both, as far as the
    tokenizers themselves split it.

    root(w) is w where the other side has a token of the same bytes, else root(the first token that the other side
    writes w with). So a law over the ids of either side becomes a law over the same roots, by adding up.
    """

    student_root: np.ndarray
    """int32 [V_s]: the root, in [0, roots), of each id. Every root has an id on each side."""
    teacher_root: np.ndarray
    """int32 [V_t]."""
    student_shared: np.ndarray
    """bool [V_s]: the other side has a token of the same bytes."""
    teacher_shared: np.ndarray
    """bool [V_t]."""
    roots: int
    digit: np.ndarray
    """bool [roots]: its first byte is an ASCII digit."""
    eot_root: int
    """All ids that end a turn, of both sides."""
    other_root: int
    """Other control tokens, ids of no token, and what the other side cannot spell. The same as `eot_root` where only
    one side has such ids: no root may be impossible for one side."""
    digits_differ: bool
    """Whether the two split runs of digits differently."""
    figures: dict[str, float]
    """`roots`, and shares of the vocabularies: `vocab_overlap_bytes_student`, `vocab_overlap_strings_student`, ..."""


def vocabulary_map(
    student_tokenizer: PreTrainedTokenizerBase,
    teacher_tokenizer: PreTrainedTokenizerBase,
    student: ByteTable,
    teacher: ByteTable,
    cache: Path | None,
) -> VocabularyMap:
    """The map of two tokenizers. With the same tokenizer on both sides every id is its own root.

    It takes seconds, so it is kept in the directory `cache`, under both digests. A file there that cannot be read, or
    is that of other tokenizers, is made anew.
    """
    identity = hashlib.sha256(f"{_FORMAT} {student.digest} {teacher.digest}".encode()).hexdigest()
    file = None if cache is None else cache / "vocabularies" / f"{identity[:32]}.npz"
    kept = None if file is None else _read(file, identity)
    if kept is not None:
        return kept
    if student.digest == teacher.digest:
        made = _same(student)
    else:
        made = _different(student_tokenizer, teacher_tokenizer, student, teacher)
    if file is not None:
        _write(file, identity, made)
    return made


def _same(table: ByteTable) -> VocabularyMap:
    each = np.arange(len(table.bytes_V), dtype=np.int32)
    everything = np.ones(len(each), dtype=bool)
    eot_root = min(table.eot) if table.end_of_turn is None else table.end_of_turn
    overlaps = [f"vocab_overlap_{of}_{side}" for of in ("bytes", "strings") for side in ("student", "teacher")]
    return VocabularyMap(
        student_root=each,
        teacher_root=each,
        student_shared=everything,
        teacher_shared=everything,
        roots=len(each),
        digit=np.array([_starts_with_digit(token) for token in table.bytes_V], dtype=bool),
        eot_root=eot_root,
        other_root=min(table.control - table.eot, default=eot_root),
        digits_differ=False,
        figures={"roots": float(len(each))} | dict.fromkeys(overlaps, 1.0),
    )


def _different(
    student_tokenizer: PreTrainedTokenizerBase,
    teacher_tokenizer: PreTrainedTokenizerBase,
    student: ByteTable,
    teacher: ByteTable,
) -> VocabularyMap:
    encode_as_student, encode_as_teacher = Encoder(student_tokenizer, student), Encoder(teacher_tokenizer, teacher)
    student_texts, teacher_texts = ({token for token in table.bytes_V if token} for table in (student, teacher))
    shared = sorted(student_texts & teacher_texts)
    number = {token: root for root, token in enumerate(shared)}
    begins = _begins(sorted(student_texts - teacher_texts), encode_as_teacher, teacher)
    begins |= _begins(sorted(teacher_texts - student_texts), encode_as_student, student)

    def root(token: bytes | None) -> int | None:
        while token and token not in number:
            token = begins[token]  # a shorter one each time, of the other side
        return number[token] if token else None

    student_found, teacher_found = ([root(token) for token in table.bytes_V] for table in (student, teacher))
    both_end = bool(student.eot and teacher.eot)
    both_have_others = _has_others(student_found, student) and _has_others(teacher_found, teacher)
    eot_root = len(shared)
    other_root = eot_root + (both_end and both_have_others)
    roots = other_root + 1
    strings = [
        {token for token, i in tokenizer.get_vocab().items() if table.bytes_V[i]}
        for tokenizer, table in ((student_tokenizer, student), (teacher_tokenizer, teacher))
    ]
    same_strings = len(strings[0] & strings[1])
    return VocabularyMap(
        student_root=_numbered(student_found, student, eot_root, other_root),
        teacher_root=_numbered(teacher_found, teacher, eot_root, other_root),
        student_shared=np.array([token in number for token in student.bytes_V], dtype=bool),
        teacher_shared=np.array([token in number for token in teacher.bytes_V], dtype=bool),
        roots=roots,
        digit=np.array([_starts_with_digit(token) for token in [*shared, *[None] * (roots - len(shared))]], dtype=bool),
        eot_root=eot_root,
        other_root=other_root,
        digits_differ=_digit_runs(encode_as_student, student) != _digit_runs(encode_as_teacher, teacher),
        figures={
            "roots": float(roots),
            "vocab_overlap_bytes_student": len(shared) / max(1, len(student_texts)),
            "vocab_overlap_bytes_teacher": len(shared) / max(1, len(teacher_texts)),
            "vocab_overlap_strings_student": same_strings / max(1, len(strings[0])),
            "vocab_overlap_strings_teacher": same_strings / max(1, len(strings[1])),
        },
    )


def _begins(tokens: list[bytes], encode: Encoder, table: ByteTable) -> dict[bytes, bytes | None]:
    """How a tokenizer begins to write each token of the other; None where it has no token for its first byte."""
    return {token: table.bytes_V[ids[0]] if ids else None for token, ids in zip(tokens, encode(tokens), strict=True)}


def _has_others(found_V: list[int | None], table: ByteTable) -> bool:
    return any(root is None and i not in table.eot for i, root in enumerate(found_V))


def _numbered(found_V: list[int | None], table: ByteTable, eot_root: int, other_root: int) -> np.ndarray:
    root_V = np.array([other_root if root is None else root for root in found_V], dtype=np.int32)
    root_V[list(table.eot)] = eot_root
    return root_V


def _digit_runs(encode: Encoder, table: ByteTable) -> list[list[int]]:
    """Lengths of the tokens of some numbers."""
    return [table.lengths[ids].tolist() for ids in encode(_DIGIT_RUNS)]


def _starts_with_digit(token: bytes | None) -> bool:
    return token is not None and token[:1].isdigit()


def _read(file: Path, identity: str) -> VocabularyMap | None:
    """The map in a file, or None if there is none that is whole and of these tokenizers."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            if str(arrays["identity"]) != identity:
                raise ValueError("it is of other tokenizers")
            plain = json.loads(str(arrays["plain"]))
            return VocabularyMap(**{name: arrays[name] for name in _ARRAYS}, **plain)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        logger.warning("%s is no map of these vocabularies (%s); making it again, which takes seconds", file, error)
        return None


def _write(file: Path, identity: str, made: VocabularyMap) -> None:
    """Atomically: another worker may write the same. Without it a run goes on; the next one makes the map again."""
    plain = {field.name: getattr(made, field.name) for field in fields(made) if field.name not in _ARRAYS}
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(part, "wb", opener=only_owner) as stream:
            np.savez(
                stream, identity=identity, plain=json.dumps(plain), **{name: getattr(made, name) for name in _ARRAYS}
            )
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(file)
    except OSError as error:
        logger.warning("could not keep the map of the vocabularies in %s: %s", file, error)
