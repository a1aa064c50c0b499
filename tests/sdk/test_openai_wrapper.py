"""The wrapper around real OpenAI clients, against a real server on loopback."""

import asyncio
import gc
import inspect
import json
import os
import subprocess
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from openai_server import MODEL, Reply, calls, openai_server, says
from pydantic import BaseModel
from written_traces import lines_in, records_in, session_in, sessions_in

from atlas import sdk
from atlas.sdk import capture, log
from atlas.sdk import openai as wrapper
from atlas.sdk.openai import wrap

ASK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 2?"}]
TOKEN = "sk-proj-" + "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv("ATLAS_TRACES", raising=False)
    sdk.configure(tmp_path)
    yield tmp_path
    sdk.configure()


@pytest.fixture
def server():
    with openai_server() as server:
        yield server


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=server.url, api_key="none", max_retries=0) as client:
        yield wrap(client)


def async_client(server):
    return wrap(openai.AsyncOpenAI(base_url=server.url, api_key="none", max_retries=0))


def ask(client, **settings):
    return client.chat.completions.create(**{"model": "tiny", "messages": ASK, **settings})


def dropped():
    return sum(sdk.status()["dropped"].values())


def test_a_call_is_an_attempt_of_the_current_session(server, client, folder):
    server.will(says("3"))
    with sdk.session("add") as s:
        answer = ask(client)
        s.outcome("answer", 1.0, reference="3")
    assert answer.choices[0].message.content == "3"
    session = session_in(folder)
    [attempt] = session.attempts
    record = attempt.record
    assert (session.text, record.text, record.model) == ("add", "3", MODEL)
    assert [(m.role, m.content) for m in record.messages] == [("system", "Be brief."), ("user", "1 + 2?")]
    assert (record.input_tokens, record.output_tokens) == (11, 7)
    assert 0 < record.duration_seconds < 60
    assert record.error is None
    assert session.passed("answer") is True


def test_without_a_session_each_call_is_one_whose_task_are_the_messages(server, client, folder):
    server.will(says("3"), says("4"))
    ask(client)
    ask(client, messages=[{"role": "user", "content": "2 + 2?"}])
    first, second = sessions_in(folder)
    assert [message.role for message in first.record.task] == ["system", "user"]
    assert second.record.task == "2 + 2?"
    assert (second.end.status, second.end.answer) == ("completed", "4")
    assert sdk.current() is None


def test_a_session_of_its_own_is_written_before_the_server_answers(server, client, folder):
    seen = []
    original = server.next
    server.next = lambda request: [seen.extend(records_in(folder)), original(request)][1]
    ask(client)
    assert [record.type for record in seen] == ["session"]


def test_tool_results_are_recorded_once_and_answer_the_attempt_that_asked(server, client, folder):
    server.will(calls("call_1", "add", '{"a": 1, "b": 2}'), says("3"), says("indeed"))
    with sdk.session("add"):
        message = ask(client).choices[0].message  # an agent puts the client's own object into its messages
        told = [*ASK, message, {"role": "tool", "tool_call_id": "call_1", "content": "3"}]
        ask(client, messages=told)
        ask(client, messages=[*told, {"role": "assistant", "content": "3"}, {"role": "user", "content": "sure?"}])
    first, second, third = session_in(folder).attempts
    assert first.record.tool_calls[0]["function"] == {"name": "add", "arguments": '{"a": 1, "b": 2}'}
    [result] = first.interventions
    assert (result.kind, result.by, result.name, result.text) == ("tool_result", "tool", "add", "3")
    assert second.record.parent == result.id
    assert second.record.messages[2].tool_calls[0]["id"] == "call_1"
    assert not second.interventions
    assert not third.interventions


def test_a_result_is_not_linked_across_sessions(server, client, folder):
    server.will(calls("call_1", "add", "{}"), says("3"))
    with sdk.session("one"):
        ask(client)
    with sdk.session("two"):
        ask(client, messages=[*ASK, {"role": "tool", "tool_call_id": "call_1", "content": "3"}])
    assert [record for record in records_in(folder) if record.type == "intervention"] == []


