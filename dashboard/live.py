"""Pages that follow runs which go on."""

from collections.abc import Callable

import streamlit as st

POLL_SECONDS = 2.0


def live(body: Callable[[], None], goes_on: Callable[[], bool]) -> None:
    """Draws `body`; while `goes_on()`, again every two seconds, alone: the rest of the page stands still.

    When `goes_on()` turns false the whole page is drawn once more, without polling.
    """
    polling = goes_on()

    def drawn() -> None:
        body()
        if polling and not goes_on():
            st.rerun()

    st.fragment(drawn, run_every=POLL_SECONDS if polling else None)()
