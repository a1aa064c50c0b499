"""Every field that a job file can hold, found by walking the Spec classes."""

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from atlas.spec import Spec


@dataclass(frozen=True)
class Documented:
    """A field and where it stands. `type` is that of the innermost section with one: `gkd` for `method.beta`."""

    keys: tuple[str, ...]
    """As in a file: `("method", "beta")`."""
    info: FieldInfo
    owner: type[Spec]
    type: str | None = None

    @property
    def path(self) -> str:
        return ".".join(self.keys)


def walk(model: type[Spec], keys: tuple[str, ...] = (), type_: str | None = None) -> Iterator[Documented]:
    """All fields below a Spec class, parents before children, every type of a union in turn."""
    for name, info in model.model_fields.items():
        yield Documented((*keys, name), info, model, type_)
        sections = sections_of(info.annotation)
        for section in sections:
            yield from walk(section, (*keys, name), type_name(section) or type_)


def sections_of(annotation: Any) -> list[type[Spec]]:
    """The Spec classes that a field of this annotation can hold."""
    return [option for option in options_of(annotation) if isinstance(option, type) and issubclass(option, Spec)]


def options_of(annotation: Any) -> list[Any]:
    """The members of a union without None; otherwise the annotation itself. `Annotated` is taken off."""
    if get_origin(annotation) is Annotated:
        return options_of(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [option for member in get_args(annotation) for option in options_of(member) if option is not type(None)]
    return [annotation]


def type_name(section: type[Spec]) -> str | None:
    """The word that picks this class: the `type:` of a file."""
    info = section.model_fields.get("type")
    return get_args(info.annotation)[0] if info is not None and get_origin(info.annotation) is Literal else None


def allows_env(info: FieldInfo) -> bool:
    """Whether `${env:NAME}` is replaced in the field."""
    return any(isinstance(extra, dict) and "env" in extra for extra in _extras(info))


def _extras(info: FieldInfo) -> Iterator[Any]:
    yield info.json_schema_extra
    pending = [info.annotation]
    while pending:
        annotation = pending.pop()
        pending += [argument for argument in get_args(annotation) if not isinstance(argument, (FieldInfo, str))]
        for argument in get_args(annotation):
            if isinstance(argument, FieldInfo):
                yield argument.json_schema_extra


def allowed_range(info: FieldInfo | None) -> str | None:
    """The bounds of a number in words, such as "more than 0 and at most 1"; None if it has none."""
    bounds = {
        name: getattr(constraint, name)
        for constraint in (info.metadata if info else ())
        for name in ("ge", "gt", "le", "lt")
        if getattr(constraint, name, None) is not None
    }
    return range_text(bounds)


def range_text(bounds: dict[str, Any]) -> str | None:
    """`{"ge": 0, "le": 1}` as "between 0 and 1"."""
    if "ge" in bounds and "le" in bounds:
        return f"between {bounds['ge']} and {bounds['le']}"
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    return " and ".join(f"{word} {bounds[name]}" for name, word in words.items() if name in bounds) or None