def test_a_stream_comes_as_it_is_sent_and_is_one_attempt(server, client, folder):
    gate = threading.Event()
    server.will(says("Hel", "lo", " you", gate=gate))
    pieces = []
    with sdk.session("greet"):
        for chunk in ask(client, stream=True, stream_options={"include_usage": True}):
            pieces.append(chunk.choices[0].delta.content if chunk.choices else None)
            if pieces[-1] == " you":  # the server holds the last chunk back until the others have arrived
                gate.set()
    assert [piece for piece in pieces if piece] == ["Hel", "lo", " you"]
    [attempt] = session_in(folder).attempts
    assert (attempt.record.text, attempt.record.model) == ("Hello you", MODEL)
    assert (attempt.record.input_tokens, attempt.record.output_tokens) == (11, 7)
    assert "incomplete" not in attempt.record.metadata


def test_streamed_chunks_are_what_the_unwrapped_client_gives(server, client):
    reply = Reply(("a", "b"), (("call_1", "add", '{"a": 1}'),))
    server.will(reply, reply)
    with openai.OpenAI(base_url=server.url, api_key="none") as bare:
        expected = [chunk.model_dump() for chunk in ask(bare, stream=True)]
    assert [chunk.model_dump() for chunk in ask(client, stream=True)] == expected


def test_streamed_tool_calls_are_put_together(server, client, folder):
    server.will(Reply(calls=(("call_1", "add", '{"a": 1}'), ("call_2", "mul", '{"b": 2}'))))
    with sdk.session("add"):
        list(ask(client, stream=True))
        ask(client, messages=[*ASK, {"role": "tool", "tool_call_id": "call_2", "content": "8"}])
    first = session_in(folder).attempts[0]
    assert [(c["id"], c["function"]["arguments"]) for c in first.record.tool_calls] == [
        ("call_1", '{"a": 1}'),
        ("call_2", '{"b": 2}'),
    ]
    assert [i.name for i in first.interventions] == ["mul"]


@pytest.mark.parametrize("leave", ["drop", "close", "with", "break"])
def test_a_stream_that_is_left_early_is_recorded_and_flagged(server, client, folder, leave):
    server.will(says("one", " two", " three"))
    stream = ask(client, stream=True)
    if leave == "with":
        with stream as entered:
            next(entered), next(entered)
    elif leave == "break":
        for chunk in stream:
            if chunk.choices[0].delta.content == "one":
                break
        stream.close()
    else:
        next(stream), next(stream)
    if leave == "close":
        stream.close()
    del stream
    gc.collect()
    session = session_in(folder)
    [attempt] = session.attempts
    assert attempt.record.text == "one"
    assert attempt.record.metadata["incomplete"]
    assert session.end is not None


def test_looking_at_the_first_chunk_and_going_on_loses_nothing(server, client, folder):
    server.will(says("one", " two"))
    stream = ask(client, stream=True)
    next(iter(stream))
    for _ in stream:
        break
    for _ in stream:
        pass
    assert next(stream, None) is None  # asking on after the end records nothing more
    stream.close()
    [attempt] = session_in(folder).attempts
    assert attempt.record.text == "one two"
    assert "incomplete" not in attempt.record.metadata


def test_a_stream_left_open_is_recorded_when_the_process_ends(server, folder):
    server.will(says("one", " two", " three"))
    script = (
        "import openai, sys\n"
        "from atlas.sdk.openai import wrap\n"
        "client = wrap(openai.OpenAI(base_url=sys.argv[1], api_key='none'))\n"
        "stream = client.chat.completions.create(model='m', messages=[], stream=True)\n"
        "next(stream); next(stream)\n"
    )
    environment = {**os.environ, "ATLAS_TRACES": str(folder)}
    subprocess.run([sys.executable, "-c", script, server.url], check=True, env=environment, timeout=60)
    assert session_in(folder).attempts[0].record.text == "one"


