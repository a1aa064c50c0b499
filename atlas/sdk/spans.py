"""What one span says: the GenAI conventions of OpenTelemetry and the attributes of OpenInference, read alike.

Needs no package. A span is whatever has the attributes of `opentelemetry.sdk.trace.ReadableSpan`; whatever is in it may
be missing or of a wrong type.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from atlas.sdk.messages import (
    Answer,
    as_json,
    chat_messages,
    completion_answers,
    from_json,
    mapping,
    message_answer,
    response_answer,
    result_text,
    sequence,
    task_of,
)

_Event = tuple[str, Mapping[str, Any], Any]
Kind = Literal["model", "tool", "agent", "evaluator", "guardrail", "other"]

OPERATIONS: dict[str, Kind] = {
    "chat": "model",
    "text_completion": "model",
    "generate_content": "model",
    "execute_tool": "tool",
    "invoke_agent": "agent",
    "invoke_workflow": "agent",
}
KINDS: dict[str, Kind] = {
    "LLM": "model",
    "TOOL": "tool",
    "AGENT": "agent",
    "CHAIN": "agent",
    "EVALUATOR": "evaluator",
    "GUARDRAIL": "guardrail",
}
MESSAGE_EVENTS = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}
PASSED = {"pass": True, "passed": True, "correct": True, "true": True, "yes": True}
FAILED = {"fail": False, "failed": False, "incorrect": False, "false": False, "no": False}
VERDICTS = {**PASSED, **FAILED}

FLATTENED = ("llm.input_messages.", "llm.output_messages.", "llm.prompts.", "llm.choices.")
OUTPUT = ("output.", "gen_ai.tool.call.result")
METADATA_CHARACTERS = 8_000
VALUE_CHARACTERS = 1_000


@dataclass(frozen=True)
class Evaluation:
    """A measurement that a span carries. `whole`: of all that the trace did, not of one call."""

    scorer: str
    at_seconds: float
    score: float | None = None
    passed: bool | None = None
    note: str | None = None
    label: str | None = None
    whole: bool = False


@dataclass
class Reading:
    """What a span says. None and empty: it does not say."""

    trace: str
    span: str
    parent: str | None
    """The span around it in this process."""
    root: bool
    """Nothing is around it, here or elsewhere."""
    name: str
    kind: Kind
    started_seconds: float
    ended_seconds: float
    duration_seconds: float | None
    error: str | None
    conversation: str | None = None
    agent: str | None = None
    tags: list[str] = field(default_factory=list)
    model: str | None = None
    prompt_version: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    task: str | list[dict[str, Any]] = ""
    """What is asked for."""
    messages: list[dict[str, Any]] | None = None
    """All that the model was given; None also where the span lost a part of it."""
    answers: list[Answer] = field(default_factory=list)
    tool: str | None = None
    tool_call_id: str | None = None
    result: str | None = None
    """What a tool, a guardrail or an agent gave back."""
    evaluations: list[Evaluation] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    """Whatever else it says, within a bound."""


def read(span: Any) -> Reading:
    """What `span` says."""
    attributes = _Attributes(mapping(getattr(span, "attributes", None)))
    events = [(str(event.name), mapping(event.attributes), event.timestamp) for event in span.events or ()]
    context, parent = span.context, span.parent
    own_parent = parent is not None and parent.span_id == context.span_id
    around = None if parent is None or own_parent else parent
    started, ended = _seconds(span.start_time), _seconds(span.end_time)
    ended = ended or started or time.time()
    reading = Reading(
        trace=f"{context.trace_id:032x}",
        span=f"{context.span_id:016x}",
        parent=f"{around.span_id:016x}" if around is not None and not around.is_remote else None,
        root=around is None,
        name=str(span.name or ""),
        kind=_kind(attributes),
        started_seconds=started or ended,
        ended_seconds=ended,
        duration_seconds=ended - started if span.end_time and 0 < started <= ended else None,
        error=_error(span, attributes, events),
    )
    _read_call(reading, attributes, span)
    _read_text(reading, attributes, events, complete=not getattr(span, "dropped_attributes", 0))
    _read_evaluations(reading, attributes, events)
    flags = {"own_parent": own_parent, "negative": ended < started}
    reading.metadata = _metadata(reading, attributes, span, flags)
    return reading


class _Attributes:
    """A span's attributes. What was asked for and was of the right type counts as understood."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        self.understood: set[str] = set()

    def text(self, *keys: str) -> str | None:
        found: str | None = self._first(keys, lambda value: isinstance(value, str) and value != "")
        return found

    def count(self, *keys: str) -> int | None:
        found: int | None = self._first(keys, lambda value: isinstance(value, int) and is_number(value) and value >= 0)
        return found

    def amount(self, *keys: str) -> float | None:
        found: float | None = self._first(keys, lambda value: is_number(value) and value >= 0)
        return found

    def json(self, key: str) -> object:
        """What the attribute says, be it JSON or already a list; None if neither."""
        found = from_json(self.values.get(key))
        if isinstance(found, dict | list | tuple):
            self.understood.add(key)
            return found
        return None

    def tree(self, prefix: str) -> list[Mapping[str, Any]]:
        """What was flattened into `prefix`, a number, and a path of names, in the order of the numbers."""
        places: dict[int, dict[str, Any]] = {}
        for key, value in self.values.items():
            if not key.startswith(prefix):
                continue
            number, *path = key[len(prefix) :].split(".")
            if path and number.isdecimal() and len(number) < 10:
                _put(places.setdefault(int(number), {}), path, value)
        return [places[number] for number in sorted(places)]

    def _first(self, keys: Iterable[str], fits: Callable[[Any], bool]) -> Any:
        for key in keys:
            if fits(self.values.get(key)):
                self.understood.add(key)
                return self.values[key]
        return None


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _put(tree: dict[str, Any], path: list[str], value: object) -> None:
    for name in path[:-1]:
        inner = tree.setdefault(name, {})
        if not isinstance(inner, dict):
            return
        tree = inner
    tree.setdefault(path[-1], value)


