"""The script that Streamlit runs for every visitor: login if it was asked for, then the page of the address."""

import streamlit as st

from dashboard import access
from dashboard.pages import compare, cross_tokenizer, run, runs, samples, traces

# An emoji: Streamlit fetches a `:material/` icon of the tab from a foreign server.
st.set_page_config(page_title="Atlas", page_icon="🧭", layout="wide")
access.require_login()
st.html("<style>.stMainBlockContainer { padding-top: 4.5rem }</style>")  # Streamlit leaves 6 above every page
st.navigation(
    [
        st.Page(runs.page, title="Runs", default=True),  # its address is /
        st.Page(compare.page, title="Compare", url_path="compare"),
        st.Page(cross_tokenizer.page, title="Cross-tokenizer", url_path="cross-tokenizer"),
        st.Page(run.page, title="Run", url_path="run"),
        st.Page(samples.page, title="Samples", url_path="samples"),
        st.Page(traces.page, title="Traces", url_path="traces"),
    ],
    position="top",
).run()
