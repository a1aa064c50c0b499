"""What differs between the arms, and nothing else."""

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from atlas.comparison.controls import all_differences, why_it_breaks
from atlas.comparison.model import Comparison
from atlas.report import conditions
from dashboard.pages.compare_parts import blocks
from dashboard.text import plain

_RED = "color: #C62828; font-weight: bold"
"""Readable on white; on black the sign and the words say the same."""


def show(comparison: Comparison) -> None:
    """Every field in which the arms differ; red, with a sign and the reason, where that breaks the comparison."""
    st.subheader("What differs")
    differences = all_differences(comparison)
    if differences:
        _table(comparison, differences)
    else:
        st.text("Nothing: there is one arm, or the arms are the same job.")
    if comparison.arms and comparison.arms[0].runs:
        blocks.show(conditions.resolved_spec(comparison))
        with st.expander("Data, grader, models, code and machine"):
            blocks.show(conditions.provenance(comparison))


def _table(comparison: Comparison, differences: Mapping[str, Mapping[str, Any]]) -> None:
    names = [arm.name for arm in comparison.arms]
    reasons = {path: why_it_breaks(comparison, path, values) for path, values in differences.items()}
    paths = sorted(differences, key=lambda path: reasons[path] is None)
    rows = [
        [
            path,
            f"✗ {reasons[path]}" if reasons[path] else "compared",
            *(_value(differences[path].get(name)) for name in names),
        ]
        for path in paths
    ]
    frame = pd.DataFrame(rows, columns=["field", "standing", *names])
    broken = [reasons[path] is not None for path in paths]
    if any(broken):
        st.markdown(
            f":red[**✗ {sum(broken)} of {len(paths)} differences break the comparison**]: they are in more than "
            "what is compared."
        )
    st.dataframe(
        frame.style.apply(lambda column: [_RED if bad else "" for bad in broken], axis=0),
        hide_index=True,
        height="content" if len(rows) <= 25 else 600,
        alt="Fields in which the arms differ",
        key="differences",
    )
    st.caption(
        plain("Every field of the resolved jobs that is not the same in all arms, but name and seed. -: none, or null.")
    )


def _value(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
