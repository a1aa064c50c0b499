"""The command that grades answers outside of a run: grade."""

import io
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, BinaryIO

import typer

from atlas.cli.options import Json
from atlas.errors import Problem, SpecError, UsageError

_WIDTH = 30
"""Characters of the column of extracted answers; a longer answer is shown whole."""
_EXAMPLE = 'expected an object such as {"prediction": "x = 5", "gold": "5"}'


def grade(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="JSON Lines with prediction, gold and, if it is known, equal; - reads standard input."
        ),
    ],
    percent: Annotated[
        str, typer.Option(metavar="unit|fraction", help="Whether 10% equals 10 (unit) or 0.1 (fraction).")
    ] = "unit",
    ordered_lists: Annotated[bool, typer.Option("--ordered-lists", help="Let `1, 2` and `2, 1` differ.")] = False,
    as_json: Json = False,
) -> None:
    """Compare pairs of a prediction and a gold answer, as runs do."""
    from atlas.grading import GradingSpec, compared
    from atlas.grading import grade as graded

    if percent not in ("unit", "fraction"):
        raise UsageError(f"--percent {percent!r}: expected unit or fraction")
    policy = GradingSpec.model_validate({"percent": percent, "ordered_lists": ordered_lists})
    name = "<stdin>" if file == "-" else file
    counts: Counter[tuple[bool, bool | None]] = Counter()
    disagreements: list[_Graded] = []
    with _checked(file, name) as lines:
        for pair in _pairs(lines):
            verdict = graded(pair.prediction, pair.gold, policy)
            _, gold = compared(pair.prediction, pair.gold)
            result = _Graded(pair, verdict.found, verdict.correct, verdict.extracted, gold[:1000])
            typer.echo(json.dumps(result.document()) if as_json else str(result))
            counts[verdict.correct, pair.expected] += 1
            if pair.expected not in (None, verdict.correct):
                disagreements.append(result)
    if not as_json and any(expected is not None for _, expected in counts):
        _show_agreement(counts, disagreements, name)


@dataclass(frozen=True)
class _Pair:
    line: int
    prediction: str
    gold: str
    expected: bool | None


@dataclass(frozen=True)
class _Graded:
    pair: _Pair
    found: bool
    equal: bool
    prediction: str | None
    gold: str

    def document(self) -> dict[str, Any]:
        names = ("found", "equal", "prediction", "gold")
        label = {} if self.pair.expected is None else {"expected": self.pair.expected}
        return {name: getattr(self, name) for name in names} | label

    def __str__(self) -> str:
        prediction = "(no answer found)" if self.prediction is None else _on_one_line(self.prediction)
        mark = "right" if self.equal else "wrong"
        return f"{mark}  {self.pair.line:>6}  {prediction:<{_WIDTH}}  {_on_one_line(self.gold)}"


def _checked(file: str, name: str) -> BinaryIO:
    """The file, after all of it was read and found good. What cannot be read twice is held in memory.

    Raises UsageError if it cannot be read, SpecError with every line that is no pair.
    """
    try:
        lines = io.BytesIO(sys.stdin.buffer.read()) if file == "-" else _opened(file)
        _check(lines, name)
        return lines
    except FileNotFoundError:
        raise UsageError(f"{name} does not exist; expected a JSON Lines file, or - for standard input") from None
    except IsADirectoryError:
        raise UsageError(f"{name} is a directory; expected a JSON Lines file") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _opened(file: str) -> BinaryIO:
    opened = io.BufferedReader(io.FileIO(file))
    if opened.seekable():
        return opened
    with opened:
        return io.BytesIO(opened.read())


def _check(lines: BinaryIO, name: str) -> None:
    if lines.read(2) in (b"\xff\xfe", b"\xfe\xff"):
        raise UsageError(f"{name} is a UTF-16 file; save it as UTF-8")
    lines.seek(0)
    problems: list[Problem] = []
    pairs = 0
    for number, line in _numbered(lines):
        pairs += 1
        problems += [Problem(message, file=name, line=number) for message in _problems(line)]
    if problems:
        raise SpecError(problems)
    if not pairs:
        raise UsageError(f"{name} is empty; {_EXAMPLE} in every line")
    lines.seek(0)


def _pairs(lines: BinaryIO) -> Iterator[_Pair]:
    for number, line in _numbered(lines):
        row = json.loads(line)
        yield _Pair(number, row["prediction"], row["gold"], row.get("equal"))


def _numbered(lines: BinaryIO) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(lines, start=1):
        line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if line.strip():
            yield number, line


def _problems(line: bytes) -> list[str]:
    from atlas.datasets.files import kind

    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return [f"not valid UTF-8: byte {error.start} of the line is 0x{line[error.start]:02x}; save the file as UTF-8"]
    except json.JSONDecodeError as error:
        return [f"not JSON: {error.msg} at column {error.colno}; {_EXAMPLE}"]
    except (ValueError, RecursionError) as error:
        return [f"not JSON that can be read: {error}; {_EXAMPLE}"]
    if not isinstance(row, dict):
        return [f"got {kind(row)}; {_EXAMPLE}"]
    problems = []
    for key in ("prediction", "gold"):
        if key not in row:
            problems.append(f"{key} is missing; it has: {', '.join(row) or 'nothing'}; {_EXAMPLE}")
        elif not isinstance(row[key], str):
            problems.append(f"{key}: expected a string, got {kind(row[key])}; write it in quotes")
    if not isinstance(row.get("equal", True), bool):
        problems.append(f"equal: expected true or false, got {kind(row['equal'])}")
    return problems


def _show_agreement(
    counts: Mapping[tuple[bool, bool | None], int], disagreements: Sequence[_Graded], name: str
) -> None:
    typer.echo("\nagainst the labels")
    typer.echo(f"  true positives   {counts[True, True]:>6}")
    typer.echo(f"  false positives  {counts[True, False]:>6}")
    typer.echo(f"  true negatives   {counts[False, False]:>6}")
    typer.echo(f"  false negatives  {counts[False, True]:>6}")
    for result in disagreements:
        label = "equal" if result.pair.expected else "not equal"
        typer.echo(f"{name}:{result.pair.line}: labelled {label}, graded {result}")


def _on_one_line(text: str) -> str:
    from atlas.cli.tables import printable

    return printable(text).replace("\n", "\\n").replace("\t", "\\t")
