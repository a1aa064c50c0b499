"""Sessions and what happens in them, as the agent tells it. Nothing here raises into the agent."""

import functools
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import ContextVar, Token
from os import PathLike
from types import TracebackType
from typing import Any, Concatenate, Literal, ParamSpec, Self, TypeVar, cast, overload

from atlas import __version__
from atlas.sdk import log
from atlas.sdk.fields import Refused

LOST = "lost"
"""The id of an event that could not even be made."""

Kind = Literal["guidance", "critique", "tool_result"]
By = Literal["teacher", "human", "rule", "tool"]
Messages = Sequence[Any]
P = ParamSpec("P")
R = TypeVar("R")

_current: ContextVar["Session | None"] = ContextVar("atlas.sdk.session", default=None)
_agent: str | None = None


def current() -> "Session | None":
    """The innermost open session of this context (task, thread), or None."""
    return _current.get()


def _fails_open(method: Callable[Concatenate["Session", P], R]) -> Callable[Concatenate["Session", P], R]:
    """What goes wrong in a method, a call with wrong arguments included, is counted and not raised."""

    @functools.wraps(method)
    def guarded(self: "Session", /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            _drop(error, self.id)
            return cast(R, LOST)

    return guarded


def _drop(error: Exception, session_id: str) -> None:
    """Counts what a guarded call raised. An error of the call itself, not of what it ran, is about its arguments: the
    message names them and no value."""
    called_wrongly = isinstance(error, TypeError) and error.__traceback__ and error.__traceback__.tb_next is None
    log.drop(Refused(str(error)) if called_wrongly else error, session_id)


class Session:
    """One task, from request to final answer; `session` makes one. Use it in `with` or `async with`: that makes it the
    current one, and writes its end. An event of a session that was not entered begins it."""

    def __init__(self, session_id: str, record: dict[str, Any]) -> None:
        self.id = session_id
        self._record = {**record, "type": "session", "session": session_id}
        self._begun = False
        self._token: Token[Session | None] | None = None
        self._attempt: str | None = None
        self._intervention: str | None = None
        self._last_text: object = None
        self._answer: object = None

    @_fails_open
    def attempt(
        self,
        text: str,
        *,
        model: str | None = None,
        prompt_version: str | None = None,
        messages: Messages | None = None,
        tool_calls: Sequence[Any] | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cost_usd: float | None = None,
        duration_seconds: float | None = None,
        error: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> str:
        """What the student agent tried, with all that it was given (`messages`). Returns the id. The attempt follows
        from the newest intervention since the one before it."""
        parent = self._intervention
        made = self._attempt = log.new_id()
        self._intervention, self._last_text = None, text
        return self._write(
            "attempt",
            made,
            parent=parent,
            text=text,
            model=model,
            prompt_version=prompt_version,
            messages=messages,
            tool_calls=tool_calls,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cost_usd=cost_usd,
            duration_seconds=duration_seconds,
            error=error,
            metadata=metadata,
        )

    @_fails_open
    def intervene(
        self,
        text: str,
        *,
        by: By,
        kind: Kind = "guidance",
        name: str | None = None,
        answers: str | None = None,
        model: str | None = None,
        prompt_version: str | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cost_usd: float | None = None,
        duration_seconds: float | None = None,
        error: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> str:
        """What somebody or something (`by`, with its `name`) told the agent about an attempt: the one whose id is
        `answers`, by default the latest. Returns the id."""
        made = self._intervention = log.new_id()
        return self._write(
            "intervention",
            made,
            parent=answers or self._attempt,
            kind=kind,
            by=by,
            name=name,
            text=text,
            model=model,
            prompt_version=prompt_version,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cost_usd=cost_usd,
            duration_seconds=duration_seconds,
            error=error,
            metadata=metadata,
        )

    @_fails_open
    def outcome(
        self,
        scorer: str,
        score: float | None = None,
        *,
        passed: bool | None = None,
        reference: str | None = None,
        attempt: str | None = None,
        note: str | None = None,
        model: str | None = None,
        prompt_version: str | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cost_usd: float | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> str:
        """What a scorer measured of an attempt, by default the latest. A score of None could not be measured, which is
        not 0. A score of exactly 0 or 1 says whether it passed, unless `passed` does. `model` is the judge, if it was
        one. Returns the id."""
        if passed is None and score is not None and score in (0, 1):
            passed = bool(score)
        return self._write(
            "outcome",
            log.new_id(),
            parent=attempt or self._attempt,
            scorer=scorer,
            score=score,
            passed=passed,
            reference=reference,
            note=note,
            model=model,
            prompt_version=prompt_version,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cost_usd=cost_usd,
            metadata=metadata,
        )

    @_fails_open
    def answer(self, text: str) -> None:
        """The final answer. Without this call it is the text of the latest attempt, unless an exception ends it all."""
        self._answer = text

    def __enter__(self) -> Self:
        self._enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(error)

    @_fails_open
    def _enter(self) -> None:
        outer = _current.get()
        self._token = _current.set(self)
        self._record["parent"] = outer.id if outer else None
        self._begin()

    @_fails_open
    def _leave(self, error: BaseException | None) -> None:
        if self._token is not None:
            with suppress(ValueError):  # left in another context, such as another thread: it is not current there
                _current.reset(self._token)
        if error is None:
            answer = self._last_text if self._answer is None else self._answer
            self._write("end", log.new_id(), status="completed", answer=answer)
        else:
            self._write("end", log.new_id(), status="failed", answer=self._answer, error=_said(error))

    def _begin(self) -> None:
        """Writes the session's own record. Where that fails, the next event tries again."""
        if self._begun:
            return
        self._begun = log.write(self._record)
        self._record.setdefault("at_seconds", time.time())

    def _write(self, record_type: str, event_id: str, **fields: Any) -> str:
        self._begin()
        if not self._begun:
            raise Refused("its session is not in the file")
        log.write({"type": record_type, "session": self.id, "id": event_id, **fields})
        return event_id


def _said(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception as broken:
        return f"{type(error).__name__}: its text failed with {type(broken).__name__}"


def session(
    task: str | Messages,
    *,
    agent: str | None = None,
    tags: Sequence[str] = (),
    model: str | None = None,
    prompt_version: str | None = None,
    metadata: dict[str, Any] | None = None,
) -> Session:
    """A session for this task: a text, or chat messages that end with the user's. Entered inside another session, it
    is a part of that."""
    return Session(
        log.new_id(),
        {
            "task": task,
            "agent": agent or _agent,
            "tags": tags,
            "model": model,
            "prompt_version": prompt_version,
            "sdk_version": __version__,
            "metadata": metadata,
        },
    )


def _session_fails_open(make: Callable[P, Session]) -> Callable[P, Session]:
    @functools.wraps(make)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> Session:
        try:
            return make(*args, **kwargs)
        except Exception as error:
            _drop(error, LOST)
            return Session(LOST, {})

    return guarded


session = _session_fails_open(session)


@overload
def traced(function: Callable[P, R]) -> Callable[P, R]: ...
@overload
def traced(
    *,
    task: Callable[..., str | Messages] | None = None,
    agent: str | None = None,
    tags: Sequence[str] = (),
    metadata: dict[str, Any] | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def traced(
    function: Callable[..., Any] | None = None,
    *,
    task: Callable[..., str | Messages] | None = None,
    agent: str | None = None,
    tags: Sequence[str] = (),
    metadata: dict[str, Any] | None = None,
) -> Any:
    """Makes every call of a function, sync or async, a session. The task is the first argument (after `self`), or what
    `task` makes of all arguments. A text that is returned is the answer; an exception passes through and ends the
    session as failed."""
    if function is None:
        return functools.partial(traced, task=task, agent=agent, tags=tags, metadata=metadata)
    import inspect  # takes longer to import than all of capture

    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        log.drop(Refused("traced cannot tell when a generator ends; use atlas.sdk.session inside it"), LOST)
        return function
    find_task = task or _first_argument(inspect.signature(function).parameters)

    def begin(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Session:
        try:
            said = find_task(*args, **kwargs)
        except Exception as error:
            said = f"unknown: `task` failed with {type(error).__name__}"
        return session(said, agent=agent, tags=tags, metadata=metadata)

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            with begin(args, kwargs) as made:
                result = await function(*args, **kwargs)
                if isinstance(result, str):
                    made.answer(result)
                return result

        return awaited

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        with begin(args, kwargs) as made:
            result = function(*args, **kwargs)
            if isinstance(result, str):
                made.answer(result)
            return result

    return called


def _first_argument(parameters: Sequence[str] | Any) -> Callable[..., Any]:
    names = list(parameters)
    place = 1 if names[:1] in (["self"], ["cls"]) else 0

    def find(*args: Any, **kwargs: Any) -> Any:
        if len(args) > place:
            return args[place]
        return kwargs.get(names[place], "") if len(names) > place else ""

    return find


def configure(
    folder: str | PathLike[str] | None = None, agent: str | None = None, patterns: Sequence[str] = ()
) -> None:
    """Where lines go, the agent's name for sessions that give none, and regular expressions of what else must not be
    written. What is left out is as if nothing had been configured. Never raises: with a pattern that cannot be used,
    capture is off and says so."""
    global _agent
    _agent = agent
    log.configure(folder, patterns)
