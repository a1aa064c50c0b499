"""Any value an agent has becomes a line that the schema allows."""

import enum
import json
import math
from dataclasses import dataclass
from decimal import Decimal
from typing import get_args

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from atlas.sdk import fields
from atlas.sdk.fields import Refused, fit
from atlas.sdk.log import Log
from atlas.sdk.plain import ENCODER, MAX_DEPTH, plain, text
from atlas.traces.records import ADAPTER, AnyRecord, Message


class Broken:
    def __repr__(self):
        raise ValueError("no")

    __str__ = __repr__


class Shouted(str):
    def __str__(self):
        raise ValueError("no")

    encode = __str__


class Colour(enum.StrEnum):
    RED = "red"


@dataclass
class Point:
    x: float
    tags: list


class Model(BaseModel):
    name: str


def itself():
    made = {"a": 1}
    made["me"] = made
    return made


def deep(levels):
    made = "bottom"
    for _ in range(levels):
        made = [made]
    return made


@pytest.mark.parametrize(
    ("value", "made"),
    [
        ({1: "a", None: "b", (1, 2): "c"}, {"1": "a", "": "b", "[1,2]": "c"}),
        ({1: "a", "1": "b"}, {"1": "a", "1 (2)": "b"}),
        ((1, 2.5, True, None), [1, 2.5, True, None]),
        ({3}, [3]),
        (math.nan, "NaN"),
        (-math.inf, "-Infinity"),
        (2**63 - 1, 2**63 - 1),
        (2**63, "9223372036854775808"),
        pytest.param(10**5000, "integer of 16610 bits", id="huge"),
        (b"\xff\xfe", "base64, 2 bytes: //4="),
        (bytearray(b"text"), "text"),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (Decimal("0.25"), 0.25),
        (Colour.RED, "red"),
        (Point(1.0, ["a"]), {"x": 1.0, "tags": ["a"]}),
        (Model(name="m"), {"name": "m"}),
        pytest.param(Shouted("x"), "x", id="shouted"),
        (Broken(), "unserialisable Broken, repr failed: ValueError"),
        ([Broken], [f"unserialisable type, repr: {Broken!r}"]),
    ],
)
def test_values_become_json(value, made):
    assert plain(value) == made
    assert json.loads(ENCODER.encode(plain(value))) == made


def test_what_refers_to_itself_is_shown_by_its_repr():
    assert plain(itself()) == {"a": 1, "me": "unserialisable dict, repr: {'a': 1, 'me': {...}}"}


def test_the_same_value_twice_is_no_reference_to_itself():
    shared = [1]
    assert plain([shared, shared]) == [[1], [1]]


def test_deep_nesting_is_cut():
    assert f"nested deeper than {MAX_DEPTH}" in ENCODER.encode(plain(deep(10_000)))
    assert "bottom" in ENCODER.encode(plain(deep(MAX_DEPTH)))


@pytest.mark.parametrize(
    ("value", "made"),
    [("a", "a"), (None, ""), (["hf", "_x"], "hf_x"), ({"a": [1]}, '{"a":[1]}'), (7, "7"), (b"a", "a"), ([], "")],
)
def test_values_become_text(value, made):
    assert text(value) == made


def test_writer_and_schema_know_the_same_fields():
    known = {model.model_fields["type"].default: set(model.model_fields) for model in get_args(AnyRecord)}
    written = {name: {*allowed, "metadata"} for name, (allowed, _) in fields._OF_TYPE.items()}
    assert written == {name: names for name, names in known.items() if name != "review"}
    required = {
        model.model_fields["type"].default: {name for name, field in model.model_fields.items() if field.is_required()}
        for model in get_args(AnyRecord)
    }
    for name, (_, needed) in fields._OF_TYPE.items():
        assert set(needed) == required[name] - {"id", "at_seconds"}  # which the log fills in


def test_what_a_field_cannot_hold_goes_into_metadata():
    made = fit(
        {
            "type": "attempt",
            "session": "s",
            "text": "t",
            "input_tokens": -1,
            "cost_usd": "cheap",
            "duration_seconds": math.nan,
            "tool_calls": "none",
            "temperature": 0.5,
            "output_tokens": 3.0,
            "metadata": {"temperature": 1},
        }
    )
    assert made["output_tokens"] == 3 and made.keys() == {"type", "session", "text", "output_tokens", "metadata"}
    assert made["metadata"] == {
        "temperature": 1,
        "input_tokens": -1,
        "cost_usd": "cheap",
        "duration_seconds": "NaN",
        "tool_calls": "none",
        "temperature (2)": 0.5,
    }


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"type": "review", "session": "s"}, "type must be one of session, attempt, intervention, outcome, end"),
        ({"type": "attempt", "text": "t"}, "attempt.session is missing"),
        ({"type": "outcome", "session": "s", "scorer": ""}, "outcome.scorer must be a text that is not empty"),
        ({"type": "end", "session": "s", "status": "passed"}, "end.status must be one of completed, failed"),
        ({"type": "intervention", "session": "s", "by": "me"}, "intervention.by must be one of teacher"),
    ],
)  # fmt: skip
def test_records_that_cannot_fit_are_refused(record, said):
    with pytest.raises(Refused, match=said):
        fit(record)


def test_numpy_verdicts_are_taken():
    record = {"type": "outcome", "session": "s", "scorer": "x", "score": np.float32(0.5), "passed": np.bool_(False)}
    assert fit(record) == {**record, "score": 0.5, "passed": False}


def test_messages_of_the_openai_protocol_become_the_schemas():
    parts = [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": "x"}}]
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None, "refusal": None, "tool_calls": [{"id": "1", "function": {"name": "f"}}]},
    ]
    made = fit({"type": "attempt", "session": "s", "text": "", "messages": messages})["messages"]
    assert [Message.model_validate(message).role for message in made] == ["system", "user", "assistant"]
    assert "Look" in made[1]["content"] and made[2]["content"] == ""


def test_a_task_that_is_no_chat_becomes_text():
    assert fit({"type": "session", "session": "s", "task": ["solve ", "this"]})["task"] == "solve this"
    assert fit({"type": "session", "session": "s", "task": {"sum": [1, 2]}})["task"] == '{"sum":[1,2]}'


ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.text(st.characters(categories=["Cs", "L", "Cc"]))
    | st.binary(max_size=20)
    | st.sampled_from([Shouted("x"), itself(), deep(200), 10**400, object(), Point(1, []), np.float64("nan")]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers() | st.none() | st.booleans(), inner, max_size=4)
    ),
    max_leaves=8,
)
LIKELY = {"kind": "critique", "by": "rule", "status": "failed", "scorer": "answer", "task": "t", "text": "x"}


@given(
    st.sampled_from(list(fields._OF_TYPE)), st.dictionaries(st.sampled_from([*fields._FIELDS, "metadata", "new"]), ODD)
)
@example("attempt", {"text": "\ud800 half", "metadata": {"\udfff": "\ud83d\ude00"}})
@example("attempt", {"messages": [{"role": "user", "content": "x", "tool_calls": None, "name": None}]})
@example("outcome", {"score": True, "passed": "no"})
@settings(max_examples=300, deadline=None)
def test_every_line_is_one_of_the_schema_whatever_the_values(kind, odd):
    record = {**LIKELY, **odd, "type": kind, "session": "s"}
    try:
        body, _ = Log()._body(record)
    except Refused:
        return
    assert b"\n" not in body
    assert ADAPTER.validate_json(body).type == kind
