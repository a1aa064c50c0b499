"""What recording without code costs: a wrapped client's call and streamed chunk, and an exported span.

    python benchmarks/sdk_without_code.py

The client answers from memory with the objects of the `openai` package, so that no server's time is in it; what is
shown is the difference to the same client unwrapped. Every call brings 10 messages and is an attempt of one session.
Spans are those that `opentelemetry-instrumentation-genai-openai` makes, exported one by one. Prints microseconds as the
median of the repeats, with their range.
"""

import json
import statistics
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

from openai.types.chat import ChatCompletion, ChatCompletionChunk
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

from atlas import sdk
from atlas.sdk.openai import wrap
from atlas.sdk.otel import AtlasSpanExporter

REPEATS = 7
CALLS = 500
STREAMS = 10
CHUNKS = 200
TEXT = "The sum of the two numbers is what you get when you add them; here it is 42. " * 3
MESSAGES = [{"role": "user" if number % 2 == 0 else "assistant", "content": TEXT} for number in range(9)]
MESSAGES = [{"role": "system", "content": "Be brief."}, *MESSAGES]
COMPLETION = ChatCompletion.model_validate(
    {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "tiny",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": TEXT}}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }
)
CHUNK = ChatCompletionChunk.model_validate(
    {
        "id": "1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "tiny",
        "choices": [{"index": 0, "delta": {"content": "word "}}],
    }
)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        sdk.configure(folder)
        calls, chunks, spans = [], [], []
        for _ in range(REPEATS):
            bare, wrapped = client(), wrap(client())
            with sdk.session("benchmark"):
                calls.append(microseconds(call, wrapped, CALLS) - microseconds(call, bare, CALLS))
                added = microseconds(stream, wrapped, STREAMS) - microseconds(stream, bare, STREAMS)
            chunks.append((added - calls[-1]) / CHUNKS)
            finished = iter([span(number) for number in range(1, CALLS + 1)])
            spans.append(microseconds(export_next, (AtlasSpanExporter(), finished), CALLS))
        assert not sdk.status()["dropped"]
    for name, found in (("call", calls), ("streamed chunk", chunks), ("exported span", spans)):
        print(f"{name:16} {statistics.median(found):8.1f} us    ({min(found):.1f} to {max(found):.1f})")


def client() -> Any:
    def create(*, messages: object, stream: bool = False) -> object:
        return (CHUNK for _ in range(CHUNKS)) if stream else COMPLETION

    return types.SimpleNamespace(chat=types.SimpleNamespace(completions=types.SimpleNamespace(create=create)))


def call(made: Any) -> None:
    made.chat.completions.create(messages=MESSAGES)


def stream(made: Any) -> None:
    for _ in made.chat.completions.create(messages=MESSAGES, stream=True):
        pass


def export_next(given: tuple[AtlasSpanExporter, Iterator[ReadableSpan]]) -> None:
    exporter, spans = given
    exporter.export([next(spans)])


def span(number: int) -> ReadableSpan:
    inputs = [{"role": m["role"], "parts": [{"type": "text", "content": m["content"]}]} for m in MESSAGES]
    outputs = [{"role": "assistant", "parts": [{"type": "text", "content": TEXT}], "finish_reason": "stop"}]
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "tiny",
        "gen_ai.response.model": "tiny",
        "gen_ai.usage.input_tokens": 11,
        "gen_ai.usage.output_tokens": 7,
        "gen_ai.input.messages": json.dumps(inputs),
        "gen_ai.output.messages": json.dumps(outputs),
    }
    own, around = (SpanContext(1, number_, is_remote=False) for number_ in (number, 1 << 60))
    return ReadableSpan("chat tiny", own, around, attributes=attributes, start_time=number, end_time=number + 1)


def microseconds(work: Callable[[Any], object], given: object, times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        work(given)
    return (time.perf_counter() - start) * 1e6 / times


if __name__ == "__main__":
    main()
