"""The page of one run: what is known of it, also when half of its files are gone or make no sense."""

import json
import os
import shutil

import numpy as np
import pytest
from hostile import HOSTILE, assert_no_markup
from lab import append

from atlas import run_files
from atlas.errors import StoreError
from atlas.executors.local import process_handle
from dashboard.charts.one_run import Line, panel
from dashboard.clocks import Axis
from dashboard.curves import curves

VIEWS = ("curves", "resources", "events and log", "spec", "environment and checkpoints")
TOKEN = "hf_" + "a1B2" * 8


def words(test):
    kinds = ("text", "caption", "markdown", "warning", "error", "code")
    return "\n".join(str(element.value) for kind in kinds for element in test.get(kind))


def tiles(test):
    return {metric.label: metric.value.replace("\\", "") for metric in test.metric}


def titles(test):
    return [element.value for element in test.markdown if element.value.startswith("**")]


def directory(lab, run_id):
    return lab.store.home / "runs" / run_id


def train(lab, run_id, steps=5, **values):
    """Lines as a worker logs them; a value is a function of the step."""
    lines = [
        {"step": step, "clocks": lab.clocks(step, 1.0, 8.0), "values": {name: of(step) for name, of in values.items()}}
        for step in range(steps)
    ]
    append(directory(lab, run_id) / "metrics.jsonl", lines)
    lab.store.ingest(run_id)


@pytest.fixture
def run(lab):
    return lab.run("gkd", dev=[0.1, 0.3], notes="beta 0", tags=["small"], id="gkd-1")


def test_without_a_run_in_the_address_there_is_a_choice(run, show):
    test = show("run")
    assert test.selectbox(key="run").options == ["gkd-1"] and not test.metric
    test.selectbox(key="run").select("gkd-1").run()
    assert tiles(test)["state"] == "✓ succeeded"


def test_a_run_says_how_it_stands(run, show):
    test = show("run", run=run)
    assert tiles(test) == {
        "state": "✓ succeeded",
        "step": "10 / 20",
        "pass rate on dev, %": "30.0",
        "training time × devices": "10.0 CPU-s",
    }
    assert "beta 0" in words(test) and "atlas rerun gkd-1" in words(test)
    assert titles(test) == ["**pass rate \\(%\\)** · 30"]


def test_a_name_or_the_beginning_of_an_id_is_enough(run, show):
    assert tiles(show("run", run="gkd"))["step"] == "10 / 20"


def test_an_unknown_run_is_named_with_those_that_are_near(run, show):
    test = show("run", run="gkd-2")
    assert "no run 'gkd-2'" in words(test) and "did you mean gkd-1" in words(test) and not test.metric


def test_the_usual_metrics_are_drawn_and_others_on_demand(lab, run, show):
    train(lab, run, **{"train/loss": float, "train/entropy": float, "train/own": float})
    assert [title.split("**")[1] for title in titles(show("run", run=run))] == [
        "pass rate \\(%\\)",
        "loss",
        "entropy \\(nats per token\\)",
    ]
    test = show("run", run=run, metric=["train/own"], clock="training time")
    assert titles(test) == ["**train/own** · 4"]


def test_what_is_no_number_is_a_mark_at_the_edge(lab, run):
    train(lab, run, **{"train/loss": lambda step: ["NaN", 1.0, "Infinity", 2.0, "-Infinity"][step]})
    curve = curves(lab.store, [run], "train/loss", "step")[run]
    drawing = panel("loss", [Line("loss", curve)], Axis("step", "", 1.0), 1.0, {})
    assert list(drawing.tables["below"]["mark"]) == ["NaN", "−∞"]
    assert list(drawing.tables["above"]["mark"]) == ["+∞"]
    assert list(drawing.tables["lines"]["value"]) == [1.0, 2.0]


@pytest.mark.parametrize("finite", [True, False])
def test_charts_are_what_vega_lite_allows(lab, run, finite):
    import altair as alt

    train(lab, run, **{"train/loss": lambda step: step if finite and step else "NaN"})
    curve = curves(lab.store, [run], "train/loss", "step")[run]
    drawing = panel("loss", [Line("a", curve, curve, curve), Line("b", curve)], Axis("step", "", 1.0), 1.0, {"c": 1})
    alt.Chart.from_dict({**drawing.spec, "datasets": {}}, validate=True)
    assert "<svg" in drawing.svg()