def _seconds(nanoseconds: object) -> float:
    return nanoseconds / 1e9 if isinstance(nanoseconds, int) else 0.0


def _kind(attributes: _Attributes) -> Kind:
    operation = attributes.text("gen_ai.operation.name")
    if operation in OPERATIONS:
        return OPERATIONS[operation]
    kind = attributes.text("openinference.span.kind")
    if kind is not None and kind.upper() in KINDS:
        return KINDS[kind.upper()]
    if operation or kind:
        return "other"
    names = attributes.values
    if "gen_ai.tool.name" in names:
        return "tool"
    return "model" if "gen_ai.request.model" in names or "llm.model_name" in names else "other"


def _error(span: Any, attributes: _Attributes, events: list[_Event]) -> str | None:
    status = getattr(span, "status", None)
    kind = attributes.text("error.type")
    if kind is None and getattr(getattr(status, "status_code", None), "name", None) != "ERROR":
        return None
    raised = next((event for name, event, _ in events if name == "exception"), {})
    kind = kind or raised.get("exception.type")
    message = getattr(status, "description", None) or raised.get("exception.message")
    if message and kind and not str(message).startswith(str(kind).rpartition(".")[2]):
        return f"{kind}: {message}"
    return str(message or kind or "error")


def _read_call(reading: Reading, attributes: _Attributes, span: Any) -> None:
    reading.conversation = attributes.text("gen_ai.conversation.id", "session.id")
    service = mapping(getattr(span.resource, "attributes", None)).get("service.name")
    named = service if isinstance(service, str) and not service.startswith("unknown_service") else None
    reading.agent = attributes.text("gen_ai.agent.name", "agent.name") or named
    reading.tags = [tag for tag in sequence(attributes.json("tag.tags")) if isinstance(tag, str)]
    reading.model = attributes.text(
        "gen_ai.response.model", "llm.response.model_name", "llm.model_name", "gen_ai.request.model"
    )
    reading.prompt_version = attributes.text("gen_ai.prompt.version", "llm.prompt_template.version")
    reading.input_tokens = attributes.count(
        "gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt"
    )
    reading.output_tokens = attributes.count(
        "gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.token_count.completion"
    )
    reading.cost_usd = attributes.amount("llm.cost.total")
    reading.tool = attributes.text("gen_ai.tool.name", "tool.name")
    reading.tool_call_id = attributes.text("gen_ai.tool.call.id", "tool_call.id", "tool.id")


