"""One problem: what was asked, and what was written in each evaluation."""

from collections.abc import Sequence

import streamlit as st

from atlas.comparison.by_problem import Evaluation
from atlas.store import SampleRecord, Store
from atlas.store.problems import Problem
from dashboard.links import RUNS, address
from dashboard.text import cut, plain, visible

_LONGEST = 6000
"""Characters of a completion that are shown."""
_LONGEST_ANSWER = 400
_TALL, _TALL_LINES, _HEIGHT = 1200, 24, 480
"""More characters or lines than these scroll in a box of this height, so that the columns stay side by side."""
_MOST_SAMPLES = 4
"""Completions of one problem in one evaluation that are shown."""
_IN_ONE_ROW, _WIDTH = 3, 368


def show(store: Store, compared: Sequence[Evaluation], split: str, problem_id: str, problem: Problem | None) -> None:
    """The prompt and the gold answer, then one column for each evaluation; the first is the reference."""
    if problem is not None:
        left, right = st.columns([4, 1])
        with left:
            st.caption("Asked")
            st.code(cut(visible(problem.text), _LONGEST), language=None, wrap_lines=True)
        with right:
            st.caption("Gold answer")
            st.code(cut(visible(problem.answer), _LONGEST), language=None, wrap_lines=True)
    few = len(compared) <= _IN_ONE_ROW
    row = st.container(horizontal=True)
    columns = st.columns(len(compared)) if few else [row.container(width=_WIDTH) for _ in compared]
    for number, (column, evaluation) in enumerate(zip(columns, compared, strict=True)):
        with column, st.container(border=True):
            reference = " (reference)" if number == 0 and len(compared) > 1 else ""
            link = address("run", **{RUNS: evaluation.run_id})
            st.markdown(f"[{plain(evaluation.run_id)}]({link}) step {evaluation.step}{reference}")
            samples = store.sample_of(evaluation.run_id, evaluation.step, split, problem_id)
            for sample in samples[:_MOST_SAMPLES]:
                _sample(sample, f"{number}-{sample.sample}")
            if len(samples) > _MOST_SAMPLES:
                st.caption(f"{len(samples) - _MOST_SAMPLES} more completions of this problem")
            if not samples:
                st.text("This problem was not asked here.")


def _sample(sample: SampleRecord, key: str) -> None:
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        _verdict(sample)
        if sample.extracted is not None:
            st.text(f"answer: {cut(visible(sample.extracted), _LONGEST_ANSWER)}", width="content")
        if sample.clipped:
            st.badge("cut at the token limit", icon=":material/content_cut:", color="orange")
        st.caption(f"{sample.tokens:,} tokens", width="content")
    high = len(sample.completion) > _TALL or sample.completion.count("\n") > _TALL_LINES
    completion = cut(visible(sample.completion), _LONGEST)
    st.code(completion, language=None, wrap_lines=True, height=_HEIGHT if high else "content")
    if len(sample.completion) > _LONGEST:
        st.download_button(
            "The whole completion",
            sample.completion.encode("utf-8", "backslashreplace"),
            f"{file_name(sample)}.txt",
            "text/plain",
            key=f"whole-{key}",
            on_click="ignore",
        )


def _verdict(sample: SampleRecord) -> None:
    if sample.correct:
        st.badge("right", icon=":material/check:", color="green")
    elif sample.found:
        st.badge("wrong", icon=":material/close:", color="red")
    else:
        st.badge("no answer found", icon=":material/help:", color="red")


def file_name(sample: SampleRecord) -> str:
    """Of one completion: letters, digits and dashes, whatever the problem is called."""
    problem = "".join(c if c.isalnum() and c.isascii() else "-" for c in sample.problem_id)[:60]
    return f"step-{sample.step}-{problem}-{sample.sample}"
