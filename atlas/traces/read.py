"""Lines of a file become records, or one sentence about what is wrong with them. A bad line never stops the rest.

What comes out has gone through redaction, whatever wrote the file.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from pydantic import ValidationError

from atlas.sdk.redaction import Redaction
from atlas.sdk.schema import VERSION
from atlas.traces.arc import Counts, is_arc, records_of
from atlas.traces.records import ADAPTER, AnyRecord, AttemptRecord, InterventionRecord, SessionRecord

LONGEST_LINE_BYTES = 16 << 20
DEEPEST = 200
"""Objects and arrays inside each other."""
_LARGEST = 2**63 - 1
_LONGEST_INTEGER = 20
_LONGEST_PROBLEM = 300
_HALF_OR_NUL = re.compile(rb"\\u(?:[dD][89a-fA-F]|0000)")
"""Where text may hold half a character or NUL: only then is every text looked at."""
_MARK = re.compile(rb'(?s)"(?:[^"\\]++|\\.)*+"?|[\[{\]}]')
"""A bracket; or a text, also one without an end, so that none is looked at twice."""
_UNSAFE = re.compile("[\ud800-\udfff\0]")
_REDACTION = Redaction()


@dataclass(frozen=True)
class Line:
    """One line of a file: its records, or what is wrong with it."""

    number: int
    """From 1."""
    end_bytes: int
    """Where the next one begins."""
    newlines: int
    """How many ends of lines are before `end_bytes`."""
    records: tuple[AnyRecord, ...] = ()
    problem: str | None = None
    """Why it cannot be taken."""
    doubts: tuple[str, ...] = ()
    """What is odd about it, though it is taken."""
    arc: Counts | None = None
    """What became of its fields, where it is a session of Arc's."""


class BadLine(ValueError):
    """What is wrong with a line."""


def read_lines(path: Path, start_bytes: int = 0, newlines: int = 0) -> Iterator[Line]:
    """The whole lines of a file from this offset on, before which there are so many ends of lines.

    Somebody may be in the middle of writing the last one: without an end it is read only if it is a whole object.
    """
    with path.open("rb") as file:
        file.seek(start_bytes)
        for raw, whole in _raw_lines(file):
            number = newlines + 1
            newlines += whole
            end_bytes = file.tell()
            if not raw.strip():
                continue
            try:
                yield _line(raw, number, end_bytes, newlines)
            except BadLine as error:
                if not whole:
                    return
                yield Line(number, end_bytes, newlines, problem=_sayable(str(error)))


def _raw_lines(file: IO[bytes]) -> Iterator[tuple[bytes, bool]]:
    """(line, whether it has an end). Of one that is too long only so much that this can be seen."""
    while raw := file.readline(LONGEST_LINE_BYTES + 2):
        rest = raw
        while len(raw) > LONGEST_LINE_BYTES and rest and not rest.endswith(b"\n"):
            rest = file.readline(LONGEST_LINE_BYTES)
        yield raw, rest.endswith(b"\n")


def _line(raw: bytes, number: int, end_bytes: int, newlines: int) -> Line:
    document = _document(raw)
    if is_arc(document):
        converted, counts = records_of(document)
        return Line(number, end_bytes, newlines, tuple(map(record_of, converted)), arc=counts)
    record = record_of(document)
    return Line(number, end_bytes, newlines, (record,), doubts=_doubts(record))


def record_of(document: dict[str, Any]) -> AnyRecord:
    """The record that a JSON object says, redacted. Raises BadLine."""
    version = document.get("schema_version", VERSION)
    if isinstance(version, int) and version > VERSION:
        raise BadLine(
            f"written with version {version} of the line schema, this Atlas reads version {VERSION}; "
            f"upgrade Atlas to one that reads version {version}"
        )
    try:
        record = ADAPTER.validate_python(_redacted(document), strict=True)
    except ValidationError as error:
        raise BadLine(_explained(error)) from error
    if record.parent == record.id:
        raise BadLine(f"span {record.id} is its own parent; expected another record, or none")
    if isinstance(record, SessionRecord) and record.session != record.id:
        raise BadLine(f"session: expected {record.id}, the id of the session record itself, got {record.session}")
    return record


def _doubts(record: AnyRecord) -> tuple[str, ...]:
    if not isinstance(record, AttemptRecord | InterventionRecord) or (record.duration_seconds or 0) >= 0:
        return ()
    return (f"negative duration of {record.duration_seconds:g} s",)


def redact_line(line: str) -> str:
    """A stored record's line as it would be stored now."""
    return ADAPTER.validate_python(_redacted(json.loads(line))).model_dump_json(exclude_none=True)


def _document(raw: bytes) -> dict[str, Any]:
    if len(raw) > LONGEST_LINE_BYTES + 1:
        raise BadLine(f"longer than {LONGEST_LINE_BYTES >> 20} MiB")
    if _too_deep(raw):
        raise BadLine(f"nested deeper than {DEEPEST}")
    try:
        document = _DECODER.decode(raw.decode())
    except UnicodeDecodeError as error:
        raise BadLine(f"not UTF-8: byte {error.start + 1} of the line is 0x{raw[error.start]:02x}") from error
    except BadLine:
        raise
    except ValueError as error:
        raise BadLine(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadLine(f"expected a JSON object, got {type(document).__name__}")
    return _storable(document) if _HALF_OR_NUL.search(raw) else document


def _too_deep(raw: bytes) -> bool:
    if raw.count(b"{") + raw.count(b"[") <= DEEPEST:
        return False
    depth = 0
    for mark in _MARK.finditer(raw):
        depth += (mark[0] in b"[{") - (mark[0] in b"]}")
        if depth > DEEPEST:
            return True
    return False


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise BadLine(f"key {max(names, key=names.count)!r} is there twice")
    return found


def _no_number(word: str) -> NoReturn:
    raise BadLine(f"{word} is no JSON; leave out what is not a number")


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST_INTEGER or abs(value := int(digits)) > _LARGEST:
        raise BadLine(f"a whole number is too large: expected at most {_LARGEST}")
    return value


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise BadLine("a number is too large: expected at most 1.8e308")
    return value


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_no_number, parse_int=_integer, parse_float=_float
)


def _storable(value: Any) -> Any:
    """The value with what no text can hold escaped."""
    if isinstance(value, str):
        return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", value)
    if isinstance(value, dict):
        return {_storable(name): _storable(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_storable(item) for item in value]
    return value


def _redacted(document: dict[str, Any]) -> dict[str, Any]:
    """What came from elsewhere has not gone through redaction. What cannot be redacted is not taken."""
    try:
        return _REDACTION.record(document)
    except Exception as error:
        raise BadLine(f"cannot be redacted: {type(error).__name__}") from error


def _explained(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, found['loc'][1:]))}: {found['msg']}" if found["loc"][1:] else found["msg"]
        for found in error.errors(include_input=False, include_url=False, include_context=False)[:3]
    )


def _sayable(problem: str) -> str:
    """It may quote the line: short, and without a secret."""
    problem = _REDACTION.text(problem)
    return problem if len(problem) <= _LONGEST_PROBLEM else problem[: _LONGEST_PROBLEM - 3] + "..."
