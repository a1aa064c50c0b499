"""Pass rate against a clock of choice, and the tables of how far and how soon."""

from collections.abc import Callable

import pandas as pd
import streamlit as st

from atlas.comparison.model import Comparison, RunResult
from atlas.comparison.rows import COLUMNS, final_rows, target_rows
from atlas.comparison.wording import DeviceTime, device_time
from atlas.report import results
from atlas.report.chart import split_of
from dashboard.charts.arms import SHOWN, sign
from dashboard.charts.look import colour
from dashboard.charts.pass_rate import pass_rate_chart
from dashboard.clocks import CLOCKS, Axis, axis_of
from dashboard.links import CLOCK
from dashboard.pages.compare_parts import blocks
from dashboard.pages.compare_parts.drawn import chart

_HALF = 660
"""Pixels of each of two tables side by side."""
_HELP = {
    "seeds": "that have a score on test; before there is one, an evaluation",
    "step 0": "pass rate of the student before training, in %",
    "peak": "mean of each seed's best evaluation, in % [95 % Wilson interval over problems]; it leans upwards",
    "test": "pass rate in % on test, at the checkpoint that was best on dev [95 % Wilson interval over problems]",
    "to peak": "device time to the first evaluation within one standard error of the peak, without loading",
    "in all": "device time of a whole run, without loading and evaluation",
    "tokens": "that the student wrote for training",
    "KL": "reverse, to the teacher, in nats a token",
}


def show(comparison: Comparison) -> Axis:
    """The chart and its tables; returns the clock that was chosen, which the charts below use too."""
    runs = [run for arm in comparison.arms for run in arm.runs]
    clock, fit = _choices()
    axis = axis_of(clock, runs)
    shown = comparison.arms[:SHOWN]
    if len(comparison.arms) > SHOWN:
        rest = len(comparison.arms) - SHOWN
        st.caption(f"The charts show the first {SHOWN} arms; the tables have the other {rest} too.")
    drawing = pass_rate_chart(comparison, axis, shown, fit)
    if drawing is None:
        st.info("No run has been evaluated yet: there is nothing to draw.")
    else:
        chart(drawing, "pass-rate", f"on {split_of(comparison)}, over {axis.name}")
        st.caption(
            "Thick line and band: mean, lowest and highest seed. Thin lines: single seeds. Bars, where an arm has one "
            "seed: 95 % Wilson intervals over problems. ✕: a target reached. A click on the legend highlights an arm."
        )
    _final_table(comparison, runs)
    _target_table(comparison, runs)
    return axis


def _choices() -> tuple[str, bool]:
    """Clock, and whether the scale is that of the runs alone."""
    heading, controls = st.columns([1, 4], vertical_alignment="bottom")
    heading.subheader("Pass rate")
    with controls, st.container(horizontal=True, horizontal_alignment="right", vertical_alignment="center"):
        fit = st.toggle("Zoom to the runs", key="fit", bind="query-params", help="Without the room up to the teacher")
        name = st.segmented_control(
            "Clock of all charts",
            list(CLOCKS),
            default="device time",
            required=True,
            key=CLOCK,
            bind="query-params",
            label_visibility="collapsed",
        )
    return name or "device time", fit


def _final_table(comparison: Comparison, runs: list[RunResult]) -> None:
    unit = device_time(runs)
    headings = [f"{name} ({unit.unit})" if name in ("to peak", "in all") else name for name in COLUMNS]
    frame = pd.DataFrame(final_rows(comparison, unit), columns=headings)
    frame["arm"] = [_signed(place, name, len(comparison.arms)) for place, name in enumerate(frame["arm"])]
    config = {
        heading: st.column_config.TextColumn(help=_HELP.get(name), alignment="left" if name == "arm" else "right")
        for heading, name in zip(headings, COLUMNS, strict=True)
    }
    st.dataframe(
        _coloured(frame, len(comparison.arms)),
        hide_index=True,
        height="content",
        column_config=config,
        alt="The final table: one row for each arm, then the baselines",
        key="final-table",
    )


def _signed(place: int, name: str, arms: int) -> str:
    return f"{sign(place)} {name}" if place < arms else name


def _coloured(frame: pd.DataFrame, arms: int) -> object:
    """The arms' names in the colours of the charts."""
    styles = [f"color: {colour(place)}; font-weight: bold" if place < arms else "" for place in range(len(frame))]
    return frame.style.apply(lambda _: styles, subset=["arm"])


def _target_table(comparison: Comparison, runs: list[RunResult]) -> None:
    if comparison.mismatches:
        return
    with st.container(horizontal=True, gap="large"):  # one below the other where they have no room side by side
        with st.container(width=_HALF):
            st.markdown("**Time to target**")
            if comparison.targets:
                _matrix(comparison, device_time(runs))
                with st.expander("On every clock, with the range over seeds"):
                    blocks.show(results.time_to_target(comparison))
            else:
                blocks.show(results.time_to_target(comparison))
        with st.container(width=_HALF):
            st.markdown("**Why sooner: fewer rollouts, or cheaper ones**")
            if any(verdict.sooner for verdict in comparison.verdicts):
                blocks.show(results.speed_up_split(comparison))
            else:
                st.text("It cannot be said of any two arms which is sooner.")


def _matrix(comparison: Comparison, unit: DeviceTime) -> None:
    """Arms by targets; what was never reached took longer than the runs: `> 5.0 GPU-h`."""
    levels, rates, *times = zip(*target_rows(comparison, unit), strict=True)
    columns = [f"{level} ({rate} %)" for level, rate in zip(levels, rates, strict=True)]
    frame = pd.DataFrame([list(map(_with(unit.unit), of_arm)) for of_arm in times], columns=columns)
    names = [_signed(place, arm.name, len(comparison.arms)) for place, arm in enumerate(comparison.arms)]
    frame.insert(0, "arm", names)
    st.dataframe(
        _coloured(frame, len(names)),
        hide_index=True,
        height="content",
        column_config={name: st.column_config.TextColumn(alignment="right") for name in columns},
        alt="Device time in which each arm reached each level",
        key="target-table",
    )


def _with(unit: str) -> Callable[[str], str]:
    return lambda cell: f"{cell} {unit}" if cell else ""
