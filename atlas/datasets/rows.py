"""From rows to examples: every row is checked, and what is wrong with the first few is said at once."""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from atlas.datasets.base import Example
from atlas.datasets.files import Row, kind
from atlas.errors import Problem, SpecError
from atlas.grading import parses, times_out
from atlas.grading.symbolic import CPU_SECONDS

logger = logging.getLogger(__name__)

SHOWN = 10
"""Problems and warnings shown of one source; the rest are counted."""
PARSED = 1000
"""Rows whose gold answer is tried on the grader; parsing hundreds of thousands would take minutes."""

_CONTROL = re.compile(r"<[|｜][^<>|｜\s]{1,40}[|｜]>")
"""Text that tokenizers turn into control tokens: `<|im_start|>`, `<｜User｜>`."""
_MATHS = frozenset("\\{}[]()^_$=<>")
"""An answer with one of these is meant as maths; one without, such as `Tuesday`, may be compared as text."""


class BadRow(Exception):
    """What is wrong with one row, and the setting to look at."""

    def __init__(self, message: str, path: str = "dataset.path") -> None:
        self.path = path
        # A terminal cannot print half of a surrogate pair, which a broken row may hold.
        super().__init__(message.encode("utf-8", "backslashreplace").decode())


def read_examples(
    rows: Iterable[Row], example: Callable[[Row], Example], source: str, tolerated_share: float = 0.0
) -> list[Example]:
    """Applies `example`, which raises BadRow for a row that cannot be used, to every row. Rows are numbered from 0.

    Raises SpecError with the first problems and how many more there are. If no more than `tolerated_share` of the rows
    are bad, those are left out, and so few answers that the grader cannot parse are kept; both are warned of.
    """
    examples: list[Example] = []
    unusable: list[Problem] = []
    unparsed: list[Problem] = []
    warnings: list[str] = []
    for index, row in enumerate(rows):
        place = f"{source}: row {index}"
        try:
            read = example(row)
            _check(read)
        except BadRow as error:
            unusable.append(Problem(f"{place}: {error}", error.path))
            continue
        examples.append(read)
        warnings += [f"{place}: {oddity}" for oddity in oddities(read)]
        if index < PARSED and not parses(read.answer):
            if times_out(read.answer):
                message = (
                    f"{place}: answer timed out: {read.answer[:80]!r} takes more than {CPU_SECONDS:g} s to compare"
                )
                warnings.append(f"{message}; only a completion with the same text will be right")
                continue
            message = f"{place}: answer cannot be parsed: {read.answer[:80]!r}"
            if _MATHS.isdisjoint(read.answer):
                warnings.append(f"{message}; only a completion with the same text will be right")
            else:
                unparsed.append(Problem(f"{message}; expected a number or an expression", "dataset.path"))

    total = len(examples) + len(unusable)
    problems = unusable + unparsed
    if len(unusable) > tolerated_share * total or len(unparsed) > tolerated_share * min(total, PARSED):
        rest = len(problems) - SHOWN
        raise SpecError(
            problems[:SHOWN] + [Problem(f"{source}: {rest} more such problems", "dataset.path")] * (rest > 0)
        )
    if unusable:
        warnings.insert(0, f"{source}: left out {len(unusable)} of {total} rows that cannot be used")
    warn(warnings + [problem.message for problem in problems], source)
    return examples


def text(row: Row, column: str, path: str = "dataset.path") -> str:
    """The text in a column. Raises BadRow if it is missing, empty or anything but text."""
    value = present(row, column, path)
    if not isinstance(value, str):
        raise BadRow(f"{column}: expected a string, got {kind(value)}", path)
    if not value.strip():
        raise BadRow(f"{column} is empty", path)
    return value


def present(row: Row, column: str, path: str = "dataset.path") -> Any:
    """The value in a column, which may be None. Raises BadRow if there is no such column."""
    if column not in row:
        raise BadRow(f"column {column!r} missing; it has: {', '.join(row) or 'nothing'}", path)
    return row[column]


def identity(*texts: str | None) -> str:
    """An id made of the content, so that it does not depend on the order of the rows."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]


def oddities(example: Example) -> Iterator[str]:
    """What is to be warned of."""
    texts = "\n".join([*(message["content"] for message in example.messages), example.solution or ""])
    if "\0" in texts:
        yield "holds a NUL character, which many tokenizers drop"
    if control := _CONTROL.search(texts):
        yield f"holds the text of a special token, {control[0]}, which the tokenizer may read as one"


def warn(warnings: Sequence[str], source: str) -> None:
    """The first few warnings, and how many more there are."""
    for warning in warnings[:SHOWN]:
        logger.warning("%s", warning)
    if len(warnings) > SHOWN:
        logger.warning("%s: %d more warnings like these", source, len(warnings) - SHOWN)


def _check(example: Example) -> None:
    contents = [message["content"] for message in example.messages]
    if not _is_unicode("".join([*contents, example.answer, example.solution or "", example.group, example.id])):
        raise BadRow("not valid Unicode: a string holds half of a surrogate pair (\\ud800 to \\udfff)")
    if _leaks(example.solution or "", example.answer, contents):
        raise BadRow("the prompt holds the solution word for word; take it out of the prompt")


def _leaks(solution: str, answer: str, contents: Sequence[str]) -> bool:
    """A solution that is nothing but the answer, such as the letter of a choice, may well occur in its question."""
    if not solution or _bare(solution) == _bare(answer):
        return False
    return any(solution.strip() in content for content in contents)


def _bare(text: str) -> str:
    return text.strip(" .\n").casefold()


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
