"""What is wrong with a job file, in words that say what to do."""

import math
import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from atlas.errors import SpecError
from atlas.fields import allowed_range, allows_env, options_of, range_text, sections_of, type_name, walk
from atlas.secrets import is_hex_key, is_secret, names_secret
from atlas.source import KeyPath, Source, dotted
from atlas.spec import Spec
from atlas.syntax import shown
from atlas.tree import Node, describe

S = TypeVar("S", bound=Spec)


def validate(source: Source, model: type[S]) -> S:
    """The tree as a `model`. Raises SpecError with every problem of the file, in its order."""
    problems = {path: source.problem(message, path) for path, message in _suspicious(source.root, model)}
    try:
        job = model.model_validate(source.root.plain())
    except ValidationError as error:
        for path, message, at_key in _explained(error, source, model):
            problems.setdefault(path, source.problem(message, path, at_key))
    if problems:
        raise SpecError(
            sorted(problems.values(), key=lambda problem: (str(problem.file), problem.line or 0, problem.column or 0))
        )
    return job


def did_you_mean(word: str, known: list[str]) -> str | None:
    """The known name nearest to a mistyped, shortened or lengthened one: `dtpe`, `lr`, `num_epochs`."""
    close = get_close_matches(word.lower(), known, n=1, cutoff=0.75)
    if close:
        return close[0]
    for name in known:
        if word.lower() == "".join(part[0] for part in name.split("_") if part) and len(word) > 1:
            return name
    for name in known:
        if len(word) > 2 and len(name) > 2 and (word.lower() in name or name in word.lower()):
            return name
    return next(iter(get_close_matches(word.lower(), known, n=1, cutoff=0.6)), None)


def _suspicious(root: Node, model: type[Spec]) -> Iterator[tuple[KeyPath, str]]:
    """What validation cannot see: YAML traps, secrets, and `${env:NAME}` where nothing replaces it."""
    fields = list(walk(model))
    known = {field.path for field in fields}
    replaced = sorted({field.path for field in fields if allows_env(field.info)})
    for path, node in _leaves(root, ()):
        field = ".".join(part for part in path if isinstance(part, str))
        if _holds_secret(path, node, field in known):
            yield (
                path,
                "looks like a secret, and job files are stored and shown; remove it: "
                "Atlas reads secrets from the environment (WANDB_API_KEY, HF_TOKEN)",
            )
        elif node.trap:
            yield path, node.trap
        elif isinstance(node.value, str) and "${env:" in node.value and field in known and field not in replaced:
            only = f", only in {', '.join(replaced)}" if replaced else ""
            yield path, f"${{env:NAME}} is not replaced here{only}; write the value"
        elif isinstance(node.value, str) and field in replaced and re.search(r"\$\{(?!env:[A-Za-z_]\w*\})", node.value):
            yield path, f"expected ${{env:NAME}} with the name of an environment variable, got {describe(node)}"


def _leaves(node: Node, path: KeyPath) -> Iterator[tuple[KeyPath, Node]]:
    if isinstance(node.value, dict):
        for key, child in node.value.items():
            yield from _leaves(child, (*path, key))
    elif isinstance(node.value, list):
        for index, child in enumerate(node.value):
            yield from _leaves(child, (*path, index))
    else:
        yield path, node


def _holds_secret(path: KeyPath, node: Node, known: bool) -> bool:
    if node.value is None or isinstance(node.value, bool):
        return False
    names = [part for part in path if isinstance(part, str)]
    if not known and node.raw and any(names_secret(name) for name in names):
        return True
    return is_secret(node.raw) or (is_hex_key(node.raw) and "wandb" in names)


