"""One run: how it goes, why it failed, what it was made of. Twins: `atlas show`, `atlas logs`, `atlas metrics`."""

from collections.abc import Callable, Sequence
from pathlib import Path

import streamlit as st

from atlas.errors import NotFoundError
from atlas.store import AT_REST, Store
from dashboard.links import RUNS, asked_for, begin_with
from dashboard.live import live
from dashboard.opening import opened_store, problem, state_of
from dashboard.pages.run_parts.curves import choose_clock, choose_curves, show_curves, show_resources
from dashboard.pages.run_parts.files import show_environment, show_events_and_log, show_spec
from dashboard.pages.run_parts.head import show_head

_VIEWS = ("curves", "resources", "events and log", "spec", "environment and checkpoints")


def page() -> None:
    store = opened_store()
    runs = store.runs()
    if not runs:
        st.subheader("No runs yet")
        st.code("atlas submit specs/quickstart/experiment.yaml", language=None)
        return
    ids = [run.id for run in runs]
    _find(store, ids)
    run_id = st.selectbox("Run", ids, index=None, key=RUNS, bind="query-params", placeholder="Choose a run")
    if run_id is None:
        return
    live(lambda: _head(store, run_id), lambda: _goes_on(store, run_id))
    begin_with("view", _VIEWS[0], _VIEWS)
    view = st.segmented_control(
        "View", _VIEWS, required=True, key="view", bind="query-params", label_visibility="collapsed"
    )
    live(_view(store, run_id, view or _VIEWS[0]), lambda: _goes_on(store, run_id))


def _find(store: Store, known: Sequence[str]) -> None:
    """An address may name a run as the command line may: by its name, or by the beginning of its id. Without one, the
    first that was chosen on another page."""
    asked = asked_for(RUNS)
    if RUNS in st.session_state:
        begin_with(RUNS, "", known)
        st.session_state[RUNS] = st.session_state[RUNS] or None
    elif asked:
        try:
            found = store.run(asked[0]).id
        except NotFoundError as error:
            problem("There is no such run", error)
            return
        if asked != [found]:
            st.query_params[RUNS] = found
            st.rerun()


def _head(store: Store, run_id: str) -> None:
    run = store.run(run_id)
    show_head(store, run, state_of(store, run))
    if not Path(run.run_dir).is_dir():
        st.warning("Its directory is gone: what follows is what the store knows. Log, files and checkpoints are lost.")


def _view(store: Store, run_id: str, view: str) -> Callable[[], None]:
    """What is drawn, with what the visitor chose for it: the widgets stand outside of what is drawn again."""
    if view == "resources":
        clock = choose_clock(st.container(width=260))
        return lambda: show_resources(store, store.run(run_id), clock)
    if view == "events and log":
        return lambda: show_events_and_log(store, store.run(run_id))
    if view == "spec":
        return lambda: show_spec(store, store.run(run_id))
    if view == "environment and checkpoints":
        return lambda: show_environment(store.run(run_id))
    metrics, clock = choose_curves(store.metric_names(run_id))
    return lambda: show_curves(store, store.run(run_id), metrics, clock)


def _goes_on(store: Store, run_id: str) -> bool:
    return state_of(store, store.run(run_id)) not in AT_REST
