"""Blocks of metric rows, for drawing long curves; and a count of what was written anew, for following a run."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_FILL = """
    INSERT INTO metric_block
    SELECT run, key_id, step / 64, count(value), count(nonfinite), sum(value),
        min(value), (
            SELECT step FROM metric WHERE run = row.run AND key_id = row.key_id AND value IS NOT NULL
            AND step BETWEEN row.step / 64 * 64 AND row.step / 64 * 64 + 63 ORDER BY value, step LIMIT 1
        ),
        max(value), (
            SELECT step FROM metric WHERE run = row.run AND key_id = row.key_id AND value IS NOT NULL
            AND step BETWEEN row.step / 64 * 64 AND row.step / 64 * 64 + 63 ORDER BY value DESC, step LIMIT 1
        )
    FROM metric AS row GROUP BY run, key_id, step / 64
"""


def upgrade() -> None:
    op.add_column("run", sa.Column("metrics_rewrites", sa.Integer(), nullable=False, server_default="0"))
    op.create_table(
        "metric_block",
        sa.Column("run", sa.Integer(), sa.ForeignKey("run.number", ondelete="CASCADE"), primary_key=True),
        sa.Column("key_id", sa.Integer(), sa.ForeignKey("metric_key.id"), primary_key=True),
        sa.Column("block", sa.Integer(), primary_key=True),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("nonfinite", sa.Integer(), nullable=False),
        sa.Column("total", sa.Float()),
        sa.Column("low", sa.Float()),
        sa.Column("low_step", sa.Integer()),
        sa.Column("high", sa.Float()),
        sa.Column("high_step", sa.Integer()),
        sqlite_with_rowid=False,
    )
    op.execute(_FILL)
