"""The tables. `migrations/` must say the same: a test compares them.

Times are Unix times in seconds. `run` in the other tables is `RunRecord.number`: an integer keeps metric rows small.
"""

from typing import Any

from sqlalchemy import JSON, Column, Index
from sqlmodel import Field, SQLModel

_WITHOUT_ROWID = {"sqlite_with_rowid": False}


class SpecSnapshot(SQLModel, table=True):
    """A resolved job, stored once for all runs of it."""

    __tablename__ = "spec_snapshot"

    digest: str = Field(primary_key=True)
    """sha256 of `text`."""
    text: str
    """The job as JSON."""


class RunRecord(SQLModel, table=True):
    """One run: what was asked for, where it stands, who holds it."""

    __tablename__ = "run"

    number: int | None = Field(default=None, primary_key=True)
    """What the other tables call this run."""
    id: str = Field(unique=True)
    name: str = Field(index=True)
    method: str
    student: str
    teacher: str | None = None
    dataset: str
    executor: str
    digest: str = Field(index=True)
    """`JobSpec.digest()`: equal for jobs that must have the same outcome."""
    spec_digest: str = Field(foreign_key="spec_snapshot.digest")
    run_dir: str
    tags: list[str] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    notes: str = ""
    gpus_wanted: int | None = None
    """GPUs that the job asks for. None: whatever the machine has."""
    planned_steps: int | None = None
    """Optimizer steps at which the run is complete. None: the worker finds out."""

    state: str = Field(default="queued", index=True)
    """One of `atlas.store.STATES`."""
    fence: int = 0
    """Rises with every claim and every return to the queue; who holds an older number may not write."""
    cancel_requested: bool = False
    claimed_by: str | None = None
    handle: str | None = None
    """The executor's name for the worker."""
    gpus: list[int] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    """GPUs that the run was given."""
    reason: str | None = None
    """Why it ended, as one of `atlas.errors.REASONS`."""
    message: str | None = None
    exit_code: int | None = None
    created_seconds: float
    claimed_seconds: float | None = None
    started_seconds: float | None = None
    terminated_seconds: float | None = None
    """When the worker was told to stop (TERM)."""
    ended_seconds: float | None = None

    step: int | None = None
    """Newest step with a metric."""
    phase: str | None = None
    """What the worker is doing; `progress_step` of `progress_total` counts inside that phase."""
    progress_step: int | None = None
    progress_total: int | None = None
    metrics_offset_bytes: int = 0
    """How much of metrics.jsonl is in the database."""
    samples_offset_bytes: int = 0
    """How much of samples.jsonl is in the database."""
    metrics_rewrites: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    """Rises when metrics or clocks are deleted or may have changed in a block before that of `step`: who follows a run
    from the block of `step` on has to begin again."""


class EventRecord(SQLModel, table=True):
    """Something that happened to a run: a state (`kind` is its name), or `worker:*`, `ingest:*`, ..."""

    __tablename__ = "event"

    number: int | None = Field(default=None, primary_key=True)
    run: int = Field(foreign_key="run.number", ondelete="CASCADE", index=True)
    at_seconds: float
    """When the store learnt of it."""
    kind: str
    message: str = ""


class MetricKey(SQLModel, table=True):
    """The name of a metric."""

    __tablename__ = "metric_key"

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)


class Metric(SQLModel, table=True):
    """One measured number. SQLite has no NaN: then `value` is NULL and `nonfinite` says which it was."""

    __tablename__ = "metric"
    __table_args__ = _WITHOUT_ROWID

    run: int = Field(foreign_key="run.number", ondelete="CASCADE", primary_key=True)
    key_id: int = Field(foreign_key="metric_key.id", primary_key=True)
    step: int = Field(primary_key=True)
    value: float | None = None
    nonfinite: str | None = None
    """`NaN`, `Infinity` or `-Infinity`."""


class MetricBlock(SQLModel, table=True):
    """What the rows of one metric say in one block of steps (`atlas.store.blocks`)."""

    __tablename__ = "metric_block"
    __table_args__ = _WITHOUT_ROWID

    run: int = Field(foreign_key="run.number", ondelete="CASCADE", primary_key=True)
    key_id: int = Field(foreign_key="metric_key.id", primary_key=True)
    block: int = Field(primary_key=True)
    count: int
    """How many values are finite; of these are all columns below, NULL if there are none."""
    nonfinite: int
    """How many are not."""
    total: float | None = None
    """NULL also where the sum is not a number."""
    low: float | None = None
    low_step: int | None = None
    """The first step with the value `low`."""
    high: float | None = None
    high_step: int | None = None


class ClockRow(SQLModel, table=True):
    """The clocks (`atlas.run.CLOCKS`) at a step."""

    __tablename__ = "clock"
    __table_args__ = _WITHOUT_ROWID

    run: int = Field(foreign_key="run.number", ondelete="CASCADE", primary_key=True)
    step: int = Field(primary_key=True)
    wall_seconds: float | None = None
    train_seconds: float | None = None
    gpu_seconds: float | None = None
    tokens_generated: float | None = None
    tokens_trained: float | None = None
    rollouts: float | None = None


class Latest(SQLModel, table=True):
    """The newest value of every metric of a run, so that a list of runs needs no search."""

    __tablename__ = "latest"
    __table_args__ = _WITHOUT_ROWID

    run: int = Field(foreign_key="run.number", ondelete="CASCADE", primary_key=True)
    key_id: int = Field(foreign_key="metric_key.id", primary_key=True)
    step: int
    value: float | None = None
    nonfinite: str | None = None


class SampleRecord(SQLModel, table=True):
    """One evaluated completion (`atlas.run.Sample`)."""

    __tablename__ = "sample"
    __table_args__ = (Index("ix_sample_identity", "run", "step", "split", "problem_id", "sample", unique=True),)

    number: int | None = Field(default=None, primary_key=True)
    run: int = Field(foreign_key="run.number", ondelete="CASCADE")
    step: int
    split: str
    problem_id: str
    sample: int = 0
    completion: str
    extracted: str | None = None
    found: bool
    correct: bool
    tokens: int
    clipped: bool


METADATA: Any = SQLModel.metadata
"""All tables above; what the migrations must add up to."""
