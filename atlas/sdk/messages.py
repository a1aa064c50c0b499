"""Chat messages and answers, in whatever form a client, a server or a span has them, become the schema's.

Understood are the chat messages and completions of the OpenAI protocol, the items of its Responses, and messages with
`parts` as the GenAI conventions of OpenTelemetry have them. Nothing raises for what is in a value: what cannot be read
is left out, and what is not text is named in brackets.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "agent": "assistant",
    "tool": "tool",
    "function": "tool",
}
TEXT_PARTS = {"text", "input_text", "output_text", "refusal"}
CALL_ITEMS = {"function_call", "custom_tool_call"}


@dataclass(frozen=True)
class Answer:
    """One choice that a model answered with."""

    text: str
    tool_calls: list[dict[str, Any]]
    reasoning: str = ""
    finish_reason: str | None = None


def chat_messages(values: object) -> list[dict[str, Any]]:
    """The messages of `values`, a list of them or the text of a single user."""
    if isinstance(values, str):
        return [{"role": "user", "content": values}]
    return [message for value in sequence(values) for message in _messages(mapping(value))]


def task_of(messages: Sequence[Mapping[str, Any]]) -> str | list[dict[str, Any]]:
    """The request that these messages make: up to the user's last; the text alone where there is nothing else."""
    last = max((place for place, message in enumerate(messages) if message["role"] == "user"), default=None)
    if last is None:
        return "\n".join(message["content"] for message in messages)
    if last == 0:
        return str(messages[0]["content"])
    return [dict(message) for message in messages[: last + 1]]


def completion_answers(completion: Mapping[str, Any]) -> list[Answer]:
    """The choices of a chat completion, in their order."""
    choices = sorted(map(mapping, sequence(completion.get("choices"))), key=lambda choice: number(choice.get("index")))
    return [message_answer(mapping(c.get("message")), text_or_none(c.get("finish_reason"))) for c in choices]


def message_answer(message: Mapping[str, Any], finish_reason: str | None = None) -> Answer:
    """What an assistant's message says. A refusal is its text."""
    if "parts" in message:
        parts = [mapping(part) for part in sequence(message["parts"])]
        said = [text for part in parts if part.get("type") != "reasoning" and (text := part_text(part))]
        thought = [str(part.get("content") or "") for part in parts if part.get("type") == "reasoning"]
        calls = [call for part in parts if part.get("type") == "tool_call" for call in [_call(part)]]
        return Answer("".join(said), calls, "".join(thought), finish_reason)
    text = content_text(message.get("content"), joined_by="") or str(message.get("refusal") or "")
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    return Answer(text, tool_calls(message), reasoning if isinstance(reasoning, str) else "", finish_reason)


def response_answer(response: Mapping[str, Any]) -> Answer:
    """What a Response says: the texts of its messages, joined, and its calls."""
    items = [mapping(item) for item in sequence(response.get("output"))]
    said = [content_text(item.get("content"), joined_by="") for item in items if item.get("type") == "message"]
    thought = [
        str(mapping(part).get("text") or "")
        for item in items
        if item.get("type") == "reasoning"
        for part in sequence(item.get("summary"))
    ]
    calls = [_call(item) for item in items if item.get("type") in CALL_ITEMS]
    return Answer("".join(said), calls, "\n".join(thought), text_or_none(response.get("status")))


