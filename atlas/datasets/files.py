"""Local data files: JSON, JSON Lines and Parquet, read into rows."""

import json
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from atlas.errors import SpecError

Row = Mapping[str, Any]

SUFFIXES = (".json", ".jsonl", ".parquet")
"""Names a data file in a directory can end in."""


def read_rows(path: Path) -> Sequence[Row]:
    """The rows of a file: `.parquet`, `.json` (a list, or one object a line), and anything else as JSON Lines.

    Kept in memory while the file does not change. Raises SpecError at `dataset.path` if the file is missing, empty, cut
    off or not what its name says. The rows themselves are not checked beyond being objects.
    """
    with reading(path):
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise unusable(path, "is a directory or a device; expected a file")
        rows = _read(path, state.st_mtime_ns, state.st_size)
    if not rows:
        raise unusable(path, "is empty; expected at least one row")
    return rows


def only_file(path: Path) -> Path:
    """`path` itself, or the one data file in it if it is a directory."""
    with reading(path):
        if not path.is_dir():
            return path
        files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if len(files) == 1:
        return files[0]
    found = ", ".join(file.name for file in files) or "none"
    raise unusable(
        path, f"expected one data file ({', '.join(SUFFIXES)}) in this directory, found: {found}; name the file"
    )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what the operating system and the decoder say about a file into an error about the spec."""
    try:
        yield
    except FileNotFoundError:
        raise unusable(path, "does not exist") from None
    except UnicodeDecodeError as error:
        raise unusable(path, f"not valid Unicode: {error.object[error.start :][:1]!r} is not UTF-8") from None
    except OSError as error:
        raise unusable(path, f"cannot be read: {error.strerror or error}") from error


def unusable(path: Path, message: str) -> SpecError:
    """The error about a data file."""
    return SpecError(f"{path}: {message}", "dataset.path")


@lru_cache(maxsize=4)
def _read(path: Path, _modified: int, _size: int) -> Sequence[Row]:
    if path.suffix == ".parquet":
        return _read_parquet(path)
    with path.open(encoding="utf-8-sig") as file:
        start = file.read(100).lstrip()[:1]
        file.seek(0)
        if path.suffix == ".json" and start == "[":
            rows = _parse(path, file.read())
            return [_object(path, f"row {index}", row) for index, row in enumerate(rows)]
        lines = enumerate(file, start=1)
        return [_object(path, f"line {n}", _parse(path, line, n)) for n, line in lines if line.strip()]


def _read_parquet(path: Path) -> Sequence[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise unusable(path, "reading Parquet needs pyarrow; install it: pip install 'atlas[train]'") from None
    try:
        rows: list[Row] = pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        raise unusable(path, f"truncated or not Parquet: {error}") from error
    return rows


def _parse(path: Path, text: str, line: int = 0) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise unusable(path, f"line {line or error.lineno}: not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise unusable(path, f"line {line or 1}: not JSON that can be read: {error}") from None


def _object(path: Path, place: str, value: Any) -> Row:
    if isinstance(value, dict):
        return value
    raise unusable(path, f'{place}: expected an object such as {{"prompt": ...}}, got {kind(value)}')


def kind(value: Any) -> str:
    """What a JSON value is, in words for an error message."""
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list"}
    return names.get(type(value), "an object" if isinstance(value, dict) else type(value).__name__)
