"""`atlas ls --json` and `atlas show --json` say what the dashboard shows of a run."""

import json

import pytest
from command_line import atlas


@pytest.fixture(autouse=True)
def home(lab, monkeypatch):
    monkeypatch.setenv("ATLAS_HOME", str(lab.store.home))
    return lab.store.home


def listed():
    return {run["id"]: run for run in json.loads(atlas("ls", "--json"))}


def test_ls_has_what_the_table_shows(lab):
    lab.run("gkd", seed=3, dev=[0.1, 0.3], id="dev")
    lab.run("grpo", dev=[0.1], test="1100", id="test")
    lab.run("sft", state="queued", id="queued")
    lab.experiment([("arm", 3, "dev")], baselines={"student": "test"})
    found = listed()
    assert (found["dev"]["seed"], found["dev"]["arm"], found["dev"]["experiment"]) == (3, "arm", "study-0a0a0a")
    assert found["test"]["arm"] == "baseline student"
    score = found["dev"]["score"]
    assert (score["split"], score["step"], score["pass_rate"]) == ("dev", 10, 0.3)
    assert (found["test"]["score"]["split"], found["test"]["score"]["pass_rate"]) == ("test", 0.5)
    assert found["dev"]["evaluations"] == [{"step": 0, "pass_rate": 0.1}, {"step": 10, "pass_rate": 0.3}]
    assert found["dev"]["device_seconds"] == 10 and found["dev"]["on_gpu"] is False
    assert found["queued"]["score"] is None and found["queued"]["device_seconds"] is None


def test_what_is_no_number_is_a_word(lab):
    lab.run("gkd", dev=[float("nan")], id="a")
    assert listed()["a"]["score"]["pass_rate"] == "nan"
    assert listed()["a"]["evaluations"] == [{"step": 0, "pass_rate": "nan"}]


def test_the_split_of_the_evaluations_is_that_of_the_job(lab):
    lab.run("gkd", dev=[0.1], eval_split="test", id="a")
    assert listed()["a"]["score"]["split"] == "test"


def test_show_has_environment_and_checkpoints(lab, home):
    lab.run("gkd", id="a")
    weights = home / "runs/a/checkpoints/step-10"
    weights.mkdir(parents=True)
    document = json.loads(atlas("show", "a", "--json"))
    assert document["environment"]["packages"]["torch"] == "2.8.0"
    [checkpoint] = document["checkpoints"]
    assert checkpoint["path"] == str(weights) and checkpoint["step"] == 10
    assert not checkpoint["complete"] and checkpoint["flaw"] == "manifest.json is missing"


def test_an_environment_that_cannot_be_read_hides_nothing_else(lab, home):
    lab.run("gkd", id="a")
    (home / "runs/a/environment.json").write_text("{\n")
    output = atlas("show", "a", "--json")
    assert json.JSONDecoder().raw_decode(output)[0]["environment"] is None
    assert "put it back or remove it" in output
