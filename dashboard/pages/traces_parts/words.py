"""What is said of records: moments, amounts, verdicts; knows nothing of Streamlit."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from atlas.traces.records import AnyRecord, AttemptRecord, InterventionRecord, OutcomeRecord

VERDICTS = {True: "passed", False: "failed", None: "unscored"}


def moment(at_seconds: float) -> str:
    """In local time; a time that no calendar has is its number."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_seconds))
    except (OverflowError, ValueError, OSError):
        return f"{at_seconds:g}"


def facts(record: AnyRecord) -> list[str]:
    """`tiny-1`, `120 + 30 tokens`, `took 0.5 s`, `$0.0012`: who wrote it and what it cost, as far as it is known."""
    found = [record.model] if record.model else []
    if record.prompt_version:
        found.append(f"prompt {record.prompt_version}")
    if given_and_written := tokens(record.input_tokens, record.output_tokens):
        found.append(f"{given_and_written} tokens")
    if isinstance(record, AttemptRecord | InterventionRecord) and record.duration_seconds is not None:
        found.append(f"took {record.duration_seconds:.3g} s")
    if record.cost_usd is not None:
        found.append(cost(record.cost_usd))
    return found


def tokens(given: int | None, written: int | None) -> str:
    """`1,200 + 30`: given and written; empty where neither is known."""
    if given is None and written is None:
        return ""
    return " + ".join("?" if count is None else f"{count:,}" for count in (given, written))


def cost(usd: float) -> str:
    """`$0.0012`"""
    return f"${usd:.4f}"


def verdict(outcome: OutcomeRecord) -> str:
    """What one measurement says. A score without a verdict is neither passed nor failed."""
    if outcome.passed is None and outcome.score is not None:
        return "no verdict"
    return VERDICTS[outcome.passed]


def kind(intervention: InterventionRecord) -> str:
    """`critique by teacher gpt-x`"""
    who = f" {intervention.name}" if intervention.name else ""
    return f"{intervention.kind.replace('_', ' ')} by {intervention.by}{who}"


def calls(tool_calls: Sequence[Mapping[str, Any]]) -> str:
    """`add({"a": 1})`, one a line; a call that is not as the OpenAI protocol has it is its JSON."""
    return "\n".join(map(_call, tool_calls))


def _call(call: Mapping[str, Any]) -> str:
    function = call.get("function")
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        return json.dumps(call, ensure_ascii=False)
    arguments = function.get("arguments", "")
    said = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return f"{function['name']}({said})"
