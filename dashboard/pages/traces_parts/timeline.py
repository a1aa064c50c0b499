"""A session as it happened: the task, the attempts with what answered and measured each, the end."""

from collections.abc import Sequence
from typing import Literal

import streamlit as st

from atlas.comparison.wording import counted_noun
from atlas.report.chart import COLOURS
from atlas.traces.records import AnyRecord, AttemptRecord, EndRecord, InterventionRecord, OutcomeRecord, SessionRecord
from atlas.traces.sessions import Attempt, Session, in_order
from dashboard.pages.traces_parts.listed import PART
from dashboard.pages.traces_parts.texts import show_calls, show_messages, show_metadata, show_text
from dashboard.pages.traces_parts.words import facts, kind, moment, verdict
from dashboard.states import with_sign
from dashboard.text import cut, plain, visible

EVENTS = 25
"""Attempts, and what belongs to none, on one page of a timeline."""
_MOST_ANSWERS = 40
"""Interventions and outcomes of one attempt that are shown."""
_LONGEST_LINE = 300
_COLOURS: dict[str, Literal["green", "red", "gray"]] = {"passed": "green", "failed": "red", "error": "red"}
_STYLE = f"""<style>
[class*="st-key-traces-answers-"] {{
  border-left: 3px solid {COLOURS[0]}; margin-left: .35rem; padding-left: 1rem; width: calc(100% - .35rem) }}
</style>"""
"""What answers an attempt hangs on a line under it."""


def show_timeline(session: Session) -> None:
    """All of it, a page at a time."""
    st.html(_STYLE)
    _task(session.record)
    events = in_order(
        [
            *(attempt.record for attempt in session.attempts),
            *session.interventions,
            *session.outcomes,
            *session.stale_outcomes,
        ]
    )
    pages = max(1, -(-len(events) // EVENTS))
    page = st.pagination(pages, key=PART, bind="query-params") if pages > 1 else 1
    drawn = _Timeline(session)
    for event in events[EVENTS * (page - 1) : EVENTS * page]:
        drawn.show(event)
    if not events:
        st.caption("Nothing was tried.")
    if page == pages:
        _end(session)
    else:
        st.caption(f"{counted_noun(len(events) - EVENTS * page, 'event')} and the end on the pages that follow")


class _Timeline:
    """Draws events of one session, each with what it refers to."""

    def __init__(self, session: Session) -> None:
        self._begun = session.record.at_seconds
        self._attempts = {attempt.record.id: (n, attempt) for n, attempt in enumerate(session.attempts, 1)}
        last = session.attempts[-1].outcomes if session.attempts else ()
        final = {outcome.id for outcome in session.final_outcomes()}
        self._superseded = {outcome.id for outcome in (*last, *session.outcomes)} - final
        self._stale = {outcome.id for outcome in session.stale_outcomes}
        answers = [*session.interventions, *(each for attempt in session.attempts for each in attempt.interventions)]
        self._interventions = {intervention.id: intervention for intervention in answers}

    def show(self, event: AttemptRecord | InterventionRecord | OutcomeRecord) -> None:
        if isinstance(event, AttemptRecord):
            self._attempt(*self._attempts[event.id])
        elif isinstance(event, InterventionRecord):
            with st.container(border=True):
                self._intervention(event, "answers no attempt that is known")
        else:
            with st.container(border=True):
                self._outcome(event, "of the session as a whole")

    def _attempt(self, number: int, attempt: Attempt) -> None:
        record = attempt.record
        with st.container(border=True):
            _head(f"Attempt {number}", self._said(record), ["error"] if record.error else [])
            if answered := self._interventions.get(record.parent or ""):
                st.caption(plain(f"after the {kind(answered)}"))
            show_text(record.text)
            if record.tool_calls:
                show_calls(record.tool_calls)
            _error(record.error)
            if record.messages:
                with st.expander(f"what the model was given: {counted_noun(len(record.messages), 'message')}"):
                    show_messages(record.messages)
            show_metadata(record.metadata)
            self._answers(number, in_order([*attempt.interventions, *attempt.outcomes]))

    def _answers(self, number: int, answers: Sequence[AttemptRecord | InterventionRecord | OutcomeRecord]) -> None:
        if not answers:
            return
        with st.container(key=f"traces-answers-{number}"):
            for answer in answers[:_MOST_ANSWERS]:
                if isinstance(answer, OutcomeRecord):
                    self._outcome(answer, f"measured after attempt {number}")
                elif isinstance(answer, InterventionRecord):
                    self._intervention(answer, f"answers attempt {number}")
            if len(answers) > _MOST_ANSWERS:
                st.caption(f"{len(answers) - _MOST_ANSWERS:,} more are in `atlas traces show`")

    def _intervention(self, record: InterventionRecord, answers: str) -> None:
        said = kind(record)
        _head(
            said[:1].upper() + said[1:],
            self._said(record, answers),
            ["error"] if record.error else [],
        )
        show_text(record.text)
        _error(record.error)
        show_metadata(record.metadata)

    def _said(self, record: AnyRecord, *before: str) -> str:
        """When it was, since the beginning, and what it cost."""
        return " · ".join([*before, f"{record.at_seconds - self._begun:+.1f} s", *facts(record)])

    def _outcome(self, record: OutcomeRecord, measures: str) -> None:
        score = "no score" if record.score is None else f"score {record.score:g}"
        marks = [verdict(record)]
        if record.id in self._stale:
            marks.append("stale")
        elif record.id in self._superseded:
            marks.append("superseded")
        _head(f"Outcome {record.scorer}", self._said(record, score, measures), marks)
        if record.id in self._stale:
            why = "It measures an attempt that is not there" if record.parent else "An attempt came after it"
            st.caption(f"{why}: it does not say how the session ended.")
        if record.id in self._superseded:
            st.caption("The same scorer measured again later.")
        if record.reference is not None:
            st.text(f"compared with: {cut(visible(record.reference), _LONGEST_LINE)}")
        if record.note:
            show_text(record.note)
        show_metadata(record.metadata)


def _task(record: SessionRecord) -> None:
    with st.container(border=True):
        _head("Task", " · ".join([moment(record.at_seconds), *facts(record)]))
        if isinstance(record.task, str):
            show_text(record.task)
        else:
            show_messages(record.task)
        show_metadata(record.metadata)


def _end(session: Session) -> None:
    end: EndRecord | None = session.end
    with st.container(border=True):
        if end is None:
            _head("Not ended", "open or killed: the agent is still at it, or was ended before it could say so")
            return
        _head("End", f"{end.at_seconds - session.record.at_seconds:+.1f} s", [end.status])
        if end.dropped:
            st.warning(f"{counted_noun(end.dropped, 'event')} of this session could not be written: more happened.")
        if end.answer is not None:
            st.caption("final answer")
            show_text(end.answer)
        _error(end.error)
        show_metadata(end.metadata)


def _head(title: str, said: str, marks: Sequence[str] = ()) -> None:
    """The title, its badges, and what else is known, on one line."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"**{plain(cut(title, _LONGEST_LINE))}**", width="content")
        for mark in marks:
            badge(mark)
        st.caption(plain(cut(said, _LONGEST_LINE)), width="content")


def badge(word: str) -> None:
    """A state or verdict; the word says what the colour does."""
    st.badge(plain(with_sign(word)), color=_COLOURS.get(word, "gray"))


def _error(error: str | None) -> None:
    if error:
        st.caption("error")
        show_text(error)
