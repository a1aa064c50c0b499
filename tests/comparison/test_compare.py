"""`atlas compare` and the end of a submit."""

import csv
import io
import json
import math
import re

import pytest
from rich.console import Console
from typer.testing import CliRunner

from atlas.cli import app
from atlas.cli.comparing import print_arms
from atlas.cli.tables import print_comparison
from atlas.comparison.collect import collect
from atlas.errors import UsageError

H200 = {"atlas": {"version": "0.2.0"}, "packages": {}, "gpus": [{"name": "H200"}]}


@pytest.fixture
def atlas(lab, monkeypatch):
    """`atlas compare`: its output, or the error that it ends with."""
    monkeypatch.setenv("ATLAS_HOME", str(lab.store.home))
    monkeypatch.setattr("atlas.cli.stores.settle", lambda store: None)

    def compare(*arguments):
        result = CliRunner().invoke(app, ["compare", *arguments])
        if result.exception is not None:
            raise result.exception
        return result.stdout

    return compare


@pytest.fixture
def study(lab):
    """grpo and gkd with two seeds each, their baselines, one seed failed, as an experiment."""
    runs = [
        ("grpo", seed, lab.run("grpo", seed, [0.1, 0.3, 0.5], "1000000000", seconds_per_step=8.0)) for seed in (0, 1)
    ]
    runs += [("gkd", seed, lab.run("gkd", seed, [0.1, 0.6, 0.7], "1111111100")) for seed in (0, 1)]
    runs.append(("gkd", 2, lab.run("gkd", 2, [0.1], state="failed")))
    student = lab.run("evaluate", 0, [0.1], "1000000000")
    teacher = lab.run("evaluate", 0, [0.9], "1111111110", student={"model": "org/teacher"})
    lab.experiment(runs, {"student": student, "teacher": teacher})
    return [run_id for _, _, run_id in runs]


def row(output, start):
    """The cells of the line that starts so."""
    (line,) = [line for line in output.splitlines() if line.startswith(start + "  ")]
    return line.removeprefix(start).split()


def test_the_table_shows_each_arm_and_baseline(atlas, study):
    output = atlas("study")
    assert row(output, "grpo")[:6] == ["2", "10.0", "50.0", "[40,", "60]", "10.0"]
    assert row(output, "gkd")[:3] == ["2", "of", "3"]
    assert row(output, "grpo")[-4:] == ["2.7", "2.7", "160", "2000"], "time to peak, time in all, rollouts, tokens"
    assert row(output, "teacher as is") == ["90.0", "90.0", "[60,", "98]"]
    assert "CPU-min" in output


def test_targets_verdicts_differences_and_what_is_missing_follow(atlas, study):
    output = atlas("study")
    assert row(output, "90 % of the teacher") == ["81.0", ">", "2.7", ">", "0.33"]
    assert row(output, "grpo's peak less 1 SE") == ["45.0", "2.3", "0.12"]
    assert "\ngkd against grpo\n  gkd ends 70.0 points above grpo on test (95 % interval" in output
    assert "  gkd reaches grpo's peak 20.0x sooner in training time" in output
    assert row(output, "method.type") == ["grpo", "gkd"]
    assert "\nnot there\n  gkd s2 failed: out_of_memory: no memory left\n" in output
    assert f"s0 {study[0]} succeeded" in output


def drawn(lab, width, *references):
    """The lines on a terminal of this width."""
    console = Console(file=io.StringIO(), width=width)
    print_arms(collect(lab.store, references), console)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def columns(lines):
    """The headings of the arm table."""
    (line,) = [line for line in lines if line.startswith("arm ")]
    return re.split(r"  +", line)


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_tables_and_verdicts_keep_within_the_terminal(lab, study, width):
    lines = drawn(lab, width, "study")
    assert max(map(len, lines)) <= width and not any("…" in line for line in lines)
    assert {"arm", "seeds", "peak", "test"} <= set(columns(lines))


