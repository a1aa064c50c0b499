"""Turns the spans of agents that are instrumented with OpenTelemetry into records. Needs the extra `atlas[otel]`.

    provider.add_span_processor(BatchSpanProcessor(AtlasSpanExporter()))

A trace is a session: one task, from the first model call to the end of the trace's root. A model call with nothing
around it belongs to its conversation (`gen_ai.conversation.id`, `session.id`) instead, if it names one. Spans arrive
ended, children first; records are written as they come, with the times of the spans and ids made of theirs, so that a
span which is exported twice gives the same ids.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

try:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
except ImportError as error:
    raise ImportError(
        "atlas.sdk.otel needs opentelemetry-sdk, which is not installed: pip install 'atlas[otel]'"
    ) from error

from atlas import __version__
from atlas.sdk import log
from atlas.sdk.spans import Evaluation, Reading, read

SESSIONS = 1_000
"""So many sessions are remembered; of an older one, later spans are still written, but no longer linked."""
ATTEMPTS = 64
"""So many attempts of a session, and so many calls that wait for a result, are remembered."""

NO_CONTENT = (
    "a model call's span has no content: the instrumentation must be told to put it there, such as by "
    "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=span_only"
)


class AtlasSpanExporter(SpanExporter):  # type: ignore[misc]
    """Writes what GenAI spans say into the trace file of this process (`atlas.sdk`).

    A model call is an attempt; a tool's span, or its message in a later call, is a tool_result for the attempt that
    asked for it; a guardrail is a critique by a rule; evaluations are outcomes; the root of the trace is the end.
    Spans of embeddings, retrieval and what is not GenAI are left out. A span that cannot be read is counted in
    `atlas.sdk.status()`, makes `export` return FAILURE, and stops no other.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # the garbage collector may end a span while another is written
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._session_of_trace: OrderedDict[str, str] = OrderedDict()
        self._closed = False
        self._told = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self._closed:
            return SpanExportResult.FAILURE
        written = [self._export(span) for span in spans]
        return SpanExportResult.SUCCESS if all(written) else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self._closed = True

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Everything is in the file already."""
        return True

    def _export(self, span: Any) -> bool:
        try:
            reading = read(span)
            with self._lock:
                if reading.kind == "model" and not (reading.messages or reading.answers or self._told):
                    self._told = True
                    log.warn(NO_CONTENT)
                return self._session(reading).add(reading)
        except Exception as error:
            log.drop(error, session="")
            return False

    def _session(self, reading: Reading) -> "_Session":
        key = self._session_of_trace.get(reading.trace) or _session_id(reading)
        if reading.kind != "other":
            _remember(self._session_of_trace, reading.trace, key)
        session = self._sessions.get(key) or _Session(key)
        if reading.kind != "other":
            _remember(self._sessions, key, session)
        return session


def _remember(known: OrderedDict[str, Any], key: str, value: object) -> None:
    known[key] = value
    known.move_to_end(key)
    if len(known) > SESSIONS:
        known.popitem(last=False)


def _session_id(reading: Reading) -> str:
    if reading.root and reading.kind not in ("agent", "other") and reading.conversation:
        return f"otel-conversation-{sha256(reading.conversation.encode()).hexdigest()[:32]}"
    return f"otel-{reading.trace}"


@dataclass
class _Session:
    """What must be remembered of a session while its spans come."""

    id: str
    begun: bool = False
    attempts: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=ATTEMPTS))
    """When each ended, and its id."""
    waiting: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Of each tool call without a result yet: the attempt that asked, and the name of the tool."""
    around_models: deque[str] = field(default_factory=lambda: deque(maxlen=ATTEMPTS))
    """The spans that have a model call in them."""
    intervention: tuple[float, str] | None = None
    """The newest since the last attempt: when it ended, and its id."""
    answer: tuple[float, str] | None = None
    """The newest text of a model: when it ended, and the text."""

    def add(self, reading: Reading) -> bool:
        """Writes what this span says. Whether all of it is written."""
        written = [self._add_what_it_is(reading)]
        written += [self._outcome(reading, evaluation, n) for n, evaluation in enumerate(reading.evaluations)]
        if self._is_end(reading):
            written.append(self._end(reading))
        return all(written)

    def _add_what_it_is(self, reading: Reading) -> bool:
        if reading.kind == "model":
            if reading.parent:
                self.around_models.append(reading.parent)
            # A model call directly around another one is the same call, seen by a framework and by its client.
            return reading.span in self.around_models or self._attempt(reading)
        if reading.kind == "tool":
            return self._tool_result(reading)
        if reading.kind == "guardrail":
            return self._intervene(reading, self.id_of(reading), "critique", "rule", self._before(reading))
        if reading.kind == "agent" and reading.root and reading.answers and not self.attempts:
            return self._attempt(reading)  # an agent that runs elsewhere: its answer is all there is
        return True

    def id_of(self, reading: Reading) -> str:
        return f"otel-{reading.trace}-{reading.span}"

    def _write(self, reading: Reading, record: dict[str, Any]) -> bool:
        return log.write({"session": self.id, "metadata": reading.metadata or None, **record})

    def _begin(self, reading: Reading) -> bool:
        if self.begun:
            return True
        self.begun = True
        conversation = {"conversation": reading.conversation} if reading.conversation else {}
        return log.write(
            {
                "type": "session",
                "id": self.id,
                "session": self.id,
                "at_seconds": reading.started_seconds,
                "task": reading.task,
                "agent": reading.agent,
                "tags": reading.tags,
                "sdk_version": __version__,
                "metadata": {"source": "opentelemetry", **conversation},
            }
        )

    def _attempt(self, reading: Reading) -> bool:
        written = [self._begin(reading)]
        written += [self._result_in_message(reading, message) for message in reading.messages or []]
        reacts_to = self.intervention if self.intervention and self.intervention[0] <= reading.started_seconds else None
        first = self.id_of(reading)
        for place, answer in enumerate(reading.answers or [None]):
            attempt = first if place == 0 else f"{first}-{place}"
            of_call = place == 0
            metadata = dict(reading.metadata)
            if len(reading.answers) > 1:
                metadata |= {"choice": place, "choices": len(reading.answers)}
            if answer and answer.finish_reason:
                metadata["finish_reason"] = answer.finish_reason
            calls = answer.tool_calls if answer else []
            record = {
                "type": "attempt",
                "id": attempt,
                "parent": reacts_to[1] if reacts_to else None,
                "at_seconds": reading.ended_seconds,
                "text": answer.text if answer else "",
                "messages": reading.messages,
                "tool_calls": calls or None,
                "model": reading.model,
                "prompt_version": reading.prompt_version,
                "input_tokens": reading.input_tokens if of_call else None,
                "output_tokens": reading.output_tokens if of_call else None,
                "cost_usd": reading.cost_usd if of_call else None,
                "duration_seconds": reading.duration_seconds if of_call else None,
                "error": reading.error or (None if answer else "not captured: the span has no answer on it"),
                "metadata": metadata,
            }
            written.append(self._write(reading, record))
            self._await_results(attempt, calls)
            if answer and answer.text and (self.answer is None or self.answer[0] <= reading.ended_seconds):
                self.answer = (reading.ended_seconds, answer.text)
        self.attempts.append((reading.ended_seconds, first))
        self.intervention = None
        return all(written)

    def _await_results(self, attempt: str, calls: list[dict[str, Any]]) -> None:
        for call in calls:
            if call.get("id"):
                self.waiting[call["id"]] = (attempt, call["function"]["name"])
        while len(self.waiting) > ATTEMPTS:
            del self.waiting[next(iter(self.waiting))]

    def _tool_result(self, reading: Reading) -> bool:
        call_id = reading.tool_call_id
        if call_id is None:  # the oldest call of this tool that has no result
            call_id = next((id_ for id_, (_, name) in self.waiting.items() if name == reading.tool), None)
        asked = self.waiting.pop(call_id, None) if call_id is not None else None
        parent = asked[0] if asked else self._before(reading)
        return self._intervene(reading, self.id_of(reading), "tool_result", "tool", parent)

    def _result_in_message(self, reading: Reading, message: dict[str, Any]) -> bool:
        """A tool without a span of its own is known by the message with its result."""
        call_id = message.get("tool_call_id")
        asked = self.waiting.pop(call_id, None) if call_id else None
        if asked is None:
            return True
        attempt, name = asked
        made = f"{attempt}-{sha256(str(call_id).encode()).hexdigest()[:16]}"
        self.intervention = (reading.started_seconds, made)
        return log.write(
            {
                "type": "intervention",
                "id": made,
                "session": self.id,
                "parent": attempt,
                "at_seconds": reading.started_seconds,
                "kind": "tool_result",
                "by": "tool",
                "name": name,
                "text": message["content"],
                "metadata": {"tool_call_id": call_id},
            }
        )

    def _intervene(self, reading: Reading, made: str, kind: str, by: str, parent: str | None) -> bool:
        self.intervention = (reading.ended_seconds, made)
        return self._write(
            reading,
            {
                "type": "intervention",
                "id": made,
                "parent": parent,
                "at_seconds": reading.ended_seconds,
                "kind": kind,
                "by": by,
                "name": reading.tool or reading.name,
                "text": reading.result or "",
                "model": reading.model,
                "duration_seconds": reading.duration_seconds,
                "error": reading.error,
            },
        )

    def _before(self, reading: Reading) -> str | None:
        """The newest attempt that had ended when this span began."""
        ended = [attempt for attempt in self.attempts if attempt[0] <= reading.started_seconds]
        return max(ended)[1] if ended else None

    def _outcome(self, reading: Reading, evaluation: Evaluation, number: int) -> bool:
        own = reading.kind == "model" and not evaluation.whole
        before = self._before(reading) if reading.kind in ("evaluator", "tool", "guardrail") else None
        label = {"label": evaluation.label} if evaluation.label is not None else {}
        return log.write(
            {
                "type": "outcome",
                "id": f"{self.id_of(reading)}-outcome-{number}",
                "session": self.id,
                "parent": self.id_of(reading) if own else None if evaluation.whole else before,
                "at_seconds": evaluation.at_seconds,
                "scorer": evaluation.scorer,
                "score": evaluation.score,
                "passed": evaluation.passed,
                "note": evaluation.note,
                "metadata": {**reading.metadata, **label} if reading.kind == "evaluator" else label or None,
            }
        )

    def _is_end(self, reading: Reading) -> bool:
        """Whether the task is over: by the end of the trace's root, or of an agent that another process called."""
        if self.id != f"otel-{reading.trace}":
            return False
        known = self.begun or reading.kind in ("model", "agent")
        return known and (reading.root or (reading.kind == "agent" and reading.parent is None))

    def _end(self, reading: Reading) -> bool:
        begun = self._begin(reading)
        said = next((answer.text for answer in reading.answers if answer.text), None)
        newest = self.answer[1] if self.answer else None
        ended = self._write(
            reading,
            {
                "type": "end",
                "id": f"{self.id_of(reading)}-end",
                "at_seconds": reading.ended_seconds,
                "status": "failed" if reading.error else "completed",
                "answer": None if reading.error else said or newest or reading.result,
                "error": reading.error,
            },
        )
        return begun and ended
