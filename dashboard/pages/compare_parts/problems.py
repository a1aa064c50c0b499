"""Test problems that were gained and lost, each with what both sides wrote a click away."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from atlas.comparison.arms import unfailed
from atlas.comparison.model import ArmResult, Comparison, RunResult, Verdict
from dashboard.links import RUNS, address
from dashboard.text import plain

_LISTED = 500


def show(comparison: Comparison) -> None:
    """For each verdict: how many, and which."""
    changed = [verdict for verdict in comparison.verdicts if verdict.gained_P or verdict.lost_P]
    if not comparison.verdicts:
        return
    st.subheader("Gained and lost problems")
    if not changed:
        st.text("None: no test problem is known that most seeds of one arm solve and most of the other do not.")
        return
    arms = {arm.name: arm for arm in comparison.arms}
    for verdict in changed:
        counts = f"{len(verdict.gained_P)} gained, {len(verdict.lost_P)} lost"
        with st.expander(f"**{plain(verdict.arm)}** against **{plain(verdict.reference)}**: {counts}"):
            _of(verdict, arms[verdict.arm], arms[verdict.reference])


def _of(verdict: Verdict, arm: ArmResult, reference: ArmResult) -> None:
    gained, lost = st.columns(2, gap="large")
    with gained:
        _list(f"{arm.name} solves, {reference.name} does not", verdict.gained_P, arm, reference, f"gained-{arm.name}")
    with lost:
        _list(f"{reference.name} solves, {arm.name} does not", verdict.lost_P, reference, arm, f"lost-{arm.name}")


def _list(heading: str, problems: Sequence[str], winner: ArmResult, loser: ArmResult, key: str) -> None:
    st.markdown(f"**{plain(heading)}** ({len(problems)})")
    if not problems:
        return
    shown = problems[:_LISTED]
    right, wrong = _graders(winner), _graders(loser)
    rows = pd.DataFrame(
        {
            "": [_link(problem, right, wrong) for problem in shown],
            "problem": shown,
        }
    )
    st.dataframe(
        rows,
        hide_index=True,
        height=min(36 * (len(shown) + 1) + 2, 400),
        column_config={"": st.column_config.LinkColumn(display_text="side by side", width="small")},
        alt=f"Problems that {heading}",
        key=key,
    )
    if len(shown) < len(problems):
        st.caption(f"The first {_LISTED} of {len(problems)}.")


_Graded = list[tuple[RunResult, dict[str, float]]]
"""Runs with a test score, each with its problems' outcomes."""


def _graders(arm: ArmResult) -> _Graded:
    return [
        (run, dict(zip(run.test_problems_P, run.test_correct_P.tolist(), strict=True)))
        for run in unfailed(arm.runs)
        if run.test_correct_P is not None
    ]


def _link(problem: str, winners: _Graded, losers: _Graded) -> str:
    """To the first seed of each side that was graded as most of its seeds were."""
    right = next((run.id for run, graded in winners if graded.get(problem, 0.0) > 0.5), None)
    wrong = next((run.id for run, graded in losers if graded.get(problem, 1.0) < 0.5), None)
    runs = [run_id for run_id in (wrong, right) if run_id is not None]
    return address("samples", **{RUNS: runs, "split": "test", "problem": problem})
