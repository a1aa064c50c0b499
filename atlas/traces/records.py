"""The line schema of traces, version 1: one JSON object a line, append-only. `docs/traces.md` explains it to users.

`atlas.sdk` writes these lines with the standard library alone; a test holds the two together. `at_seconds` is Unix
time; `monotonic_seconds` compares only inside one `process`.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from atlas.sdk.schema import VERSION

Role = Literal["system", "user", "assistant", "tool"]
Status = Literal["unreviewed", "approved", "quarantined"]


class Line(BaseModel):
    """Base of what is in a line. Unknown keys are errors: what is not in the schema belongs into `metadata`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class Message(Line):
    """One turn of a chat."""

    role: Role
    content: str
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    """As the OpenAI protocol has them."""
    tool_call_id: str | None = None


class Record(Line):
    """What every record carries. A field that is not known is left out of the line."""

    schema_version: Literal[1] = VERSION
    id: str = Field(min_length=1, max_length=200)
    """Unique among all records."""
    session: str = Field(min_length=1, max_length=200)
    """The session it belongs to; of a session itself its own id."""
    parent: str | None = Field(None, max_length=200)
    """What it follows from: of a session the session around it, of an attempt the intervention it reacts to, of an
    intervention the attempt it answers, of an outcome the attempt it measures."""
    at_seconds: float
    monotonic_seconds: float | None = None
    process: str | None = None
    """Host, process and its start: `host:pid:start`."""
    sequence: int | None = Field(None, ge=0)
    """Rises with every record of a process."""
    model: str | None = None
    """What wrote the text, with its version."""
    prompt_version: str | None = None
    input_tokens: int | None = Field(None, ge=0)
    output_tokens: int | None = Field(None, ge=0)
    cost_usd: float | None = Field(None, ge=0)
    metadata: dict[str, Any] = {}
    """Whatever else is known."""


class SessionRecord(Record):
    """A task was begun."""

    type: Literal["session"] = "session"
    task: str | list[Message]
    """The request: a text, or chat messages that end with the user's."""
    agent: str | None = None
    tags: list[str] = []
    sdk_version: str | None = None
    redaction: str | None = None
    """Which redaction the text of this session went through."""


class AttemptRecord(Record):
    """What the student agent tried."""

    type: Literal["attempt"] = "attempt"
    text: str
    messages: list[Message] | None = None
    """All that the model was given, where it is known."""
    tool_calls: list[dict[str, Any]] | None = None
    """Calls that the text is accompanied by, as the OpenAI protocol has them."""
    duration_seconds: float | None = None
    error: str | None = None


class InterventionRecord(Record):
    """What somebody or something told the agent about an attempt (`parent`)."""

    type: Literal["intervention"] = "intervention"
    kind: Literal["guidance", "critique", "tool_result"]
    by: Literal["teacher", "human", "rule", "tool"]
    name: str | None = None
    """Which model, person, rule or tool."""
    text: str
    duration_seconds: float | None = None
    error: str | None = None


class OutcomeRecord(Record):
    """A measurement, made after the attempt (`parent`) that it measures; without a parent, after all before it."""

    type: Literal["outcome"] = "outcome"
    scorer: str = Field(min_length=1)
    """The name of what measured. `answer` and `exact_match` can be measured again by Atlas (`atlas.traces.scorers`)."""
    score: float | None = None
    """None: the scorer could not say. Never 0 for that."""
    passed: bool | None = None
    reference: str | None = None
    """What the scorer compared with, such as the gold answer."""
    note: str | None = None


class EndRecord(Record):
    """A session was left."""

    type: Literal["end"] = "end"
    status: Literal["completed", "failed"]
    answer: str | None = None
    """The agent's final answer."""
    error: str | None = None
    """The exception that ended it."""
    dropped: int = Field(0, ge=0)
    """Events of this session that could not be written."""


class ReviewRecord(Record):
    """Somebody's decision about a session. Only in exports of the store: an import does not take reviews over."""

    type: Literal["review"] = "review"
    status: Status
    by: str
    reason: str | None = None


AnyRecord = SessionRecord | AttemptRecord | InterventionRecord | OutcomeRecord | EndRecord | ReviewRecord
ADAPTER: TypeAdapter[AnyRecord] = TypeAdapter(Annotated[AnyRecord, Field(discriminator="type")])