def test_a_dropped_connection_reaches_the_caller_and_what_came_is_kept(server, client, folder):
    server.will(says("one", " two", " three", drop_after=3))
    with pytest.raises(openai.APIConnectionError) as raised:
        list(ask(client, stream=True))
    session = session_in(folder)
    [attempt] = session.attempts
    assert attempt.record.text == "one two"
    assert attempt.record.error.startswith("APIConnectionError")
    assert (session.end.status, session.end.error) == ("failed", f"APIConnectionError: {raised.value}")


@pytest.mark.parametrize(("status", "kind"), [(429, openai.RateLimitError), (500, openai.InternalServerError)])
def test_errors_pass_through_and_are_recorded(server, client, folder, status, kind):
    server.will(Reply(status=status))
    with sdk.session("add"), pytest.raises(kind):
        ask(client)
    session = session_in(folder)
    [attempt] = session.attempts
    assert attempt.record.error.startswith(kind.__name__)
    assert [m.content for m in attempt.record.messages] == ["Be brief.", "1 + 2?"]
    assert session.end.status == "completed"  # the agent caught it


def test_every_choice_is_an_attempt_and_the_usage_stands_with_the_first(server, client, folder):
    server.will(says("yes", choices=3), says("a", "b", choices=2))
    with sdk.session("choose"):
        ask(client, n=3)
        list(ask(client, n=2, stream=True, stream_options={"include_usage": True}))
    records = [attempt.record for attempt in session_in(folder).attempts]
    assert [(r.text, r.output_tokens, r.metadata["choice"]) for r in records] == [
        ("yes", 7, 0),
        ("yes", None, 1),
        ("yes", None, 2),
        ("ab", 7, 0),
        ("ab", None, 1),
    ]


def test_wrapping_twice_records_once(server, client, folder):
    assert wrap(wrap(client)) is client
    ask(client)
    assert len(session_in(folder).attempts) == 1


def test_the_client_stays_what_it_is(server, client, folder):
    assert isinstance(client, openai.OpenAI)
    bare = openai.OpenAI(base_url=server.url, api_key="none")
    assert inspect.signature(client.chat.completions.create) == inspect.signature(bare.chat.completions.create)
    with ask(client, stream=True) as stream:
        assert isinstance(stream, openai.Stream)
        assert stream.response.status_code == 200
    copy = client.with_options(timeout=5)
    assert copy is not client
    server.will(says("by the copy"))
    ask(copy)
    assert sessions_in(folder)[-1].end.answer == "by the copy"


def test_parse_stream_and_raw_responses_are_recorded(server, client, folder):
    class Sum(BaseModel):
        value: int

    server.will(says('{"value": 3}'), says("str", "eam"), says("raw"))
    with sdk.session("add"):
        parsed = client.chat.completions.parse(model="tiny", messages=ASK, response_format=Sum)
        with client.chat.completions.stream(model="tiny", messages=ASK) as stream:
            assert stream.get_final_completion().choices[0].message.content == "stream"
        raw = client.chat.completions.with_raw_response.create(model="tiny", messages=ASK)
    assert parsed.choices[0].message.parsed == Sum(value=3)
    assert raw.status_code == 200
    assert raw.parse().choices[0].message.content == "raw"
    assert [attempt.record.text for attempt in session_in(folder).attempts] == ['{"value": 3}', "stream", "raw"]


def test_what_is_not_captured_says_so(server, client, folder):
    server.will(says("a", "b"), says("c"))
    with sdk.session("add"):
        raw = client.chat.completions.with_raw_response.create(model="tiny", messages=ASK, stream=True)
        assert "".join(c.choices[0].delta.content or "" for c in raw.parse()) == "ab"
        with client.chat.completions.with_streaming_response.create(model="tiny", messages=ASK) as response:
            assert json.loads("".join(response.iter_lines()))["choices"][0]["message"]["content"] == "c"
    attempts = session_in(folder).attempts
    assert len(attempts) == 2
    assert all(a.record.error.startswith("not captured") for a in attempts)


