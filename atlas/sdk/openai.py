"""Records the calls of a client that speaks the OpenAI protocol, without any other code: `client = wrap(client)`.

Needs no package. Recorded are `chat.completions` and `responses`, each by `create`, `parse` and `stream`, sync and
async, of this client and of those that `with_options` makes of it. Not recorded: other resources (the older
`completions`, `embeddings`, `beta`, ...), and what is behind `with_streaming_response` or a stream of
`with_raw_response`: of such a call there is an attempt whose `error` says so.
"""

import functools
import inspect
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from atlas.sdk import capture, log
from atlas.sdk.messages import (
    CALL_ITEMS,
    Answer,
    chat_messages,
    completion_answers,
    mapping,
    message_answer,
    response_answer,
    sequence,
    task_of,
    text_or_none,
)

Client = TypeVar("Client")

RESOURCES = ("chat.completions", "responses")
METHODS = ("create", "parse")  # `stream` calls `create`
COPIES = ("copy", "with_options")
RAW_HEADER = "x-stainless-raw-response"
OPEN_CALLS = 256
"""So many tool calls of a session may wait for their result; older ones are forgotten."""

_MARK = object()
_open_calls: "weakref.WeakKeyDictionary[capture.Session, dict[str, tuple[str, str]]]" = weakref.WeakKeyDictionary()
_lock = threading.RLock()


def wrap(client: Client) -> Client:
    """The same client, whose calls are recorded as attempts of the current session; without one, each call is a session
    of its own, whose task are its messages. Wrapping twice records once.

    Every choice of a call is an attempt; the tokens and the duration of the call stand with the first. A tool's
    message that answers a call of an earlier attempt of the same session is recorded as its result, once. A stream is
    recorded as one attempt when it ends, fails, or is closed or dropped; what of it had come is kept. Nothing that goes
    wrong in recording reaches the caller.
    """
    wrapped = [
        _replace(resource, method, _recorded)
        for path in RESOURCES
        if (resource := _resource(client, path)) is not None
        for method in METHODS
    ]
    for name in COPIES:
        _replace(client, name, _copied)
    if not any(wrapped):
        warnings.warn(
            f"atlas.sdk.openai: nothing of this {type(client).__name__} is recorded: expected a client whose "
            "chat.completions.create or responses.create can be replaced; record its calls with session.attempt()",
            RuntimeWarning,
            stacklevel=2,
        )
    return client


def _resource(client: object, path: str) -> object:
    found: object = client
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


def _replace(owner: object, name: str, by: Callable[[Callable[..., Any]], Callable[..., Any]]) -> bool:
    """Whether calls of this method are recorded from now on."""
    original = getattr(owner, name, None)
    if not callable(original):
        return False
    if getattr(original, "_atlas", None) is _MARK:
        return True
    replaced = by(original)
    replaced._atlas = _MARK  # type: ignore[attr-defined]
    try:
        setattr(owner, name, replaced)
    except (AttributeError, TypeError):
        return False
    return getattr(owner, name) is replaced


