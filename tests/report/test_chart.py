import math
import re
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
from made_by_hand import run

from atlas.comparison.arms import arm_results
from atlas.report.chart import INK, pass_rate_chart, phase_chart, themed


def texts(svg):
    return ["".join(element.itertext()) for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_equal_numbers_give_equal_bytes(rich):
    assert pass_rate_chart(rich) == pass_rate_chart(rich)


def test_a_chart_holds_no_date_no_path_and_no_link(rich):
    svg = pass_rate_chart(rich)
    assert "<metadata" not in svg and "<!DOCTYPE" not in svg
    assert str(Path.cwd()) not in svg and "matplotlib" not in svg
    assert re.findall(r"https?://[^\"]*", svg.replace("http://www.w3.org/", "")) == []


def test_the_chart_names_arms_targets_and_baselines(rich):
    shown = texts(pass_rate_chart(rich))
    assert {"gkd (3 seeds)", "grpo (3 seeds)", "teacher 69.0 %", "training time (hours)", "pass rate on dev (%)"} <= {
        *shown
    }
    assert any(text.startswith("90 % of the teacher") for text in shown)
    assert any(text.startswith("step 0") for text in shown)


def test_names_that_look_like_formulas_or_markup_stay_text(rich):
    arm = replace(rich.arms[0], name="<b>$x_1$</b>")
    assert "<b>$x_1$</b> (3 seeds)" in texts(pass_rate_chart(replace(rich, arms=(arm,))))


def test_one_seed_has_intervals_in_place_of_a_band(rich):
    (alone,) = arm_results({"gkd": [run("gkd")]})
    shown = texts(pass_rate_chart(replace(rich, arms=(alone,), targets=(), verdicts=())))
    assert "gkd (1 seed, 95 % interval over problems)" in shown


def test_evaluations_that_are_nan_are_left_out_and_the_others_drawn(rich):
    broken = run("gkd", pass_rate_E=np.array([0.3, math.nan, 0.4]), evaluations=3)
    (arm,) = arm_results({"gkd": [broken, run("gkd", 1)]})
    svg = pass_rate_chart(replace(rich, arms=(arm,)))
    assert "gkd (2 seeds)" in texts(svg)
    assert "nan" not in svg.lower()


def test_a_failed_seed_is_drawn_and_is_not_in_the_band(rich):
    (arm,) = arm_results({"gkd": [run("gkd"), run("gkd", 1), run("gkd", 2, evaluations=3, state="failed")]})
    assert "gkd (2 seeds)" in texts(pass_rate_chart(replace(rich, arms=(arm,))))


def test_seeds_of_which_one_has_a_single_evaluation_have_no_band(rich):
    (arm,) = arm_results({"gkd": [run("gkd"), run("gkd", 1, evaluations=1, state="running")]})
    assert "gkd (2 runs, no band)" in texts(pass_rate_chart(replace(rich, arms=(arm,))))


def test_nothing_is_drawn_where_nothing_was_measured(poor):
    assert pass_rate_chart(poor) is None


def test_every_phase_is_named_once_and_the_empty_ones_are_not():
    svg = phase_chart(
        {"gkd": {"generate": 50.0, "teacher": 20.0, "reward": 0.0}, "grpo": {"generate": 80.0, "new": 3.0}}
    )
    shown = texts(svg)
    assert [shown.count(name) for name in ("generate", "teacher", "reward", "new", "gkd")] == [1, 1, 0, 1, 1]


def test_an_inline_chart_takes_the_colour_of_its_page(rich):
    svg = pass_rate_chart(rich)
    assert INK in svg
    assert INK not in themed(svg) and "currentColor" in themed(svg)


def test_drawing_leaves_pyplot_alone(rich):
    pass_rate_chart(rich)
    assert "matplotlib.pyplot" not in sys.modules
