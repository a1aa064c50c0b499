"""The list of problems, and the one that is looked at."""

from collections.abc import Mapping, Sequence

import streamlit as st

from atlas.comparison.by_problem import Evaluation, Grade
from atlas.comparison.names import short_names
from atlas.store.problems import Problem
from dashboard.text import visible

_MOST_ROWS = 5000
_LIST, _DRAWN = "samples-list", "samples-list-drawn"


def choose(compared: Sequence[Evaluation], shown: Sequence[str], asked: Mapping[str, Problem], key: str) -> str:
    """The problem that the session state names under `key`, one of `shown`: chosen in the list, in the box, or by next
    and previous."""
    _list(compared, shown[:_MOST_ROWS], asked, key)
    if len(shown) > _MOST_ROWS:
        st.caption(f"The list has the first {_MOST_ROWS:,}; the search and the box below find the others.")
    chosen: str = st.session_state[key]
    place = shown.index(chosen)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        # Without a default: what equals one is left out of the address.
        st.selectbox("Problem", shown, index=None, key=key, bind="query-params", on_change=_draw_anew, width=320)
        for label, to, icon in (("Previous", place - 1, "chevron_left"), ("Next", place + 1, "chevron_right")):
            there = 0 <= to < len(shown)
            st.button(
                label,
                icon=f":material/{icon}:",
                disabled=not there,
                on_click=_go,
                args=(key, shown[to] if there else shown[place]),
            )
        st.caption(f"{place + 1} of {len(shown)}")
    return chosen


def _list(compared: Sequence[Evaluation], shown: Sequence[str], asked: Mapping[str, Problem], key: str) -> None:
    table: dict[str, list[str]] = {"problem": list(shown)}
    if asked:
        table["asked"] = [visible(asked[problem].text)[:200] if problem in asked else "" for problem in shown]
        table["gold"] = [visible(asked[problem].answer)[:200] if problem in asked else "" for problem in shown]
    for name, evaluation in zip(column_names(compared), compared, strict=True):
        table[name] = [_verdict(evaluation.grades.get(problem)) for problem in shown]
    list_key = f"{_LIST}-{st.session_state.get(_DRAWN, 0)}-{hash(tuple(shown))}"

    def clicked() -> None:
        rows = st.session_state[list_key].selection.rows
        if rows:
            st.session_state[key] = shown[rows[0]]

    chosen = st.session_state[key]
    rows = [shown.index(chosen)] if chosen in shown else []
    st.dataframe(
        table,
        height=260,
        hide_index=True,
        key=list_key,
        on_select=clicked,
        selection_mode="single-row",
        selection_default={"selection": {"rows": rows, "columns": [], "cells": []}},
        column_config={
            "problem": st.column_config.TextColumn(width=150, pinned=True),
            "asked": st.column_config.TextColumn(width=300 if len(compared) > 3 else None),
        },
        alt="Problems with the verdict and the extracted answer in each evaluation",
    )


def column_names(compared: Sequence[Evaluation]) -> list[str]:
    """Short, and different."""
    names = short_names([evaluation.run_id for evaluation in compared])
    return [f"{names[evaluation.run_id]} step {evaluation.step}" for evaluation in compared]


def _verdict(grade: Grade | None) -> str:
    """`✓ 42`, with every completion's answer; `✗ none` where none was found."""
    if grade is None:
        return "not asked"
    answers = [visible(answer)[:40] if answer is not None else "none" for answer in grade.extracted[:4]]
    marks = "✓" if grade.correct == 1 else "✗" if grade.correct == 0 else f"{100 * grade.correct:.0f} %"
    return f"{marks} {' | '.join(answers)}{' (clipped)' if grade.clipped else ''}"


def _go(key: str, problem: str) -> None:
    st.session_state[key] = problem
    _draw_anew()


def _draw_anew() -> None:
    """The list marks the chosen row only when it is made: it is made again where something else has chosen."""
    st.session_state[_DRAWN] = st.session_state.get(_DRAWN, 0) + 1
