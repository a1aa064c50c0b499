"""What is kept of a run beside its numbers: events, log, spec, environment, checkpoints."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st
import yaml

from atlas import run_files
from atlas.errors import AtlasError
from atlas.store import RunRecord, Store
from atlas.worker import log_tail
from dashboard.opening import problem
from dashboard.pages.run_parts.words import size, words
from dashboard.text import aligned

_LOG_LINES = 200
_MOST_EVENTS = 500


def show_events_and_log(store: Store, run: RunRecord) -> None:
    """Newest events first; the end of the log."""
    events = store.events(run.id)[-_MOST_EVENTS:]
    frame = pd.DataFrame(
        {
            "time": [datetime.fromtimestamp(event.at_seconds).astimezone() for event in reversed(events)],
            "event": [event.kind for event in reversed(events)],
            "message": [words(event.message, 1000) for event in reversed(events)],
        }
    )
    st.markdown("**Events**")
    st.dataframe(
        frame,
        hide_index=True,
        height=32 * (min(len(events), 8) + 1) + 3,
        row_height=32,
        column_config={
            "time": st.column_config.DatetimeColumn("time", format="YYYY-MM-DD HH:mm:ss", width=160),
            "event": st.column_config.TextColumn("event", width=170),
            "message": st.column_config.TextColumn("message"),
        },
        alt="events of the run, newest first",
    )
    st.markdown(f"**Log**, the last {_LOG_LINES} lines")
    tail = log_tail(Path(run.run_dir), _LOG_LINES)
    if not tail:
        st.text("Nothing: the worker has not written yet, or its log is gone.")
        return
    st.code(words(tail, 70_000), language=None, wrap_lines=True, height=600)


def show_spec(store: Store, run: RunRecord) -> None:
    """The file as it was submitted, and the job that was made of it."""
    left, right = st.columns(2)
    with left:
        st.markdown("**As submitted**")
        _guarded("spec.json cannot be understood", lambda: _submitted(run))
    with right:
        st.markdown("**As resolved**, to be submitted again")
        st.code(words(_resolved(store, run), 100_000), language="yaml", height=700)


def show_environment(run: RunRecord) -> None:
    """Versions, machine, GPUs, commit and patch; the checkpoints on disk."""
    run_dir = Path(run.run_dir)
    left, right = st.columns(2)
    with left:
        st.markdown("**Environment** of the newest attempt")
        _guarded("environment.json cannot be understood", lambda: _environment(run_dir))
    with right:
        st.markdown("**Checkpoints** on disk")
        _checkpoints(run_dir)
        st.markdown("**Project** at submission")
        _guarded("the project's state cannot be understood", lambda: _project(run_dir))


def _submitted(run: RunRecord) -> None:
    document = run_files.submitted(Path(run.run_dir))
    if not document:
        st.text("spec.json is gone; what was resolved from it is in the store.")
        return
    facts = {
        "file": document.get("spec_file"),
        "by": document.get("command"),
        "atlas": document.get("atlas_version"),
    }
    st.code(words(aligned(_texts(facts)), 4000) or "not recorded", language=None, wrap_lines=True)
    text = document.get("spec_text")
    if text:
        st.code(words(str(text), 100_000), language="yaml", wrap_lines=True)
    else:
        st.text("The file's text was not kept: the run was not submitted from a file.")


def _resolved(store: Store, run: RunRecord) -> str:
    text = store.spec(run.id)
    try:
        return yaml.safe_dump(json.loads(text), sort_keys=False, allow_unicode=True)
    except (ValueError, yaml.YAMLError):
        return text  # of an Atlas that writes otherwise


def _environment(run_dir: Path) -> None:
    found = run_files.environment(run_dir)
    if not found:
        st.text("Not recorded: the worker has not started, or environment.json is gone.")
        return
    atlas, packages, gpus = (found.get(name) for name in ("atlas", "packages", "gpus"))
    atlas = atlas if isinstance(atlas, dict) else {}
    memory = found.get("memory_bytes")
    command = found.get("command")
    facts = {
        "atlas": " ".join(str(part) for part in (atlas.get("version"), atlas.get("commit")) if part),
        "python": found.get("python"),
        "platform": found.get("platform"),
        "host": found.get("host"),
        "image": found.get("image"),
        "CPU cores": found.get("cpu_count"),
        "memory": size(memory) if isinstance(memory, int | float) else None,
        "command": " ".join(map(str, command)) if isinstance(command, list) else command,
    }
    for number, gpu in enumerate(gpus if isinstance(gpus, list) else []):
        facts[f"GPU {number}"] = _gpu(gpu)
    if isinstance(packages, dict):
        facts |= packages
    st.code(words(aligned(_texts(facts))), language=None, wrap_lines=True)


def _gpu(gpu: Any) -> str:
    if not isinstance(gpu, dict):
        return str(gpu)
    memory = gpu.get("memory_bytes")
    parts = [gpu.get("name"), size(memory) if isinstance(memory, int | float) else None, f"driver {gpu.get('driver')}"]
    return ", ".join(str(part) for part in parts if part)


def _checkpoints(run_dir: Path) -> None:
    found = run_files.checkpoints(run_dir)
    if not found:
        st.text("None." if run_dir.is_dir() else f"None: {run_dir} is gone.")
        return
    st.dataframe(
        pd.DataFrame(
            {
                "folder": [files.name for files in found],
                "for": [files.use for files in found],
                "step": pd.array([files.step for files in found], dtype="Int64"),
                "size (MB)": [files.bytes / 1e6 for files in found],
                "complete": ["✓ complete" if files.complete else f"✕ {files.flaw}" for files in found],
            }
        ),
        hide_index=True,
        column_config={"size (MB)": st.column_config.NumberColumn(format="%.1f")},
        placeholder="",
        alt="checkpoints on disk",
    )
    st.caption("Complete as far as names and sizes tell; a resume compares every byte.")


def _project(run_dir: Path) -> None:
    git = run_files.submitted(run_dir).get("git")
    if not isinstance(git, dict) or not git.get("commit"):
        st.text("No git work tree, or not recorded.")
        return
    facts = {
        "commit": git.get("commit"),
        "branch": git.get("branch"),
        "changed": "not known" if git.get("dirty") is None else "yes" if git["dirty"] else "no",
    }
    st.code(words(aligned(_texts(facts))), language=None)
    patch = run_files.patch(run_dir)
    if patch:
        with st.expander(f"project.patch, {size(len(patch.encode()))}: what the work tree had beyond this commit"):
            st.code(words(patch, 100_000), language="diff", height=500)


def _texts(facts: dict[str, Any]) -> dict[str, str | None]:
    return {str(name): None if value is None else str(value) for name, value in facts.items()}


def _guarded(heading: str, draw: Callable[[], None]) -> None:
    """One broken file takes nothing else from the page."""
    try:
        draw()
    except AtlasError as error:
        problem(heading, error)