def test_the_interval_is_drawn_where_both_ends_are_known(lab, run):
    train(lab, run, **{"p": float, "p_low": lambda step: step - 1, "p_high": lambda step: step + 1})
    found = {name: curves(lab.store, [run], name, "step")[run] for name in ("p", "p_low", "p_high")}
    drawing = panel("p", [Line("p", found["p"], found["p_low"], found["p_high"])], Axis("step", "", 1.0), 100, {})
    np.testing.assert_allclose(drawing.tables["band"]["high"] - drawing.tables["band"]["low"], 200)


def test_everything_may_be_nan(lab, show):
    lab.run("gkd", id="a")
    train(lab, "a", **{"eval/pass_rate": lambda step: "NaN", "train/loss": lambda step: "NaN"})
    test = show("run", run="a")
    assert titles(test) == ["**pass rate \\(%\\)** · nan", "**loss** · nan"]


def test_resources_are_drawn_by_gpu(lab, run, show):
    train(lab, run, **{f"resources/gpu{gpu}_power_watts": float for gpu in (0, 1)}, **{"resources/cpu_percent": float})
    assert [title.split("**")[1] for title in titles(show("run", run=run, view="resources"))] == [
        "GPU power \\(W\\)",
        "CPU \\(% of one core\\)",
    ]


def test_without_readings_the_resources_say_so(run, show):
    assert "No readings of GPU and CPU" in words(show("run", run=run, view="resources"))


def test_a_failure_comes_with_its_reason_its_last_lines_and_what_to_do(lab, show):
    lab.run("gkd", state="failed", id="a")
    (directory(lab, "a") / "worker.log").write_text("one\r\x1b[31mtwo\x1b[0m\nallocating failed\n")
    (directory(lab, "a") / "result.json").write_text(json.dumps({"traceback": "Traceback: it broke"}))
    text = words(show("run", run="a"))
    for part in ("out\\_of\\_memory", "no memory left", "one\ntwo\nallocating failed", "it broke", "atlas resume a"):
        assert part in text, part


def test_a_dead_worker_is_lost(lab, show):
    lab.run("gkd", state="running", id="a")
    test = show("run", run="a")
    assert tiles(test)["state"] == "? lost" and "atlas resume a" in words(test)


def test_a_living_one_can_be_followed_and_cancelled(lab, show):
    lab.run("gkd", state="queued", id="a")
    run = lab.store.claim("test", "a")
    lab.store.started("a", run.fence, process_handle(os.getpid()), [0])
    test = show("run", run="a")
    assert tiles(test)["state"] == "▶ running"
    assert "atlas logs -f a" in words(test) and "atlas cancel a" in words(test)
    assert "No metrics yet" in words(test)


def test_the_spec_is_shown_as_submitted_and_as_resolved(lab, run, show):
    path = directory(lab, run) / "spec.json"
    document = json.loads(path.read_text()) | {"spec_text": "method: {type: gkd}", "command": "atlas submit a.yaml"}
    path.write_text(json.dumps(document))
    text = words(show("run", run=run, view="spec"))
    assert "method: {type: gkd}" in text and "atlas submit a.yaml" in text and "method:\n  type: gkd" in text


def test_a_spec_of_another_atlas_is_shown_as_it_is(lab, run, show):
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(lab.store.path)) as connection, connection:
        connection.execute("UPDATE spec_snapshot SET text = 'written otherwise'")
    for view in VIEWS:
        test = show("run", run=run, view=view)
    assert "written otherwise" in words(show("run", run=run, view="spec"))
    assert "seed ?" in words(test)


def test_environment_project_and_checkpoints_are_shown(lab, run, show):
    (directory(lab, run) / "project.patch").write_text("+ changed line\n")
    whole = directory(lab, run) / "checkpoints" / "step-10"
    whole.mkdir(parents=True)
    (whole / "model.safetensors").write_bytes(b"1234")
    (whole / "manifest.json").write_text(json.dumps({"version": 1, "files": {"model.safetensors": {"bytes": 4}}}))
    test = show("run", run=run, view="environment and checkpoints")
    assert all(part in words(test) for part in ("2.8.0", "c0ffee", "+ changed line"))
    assert list(test.dataframe[0].value["complete"]) == ["✓ complete"]


