"""Beside a timeline: what the session is, its reviews, and the sessions around and inside it."""

from collections.abc import Sequence

import streamlit as st

from atlas.duration import duration
from atlas.errors import NotFoundError
from atlas.store.traces import SessionRow, TraceStore
from atlas.traces.records import ReviewRecord
from atlas.traces.sessions import Session
from dashboard.links import address
from dashboard.pages.traces_parts.listed import SESSION
from dashboard.pages.traces_parts.words import VERDICTS, cost, moment, tokens
from dashboard.states import with_sign
from dashboard.text import aligned, cut, plain, visible

_MOST = 20
"""Reviews, and sessions inside this one, that are shown."""
_LONGEST, _LONGEST_TASK = 400, 80


def show_facts(session: Session, row: SessionRow) -> None:
    """What is known of it as a whole."""
    ended = row.ended_seconds
    took = duration(ended - row.at_seconds) if ended is not None else "not ended"
    st.code(
        aligned(
            {
                "session": visible(session.id),
                "outcome": _outcome(session),
                "agent": visible(session.record.agent or ""),
                "tags": cut(visible(", ".join(session.record.tags)), _LONGEST),
                "models": cut(visible(", ".join(row.models)), _LONGEST),
                "begun": moment(row.at_seconds),
                "took": took,
                "attempts": str(row.attempts),
                "interventions": str(row.interventions),
                "records": str(row.records),
                "tokens": tokens(row.input_tokens, row.output_tokens),
                "cost": None if row.cost_usd is None else cost(row.cost_usd),
                "redaction": visible(session.record.redaction or ""),
            }
        ),
        language=None,
        wrap_lines=True,
    )


def _outcome(session: Session) -> str:
    """`✓ passed`; an unscored session says why it is."""
    said = with_sign(VERDICTS[session.passed()])
    if session.passed() is not None:
        return said
    measured = any(attempt.outcomes for attempt in session.attempts) or session.stale_outcomes
    if session.final_outcomes():
        return f"{said}: no scorer could say"
    return f"{said}: an attempt came after the last measurement" if measured else f"{said}: nothing was measured"


def show_reviews(reviews: Sequence[ReviewRecord]) -> None:
    """The newest first."""
    st.caption("Reviews")
    for review in list(reversed(reviews))[:_MOST]:
        why = f"\n{cut(visible(review.reason), _LONGEST)}" if review.reason else ""
        by = cut(" ".join(visible(review.by).split()), _LONGEST)
        st.text(f"{with_sign(review.status)} by {by}, {moment(review.at_seconds)}{why}")
    if not reviews:
        st.text("none yet")
    if len(reviews) > _MOST:
        st.caption(f"{len(reviews) - _MOST:,} older ones are in `atlas traces show`")


def show_family(store: TraceStore, session: Session) -> None:
    """Links to the session around this one and to those inside it."""
    if session.record.parent:
        st.caption("Part of")
        _link(_found(store, session.record.parent), session.record.parent)
    parts = store.parts(session.id)
    if parts:
        st.caption("Its parts")
    for part in parts[:_MOST]:
        _link(part, part.id)
    if len(parts) > _MOST:
        st.caption(f"and {len(parts) - _MOST:,} more")


def _found(store: TraceStore, id: str) -> SessionRow | None:
    try:
        row = store.row(id)
    except NotFoundError:
        return None
    return row if row.id == id else None


def _link(row: SessionRow | None, id: str) -> None:
    if row is None:
        st.text(f"{visible(id)}, which is not in this store")
        return
    task = " ".join(visible(row.task[:_LONGEST]).split())
    said = f"{task[:_LONGEST_TASK]}{'…' if len(task) > _LONGEST_TASK else ''}" or row.id
    st.markdown(f"[{plain(said)}]({address('traces', **{SESSION: row.id})}) {plain(with_sign(VERDICTS[row.passed]))}")
