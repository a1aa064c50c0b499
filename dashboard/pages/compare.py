"""Compare: who gets further, who is sooner, and how sure that is."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import streamlit as st

from atlas.comparison import export
from atlas.comparison.model import Comparison
from atlas.comparison.wording import counted_noun
from atlas.errors import AtlasError
from atlas.store import AT_REST, Store
from dashboard.live import live
from dashboard.opening import opened_store, problem
from dashboard.pages.compare_parts import (
    config,
    guide,
    hours,
    metrics,
    problems,
    progress,
    runs_table,
    verdicts,
)
from dashboard.pages.compare_parts.choice import Choice, chosen, compared, goes_on, states
from dashboard.text import plain


def page() -> None:
    """Draws the page; the address says what is compared and how it is seen."""
    store = opened_store()
    try:
        experiments = store.experiments()
    except AtlasError as error:
        problem("The experiments cannot be read", error)
        experiments = []
    choice = chosen(experiments, store.runs())
    if not choice.references:
        guide.show(experiments)
        return
    live(lambda: _body(store, choice), lambda: goes_on(store, choice))


def _body(store: Store, choice: Choice) -> None:
    comparison = compared(store, choice)
    if comparison is None:
        return
    now = states(store, choice)
    _heading(comparison, choice, now)
    if comparison.mismatches:  # side by side, but nothing is claimed
        comparison = replace(comparison, targets=(), verdicts=())
    verdicts.show(comparison, now)
    if not any(arm.runs for arm in comparison.arms):
        runs_table.show(comparison, now)
        return
    axis = progress.show(comparison)
    later = st.container()  # reading the metrics may take long: all else is drawn before them
    hours.show(comparison)
    config.show(comparison)
    problems.show(comparison)
    runs_table.show(comparison, now)
    with later:
        metrics.show(store, comparison, axis)


def _heading(comparison: Comparison, choice: Choice, now: Mapping[str, str]) -> None:
    title, downloads = st.columns([3, 1], vertical_alignment="bottom")
    runs = [run for arm in comparison.arms for run in arm.runs]
    seeds = len({run.seed for run in runs})
    counts = ", ".join(f"{count} {state}" for state, count in Counter(now.values()).most_common())
    moving = " · follows every two seconds" if any(state not in AT_REST for state in now.values()) else ""
    with title:
        st.header(plain(comparison.title))
        st.caption(
            f"{counted_noun(len(comparison.arms), 'arm')} · {counted_noun(seeds, 'seed')} · {counts or 'no runs'}"
            f"{moving} · the same in a terminal: `atlas compare {_in_code(' '.join(choice.references))}`"
        )
    name = "-".join(choice.references)[:60]
    with downloads, st.container(horizontal=True, horizontal_alignment="right"):
        st.download_button(
            "CSV",
            lambda: export.as_csv(comparison),
            f"{name}.csv",
            "text/csv",
            key="csv",
            on_click="ignore",
            icon=":material/download:",
            help="One line for each run, as `atlas compare --csv` prints it",
        )
        st.download_button(
            "JSON",
            lambda: json.dumps(export.document(comparison), indent=2, allow_nan=False),
            f"{name}.json",
            "application/json",
            key="json",
            on_click="ignore",
            icon=":material/download:",
            help="All numbers, as `atlas compare --json` prints them",
        )


def _in_code(text: str) -> str:
    return text.replace("`", "'")