def test_responses_are_recorded_too(server, client, folder):
    server.will(calls("call_1", "add", '{"a": 1}'), says("3"), says("th", "ree"), says("left", " early"))
    with sdk.session("add"):
        client.responses.create(model="tiny", instructions="Be brief.", input="1 + 2?")
        output = {"type": "function_call_output", "call_id": "call_1", "output": "3"}
        client.responses.create(model="tiny", input=[output])
        events = list(client.responses.create(model="tiny", input="1 + 2?", stream=True))
        stream = client.responses.create(model="tiny", input="1 + 2?", stream=True)
        while next(stream).type != "response.output_text.delta":
            pass
        stream.close()
    assert [event.type for event in events][-1] == "response.completed"
    first, second, third, fourth = session_in(folder).attempts
    assert [(m.role, m.content) for m in first.record.messages] == [("system", "Be brief."), ("user", "1 + 2?")]
    assert first.record.tool_calls[0]["id"] == "call_1"
    assert [i.text for i in first.interventions] == ["3"]
    assert second.record.text == "3"
    assert (third.record.text, third.record.output_tokens) == ("three", 7)
    assert fourth.record.text == "left"
    assert fourth.record.metadata["incomplete"]


def test_async_calls_streams_errors_and_tasks(server, folder):
    server.will(says("one"))

    async def run():
        client = async_client(server)
        async with sdk.session("call"):
            assert (await ask(client)).choices[0].message.content == "one"
        server.will(says("str", "eam"))
        async with sdk.session("stream"):
            stream = await ask(client, stream=True)
            assert isinstance(stream, openai.AsyncStream)
            assert "".join([c.choices[0].delta.content or "" async for c in stream]) == "stream"
        server.will(says("helped"))
        async with sdk.session("helper"), client.chat.completions.stream(model="tiny", messages=ASK) as helper:
            assert (await helper.get_final_completion()).choices[0].message.content == "helped"
        server.will(says("left", " early"))
        async with sdk.session("left"), await ask(client, stream=True) as stream:
            async for chunk in stream:
                if chunk.choices[0].delta.content:
                    break
        server.will(says("a", "b", drop_after=2))
        async with sdk.session("cut"):
            with pytest.raises(openai.APIConnectionError):
                async for _ in await ask(client, stream=True):
                    pass
        server.will(Reply(status=429))
        async with sdk.session("error"):
            with pytest.raises(openai.RateLimitError):
                await ask(client)
        await client.close()

    asyncio.run(run())
    found = {session.text: session.attempts[0].record for session in sessions_in(folder)}
    texts = {"call": "one", "stream": "stream", "helper": "helped", "left": "left", "cut": "a", "error": ""}
    assert {task: record.text for task, record in found.items()} == texts
    assert found["left"].metadata["incomplete"]
    assert found["cut"].error.startswith("APIConnectionError")
    assert found["error"].error.startswith("RateLimitError")


def test_tasks_and_threads_record_into_their_own_sessions(server, client, folder):
    def streamed(number):
        with sdk.session(f"thread {number}"):
            result = ask(client, messages=[{"role": "user", "content": f"thread {number}"}], stream=number % 2 == 0)
            if number % 2 == 0:
                list(result)

    async def task(client, number):
        async with sdk.session(f"task {number}"):
            await ask(client, messages=[{"role": "user", "content": f"task {number}"}])

    async def tasks():
        client = async_client(server)
        await asyncio.gather(*(task(client, number) for number in range(16)))
        await client.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(streamed, range(32)))
    asyncio.run(tasks())
    sessions = sessions_in(folder)
    assert len(sessions) == 48
    assert all([a.record.text for a in session.attempts] == [session.text] for session in sessions)


def test_cancelling_a_call_records_it(server, folder):
    async def run():
        gate = threading.Event()
        server.will(says("a", "b", gate=gate))
        client = async_client(server)

        async def read():
            async for chunk in await ask(client, stream=True):
                if chunk.choices[0].delta.content == "b":
                    started.set()

        started = asyncio.Event()
        running = asyncio.create_task(read())
        await started.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        gate.set()
        await client.close()

    asyncio.run(run())
    [attempt] = session_in(folder).attempts
    assert attempt.record.text == "ab"
    assert attempt.record.error.startswith("CancelledError")


