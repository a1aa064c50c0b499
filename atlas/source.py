"""A job file with what it extends and what the command line overrides, as one tree that knows its positions."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from atlas import __version__
from atlas.errors import Problem, SpecError, UsageError
from atlas.secrets import is_hex_key, is_secret, names_secret
from atlas.spec import SPEC_VERSION
from atlas.syntax import shown
from atlas.tree import MAX_BYTES, Node, Place, describe, parse

KeyPath = tuple[str | int, ...]
"""`("tags", 0)` is shown as `tags[0]`."""


class Source:
    """The merged tree. `text` and `file` are those of the file that was named; `root` is a mapping."""

    def __init__(self, root: Node, file: str, text: str) -> None:
        self.root = root
        self.file = file
        self.text = text

    def find(self, path: KeyPath) -> tuple[Node | None, Place]:
        """The value at `path`, if there is one, and the place of its key, or of the nearest mapping around it."""
        node, place = self.root, self.root.place
        for part in path:
            if isinstance(node.value, dict) and part in node.value:
                place, node = node.key_places[str(part)], node.value[str(part)]
            elif isinstance(node.value, list) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                place = node.place
            else:
                return None, place
        return node, place

    def problem(self, message: str, path: KeyPath, at_key: bool = False) -> Problem:
        """A problem at the place of the value at `path`, or with `at_key` of its key."""
        node, place = self.find(path)
        return (place if node is None or at_key else node.place).problem(message, dotted(path))

    def locate(self, problem: Problem) -> Problem:
        """The same problem with its place in the file, found by its path."""
        if problem.file is not None:
            return problem
        parts = re.findall(r"[^.\[\]]+", problem.path)
        found = self.problem(problem.message, tuple(int(part) if part.isdecimal() else part for part in parts))
        return Problem(found.message, problem.path, found.file, found.line, found.column)


def dotted(path: KeyPath) -> str:
    """`("student", "lora", "target_modules", 0)` as `student.lora.target_modules[0]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{shown(part, quote=False)}" for part in path)
    return text.removeprefix(".")


def read(path: Path | str, overrides: Sequence[str] = ()) -> Source:
    """Reads a YAML file (`-` is the standard input), what it `extends`, and `a.b=c` overrides. The `base` of an
    experiment is read too, and overrides may reach into it.

    A mapping is merged key by key into that of the parent; anything else replaces it, and so does a mapping whose
    `type` is another, since its keys belong to that type. null removes a key of the parent. Overrides are merged last.

    Raises UsageError if the file cannot be read, SpecError if it is no YAML mapping or newer than this Atlas.
    """
    first = _read_stdin() if str(path) == "-" else _read_file(str(path), Path.cwd())
    chain = [first.label]
    root = _with_base(_with_parents(_parse_file(first), chain), chain)
    return Source(_with_base(merged(root, _overrides(overrides)), chain), first.label, first.text)


def merged(base: Node, over: Node) -> Node:
    """`over` on top of `base`, as `extends` merges them. Values keep the place they were written in."""
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    if "type" in base.value and "type" in over.value and base.value["type"].value != over.value["type"].value:
        return over
    values, key_places = dict(base.value), base.key_places | over.key_places
    for key, node in over.value.items():
        if key not in values:
            values[key] = node
        elif node.value is None:
            del values[key]
        else:
            values[key] = merged(values[key], node)
    return Node(values, base.place if over.place.line is None else over.place, key_places=key_places)


def with_values(root: Node, values: Mapping[str, Node]) -> Node:
    """A mapping with these keys instead of what it said of them."""
    places = {key: node.place for key, node in values.items()}
    return Node({**root.children, **values}, root.place, key_places=root.key_places | places)


def without(root: Node, *keys: str) -> Node:
    """A mapping that says nothing of these keys."""
    kept = {key: node for key, node in root.children.items() if key not in keys}
    return Node(kept, root.place, key_places=root.key_places)


@dataclass(frozen=True)
class _File:
    label: str
    """As shown in messages: relative when it is below the current directory."""
    text: str
    folder: Path


def _read_stdin() -> _File:
    return _File("<stdin>", _decoded(sys.stdin.buffer.read(MAX_BYTES + 1), "<stdin>"), Path.cwd())


def _read_file(name: str, folder: Path) -> _File:
    try:
        path = _absolute(name, folder)
        if path.is_dir():
            raise UsageError(f"{shown(name, quote=False)} is a directory; expected a YAML file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(f"{shown(name, quote=False)} does not exist; expected a YAML file") from None
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: `~name` of nobody
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{shown(name, quote=False)} cannot be read: {reason}") from error
    label = _label(path)
    return _File(label, _decoded(data, label), path.parent)


def _label(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _absolute(name: str, folder: Path) -> Path:
    return Path(os.path.normpath(folder / Path(name).expanduser()))


def _decoded(data: bytes, file: str) -> str:
    if len(data) > MAX_BYTES:
        raise SpecError([Problem(f"larger than {MAX_BYTES} bytes; expected a job file", file=file)])
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise SpecError([Problem("not valid UTF-8 (byte 0 starts a UTF-16 file); save it as UTF-8", file=file)])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        message = f"not valid UTF-8: byte {error.start} is 0x{data[error.start]:02x}; save the file as UTF-8"
        raise SpecError([Problem(message, file=file, line=line)]) from None


def _parse_file(file: _File) -> Node:
    root = parse(file.text, file.folder, file.label)
    if root is None:
        message = "the spec is empty; expected a mapping of keys (name, student, method, ...)"
        raise SpecError([Problem(message, file=file.label)])
    if not isinstance(root.value, dict):
        got = "a string" if isinstance(root.value, str) else describe(root)
        raise SpecError([root.place.problem(f"the top level must be a mapping of keys, got {got}")])
    version = root.children.get("version")
    if version and isinstance(version.value, int) and version.value > SPEC_VERSION:
        message = f"spec version {version.value} is newer than this Atlas ({__version__}) reads ({SPEC_VERSION})"
        raise SpecError([version.place.problem(f"{message}; upgrade Atlas", "version")])
    return root


def _with_parents(root: Node, chain: list[str]) -> Node:
    """A mapping on top of what it `extends`. `chain`: the files that lead here."""
    extends, own = root.children.get("extends"), without(root, "extends")
    return own if extends is None else merged(_read_parents(extends, chain, "extends"), own)


def _with_base(root: Node, chain: list[str]) -> Node:
    """An experiment with its `base` read: a path stands for the file, and a mapping may extend one."""
    kind, base = root.children.get("kind"), root.children.get("base")
    if kind is None or kind.value != "experiment" or base is None:
        return root
    if not isinstance(base.value, (str, dict)):
        message = f"expected the path of a job file, or the job itself, got {describe(base)}"
        raise SpecError([base.place.problem(message, "base")])
    job = _read_parents(base, chain, "base") if isinstance(base.value, str) else _with_parents(base, chain)
    kind = job.children.get("kind")
    if kind is not None and kind.value == "experiment":
        message = "an experiment cannot be the base of another; name a job, or write `extends:` instead of `base:`"
        raise SpecError([kind.place.problem(message, "base.kind")])
    return with_values(root, {"base": job})


def _read_parents(reference: Node, chain: list[str], path: str) -> Node:
    """The file that `extends` or `base` names, on top of what that one extends."""
    parent = _read_parent(reference, chain, path)
    return _with_parents(_parse_file(parent), [*chain, parent.label])


def _read_parent(reference: Node, chain: list[str], path: str) -> _File:
    def error(message: str) -> SpecError:
        return SpecError([reference.place.problem(message, path)])

    name = reference.value
    if not isinstance(name, str) or not name or reference.trap:
        raise error(reference.trap or f"expected the path of one YAML file, got {describe(reference)}")
    if "${" in name:
        raise error("${env:NAME} is not replaced here; write the path")
    try:
        parent = _read_file(name, getattr(name, "folder", Path.cwd()))
    except UsageError as unreadable:
        raise error(f"{unreadable}, relative to this one") from unreadable
    if parent.label in chain:
        circle = " -> ".join([*chain[chain.index(parent.label) :], parent.label])
        raise error(f"the files extend each other in a circle: {circle}")
    return parent


def _overrides(overrides: Sequence[str]) -> Node:
    """All `a.b=c` as one tree, so that their order does not matter."""
    values: dict[str, object] = {}
    places: dict[tuple[str, ...], Place] = {}
    problems: list[Problem] = []
    for override in overrides:
        try:
            keys, node = _parse_override(override)
            _insert(values, keys, node, places)
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(problems)
    return _tree(values, places, ())


def _parse_override(override: str) -> tuple[tuple[str, ...], Node]:
    name, equals, text = override.partition("=")
    keys = tuple(part.strip() for part in name.split("."))
    hidden = any(names_secret(key) for key in keys) or is_secret(text) or is_hex_key(text)
    label = f"--set {name}=…" if hidden else f"--set {shown(override, quote=False)}"
    place = Place(label if equals else f"--set {shown(override.split()[0] if override.split() else '', quote=False)}")
    if not equals or not all(keys):
        raise SpecError([place.problem("expected KEY=VALUE, such as training.learning_rate=1e-5")])
    if keys[0] in ("extends", "version"):
        raise SpecError([place.problem(f"{keys[0]} belongs in the file, it cannot be overridden")])
    node = parse(text, Path.cwd(), place.file, option=True)
    if node is None:
        message = "no value; write null to remove the key, or '\"\"' for an empty text"
        raise SpecError([place.problem(message, ".".join(keys))])
    inline = keys == ("base",) and isinstance(node.value, dict) and "extends" in node.value
    if inline or keys[:2] == ("base", "extends"):
        raise SpecError([place.problem("base.extends belongs in the file, it cannot be overridden")])
    return keys, node


def _insert(values: dict[str, object], keys: tuple[str, ...], node: Node, places: dict[tuple[str, ...], Place]) -> None:
    """Puts `node` at `keys`. Raises SpecError if an earlier override says something about the same key."""
    level: dict[str, object] = values
    for depth, key in enumerate(keys, 1):
        last = depth == len(keys)
        if key in level and (last or not isinstance(level[key], dict)):
            raise SpecError([node.place.problem(f"sets what {places[keys[:depth]].file} already sets", ".".join(keys))])
        places.setdefault(keys[:depth], node.place)
        if last:
            level[key] = node
        else:
            child = level.setdefault(key, {})
            assert isinstance(child, dict)
            level = child


def _tree(values: dict[str, object], places: dict[tuple[str, ...], Place], at: tuple[str, ...]) -> Node:
    children = {
        key: value if isinstance(value, Node) else _tree(value, places, (*at, key))  # type: ignore[arg-type]
        for key, value in values.items()
    }
    return Node(children, places.get(at, Place("--set")), key_places={key: places[(*at, key)] for key in values})
