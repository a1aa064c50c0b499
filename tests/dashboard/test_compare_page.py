"""The page Compare: the numbers of `atlas compare`, over any clock, and nothing claimed that is not so."""

import json
import re

import altair as alt
import pandas as pd
import pytest

from atlas.comparison import export
from atlas.comparison.collect import collect
from atlas.store import ExperimentRecord
from dashboard.links import EXPERIMENT, RUNS
from tests.lab import append

HOSTILE = ("<img src=x onerror=alert(1)>", "![x](http://h/y.png)", "[click](javascript:alert(1))")


def charts(test):
    """Key -> Vega-Lite specification, with its tables as `datasets`, of the charts on the page."""
    found = {}
    for element in test.get("vega_lite_chart"):
        spec = json.loads(element.proto.spec)
        spec["datasets"] = {each.name: frame_of(each.data.data) for each in element.proto.datasets}
        found[element.proto.alt.split(".")[0]] = spec
    return found


def frame_of(arrow):
    import pyarrow as pa

    return pa.ipc.open_stream(arrow).read_pandas()


def chart(test, beginning):
    return next(spec for alt_text, spec in charts(test).items() if alt_text.startswith(beginning))


def table(test, *columns):
    """The table on the page that has these columns."""
    return next(found.value for found in test.dataframe if set(columns) <= set(found.value.columns))


def markdown(test):
    """All that Streamlit reads as Markdown on the page."""
    return "\n".join(
        str(element.value)
        for kind in ("markdown", "caption", "error", "warning", "info", "header", "subheader", "title")
        for element in test.get(kind)
    ) + "\n".join(expander.label for expander in test.expander)


@pytest.fixture
def study(lab):
    """Two arms of two seeds, a student and a teacher."""
    runs = []
    for seed in (0, 1):
        gkd = lab.run("gkd", seed, [0.2, 0.4, 0.6 + 0.02 * seed], "1111111100", seconds_per_step=2.0)
        grpo = lab.run("grpo", seed, [0.2, 0.3, 0.4], "1110000011")
        runs += [("gkd", seed, gkd), ("grpo", seed, grpo)]
    baselines = {
        "student": lab.run("evaluate", 0, [0.2], "1100000000"),
        "teacher": lab.run("evaluate", 0, [0.9], "1111111111", student={"model": "org/teacher"}),
    }
    return lab.experiment(sorted(runs), baselines)


def test_without_a_choice_the_newest_experiments_are_links(show, study):
    page = show("compare")
    assert list(table(page, "experiment")["experiment"]) == [study.id]
    assert not page.get("vega_lite_chart")


def test_the_numbers_are_those_of_atlas_compare(show, study, lab):
    comparison = collect(lab.store, [study.id])
    page = show("compare", **{EXPERIMENT: study.id})
    final = table(page, "arm", "KL")
    document = export.document(comparison)
    assert list(final["arm"]) == ["● gkd", "■ grpo", "student as is", "teacher as is"]
    for row, arm in zip(final.to_dict("records"), document["arms"], strict=False):
        test, peak = arm["test"], arm["peak"]
        assert row["test"] == f"{100 * test['pass_rate']:.1f} [{100 * test['low']:.0f}, {100 * test['high']:.0f}]"
        assert row["peak"] == f"{100 * peak['pass_rate']:.1f} [{100 * peak['low']:.0f}, {100 * peak['high']:.0f}]"
        assert row["step 0"] == f"{100 * arm['first']['pass_rate']:.1f}"
        assert row["in all (CPU-s)"] == f"{arm['used']['gpu_seconds']['mean']:.1f}"
    assert final["test"].iloc[3] == "100.0 [72, 100]"


def test_the_verdicts_stand_on_the_page_word_for_word(show, study, lab):
    from dashboard.text import plain

    said = markdown(show("compare", **{EXPERIMENT: study.id}))
    (verdict,) = collect(lab.store, [study.id]).verdicts
    assert all(plain(sentence) in said for sentence in verdict.sentences)


def test_a_level_that_was_not_reached_took_longer_and_is_no_number(show, study):
    page = show("compare", **{EXPERIMENT: study.id})
    targets = table(page, "90 % of the teacher (81.0 %)")
    assert list(targets["90 % of the teacher (81.0 %)"]) == ["> 40.0 CPU-s", "> 20.0 CPU-s"]


def test_the_chart_has_bands_seeds_the_teacher_step_0_and_targets(show, study):
    spec = chart(show("compare", **{EXPERIMENT: study.id}), "Pass rate on dev")
    tables = spec["datasets"]
    assert set(tables["bands"]["arm"]) == {"gkd", "grpo"}
    assert len(tables["seeds"]) == 4 * 3 and set(tables["seeds"].columns) >= {"run", "step", "rate", "low", "high"}
    names = list(tables["levels"]["text"])
    assert names[:2] == ["step 0 20.0 %", "teacher 90.0 %"] and any("peak less 1 SE" in name for name in names[2:])
    assert len(tables["crosses"]) > 0