def tool_calls(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The calls of an assistant's message, as the OpenAI protocol has them."""
    found = [_call(mapping(call)) for call in sequence(message.get("tool_calls"))]
    single = mapping(message.get("function_call"))
    return [*found, _call(single)] if single else found


def content_text(content: object, joined_by: str = "\n") -> str:
    if isinstance(content, str):
        return content
    texts = [part if isinstance(part, str) else part_text(mapping(part)) for part in sequence(content)]
    return joined_by.join(text for text in texts if text)


def part_text(part: Mapping[str, Any]) -> str:
    """The text of a part of a message; of an image or a file its kind alone, in brackets."""
    kind = part.get("type")
    if kind in TEXT_PARTS:
        return str(part.get("text") or part.get("content") or part.get("refusal") or "")
    if kind in ("tool_call", "tool_call_response"):
        return ""
    return f"[{kind}]" if kind else ""


def _messages(value: Mapping[str, Any]) -> list[dict[str, Any]]:
    kind = value.get("type")
    if kind in CALL_ITEMS:
        return [{"role": "assistant", "content": "", "tool_calls": [_call(value)]}]
    if kind in ("function_call_output", "custom_tool_call_output"):
        return [_tool_message(value.get("call_id"), value.get("output"))]
    if "role" not in value:
        return []
    said = str(value["role"])
    role = ROLES.get(said.lower(), "user")
    name = value.get("name") or (said if said.lower() not in ROLES else None)
    if "parts" in value:
        return _from_parts(role, name, [mapping(part) for part in sequence(value["parts"])])
    calls = tool_calls(value) if role == "assistant" else []
    return [_message(role, content_text(value.get("content")), name, calls, value.get("tool_call_id"))]


def _from_parts(role: str, name: object, parts: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A message of the GenAI conventions. Every tool's response in it becomes a message of its own."""
    results = [_tool_message(p.get("id"), p.get("response")) for p in parts if p.get("type") == "tool_call_response"]
    text = "\n".join(said for part in parts if part.get("type") != "reasoning" and (said := part_text(part)))
    calls = [_call(part) for part in parts if part.get("type") == "tool_call"]
    if results and not text and not calls:
        return results
    return [_message(role, text, name, calls, None), *results]


def _message(role: str, content: str, name: object, calls: list[dict[str, Any]], call_id: object) -> dict[str, Any]:
    message: dict[str, Any] = {"role": role, "content": content}
    if name:
        message["name"] = str(name)
    if calls:
        message["tool_calls"] = calls
    if call_id:
        message["tool_call_id"] = str(call_id)
    return message


def _tool_message(call_id: object, result: object) -> dict[str, Any]:
    return _message("tool", result_text(result), None, [], call_id)


def result_text(result: object) -> str:
    """What a tool gave back: its text, or the JSON of anything else."""
    if isinstance(result, str):
        return result
    if isinstance(result, list | tuple) and result and all("type" in mapping(part) for part in result):
        return content_text(result)
    return "" if result is None else as_json(result)


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    """A tool call, whoever wrote it, as the OpenAI protocol has it."""
    function = mapping(call.get("function") or call.get("custom")) or call
    arguments = next((function[key] for key in ("arguments", "input") if function.get(key) is not None), "")
    found: dict[str, Any] = {
        "type": "function",
        "function": {
            "name": str(function.get("name") or ""),
            "arguments": arguments if isinstance(arguments, str) else as_json(arguments),
        },
    }
    call_id = call.get("call_id") or call.get("id")
    return {"id": str(call_id), **found} if call_id else found


def mapping(value: object) -> Mapping[str, Any]:
    """The fields of `value`, be it a mapping or an object, such as a client's model; none of a plain value."""
    if type(value) is dict or isinstance(value, Mapping):
        return value
    if value is None or isinstance(value, str | bytes | int | float | list | tuple | type):
        return {}
    fields = getattr(value, "__dict__", {})
    extra = getattr(value, "model_extra", None)  # where pydantic keeps what the model does not know
    return {**fields, **extra} if isinstance(extra, dict) else fields


def sequence(value: object) -> Iterable[Any]:
    """The entries of a list or tuple; none of anything else. An iterator is left alone: it can be read only once."""
    return value if isinstance(value, list | tuple) else ()


def number(value: object) -> float:
    return value if isinstance(value, int | float) else 0


def text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None


def as_json(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        return "[unreadable]"


def from_json(value: object) -> object:
    """What the JSON text `value` says; `value` itself if it is no text; None if it cannot be read."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None
