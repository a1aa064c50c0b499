"""The charts of Compare, out of numbers alone."""

import json

import altair as alt
import numpy as np
import pytest

from atlas.comparison.collect import collect
from dashboard.charts.arms import MARKS, SIGNS, Arms, sign
from dashboard.charts.forest import difference_chart, speed_chart
from dashboard.charts.metric import metric_chart
from dashboard.charts.pass_rate import HEIGHT, pass_rate_chart
from dashboard.charts.phases import phase_chart
from dashboard.clocks import CLOCKS, Axis, axis_of
from dashboard.curves import Curve

STEP = Axis("step", "", 1.0)


def valid(drawing):
    """Against Vega-Lite's schema, with its numbers."""
    rows = {name: json.loads(table.to_json(orient="records")) for name, table in drawing.tables.items()}
    alt.Chart.from_dict({**drawing.spec, "datasets": rows}).to_dict(validate=True)
    named = {layer.get("data", drawing.spec.get("data"))["name"] for layer in drawing.spec["layer"]}
    assert named == set(drawing.tables)
    return drawing


def curve(values, nonfinite=()):
    value_N = np.array(values, dtype=np.float64)
    clock_N = np.arange(len(value_N), dtype=np.float64)
    return Curve(clock_N, value_N, tuple(nonfinite), len(value_N), clock_N, value_N, np.ones(len(value_N), np.int64))


@pytest.fixture
def two_arms(lab):
    runs = [
        lab.run("gkd", seed, [0.2, 0.4 + 0.1 * seed, 0.6], "1111111100", seconds_per_step=1 + seed) for seed in (0, 1)
    ]
    runs += [lab.run("grpo", seed, [0.2, 0.3, 0.4], "1110000000") for seed in (0, 1)]
    teacher = lab.run("evaluate", 0, [0.9], student={"model": "org/teacher"})
    return collect(lab.store, [*runs, teacher])


@pytest.mark.parametrize("clock", CLOCKS)
def test_the_pass_rate_is_drawn_over_every_clock(two_arms, clock):
    runs = [run for arm in two_arms.arms for run in arm.runs]
    drawing = valid(pass_rate_chart(two_arms, axis_of(clock, runs), two_arms.arms))
    assert set(drawing.tables) >= {"levels", "bands", "seeds"}
    assert clock in drawing.alt


def test_the_legend_highlights_arms_even_where_the_topmost_layer_has_no_colour_of_arms(lab):
    comparison = collect(lab.store, [lab.run("gkd", 0, [0.2, "NaN", 0.5])])
    drawing = pass_rate_chart(comparison, STEP, comparison.arms)
    (parameter,) = drawing.spec["params"]
    (holder,) = [layer for layer in drawing.spec["layer"] if layer.get("name") in parameter["views"]]
    assert holder["encoding"]["color"]["field"] == "arm" and holder["encoding"]["color"]["legend"]


def test_the_band_goes_from_the_lowest_to_the_highest_seed(two_arms):
    bands = pass_rate_chart(two_arms, STEP, two_arms.arms).tables["bands"]
    middle = bands[(bands["arm"] == "gkd") & (abs(bands["clock"] - 10) < 0.06)].iloc[0]
    assert (round(middle["low"]), round(middle["rate"]), round(middle["high"])) == (40, 45, 50)


def test_zoomed_to_the_runs_the_teacher_is_named_at_the_edge(two_arms):
    drawing = valid(pass_rate_chart(two_arms, STEP, two_arms.arms, fit=True))
    levels = drawing.tables["levels"].set_index("text")
    assert "↑ teacher 90.0 %" in levels.index
    assert levels["at"].idxmax() == "↑ teacher 90.0 %" and levels["at"].max() < 70


def test_names_of_levels_do_not_overlap(two_arms):
    at = sorted(pass_rate_chart(two_arms, STEP, two_arms.arms).tables["levels"]["at"])
    assert min(np.diff(at)) > 0.9 * 15 * (max(at) - min(at)) / HEIGHT


