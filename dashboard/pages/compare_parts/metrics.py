"""Any metric over the chosen clock, several side by side."""

from collections.abc import Sequence

import streamlit as st

from atlas.comparison.model import Comparison
from atlas.store import Store
from dashboard.charts.arms import SHOWN
from dashboard.charts.metric import all_positive, metric_chart
from dashboard.clocks import Axis
from dashboard.curves import Curve, curves
from dashboard.links import METRIC, begin_with
from dashboard.pages.compare_parts.drawn import chart
from dashboard.text import plain

COMMON = (
    "train/reverse_kl",
    "train/reward",
    "train/entropy",
    "train/completions/mean_length",
    "train/completions/clipped_ratio",
    "train/frac_reward_zero_std",
    "train/loss",
    "loss/dense",
    "loss/remainder",
)
"""What is asked for most; first in the list, and those that some run has are shown at first, up to _AT_FIRST."""
_AT_FIRST, _MOST, _IN_A_ROW = 6, 12, 3
_SPANS = ("off", "5", "10", "20", "50", "100", "200", "500", "1000")
"""Recorded points that a smoothed line looks back over."""


def show(store: Store, comparison: Comparison, axis: Axis) -> None:
    """Choices, then one chart for each metric."""
    st.subheader("Metrics")
    arms = {arm.name: [run.id for run in arm.runs] for arm in comparison.arms[:SHOWN]}
    run_ids = [run_id for ids in arms.values() for run_id in ids]
    known = names_in_order(store, run_ids)
    if not known:
        st.info("No run has recorded a metric yet.")
        return
    chosen, span, log = _choices(known)
    for start in range(0, len(chosen), _IN_A_ROW):
        for place, name in zip(
            st.columns(min(_IN_A_ROW, len(chosen))), chosen[start : start + _IN_A_ROW], strict=False
        ):
            with place:
                _one(name, arms, curves(store, run_ids, name, axis.clock), span, axis, log)


def names_in_order(store: Store, run_ids: Sequence[str]) -> list[str]:
    """The metrics that some run has: the common ones, alignment's, then the others by their group."""
    there = {name for latest in store.latest_of(run_ids).values() for name in latest}
    first = [name for name in COMMON if name in there]
    alignment = sorted(name for name in there if name.startswith("alignment/"))
    return list(dict.fromkeys([*first, *alignment, *sorted(there)]))


def _choices(known: Sequence[str]) -> tuple[list[str], float | None, bool]:
    common = [name for name in known if name in COMMON or name.startswith("alignment/")]
    begin_with(METRIC, (common or list(known))[:_AT_FIRST])
    picker, slider, toggle = st.columns([6, 2, 1], vertical_alignment="bottom")
    chosen = picker.multiselect(
        f"Metrics (up to {_MOST})", known, key=METRIC, bind="query-params", max_selections=_MOST
    )
    span = slider.select_slider(
        "Smoothing (recorded points)",
        _SPANS,
        key="smoothing",
        bind="query-params",
        help="Of the thick lines: an exponential mean over so many points. What was recorded stays visible, thin.",
    )
    log = toggle.toggle("Log", key="log", bind="query-params", help="Logarithmic values, where all are positive.")
    return chosen, None if span == "off" else float(span), log


def _one(
    name: str, arms: dict[str, list[str]], raw: dict[str, Curve], span: float | None, axis: Axis, log: bool
) -> None:
    linear = " · not all positive, so not logarithmic" if log and not all_positive(raw) else ""
    drawing = metric_chart(name, arms, raw, span, axis, log)
    if drawing is None:
        st.markdown(f"**{plain(name)}**")
        st.caption("No chosen run has it over this clock.")
        return
    chart(drawing, name.replace("/", "-"), f"**{plain(name)}**{linear}")
