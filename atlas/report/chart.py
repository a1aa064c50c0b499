"""The charts, as SVG without a date, a path, a font or a script in it: the same numbers give the same bytes.

E evaluations, G points of a band.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from atlas.analysis.curves import Reached, band
from atlas.analysis.intervals import wilson
from atlas.comparison.arms import GAVE_UP, counted, curve
from atlas.comparison.model import ArmResult, Comparison, FloatArray, RunResult
from atlas.comparison.phases import OFF_THE_CLOCK, in_order, phase_name
from atlas.report.numbers import percent

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's (2008), which the colour-blind can tell apart; the first four are readable on white and on black."""
MARKERS = "osD^vP"
"""Of the arms, so that the chart can be read without colours."""
INK = "#767676"
"""Of all text and lines: as far from white as from black, and what `themed` replaces."""
PHASE_COLOURS = {
    "generate": "#56B4E9",
    "teacher": "#D55E00",
    "reward": "#CC79A7",
    "forward_backward": "#009E73",
    "optimizer": "#E69F00",
    "other": "#0072B2",
    "evaluate": "#9a9a9a",
    "checkpoint": "#c4c4c4",
}


def pass_rate_chart(comparison: Comparison) -> str | None:
    """Pass rate over training time: a mean line and a band from the lowest to the highest seed for each arm, and a thin
    line for each seed; with one seed, its 95 % Wilson intervals. None if nothing was evaluated."""
    curves = {run.id: curve(run, "train_seconds") for arm in comparison.arms for run in arm.runs}
    readings = [clock_E for clock_E, _ in curves.values() if len(clock_E)]
    if not readings:
        return None
    divisor, unit = _unit(max(float(clock_E[-1]) for clock_E in readings))
    with _drawing(7.6, 4.6) as (figure, axes):
        for number, arm in enumerate(comparison.arms):
            _draw_arm(axes, arm, [(run, *curves[run.id]) for run in arm.runs], number, divisor)
        levels = _levels(comparison)
        for _, level, style in levels:
            axes.axhline(100 * level, color=INK, linewidth=0.9, linestyle=style, zorder=1)
        _mark_targets(axes, comparison, divisor)
        axes.set_xlabel(f"training time ({unit})")
        axes.set_ylabel(f"pass rate on {split_of(comparison)} (%)")
        axes.set_xlim(left=-0.012 * axes.get_xlim()[1])
        bottom, top = axes.get_ylim()
        axes.set_ylim(max(bottom, 0), min(top, 100))
        _label_levels(axes, [(f"{name} {percent(level)} %", 100 * level) for name, level, _ in levels])
        _legend(axes, columns=4)
        return _svg(figure, "pass-rate")


def phase_chart(phases: Mapping[str, Mapping[str, float]]) -> str:
    """Where the hours went: one bar for each arm of seconds by phase."""
    divisor, unit = _unit(max(sum(seconds.values()) for seconds in phases.values()))
    names = in_order(phases)
    with _drawing(7.6, 1.4 + 0.45 * len(phases)) as (figure, axes):
        left = np.zeros(len(phases))
        for number, name in enumerate(names):
            widths = np.array([seconds.get(name, 0.0) / divisor for seconds in phases.values()])
            axes.barh(
                range(len(phases)),
                widths,
                left=left,
                height=0.62,
                color=PHASE_COLOURS.get(name, COLOURS[number % len(COLOURS)]),
                hatch="////" if name in OFF_THE_CLOCK else None,
                edgecolor="white",
                linewidth=0.6,
                label=phase_name(name),
            )
            left += widths
        axes.set_yticks(range(len(phases)), list(phases))
        axes.set_ylim(len(phases) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"mean time of a run ({unit}); hatched: not on the training clock")
        _legend(axes, columns=4)
        return _svg(figure, "phases")


def themed(svg: str) -> str:
    """The chart in the colour of the text around it, for inline use."""
    return svg.replace(INK, "currentColor").replace(INK.lower(), "currentColor")


def split_of(comparison: Comparison) -> str:
    """The split that is measured on the way."""
    return next((run.job.evaluation.split for arm in comparison.arms for run in arm.runs), "dev")


def _draw_arm(
    axes: Any, arm: ArmResult, curves: Sequence[tuple[RunResult, FloatArray, FloatArray]], number: int, divisor: float
) -> None:
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    basis = {run.id for run in counted(arm.runs)}
    whole = [(clock_E, rate_E) for run, clock_E, rate_E in curves if run.id in basis and len(clock_E) > 1]
    alone = len(curves) == 1
    for run, clock_E, rate_E in curves:
        if not len(clock_E):
            continue
        style = ":" if run.state in GAVE_UP else "-"
        axes.plot(
            clock_E / divisor,
            100 * rate_E,
            color=colour,
            linestyle=style,
            linewidth=2.0 if alone else 0.7,
            alpha=1.0 if alone else 0.65,
            marker=marker,
            markersize=4.5 if alone else 2.6,
            label=f"{arm.name} (1 seed, 95 % interval over problems)" if alone else None,
            zorder=3,
        )
    if alone and run.problems:
        _draw_intervals(axes, clock_E / divisor, rate_E, run.problems, colour)
    if alone:
        return
    label = f"{arm.name} ({len(whole)} seeds)"
    over_seeds = band(whole) if len(whole) > 1 else None
    if over_seeds is None or not len(over_seeds.clock_G):
        axes.plot([], [], color=colour, marker=marker, linewidth=0.9, label=f"{arm.name} ({len(curves)} runs, no band)")
        return
    clock_G = over_seeds.clock_G / divisor
    axes.fill_between(
        clock_G, 100 * over_seeds.low_G, 100 * over_seeds.high_G, color=colour, alpha=0.18, linewidth=0, zorder=2
    )
    axes.plot(clock_G, 100 * over_seeds.mean_G, color=colour, linewidth=2.2, zorder=4)
    axes.plot([], [], color=colour, linewidth=2.2, marker=marker, markersize=4, label=label)