def _explained(error: ValidationError, source: Source, model: type[Spec]) -> Iterator[tuple[KeyPath, str, bool]]:
    """Path, message, and whether the key (rather than its value) is at fault."""
    alternatives: dict[KeyPath, list[tuple[KeyPath, str]]] = {}
    for detail in error.errors(include_url=False):
        at = _untag(model, detail["loc"])
        node, _ = source.find(at.path)
        if detail["type"] == "extra_forbidden":
            yield at.path, _unknown_key(at, model), True
        elif detail["type"] == "missing":
            yield at.path, _missing(at), True
        elif detail["type"] == "union_tag_not_found" and node is not None and not isinstance(node.value, dict):
            name = node.value if node.value in _types(at) else "..."
            yield at.path, f"expected a mapping of keys, got {describe(node)}; write {{type: {name}}}", False
        elif detail["type"] == "union_tag_not_found":
            yield (*at.path, "type"), f"required key is missing; expected one of: {', '.join(_types(at))}", True
        elif detail["type"] == "union_tag_invalid":
            yield (*at.path, "type"), _unknown_type(source.find((*at.path, "type"))[0], _types(at)), False
        elif detail["type"] in ("value_error", "assertion_error"):
            yield at.path, _value_error(detail), not isinstance(detail["input"], str)
        elif at.union is not None:
            alternatives.setdefault(at.union, []).append((at.path, _expected(detail, at)))
        elif detail["type"] == "literal_error" and at.path[-1] == "type":
            yield at.path, _unknown_type(node, _choices(at)), False
        else:
            expected = _expected(detail, at)
            yield at.path, f"expected {expected}, got {_got(node, expected)}{_hint(node, expected, at.info)}", False
    for found in alternatives.values():
        # A list with a wrong item failed as a list too, and as everything else: only the item matters.
        deepest = max(len(path) for path, _ in found)
        path = next(path for path, _ in found if len(path) == deepest)
        expected = " or ".join(dict.fromkeys(text for other, text in found if len(other) == deepest))
        node, _ = source.find(path)
        yield path, f"expected {expected}, got {_got(node, expected)}{_hint(node, expected)}", False


class _Spot:
    """Where a validation error is: its path in the file, without pydantic's names for the members of unions."""

    def __init__(self, model: type[Spec]) -> None:
        self.path: KeyPath = ()
        self.section: type[Spec] = model
        """The class whose field this is."""
        self.info: FieldInfo | None = None
        self.annotation: Any = model
        self.union: KeyPath | None = None
        """The path of the union, when one of its members failed."""


def _untag(model: type[Spec], loc: tuple[int | str, ...]) -> _Spot:
    spot = _Spot(model)
    for part in loc:
        options = options_of(spot.annotation)
        sections = sections_of(spot.annotation)
        if len(options) > 1:
            tagged = [section for section in sections if type_name(section) == part]
            labelled = [option for option in options if str(part).split("[")[0] == _label(option)]
            spot.annotation = (tagged or labelled or [Any])[0]
            spot.union = spot.union if tagged else spot.path
            continue
        spot.path = (*spot.path, part)
        if sections:
            spot.section = sections[0]
            spot.info = sections[0].model_fields.get(str(part))
            spot.annotation = spot.info.annotation if spot.info else Any
        else:
            arguments = get_args(options[0])
            spot.info = None
            spot.annotation = arguments[-1] if arguments else Any
    return spot


def _label(option: Any) -> str:
    origin = get_origin(option) or option
    return "literal" if origin is Literal else getattr(origin, "__name__", str(origin))


def _unknown_key(at: _Spot, model: type[Spec]) -> str:
    key, section = str(at.path[-1]), at.section
    here = list(section.model_fields)
    near = get_close_matches(key, here, n=1, cutoff=0.85)
    elsewhere = {field.path: field.type for field in reversed(list(walk(model))) if field.keys[-1] == key}
    parent = at.path[:-1]
    if near:
        return f"unknown key; did you mean '{near[0]}'?"
    if dotted(at.path) in elsewhere:
        other = elsewhere[dotted(at.path)]
        return f"unknown key of type {type_name(section)}; type {other} has it"
    if elsewhere:
        paths = [f"'{path}'" for path in elsewhere][:3]
        return f"unknown key; did you mean {' or '.join(paths)}?"
    if guess := did_you_mean(key, here):
        return f"unknown key; did you mean '{guess}'?"
    anywhere = {field.keys[-1]: field.path for field in reversed(list(walk(model)))}
    if guess := did_you_mean(key, list(anywhere)):
        return f"unknown key; did you mean '{anywhere[guess]}'?"
    return f"unknown key; {dotted(parent) or 'the file'} has {', '.join(here)}"


