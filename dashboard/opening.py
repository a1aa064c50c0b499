"""The stores that pages read, and what a visitor sees when there is none."""

from pathlib import Path
from typing import NoReturn

import streamlit as st

from atlas.errors import AtlasError
from atlas.scheduler import observed_state
from atlas.store import ExperimentRecord, RunRecord, Store, home_from_environment
from atlas.store.traces import FILE_NAME, TraceStore
from dashboard.text import plain, visible


def opened_store() -> Store:
    """The store of this home, for reading only. Stops the page with what to do if it cannot be read."""
    path = home_from_environment() / "atlas.db"
    if not path.is_file():
        st.subheader("No runs yet")
        st.text(f"There is no store at {path}. The first run makes one:")
        st.code("atlas submit specs/quickstart/experiment.yaml", language=None)
        st.stop()
    try:
        return _open(path, path.stat().st_ino)
    except AtlasError as error:
        problem("The store cannot be read", error)
        st.stop()


def opened_traces() -> TraceStore:
    """The store of traces of this home, for reading only. Stops the page with what to do if it cannot be read."""
    path = home_from_environment() / FILE_NAME
    if not path.is_file():
        no_traces(f"There is no store at {path}.")
    try:
        return _open_traces(path, path.stat().st_ino)
    except AtlasError as error:
        problem("The store of traces cannot be read", error)
        st.stop()


def no_traces(why: str) -> NoReturn:
    """Stops the page with what makes traces."""
    st.subheader("No traces yet")
    st.text(f"{visible(why)} Agents that run with atlas.sdk leave files of traces; importing takes them in:")
    st.code("atlas traces import FOLDER", language=None)
    st.stop()


def problem(heading: str, error: AtlasError) -> None:
    """Says what is wrong in the error's own words, which hold the next step."""
    st.error(f"**{plain(heading)}**")
    st.code(str(error), language=None, wrap_lines=True)


def state_of(store: Store, run: RunRecord) -> str:
    """The run's state as it is now: `lost` where the worker of an active run is dead and has left no result."""
    try:
        return observed_state(store, run)
    except (AtlasError, ValueError):  # a job that another version of Atlas wrote
        return run.state


def experiments_of(store: Store) -> tuple[list[ExperimentRecord], AtlasError | None]:
    """All of them, newest first; or none, and why one cannot be read. Read again only when there is another."""
    folder = store.home / "experiments"
    try:
        changed = folder.stat().st_mtime_ns if folder.is_dir() else 0
        return _experiments(store.home.as_posix(), changed, store), None
    except AtlasError as error:
        return [], error


@st.cache_data(max_entries=2, show_spinner=False)
def _experiments(home: str, changed: int, _store: Store) -> list[ExperimentRecord]:
    return _store.experiments()


@st.cache_resource(max_entries=2, show_spinner=False)
def _open(path: Path, inode: int) -> Store:
    """Opened again where `atlas reindex` has put another file in its place."""
    return Store.open_read_only(path.parent)


@st.cache_resource(max_entries=2, show_spinner=False)
def _open_traces(path: Path, inode: int) -> TraceStore:
    return TraceStore.open_read_only(path.parent)
