"""The dashboard: a Streamlit app that reads a store and its run directories, and writes nothing.

`atlas dashboard` starts it; `docs/dashboard.md` shows it; `docs/design/dashboard.md` has the rules.
"""
