"""YAML text as a tree of values that know where they were written.

Scalars follow the YAML 1.2 core schema. What YAML 1.1 reads differently (`no`, `012`) is not guessed at: the value
carries a `trap`, a message for whoever wrote it. Tags, merge keys, duplicate and non-text keys are refused.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from atlas.errors import Problem, SpecError
from atlas.secrets import redact
from atlas.spec import SourceString
from atlas.syntax import explained, shown

MAX_BYTES = 256 * 1024
"""A job file is a few kilobytes; more than this is another kind of file."""
MAX_DEPTH = 50
MAX_VALUES = 10_000
"""Values of a file once aliases are written out."""

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Place:
    """Where something was written: a file with 1-based line and column, or a command line option."""

    file: str
    line: int | None = None
    column: int | None = None

    def problem(self, message: str, path: str = "") -> Problem:
        return Problem(redact(message), redact(path), redact(self.file), self.line, self.column)


@dataclass(frozen=True)
class Node:
    """A value of the tree. Shared by all its aliases, so it is never changed."""

    value: "Scalar | list[Node] | dict[str, Node]"
    place: Place
    raw: str = ""
    """A scalar as it was written."""
    trap: str | None = None
    """Why the value cannot be trusted to mean what was written."""
    key_places: dict[str, Place] = field(default_factory=dict)
    size: int = 1
    depth: int = 0

    @property
    def children(self) -> "dict[str, Node]":
        """The values of a mapping."""
        assert isinstance(self.value, dict)
        return self.value

    def plain(self) -> object:
        """The value without positions. Text keeps the folder it was written in (`SourceString`)."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


def parse(text: str, folder: Path, file: str, option: bool = False) -> Node | None:
    """Reads one YAML document; None if there is nothing in it. `folder` is what relative paths in it are relative to.

    `file` is shown in errors; with `option` it is a command line option, which has no lines.
    Raises SpecError at the first error of syntax.
    """
    locate: Callable[[Any], Place] = (
        (lambda mark: Place(file)) if option else (lambda mark: Place(file, mark.line + 1, mark.column + 1))
    )
    _refuse_unprintable(text, Place(file) if option else None, file)
    loader = yaml.SafeLoader(text)
    try:
        return _Composer(loader, folder, locate).document()
    except yaml.MarkedYAMLError as error:
        mark, message = explained(error, text, lines=not option)
        _fail(locate(mark), message)
    except (ValueError, OverflowError):
        # PyYAML hands the digits of escapes and %YAML directives to chr() and int() unchecked.
        _fail(locate(loader.get_mark()), "an escape or directive holds a number that is out of range")


def _fail(place: Place, message: str, path: str = "") -> NoReturn:
    raise SpecError([place.problem(message, path)])


