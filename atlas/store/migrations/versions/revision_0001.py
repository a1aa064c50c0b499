"""The first schema: runs, their events and specs, and what they measured."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "spec_snapshot",
        sa.Column("digest", sa.String(), primary_key=True),
        sa.Column("text", sa.String(), nullable=False),
    )
    op.create_table(
        "run",
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("id", sa.String(), nullable=False, unique=True),
        sa.Column("name", sa.String(), nullable=False, index=True),
        sa.Column("method", sa.String(), nullable=False),
        sa.Column("student", sa.String(), nullable=False),
        sa.Column("teacher", sa.String()),
        sa.Column("dataset", sa.String(), nullable=False),
        sa.Column("executor", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False, index=True),
        sa.Column("spec_digest", sa.String(), sa.ForeignKey("spec_snapshot.digest"), nullable=False),
        sa.Column("run_dir", sa.String(), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("notes", sa.String(), nullable=False),
        sa.Column("gpus_wanted", sa.Integer()),
        sa.Column("planned_steps", sa.Integer()),
        sa.Column("state", sa.String(), nullable=False, index=True),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("claimed_by", sa.String()),
        sa.Column("handle", sa.String()),
        sa.Column("gpus", sa.JSON(), nullable=False),
        sa.Column("reason", sa.String()),
        sa.Column("message", sa.String()),
        sa.Column("exit_code", sa.Integer()),
        sa.Column("created_seconds", sa.Float(), nullable=False),
        sa.Column("claimed_seconds", sa.Float()),
        sa.Column("started_seconds", sa.Float()),
        sa.Column("terminated_seconds", sa.Float()),
        sa.Column("ended_seconds", sa.Float()),
        sa.Column("step", sa.Integer()),
        sa.Column("phase", sa.String()),
        sa.Column("progress_step", sa.Integer()),
        sa.Column("progress_total", sa.Integer()),
        sa.Column("metrics_offset_bytes", sa.Integer(), nullable=False),
        sa.Column("samples_offset_bytes", sa.Integer(), nullable=False),
    )
    op.create_table(
        "event",
        sa.Column("number", sa.Integer(), primary_key=True),
        _run(index=True),
        sa.Column("at_seconds", sa.Float(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
    )
    op.create_table(
        "metric_key",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("name", sa.String(), nullable=False, unique=True),
    )
    op.create_table(
        "metric",
        _run(primary_key=True),
        sa.Column("key_id", sa.Integer(), sa.ForeignKey("metric_key.id"), primary_key=True),
        sa.Column("step", sa.Integer(), primary_key=True),
        sa.Column("value", sa.Float()),
        sa.Column("nonfinite", sa.String()),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "clock",
        _run(primary_key=True),
        sa.Column("step", sa.Integer(), primary_key=True),
        sa.Column("wall_seconds", sa.Float()),
        sa.Column("train_seconds", sa.Float()),
        sa.Column("gpu_seconds", sa.Float()),
        sa.Column("tokens_generated", sa.Float()),
        sa.Column("tokens_trained", sa.Float()),
        sa.Column("rollouts", sa.Float()),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "latest",
        _run(primary_key=True),
        sa.Column("key_id", sa.Integer(), sa.ForeignKey("metric_key.id"), primary_key=True),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("value", sa.Float()),
        sa.Column("nonfinite", sa.String()),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "sample",
        sa.Column("number", sa.Integer(), primary_key=True),
        _run(),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("split", sa.String(), nullable=False),
        sa.Column("problem_id", sa.String(), nullable=False),
        sa.Column("sample", sa.Integer(), nullable=False),
        sa.Column("completion", sa.String(), nullable=False),
        sa.Column("extracted", sa.String()),
        sa.Column("found", sa.Boolean(), nullable=False),
        sa.Column("correct", sa.Boolean(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("clipped", sa.Boolean(), nullable=False),
    )
    op.create_index("ix_sample_identity", "sample", ["run", "step", "split", "problem_id", "sample"], unique=True)


def _run(primary_key: bool = False, index: bool = False) -> sa.Column[int]:
    """The column that makes a row part of a run and lets it go with the run."""
    return sa.Column(
        "run",
        sa.Integer(),
        sa.ForeignKey("run.number", ondelete="CASCADE"),
        primary_key=primary_key,
        nullable=False,
        index=index,
    )
