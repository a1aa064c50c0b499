"""`atlas metrics`: newest values and curves."""

import csv
import io
import json
import math

import pytest
from command_line import atlas

from atlas.errors import NotFoundError


@pytest.fixture
def runs(lab, monkeypatch):
    monkeypatch.setenv("ATLAS_HOME", str(lab.store.home))
    diverged = {"train/loss": math.nan, "train/reverse_kl": 0.25}
    return lab.run("gkd", dev=[0.1, 0.2], metrics=diverged), lab.run("grpo", dev=[0.3])


def test_without_a_name_the_newest_values_are_printed(runs):
    shown = atlas("metrics", *runs)
    (row,) = [line.split() for line in shown.splitlines() if line.startswith("eval/pass_rate ")]
    assert row == ["eval/pass_rate", "0.2", "0.3"] and "nan" in shown
    document = json.loads(atlas("metrics", *runs, "--json"))
    assert document[runs[0]]["train/loss"] == "nan" and document[runs[1]] == {
        "eval/pass_rate": 0.3,
        "eval/problems": 100.0,
    }
    assert f"{runs[1]},eval/pass_rate,0.3" in atlas("metrics", *runs, "--csv").splitlines()


def test_a_curve_is_printed_over_any_clock(runs):
    rows = list(csv.reader(io.StringIO(atlas("metrics", *runs, "--name", "eval/pass_rate", "--csv"))))
    assert rows == [
        ["run", "name", "step", "value"],
        [runs[0], "eval/pass_rate", "0", "0.1"],
        [runs[0], "eval/pass_rate", "10", "0.2"],
        [runs[1], "eval/pass_rate", "0", "0.3"],
    ]
    options = ["--name", "eval/pass_rate", "--clock", "rollouts", "--json"]
    (curve,) = json.loads(atlas("metrics", runs[0], *options))
    assert curve == {"run": runs[0], "name": "eval/pass_rate", "clock": "rollouts", "points": [[0.0, 0.1], [80.0, 0.2]]}


def test_several_names_and_what_is_no_number(runs):
    shown = atlas("metrics", runs[0], "--name", "train/loss", "--name", "train/reverse_kl")
    assert shown.splitlines()[1:] == [f"{runs[0]}\ttrain/loss\t10\tnan", f"{runs[0]}\ttrain/reverse_kl\t10\t0.25"]
    (curve,) = json.loads(atlas("metrics", runs[0], "--name", "train/loss", "--json"))
    assert curve["points"] == [[10, "nan"]]


def test_a_run_without_measurements_says_so(lab, runs):
    assert "nothing measured yet" in atlas("metrics", lab.run("sft", state="queued"))


@pytest.mark.parametrize(
    "options, code, says",
    [
        (["--name", "eval/pas_rate"], NotFoundError.exit_code, "did you mean eval/pass_rate"),
        (["--name", "zzz"], NotFoundError.exit_code, "without --name all are listed"),
        (["--clock", "hours"], 2, "gpu_seconds"),
        (["--json", "--csv"], 2, "exclude each other"),
    ],
)
def test_what_cannot_be_printed_is_said(runs, options, code, says):
    assert says in atlas("metrics", *runs, *options, expect=code)