def _read_text(reading: Reading, attributes: _Attributes, events: list[_Event], complete: bool) -> None:
    """Messages and answers. `complete`: the span lost no attribute, as it does beyond a limit of the SDK."""
    result = attributes.values.get("gen_ai.tool.call.result", attributes.values.get("output.value"))
    reading.result = result_text(result) if result is not None else None
    if reading.kind in ("model", "agent"):
        inputs, outputs = mapping(attributes.json("input.value")), mapping(attributes.json("output.value"))
        details = [_Attributes(event) for name, event, _ in events if name.startswith("gen_ai.")]
        sources = [attributes, *details]
        said_in = _instructions(sources) + _first(source.json("gen_ai.input.messages") for source in sources)
        flattened = [_openai_message(mapping(entry.get("message"))) for entry in attributes.tree("llm.input_messages.")]
        messages = (
            chat_messages(said_in)
            or _event_messages(events)
            or chat_messages(_first(source.json("gen_ai.prompt") for source in sources))
            or (chat_messages(flattened) if complete else [])
            or _request_messages(inputs)
        )
        if not messages and complete:
            text = attributes.text("input.value") or _joined(attributes.tree("llm.prompts."), "prompt")
            messages = chat_messages(text) if text else []
        reading.messages = messages or None
        asked = [message["content"] for message in chat_messages(flattened) if message["role"] == "user"]
        reading.task = task_of(messages) if messages else asked[-1] if asked else ""
        said_out = _first(source.json("gen_ai.output.messages") for source in sources)
        reading.answers = (
            [message_answer(mapping(message), mapping(message).get("finish_reason")) for message in said_out]
            or _event_answers(events)
            or [message_answer(mapping(m)) for m in _first(source.json("gen_ai.completion") for source in sources)]
            or completion_answers(outputs)
            or ([response_answer(outputs)] if "output" in outputs else [])
            or _one_answer([mapping(entry.get("message")) for entry in attributes.tree("llm.output_messages.")])
            or [Answer(text, []) for text in [_joined(attributes.tree("llm.choices."), "completion")] if text]
        )
        if reading.kind == "agent" and not reading.answers and reading.result and not outputs:
            reading.answers = [Answer(reading.result, [])]


def _first(found: Iterable[object]) -> list[Any]:
    return next((list(sequence(value)) for value in found if sequence(value)), [])


def _instructions(sources: list[_Attributes]) -> list[Any]:
    parts = _first(source.json("gen_ai.system_instructions") for source in sources)
    return [{"role": "system", "parts": parts}] if parts else []