def test_another_clock_moves_the_points(show, study):
    def readings(**more):
        page = show("compare", **{EXPERIMENT: study.id}, **more)
        return list(chart(page, "Pass rate on dev")["datasets"]["seeds"]["clock"])

    assert readings(clock="step")[:3] == [0, 10, 20]
    assert readings(clock="rollouts")[:3] == [0, 80, 160]
    assert readings(clock="wall time")[:3] == [0, 40, 80]
    assert readings()[:3] == [0, 20, 40]


def test_the_address_restores_the_view(show, study, lab):
    for _, _, run_id in [(run.arm, run.seed, run.run_id) for run in study.runs]:
        append(lab.store.home / "runs" / run_id / "metrics.jsonl", [line(n, {"train/loss": 2.0 / n}) for n in (1, 2)])
        lab.store.ingest(run_id)
    page = show(
        "compare", **{EXPERIMENT: study.id, "clock": "step", "metric": ["train/loss"], "smoothing": "5", "log": "true"}
    )
    assert page.multiselect(key="metric").value == ["train/loss"]
    spec = chart(page, "train/loss over step")
    assert {each["encoding"]["y"]["scale"]["type"] for each in spec["layer"]} == {"log"}
    assert list(spec["datasets"]["lines"]["value"])[:2] == [2.0, 1.0]
    assert list(spec["datasets"]["means"]["value"]) != [2.0, 1.0]


def line(step, values, **clocks):
    return {
        "step": step,
        "clocks": {"gpu_seconds": float(step), "train_seconds": float(step), **clocks},
        "values": values,
    }


def test_smoothing_leaves_what_was_recorded_visible_and_marks_what_is_no_number(show, lab):
    run = lab.run("gkd", state="running")
    values = [1.0, 3.0, "NaN", 1.0, "Infinity", 3.0]
    append(
        lab.store.home / "runs" / run / "metrics.jsonl",
        [line(n, {"train/loss": value}) for n, value in enumerate(values)],
    )
    lab.store.ingest(run)
    tables = chart(show("compare", **{RUNS: [run], "clock": "step", "smoothing": "10"}), "train/loss")["datasets"]
    assert list(tables["lines"]["value"]) == [1.0, 3.0, 1.0, 3.0]
    assert list(tables["means"]["value"])[1:] != [3.0, 1.0, 3.0]
    assert list(tables["marks"][["clock", "mark"]].itertuples(index=False, name=None)) == [(2.0, "NaN"), (4.0, "+∞")]


def test_runs_that_were_measured_differently_stand_side_by_side_and_nothing_is_claimed(show, lab):
    one = lab.run("gkd", 0, [0.2, 0.6], "1111111100")
    other = lab.run("grpo", 0, [0.2, 0.4], "1100000011", splits={"dev": {"examples": 100, "sha256": "f" * 64}})
    page = show("compare", **{RUNS: [one, other]})
    assert "Not comparable" in page.error[0].value and "dev problems differ" in page.error[0].value
    said = markdown(page)
    assert " against " not in said and "speed" not in said
    assert len(table(page, "arm", "KL")) == 2
    assert "targets" not in chart(page, "Pass rate on dev")["datasets"]


def test_a_difference_outside_what_is_compared_is_marked(show, lab):
    one = lab.run("gkd", 0, [0.2, 0.6], "1111111100")
    other = lab.run("gkd", 0, [0.2, 0.5], "1100000011", student={"model": "org/other"}, training={"max_steps": 10})
    rows = table(show("compare", **{RUNS: [one, other]}), "field").set_index("field")
    assert rows.loc["student.model", "standing"].startswith("✗ outside what is compared")
    assert rows.loc["training.max_steps", "standing"] == "compared"


def test_a_difference_that_the_experiment_does_not_declare_is_marked(show, lab):
    one = lab.run("gkd", 0, [0.2, 0.6], "1111111100")
    other = lab.run("grpo", 0, [0.2, 0.5], "1100000011", student={"model": "org/other"})
    lab.experiment([("gkd", 0, one), ("grpo", 0, other)])
    rows = table(show("compare", experiment="study-0a0a0a"), "field").set_index("field")
    assert rows.loc["student.model", "standing"] == "✗ not in the experiment's record"
    assert rows.loc["method.type", "standing"] == "compared"


def test_a_run_whose_worker_is_dead_is_lost_and_not_followed(show, lab):
    page = show("compare", **{RUNS: [lab.run("gkd", 0, [0.2], state="running")]})
    said = markdown(page)
    assert "its worker is dead" in said and "1 lost" in said and "follows" not in said


def test_a_run_that_goes_on_is_followed(show, lab, monkeypatch):
    monkeypatch.setattr("dashboard.opening.observed_state", lambda store, run: run.state)
    run = lab.run("gkd", 0, [0.2, 0.3], state="running")
    page = show("compare", **{RUNS: [run], "clock": "step"})
    assert "follows every two seconds" in markdown(page)
    before = chart(page, "Pass rate on dev")
    append(lab.store.home / "runs" / run / "metrics.jsonl", [line(20, {"eval/pass_rate": 0.25, "eval/problems": 100})])
    lab.store.ingest(run)
    page.run()
    after = chart(page, "Pass rate on dev")
    assert list(after["datasets"]["alone"]["step"]) == [0, 10, 20]
    assert {**before, "datasets": 0} == {**after, "datasets": 0}, "the chart stands still; only its numbers change"


