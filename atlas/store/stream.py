"""Reads stretches of metrics.jsonl and samples.jsonl (grammar: `atlas/run.py`) into rows; knows no database.

A bad line never stops the rest: it is skipped, and its byte offset and what is wrong with it are kept in `bad`.
"""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from atlas.run import CLOCKS

STRETCH_BYTES = 4 << 20
"""About how much is read at once: bounds memory and how long a transaction takes."""
MAX_INTEGER = 2**63 - 1
"""SQLite's largest."""
_MAX_NAME = 200
_WORDS = {"nan": "NaN", "infinity": "Infinity", "inf": "Infinity", "-infinity": "-Infinity", "-inf": "-Infinity"}


@dataclass
class Stretch:
    """What whole lines from `start` to `end` (byte offsets) say. `rewind`, if any, comes before all the rest."""

    stream: ClassVar[str]
    """Name of the file, without `.jsonl`."""

    start: int
    end: int
    lines: int = 0
    """How many of them were good, at least in part."""
    rewind: int | None = None
    bad: list[str] = field(default_factory=list)

    def complain(self, what: str) -> None:
        """Records what is wrong with the line that begins at `end`."""
        self.bad.append(f"byte {self.end}: {what}")


@dataclass
class MetricsStretch(Stretch):
    stream = "metrics"

    points: list[tuple[str, int, float | None, str | None]] = field(default_factory=list)
    """(name, step, value, nonfinite); of equal name and step the last one holds."""
    clocks: list[tuple[int, *tuple[float | None, ...]]] = field(default_factory=list)
    """(step, *CLOCKS)."""
    events: list[tuple[str, str]] = field(default_factory=list)
    """(kind, message)."""
    progress: tuple[str, int | None, int | None] | None = None
    """(phase, step, total) of the last progress line."""
    planned_steps: int | None = None
    """The last total of the phase `train`."""


@dataclass
class SamplesStretch(Stretch):
    stream = "samples"

    samples: list[tuple[Any, ...]] = field(default_factory=list)
    """In the order of SAMPLE_COLUMNS."""


_S = TypeVar("_S", bound=Stretch)


def was_replaced(path: Path, offset: int) -> bool:
    """Whether the file cannot be the one that was read up to `offset`: it is shorter, or no line ends there."""
    if offset == 0 or not path.exists():
        return False
    with path.open("rb") as file:
        file.seek(offset - 1)
        return file.read(1) != b"\n"


def read_metrics(path: Path, start: int) -> MetricsStretch:
    """Reads from byte `start` up to the last newline, the next rewind line, or STRETCH_BYTES, whichever is first."""
    return _read(path, MetricsStretch(start, start), _take_metrics)


def read_samples(path: Path, start: int) -> SamplesStretch:
    """Reads samples as `read_metrics` reads metrics."""
    return _read(path, SamplesStretch(start, start), _take_sample)


class _BadLine(ValueError):
    """What is wrong with a line."""


def _read(path: Path, stretch: _S, take: Callable[[dict[str, Any], _S], None]) -> _S:
    for line in _whole_lines(path, stretch.start):
        try:
            document = _parsed(line)
            if "rewind" not in document:
                take(document, stretch)
            elif stretch.end > stretch.start:
                break  # It opens the next stretch.
            else:
                stretch.rewind = _step(document["rewind"], "rewind", least=-1)
            stretch.lines += 1
        except _BadLine as error:
            stretch.complain(str(error))
        stretch.end += len(line)
    return stretch


