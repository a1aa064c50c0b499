"""(to be written)"""

import streamlit as st

from dashboard.opening import opened_store


def page() -> None:
    store = opened_store()
    st.text(f"{len(store.runs())} runs")
