"""Completions as a student and a teacher read them: alignment.jsonl of a run directory (`docs/cross_tokenizer.md`)."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = "alignment.jsonl"
_LONGEST_LINE = 16 * 2**20
"""Characters of a line that is read."""

Token = tuple[str, int]
"""Its text, and the number of its chunk; -1: in none, not learnt from."""


@dataclass(frozen=True)
class Chunk:
    """The bytes between two neighbouring boundaries that both sides have; or tokens that are in no chunk."""

    number: int | None
    """None: tokens that were not learnt from, of either side."""
    student: tuple[str, ...]
    teacher: tuple[str, ...]
    divergence: float | None
    """In nats, also NaN and infinite. None: not recorded, or in no chunk."""


@dataclass(frozen=True)
class AlignedCompletion:
    """One completion of the student, and the same bytes in the teacher's tokens."""

    step: int
    prompt: str
    student: tuple[Token, ...]
    teacher: tuple[Token, ...]
    divergence: tuple[float, ...]
    """By number of chunk."""

    def chunks(self) -> list[Chunk]:
        """In the order of the text; what is in no chunk stands after the chunk that it follows."""
        numbers = sorted({number for _, number in (*self.student, *self.teacher) if number >= 0})
        student, teacher = _grouped(self.student), _grouped(self.teacher)
        chunks = []
        for number in (None, *numbers):
            if number is not None:
                divergence = self.divergence[number] if number < len(self.divergence) else None
                chunks.append(
                    Chunk(number, student.get((number, True), ()), teacher.get((number, True), ()), divergence)
                )
            outside = student.get((number, False), ()), teacher.get((number, False), ())
            if any(outside):
                chunks.append(Chunk(None, *outside, None))
        return chunks

    @property
    def mean(self) -> float:
        """Of the divergences that are numbers; NaN if none is."""
        finite = [value for value in self.divergence if math.isfinite(value)]
        return sum(finite) / len(finite) if finite else math.nan


def aligned_steps(run_dir: Path) -> dict[int, int]:
    """Step -> how many completions of it were kept; empty if the run kept none."""
    found: dict[int, int] = {}
    for completion in _completions(run_dir):
        found[completion.step] = found.get(completion.step, 0) + 1
    return found


def aligned_completions(run_dir: Path, step: int) -> list[AlignedCompletion]:
    """What was kept of a step."""
    return [completion for completion in _completions(run_dir) if completion.step == step]


def _completions(run_dir: Path) -> Iterator[AlignedCompletion]:
    """One line in memory at a time; lines that are torn or hold something else are passed over."""
    try:
        with open(run_dir / FILE, encoding="utf-8", errors="replace") as file:
            while line := file.readline(_LONGEST_LINE):
                completion = _completion(line)
                if completion is not None:
                    yield completion
    except OSError:
        return


def _completion(line: str) -> AlignedCompletion | None:
    try:
        record: dict[str, Any] = json.loads(line)
        return AlignedCompletion(
            int(record["step"]),
            str(record["prompt"]),
            _tokens(record["student"]),
            _tokens(record["teacher"]),
            tuple(math.nan if value is None else float(value) for value in record["divergence"]),
        )
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def _tokens(pairs: Sequence[Any]) -> tuple[Token, ...]:
    return tuple((str(text), int(chunk)) for text, chunk in pairs)


def _grouped(tokens: Sequence[Token]) -> dict[tuple[int | None, bool], tuple[str, ...]]:
    """(chunk, True) -> its tokens; (chunk, False) -> the tokens in no chunk that follow it, None being the start."""
    groups: dict[tuple[int | None, bool], list[str]] = {}
    last: int | None = None
    for text, number in tokens:
        last = number if number >= 0 else last
        groups.setdefault((last, number >= 0), []).append(text)
    return {key: tuple(texts) for key, texts in groups.items()}
