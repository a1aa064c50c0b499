"""The metrics of a run over a clock of choice, and what it took of its machine."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from atlas.store import RunRecord, Store
from dashboard.charts.one_run import Line, panel
from dashboard.clocks import CLOCKS, Axis
from dashboard.curves import Curve, curves
from dashboard.links import CLOCK, METRIC, begin_with
from dashboard.pages.compare_parts.drawn import chart
from dashboard.text import plain

COLUMNS = 3


@dataclass(frozen=True)
class Panel:
    """What a chart shows: metrics by the name of their line, and the unit they are shown in."""

    title: str
    metrics: Mapping[str, str]
    factor: float = 1.0


_GIB = 2.0**-30
PANELS = (
    Panel("pass rate (%)", {"pass rate": "eval/pass_rate"}, 100),
    Panel("loss", {"loss": "train/loss"}),
    Panel("reward", {"reward": "train/reward"}),
    Panel("reverse KL (nats per token)", {"reverse KL": "train/reverse_kl"}),
    Panel("entropy (nats per token)", {"entropy": "train/entropy"}),
    Panel("completion length (tokens)", {"mean": "train/completions/mean_length"}),
    Panel("clipped completions (%)", {"clipped": "train/completions/clipped_ratio"}, 100),
    Panel("groups of equal rewards (%)", {"equal": "train/frac_reward_zero_std"}, 100),
    Panel("gradient norm", {"norm": "train/grad_norm"}),
)
"""Shown without being asked for, where the run has them."""
_RESOURCES = (
    (re.compile(r"resources/(gpu\d+)_utilization_percent"), "GPU utilization (%)", 1.0),
    (re.compile(r"resources/(gpu\d+)_memory_bytes"), "GPU memory (GiB)", _GIB),
    (re.compile(r"resources/(gpu\d+)_power_watts"), "GPU power (W)", 1.0),
    (re.compile(r"resources/cpu_(percent)"), "CPU (% of one core)", 1.0),
    (re.compile(r"resources/(process)_memory_bytes"), "memory of the worker (GiB)", _GIB),
    (re.compile(r"memory/(peak)_bytes"), "peak memory (GiB)", _GIB),
)


def choose_curves(names: Sequence[str]) -> tuple[list[str], str]:
    """(metrics, name of the clock) that the visitor wants; the metrics empty for the usual ones."""
    left, right = st.columns([4, 1])
    if METRIC in st.session_state:
        begin_with(METRIC, [], names)
    metrics = left.multiselect(
        "Metrics", list(names), key=METRIC, bind="query-params", placeholder="the usual ones, or choose"
    )
    return metrics, choose_clock(right)


def choose_clock(place: DeltaGenerator) -> str:
    """The name of the clock that the visitor wants."""
    if CLOCK in st.session_state:
        begin_with(CLOCK, "step", list(CLOCKS))
    names = ["step", *(name for name in CLOCKS if name != "step")]
    return place.selectbox("Over", names, key=CLOCK, bind="query-params")


def show_curves(store: Store, run: RunRecord, wanted: Sequence[str], clock: str) -> None:
    """A chart for each metric."""
    latest = store.latest(run.id)
    if not latest:
        st.text("No metrics yet: they come with the first evaluation and the first training step.")
        return
    known = {metric: shown for shown in PANELS for metric in shown.metrics.values()}
    usual = [shown for shown in PANELS if any(metric in latest for metric in shown.metrics.values())]
    panels = [known.get(metric, Panel(metric, {metric: metric})) for metric in wanted] or usual
    _grid(store, run, panels, clock, "curve")


def show_resources(store: Store, run: RunRecord, clock: str) -> None:
    """GPUs as NVML saw them, and the worker's processes."""
    names = store.metric_names(run.id)
    panels = []
    for pattern, title, factor in _RESOURCES:
        found = {match[1]: name for name in names if (match := pattern.fullmatch(name))}
        panels += [Panel(title, found, factor)] if found else []
    if not any(name.startswith("resources/") for name in names):
        st.text("No readings of GPU and CPU: they are recorded while a run trains, and an older Atlas recorded none.")
    elif not any("/gpu" in name for name in names if name.startswith("resources/")):
        st.caption("No GPU of this run could be read: it had none, or NVML gave no answer.")
    _grid(store, run, panels, clock, "resource")


def _grid(store: Store, run: RunRecord, panels: Sequence[Panel], clock: str, prefix: str) -> None:
    latest = store.latest(run.id)
    drawn = [(shown, lines) for shown in panels if (lines := _lines(store, run, shown, CLOCKS[clock]))]
    for begin in range(0, len(drawn), COLUMNS):
        for column, (shown, lines) in zip(st.columns(COLUMNS), drawn[begin : begin + COLUMNS], strict=False):
            axis, metrics = _axis(clock, run, lines), list(shown.metrics.values())
            teacher = latest.get("eval/teacher_pass_rate") if "eval/pass_rate" in metrics else None
            levels = {} if teacher is None else {"teacher": teacher}
            newest = f" · {plain(f'{latest[metrics[0]] * shown.factor:.4g}')}" if len(metrics) == 1 else ""
            with column:
                chart(
                    panel(shown.title, lines, axis, shown.factor, levels),
                    f"{prefix}-{re.sub(r'[^a-z0-9]+', '-', '-'.join(metrics).lower())}",
                    f"**{plain(shown.title)}**{newest}",
                )
    if panels and not drawn:
        st.text(f"Nothing was recorded over {clock}.")


def _lines(store: Store, run: RunRecord, shown: Panel, clock: str) -> list[Line]:
    lines = []
    for name, metric in shown.metrics.items():
        curve = _curve(store, run, metric, clock)
        if curve is None:
            continue
        low, high = (_curve(store, run, f"{metric}_{end}", clock) for end in ("low", "high"))
        lines.append(Line(name, curve, low, high))
    return lines


def _curve(store: Store, run: RunRecord, metric: str, clock: str) -> Curve | None:
    return curves(store, [run.id], metric, clock).get(run.id)


def _axis(name: str, run: RunRecord, lines: Sequence[Line]) -> Axis:
    clock = CLOCKS[name]
    if not clock.endswith("_seconds"):
        return Axis(name, "", 1.0)
    longest = max((float(line.curve.clock_N[-1]) for line in lines if len(line.curve.clock_N)), default=0.0)
    unit, seconds = ("h", 3600.0) if longest >= 3 * 3600 else ("min", 60.0) if longest >= 180 else ("s", 1.0)
    if clock != "gpu_seconds":
        return Axis(name, unit, seconds)
    return Axis(name, "GPU-h", 3600.0) if run.gpus else Axis(name, f"CPU-{unit}", seconds)
