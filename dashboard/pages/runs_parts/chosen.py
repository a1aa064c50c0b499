"""Runs that were chosen in a table, kept by id in the address.

Streamlit reports the places of rows. They mean something only together with the ids that stood there, so the key of a
table is made of its ids: an event of a table that has been replaced since is dropped, and cannot hit another run.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import pandas as pd
import streamlit as st

from dashboard.links import RUNS, asked_for

_CLEARED = "runs_cleared"


def chosen() -> list[str]:
    """Ids, in the order in which they were chosen."""
    return list(dict.fromkeys(asked_for(RUNS)))


def choose(run_ids: Sequence[str]) -> None:
    """Instead of what was chosen before. The other pages take it over from the session."""
    st.query_params[RUNS] = st.session_state[RUNS] = list(run_ids)


def take_over() -> None:
    """What was chosen on another page, where the address says nothing."""
    held = st.session_state.get(RUNS)
    if held and not asked_for(RUNS):
        choose([held] if isinstance(held, str) else held)


def clear() -> None:
    """Chooses nothing; the tables are drawn anew, without marks."""
    choose([])
    st.session_state[_CLEARED] = st.session_state.get(_CLEARED, 0) + 1


def choosing_table(name: str, frame: pd.DataFrame, run_ids: Sequence[str], **look: Any) -> None:
    """A table whose rows, of the runs `run_ids`, can be chosen."""
    key = _key(name, run_ids)
    before = chosen()

    def note() -> None:
        marked = [run_ids[row] for row in st.session_state[key]["selection"]["rows"] if row < len(run_ids)]
        kept = [run_id for run_id in chosen() if run_id not in run_ids or run_id in marked]
        choose([*kept, *(run_id for run_id in marked if run_id not in kept)])

    rows = [row for row, run_id in enumerate(run_ids) if run_id in before]
    st.dataframe(
        frame,
        key=key,
        on_select=note,
        selection_mode="multi-row",
        selection_default={"selection": {"rows": rows}},
        hide_index=True,
        **look,
    )


def _key(name: str, run_ids: Sequence[str]) -> str:
    drawn = f"{st.session_state.get(_CLEARED, 0)} {' '.join(run_ids)}"
    return f"runs_{name}_{sha256(drawn.encode()).hexdigest()[:16]}"