def _whole_lines(path: Path, start: int) -> Iterator[bytes]:
    """Lines that end in a newline: the worker may be in the middle of writing the last one."""
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(start)
        while file.tell() < start + STRETCH_BYTES and (line := file.readline()).endswith(b"\n"):
            yield line


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        document = json.loads(line.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise _BadLine(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise _BadLine(f"expected a JSON object, got {_shown(document)}")
    return document


def _take_metrics(document: dict[str, Any], stretch: MetricsStretch) -> None:
    """Takes any line of metrics.jsonl but a rewind. A bad name or value costs only itself, not its line."""
    if "progress" in document:
        _take_progress(document["progress"], stretch)
    elif "event" in document:
        stretch.events.append((_text(document["event"], "event"), _text(document.get("message", ""), "message")))
    elif "values" in document:
        _take_values(document, stretch)
    else:
        raise _BadLine(f"expected values, progress, event or rewind, got the keys {_shown(sorted(document))}")


def _take_progress(progress: Any, stretch: MetricsStretch) -> None:
    progress = _object(progress, "progress")
    phase = _text(progress.get("phase"), "phase")
    step, total = (None if progress.get(key) is None else _step(progress[key], key) for key in ("step", "total"))
    stretch.progress = (phase, step, total)
    if phase == "train" and total is not None:
        stretch.planned_steps = total


def _take_values(document: dict[str, Any], stretch: MetricsStretch) -> None:
    step = _step(document.get("step"), "step")
    values = _object(document["values"], "values")
    readings = _object(document.get("clocks", {}), "clocks")
    for name, value in values.items():
        try:
            if not name.strip():
                raise _BadLine("metric name is empty")
            if len(name) > _MAX_NAME:
                raise _BadLine(f"metric name is too long: expected at most {_MAX_NAME} characters, got {len(name)}")
            stretch.points.append((_text(name, "name"), step, *_number(value, name)))
        except _BadLine as error:
            stretch.complain(str(error))
    try:
        clocks = [None if readings.get(clock) is None else _number(readings[clock], clock)[0] for clock in CLOCKS]
    except _BadLine as error:
        stretch.complain(str(error))
        return
    if readings:
        stretch.clocks.append((step, *clocks))


def _take_sample(document: dict[str, Any], stretch: SamplesStretch) -> None:
    stretch.samples.append(tuple(read(document.get(name), name) for name, read in _SAMPLE.items()))


def _number(value: Any, name: str) -> tuple[float | None, str | None]:
    """The number as it is stored: the value, or NULL and the word for what it was."""
    if isinstance(value, str):
        word = _WORDS.get(value.lower())
        if word:
            return None, word
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf if value > 0 else -math.inf
        if math.isfinite(number):
            return number, None
        return None, _WORDS[str(number)]
    raise _BadLine(f"{name}: expected a number or one of NaN, Infinity, -Infinity, got {_shown(value)}")


def _step(value: Any, name: str, least: int = 0) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _BadLine(f"{name}: expected a whole number, got {_shown(value)}")
    if value < least:
        raise _BadLine(f"{name} is negative: expected {least} or more, got {_shown(value)}")
    if value > MAX_INTEGER:
        raise _BadLine(f"{name} is too large: expected at most {MAX_INTEGER}, got {_shown(value)}")
    return value


def _text(value: Any, name: str) -> str:
    """Text as SQLite can hold it: a lone surrogate, which no UTF-8 has, becomes its escape `\\udXXX`."""
    if not isinstance(value, str):
        raise _BadLine(f"{name}: expected text, got {_shown(value)}")
    return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()


def _optional_text(value: Any, name: str) -> str | None:
    return None if value is None else _text(value, name)


def _truth(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise _BadLine(f"{name}: expected true or false, got {_shown(value)}")
    return value


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _BadLine(f"{name}: expected a JSON object, got {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    shown = json.dumps(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."


_SAMPLE: dict[str, Callable[[Any, str], Any]] = {
    "step": _step,
    "split": _text,
    "problem_id": _text,
    "sample": lambda value, name: 0 if value is None else _step(value, name),
    "completion": _text,
    "extracted": _optional_text,
    "found": _truth,
    "correct": _truth,
    "tokens": _step,
    "clipped": _truth,
}
SAMPLE_COLUMNS = tuple(_SAMPLE)

READERS: dict[str, Callable[[Path, int], Stretch]] = {"metrics": read_metrics, "samples": read_samples}
"""Each stream of a run directory, and what reads a stretch of it."""
