"""Sessions and what happens in them, as the agent tells it. Nothing here raises into the agent."""

import functools
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar, Token
from os import PathLike
from types import TracebackType
from typing import Any, Literal, ParamSpec, Self, TypeVar, cast

from atlas import __version__
from atlas.sdk import log

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


class Session:
    """One task, from request to final answer. Use as `with` or `async with`."""

    def __init__(self, record: dict[str, Any]) -> None:
        self.id = log.new_id()
        self._record = {**record, "type": "session", "session": self.id}
        self._begun = False
        self._token: Token[Session | None] | None = None
        self._attempt: str | None = None
        self._intervention: str | None = None
        self._answer: object = None
        self._last_text: object = None

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
        """What the student agent tried. Returns the attempt's id. It follows from the newest intervention since the
        attempt before it."""
        fields = {key: value for key, value in locals().items() if key != "self"}
        made = self._write("attempt", {**fields, "parent": self._intervention})
        self._attempt, self._intervention, self._last_text = made, None, text
        return made

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
        """What somebody or something told the agent about an attempt: `answers`, by default the latest."""
        fields = {key: value for key, value in locals().items() if key not in ("self", "answers")}
        made = self._write("intervention", {**fields, "parent": answers or self._attempt})
        self._intervention = made
        return made

    def outcome(
        self,
        scorer: str,
        score: float | None = None,
        *,
        passed: bool | None = None,
        reference: str | None = None,
        attempt: str | None = None,
        note: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> str:
        """A measurement of an attempt, by default the latest. A score of None could not be made, which is not 0. A
        score of exactly 0 or 1 says whether it has passed, unless `passed` does."""
        if passed is None and score is not None and score in (0, 1):
            passed = bool(score)
        fields = {key: value for key, value in locals().items() if key not in ("self", "attempt")}
        return self._write("outcome", {**fields, "parent": attempt or self._attempt})

    def answer(self, text: str) -> None:
        """The final answer; without this call it is the text of the latest attempt."""
        self._answer = text

    def __enter__(self) -> Self:
        outer = _current.get()
        self._record["parent"] = outer.id if outer else None
        self._begin()
        self._token = _current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            _current.reset(self._token)
        answer = self._answer if self._answer is not None or kind else self._last_text
        said = None if kind is None else f"{kind.__name__}: {error}"
        self._write("end", {"status": "failed" if kind else "completed", "answer": answer, "error": said})

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def _begin(self) -> None:
        self._begun = self._begun or log.write(self._record)
        self._record.setdefault("at_seconds", time.time())

    def _write(self, kind: str, fields: dict[str, Any]) -> str:
        self._begin()
        made = log.new_id()
        log.write({"type": kind, "session": self.id, "id": made, **fields})
        return made


def session(
    task: str | Messages,
    *,
    agent: str | None = None,
    tags: Sequence[str] = (),
    model: str | None = None,
    prompt_version: str | None = None,
    metadata: dict[str, Any] | None = None,
) -> Session:
    """A session for this task (a text, or chat messages). Inside another one it is a part of that."""
    return Session(
        {
            "task": task,
            "agent": agent or _agent,
            "tags": list(tags),
            "model": model,
            "prompt_version": prompt_version,
            "sdk_version": __version__,
            "metadata": metadata,
        }
    )


def traced(
    function: Callable[P, R] | None = None,
    *,
    task: Callable[..., str | Messages] | None = None,
    agent: str | None = None,
    tags: Sequence[str] = (),
    metadata: dict[str, Any] | None = None,
) -> Any:
    """Makes every call of a function, sync or async, a session. The task is the first argument, or what `task` makes
    of the arguments; a returned text is the answer."""
    if function is None:
        return functools.partial(traced, task=task, agent=agent, tags=tags, metadata=metadata)

    def begin(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Session:
        said = task(*args, **kwargs) if task else next(iter((*args, *kwargs.values())), "")
        return session(said, agent=agent, tags=tags, metadata=metadata)

    def answer(made: Session, result: object) -> None:
        if isinstance(result, str):
            made.answer(result)

    import inspect

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            with begin(args, kwargs) as made:
                result = await cast(Callable[..., Awaitable[Any]], function)(*args, **kwargs)
                answer(made, result)
                return result

        return awaited

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        with begin(args, kwargs) as made:
            result = function(*args, **kwargs)
            answer(made, result)
            return result

    return called


def configure(
    folder: str | PathLike[str] | None = None, agent: str | None = None, patterns: Sequence[str] = ()
) -> None:
    """Where lines go, the name of the agent, and regular expressions of what else must not be written. Optional."""
    global _agent
    _agent = agent
    log._log.configure(folder, patterns)
