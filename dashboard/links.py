"""Addresses: every view is a URL. Widgets with `bind="query-params"` keep it up to date; these are the names they use.

Runs are named by id, never by their place in a table.
"""

from collections.abc import Collection, Sequence
from urllib.parse import urlencode

import streamlit as st

RUNS = "run"
"""Query parameter: ids of the chosen runs (on the page of one run: its id)."""
EXPERIMENT = "experiment"
"""Query parameter: id of the experiment that is compared instead of single runs."""
CLOCK, METRIC = "clock", "metric"


def address(page: str, **parameters: str | Sequence[str]) -> str:
    """`/compare?run=a&run=b`: for links, relative to the server."""
    query = urlencode([(name, value) for name, values in parameters.items() for value in _each(values)])
    return f"/{page}?{query}" if query else f"/{page}"


def _each(values: str | Sequence[str]) -> Sequence[str]:
    return [values] if isinstance(values, str) else values


def asked_for(name: str) -> list[str]:
    """What the address names under this parameter. Ask before the widget is drawn: it removes what it does not know."""
    return list(st.query_params.get_all(name))


def begin_with(name: str, value: str | Sequence[str], known: Collection[str] | None = None) -> None:
    """Puts what a view begins with into the address that says nothing about it. Unlike with the default of a widget,
    a copied address then shows the same when there are newer runs.

    A widget of another page that has the same name leaves its value: it is taken along as far as it is of the kind of
    `value` (one string, or several) and `known`.
    """
    if name in st.session_state:
        held = st.session_state[name]
        fitting = _fitting(held, value, known)
        if fitting != held:
            st.session_state[name] = fitting
    elif not asked_for(name):
        st.session_state[name] = value
        st.query_params[name] = value


def _fitting(held: object, value: str | Sequence[str], known: Collection[str] | None) -> str | Sequence[str]:
    several = [held] if isinstance(held, str) else list(held) if isinstance(held, Sequence) else []
    fitting = [each for each in several if isinstance(each, str) and (known is None or each in known)]
    if isinstance(value, str):
        return fitting[0] if fitting else value
    return fitting if fitting or held == [] else value
