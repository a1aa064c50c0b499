"""The experiments: arms, seeds, how their runs stand, and the way to their comparison."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from atlas.comparison.wording import counted_noun
from atlas.report.chart import COLOURS
from atlas.store import STATES, ExperimentRecord
from dashboard.links import EXPERIMENT, address
from dashboard.pages.runs_parts.rows import Row
from dashboard.states import with_sign

EXPERIMENTS = "of"
"""Query parameter of the page of runs: show only those of these experiments."""
_ROW_PIXELS, _ROWS = 32, 24


def show_experiments(records: Sequence[ExperimentRecord], rows: Sequence[Row]) -> None:
    """A table, newest first."""
    if not records:
        st.text("No experiments yet: a file with `kind: experiment` compares arms over seeds.")
        st.code("atlas submit specs/quickstart/experiment.yaml", language=None)
        return
    states = {row.id: row.state for row in rows}
    st.dataframe(
        pd.DataFrame([_cells(record, states) for record in records]),
        hide_index=True,
        column_config=_COLUMNS,
        height=_ROW_PIXELS * (min(len(records), _ROWS) + 1) + 3,
        row_height=_ROW_PIXELS,
        alt=counted_noun(len(records), "experiment"),
    )


def _cells(record: ExperimentRecord, states: dict[str, str]) -> dict[str, Any]:
    counts = Counter(states.get(run_id, "gone") for run_id in record.run_ids)
    ended = sum(counts[state] for state in ("succeeded", "failed", "cancelled", "lost"))
    return {
        "compare": address("compare", **{EXPERIMENT: record.id}),
        "runs": address("", **{EXPERIMENTS: record.id}),
        "ended": 100 * ended / max(1, len(record.run_ids)),
        "states": ", ".join(f"{counts[state]} {with_sign(state)}" for state in (*STATES, "gone") if counts[state]),
        "arms": ", ".join(dict.fromkeys(member.arm for member in record.runs)),
        "seeds": ", ".join(str(seed) for seed in dict.fromkeys(member.seed for member in record.runs)),
        "submitted": pd.Timestamp(record.submitted_at_seconds, unit="s", tz="UTC"),
    }


_COLUMNS: dict[str, Any] = {
    "compare": st.column_config.LinkColumn(
        "compare", display_text=rf"{EXPERIMENT}=(.*)$", alignment="left", width=260, pinned=True
    ),
    "runs": st.column_config.LinkColumn("runs", display_text="its runs", width=80),
    "ended": st.column_config.ProgressColumn(
        "ended", min_value=0, max_value=100, format="%d %%", width=120, color=COLOURS[0]
    ),
    "states": st.column_config.TextColumn("runs by state", width=260),
    "arms": st.column_config.TextColumn("arms", width=320),
    "seeds": st.column_config.TextColumn("seeds", width=100),
    "submitted": st.column_config.DatetimeColumn("submitted", format="distance", width=120),
}
