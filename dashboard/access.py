"""Who may look: everybody who reaches the server, or only who logs in with the identity provider of secrets.toml; and
who may review."""

import os
from collections.abc import Mapping, Sequence

import streamlit as st

OIDC, PROXY = "oidc", "proxy"
VARIABLE = "ATLAS_DASHBOARD_AUTH"
"""Set by `atlas dashboard --auth`."""
USERS = "ATLAS_DASHBOARD_USERS"
"""Set by `atlas dashboard --allow-user`: e-mail addresses and `@domain`s, with spaces between them; empty: everybody
who can log in."""

REVIEWER = "ATLAS_DASHBOARD_REVIEWER"
"""Set by `atlas dashboard`: with `--allow-review` the login name of who started it, else empty: nobody may review."""
USER_HEADER = "ATLAS_DASHBOARD_USER_HEADER"
"""Set by `atlas dashboard --user-header`: where a proxy in front says who a visitor is."""


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


def reviewing_is_on() -> bool:
    """Whether the server was started with `--allow-review`."""
    return bool(os.environ.get(REVIEWER))


def reviewer() -> str | None:
    """The name under which this visitor reviews; None: may not. Without a login everybody is who started the server."""
    if not reviewing_is_on():
        return None
    auth = os.environ.get(VARIABLE)
    if auth == OIDC:
        logged_in = getattr(st.user, "is_logged_in", False)
        claims = st.user.to_dict() if logged_in else {}
        return name_of(claims) if logged_in and is_user(claims, os.environ.get(USERS, "").split()) else None
    if auth == PROXY:
        header = os.environ.get(USER_HEADER)
        names = [name.strip() for name in st.context.headers.get_all(header)] if header else []
        return names[0] or None if len(names) == 1 else None  # of two names, one is a visitor's invention
    return os.environ[REVIEWER] if not auth else None


def name_of(claims: Mapping[str, object]) -> str | None:
    """What an identity is called: its address, unless the provider calls that unverified; else the provider's own name
    for it, which nobody can choose."""
    if claims.get("email") and claims.get("email_verified") is not False:
        return str(claims["email"])
    return str(claims["sub"]) if claims.get("sub") else None


def is_user(claims: Mapping[str, object], users: Sequence[str]) -> bool:
    """Whether the identity is one of `users`. Without users everybody is; an address that the provider calls unverified
    is nobody's."""
    if not users:
        return True
    address = str(claims.get("email") or "").lower()
    domain = "@" + address.rpartition("@")[2]
    known = [user.lower() for user in users]
    return claims.get("email_verified") is not False and "@" in address and (address in known or domain in known)