def test_a_secret_that_is_split_over_chunks_is_not_written(server, client, folder):
    server.will(says("the key is ", TOKEN[:9], TOKEN[9:14], TOKEN[14:], " ok"))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in ask(client, stream=True))
    assert TOKEN in text
    written = "\n".join(lines_in(folder))
    assert "the key is" in written
    assert TOKEN[8:] not in written
    assert TOKEN[14:] not in written


def broken(*_, **__):
    raise RuntimeError("a bug of ours")


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (wrapper, "chat_messages"),
        (wrapper, "completion_answers"),
        (wrapper, "mapping"),
        (wrapper, "_Stream"),
        (wrapper, "_add_call"),
        (wrapper, "_await_results"),
        (wrapper, "_record_results"),
        (capture, "session"),
        (capture, "current"),
        (capture.Session, "attempt"),
        (capture.Session, "_begin"),
        (capture.Session, "__exit__"),
        (log, "write"),
    ],
)
@pytest.mark.filterwarnings("ignore:atlas.sdk:RuntimeWarning")
def test_a_bug_in_recording_never_reaches_the_caller(server, client, monkeypatch, owner, name):
    server.will(says("3"), says("a", "b"), Reply(calls=(("call_1", "add", "{}"),)), Reply(status=429))
    before = dropped()
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, broken)
        assert ask(client).choices[0].message.content == "3"
        assert "".join(chunk.choices[0].delta.content or "" for chunk in ask(client, stream=True)) == "ab"
        list(ask(client, stream=True))
        with pytest.raises(openai.RateLimitError):
            ask(client)
    if name != "_record_results":  # only called inside a session
        assert dropped() > before


@pytest.mark.filterwarnings("ignore:atlas.sdk:RuntimeWarning")
def test_an_answer_that_cannot_be_read_is_an_attempt_that_says_so(server, client, folder, monkeypatch):
    monkeypatch.setattr(wrapper, "completion_answers", broken)
    ask(client)
    [attempt] = session_in(folder).attempts
    assert attempt.record.error == "not captured: recording failed with RuntimeError"


def test_any_client_of_the_same_shape_is_recorded(folder):
    def create(*, model, messages, stream=False):
        message = types.SimpleNamespace(role="assistant", content="hello")
        answer = types.SimpleNamespace(model=model, choices=[types.SimpleNamespace(index=0, message=message)])
        pieces = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in ("he", "llo")]
        return (piece for piece in pieces) if stream else answer

    completions = types.SimpleNamespace(create=create)
    client = wrap(types.SimpleNamespace(chat=types.SimpleNamespace(completions=completions)))
    assert ask(client).choices[0].message.content == "hello"
    assert len(list(ask(client, stream=True))) == 2
    assert [session.end.answer for session in sessions_in(folder)] == ["hello", "hello"]


def test_messages_that_can_be_read_only_once_are_left_to_the_client(server, client, folder):
    server.will(says("3"))
    ask(client, messages=iter(ASK))
    assert [message["content"] for message in server.requests[0]["messages"]] == ["Be brief.", "1 + 2?"]
    [attempt] = session_in(folder).attempts
    assert (attempt.record.text, attempt.record.messages) == ("3", None)


def test_what_is_not_text_is_named_and_its_bytes_are_not_written(server, client, folder):
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    server.will(says("a cat"))
    ask(client, messages=[{"role": "user", "content": [{"type": "text", "text": "what is it?"}, picture]}])
    session = session_in(folder)
    assert session.record.task == "what is it?\n[image_url]"
    assert "base64" not in "".join(lines_in(folder))


class Closed:
    """A client whose methods cannot be replaced."""

    __slots__ = ("chat",)


@pytest.mark.parametrize("client", [None, 42, object(), Closed()])
def test_a_client_that_cannot_be_recorded_is_given_back_with_a_warning(client):
    with pytest.warns(RuntimeWarning, match=r"nothing of this .* is recorded"):
        assert wrap(client) is client


def test_importing_the_wrapper_imports_no_client():
    script = "import sys, atlas.sdk.openai; sys.exit('openai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0
