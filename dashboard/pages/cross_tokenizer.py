"""Runs whose student and teacher tokenize differently: what these share, how they line up, and where they differ."""

from collections.abc import Mapping, Sequence

import streamlit as st

from atlas.comparison.names import short_names
from atlas.store import AT_REST, RunRecord, Store
from dashboard.links import RUNS, asked_for, begin_with
from dashboard.live import live
from dashboard.opening import opened_store, state_of
from dashboard.pages.cross_tokenizer_parts import completions, figures
from dashboard.text import plain

_MOST = 8
_MARK = "alignment/coverage"
"""The metric that every run with aligned tokens has."""


def page() -> None:
    store = opened_store()
    st.subheader("Cross-tokenizer")
    runs = {run.id: run for run in store.runs()}
    latest = store.latest_of(list(runs), [_MARK])
    aligned = [run_id for run_id in runs if _MARK in latest[run_id]]
    for run_id in asked_for(RUNS):
        if run_id not in aligned:
            st.warning(_lacks(run_id, runs))
    if not aligned:
        st.text(_NONE)
        return
    begin_with(RUNS, aligned[:1], aligned)
    chosen = st.multiselect("Runs", aligned, key=RUNS, bind="query-params", max_selections=_MOST, help=_HELP)
    if not chosen:
        st.text(f"Choose runs, up to {_MOST}; {len(aligned)} of {len(runs)} have aligned tokens.")
        return
    names = short_names(chosen)
    live(lambda: figures.show_curves(store, names), lambda: _goes_on(store, chosen))
    completions.show(store, names)
    st.subheader("Figures")
    live(lambda: figures.show_table(store, names), lambda: _goes_on(store, chosen))


def _goes_on(store: Store, run_ids: Sequence[str]) -> bool:
    return any(state_of(store, store.run(run_id)) not in AT_REST for run_id in run_ids)


def _lacks(run_id: str, runs: Mapping[str, RunRecord]) -> str:
    """Why a run has nothing to show here."""
    run = runs.get(run_id)
    if run is None:
        return f"Not in this store: {plain(run_id)}"
    if run.method != "gkd":
        return f"**{plain(run_id)}** has no aligned tokens: its method, {plain(run.method)}, reads no teacher's tokens."
    if run.step is None or run.step < 1:
        return f"**{plain(run_id)}** has no aligned tokens yet: it has not ended its first step ({plain(run.state)})."
    return (
        f"**{plain(run_id)}** has no `alignment/*` metrics: its student and teacher tokenize alike and are compared "
        "token by token, or an older Atlas made it."
    )


_NONE = (
    "No run of this store has alignment metrics. `method: {type: gkd}` records them where the teacher tokenizes "
    "otherwise: atlas submit specs/cross_tokenizer/quickstart.yaml"
)
_HELP = "Runs with alignment metrics: gkd from a teacher that tokenizes otherwise."
