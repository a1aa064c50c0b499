"""The answer: what may be said, and how sure it is. Or why nothing may be said."""

from collections.abc import Mapping, Sequence

import streamlit as st

from atlas.comparison.model import Comparison
from dashboard.charts.arms import sign
from dashboard.charts.forest import difference_chart, speed_chart
from dashboard.pages.compare_parts.drawn import chart
from dashboard.text import plain

_TALL = 6
"""Verdicts from which on they scroll in their own box."""


def show(comparison: Comparison, states: Mapping[str, str]) -> None:
    """The verdicts in words and as intervals; in their place, what breaks the comparison. Then what is not there."""
    if comparison.mismatches:
        _not_comparable(comparison.mismatches)
    elif comparison.verdicts:
        _verdicts(comparison)
    elif len(comparison.arms) == 1:
        st.info("One arm: there is nothing to compare it with yet. Add runs of another job above.")
    _lines(st.warning, "Not there", [*comparison.missing, *_lost(comparison, states)])
    _lines(st.info, "To be careful about", comparison.notes)


def _not_comparable(mismatches: Sequence[str]) -> None:
    lines = "".join(f"\n- {plain(line)}" for line in mismatches)
    st.error(
        "**Not comparable: these runs were not measured in the same way.** They stand side by side, without verdicts, "
        f"as `atlas compare --force` shows them.\n{lines}",
        icon=":material/error:",
    )


def _verdicts(comparison: Comparison) -> None:
    words, pictures = st.columns([6, 5], gap="large")
    names = [arm.name for arm in comparison.arms]
    signs = {name: sign(number) for number, name in enumerate(names)}
    many = len(comparison.verdicts) > _TALL
    with words, st.container(height=460 if many else "content", border=many):
        for verdict in comparison.verdicts:
            st.markdown(
                f"##### {signs[verdict.arm]} {plain(verdict.arm)} against "
                f"{signs[verdict.reference]} {plain(verdict.reference)}\n"
                + "\n\n".join(plain(sentence) for sentence in verdict.sentences)
            )
    with pictures:
        further, sooner = difference_chart(comparison, names), speed_chart(comparison, names)
        if further is not None:
            chart(further, "further", f"**Further than {plain(names[0])}**, on test")
        if sooner is not None:
            chart(sooner, "sooner", f"**Sooner than {plain(names[0])}**, in training time")


def _lost(comparison: Comparison, states: Mapping[str, str]) -> list[str]:
    """Runs that the store still calls running."""
    return [
        f"{arm.name} s{run.seed} is lost: its worker is dead and has left no result ({run.id})"
        for arm in comparison.arms
        for run in arm.runs
        if states.get(run.id) == "lost" and run.state != "lost"
    ]


def _lines(box: object, heading: str, lines: Sequence[str]) -> None:
    if lines:
        assert callable(box)
        box(f"**{heading}**\n" + "".join(f"\n- {plain(line)}" for line in lines))
