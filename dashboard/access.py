"""Who may look: everybody who reaches the server, or only who logs in with the identity provider of secrets.toml."""

import os

import streamlit as st

OIDC = "oidc"
VARIABLE = "ATLAS_DASHBOARD_AUTH"
"""Set by `atlas dashboard --auth`."""


def require_login() -> None:
    """With `--auth oidc`: stops the script with a login button for visitors who are not logged in."""
    if os.environ.get(VARIABLE) != OIDC or st.user.is_logged_in:
        return
    st.title("Atlas")
    st.button("Log in", on_click=st.login, type="primary")
    st.stop()