def _request_messages(request: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The messages of a request of the OpenAI protocol."""
    asked = request.get("messages") or request.get("input")
    instructions = request.get("instructions")
    first = chat_messages([{"role": "system", "content": instructions}]) if instructions else []
    messages = chat_messages(asked)
    return [*first, *messages] if messages else []


def _openai_message(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message of OpenInference, which was flattened, as the OpenAI protocol has it."""
    parts = [mapping(mapping(part).get("message_content")) for part in _in_order(message.get("contents"))]
    found: dict[str, Any] = {
        "role": message.get("role", "user"),
        "content": message.get("content") or [dict(part) for part in parts],
        "tool_calls": [mapping(mapping(call).get("tool_call")) for call in _in_order(message.get("tool_calls"))],
        "name": message.get("name"),
        "tool_call_id": message.get("tool_call_id"),
    }
    if "function_call_name" in message:
        found["function_call"] = {
            "name": message["function_call_name"],
            "arguments": message.get("function_call_arguments_json"),
        }
    return found


def _in_order(tree: object) -> list[Any]:
    if not isinstance(tree, dict):
        return []
    return [tree[key] for key in sorted((key for key in tree if key.isdecimal() and len(key) < 10), key=int)]


def _one_answer(messages: list[Mapping[str, Any]]) -> list[Answer]:
    """OpenInference numbers choices and the items of one Response alike: without the answer itself they are one."""
    found = [message_answer(_openai_message(message)) for message in messages]
    if not found:
        return []
    return [Answer("".join(a.text for a in found), [call for a in found for call in a.tool_calls])]


def _joined(entries: list[Mapping[str, Any]], name: str) -> str:
    return "\n".join(str(mapping(entry.get(name)).get("text") or "") for entry in entries)


def _event_body(event: Mapping[str, Any]) -> dict[str, Any]:
    """What an event of a message says; some instrumentations put all of it into one attribute, as JSON."""
    return {**event, **mapping(from_json(event.get("gen_ai.event.content")))}


def _event_messages(events: list[_Event]) -> list[dict[str, Any]]:
    found = []
    for name, event, _ in events:
        if name in MESSAGE_EVENTS:
            body = _event_body(event)
            calls = from_json(body.get("tool_calls"))
            call_id = body.get("id") if name == "gen_ai.tool.message" else None
            found.append({"role": MESSAGE_EVENTS[name], **body, "tool_calls": calls, "tool_call_id": call_id})
    return chat_messages(found)


def _event_answers(events: list[_Event]) -> list[Answer]:
    found = []
    for name, event, _ in events:
        if name == "gen_ai.choice":
            body = _event_body(event)
            message = mapping(from_json(body.get("message"))) or body
            calls = from_json(message.get("tool_calls"))
            reason = body.get("finish_reason")
            found.append(message_answer({**message, "tool_calls": calls}, reason if isinstance(reason, str) else None))
    return found


def _read_evaluations(reading: Reading, attributes: _Attributes, events: list[_Event]) -> None:
    at = reading.ended_seconds
    found = [
        _evaluation(_unprefixed(event, "gen_ai.evaluation."), name.rpartition(".")[2], _seconds(when) or at)
        for name, event, when in events
        if name.startswith("gen_ai.evaluation")
    ]
    own = _unprefixed(attributes.values, "gen_ai.evaluation.") or _unprefixed(attributes.values, "evaluation.")
    if reading.kind == "evaluator" and not own and reading.result is not None:
        result = from_json(reading.result)
        word = "score" if is_number(result) else "label"
        own = dict(mapping(result)) or {word: reading.result if result is None else result}
    if own:
        found.append(_evaluation(own, reading.name, at))
    for scope in ("", "trace.", "session."):
        for word in ("evaluation", "annotation"):
            for entry in attributes.tree(f"{scope}{word}s."):
                found.append(_evaluation(mapping(entry.get(word)), reading.name, at, whole=bool(scope)))
    reading.evaluations = found
    if found:
        attributes.understood.update(key for key in attributes.values if "evaluation" in key or "annotation" in key)
    if found and reading.kind == "other":
        reading.kind = "evaluator"


def _unprefixed(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {key[len(prefix) :]: value for key, value in values.items() if key.startswith(prefix)}


def _evaluation(said: Mapping[str, Any], otherwise: str, at_seconds: float, whole: bool = False) -> Evaluation:
    """`label` decides whether it passed, where it is a word for that; a score alone is no verdict."""
    score, label = (said.get(f"score.{word}", said.get(key)) for word, key in (("value", "score"), ("label", "label")))
    verdict = label if isinstance(label, bool) else VERDICTS.get(str(label).strip().lower())
    note = said.get("explanation")
    return Evaluation(
        scorer=str(said.get("name") or otherwise or "evaluation"),
        at_seconds=at_seconds,
        score=float(score) if is_number(score) else None,
        passed=verdict,
        note=note if isinstance(note, str) else None,
        label=str(label) if label is not None else None,
        whole=whole,
    )


def _metadata(reading: Reading, attributes: _Attributes, span: Any, flags: Mapping[str, bool]) -> dict[str, Any]:
    metadata: dict[str, Any] = {"span": reading.name[:VALUE_CHARACTERS]}
    if flags["own_parent"]:
        metadata["own_parent"] = True
    if flags["negative"]:
        metadata["negative_duration_seconds"] = _seconds(span.end_time) - reading.started_seconds
    if dropped := getattr(span, "dropped_attributes", 0):
        metadata["dropped_attributes"] = dropped
    thoughts = "\n".join(answer.reasoning for answer in reading.answers if answer.reasoning)
    if thoughts:
        metadata["reasoning"] = thoughts
    elsewhere = FLATTENED + OUTPUT + (("input.",) if reading.messages else ())
    room, left_out = METADATA_CHARACTERS, 0
    for key, value in attributes.values.items():
        if key in attributes.understood or key.startswith(elsewhere):
            continue
        text = value if isinstance(value, str) else as_json(value)
        room -= len(key) + min(len(text), VALUE_CHARACTERS)
        if room < 0:
            left_out += 1
            continue
        metadata[key] = value if len(text) <= VALUE_CHARACTERS else text[:VALUE_CHARACTERS]
    if left_out:
        metadata["attributes_left_out"] = left_out
    return metadata
