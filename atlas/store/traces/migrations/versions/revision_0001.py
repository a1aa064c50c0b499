"""The first schema: sessions, their records and reviews, and the files that they came from."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "session",
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("id", sa.String(), nullable=False, unique=True),
        sa.Column("at_seconds", sa.Float()),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("agent", sa.String(), index=True),
        sa.Column("passed", sa.Boolean()),
        sa.Column("ended_seconds", sa.Float()),
        sa.Column("end", sa.String()),
        sa.Column("records", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("interventions", sa.Integer(), nullable=False),
        sa.Column("input_tokens", sa.Integer()),
        sa.Column("output_tokens", sa.Integer()),
        sa.Column("cost_usd", sa.Float()),
        sa.Column("parent", sa.String(), index=True),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("models", sa.JSON(), nullable=False),
        sa.Column("outcomes", sa.JSON(), nullable=False),
        sa.Column("task", sa.String(), nullable=False),
    )
    op.create_index("ix_session_at", "session", ["at_seconds", "id"])
    op.create_index("ix_session_status", "session", ["status", "at_seconds", "id"])
    op.create_table(
        "record",
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("id", sa.String(), nullable=False, unique=True),
        _session(),
        sa.Column("at_seconds", sa.Float(), nullable=False),
        sa.Column("parent", sa.String()),
        sa.Column("line", sa.String(), nullable=False),
    )
    op.create_index("ix_record_session", "record", ["session", "at_seconds", "number"])
    op.create_table(
        "tag",
        sa.Column("tag", sa.String(), primary_key=True),
        _session(primary_key=True, index=True),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "outcome",
        sa.Column("scorer", sa.String(), primary_key=True),
        _session(primary_key=True, index=True),
        sa.Column("passed", sa.Boolean()),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "review",
        sa.Column("number", sa.Integer(), primary_key=True),
        _session(index=True),
        sa.Column("at_seconds", sa.Float(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("reason", sa.String()),
    )
    op.create_table(
        "source",
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("path", sa.String(), nullable=False, unique=True),
        sa.Column("offset_bytes", sa.Integer(), nullable=False),
        sa.Column("newlines", sa.Integer(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
    )
    op.create_table(
        "problem",
        sa.Column("source", sa.Integer(), sa.ForeignKey("source.number", ondelete="CASCADE"), primary_key=True),
        sa.Column("line", sa.Integer(), primary_key=True),
        sa.Column("what", sa.String(), primary_key=True),
        sa.Column("taken", sa.Boolean(), nullable=False),
        sqlite_with_rowid=False,
    )


def _session(primary_key: bool = False, index: bool = False) -> sa.Column[int]:
    """The column that makes a row part of a session."""
    return sa.Column(
        "session",
        sa.Integer(),
        sa.ForeignKey("session.number", ondelete="CASCADE"),
        primary_key=primary_key,
        nullable=False,
        index=index,
    )
