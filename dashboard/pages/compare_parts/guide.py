"""What the page shows while nothing is chosen."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from atlas.store import ExperimentRecord
from dashboard.links import EXPERIMENT, address

_NEWEST = 20


def show(experiments: Sequence[ExperimentRecord]) -> None:
    """How to compare, and the newest experiments."""
    st.subheader("Who gets further, who is sooner, and how sure is that?")
    st.text(
        "Choose an experiment above, or two runs and more. Runs whose jobs are equal but for the seed are one arm; "
        "the first arm is the reference of all verdicts."
    )
    if not experiments:
        st.text("There is no experiment yet. This one, of a few minutes, needs no GPU:")
        st.code("atlas submit specs/quickstart/experiment.yaml", language=None)
        return
    newest = experiments[:_NEWEST]
    st.markdown(f"**{'Experiments' if len(experiments) <= _NEWEST else f'The newest {_NEWEST} experiments'}**")
    rows = pd.DataFrame(
        {
            "": [address("compare", **{EXPERIMENT: record.id}) for record in newest],
            "experiment": [record.id for record in newest],
            "arms": [", ".join(dict.fromkeys(run.arm for run in record.runs)) for record in newest],
            "seeds": [len({run.seed for run in record.runs}) for record in newest],
            "runs": [len(record.run_ids) for record in newest],
            "submitted": pd.to_datetime([record.submitted_at_seconds for record in newest], unit="s", utc=True),
        }
    )
    st.dataframe(
        rows,
        hide_index=True,
        height="content",
        column_config={
            "": st.column_config.LinkColumn(display_text="compare", width="small"),
            "submitted": st.column_config.DatetimeColumn(format="distance"),
        },
        alt="Experiments in this store, newest first",
    )
