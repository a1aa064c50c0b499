"""The documentation of job and experiment files, made from the fields and their docstrings."""

import copy
import inspect
import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from atlas.diagnosis import did_you_mean
from atlas.errors import SpecError
from atlas.experiment import ExperimentSpec
from atlas.fields import Documented, allowed_range, allows_env, options_of, sections_of, type_name, walk
from atlas.job import JobSpec
from atlas.spec import Spec

EXTENDS = (
    "Path of another job file, relative to this one, that this one is built on. Mappings are merged key by key, "
    "anything else replaces the parent's value, and so does a mapping whose `type` is another. "
    "null removes a key of the parent."
)


def explain(path: str = "") -> str:
    """Documentation of a field (`training.learning_rate`), a section (`student.lora`) or a type (`method.gkd`).

    Raises SpecError with the nearest known name for an unknown path.
    """
    if path == "":
        job = ["A job file.", "", *_children(walk(JobSpec), ())]
        experiment = ["", "An experiment file (kind: experiment).", "", *_children(_own_fields(), ())]
        return "\n".join([*job, *experiment, "", f"extends: {EXTENDS}"])
    if path == "extends":
        return f"extends: text\n  {EXTENDS}"
    fields = [*walk(JobSpec), *_own_fields()]
    found = [field for field in fields if path in (field.path, _typed_path(field))]
    if found:
        return "\n\n".join(_explained(field) for field in found)
    for field in fields:
        for section in sections_of(field.info.annotation):
            if path == f"{field.path}.{type_name(section)}":
                return "\n".join(_section(section, field))
    known = list(dict.fromkeys(name for field in fields for name in (field.path, _typed_path(field))))
    by_key = {name.rpartition(".")[2]: name for name in reversed(known)}
    key = path.rpartition(".")[2]
    guess = by_key.get(did_you_mean(key, list(by_key)) or "") or did_you_mean(path, known)
    raise SpecError(
        f"no such field: {path[:100]!r}" + (f"; did you mean '{guess}'?" if guess else "; see `atlas explain`")
    )


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a job or experiment file, for editors. A file that `extends` another may leave
    everything out."""
    schema, experiment = _untitled(JobSpec.model_json_schema()), _untitled(ExperimentSpec.model_json_schema())
    definitions = schema.pop("$defs")
    for definition in definitions.values():
        if "const" in definition.get("properties", {}).get("type", {}) and definition["properties"]["type"].get(
            "default"
        ):
            definition.setdefault("required", []).insert(0, "type")
    job = {key: schema[key] for key in ("properties", "required")}
    definitions |= {f"Partial{name}": _partial(definition) for name, definition in definitions.items()}
    extends = {"extends": {"type": "string", "description": EXTENDS}}
    definitions["PartialJob"] = {
        "type": "object",
        "properties": _partial(job)["properties"] | extends,
        "additionalProperties": False,
    }
    partial_job: dict[str, Any] = {"$ref": "#/$defs/PartialJob"}
    fields = experiment["properties"] | extends
    fields["base"] |= {"type": ["string", "object"], "anyOf": [{"type": "string"}, partial_job]}
    fields["arms"] |= {"additionalProperties": {"anyOf": [{"type": "null"}, partial_job]}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Atlas job or experiment",
        "description": schema["description"],
        "type": "object",
        "if": {"properties": {"kind": {"const": "experiment"}}, "required": ["kind"]},
        "then": {"properties": fields, "additionalProperties": False},
        "else": {
            "if": {"required": ["extends"]},
            "then": {"$ref": "#/$defs/PartialJob"},
            "else": job | {"additionalProperties": False},
        },
        "$defs": definitions,
    }


def markdown() -> str:
    """The reference of all fields: `docs/spec-reference.md`."""
    lines = [
        "# Job and experiment files",
        "",
        "Made from the code by `atlas.reference.markdown()`; a test keeps it current.",
        "",
        f"`extends`: {EXTENDS}",
        "",
        "`--set a.b=c` on the command line sets one value; relative paths in it are relative to the current directory.",
        "",
        "## Job files",
        "",
        *_table(JobSpec, ()),
    ]
    lines += ["", "## Experiment files", "", inspect.cleandoc(ExperimentSpec.__doc__ or ""), ""]
    lines += _table(ExperimentSpec, ())
    for field in walk(JobSpec):
        for section in sections_of(field.info.annotation):
            name = type_name(section)
            title = f"`{field.path}`" + (f" with `type: {name}`" if name else "")
            lines += ["", f"## {title}", "", inspect.cleandoc(section.__doc__ or ""), "", *_table(section, field.keys)]
    return "\n".join(lines) + "\n"


def _own_fields() -> Iterator[Documented]:
    """What only an experiment file has."""
    shared = set(JobSpec.model_fields)
    return (field for field in walk(ExperimentSpec) if field.keys[0] not in shared)


def _typed_path(field: Documented) -> str:
    """`method.gkd.beta`, which tells the betas of the methods apart."""
    return ".".join((*field.keys[:-1], field.type, field.keys[-1])) if field.type else field.path


def _explained(field: Documented) -> str:
    sections = sections_of(field.info.annotation)
    head = f"{_typed_path(field)}: {_type_text(field.info)}, {_default_text(field.info)}"
    lines = [head, *_indented(field.info.description or "")]
    if allows_env(field.info):
        lines += ["  `${env:NAME}` is replaced by the environment variable."]
    for section in sections:
        lines += ["", *_section(section, field)]
    return "\n".join(lines)


def _section(section: type[Spec], field: Documented) -> list[str]:
    name = type_name(section)
    head = f"{field.path}.{name} (type: {name})" if name else f"{field.path}"
    return [head, *_indented(section.__doc__ or ""), "", *_children(walk(section, field.keys), field.keys)]


def _children(fields: Iterator[Documented], keys: tuple[str, ...]) -> list[str]:
    return ["  {}: {}, {}. {}".format(*_summary(field)) for field in _direct(fields, keys)]


def _table(section: type[Spec], keys: tuple[str, ...]) -> list[str]:
    rows = [_summary(field) for field in _direct(walk(section, keys), keys)]
    if not rows:
        return ["No keys of its own."]
    cells = [" | ".join([f"`{key}`", *(text.replace("|", "\\|") for text in texts)]) for key, *texts in rows]
    return ["| key | value | default | meaning |", "|---|---|---|---|", *(f"| {row} |" for row in cells)]


def _direct(fields: Iterator[Documented], keys: tuple[str, ...]) -> list[Documented]:
    """The fields right below `keys`, without `type`, which the heading says."""
    return [field for field in fields if field.keys[:-1] == keys and field.keys[-1] != "type"]


def _summary(field: Documented) -> tuple[str, str, str, str]:
    meaning = " ".join((field.info.description or "").split())
    return field.keys[-1], _type_text(field.info), _default_text(field.info), meaning


def _type_text(info: FieldInfo) -> str:
    names = [_annotation_text(option) for option in options_of(info.annotation)]
    if all(name.startswith("a mapping") for name in names) and len(names) > 1:
        names = [f"a mapping with `type`: {', '.join(filter(None, map(type_name, sections_of(info.annotation))))}"]
    bounds = allowed_range(info)
    return " or ".join(names) + (f" {bounds}" if bounds else "")


def _annotation_text(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(annotation))
    if get_origin(annotation) is Annotated:
        return _annotation_text(get_args(annotation)[0])
    if get_origin(annotation) is dict:
        return "a mapping"
    if get_origin(annotation) is list:
        return f"list of {_annotation_text(get_args(annotation)[0])}"
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        return "a mapping"
    return {bool: "`true` or `false`", int: "whole number", float: "number", str: "text"}.get(
        annotation, str(annotation)
    )


def _default_text(info: FieldInfo) -> str:
    default = info.get_default(call_default_factory=True, validated_data={})
    if default is PydanticUndefined:
        return "required"
    if isinstance(default, Spec):
        return "default: its own defaults"
    if default is None:
        return "optional"
    return f"default: `{json.dumps(default)}`"


def _indented(text: str) -> list[str]:
    return [f"  {line}".rstrip() for line in inspect.cleandoc(text).splitlines()]


def _partial(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with nothing required and null allowed: what a file may say on top of the one it extends."""
    partial = _renamed(copy.deepcopy(schema))
    partial.pop("required", None)
    for name, value in partial.get("properties", {}).items():
        partial["properties"][name] = {"anyOf": [value, {"type": "null"}]}
    return dict(partial)


def _untitled(schema: Any) -> Any:
    """Without pydantic's titles, which only repeat the names."""
    if isinstance(schema, list):
        return [_untitled(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _untitled(value) for key, value in schema.items() if not (key == "title" and isinstance(value, str))}


def _renamed(schema: Any) -> Any:
    """References go to the partial definitions, and a mapping without `type` may be of several types."""
    if isinstance(schema, list):
        return [_renamed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    names = {"oneOf": "anyOf"}
    renamed = {names.get(key, key): _renamed(value) for key, value in schema.items() if key != "discriminator"}
    if isinstance(renamed.get("$ref"), str):
        renamed["$ref"] = renamed["$ref"].replace("#/$defs/", "#/$defs/Partial")
    return renamed