def _draw_intervals(axes: Any, clock_E: FloatArray, rate_E: FloatArray, problems: int, colour: str) -> None:
    bounds_E2 = np.array([wilson(rate * problems, problems) for rate in rate_E]).reshape(-1, 2)
    distances_2E = 100 * np.abs(bounds_E2.T - rate_E)
    axes.errorbar(
        clock_E, 100 * rate_E, yerr=distances_2E, fmt="none", ecolor=colour, elinewidth=0.9, capsize=2.5, zorder=2
    )


def _levels(comparison: Comparison) -> list[tuple[str, float, Any]]:
    """Name, pass rate and line style of what is drawn across the chart."""
    found: list[tuple[str, float, Any]] = []
    student = baseline_rate(comparison, "student")
    first = comparison.arms[0].first
    if student is None and first is not None and np.isfinite(first.pass_rate):
        student = first.pass_rate
    teacher = teacher_rate(comparison)
    if student is not None:
        found.append(("step 0", student, "-"))
    if teacher is not None:
        found.append(("teacher", teacher, "--"))
    return found + [(target.name, target.level, (0, (1, 3))) for target in comparison.targets]


def baseline_rate(comparison: Comparison, name: str) -> float | None:
    """The pass rate of a baseline on the split that is measured on the way."""
    run = comparison.baselines.get(name)
    rates = [float(rate) for rate in run.pass_rate_E if np.isfinite(rate)] if run else []
    return rates[-1] if rates else None


def teacher_rate(comparison: Comparison) -> float | None:
    """That of the baseline, or else as a run measured it."""
    baseline = baseline_rate(comparison, "teacher")
    if baseline is not None:
        return baseline
    rates = [run.teacher_pass_rate for arm in comparison.arms for run in arm.runs]
    return next((rate for rate in rates if rate is not None and np.isfinite(rate)), None)


def _mark_targets(axes: Any, comparison: Comparison, divisor: float) -> None:
    for number, arm in enumerate(comparison.arms):
        for target in comparison.targets:
            times: Sequence[Reached] = target.reached.get(arm.name, {}).get("train_seconds", ())
            values = [each.value / divisor for each in times if each.value is not None]
            axes.plot(
                values,
                [100 * target.level] * len(values),
                linestyle="none",
                marker="x",
                markersize=6.5,
                markeredgewidth=1.6,
                color=COLOURS[number % len(COLOURS)],
                zorder=5,
            )


def _label_levels(axes: Any, labels: Sequence[tuple[str, float]]) -> None:
    """Names at the right edge, pushed apart where the levels are close."""
    bottom, top = axes.get_ylim()
    gap = 0.052 * (top - bottom)
    lowest = bottom - gap
    for text, level in sorted(labels, key=lambda label: label[1]):
        at = max(level, lowest + gap)
        lowest = at
        axes.annotate(
            text,
            xy=(1.0, level),
            xytext=(1.02, at),
            xycoords=("axes fraction", "data"),
            textcoords=("axes fraction", "data"),
            va="center",
            fontsize=8.5,
            color=INK,
            annotation_clip=False,
        )


def _legend(axes: Any, columns: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.figure.legend(
            handles, labels, loc="outside lower center", ncols=min(columns, len(handles)), frameon=False, fontsize=8.5
        )


def _unit(longest_seconds: float) -> tuple[float, str]:
    if longest_seconds < 180:
        return 1.0, "seconds"
    return (60.0, "minutes") if longest_seconds < 3 * 3600 else (3600.0, "hours")


@contextmanager
def _drawing(width: float, height: float) -> Iterator[tuple[Any, Any]]:
    """A figure of this size in inches and its axes. Needs no pyplot, and so leaves no state behind."""
    import matplotlib
    from matplotlib.figure import Figure

    style = {
        "svg.fonttype": "none",
        "font.family": ["DejaVu Sans"],  # comes with matplotlib; the text's extent does not depend on the machine
        "font.size": 9.5,
        "text.parse_math": False,
        "text.color": INK,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": INK,
        "grid.alpha": 0.22,
        "grid.linewidth": 0.6,
        "hatch.linewidth": 0.6,
        "hatch.color": "white",
        "xtick.color": INK,
        "ytick.color": INK,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


def _svg(figure: Any, name: str) -> str:
    """The `<svg>` element alone. `name` keeps the ids of several charts on one page apart."""
    import matplotlib

    buffer = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].rstrip()
    return re.sub(r' id="[a-zA-Z]+[\w.]*_\d+"', "", svg)