def test_a_terminal_without_room_leaves_out_whole_columns_and_names_them_but_never_cuts_an_arms_name(lab):
    arms = {"generalised_distillation_of_30": "gkd", "group_relative_optimisation_30": "grpo"}
    lab.experiment([(arm, 0, lab.run(method, 0, [0.1, 0.5], "1100000000")) for arm, method in arms.items()])
    lines = drawn(lab, 80, "study")
    assert columns(lines) == ["arm", "seeds", "peak", "test", "CPU-s"]
    assert [line.split()[0] for line in lines[2:4]] == list(arms)
    assert "no room for step 0, in all, rollouts, tokens" in lines
    assert [line.split()[0] for line in drawn(lab, 40, "study")[1:3]] == list(arms)


def test_an_empty_column_gives_way_first_and_a_full_one_after_tokens_and_rollouts(lab):
    def given_up(**metrics):
        """Which columns are missing at ever fewer characters."""
        run_id = lab.run("gkd", 0, [0.1, 0.5], "11", metrics=metrics)
        shown = [columns(drawn(lab, width, run_id)) for width in range(120, 60, -1)]
        gone = [name for name in shown[0] if name not in shown[-1]]
        return sorted(gone, key=lambda name: next(n for n, names in enumerate(shown) if name not in names))

    assert given_up()[:3] == ["KL", "tokens", "rollouts"]
    assert given_up(**{"train/reverse_kl": 0.25})[:3] == ["tokens", "rollouts", "KL"]


def test_lines_on_a_terminal_break_between_words_and_in_a_pipe_not_at_all(lab, study):
    piped = drawn(lab, 10_000, "study")
    start = piped.index("gkd against grpo")
    sentences = [line.strip() for line in piped[start + 1 : piped.index("", start)]]
    lines = drawn(lab, 50, "study")
    start = lines.index("gkd against grpo")
    shown = lines[start + 1 : lines.index("", start)]
    assert " ".join(map(str.strip, shown)) == " ".join(sentences) and max(map(len, shown)) <= 50
    assert [line for line in shown if not line.startswith("    ")] != shown, "what goes on is set in"
    assert any(study[0] in line for line in drawn(lab, 12, "study")), "an id is whole, to be copied"


def test_runs_on_gpus_are_measured_in_gpu_hours(atlas, lab):
    run_id = lab.run("gkd", 0, [0.1, 0.5], seconds_per_step=1800.0, environment=H200)
    output = atlas(run_id)
    assert "GPU-h" in output and row(output, "gkd")[-4:-2] == ["5.0", "5.0"]


def test_a_run_before_its_first_evaluation_has_an_empty_row(atlas, lab):
    output = atlas(lab.run("gkd", 0, state="queued"))
    assert row(output, "gkd") == ["0", "of", "1"]
    assert "gkd s0 is queued" in output


def test_the_seeds_are_those_that_the_numbers_rest_on(atlas, lab):
    done = [lab.run("gkd", seed, [0.1, 0.5], "1100000000") for seed in (0, 1)]
    measured = lab.run("gkd", 2, [0.1], state="running")
    queued = lab.run("gkd", 3, state="queued")
    assert row(atlas(*done, queued), "gkd")[:3] == ["2", "of", "3"]
    assert row(atlas(*done, measured), "gkd")[:3] == ["2", "of", "3"], "the test score is of two"
    assert row(atlas(measured, queued), "gkd")[:4] == ["1", "of", "2", "10.0"], "the first evaluations, of one"
    failed = lab.run("gkd", 0, [0.1], state="failed")
    assert row(atlas(failed, *done), "gkd")[:2] == ["2", "10.0"], "a seed that was run again is one seed"


def test_runs_that_cannot_be_compared_are_refused_and_forced_ones_are_marked_in_front(atlas, lab):
    gkd, grpo = lab.run("gkd", 0, [0.1]), lab.run("grpo", 0, [0.1], problems=50)
    with pytest.raises(UsageError, match="number of problems"):
        atlas(gkd, grpo)
    assert atlas(gkd, grpo, "--force").startswith("\nNOT COMPARABLE: these runs were not measured in the same way\n")


