"""Which run it is, how it stands, and what to do about it."""

import math
import time
from pathlib import Path

import streamlit as st

from atlas import run_files
from atlas.comparison.wording import number
from atlas.duration import duration
from atlas.errors import AtlasError
from atlas.store import RESUMABLE, RunRecord, Store
from atlas.store.overview import Overview, overviews
from atlas.worker import log_tail
from dashboard.links import EXPERIMENT, RUNS, address
from dashboard.opening import experiments_of
from dashboard.pages.run_parts.words import words
from dashboard.states import with_sign
from dashboard.text import aligned, plain

_LOG_LINES, _LINE = 15, 240


def show_head(store: Store, run: RunRecord, state: str) -> None:
    """State, progress, score and time; what the run is; why it failed."""
    of = overviews(store, [run], experiments_of(store)[0])[0]
    _tiles(run, state, of)
    _failure(run, state)
    left, right = st.columns([3, 2])
    with left:
        st.code(words(aligned(_facts(run, of)), 4000), language=None, wrap_lines=True)
        if len(run.notes) > _LINE:
            with st.expander("All notes"):
                st.code(words(run.notes), language=None, wrap_lines=True, height=300)
    with right:
        st.code(_commands(run, state), language="bash", wrap_lines=True)
        with st.container(horizontal=True, gap="small"):
            if of.experiment:
                st.link_button("Compare its experiment", address("compare", **{EXPERIMENT: of.experiment}))
            st.link_button("Samples", address("samples", **{RUNS: run.id}))


def _tiles(run: RunRecord, state: str, of: Overview) -> None:
    score = of.score
    step = f"{'–' if run.step is None else run.step} / {'?' if run.planned_steps is None else run.planned_steps}"
    tiles = [
        ("state", with_sign(state), _age(run, state)),
        ("step", step, _phase(run, state)),
        (f"pass rate on {score.split}, %" if score else "pass rate, %", "–", ""),
        ("training time × devices", "–", ""),
    ]
    if score:
        at = "" if score.step is None else f" at step {score.step}"
        known = math.isfinite(score.low) and math.isfinite(score.high)
        interval = f"{100 * score.low:.0f} – {100 * score.high:.0f}" if known else ""
        tiles[2] = (tiles[2][0], f"{100 * score.pass_rate:.1f}", f"{interval}{at}".strip())
    if of.device_seconds is not None:
        unit, seconds = _unit(of.device_seconds, of.on_gpu)
        gpus = f"GPU {', '.join(map(str, run.gpus))}" if run.gpus else "no GPU"
        tiles[3] = (tiles[3][0], f"{number(of.device_seconds / seconds)} {unit}", gpus)
    for column, (label, value, below) in zip(st.columns(len(tiles)), tiles, strict=True):
        column.metric(
            label, plain(value), below or None, border=True, height="stretch", delta_color="off", delta_arrow="off"
        )


def _facts(run: RunRecord, of: Overview) -> dict[str, str | None]:
    arm = f", {of.arm}" if of.arm else ""
    return {
        "run": run.id,
        "method": f"{run.method} on {run.dataset}, seed {'?' if of.seed is None else of.seed}",
        "student": run.student,
        "teacher": run.teacher,
        "experiment": f"{of.experiment}{arm}" if of.experiment else None,
        "executor": run.executor,
        "directory": run.run_dir,
        "submitted": _at(run.created_seconds),
        "started": _at(run.started_seconds),
        "ended": _at(run.ended_seconds),
        "tags": _beginning(", ".join(run.tags)),
        "notes": _beginning(run.notes),
    }


def _failure(run: RunRecord, state: str) -> None:
    if state not in ("failed", "lost", "cancelled", "preempted") or not (run.reason or run.message or state == "lost"):
        return
    message = run.message or "Its worker is dead and has left no result."
    tail = log_tail(Path(run.run_dir), _LOG_LINES)
    heading = f"**{plain(with_sign(state, run.reason))}**"
    (st.warning if state in ("cancelled", "preempted") else st.error)(heading)
    st.code(words(message, 4000), language=None, wrap_lines=True)
    trace = _traceback(run)
    if trace:
        with st.expander("Traceback"):
            st.code(words(trace), language=None, wrap_lines=True)
    if tail and state != "cancelled":
        st.caption(f"The last {_LOG_LINES} lines of its log")
        st.code(words(tail), language=None, wrap_lines=True)


def _traceback(run: RunRecord) -> str:
    try:
        return str(run_files.result(Path(run.run_dir)).get("traceback") or "")
    except AtlasError:
        return ""


def _commands(run: RunRecord, state: str) -> str:
    """What goes on from here, the most likely first."""
    commands = [f"atlas show {run.id}", f"atlas rerun {run.id}"]
    if state in RESUMABLE:
        commands.insert(0, f"atlas resume {run.id}")
    if state in ("queued", "claimed", "running"):
        commands = [f"atlas logs -f {run.id}", f"atlas cancel {run.id}", *commands]
    return "\n".join(commands)


def _age(run: RunRecord, state: str) -> str:
    now = time.time()
    if run.ended_seconds is not None:
        took = "" if run.started_seconds is None else f" after {duration(run.ended_seconds - run.started_seconds)}"
        return f"{duration(now - run.ended_seconds)} ago{took}"
    if run.started_seconds is not None:
        return f"started {duration(now - run.started_seconds)} ago"
    return f"submitted {duration(now - run.created_seconds)} ago"


def _phase(run: RunRecord, state: str) -> str:
    if state != "running" or run.phase is None:
        return ""
    inside = "" if run.progress_step is None else f" {run.progress_step}"
    total = "" if run.progress_total is None else f" of {run.progress_total}"
    return f"{run.phase}{inside}{total}"


def _unit(seconds: float, on_gpu: bool) -> tuple[str, float]:
    """As `atlas.comparison.wording.device_time` says it."""
    if on_gpu:
        return "GPU-h", 3600.0
    return ("CPU-h", 3600.0) if seconds >= 3600 else ("CPU-min", 60.0) if seconds >= 60 else ("CPU-s", 1.0)


def _beginning(text: str) -> str:
    return text if len(text) <= _LINE else f"{text[:_LINE]}…"


def _at(seconds: float | None) -> str | None:
    return None if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(seconds))