def test_an_arm_of_one_seed_has_wilsons_intervals(lab):
    comparison = collect(lab.store, [lab.run("gkd", 0, [0.2, 0.5])])
    row = pass_rate_chart(comparison, STEP, comparison.arms).tables["alone"].iloc[1]
    assert (round(row["low"], 1), round(row["high"], 1)) == (40.4, 59.6)


def test_nothing_evaluated_is_no_chart(lab):
    comparison = collect(lab.store, [lab.run("gkd", state="queued")])
    assert pass_rate_chart(comparison, STEP, comparison.arms) is None


def test_the_verdicts_pictures_have_the_verdicts_intervals(two_arms):
    (verdict,) = two_arms.verdicts
    row = valid(difference_chart(two_arms, ["gkd", "grpo"])).tables["verdicts"].iloc[0]
    assert row["value"] == pytest.approx(100 * verdict.difference.value)
    assert (row["low"], row["high"]) == pytest.approx((100 * verdict.difference.low, 100 * verdict.difference.high))
    row = valid(speed_chart(two_arms, ["gkd", "grpo"])).tables["verdicts"].iloc[0]
    ratio = verdict.speed_up.value if verdict.sooner == "grpo" else 1 / verdict.speed_up.value
    assert row["value"] == pytest.approx(ratio)


def test_phases_off_the_clock_are_told_by_their_outline_and_their_name():
    drawing = valid(phase_chart({"gkd": {"generate": 60.0, "teacher": 30.0, "evaluate": 10.0}, "sft": {"other": 5.0}}))
    assert list(drawing.tables["off"]["phase"].unique()) == ["evaluate (off the clock)"]
    of_gkd = drawing.tables["on"][lambda rows: rows["arm"] == "gkd"].set_index("phase")
    assert of_gkd.loc["teacher", "start"] == of_gkd.loc["generate", "end"]
    dashed = [layer["mark"] for layer in drawing.spec["layer"] if layer["data"]["name"] == "off"]
    assert dashed[0]["strokeDash"]


def test_a_metric_keeps_its_raw_points_when_it_is_smoothed():
    raw = {"a": curve([1, 3, 1, 3]), "b": curve([2, 2, 2, 2])}
    drawing = valid(metric_chart("train/loss", {"gkd": ["a", "b"]}, raw, 10, STEP, log=False))
    assert list(drawing.tables["lines"]["value"]) == [1, 3, 1, 3, 2, 2, 2, 2]
    assert drawing.tables["means"]["value"].iloc[-1] < 2.5
    plain = metric_chart("train/loss", {"gkd": ["a", "b"]}, raw, None, STEP, log=False)
    assert plain.tables["means"]["value"].iloc[-1] == 2.5


def test_a_logarithmic_scale_needs_positive_values():
    def scale(values):
        drawing = metric_chart("train/loss", {"gkd": ["a"]}, {"a": curve(values)}, None, STEP, log=True)
        return drawing.spec["layer"][0]["encoding"]["y"]["scale"]["type"]

    assert (scale([1, 2]), scale([0, 2])) == ("log", "linear")


def test_what_is_no_number_is_a_mark_even_where_nothing_else_is():
    raw = {"a": curve([], [(3.0, "NaN"), (4.0, "-Infinity")])}
    drawing = valid(metric_chart("train/loss", {"gkd": ["a"]}, raw, None, STEP, log=False))
    assert list(drawing.tables) == ["marks"] and list(drawing.tables["marks"]["mark"]) == ["NaN", "−∞"]


def test_a_chart_is_an_svg_that_fetches_nothing(two_arms):
    svg = pass_rate_chart(two_arms, STEP, two_arms.arms).svg()
    assert svg.startswith("<svg") and "teacher 90.0 %" in svg
    assert "href=" not in svg.replace("xlink", "")


def test_colour_and_marker_together_stand_for_one_arm_only():
    arms = Arms(tuple(f"arm{n}" for n in range(12)))
    colours = arms.colour().to_dict()["scale"]["range"]
    shapes = arms.shape().to_dict()["scale"]["range"]
    assert len(set(zip(colours, shapes, strict=True))) == 12
    assert [SIGNS[MARKS.index(shape)] for shape in shapes] == [sign(n) for n in range(12)]