@pytest.mark.parametrize("view", VIEWS)
def test_a_directory_deleted_by_hand_leaves_what_the_store_knows(lab, run, show, view):
    shutil.rmtree(directory(lab, run))
    test = show("run", run=run, view=view)
    assert "Its directory is gone" in words(test) and tiles(test)["step"] == "10 / 20"


@pytest.mark.parametrize("view", VIEWS)
def test_files_that_make_no_sense_are_named_and_hide_nothing_else(lab, run, show, view):
    for name in ("spec.json", "environment.json", "result.json", "worker.log", "project.patch"):
        (directory(lab, run) / name).write_bytes(b"\xff\xfe{\n")
    text = words(show("run", run=run, view=view))
    assert ("put it back or remove it" in text) == (view in ("spec", "environment and checkpoints"))


def test_no_token_is_shown(lab, show):
    lab.run("gkd", state="failed", id="a")
    (directory(lab, "a") / "worker.log").write_text(f"login with {TOKEN}\n")
    (directory(lab, "a") / "result.json").write_text(json.dumps({"traceback": f"bad {TOKEN}"}))
    (directory(lab, "a") / "project.patch").write_text(f"+ token = {TOKEN}\n")
    append(directory(lab, "a") / "environment.json", [{"command": ["x", TOKEN]}])
    for view in VIEWS:
        assert TOKEN not in words(show("run", run="a", view=view))


def test_text_of_others_is_never_markup(lab, show):
    long = "".join(HOSTILE) + "x" * 100_000
    lab.run("gkd", state="queued", id="a", notes=long, tags=list(HOSTILE), metrics={HOSTILE[0]: 1.0, HOSTILE[1]: 2.0})
    run = lab.store.claim("test", "a")
    lab.store.started("a", run.fence, "1:2", [])
    lab.store.event("a", HOSTILE[2], long)
    lab.store.finish("a", run.fence, "failed", "error", long)
    (directory(lab, "a") / "worker.log").write_text("\n".join(HOSTILE))
    append(directory(lab, "a") / "environment.json", [{"packages": dict.fromkeys(HOSTILE, HOSTILE[0]), "gpus": ["x"]}])
    (directory(lab, "a") / "checkpoints" / HOSTILE[0]).mkdir(parents=True)
    for view in VIEWS:
        assert_no_markup(show("run", run="a", view=view, metric=list(HOSTILE[:2])))


def test_a_checkpoint_says_why_it_is_none(tmp_path):
    def folder(name, files, manifest=None):
        place = tmp_path / "checkpoints" / name
        place.mkdir(parents=True)
        for file, size in files.items():
            (place / file).write_bytes(b"x" * size)
        if manifest is not None:
            described = {file: {"bytes": size} for file, size in manifest.items()}
            (place / "manifest.json").write_text(json.dumps({"version": 1, "files": described}))

    weights = {"model.safetensors": 4}
    folder("step-1", weights, weights)
    folder("step-2", weights, {"model.safetensors": 5})
    folder("step-3", weights, {**weights, "optimizer.pt": 3})
    folder("step-4", weights)
    folder("best-step-1", weights)
    folder("final", {"config.json": 2})
    folder(".staging", weights)
    folder("passed-over-step-9", weights)
    found = {files.name: (files.use, files.step, files.flaw) for files in run_files.checkpoints(tmp_path)}
    assert found == {
        "step-1": ("resume", 1, None),
        "best-step-1": ("best on dev", 1, None),
        "step-2": ("resume", 2, "model.safetensors has 4 of 5 bytes"),
        "step-3": ("resume", 3, "optimizer.pt is missing"),
        "step-4": ("resume", 4, "manifest.json is missing"),
        "passed-over-step-9": ("passed over", 9, "it was not as it was written when the run was resumed"),
        ".staging": ("being written", None, "it is not yet whole, or its worker died while writing it"),
        "final": ("final model", None, "it holds no weights"),
    }
    assert run_files.checkpoints(tmp_path / "nowhere") == []


def test_the_newest_whole_line_is_the_environment(tmp_path):
    (tmp_path / "environment.json").write_text('{"python": "1"}\n{"python": "2"}\n{"pyth')
    assert run_files.environment(tmp_path) == {"python": "2"}
    (tmp_path / "environment.json").write_text("[1]\n")
    with pytest.raises(StoreError, match="expected a JSON object"):
        run_files.environment(tmp_path)
