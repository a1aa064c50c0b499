"""Any record becomes one that the line schema allows (`atlas.traces.records`).

What a field cannot hold, and what is no field, goes into `metadata` under the same name: nothing is lost, and every
line can be read.
"""

from collections.abc import Callable
from math import isfinite
from typing import Any

from atlas.sdk.plain import LARGEST_INTEGER, free_key, plain, text

MAX_ID_CHARACTERS = 200
STRUCTURE = frozenset({"schema_version", "type", "id", "session", "parent", "process", "kind", "by", "status"})
"""Fields whose text is ours or an id: redaction leaves them alone."""

_ROLES = {"system", "user", "assistant", "tool"}
_MESSAGE_FIELDS = {"role", "content", "name", "tool_calls", "tool_call_id"}


class Refused(Exception):
    """A record that cannot be made to fit. The message names no value: it is shown, and values may be secret."""


class _Misfit(Exception):
    """A value that the field cannot hold."""


def fit(record: dict[str, Any]) -> dict[str, Any]:
    """The record as the schema allows it; fields that are None are left out. Raises Refused."""
    kind = record.get("type")
    if kind not in _OF_TYPE:
        raise Refused(f"a record's type must be one of {', '.join(_OF_TYPE)}")
    fields, required = _OF_TYPE[kind]
    made: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for name, value in record.items():
        if value is None or name == "metadata":
            continue
        if name not in fields:
            rest[text(name)] = plain(value)
            continue
        try:
            made[name] = _FIELDS[name](value)
        except _Misfit as misfit:
            if misfit.args:
                raise Refused(f"{kind}.{name} must be {misfit}") from misfit
            rest[name] = plain(value)
    for name in required:
        if name not in made:
            raise Refused(f"{kind}.{name} is missing")
    metadata = _metadata(record.get("metadata"), rest)
    if metadata:
        made["metadata"] = metadata
    return made


def _metadata(given: object, rest: dict[str, Any]) -> dict[str, Any]:
    made = {} if given is None else plain(given)
    if not isinstance(made, dict):
        made = {"metadata": made}
    for name, value in rest.items():
        made[free_key(name, made)] = value
    return made


def _id(value: object) -> str:
    made = text(value)[:MAX_ID_CHARACTERS]
    if not made:
        raise _Misfit("a text that is not empty")
    return made


def _count(value: object) -> int:
    made = plain(value)
    if isinstance(made, float) and made.is_integer():
        made = int(made)
    if not isinstance(made, int) or isinstance(made, bool) or not 0 <= made <= LARGEST_INTEGER:
        raise _Misfit
    return made


def _number(value: object) -> float:
    made = plain(value)
    if not isinstance(made, int | float) or not isfinite(made):
        raise _Misfit
    return float(made)


def _amount(value: object) -> float:
    made = _number(value)
    if made < 0:
        raise _Misfit
    return made


def _truth(value: object) -> bool:
    if isinstance(value, bool):
        return value
    try:
        if not isinstance(value, str | bytes) and bool(value == 0 or value == 1):  # numpy's and torch's booleans
            return bool(value)
    except Exception as error:
        raise _Misfit from error
    raise _Misfit


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [str.__str__(value)]
    if not isinstance(value, list | tuple | set | frozenset):
        raise _Misfit
    return [text(item) for item in value]


def _calls(value: object) -> list[dict[str, Any]]:
    made = plain(value)
    if not made or not _are_calls(made):
        raise _Misfit
    return list(made)


def _messages(value: object) -> list[dict[str, Any]]:
    made = plain(value)
    if not isinstance(made, list) or not made:
        raise _Misfit
    if not all(map(_is_message, made)):
        from atlas.sdk.messages import chat_messages  # takes longer to import than all of capture

        made = chat_messages(made)
    if not made:
        raise _Misfit
    return list(made)


def _is_message(message: object) -> bool:
    """Whether this is a message as the schema has it."""
    return (
        isinstance(message, dict)
        and message.get("role") in _ROLES
        and isinstance(message.get("content"), str)
        and message.keys() <= _MESSAGE_FIELDS
        and all(isinstance(message.get(name, ""), str | None) for name in ("name", "tool_call_id"))
        and ("tool_calls" not in message or _are_calls(message["tool_calls"]))
    )


def _are_calls(value: object) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(call, dict) for call in value))


def _task(value: object) -> str | list[dict[str, Any]]:
    if not isinstance(value, list | tuple) or not value:
        return text(value)
    try:
        return _messages(value)
    except _Misfit:
        return text(value)


def _scorer(value: object) -> str:
    made = text(value)
    if not made:
        raise _Misfit("a text that is not empty")
    return made


def _one_of(*allowed: str) -> Callable[[object], str]:
    def choose(value: object) -> str:
        if value not in allowed:
            raise _Misfit(f"one of {', '.join(allowed)}")
        return str(value)

    return choose


_FIELDS: dict[str, Callable[[Any], Any]] = {
    "type": text,
    "schema_version": _count,
    "id": _id,
    "session": _id,
    "parent": _id,
    "at_seconds": _number,
    "monotonic_seconds": _number,
    "process": text,
    "sequence": _count,
    "model": text,
    "prompt_version": text,
    "input_tokens": _count,
    "output_tokens": _count,
    "cost_usd": _amount,
    "task": _task,
    "agent": text,
    "tags": _texts,
    "sdk_version": text,
    "redaction": text,
    "text": text,
    "messages": _messages,
    "tool_calls": _calls,
    "duration_seconds": _number,
    "error": text,
    "kind": _one_of("guidance", "critique", "tool_result"),
    "by": _one_of("teacher", "human", "rule", "tool"),
    "name": text,
    "scorer": _scorer,
    "score": _number,
    "passed": _truth,
    "reference": text,
    "note": text,
    "status": _one_of("completed", "failed"),
    "answer": text,
    "dropped": _count,
}
_COMMON = (
    "type", "schema_version", "id", "session", "parent", "at_seconds", "monotonic_seconds", "process", "sequence",
    "model", "prompt_version", "input_tokens", "output_tokens", "cost_usd",
)  # fmt: skip
_OF_TYPE: dict[str, tuple[frozenset[str], tuple[str, ...]]] = {
    name: (frozenset({*_COMMON, *fields}), ("session", *required))
    for name, fields, required in (
        ("session", ("task", "agent", "tags", "sdk_version", "redaction"), ("task",)),
        ("attempt", ("text", "messages", "tool_calls", "duration_seconds", "error"), ("text",)),
        ("intervention", ("kind", "by", "name", "text", "duration_seconds", "error"), ("kind", "by", "text")),
        ("outcome", ("scorer", "score", "passed", "reference", "note"), ("scorer",)),
        ("end", ("status", "answer", "error", "dropped"), ("status",)),
    )
}
"""Fields and required fields of each type. Reviews are the store's: an agent does not approve itself."""
