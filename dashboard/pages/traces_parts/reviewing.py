"""Approving and quarantining: the only code of the dashboard that opens a store for writing, and only when a button is
pressed where `atlas dashboard --allow-review` was given."""

from dataclasses import dataclass
from typing import Literal

import streamlit as st

from atlas.errors import AtlasError
from atlas.store import home_from_environment
from atlas.store.traces import SessionRow, TraceStore
from atlas.traces.filter import Filter
from atlas.traces.records import Status
from dashboard.access import reviewer, reviewing_is_on
from dashboard.pages.traces_parts.listed import choose
from dashboard.pages.traces_parts.place import place_of
from dashboard.text import cut, plain, visible

_THEN_NEXT = "traces_then_next"
_SAID = "traces_said"
_LONGEST_REASON = 1000
_BUTTONS: tuple[tuple[str, Status, Literal["primary", "secondary", "tertiary"]], ...] = (
    ("Approve", "approved", "primary"),
    ("Quarantine", "quarantined", "secondary"),
    ("Unreviewed", "unreviewed", "tertiary"),
)
_DONE: dict[Status, str] = {"approved": "Approved", "quarantined": "Quarantined", "unreviewed": "Set back"}


@dataclass(frozen=True)
class Shown:
    """What a reviewer was looking at when the buttons were drawn."""

    row: SessionRow
    filter: Filter
    """Of the list whose next session is meant."""


def show_buttons(shown: Shown) -> None:
    """What can be decided about the session; or who could, and how."""
    _say()
    by = reviewer()
    if by is None:
        st.caption(_why_not())
        return
    # Named after the session and its records: a late click is about what its visitor saw, never what came after it.
    name = f"traces_review_{shown.row.id}_{shown.row.records}"
    status = shown.row.status
    with st.form(name, clear_on_submit=True, enter_to_submit=False):
        st.text_input("Reason", key=f"{name}_reason", max_chars=_LONGEST_REASON, placeholder="optional")
        with st.container(horizontal=True, gap="small"):
            for label, decision, look in _BUTTONS:
                st.form_submit_button(
                    label, disabled=status == decision, on_click=_decide, args=(shown, decision, name), type=look
                )
    st.checkbox("Then show the next", value=True, key=_THEN_NEXT, persist_state="session")
    st.caption(f"Reviews are written as {plain(cut(by, 100))}.")


def _why_not() -> str:
    if reviewing_is_on():
        return "You cannot review: nothing says who you are. Ask who runs this dashboard."
    return "Reviewing is off here: `atlas dashboard --allow-review` switches it on, or use `atlas traces review`."


def _decide(shown: Shown, status: Status, name: str) -> None:
    """Asks again who it is and whether they may: buttons can be older than what they are allowed to do."""
    row, by = shown.row, reviewer()
    if by is None:
        st.session_state[_SAID] = (False, f"Nothing was changed. {_why_not()}")
        return
    reason = str(st.session_state.get(f"{name}_reason") or "").strip()[:_LONGEST_REASON] or None
    home = home_from_environment()
    try:
        with TraceStore.open_read_only(home) as store:  # a store that has gone is not made anew
            place = place_of(store, shown.filter, store.row(row.id))
        with TraceStore.open(home) as store:
            changed = store.review([row.id], status, by, reason, seen={row.id: row.records})
    except AtlasError as error:
        st.session_state[_SAID] = (False, f"Nothing was changed: {plain(str(error))}")
        return
    if not changed:
        st.session_state[_SAID] = (False, f"Nothing was changed: it was {status} already.")
        return
    then = ""
    if st.session_state.get(_THEN_NEXT):
        then = "; here is the next" if place.after else "; it was the last of the list"
        if place.after:
            choose(place.after)
    st.session_state[_SAID] = (True, f"{_DONE[status]} {plain(cut(visible(row.id), 100))}{then}.")


def _say() -> None:
    """What the last decision did, once."""
    said = st.session_state.pop(_SAID, None)
    if said is not None:
        done, sentence = said
        (st.success if done else st.warning)(sentence)
