"""The list of sessions, a page at a time, and the one that was chosen, which is kept by id in the address."""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pandas as pd
import streamlit as st

from atlas.comparison.wording import counted_noun
from atlas.store.traces import SessionRow, TraceStore
from atlas.traces.filter import Filter
from dashboard.links import asked_for
from dashboard.pages.traces_parts.asked import OUTCOMES, PAGE, STATUSES
from dashboard.pages.traces_parts.words import VERDICTS, cost, moment, tokens
from dashboard.states import with_sign
from dashboard.text import plain, visible

SESSION = "session"
"""Query parameter: id of the chosen session."""
PART = "part"
"""Query parameter: which page of its timeline."""
ROWS = 50
"""Of one page of the list."""
_ROW_PIXELS, _CHARACTERS = 32, 200
_PAGES_PIXELS = 330
_SHORT, _TALL = 6, 22
"""Rows that are seen at once beside a chosen session, and without one; the others scroll."""
_OPTIONAL = ("scores", "agent", "tags", "tokens", "cost")
_DRAWN = "traces_drawn"


def chosen() -> str | None:
    """What the address says: an id, or the beginning of one."""
    return next(iter(asked_for(SESSION)), None)


def choose(session: str, number: int | None = None) -> None:
    """Shows this session; `number`: its place in the list, whose page is then turned to it."""
    _show_from_the_start(session)
    if number is not None:
        st.session_state[PAGE] = (number - 1) // ROWS + 1
    st.session_state[_DRAWN] = st.session_state.get(_DRAWN, 0) + 1


def _show_from_the_start(session: str | None) -> None:
    st.query_params.pop(SESSION, None)
    if session is not None:
        st.query_params[SESSION] = session
    st.session_state[PART] = 1


def show_list(store: TraceStore, filter: Filter) -> None:
    """How many there are and of what kind, and one page of them."""
    count = store.count(filter)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(_counts(store, filter, count), width="stretch")
        pages = max(1, -(-count // ROWS))
        page = st.pagination(pages, width=_PAGES_PIXELS, key=PAGE, bind="query-params") if pages > 1 else 1
        if st.button("Refresh", help="Look for new sessions"):
            st.rerun()
    if not count:
        st.text("No session meets all of these conditions.")
        return
    _table(store.rows(filter, limit=ROWS, offset=ROWS * (page - 1)))


def _counts(store: TraceStore, filter: Filter, count: int) -> str:
    """`37 of 200 sessions: ○ unreviewed 30, ✓ approved 7 · ✓ passed 20, ✕ failed 17`."""
    of = store.count()
    heading = counted_noun(of, "session") if count == of else f"{count:,} of {counted_noun(of, 'session')}"
    by_status = _shares(store, [(status, replace(filter, status=(status,))) for status in filter.status or STATUSES])
    by_outcome = [
        (outcome, replace(filter, outcome=outcome)) for outcome in OUTCOMES if filter.outcome in (None, outcome)
    ]
    by_whom = f"by {plain(filter.scorer)} " if filter.scorer else ""
    return f"{heading}: {by_status} · {by_whom}{_shares(store, by_outcome)}" if count else heading


def _shares(store: TraceStore, parts: Sequence[tuple[str, Filter]]) -> str:
    counts = [(name, store.count(part)) for name, part in parts]
    return ", ".join(f"{plain(with_sign(name))} {count:,}" for name, count in counts if count)


def _table(rows: Sequence[SessionRow]) -> None:
    ids = [row.id for row in rows]
    frame = pd.DataFrame([_cells(row) for row in rows])
    empty = [column for column in _OPTIONAL if not (frame[column] != "").any()]
    drawn = f"{st.session_state.get(_DRAWN, 0)} {' '.join(ids)}"
    key = f"traces_{sha256(drawn.encode()).hexdigest()[:16]}"  # of a table that was replaced, clicks mean nothing

    def clicked() -> None:
        marked = st.session_state[key]["selection"]["rows"]
        _show_from_the_start(ids[marked[0]] if marked and marked[0] < len(ids) else None)

    here = chosen()
    height = _SHORT if here else _TALL
    st.dataframe(
        frame.drop(columns=empty),
        key=key,
        on_select=clicked,
        selection_mode="single-row",
        selection_default={"selection": {"rows": [ids.index(here)] if here in ids else []}},
        hide_index=True,
        height=_ROW_PIXELS * (min(len(rows), height) + 1) + 3,
        row_height=_ROW_PIXELS,
        column_config=_COLUMNS,
        placeholder="",
        alt=f"{counted_noun(len(rows), 'session')}: review, outcome, task, attempts",
    )
    if here is None:
        st.caption("Mark a row to see its session.")


def _cells(row: SessionRow) -> dict[str, Any]:
    return {
        "status": with_sign(row.status),
        "outcome": with_sign(VERDICTS[row.passed]),
        "task": _line(row.task),
        "attempts": row.attempts,
        "interventions": row.interventions,
        "scores": _line(", ".join(f"{scorer} {_score(score, passed)}" for scorer, score, passed in row.outcomes)),
        "agent": _line(row.agent or ""),
        "tags": _line(", ".join(row.tags)),
        "begun": moment(row.at_seconds),
        "tokens": tokens(row.input_tokens, row.output_tokens),
        "cost": "" if row.cost_usd is None else cost(row.cost_usd),
        "end": with_sign(row.end) if row.end else "not ended",
    }


def _score(score: float | None, passed: bool | None) -> str:
    if score is not None:
        return f"{score:g}"
    return "?" if passed is None else VERDICTS[passed]


def _line(text: str) -> str:
    line = " ".join(visible(text[: 4 * _CHARACTERS]).split())
    return line if len(line) <= _CHARACTERS else f"{line[:_CHARACTERS]}…"


_COLUMNS: dict[str, Any] = {
    "status": st.column_config.TextColumn("review", width=115, pinned=True),
    "outcome": st.column_config.TextColumn("outcome", width=95, help="Measured after the last attempt, by all scorers"),
    "task": st.column_config.TextColumn("task", width=380),
    "attempts": st.column_config.NumberColumn("attempts", format="%d", width=70),
    "interventions": st.column_config.NumberColumn(
        "interventions", format="%d", width=95, help="Guidance, critique, results of tools"
    ),
    "scores": st.column_config.TextColumn("scores", width=130, help="The newest of each scorer; ?: it could not say"),
    "agent": st.column_config.TextColumn("agent", width=100),
    "tags": st.column_config.TextColumn("tags", width=120),
    "begun": st.column_config.TextColumn("begun", width=150),
    "tokens": st.column_config.TextColumn("tokens", width=100, help="Given + written"),
    "cost": st.column_config.TextColumn("cost", width=75),
    "end": st.column_config.TextColumn("end", width=105),
}
