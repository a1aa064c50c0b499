"""Which sessions the visitor wants to see: the choices of `atlas traces ls`, under the same names in the address."""

from collections.abc import Sequence
from datetime import date, datetime, time
from typing import Any, cast, get_args

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from atlas.store.traces import TraceStore
from atlas.traces.filter import Filter, Outcome
from atlas.traces.records import Status
from dashboard.links import asked_for
from dashboard.text import plain, visible

STATUSES: tuple[Status, ...] = get_args(Status)
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
PAGE = "page"
"""Query parameter: which page of the list."""
_FIRST_DAY, _LAST_DAY = date(1970, 1, 1), date(2200, 1, 1)


def ask(store: TraceStore) -> Filter:
    """Draws the choices, and over them what the address says and nothing has: Streamlit drops that, and the list would
    silently be a longer one."""
    warnings = st.container()
    with st.container(horizontal=True):
        words = st.text_input("Task", placeholder="part of its text", width=250, **_bound("text"))
        status = _several("status", "Status", STATUSES, 250, warnings)
        outcome = _one("outcome", "Outcome", OUTCOMES, 140, warnings)
        scorer = _one("scorer", "Scorer", store.scorers(), 150, warnings)
        tags = _several("tag", "Tags", store.tags(), 220, warnings)
        agent = _one("agent", "Agent", store.agents(), 160, warnings)
        since = _day("since", "Begun since", warnings)
        until = _day("until", "Begun before", warnings)
    return Filter(
        status=tuple(status),
        scorer=scorer,
        outcome=cast(Outcome | None, outcome),
        tags=tuple(tags),
        agent=agent,
        since_seconds=since,
        until_seconds=until,
        text=words or None,
    )


def _bound(name: str) -> dict[str, Any]:
    """Another choice begins with the first page of its list."""
    return {"key": name, "bind": "query-params", "on_change": lambda: st.session_state.update({PAGE: 1})}


def _several(name: str, label: str, known: Sequence[str], width: int, warnings: DeltaGenerator) -> list[str]:
    options = _options(name, label, known, warnings)
    chosen = st.multiselect(label, list(options), placeholder="all", width=width, **_bound(name))
    return [options[option] for option in chosen]


def _one(name: str, label: str, known: Sequence[str], width: int, warnings: DeltaGenerator) -> str | None:
    options = _options(name, label, known, warnings)
    chosen = st.selectbox(label, list(options), index=None, placeholder="any", width=width, **_bound(name))
    return None if chosen is None else options[chosen]


def _options(name: str, label: str, known: Sequence[str], warnings: DeltaGenerator) -> dict[str, str]:
    """What is shown, and put into the address -> what is meant."""
    options = {visible(value): value for value in known}
    unknown = [value for value in asked_for(name) if value not in options]
    if unknown:
        warnings.warning(f"{label}: {plain(', '.join(unknown))} is not in this store; it is left out.")
    return options


def _day(name: str, label: str, warnings: DeltaGenerator) -> float | None:
    """Unix time at which the day begins here."""
    odd = [day for day in asked_for(name) if not _is_day(day)]
    if odd:
        warnings.warning(f"{label}: expected a day such as 2026-01-31, got {plain(', '.join(odd))}; it is left out.")
    chosen = st.date_input(
        label, None, min_value=_FIRST_DAY, max_value=_LAST_DAY, format="YYYY-MM-DD", width=150, **_bound(name)
    )
    return datetime.combine(chosen, time()).timestamp() if isinstance(chosen, date) else None


def _is_day(text: str) -> bool:
    try:
        return _FIRST_DAY <= date.fromisoformat(text) <= _LAST_DAY
    except ValueError:
        return False
