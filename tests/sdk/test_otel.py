"""The span exporter, with the real OpenTelemetry SDK and spans of real instrumentations of the real OpenAI client."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from openai_server import MODEL, Reply, calls, openai_server, says
from openinference.instrumentation import using_session
from openinference.instrumentation.openai import OpenAIInstrumentor as OpenInference
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags, set_span_in_context
from written_traces import lines_in, records_in, session_in, sessions_in

from atlas import sdk
from atlas.sdk import otel
from atlas.sdk.otel import AtlasSpanExporter

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
SYSTEM = {"role": "system", "content": "Be brief."}
ASK = [SYSTEM, {"role": "user", "content": "1 + 2?"}]
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}
ANSWERED = [
    *ASK,
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "3"},
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv("ATLAS_TRACES", raising=False)
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "span_only")
    sdk.configure(tmp_path)
    yield tmp_path
    sdk.configure()


@pytest.fixture
def exporter():
    return AtlasSpanExporter()


@pytest.fixture
def provider(exporter):
    provider = TracerProvider(resource=Resource({"service.name": "adder"}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider
    provider.shutdown()


@pytest.fixture
def tracer(provider):
    return provider.get_tracer("agent")


@pytest.fixture
def server():
    with openai_server() as server:
        yield server


def client_of(server):
    return openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)


def genai():
    module = pytest.importorskip("opentelemetry.instrumentation.genai.openai")
    return module.OpenAIInstrumentor()


@pytest.fixture(params=["openinference", "genai"])
def instrumented(request, provider, server):
    """A client whose calls become spans of one convention or the other."""
    instrumentor = OpenInference() if request.param == "openinference" else genai()
    instrumentor.instrument(tracer_provider=provider)
    with client_of(server) as client:
        yield client
    instrumentor.uninstrument()


class Clock:
    """Makes finished spans of one trace, a second each."""

    def __init__(self, tracer):
        self.tracer = tracer
        self.now = START

    def span(self, name, attributes=None, parent=None, seconds=1, events=(), error=None):
        context = set_span_in_context(parent) if parent is not None else None
        span = self.tracer.start_span(name, context=context, attributes=attributes, start_time=self.now)
        for event, said in events:
            span.add_event(event, said, timestamp=self.now + SECOND // 2)
        if error:
            span.set_status(Status(StatusCode.ERROR, error))
        self.now += int(seconds * SECOND)
        span.end(self.now)
        return span

    def root(self, name="run", attributes=None):
        return self.tracer.start_span(name, attributes=attributes, start_time=self.now)

    def end(self, span):
        span.end(self.now)


@pytest.fixture
def clock(tracer):
    return Clock(tracer)


def chat(said="3", asked="1 + 2?", **more):
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.response.model": MODEL,
        "gen_ai.input.messages": json.dumps([{"role": "user", "parts": [{"type": "text", "content": asked}]}]),
        "gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": [{"type": "text", "content": said}]}]),
        **more,
    }


def chat_with_calls(*found):
    parts = [{"type": "tool_call", "id": i, "name": name, "arguments": {"a": 1}} for i, name in found]
    return chat() | {"gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": parts}])}


def tool(name, result="3", call_id=None):
    found = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": name, "gen_ai.tool.call.result": result}
    return found | ({"gen_ai.tool.call.id": call_id} if call_id else {})


def dropped():
    return sum(sdk.status()["dropped"].values())


# Spans of real instrumentations


def test_an_instrumented_agent_becomes_a_session(instrumented, tracer, server, folder):
    server.will(calls("call_1", "add", '{"a": 1, "b": 2}'), says("3"))
    with tracer.start_as_current_span("agent"):
        instrumented.chat.completions.create(model="tiny", messages=ASK, tools=[TOOL])
        with tracer.start_as_current_span("add", attributes=tool("add", call_id="call_1")):
            pass
        instrumented.chat.completions.create(model="tiny", messages=ANSWERED)
    session = session_in(folder)
    assert [(m.role, m.content) for m in session.record.task] == [("system", "Be brief."), ("user", "1 + 2?")]
    assert session.record.agent == "adder"
    first, second = session.attempts
    assert first.record.tool_calls[0]["id"] == "call_1"
    assert json.loads(first.record.tool_calls[0]["function"]["arguments"]) == {"a": 1, "b": 2}
    [result] = first.interventions
    assert (result.kind, result.by, result.name, result.text) == ("tool_result", "tool", "add", "3")
    assert second.record.parent == result.id
    assert (second.record.text, second.record.model) == ("3", MODEL)
    assert (second.record.input_tokens, second.record.output_tokens) == (11, 7)
    assert [m.role for m in second.record.messages] == ["system", "user", "assistant", "tool"]
    assert second.record.messages[3].tool_call_id == "call_1"
    assert (session.end.status, session.end.answer) == ("completed", "3")


def test_a_tool_without_a_span_is_known_by_its_message(instrumented, tracer, server, folder):
    server.will(calls("call_1", "add", "{}"), says("3"), says("yes"))
    with tracer.start_as_current_span("agent"):
        instrumented.chat.completions.create(model="tiny", messages=ASK)
        instrumented.chat.completions.create(model="tiny", messages=ANSWERED)
        instrumented.chat.completions.create(model="tiny", messages=[*ANSWERED, {"role": "user", "content": "sure?"}])
    first, second, third = session_in(folder).attempts
    [result] = first.interventions
    assert (result.name, result.text) == ("add", "3")
    assert second.record.parent == result.id
    assert third.record.parent is None


def test_streams_choices_and_errors_of_instrumented_calls(instrumented, tracer, server, folder):
    server.will(says("str", "eam"), says("one", choices=2), Reply(status=429))
    with tracer.start_as_current_span("agent"):
        list(instrumented.chat.completions.create(model="tiny", messages=ASK, stream=True))
        instrumented.chat.completions.create(model="tiny", messages=ASK, n=2)
        with pytest.raises(openai.RateLimitError):
            instrumented.chat.completions.create(model="tiny", messages=ASK)
    records = [attempt.record for attempt in session_in(folder).attempts]
    assert [record.text for record in records] == ["stream", "one", "one", ""]
    assert [record.output_tokens for record in records[1:3]] == [7, None]
    assert "RateLimitError" in records[3].error
    assert [record.error for record in records[:3]] == [None] * 3


def test_instrumented_responses_become_attempts(instrumented, tracer, server, folder):
    server.will(calls("call_1", "add", '{"a": 1}'), says("3"))
    with tracer.start_as_current_span("agent"):
        instrumented.responses.create(model="tiny", instructions="Be brief.", input="1 + 2?")
        list(instrumented.responses.create(model="tiny", input="again", stream=True))
    first, second = session_in(folder).attempts
    assert [(m.role, m.content) for m in first.record.messages] == [("system", "Be brief."), ("user", "1 + 2?")]
    assert first.record.tool_calls[0]["function"]["name"] == "add"
    assert second.record.text == "3"


def test_embeddings_are_left_out(instrumented, server, folder):
    instrumented.embeddings.create(model="tiny", input="hi")
    assert lines_in(folder) == []


def test_calls_with_nothing_around_them_belong_to_their_conversation(provider, server, folder):
    OpenInference().instrument(tracer_provider=provider)
    try:
        server.will(calls("call_1", "add", "{}"), says("3"), says("other"))
        with client_of(server) as client:
            with using_session("conversation 1"):
                client.chat.completions.create(model="tiny", messages=ASK)
                client.chat.completions.create(model="tiny", messages=ANSWERED)
            client.chat.completions.create(model="tiny", messages=ASK)
    finally:
        OpenInference().uninstrument()
    together, alone = sessions_in(folder)
    assert len(together.attempts) == 2
    assert len(together.attempts[0].interventions) == 1
    assert together.end is None
    assert together.record.metadata["conversation"] == "conversation 1"
    assert (len(alone.attempts), alone.end.answer) == (1, "other")


def test_a_batch_processor_writes_the_same(server, folder):
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(AtlasSpanExporter()))
    OpenInference().instrument(tracer_provider=provider)
    try:
        server.will(calls("call_1", "add", "{}"), says("3"))
        with client_of(server) as client, provider.get_tracer("agent").start_as_current_span("agent"):
            client.chat.completions.create(model="tiny", messages=ASK)
            client.chat.completions.create(model="tiny", messages=ANSWERED)
        provider.force_flush()
    finally:
        OpenInference().uninstrument()
        provider.shutdown()
    session = session_in(folder)
    assert [len(attempt.interventions) for attempt in session.attempts] == [1, 0]
    assert session.end.answer == "3"


def test_messages_of_a_span_that_lost_some_of_them_are_not_taken_for_all(provider, tracer, server, folder):
    OpenInference().instrument(tracer_provider=provider)
    long = [{"role": "user", "content": str(number)} for number in range(200)]
    try:
        with client_of(server) as client, tracer.start_as_current_span("agent"):
            client.chat.completions.create(model="tiny", messages=long)
    finally:
        OpenInference().uninstrument()
    session = session_in(folder)
    [attempt] = session.attempts
    assert attempt.record.metadata["dropped_attributes"] > 0
    assert attempt.record.messages is None
    assert (session.text, attempt.record.text) == ("199", "199")


# Spans written by hand, with times that are known


def test_times_are_those_of_the_spans(clock, folder):
    root = clock.root()
    clock.span("chat", chat(), root, seconds=2)
    clock.end(root)
    session = session_in(folder)
    start = START / SECOND
    record = session.attempts[0].record
    assert (session.record.at_seconds, record.at_seconds, session.end.at_seconds) == (start, start + 2, start + 2)
    assert record.duration_seconds == 2
    assert (record.sequence, record.monotonic_seconds) == (None, None)


def test_a_span_that_is_exported_twice_gives_the_same_ids(exporter, folder):
    memory = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    clock = Clock(provider.get_tracer("agent"))
    root = clock.root()
    clock.span("chat", chat_with_calls(("call_1", "add")), root)
    clock.span("add", tool("add", call_id="call_1"), root)
    clock.span("chat", chat("3", **{"gen_ai.evaluation.name": "right", "gen_ai.evaluation.score.label": "pass"}), root)
    clock.end(root)
    spans = memory.get_finished_spans()
    assert exporter.export(spans) is SpanExportResult.SUCCESS
    once = {record.id for record in records_in(folder)}
    assert AtlasSpanExporter().export(spans) is SpanExportResult.SUCCESS
    assert exporter.export(spans) is SpanExportResult.SUCCESS
    assert {record.id for record in records_in(folder)} == once
    assert len(once) == 6


def test_a_tool_answers_the_attempt_that_asked_else_the_newest_before_it(clock, folder):
    root = clock.root()
    clock.span("chat", chat_with_calls(("call_1", "add"), ("call_2", "mul")), root)
    clock.span("chat", chat("thinking"), root)
    clock.span("add", tool("add", "by id", "call_1"), root)
    clock.span("mul", tool("mul", "by name"), root)
    clock.span("look", tool("look", "by time"), root)
    clock.end(root)
    first, second = session_in(folder).attempts
    assert [result.text for result in first.interventions] == ["by id", "by name"]
    assert [result.text for result in second.interventions] == ["by time"]


def test_a_tool_is_not_linked_to_an_attempt_that_ended_after_it_began(exporter, folder):
    around = context(9)
    late = made(chat("late"), 2, around, start=START + 2 * SECOND, end=START + 9 * SECOND)
    looked = made(tool("look"), 3, around, start=START + 5 * SECOND, end=START + 10 * SECOND)
    exporter.export([made(chat("early"), 1, around), late, looked])
    assert {a.record.text: len(a.interventions) for a in session_in(folder).attempts} == {"early": 1, "late": 0}


def test_a_tool_that_fails_says_why(clock, folder):
    root = clock.root()
    clock.span("chat", chat(), root)
    clock.span("add", {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "add"}, root, error="no such file")
    clock.end(root)
    [result] = session_in(folder).attempts[0].interventions
    assert (result.text, result.error) == ("", "no such file")


def test_events_of_older_conventions_are_read(clock, folder):
    said = [
        ("gen_ai.system.message", {"content": "Be brief."}),
        ("gen_ai.user.message", {"content": "1 + 2?"}),
        ("gen_ai.assistant.message", {"tool_calls": json.dumps([CALL])}),
        ("gen_ai.tool.message", {"gen_ai.event.content": json.dumps({"id": "call_1", "content": "3"})}),
        ("gen_ai.choice", {"index": 0, "finish_reason": "stop", "message": json.dumps({"content": "three"})}),
    ]
    clock.span("chat", {"gen_ai.operation.name": "chat", "gen_ai.request.model": "tiny"}, events=said)
    [attempt] = session_in(folder).attempts
    assert (attempt.record.text, attempt.record.model) == ("three", "tiny")
    assert [(m.role, m.content, m.tool_call_id) for m in attempt.record.messages] == [
        ("system", "Be brief.", None),
        ("user", "1 + 2?", None),
        ("assistant", "", None),
        ("tool", "3", "call_1"),
    ]


def test_an_event_with_all_details_is_read(clock, folder):
    whole = chat("3")
    details = {key: whole.pop(key) for key in ("gen_ai.input.messages", "gen_ai.output.messages")}
    clock.span("chat", whole, events=[("gen_ai.client.inference.operation.details", details)])
    session = session_in(folder)
    assert (session.text, session.attempts[0].record.text) == ("1 + 2?", "3")


def test_text_completions_of_both_conventions_are_read(clock, folder):
    clock.span(
        "complete",
        {"gen_ai.operation.name": "text_completion", "gen_ai.prompt": '[{"role": "user", "content": "1 +"}]',
         "gen_ai.completion": '[{"role": "assistant", "content": " 2"}]'},
    )  # fmt: skip
    clock.span(
        "complete",
        {"openinference.span.kind": "LLM", "llm.prompts.0.prompt.text": "3 +", "llm.choices.0.completion.text": " 4"},
    )
    assert [(s.text, s.attempts[0].record.text) for s in sessions_in(folder)] == [("1 +", " 2"), ("3 +", " 4")]


def test_openinference_tools_costs_tags_guardrails_and_templates(clock, folder):
    root = clock.root("agent", {"openinference.span.kind": "AGENT", "input.value": "1 + 2?", "output.value": "It is 3"})
    said = {
        "openinference.span.kind": "LLM",
        "llm.model_name": "tiny",
        "llm.input_messages.0.message.role": "user",
        "llm.input_messages.0.message.contents.0.message_content.type": "text",
        "llm.input_messages.0.message.contents.0.message_content.text": "1 + 2?",
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.tool_calls.0.tool_call.id": "call_1",
        "llm.output_messages.0.message.tool_calls.0.tool_call.function.name": "add",
        "llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments": "{}",
        "llm.token_count.prompt": 5,
        "llm.token_count.completion": 2,
        "llm.cost.total": 0.25,
        "llm.prompt_template.version": "v3",
        "tag.tags": ["maths"],
        "agent.name": "calculator",
    }
    clock.span("llm", said, root)
    clock.span(
        "add", {"openinference.span.kind": "TOOL", "tool.name": "add", "input.value": "{}", "output.value": "3"}, root
    )
    clock.span("polite", {"openinference.span.kind": "GUARDRAIL", "output.value": "say please"}, root)
    clock.end(root)
    session = session_in(folder)
    assert (session.record.agent, session.record.tags, session.text) == ("calculator", ["maths"], "1 + 2?")
    [attempt] = session.attempts
    record = attempt.record
    assert (record.cost_usd, record.prompt_version, record.input_tokens, record.output_tokens) == (0.25, "v3", 5, 2)
    assert [(i.kind, i.by, i.name, i.text) for i in attempt.interventions] == [
        ("tool_result", "tool", "add", "3"),
        ("critique", "rule", "polite", "say please"),
    ]
    assert session.end.answer == "It is 3"


def test_evaluations_are_outcomes_and_a_score_alone_is_no_verdict(clock, folder):
    root = clock.root("agent", {"openinference.span.kind": "AGENT"})
    event = {
        "gen_ai.evaluation.name": "right",
        "gen_ai.evaluation.score.value": 0.5,
        "gen_ai.evaluation.explanation": "so-so",
    }
    clock.span("chat", chat(), root, events=[("gen_ai.evaluation.result", event)])
    result = json.dumps({"score": 1, "label": "correct", "explanation": "it is 3"})
    clock.span("checker", {"openinference.span.kind": "EVALUATOR", "output.value": result}, root)
    root.set_attribute("trace.evaluations.0.evaluation.name", "polite")
    root.set_attribute("trace.evaluations.0.evaluation.label", "fail")
    clock.end(root)
    session = session_in(folder)
    [attempt] = session.attempts
    assert [(o.scorer, o.score, o.passed, o.note) for o in attempt.outcomes] == [
        ("right", 0.5, None, "so-so"),
        ("checker", 1.0, True, "it is 3"),
    ]
    assert [(o.scorer, o.passed, o.parent) for o in session.outcomes] == [("polite", False, None)]
    assert session.passed("checker") is True
    assert session.passed() is False


def test_a_model_call_around_a_model_call_is_one_attempt(clock, folder):
    root = clock.root()
    outer = clock.tracer.start_span("framework", set_span_in_context(root), attributes=chat(), start_time=clock.now)
    clock.span("client", chat(), outer)
    clock.end(outer)
    clock.end(root)
    assert len(session_in(folder).attempts) == 1


def test_an_agent_that_runs_elsewhere_is_an_attempt(clock, folder):
    clock.span("invoke_agent", {**chat("It is 3"), "gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "far"})
    session = session_in(folder)
    assert (session.text, session.record.agent) == ("1 + 2?", "far")
    assert [attempt.record.text for attempt in session.attempts] == ["It is 3"]
    assert session.end.answer == "It is 3"


def test_an_agent_that_another_process_called_ends_its_session(clock, folder):
    caller = NonRecordingSpan(SpanContext(1 << 100, 7, is_remote=True, trace_flags=TraceFlags(1)))
    agent = clock.tracer.start_span("agent", set_span_in_context(caller), start_time=clock.now)
    agent.set_attribute("openinference.span.kind", "AGENT")
    clock.span("chat", chat(), agent)
    clock.end(agent)
    assert session_in(folder).end.answer == "3"


def test_a_failed_root_ends_a_failed_session(clock, folder):
    root = clock.root()
    clock.span("chat", chat(), root)
    root.set_status(Status(StatusCode.ERROR, "out of budget"))
    clock.end(root)
    end = session_in(folder).end
    assert (end.status, end.error, end.answer) == ("failed", "out of budget", None)


def test_traces_without_genai_spans_leave_no_line(clock, folder):
    root = clock.root("GET /")
    clock.span("select", {"db.system": "sqlite"}, root)
    clock.end(root)
    assert lines_in(folder) == []


def test_what_maps_to_nothing_is_kept_within_a_bound(clock, folder):
    many = {f"custom.{number}": "x" * 500 for number in range(100)}
    clock.span("chat", {**chat(), "gen_ai.request.temperature": 0.5, "long": "y" * 5_000, **many})
    metadata = session_in(folder).attempts[0].record.metadata
    assert metadata["gen_ai.request.temperature"] == 0.5
    assert metadata["long"] == "y" * 1_000
    assert metadata["attributes_left_out"] > 50
    assert len(json.dumps(metadata)) < 10_000


def test_a_span_without_content_is_no_answer_and_the_remedy_is_told_once(clock, folder):
    with pytest.warns(RuntimeWarning, match="CAPTURE_MESSAGE_CONTENT") as told:
        for _ in range(3):
            clock.span("chat", {"gen_ai.operation.name": "chat", "gen_ai.usage.output_tokens": 7})
    assert len(told) == 1
    records = [session.attempts[0].record for session in sessions_in(folder)]
    assert [(r.text, r.output_tokens, r.error) for r in records] == [
        ("", 7, "not captured: the span has no answer on it")
    ] * 3


# Spans as they should not be


def context(span_id, trace_id=1):
    return SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(1))


def made(attributes, span_id=1, parent=None, start=START, end=START + SECOND, **more):
    own = {"name": "chat", "context": context(span_id), "attributes": attributes, **more}
    return ReadableSpan(parent=parent, start_time=start, end_time=end, **own)


DEEP = "[" * 10_000 + "]" * 10_000
NESTED = "[" * 400 + "]" * 400


@pytest.mark.parametrize(
    "attributes",
    [
        {"gen_ai.operation.name": "chat"},
        {"gen_ai.operation.name": 7, "openinference.span.kind": 8, "gen_ai.request.model": 9},
        {**chat(), "gen_ai.input.messages": DEEP, "gen_ai.output.messages": DEEP},
        {**chat(), "gen_ai.input.messages": "[{", "gen_ai.output.messages": 5},
        {**chat(), "gen_ai.input.messages": "7", "gen_ai.output.messages": '"text"'},
        {**chat(), "gen_ai.input.messages": '[1, null, "x", {"role": null}, {"role": {}, "parts": 3}]'},
        {**chat(), "gen_ai.output.messages": '[{"parts": [1, {"type": "tool_call", "arguments": ' + NESTED + "}]}]"},
        {**chat(), "gen_ai.output.messages": '[{"parts": [{"type": "text", "content": {"a": []}}]}]'},
        {**chat(), "gen_ai.usage.input_tokens": "many", "llm.cost.total": float("nan")},
        {**chat(), "gen_ai.usage.output_tokens": -1, "llm.cost.total": True},
        {**chat(), "gen_ai.usage.input_tokens": 2**80, "gen_ai.response.model": 3.5, "tag.tags": 5},
        {"openinference.span.kind": "LLM", "llm.input_messages.0": 1, "llm.input_messages.0.message": 2,
         "llm.input_messages.0.message.role": "user", "llm.input_messages.²": 3, "llm.input_messages.9999999999.x": 4,
         "llm.output_messages.0.message.content": 5, "llm.output_messages.0.message.tool_calls.0.tool_call": 6},
        {"openinference.span.kind": "LLM", "llm.input_messages.0." + "a." * 10_000 + "b": 1},
        {"openinference.span.kind": "LLM", "input.value": DEEP, "output.value": DEEP},
        {"openinference.span.kind": "LLM", "input.value": '{"messages": 1}', "output.value": '{"choices": [null, {}]}'},
        {"openinference.span.kind": "EVALUATOR", "output.value": DEEP, "evaluations.0.evaluation": 3},
        {"openinference.span.kind": "TOOL", "output.value": 3},
        {"openinference.span.kind": "GUARDRAIL"},
        {**chat("\ud800 \x00 \x1b[31m"), "session.id": "s" * 10_000},
        None,
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:atlas.sdk:RuntimeWarning")
def test_whatever_is_in_a_span_it_is_written_and_can_be_read(exporter, folder, attributes):
    before = dropped()
    assert exporter.export([made(attributes)]) is SpanExportResult.SUCCESS
    assert all(record.id for record in records_in(folder))
    assert dropped() == before


def test_odd_times_and_parents_are_kept_and_flagged(exporter, folder):
    spans = [
        made(chat("own parent"), 1, parent=context(1)),
        made(chat("backwards"), 2, parent=context(9), end=START - SECOND),
        made(chat("no end"), 3, parent=context(9), end=None),
        made(chat("no times"), 4, parent=context(9), start=None, end=None),
    ]
    assert exporter.export(spans) is SpanExportResult.SUCCESS
    records = {attempt.record.text: attempt.record for attempt in session_in(folder).attempts}
    assert records["own parent"].metadata["own_parent"] is True
    assert records["backwards"].metadata["negative_duration_seconds"] == -1
    assert [records[text].duration_seconds for text in ("backwards", "no end", "no times")] == [None, None, None]
    assert records["no end"].at_seconds == START / SECOND
    assert records["no times"].at_seconds > START / SECOND


@pytest.mark.filterwarnings("ignore:atlas.sdk:RuntimeWarning")
def test_a_span_that_cannot_be_read_fails_is_counted_and_stops_no_other(exporter, folder):
    before = dropped()
    broken = ReadableSpan(name="no context")
    assert exporter.export([broken, made(chat())]) is SpanExportResult.FAILURE
    assert dropped() == before + 1
    assert len(session_in(folder).attempts) == 1


@pytest.mark.filterwarnings("ignore:atlas.sdk:RuntimeWarning")
def test_a_folder_that_cannot_be_written_is_a_failed_export(exporter, tmp_path):
    (tmp_path / "file").write_text("")
    sdk.configure(tmp_path / "file")
    assert exporter.export([made(chat())]) is SpanExportResult.FAILURE


def test_after_its_shutdown_nothing_is_exported(exporter, folder):
    assert exporter.force_flush() is True
    exporter.shutdown()
    assert exporter.export([made(chat())]) is SpanExportResult.FAILURE
    assert lines_in(folder) == []


def test_memory_is_bounded_and_what_is_forgotten_is_still_written(exporter, folder, monkeypatch):
    monkeypatch.setattr(otel, "SESSIONS", 10)
    for trace in range(1, 101):
        for number in range(1, 4):
            span = ReadableSpan("chat", context(number, trace), context(99, trace), attributes=chat(), start_time=START,
                                end_time=START)  # fmt: skip
            exporter.export([span])
    for number in range(1_000):
        exporter.export([made(chat_with_calls((f"call_{number}", "add")), number + 1, context(5_000))])
    assert len(exporter._sessions) == len(exporter._session_of_trace) == 10
    state = exporter._sessions["otel-" + "1".zfill(32)]
    assert (len(state.attempts), len(state.waiting), len(state.around_models)) == (64, 64, 64)
    assert sum(len(session.attempts) for session in sessions_in(folder)) == 300 + 1_000


def test_threads_export_at_once(provider, folder):
    def work(number):
        clock = Clock(provider.get_tracer("agent"))
        root = clock.root()
        clock.span("chat", chat_with_calls(("call_1", "add")), root)
        clock.span("add", tool("add", str(number), "call_1"), root)
        clock.span("chat", chat(str(number)), root)
        clock.end(root)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(100)))
    sessions = sessions_in(folder)
    assert sorted(int(session.end.answer) for session in sessions) == list(range(100))
    assert all(session.attempts[0].interventions[0].text == session.end.answer for session in sessions)


def test_text_of_spans_is_redacted(clock, folder):
    token = "sk-proj-" + "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA"
    clock.span("chat", {**chat(f"the key is {token}"), "custom.header": f"Bearer {token}"})
    assert "the key is" in lines_in(folder)[1]
    assert token not in "".join(lines_in(folder))


def test_without_opentelemetry_the_message_names_the_extra_and_the_sdk_still_works():
    script = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import atlas.sdk\n"
        "try: import atlas.sdk.otel\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert "atlas[otel]" in done.stdout


def test_importing_the_sdk_imports_no_opentelemetry():
    script = "import sys, atlas.sdk; sys.exit('opentelemetry' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0