def test_json_is_strict_and_holds_everything(atlas, lab, study):
    lab.run("sft", 0, [0.1, math.nan], name="diverged")
    document = json.loads(atlas("diverged", "--json"), parse_constant=pytest.fail)
    assert document["arms"][0]["runs"][0]["pass_rate_E"] == [0.1, None]
    document = json.loads(atlas("study", "--json"), parse_constant=pytest.fail)
    assert document["experiment"]["id"] == "study-0a0a0a"
    assert document["arms"][1]["test"]["pass_rate"] == pytest.approx(0.8)
    assert document["arms"][1]["runs"][0]["job"]["teacher"]["model"] == "org/teacher"
    assert document["verdicts"][0]["speed_up"]["value"] == pytest.approx(20)
    assert document["verdicts"][0]["difference"]["problems"] == 10
    assert document["targets"][1]["reached"]["gkd"]["train_seconds"][0]["value"] == pytest.approx(7)


def test_csv_has_one_line_for_each_run_with_numbers_as_they_are(atlas, study):
    rows = list(csv.DictReader(io.StringIO(atlas("study", "--csv"))))
    assert [(row["role"], row["arm"], row["seed"], row["state"]) for row in rows] == [
        ("arm", "grpo", "0", "succeeded"),
        ("arm", "grpo", "1", "succeeded"),
        ("arm", "gkd", "0", "succeeded"),
        ("arm", "gkd", "1", "succeeded"),
        ("arm", "gkd", "2", "failed"),
        ("baseline", "student", "0", "succeeded"),
        ("baseline", "teacher", "0", "succeeded"),
    ]
    first, failed = rows[0], rows[4]
    assert (first["run"], first["step0"], first["peak"], first["test"]) == (study[0], "0.1", "0.5", "0.1")
    assert (first["peak_step"], first["peak_train_seconds"], first["rollouts"]) == ("20", "160.0", "160.0")
    assert float(first["test_low"]) == pytest.approx(0.0178762, rel=1e-5)
    assert failed["failure"] == "out_of_memory: no memory left" and failed["test"] == ""


def test_csv_of_an_experiment_without_runs_is_its_header(atlas, lab):
    lab.experiment([("gkd", 0, "gone")])
    assert atlas("study", "--csv").startswith("role,arm,seed,run,state") and atlas("study", "--csv").count("\n") == 1


def test_json_and_csv_exclude_each_other(atlas, study):
    with pytest.raises(UsageError, match="exclude each other"):
        atlas("study", "--json", "--csv")


def test_what_a_job_says_cannot_control_the_terminal(atlas, lab):
    runs = [
        lab.run("sft", seed, [0.1], name=name, dataset={"type": "gsm8k", "instruction": f"\x1b[2J[bold]{name}"})
        for seed, name in enumerate("ab")
    ]
    output = atlas(*runs)
    assert "\x1b[2J" not in output and "\\x1b[2J[bold]a" in output


def test_a_submit_ends_with_the_comparison_of_its_experiments_and_other_runs(lab, study, capsys):
    other = lab.run("sft", 0, [0.1, 0.2])
    runs = [lab.store.run(run_id) for run_id in [*study, other]]
    print_comparison(lab.store, runs, ["study-0a0a0a"])
    output = capsys.readouterr().out
    assert "gkd against grpo" in output and row(output, "sft")[:2] == ["1", "10.0"]
    assert f"{study[4]}: failed (out_of_memory): no memory left\n" in output
    assert output.count("arm ") == 2, "one table each"


def test_a_submit_of_runs_that_cannot_be_compared_shows_them_without_verdicts(lab, capsys):
    runs = [lab.run("gkd", 0, [0.1, 0.5]), lab.run("grpo", 0, [0.1, 0.4], problems=50)]
    print_comparison(lab.store, [lab.store.run(run_id) for run_id in runs])
    output = capsys.readouterr().out
    assert "NOT COMPARABLE" in output and "50.0 [40, 60]" in output
    assert "against" not in output and "to a level" not in output
