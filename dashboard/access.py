"""Who may look: everybody who reaches the server, or only who logs in with the identity provider of secrets.toml."""

import os
from collections.abc import Mapping, Sequence

import streamlit as st

OIDC = "oidc"
VARIABLE = "ATLAS_DASHBOARD_AUTH"
"""Set by `atlas dashboard --auth`."""
USERS = "ATLAS_DASHBOARD_USERS"
"""Set by `atlas dashboard --allow-user`: e-mail addresses and `@domain`s, with spaces between them; empty: everybody
who can log in."""


def require_login() -> None:
    """With `--auth oidc`: stops the script for visitors who are not logged in or not among the users."""
    if os.environ.get(VARIABLE) != OIDC:
        return
    if not getattr(st.user, "is_logged_in", False):  # absent where [auth] of secrets.toml has gone
        st.title("Atlas")
        st.button("Log in", on_click=st.login, type="primary")
        st.stop()
    if not is_user(st.user.to_dict(), os.environ.get(USERS, "").split()):
        st.title("Atlas")
        st.text("You are logged in, but this dashboard is not open to you: ask who runs it for `--allow-user`.")
        st.button("Log out", on_click=st.logout)
        st.stop()


def is_user(claims: Mapping[str, object], users: Sequence[str]) -> bool:
    """Whether the identity is one of `users`. Without users everybody is; an address that the provider calls unverified
    is nobody's."""
    if not users:
        return True
    address = str(claims.get("email") or "").lower()
    domain = "@" + address.rpartition("@")[2]
    known = [user.lower() for user in users]
    return claims.get("email_verified") is not False and "@" in address and (address in known or domain in known)