def test_gained_and_lost_problems_lead_to_both_sides(show, study):
    page = show("compare", **{EXPERIMENT: study.id})
    gkd, grpo = (next(run.run_id for run in study.runs if run.arm == arm) for arm in ("gkd", "grpo"))
    gained, lost = [found.value for found in page.dataframe if "problem" in found.value.columns]
    assert list(gained["problem"]) == ["p8", "p9"] and list(lost["problem"]) == ["p3", "p4", "p5", "p6", "p7"]
    assert gained[""].iloc[0] == f"/samples?run={gkd}&run={grpo}&split=test&problem=p8"


def test_an_experiment_whose_runs_are_gone_says_so(show, lab):
    lab.experiment([("gkd", 0, "gkd-gone"), ("grpo", 0, "grpo-gone")])
    assert "not in the store any more" in markdown(show("compare", experiment="study-0a0a0a"))


def test_one_run_has_nothing_to_be_compared_with(show, lab):
    page = show("compare", **{RUNS: [lab.run("gkd", 0, [0.2, 0.6], "11")]})
    assert "One arm" in page.info[0].value
    assert "alone" in chart(page, "Pass rate on dev")["datasets"]


def test_runs_without_a_metric_are_no_error(show, lab):
    page = show("compare", **{RUNS: [lab.run("gkd", state="queued"), lab.run("grpo", state="failed")]})
    said = markdown(page)
    assert "is queued" in said and "out\\_of\\_memory" in said and "nothing to draw" in said


def test_a_nan_pass_rate_is_a_mark(show, lab):
    tables = chart(show("compare", **{RUNS: [lab.run("gkd", 0, [0.2, "NaN", 0.4])]}), "Pass rate on dev")["datasets"]
    assert list(tables["nans"]["step"]) == [10]


def test_an_unknown_run_is_named(show, lab):
    lab.run("gkd", 0, [0.2])
    assert "gone\\-123" in show("compare", **{RUNS: ["gone-123"]}).warning[0].value


def test_a_broken_record_of_an_experiment_is_named(show, lab):
    (lab.store.home / "experiments").mkdir(exist_ok=True)
    (lab.store.home / "experiments" / "bad.json").write_text("{")
    page = show("compare")
    assert "cannot be read" in page.error[0].value and "bad.json" in page.code[0].value


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_shown_as_characters(name, show, lab):
    from atlas.store.experiments import write

    one = lab.run("gkd", 0, [0.2, 0.6], "1111111100", state="failed")
    other = lab.run("grpo", 0, [0.2, 0.4], "1100000011", metrics={name: 1.0})
    record = lab.experiment([(name, 0, one), ("grpo", 0, other)])
    write(lab.store.home, ExperimentRecord(**{**record.model_dump(), "name": name}))
    said = markdown(show("compare", experiment=record.id, metric=[name]))
    assert name not in said
    assert not re.search(r"(?<!\\)(<img|\]\(http|\]\(javascript)", said)


def test_every_chart_is_valid_vega_lite_and_says_what_it_shows(show, study):
    specs = charts(show("compare", **{EXPERIMENT: study.id}))
    assert len(specs) >= 3
    for said, spec in specs.items():
        assert said
        datasets = {name: json.loads(rows.to_json(orient="records")) for name, rows in spec["datasets"].items()}
        alt.Chart.from_dict({**spec, "datasets": datasets}).to_dict(validate=True)


def test_what_has_not_moved_is_not_collected_again(show, study, lab, monkeypatch):
    from dashboard.pages.compare_parts import choice

    calls = []
    monkeypatch.setattr(choice, "collect", lambda *given, **more: calls.append(given) or collect(*given, **more))
    page = show("compare", **{EXPERIMENT: study.id})
    before = len(calls)
    page.run()
    assert len(calls) == before
    run = lab.run("gkd", 7, [0.2], state="running")
    lab.experiment([*((each.arm, each.seed, each.run_id) for each in study.runs), ("gkd", 7, run)], study.baselines)
    page.run()
    assert len(calls) == before + 1


def test_more_arms_than_can_be_told_apart_are_all_in_the_table(show, lab):
    runs = [(f"arm{n}", 0, lab.run("gkd", 0, [0.1, 0.2], "10")) for n in range(14)]
    page = show("compare", experiment=lab.experiment(runs).id)
    assert len(table(page, "arm", "KL")) == 14
    assert chart(page, "Pass rate on dev")["datasets"]["alone"]["arm"].nunique() == 12
    assert "first 12 arms" in markdown(page)
    assert isinstance(table(page, "arm", "KL"), pd.DataFrame)
