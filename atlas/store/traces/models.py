"""The tables of `traces.db`. `migrations/` must say the same: a test compares them.

Times are Unix times in seconds. `session` in the other tables is `SessionTable.number`.
"""

from typing import Any

from sqlalchemy import JSON, Column, Index
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

_WITHOUT_ROWID = {"sqlite_with_rowid": False}


class _Table(SQLModel, registry=registry()):
    """Base of these tables; those of runs are in another database."""


class SessionTable(_Table, table=True):
    """What lists and filters need of a session, written in the transaction of its records and out of them."""

    __tablename__ = "session"
    __table_args__ = (
        Index("ix_session_at", "at_seconds", "id"),
        Index("ix_session_status", "status", "at_seconds", "id"),
    )

    number: int | None = Field(default=None, primary_key=True)
    id: str = Field(unique=True)
    at_seconds: float | None = None
    """When it began. None: its session record has not come yet."""
    status: str = "unreviewed"
    agent: str | None = Field(default=None, index=True)
    passed: bool | None = None
    """`Session.passed()`."""
    ended_seconds: float | None = None
    end: str | None = None
    """Status of the end record."""
    records: int = 0
    attempts: int = 0
    interventions: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    parent: str | None = Field(default=None, index=True)
    """The session around it."""
    tags: list[str] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    models: list[str] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    outcomes: list[Any] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    """[scorer, score, passed] of the final outcomes."""
    task: str = ""
    """Last, because it may be long: SQLite reads the columns before it without it."""


class RecordTable(_Table, table=True):
    """One record, as the line that an export writes."""

    __tablename__ = "record"
    __table_args__ = (Index("ix_record_session", "session", "at_seconds", "number"),)

    number: int | None = Field(default=None, primary_key=True)
    """In the order of import."""
    id: str = Field(unique=True)
    session: int = Field(foreign_key="session.number", ondelete="CASCADE")
    at_seconds: float
    parent: str | None = None
    line: str


class TagTable(_Table, table=True):
    """Which sessions have a tag."""

    __tablename__ = "tag"
    __table_args__ = _WITHOUT_ROWID

    tag: str = Field(primary_key=True)
    session: int = Field(foreign_key="session.number", ondelete="CASCADE", primary_key=True, index=True)


class OutcomeTable(_Table, table=True):
    """Which sessions have a final outcome of a scorer, and whether it passed."""

    __tablename__ = "outcome"
    __table_args__ = _WITHOUT_ROWID

    scorer: str = Field(primary_key=True)
    session: int = Field(foreign_key="session.number", ondelete="CASCADE", primary_key=True, index=True)
    passed: bool | None = None


class ReviewTable(_Table, table=True):
    """One decision about a session; the newest holds."""

    __tablename__ = "review"

    number: int | None = Field(default=None, primary_key=True)
    session: int = Field(foreign_key="session.number", ondelete="CASCADE", index=True)
    at_seconds: float
    status: str
    by: str
    reason: str | None = None


class SourceTable(_Table, table=True):
    """A file that was imported, and how far."""

    __tablename__ = "source"

    number: int | None = Field(default=None, primary_key=True)
    path: str = Field(unique=True)
    offset_bytes: int = 0
    """How much of it is in the database."""
    newlines: int = 0
    """How many ends of lines are before `offset_bytes`."""
    fingerprint: str = ""
    """Of the beginning, and of what stands before `offset_bytes`: another one means another file."""


class ProblemTable(_Table, table=True):
    """What was wrong with a line of a file."""

    __tablename__ = "problem"
    __table_args__ = _WITHOUT_ROWID

    source: int = Field(foreign_key="source.number", ondelete="CASCADE", primary_key=True)
    line: int = Field(primary_key=True)
    what: str = Field(primary_key=True)
    taken: bool
    """The line is in the store all the same."""


METADATA: Any = _Table.metadata
"""All tables above; what the migrations must add up to."""
