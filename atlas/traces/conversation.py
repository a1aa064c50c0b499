"""A session as a chat: what the agent was given before an attempt."""

import json
from collections.abc import Mapping
from typing import Any, Literal

from atlas.traces.records import AttemptRecord, InterventionRecord, Message
from atlas.traces.sessions import Attempt, Session, in_order

Kind = Literal["guidance", "critique", "tool_result"]
Turn = dict[str, Any]
"""`role` and `content`, and what a message about tools has besides, as chat templates take it."""


def task_turns(session: Session) -> list[Turn]:
    """The request alone."""
    task = session.record.task
    return [{"role": "user", "content": task}] if isinstance(task, str) else [_turn(message) for message in task]


def turns_before(session: Session, attempt: Attempt, roles: Mapping[Kind, str]) -> list[Turn]:
    """What the agent was given: the attempt's own `messages` where they were recorded, otherwise the task and all that
    was said before, with each kind of intervention in its role.

    An earlier attempt is in it only if something answered it: after one that nothing answered the agent began anew,
    as far as anybody knows. Neighbouring turns of the user become one, because many chat templates want it so.
    """
    if attempt.record.messages is not None:
        return [_turn(message) for message in attempt.record.messages]
    turns = task_turns(session)
    unsaid: dict[str, AttemptRecord] = {}
    for record in _said(session):
        if record.id == attempt.record.id:
            break
        if isinstance(record, AttemptRecord):
            unsaid[record.id] = record
            continue
        answered = unsaid.pop(record.parent or "", None)
        if answered is not None:
            turns.append(_attempt_turn(answered))
        _say(turns, _intervention_turn(record, roles[record.kind]))
    return turns


def _said(session: Session) -> list[AttemptRecord | InterventionRecord]:
    """Attempts and interventions as they happened."""
    attempts = [attempt.record for attempt in session.attempts]
    answers = [record for attempt in session.attempts for record in attempt.interventions]
    ordered = in_order([*attempts, *answers, *session.interventions])
    return [record for record in ordered if isinstance(record, AttemptRecord | InterventionRecord)]


def _say(turns: list[Turn], turn: Turn) -> None:
    if turns and turn["role"] == turns[-1]["role"] == "user":
        turns[-1] = turns[-1] | {"content": f"{turns[-1]['content']}\n\n{turn['content']}"}
    else:
        turns.append(turn)


def _attempt_turn(record: AttemptRecord) -> Turn:
    return _turn(Message(role="assistant", content=record.text, tool_calls=record.tool_calls))


def _intervention_turn(record: InterventionRecord, role: str) -> Turn:
    name = {"name": record.name} if role == "tool" and record.name else {}
    return {"role": role, "content": record.text} | name


def _turn(message: Message) -> Turn:
    turn = message.model_dump(exclude_none=True)
    if message.tool_calls:
        turn["tool_calls"] = [_call(call) for call in message.tool_calls]
    return turn


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    """The OpenAI protocol has the arguments as JSON in a string; chat templates write them as JSON themselves."""
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return dict(call)
    try:
        arguments = json.loads(function["arguments"])
    except ValueError:  # a model wrote it
        return dict(call)
    return {**call, "function": {**function, "arguments": arguments}}