def _missing(at: _Spot) -> str:
    meaning = (at.info.description or "") if at.info else ""
    sentence = re.split(r"(?<=[\w)`])\.\s", meaning.replace("\n", " "))[0].rstrip(".")
    return f"required key is missing{f' ({sentence})' if sentence else ''}"


def _types(at: _Spot) -> list[str]:
    return sorted(name for section in sections_of(at.annotation) if (name := type_name(section)))


def _unknown_type(node: Node | None, known: list[str]) -> str:
    if node is None or not isinstance(node.value, str):
        return f"expected one of: {', '.join(known)}; got {_got(node)}"
    guess = did_you_mean(node.value, known)
    return f"unknown type {shown(node.raw)}; {f'did you mean {guess!r}? ' if guess else ''}Known: {', '.join(known)}"


def _value_error(detail: ErrorDetails) -> str:
    message = str(detail.get("ctx", {}).get("error", detail["msg"]))
    value = detail["input"]
    return message.replace(repr(str(value)), shown(value)) if isinstance(value, str) else message


def _choices(at: _Spot) -> list[str]:
    return [str(choice) for option in options_of(at.annotation) for choice in get_args(option)]


_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "string_type": "text",
    "string_unicode": "text of valid Unicode characters",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "dict_type": "a mapping of keys",
    "mapping_type": "a mapping of keys",
    "model_type": "a mapping of keys",
    "model_attributes_type": "a mapping of keys",
    "finite_number": "a finite number",
    "none_required": "null",
}


_EXPECTED_OTHER = {text for text in _EXPECTED.values() if "number" not in text}


def _expected(detail: ErrorDetails, at: _Spot) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    if kind.startswith(("greater_than", "less_than")):
        bounds = {name: value for name, value in context.items() if name in ("ge", "gt", "le", "lt")}
        return allowed_range(at.info) or range_text(bounds) or detail["msg"]
    if kind == "literal_error":
        choices = _choices(at)
        guess = did_you_mean(str(detail["input"]), choices) if isinstance(detail["input"], str) else None
        listed = f"one of: {', '.join(choices)}" if len(choices) > 1 else f"'{choices[0]}'"
        return listed + (f" (did you mean '{guess}'?)" if guess and len(choices) > 1 else "")
    if kind == "string_pattern_mismatch":
        extra = at.info.json_schema_extra if at.info else None
        words = extra.get("patternErrorMessage") if isinstance(extra, dict) else None
        return str(words or f"text matching {context['pattern']}")
    if kind in ("string_too_short", "too_short"):
        least = context.get("min_length")
        unit = (
            "characters"
            if isinstance(detail["input"], str)
            else "keys"
            if isinstance(detail["input"], dict)
            else "items"
        )
        return "a text that is not empty" if (unit, least) == ("characters", 1) else f"at least {least} {unit}"
    if kind in ("string_too_long", "too_long"):
        return f"at most {context.get('max_length')} {'characters' if kind == 'string_too_long' else 'items'}"
    if kind == "multiple_of":
        return f"a multiple of {context['multiple_of']}"
    return detail["msg"].removeprefix("Input should be ").removeprefix("a valid ")


def _got(node: Node | None, expected: str = "") -> str:
    if node is None:
        return "nothing"
    number = isinstance(node.value, int | float) and not isinstance(node.value, bool)
    return f"the number {describe(node)}" if number and expected in _EXPECTED_OTHER else describe(node)


def _hint(node: Node | None, expected: str, info: FieldInfo | None = None) -> str:
    """The next step, for the mistakes that everybody makes."""
    if node is None:
        return ""
    if expected == "text" and isinstance(node.value, bool | int | float):
        return f'; quote it: "{shown(node.raw, quote=False)}"'
    if node.value is None:
        return "; write a value" if info is None or info.is_required() else "; leave the key out for its default"
    number = str(node.value).replace("_", "") if isinstance(node.value, str) else ""
    if "number" in expected and re.fullmatch(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?", number):
        return f"; write {shown(number, quote=False)} without quotes"
    if "whole" in expected and isinstance(node.value, float) and math.isfinite(node.value) and node.value.is_integer():
        return f"; write {int(node.value)}"
    if expected == "true or false" and str(node.value).lower() in ("true", "false", "yes", "no", "on", "off", "0", "1"):
        return "; write true or false without quotes"
    return ""
