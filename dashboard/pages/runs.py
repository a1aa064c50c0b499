"""All runs and experiments, live: how each stands, and which to compare. A twin of `atlas ls --json`."""

import time
from collections import Counter
from collections.abc import Sequence

import streamlit as st

from atlas.comparison.wording import counted_noun
from atlas.store import AT_REST, STATES, ExperimentRecord, Store
from atlas.store.overview import overviews
from dashboard.links import RUNS, address, begin_with
from dashboard.live import live
from dashboard.opening import experiments_of, opened_store, problem, state_of
from dashboard.pages.runs_parts.chosen import choose, chosen, clear, take_over
from dashboard.pages.runs_parts.experiments import EXPERIMENTS, show_experiments
from dashboard.pages.runs_parts.rows import GROUPS, SORTS, Asked, Row, shown
from dashboard.pages.runs_parts.table import csv, layout_of, show_table
from dashboard.states import with_sign
from dashboard.text import plain

_VIEWS = ("runs", "experiments")
_GROUPS_DRAWN = 12
"""Tables on one page; what is in none of them is said."""


def page() -> None:
    store = opened_store()
    if not store.runs(limit=1):
        st.subheader("No runs yet")
        st.text("Submit a job or an experiment; it appears here when the page is loaded again.")
        st.code("atlas submit specs/quickstart/experiment.yaml", language=None)
        return
    take_over()
    begin_with("view", _VIEWS[0], _VIEWS)
    view = st.segmented_control(
        "View", _VIEWS, key="view", bind="query-params", required=True, label_visibility="collapsed"
    )
    asked = _asked(experiments_of(store)[0]) if view != "experiments" else None
    live(lambda: _body(store, asked), lambda: _goes_on(store))


def _asked(experiments: Sequence[ExperimentRecord]) -> Asked:
    """The filters: outside of what is drawn again and again, so that nobody's typing is disturbed."""
    known = [record.id for record in experiments]
    words, state, experiment, sort, group = st.columns([3, 2, 3, 1.5, 1.5])
    return Asked(
        words=words.text_input(
            "Filter", key="filter", bind="query-params", placeholder="id, tags, notes, method, models"
        ),
        states=state.multiselect("State", STATES, key="state", bind="query-params", placeholder="all"),
        experiments=experiment.multiselect(
            "Experiment",
            known,
            key=EXPERIMENTS,
            bind="query-params",
            placeholder="all",
        ),
        sort=sort.selectbox("Sort by", list(SORTS), key="sort", bind="query-params"),
        group=group.selectbox("Group by", list(GROUPS), key="group", bind="query-params"),
    )


def _body(store: Store, asked: Asked | None) -> None:
    experiments, unreadable = experiments_of(store)
    if unreadable is not None:
        problem("The experiments cannot be read", unreadable)
    runs = store.runs()
    rows = [Row(of, state_of(store, of.run)) for of in overviews(store, runs, experiments)]
    polling = any(row.state not in AT_REST for row in rows)
    if asked is None:
        _read_at(polling)
        show_experiments(experiments, rows)
        return
    groups = shown(rows, asked)
    visible = [row for _, of_group in groups for row in of_group]
    _actions(rows, visible, polling)
    if not visible:
        st.text("No run meets all of these conditions.")
        return
    layout = layout_of(visible)
    for name, of_group in groups[:_GROUPS_DRAWN]:
        if asked.group != "none":
            st.markdown(f"**{plain(name)}** · {_counts(of_group)}")
        show_table(name, of_group, layout)
    if len(groups) > _GROUPS_DRAWN:
        left = sum(len(of_group) for _, of_group in groups[_GROUPS_DRAWN:])
        st.caption(f"{len(groups) - _GROUPS_DRAWN} more groups with {counted_noun(left, 'run')}: filter to see them.")


def _actions(rows: Sequence[Row], visible: Sequence[Row], polling: bool) -> None:
    """How the runs stand, and what can be done with those that were chosen."""
    known = {row.id for row in rows}
    if gone := [run_id for run_id in chosen() if run_id not in known]:
        choose([run_id for run_id in chosen() if run_id in known])
        st.warning(f"Not in this store, left out: {plain(', '.join(gone))}")
    picked = chosen()
    hidden = len(set(picked) - {row.id for row in visible})
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.link_button(
            f"Compare ({len(picked)})",
            address("compare", **{RUNS: picked}),
            type="primary",
            disabled=len(picked) < 2,
            help=None if len(picked) > 1 else "Mark two runs or more in the table",
        )
        st.link_button(f"Samples ({len(picked)})", address("samples", **{RUNS: picked}), disabled=not picked)
        st.button("Clear", on_click=clear, disabled=not picked, help="Unmark all runs")
        st.download_button("CSV", lambda: csv(visible), "runs.csv", "text/csv", on_click="ignore")
        if hidden:
            st.caption(f"{counted_noun(hidden, 'chosen run')} not among those shown", width="content")
        st.caption(_counts(visible) + (f" · of {len(rows)}" if len(visible) < len(rows) else ""), width="stretch")
        _read_at(polling)


def _read_at(polling: bool) -> None:
    at = time.strftime("%H:%M:%S")
    if polling:
        st.caption(f":material/sync: live, {at}", width="content")
        return
    st.caption(f"All have ended; read at {at}", width="content")
    if st.button("Refresh", help="Look for new runs"):
        st.rerun()


def _counts(rows: Sequence[Row]) -> str:
    """`14 runs: ▶ running 2, ✓ succeeded 12`."""
    counts = Counter(row.state for row in rows)
    parts = [f"{plain(with_sign(state))} {counts[state]}" for state in STATES if counts[state]]
    return f"{counted_noun(len(rows), 'run')}: {', '.join(parts)}" if parts else "no runs"


def _goes_on(store: Store) -> bool:
    return any(state_of(store, run) not in AT_REST for run in store.runs(states=set(STATES) - AT_REST))
