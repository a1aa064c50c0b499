"""What is compared: an experiment, or runs by id."""

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from atlas.comparison.collect import collect
from atlas.comparison.model import Comparison
from atlas.errors import AtlasError
from atlas.store import AT_REST, ExperimentRecord, RunRecord, Store
from dashboard.links import EXPERIMENT, RUNS, asked_for
from dashboard.opening import problem, state_of
from dashboard.text import plain


@dataclass(frozen=True)
class Choice:
    """What the visitor wants to see compared."""

    references: tuple[str, ...]
    """As `collect` and `atlas compare` take them; empty where nothing is chosen."""
    run_ids: tuple[str, ...]
    """Of all runs concerned, those that are gone too."""


def chosen(experiments: Sequence[ExperimentRecord], runs: Sequence[RunRecord]) -> Choice:
    """Draws the two choosers; choosing in one empties the other. An address that names both shows the experiment."""
    ids, run_ids = [record.id for record in experiments], [run.id for run in runs]
    unknown = [name for name in asked_for(EXPERIMENT) if name and name not in ids]
    unknown += [name for name in asked_for(RUNS) if name and name not in run_ids]
    if unknown:
        st.warning(f"Not in this store: {plain(', '.join(unknown))}")
    left, right = st.columns([2, 5])
    experiment = left.selectbox(
        "Experiment",
        ids,
        index=None,
        key=EXPERIMENT,
        bind="query-params",
        placeholder="choose one",
        on_change=_forget,
        args=(RUNS, []),
    )
    named = right.multiselect(
        "or runs, side by side",
        run_ids,
        key=RUNS,
        bind="query-params",
        placeholder="choose runs by id",
        on_change=_forget,
        args=(EXPERIMENT, None),
    )
    if experiment is not None:
        record = next(record for record in experiments if record.id == experiment)
        return Choice((experiment,), tuple(record.run_ids))
    return Choice(tuple(named), tuple(named))


def _forget(other: str, nothing: object) -> None:
    st.session_state[other] = nothing


def compared(store: Store, choice: Choice) -> Comparison | None:
    """The comparison as it stands now; None, with the reason on the page, where it cannot be made."""
    try:
        return _collected(store.path.parent.as_posix(), choice.references, _stand(store, choice), store)
    except AtlasError as error:
        problem("These runs cannot be compared", error)
        return None


def states(store: Store, choice: Choice) -> dict[str, str]:
    """Run id -> its state now, of the runs that are in the store; `lost` where a worker is dead."""
    return {run.id: state_of(store, run) for run in _records(store, choice)}


def goes_on(store: Store, choice: Choice) -> bool:
    """Some of the runs may still change."""
    return any(state not in AT_REST for state in states(store, choice).values())


def _records(store: Store, choice: Choice) -> list[RunRecord]:
    wanted = set(choice.run_ids)
    return [run for run in store.runs() if run.id in wanted]


def _stand(store: Store, choice: Choice) -> tuple[tuple[object, ...], ...]:
    """Differs as soon as one of the runs has gone on."""
    return tuple(
        (run.id, run.state, run.fence, run.metrics_offset_bytes, run.samples_offset_bytes)
        for run in _records(store, choice)
    )


@st.cache_resource(max_entries=6, show_spinner=False)
def _collected(
    home: str, references: tuple[str, ...], stand: tuple[tuple[object, ...], ...], _store: Store
) -> Comparison:
    return collect(_store, references, force=True)
