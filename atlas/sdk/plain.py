"""Any value becomes JSON or text. What has no form in JSON becomes a text that says so."""

import base64
import json
from math import isfinite
from typing import Any

MAX_DEPTH = 50
MAX_REPR_CHARACTERS = 1000
LARGEST_INTEGER = 2**63 - 1
"""Larger ones do not fit a database: they are written as text."""

ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"))


def text(value: object) -> str:
    """The value as text: a list of texts is taken as the pieces of one (a stream's chunks), None as no text, anything
    else as its JSON."""
    if type(value) is str:
        return value
    if isinstance(value, list | tuple) and all(isinstance(piece, str) for piece in value):
        return "".join(value)
    made = plain(value)
    if made is None:
        return ""
    return made if isinstance(made, str) else ENCODER.encode(made)


def plain(value: object) -> Any:
    """The value as what JSON has: None, bool, int, float, str, and lists and dicts of these, always new ones."""
    return _plain(value, ())


def _plain(value: object, around: tuple[int, ...]) -> Any:
    kind = type(value)
    if value is None or kind is str or kind is bool:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return _integer(int(value))
    if isinstance(value, float):
        return _real(float(value))
    if isinstance(value, bytes | bytearray | memoryview):
        return _bytes(bytes(value))
    if len(around) >= MAX_DEPTH:
        return f"nested deeper than {MAX_DEPTH}"
    if id(value) in around:
        return _unserialisable(value)
    within = (*around, id(value))
    if isinstance(value, dict):
        return _object(list(dict.items(value)), within)
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, within) for item in list(value)]
    return _foreign(value, within)


def _object(items: list[tuple[object, object]], within: tuple[int, ...]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in items:
        made[free_key(key if type(key) is str else text(key), made)] = _plain(value, within)
    return made


def free_key(key: str, taken: dict[str, Any]) -> str:
    """The key, or where that is taken (1 and "1" in one dict) the next free `key (2)`."""
    if key not in taken:
        return key
    number = 2
    while f"{key} ({number})" in taken:
        number += 1
    return f"{key} ({number})"


def _integer(value: int) -> int | str:
    if abs(value) <= LARGEST_INTEGER:
        return value
    bits = value.bit_length()
    return str(value) if bits < 10_000 else f"integer of {bits} bits"


def _real(value: float) -> float | str:
    if isfinite(value):
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def _bytes(value: bytes) -> str:
    """Bytes that are text are kept as text, so that redaction sees what they say."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return f"base64, {len(value)} bytes: {base64.b64encode(value).decode('ascii')}"


def _foreign(value: object, within: tuple[int, ...]) -> Any:
    """Other objects: fields of data classes and pydantic models, numbers of other libraries, else the repr."""
    kind = type(value)
    try:
        if hasattr(kind, "model_dump"):
            return _plain(value.model_dump(), within)  # type: ignore[attr-defined]
        if hasattr(kind, "__dataclass_fields__") and not isinstance(value, type):
            names = list(kind.__dataclass_fields__)
            return _object([(name, getattr(value, name, None)) for name in names], within)
        if hasattr(kind, "__index__"):
            return _integer(int(value.__index__()))  # type: ignore[attr-defined]
        if hasattr(kind, "__float__"):
            return _real(float(value))  # type: ignore[arg-type]
    except Exception:
        return _unserialisable(value)
    return _unserialisable(value)


def _unserialisable(value: object) -> str:
    name = type(value).__name__
    try:
        shown = str.__str__(repr(value))
    except Exception as error:
        return f"unserialisable {name}, repr failed: {type(error).__name__}"
    if len(shown) > MAX_REPR_CHARACTERS:
        shown = f"{shown[:MAX_REPR_CHARACTERS]}..."
    return f"unserialisable {name}, repr: {shown}"