def _copied(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def copy(*args: Any, **kwargs: Any) -> Any:
        return wrap(original(*args, **kwargs))

    return copy


def _recorded(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        begun = _Call(kwargs)
        try:
            result = original(*args, **kwargs)
        except BaseException as error:
            begun.end(error)
            raise
        return _awaited(result, begun) if inspect.isawaitable(result) else begun.answered(result)

    return call


async def _awaited(result: Any, begun: "_Call") -> Any:
    try:
        found = await result
    except BaseException as error:
        begun.end(error)
        raise
    return begun.answered(found)


def _counted(method: Callable[..., Any]) -> Callable[..., Any]:
    """A step of recording: what goes wrong in it is counted, stands in the attempt, and goes no further."""

    @functools.wraps(method)
    def step(call: "_Call", *args: Any) -> Any:
        try:
            return method(call, *args)
        except Exception as error:
            call.problem = f"not captured: recording failed with {type(error).__name__}"
            log.drop(error, call.session.id if call.session else "")
            return None

    return step


@dataclass
class _Choice:
    """A choice of a stream, as far as it has come."""

    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: dict[object, dict[str, Any]] = field(default_factory=dict)
    finish_reason: str | None = None

    def answer(self) -> Answer:
        calls = [
            {**call, "function": {name: "".join(parts) for name, parts in call["function"].items()}}
            for call in self.calls.values()
        ]
        message = {"content": "".join(self.text), "tool_calls": calls, "reasoning": "".join(self.reasoning)}
        return message_answer(message, self.finish_reason)


class _Call:
    """One call, from before it is made until its attempts are written."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self.began_seconds = time.perf_counter()
        self.request = request
        self.messages: list[dict[str, Any]] | None = None
        self.session: capture.Session | None = None
        self.own = False
        self.answers: list[Answer] = []
        self.choices: dict[int, _Choice] = {}
        self.model: object = request.get("model")
        self.usage: Mapping[str, Any] = {}
        self.metadata: dict[str, Any] = {}
        self.problem: str | None = None
        self.process = os.getpid()
        self.ended = False
        self._begin()

    @_counted
    def _begin(self) -> None:
        asked = self.request.get("messages", self.request.get("input"))
        if isinstance(asked, str | list | tuple):
            instructions = self.request.get("instructions")
            first = [{"role": "system", "content": instructions}] if isinstance(instructions, str) else []
            self.messages = [*first, *chat_messages(asked)]
        self.session = capture.current()
        if self.session is None:
            self.own = True
            self.session = capture.session(task_of(self.messages or []))
            self.session._begin()
        else:
            _record_results(self.session, self.messages or [])

    def answered(self, result: Any) -> Any:
        """What the caller gets for `result`: the same, but for streams, which are handed on piece by piece."""
        handed = self._read(result)
        if handed is not None:
            return handed
        self.end()
        return result

    @_counted
    def _read(self, result: Any) -> Any:
        """Takes the answer, or returns the stream that is to be handed on."""
        headers = {str(name).lower(): value for name, value in mapping(self.request.get("extra_headers")).items()}
        raw = headers.get(RAW_HEADER)
        stream = self.request.get("stream") is True
        if raw is not None and (stream or raw != "true"):
            self.problem = "not captured: the response was asked for raw"
        elif not stream:
            self._take(mapping(result.parse() if raw is not None else result))
        elif hasattr(result, "__aiter__"):
            return _AsyncStream(result, self)
        elif hasattr(result, "__iter__"):
            return _Stream(result, self)
        return None

    @_counted
    def _take(self, answer: Mapping[str, Any]) -> None:
        """A whole answer: a chat completion, or a Response."""
        self.answers = [response_answer(answer)] if "output" in answer else completion_answers(answer)
        if failed := mapping(answer.get("error")):
            self.problem = str(failed.get("message") or "the server said error")
        self._take_usage(answer)

    def _take_usage(self, answer: Mapping[str, Any]) -> None:
        self.model = answer.get("model") or self.model
        self.usage = mapping(answer.get("usage")) or self.usage

    @_counted
    def add(self, chunk: object) -> None:
        """A piece of a stream."""
        piece = mapping(chunk)
        kind = piece.get("type")
        if isinstance(kind, str) and kind.startswith("response."):
            self._add_event(kind, piece)
            return
        self._take_usage(piece)
        for said in sequence(piece.get("choices")):
            choice = mapping(said)
            joined = self.choices.setdefault(int(choice.get("index") or 0), _Choice())
            joined.finish_reason = text_or_none(choice.get("finish_reason")) or joined.finish_reason
            delta = mapping(choice.get("delta"))
            joined.text += [text for key in ("content", "refusal") if isinstance(text := delta.get(key), str)]
            thought = delta.get("reasoning_content") or delta.get("reasoning")
            joined.reasoning += [thought] if isinstance(thought, str) else []
            for part in sequence(delta.get("tool_calls")):
                _add_call(joined.calls, mapping(part))

    def _add_event(self, kind: str, event: Mapping[str, Any]) -> None:
        joined = self.choices.setdefault(0, _Choice())
        if kind in ("response.output_text.delta", "response.refusal.delta"):
            joined.text.append(str(event.get("delta") or ""))
        elif kind == "response.output_item.done":
            item = mapping(event.get("item"))
            if item.get("type") in CALL_ITEMS:
                call_id = item.get("call_id")
                _add_call(joined.calls, {"index": call_id, "id": call_id, "function": item})
        elif kind in ("response.completed", "response.incomplete", "response.failed"):
            self._take(mapping(event.get("response")))

    def stop(self) -> None:
        """The stream was left before its end. Nothing, where it has ended."""
        if not self.ended and self.process == os.getpid():  # a forked child has a copy of what is its parent's
            self.metadata["incomplete"] = "the stream was left before its end"
            self.end()

    @_counted
    def end(self, error: BaseException | None = None) -> None:
        """Writes the attempts, once."""
        if self.ended or self.session is None:
            return
        self.ended = True
        answers = self.answers or [self.choices[place].answer() for place in sorted(self.choices)] or [Answer("", [])]
        said = self.problem if error is None else f"{type(error).__name__}: {error}"
        for place, answer in enumerate(answers):
            self._write(answer, place, len(answers), said)
        if self.own:
            self.session.__exit__(None if error is None else type(error), error, None)

    def _write(self, answer: Answer, place: int, choices: int, error: str | None) -> None:
        assert self.session is not None
        metadata = dict(self.metadata)
        if choices > 1:
            metadata |= {"choice": place, "choices": choices}
        metadata |= {"finish_reason": answer.finish_reason} if answer.finish_reason else {}
        metadata |= {"reasoning": answer.reasoning} if answer.reasoning else {}
        used = self.usage if place == 0 else {}
        made = self.session.attempt(
            answer.text,
            model=text_or_none(self.model),
            messages=self.messages,
            tool_calls=answer.tool_calls or None,
            input_tokens=used.get("prompt_tokens", used.get("input_tokens")),
            output_tokens=used.get("completion_tokens", used.get("output_tokens")),
            duration_seconds=time.perf_counter() - self.began_seconds if place == 0 else None,
            error=error,
            metadata=metadata or None,
        )
        _await_results(self.session, made, answer.tool_calls)


def _add_call(calls: dict[object, dict[str, Any]], part: Mapping[str, Any]) -> None:
    """A piece of a tool call: the first brings its id, and any may bring more of name and arguments."""
    call = calls.setdefault(part.get("index", len(calls)), {"function": {"name": [], "arguments": []}})
    if part.get("id"):
        call["id"] = part["id"]
    function = mapping(part.get("function"))
    for name in ("name", "arguments"):
        if isinstance(text := function.get(name), str):
            call["function"][name].append(text)


def _await_results(session: capture.Session, attempt: str, calls: list[dict[str, Any]]) -> None:
    with _lock:
        waiting = _open_calls.setdefault(session, {})
        for call in calls:
            if call.get("id"):
                waiting[call["id"]] = (attempt, call["function"]["name"])
        while len(waiting) > OPEN_CALLS:
            del waiting[next(iter(waiting))]


def _record_results(session: capture.Session, messages: list[dict[str, Any]]) -> None:
    with _lock:
        waiting = _open_calls.get(session, {})
        found = [(m, waiting.pop(m["tool_call_id"])) for m in messages if m.get("tool_call_id") in waiting]
    for message, (attempt, name) in found:
        session.intervene(
            message["content"],
            by="tool",
            kind="tool_result",
            name=name,
            answers=attempt,
            metadata={"tool_call_id": message["tool_call_id"]},
        )


class _Handed:
    """A stream that is handed on: to its user it is the stream itself, whose pieces are noted as they pass."""

    def __init__(self, stream: Any, call: _Call) -> None:
        self._stream = stream
        self._call = call
        self._pieces: Any = None
        weakref.finalize(self, call.stop)  # dropped, or still open when the process ends

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Stream(_Handed):
    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        try:
            self._pieces = self._pieces or iter(self._stream)
            chunk = next(self._pieces)
        except StopIteration:
            self._call.end()
            raise
        except BaseException as error:
            self._call.end(error)
            raise
        self._call.add(chunk)
        return chunk

    def __enter__(self) -> Any:
        self._stream.__enter__()
        return self

    def __exit__(self, *raised: Any) -> Any:
        try:
            return self._stream.__exit__(*raised)
        finally:
            self._call.stop()

    def close(self) -> Any:
        try:
            return self._stream.close()
        finally:
            self._call.stop()


class _AsyncStream(_Handed):
    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Any:
        try:
            self._pieces = self._pieces or aiter(self._stream)
            chunk = await anext(self._pieces)
        except StopAsyncIteration:
            self._call.end()
            raise
        except BaseException as error:
            self._call.end(error)
            raise
        self._call.add(chunk)
        return chunk

    async def __aenter__(self) -> Any:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *raised: Any) -> Any:
        try:
            return await self._stream.__aexit__(*raised)
        finally:
            self._call.stop()

    async def close(self) -> Any:
        try:
            return await self._stream.close()
        finally:
            self._call.stop()
