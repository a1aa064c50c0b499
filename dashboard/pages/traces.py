"""What agents did, and what may be learnt from: sessions as timelines. A twin of `atlas traces ls` and `show`."""

import shlex

import streamlit as st

from atlas.errors import NotFoundError
from atlas.store.traces import TraceStore
from atlas.traces.filter import Filter
from dashboard.opening import no_traces, opened_traces, problem
from dashboard.pages.traces_parts import aside
from dashboard.pages.traces_parts.asked import ask
from dashboard.pages.traces_parts.listed import SESSION, choose, chosen, show_list
from dashboard.pages.traces_parts.place import Place, place_of
from dashboard.pages.traces_parts.reviewing import Shown, show_buttons
from dashboard.pages.traces_parts.timeline import badge, show_timeline
from dashboard.pages.traces_parts.words import VERDICTS
from dashboard.text import visible


def page() -> None:
    store = opened_traces()
    if not store.count():
        no_traces("The store of traces has no sessions.")
    st.subheader("Traces")
    filter = ask(store)
    show_list(store, filter)
    reference = chosen()
    if reference is not None:
        _session(store, filter, reference)


def _session(store: TraceStore, filter: Filter, reference: str) -> None:
    try:
        row = store.row(reference)  # before its records: what is shown is at least what was counted
        session = store.session(row.id)
    except NotFoundError as error:
        problem("There is no such session", error)
        return
    if reference != row.id:
        st.query_params[SESSION] = row.id
        st.rerun()
    place = place_of(store, filter, row)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        _step("Previous", "chevron_left", place.before, place, -1)
        _step("Next", "chevron_right", place.after, place, 1)
        badge(session.status)
        badge(VERDICTS[session.passed()])
        where = f"{place.number:,} of {store.count(filter):,}" if place.number else "not in the list above"
        st.caption(where, width="content")
    left, right = st.columns([7, 3])
    with left:
        show_timeline(session)
    with right:
        show_buttons(Shown(row, filter))
        aside.show_reviews(store.reviews(row.id))
        aside.show_facts(session, row)
        aside.show_family(store, session)
        st.code(f"atlas traces show {shlex.quote(visible(row.id))}", language="bash", wrap_lines=True)


def _step(label: str, icon: str, session: str | None, place: Place, by: int) -> None:
    number = place.number + by if place.number else None
    st.button(label, icon=f":material/{icon}:", disabled=session is None, on_click=choose, args=(session or "", number))