class _Composer:
    """Builds the tree from PyYAML's events, which bound nothing and resolve nothing by themselves."""

    def __init__(self, loader: yaml.SafeLoader, folder: Path, locate: Callable[[Any], Place]) -> None:
        self.loader = loader
        self.folder = folder
        self.locate = locate
        self.count = 0
        self.anchors: dict[str, Node | None] = {}
        """None while the anchored value is still being read."""

    def _next(self) -> Any:
        return self.loader.get_event()  # type: ignore[no-untyped-call]

    def document(self) -> Node | None:
        self._next()
        if self.loader.check_event(yaml.StreamEndEvent):
            return None
        self._next()
        root = self.node(0)
        self._next()
        self._refuse_more_documents()
        return None if root.value is None and not root.raw else root

    def _refuse_more_documents(self) -> None:
        found, second = 1, None
        while not self.loader.check_event(yaml.StreamEndEvent):
            event = self._next()
            if isinstance(event, yaml.DocumentStartEvent):
                found, second = found + 1, second or event.start_mark
        if second is not None:
            _fail(self.locate(second), f"expected one document per file, found {found}; remove `---` or split the file")

    def node(self, depth: int) -> Node:
        event = self._next()
        place = self.locate(event.start_mark)
        if depth > MAX_DEPTH:
            _fail(place, f"nested deeper than {MAX_DEPTH} levels")
        self.count += 1
        if self.count > MAX_VALUES:
            _fail(place, f"more than {MAX_VALUES} values")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event.anchor or "", place, depth)
        if event.tag is not None:
            _fail(place, f"YAML tags are not allowed, got {event.tag[:60]}; write the plain value")
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            node = _scalar(event, place, self.folder)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._list(place, depth)
        else:
            node = self._mapping(place, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = node
        if node.size > MAX_VALUES:
            _fail(place, f"more than {MAX_VALUES} values once aliases are written out")
        return node

    def _alias(self, name: str, place: Place, depth: int) -> Node:
        where = f" on line {place.line}" if place.line else ""
        if name not in self.anchors:
            _fail(place, f"undefined alias *{name}{where}; quote the value if it is text that starts with *")
        node = self.anchors[name]
        if node is None:
            _fail(place, f"recursive alias *{name}{where}: a value cannot contain itself")
        if depth + node.depth > MAX_DEPTH:
            _fail(place, f"nested deeper than {MAX_DEPTH} levels")
        return node

    def _list(self, place: Place, depth: int) -> Node:
        items: list[Node] = []
        while not self.loader.check_event(yaml.SequenceEndEvent):
            items.append(self.node(depth + 1))
        self._next()
        return Node(items, place, size=1 + sum(item.size for item in items), depth=_depth(items))

    def _mapping(self, place: Place, depth: int) -> Node:
        values: dict[str, Node] = {}
        key_places: dict[str, Place] = {}
        while not self.loader.check_event(yaml.MappingEndEvent):
            key = self.node(depth + 1)
            name = _key_name(key)
            if name in values:
                first = key_places[name]
                _fail(key.place, f"duplicate key {shown(name)}{f'; first on line {first.line}' if first.line else ''}")
            values[name] = self.node(depth + 1)
            key_places[name] = key.place
        self._next()
        size = 1 + sum(node.size for node in values.values())
        return Node(values, place, key_places=key_places, size=size, depth=_depth(list(values.values())))


def _depth(children: list[Node]) -> int:
    return 1 + max((child.depth for child in children), default=0)


def _key_name(key: Node) -> str:
    if key.raw == "<<" and isinstance(key.value, str):
        _fail(key.place, "merge keys (`<<`) are not read; use `extends: other.yaml` to build on another file")
    if not isinstance(key.value, str):
        _fail(key.place, f"expected a key that is text, got {describe(key)}; quote it if it is meant as text")
    if any(not character.isprintable() for character in key.value):
        _fail(key.place, f"the key {shown(key.value)} holds a character that cannot be seen; retype it")
    return str(key.value)


_BOOLEANS = {"true": True, "false": False}
_YAML_1_1_BOOLEANS = {"yes": "true", "on": "true", "no": "false", "off": "false"}
_NULLS = ("", "~", "null", "Null", "NULL")
_INT = re.compile(r"[-+]?[0-9]+")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
_PREFIXED_INT = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL_FLOAT = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def _scalar(event: yaml.ScalarEvent, place: Place, folder: Path) -> Node:
    raw: str = event.value
    if event.style is not None:
        return _text(raw, place, folder)
    if raw in _NULLS:
        return Node(None, place, raw)
    if raw in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return Node(_BOOLEANS[raw.lower()], place, raw)
    if raw.lower() in _YAML_1_1_BOOLEANS:
        meaning = _YAML_1_1_BOOLEANS[raw.lower()]
        trap = (
            f'got a boolean: unquoted {raw} is {meaning} in YAML 1.1; quote it ("{raw}") for text, or write {meaning}'
        )
        return _text(raw, place, folder, trap)
    if _LEADING_ZERO.fullmatch(raw):
        number = "-" * raw.startswith("-") + (raw.lstrip("+-0") or "0")
        trap = f"the leading zero means octal to some; write {shown(number, quote=False)}, or quote it for the text"
        return _text(raw, place, folder, trap)
    if _PREFIXED_INT.fullmatch(raw):
        return Node(int(raw, 0), place, raw)
    if _INT.fullmatch(raw):
        if len(raw) > 40:
            return _text(
                raw, place, folder, f"expected a number of at most 40 digits, got {len(raw)}; quote it for the text"
            )
        return Node(int(raw), place, raw)
    if _FLOAT.fullmatch(raw):
        return Node(float(raw), place, raw)
    if match := _SPECIAL_FLOAT.fullmatch(raw):
        return Node(math.nan if match[3] else float(f"{match[1]}inf"), place, raw)
    return _text(raw, place, folder)


_UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


def _text(raw: str, place: Place, folder: Path, trap: str | None = None) -> Node:
    if match := _UNPRINTABLE.search(raw):
        trap = f"the text holds the character {_code_point(match[0])}, which is never meant; remove its escape"
    return Node(SourceString(raw, folder), place, raw, trap)


def _refuse_unprintable(text: str, place: Place | None, file: str) -> None:
    match = _UNPRINTABLE.search(text)
    if match is None:
        return
    if place is None:
        before = text[: match.start()]
        place = Place(file, before.count("\n") + 1, match.start() - before.rfind("\n"))
    _fail(place, f"the file holds the character {_code_point(match[0])}, which YAML does not allow; remove it")


def _code_point(character: str) -> str:
    names = {0: "NUL", 0xFEFF: "byte order mark"}
    kind = names.get(ord(character)) or ("control character" if ord(character) < 0xA0 else "not a Unicode character")
    return f"U+{ord(character):04X} ({kind})"


def describe(node: Node) -> str:
    """The kind of a value, and the value if it is short, for "expected ..., got ..."."""
    match node.value:
        case None:
            return f"nothing ({node.raw or 'an empty value'})"
        case bool():
            return f"a boolean ({node.raw})"
        case str():
            return f"the text {shown(node.raw)}"
        case int() | float():
            return shown(node.raw, quote=False)
        case list():
            return "a list"
        case dict():
            return "a mapping of keys"
