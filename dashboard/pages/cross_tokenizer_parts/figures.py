"""What two tokenizers share and how well they line up: numbers and curves by run."""

import math
from collections.abc import Mapping, Sequence

import streamlit as st

from atlas.store import Store
from dashboard.charts import over_steps
from dashboard.curves import Curve, curves
from dashboard.text import plain

_ENOUGH = 0.999
"""Coverage below which a run says so itself."""
_IN_A_ROW = 4
_BOUNDARIES = "boundaries"
_PERCENT, _NUMBER = "{:.1%}", "{:.4g}"
_FIGURES = (
    ("vocabulary that the other has too, by bytes: student, teacher", "alignment/vocab_overlap_bytes", _PERCENT),
    ("vocabulary that the other has too, by strings: student, teacher", "alignment/vocab_overlap_strings", _PERCENT),
    ("roots: tokens that both have", "alignment/roots", "{:,.0f}"),
    ("coverage: the student's tokens in a chunk", "alignment/coverage", "{:.2%}"),
    ("boundaries that the other has too: student, teacher", _BOUNDARIES, _PERCENT),
    ("tokens of a chunk: student, teacher", "alignment/chunk_len", _NUMBER),
    ("chunks of one token on both sides", "alignment/one_to_one", _PERCENT),
    ("mass on tokens that the other has too: student, teacher", "alignment/shared_mass", _PERCENT),
    ("chunks whose first tokens have one root", "alignment/root_agreement", _PERCENT),
    ("chunks that the student's tokenizer splits otherwise", "alignment/noncanonical", _PERCENT),
    ("ends of turn that face one of the teacher", "alignment/eot_aligned", _PERCENT),
    ("bits a byte: student, teacher", "train/bits_per_byte", _NUMBER),
    ("reverse KL, nats a chunk", "train/reverse_kl", _NUMBER),
)
"""What it is, the metric or, of both sides, how `<metric>_student` and `<metric>_teacher` begin, and its form."""
_PANELS = (
    ("coverage", "alignment/coverage", _ENOUGH),
    ("reverse KL, nats a chunk", "train/reverse_kl", None),
    ("same root first, share", "alignment/root_agreement", None),
    ("noncanonical chunks, share", "alignment/noncanonical", None),
    ("student's mass on shared tokens", "alignment/shared_mass_student", None),
    ("teacher's mass on shared tokens", "alignment/shared_mass_teacher", None),
    ("student's bits a byte", "train/bits_per_byte_student", None),
    ("teacher's bits a byte", "train/bits_per_byte_teacher", None),
)


def show_curves(store: Store, names: Mapping[str, str]) -> None:
    """Of the runs with these ids, each under its name."""
    _warn(store, names)
    _panels(store, names)


def show_table(store: Store, names: Mapping[str, str]) -> None:
    """The newest values of the runs with these ids, each under its name."""
    latest = store.latest_of(list(names))
    table: dict[str, list[str]] = {"newest value": [label for label, _, _ in _FIGURES]}
    for run_id, name in names.items():
        table[name] = [_text(_values(latest[run_id], metric), form) for _, metric, form in _FIGURES]
    column = {"newest value": st.column_config.TextColumn(pinned=True, width=430)}
    st.dataframe(
        table, hide_index=True, height="content", column_config=column, alt="Newest alignment metrics of each run"
    )


def _warn(store: Store, names: Mapping[str, str]) -> None:
    """Of each run the step at which it covered the least, where that is too little."""
    for run_id, name in names.items():
        points = [(value, step) for step, value in store.metrics(run_id, "alignment/coverage") if value < _ENOUGH]
        if not points:
            continue
        least, step = min(points)
        st.warning(
            f"**{plain(name)}**: at step {step} only {least:.2%} of the student's tokens face tokens of the teacher, "
            f"and the others are not learnt from; below {_ENOUGH:.1%} in {len(points):,} steps. "
            "`atlas tokenizers STUDENT TEACHER` shows what the teacher cannot write."
        )


def _panels(store: Store, names: Mapping[str, str]) -> None:
    numbers = {name: number for number, name in enumerate(names.values())}
    if len(names) > 1:
        st.altair_chart(over_steps.key(numbers), width="content")
    for start in range(0, len(_PANELS), _IN_A_ROW):
        for column, (title, metric, line) in zip(
            st.columns(_IN_A_ROW), _PANELS[start : start + _IN_A_ROW], strict=True
        ):
            found = curves(store, list(names), metric, "step")
            drawn = {names[run_id]: curve for run_id, curve in found.items()}
            with column:
                _panel(drawn, numbers, title, line)


def _panel(drawn: Mapping[str, Curve], numbers: Mapping[str, int], title: str, line: float | None) -> None:
    if not drawn:
        st.caption(f"{title}: not measured")
        return
    shown = line if line is not None and any((curve.value_N < line).any() for curve in drawn.values()) else None
    st.altair_chart(over_steps.panel(drawn, numbers, title, shown), key=f"panel-{title}")
    odd = [f"{plain(name)} {_odd(curve.nonfinite)}" for name, curve in drawn.items() if curve.nonfinite]
    if odd:
        st.caption(f"Not drawn: {'; '.join(odd)}")


def _odd(points: Sequence[tuple[float, str]]) -> str:
    return ", ".join(f"{word} at step {step:,.0f}" for step, word in points[:3])


def _values(latest: Mapping[str, float], metric: str) -> list[float]:
    """One value, those of student and teacher, or none."""
    if metric == _BOUNDARIES:  # a chunk has one boundary at its end, and a token too
        return [1 / length if length else math.nan for length in _values(latest, "alignment/chunk_len")]
    wanted = (metric, f"{metric}_student", f"{metric}_teacher")
    return [latest[name] for name in wanted if name in latest]


def _text(values: Sequence[float], form: str) -> str:
    return " / ".join(form.format(value) if math.isfinite(value) else str(value) for value in values)
