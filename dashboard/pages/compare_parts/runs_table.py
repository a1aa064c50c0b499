"""Each run of the comparison, with its state and its own page."""

from collections.abc import Mapping

import pandas as pd
import streamlit as st

from atlas.comparison.model import Comparison, RunResult
from atlas.report import results
from atlas.report.document import Details
from dashboard.links import RUNS, address
from dashboard.pages.compare_parts import blocks


def show(comparison: Comparison, states: Mapping[str, str]) -> None:
    """Links and states, then the report's numbers of each run."""
    st.subheader("Runs")
    runs = [run for arm in comparison.arms for run in arm.runs] + list(comparison.baselines.values())
    if not runs:
        st.text("None of them is in the store any more.")
        return
    rows = pd.DataFrame(
        {
            "": [address("run", **{RUNS: run.id}) for run in runs],
            "run": [run.id for run in runs],
            "arm": [run.arm for run in runs],
            "seed": [run.seed for run in runs],
            "state": [states.get(run.id, run.state) for run in runs],
            "step": [_step(run) for run in runs],
            "why": [run.failure for run in runs],
        }
    )
    st.dataframe(
        rows if any(rows["why"]) else rows.drop(columns="why"),
        hide_index=True,
        height="content" if len(rows) <= 20 else 500,
        column_config={"": st.column_config.LinkColumn(display_text="open", width="small")},
        alt="The runs of this comparison",
        key="runs",
    )
    blocks.show(block for block in results.final_metrics(comparison) if isinstance(block, Details))


def _step(run: RunResult) -> str:
    return f"{'-' if run.step is None else run.step}/{'?' if run.planned_steps is None else run.planned_steps}"
