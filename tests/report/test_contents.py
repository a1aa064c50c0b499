import math
from dataclasses import replace

import numpy as np
from made_by_hand import AT_SECONDS, ENVIRONMENT, SPEC_TEXT, compared, job, run

from atlas.report import conditions, results
from atlas.report.contents import document
from atlas.report.document import Bullets, Code, Details, Figure, Paragraph, Table
from atlas.report.examples import LONGEST, SHOWN, examples


def section(comparison, samples, title):
    (found,) = (part for part in document(comparison, samples, AT_SECONDS).sections if part.title == title)
    return found.blocks


def flat(blocks):
    """All blocks, those that are folded away too."""
    for block in blocks:
        yield block
        if isinstance(block, Details):
            yield from flat(block.blocks)


def only(kind, blocks):
    return [block for block in flat(blocks) if isinstance(block, kind)]


def text_of(blocks):
    words = []
    for block in flat(blocks):
        if isinstance(block, Paragraph | Code):
            words.append(block.text)
        elif isinstance(block, Bullets):
            words += block.items
        elif isinstance(block, Table):
            words += [*block.columns, *(cell for row in block.rows for cell in row), *block.footnotes]
        elif isinstance(block, Details):
            words.append(block.summary)
    return "\n".join(words)


def column(table, name):
    return [row[table.columns.index(name)] for row in table.rows]


def test_the_verdict_comes_first_in_the_words_of_the_comparison(rich, samples):
    first, *_ = document(rich, samples, AT_SECONDS).sections
    said = [block.text for block in first.blocks if isinstance(block, Paragraph) and block.tone == "verdict"]
    assert said == [sentence for verdict in rich.verdicts for sentence in verdict.sentences]


def test_a_forced_comparison_begins_with_its_mismatches_in_red(rich, samples):
    forced = replace(rich, mismatches=("the dev problems differ (sha256): a in gkd s0; b in grpo s0",))
    warning, why, *_ = section(forced, samples, "Verdict")
    assert warning.tone == "warning" and "must not be compared" in warning.text
    assert why == Bullets(forced.mismatches, "warning")


def test_the_dates_are_those_of_the_submission_and_of_the_report(rich, samples):
    subtitle = document(rich, samples, AT_SECONDS).subtitle
    assert "submitted 2025-11-21 07:26 UTC" in subtitle and "Report of 2025-11-22 08:26 UTC" in subtitle


def test_every_arm_has_a_row_and_every_run_is_below(rich, samples):
    arms, runs, baselines = only(Table, results.final_metrics(rich))
    assert column(arms, "arm") == ["gkd", "grpo", "sft_only"]
    assert column(arms, "seeds") == ["3", "3", "3"]
    assert column(runs, "run") == [run.id for arm in rich.arms for run in arm.runs]
    assert column(baselines, "baseline") == ["student", "teacher"]
    assert column(baselines, "dev [95 % interval]")[1] == "69.0 [62.3, 75.0]"


def test_the_numbers_of_an_arm_are_those_of_the_comparison(rich, samples):
    arms, *_ = only(Table, results.final_metrics(rich))
    test = rich.arms[0].test
    assert column(arms, "test")[0] == f"{100 * test.pass_rate:.1f} [{100 * test.low:.1f}, {100 * test.high:.1f}]"
    assert column(arms, "SE")[0] == f"{100 * test.standard_error:.1f}"
    assert column(arms, "whole run (GPU-h)")[1].startswith(f"{rich.arms[1].used['gpu_seconds'].mean / 3600:.1f} ± ")
    assert column(arms, "reverse KL")[0].startswith("0.045 ±")


def test_what_was_not_measured_is_a_dash_with_its_reason(poor, samples):
    arms, runs = only(Table, results.final_metrics(poor))
    assert all(cell.startswith("–") for cell in arms.rows[0][2:8])
    assert "no run has a score on test yet" in text_of([arms])
    assert "the pass rate is not a number (NaN)" in text_of([runs])
    assert "the reverse KL is not a number (NaN)" in text_of([runs])
    assert column(runs, "state") == [
        "failed: non_finite_loss: the loss is NaN at step 31; lower training.learning_rate",
        "queued",
    ]


def test_a_poor_comparison_claims_nothing_and_says_why(poor, samples):
    report = document(poor, samples, AT_SECONDS)
    said = {part.title: text_of(part.blocks) for part in report.sections}
    assert "no verdict" in said["Verdict"] and "alone-1 failed" in said["Verdict"]
    assert "nothing to draw" in said["Pass rate over training time"]
    assert "No phases were recorded for gkd" in said["Where the time went"]
    assert "alone-2 is queued" in said["Notes and missing runs"]
    assert not only(Figure, [block for part in report.sections for block in part.blocks])
    assert "nan" not in "".join(said.values()).replace("NaN", "")


def test_the_runs_on_a_cpu_are_not_said_to_have_used_a_gpu(rich, samples):
    alone = compared({"gkd": [run("gkd", environment=ENVIRONMENT | {"gpus": []})]})
    arms, *_ = only(Table, results.final_metrics(alone))
    assert "whole run (CPU-h)" in arms.columns
    assert not any("GPU" in name for name in arms.columns)


def test_failed_seeds_are_counted_but_not_in_the_times(rich, samples):
    alone = compared({"gkd": [run("gkd"), run("gkd", 1, evaluations=3, state="failed", failure="out_of_memory")]})
    arms, *_ = only(Table, results.final_metrics(alone))
    assert column(arms, "seeds") == ["1 of 2"]
    assert " to " not in column(arms, "to peak (GPU-h)")[0]


def test_a_target_that_was_never_reached_is_longer_than_the_run(rich, samples):
    (targets,) = only(Table, results.time_to_target(rich))
    cells = dict(zip(zip(column(targets, "target"), column(targets, "arm"), strict=True), targets.rows, strict=True))
    assert cells["90 % of the teacher", "grpo"][3].startswith("> 8h")
    assert "in 3 of 3 seeds" in cells["90 % of the teacher", "grpo"][3]


def test_the_parts_of_a_speed_up_are_those_of_the_verdict(rich, samples):
    (parts,) = only(Table, results.speed_up_split(rich))
    assert parts.rows[0][:2] == ("grpo, gkd", "gkd")
    assert parts.rows[0][2] == f"{rich.verdicts[0].speed_up.value:.1f}× (3 seeds)"
    assert parts.rows[0][4] == f"{rich.verdicts[0].split.rollouts_ratio:.1f}×"


def test_a_speed_up_with_one_seed_has_no_interval(rich, samples):
    alone = compared({"gkd": [run("gkd")], "grpo": [run("grpo", gain=0.16, pace_seconds=2900.0)]})
    (parts,) = only(Table, results.speed_up_split(alone))
    assert parts.rows[0][3] == "–¹" and parts.footnotes == ("¹ one seed has no interval",)
    (tests,) = only(Table, section(alone, samples, "Verdict"))
    assert float(column(tests, "McNemar p")[0].removeprefix("< ")) < 1


def test_mcnemar_is_left_out_where_there_are_several_seeds(rich):
    (tests, _) = results.differences_on_test(rich)
    assert "McNemar p" not in tests.columns
    assert column(tests, "gained") == [str(len(verdict.gained_P)) for verdict in rich.verdicts]


def test_nobody_is_called_sooner_where_that_cannot_be_said(rich):
    unknown = replace(rich.verdicts[0], sooner=None, speed_up=None, split=None)
    (parts,) = only(Table, results.speed_up_split(replace(rich, verdicts=(unknown,))))
    assert parts.rows[0] == ("grpo, gkd", "–¹", "–¹", "–¹", "–¹", "–¹")


def test_the_teachers_share_is_named(rich, samples):
    said = text_of(results.phases(rich))
    assert "gkd: the teacher's forward passes are 25 % of the training time" in said
    assert "grpo: no time went to a teacher" in said


def test_phases_that_no_clock_explains_are_other(rich):
    (phases,) = only(Table, results.phases(rich))
    assert column(phases, "phase")[:2] == ["generate", "teacher"]
    gkd = dict(zip(column(phases, "phase"), column(phases, "gkd"), strict=True))
    assert gkd["other"] == "11m 30s (7 %)"
    assert gkd["evaluate"] == "23m 20s"
    assert gkd["reward"].startswith("–")
    shares = [int(cell.split("(")[1].removesuffix(" %)")) for cell in gkd.values() if "(" in cell]
    assert abs(sum(shares) - 100) <= 2


def test_the_phases_of_a_failed_seed_are_left_out():
    failed = run("gkd", 1, state="failed", phases={"generate": 1e6})
    (phases,) = only(Table, results.phases(compared({"gkd": [run("gkd", phases={"generate": 90.0}), failed]})))
    assert column(phases, "gkd")[0].startswith("1m 30s")


def test_every_difference_is_listed_and_the_rest_is_the_job_of_the_reference(rich, samples):
    (fields,) = only(Table, conditions.differences(rich))
    assert column(fields, "field") == list(rich.differences)
    assert column(fields, "grpo") == ["grpo", "8", "–¹"]
    assert column(fields, "gkd")[1] == "–¹"
    (job,) = only(Code, conditions.resolved_spec(rich))
    assert "learning_rate: 2.0e-05" in job.text


def test_conditions_that_all_runs_share_are_one_row(rich, samples):
    data, code, packages = only(Table, conditions.provenance(rich))
    assert data.rows[0] == ("dev", f"200 examples, sha256 {200:064x}")
    assert ("GPU", "NVIDIA H200 (driver 580.12)") in code.rows
    assert ("torch", "2.9.0") in packages.rows
    assert ("grader", "version 1, percent unit, ordered_lists false") in data.rows


def test_conditions_that_differ_name_the_runs(rich, samples):
    other = run("gkd", 1, environment=ENVIRONMENT | {"packages": {"torch": "2.8.0"}})
    alone = compared({"gkd": [run("gkd"), other]})
    _, _, packages = only(Table, conditions.provenance(alone))
    assert ("torch", "2.9.0", run("gkd").id) in packages.rows
    assert ("torch", "2.8.0", other.id) in packages.rows
    assert ("trl", "–¹", other.id) in packages.rows


def test_examples_show_what_both_sides_wrote(rich, samples):
    blocks = examples(rich, samples)
    problems = [block for block in blocks if isinstance(block, Details)]
    assert {block.summary for block in problems[:SHOWN]} <= set(rich.verdicts[0].gained_P)
    assert len(problems) == 4 * SHOWN
    winner, _, loser, _ = problems[0].blocks
    assert winner.text.startswith("grpo, seed ") and ": right, answer 72" in winner.text
    assert loser.text.startswith("gkd, seed ") and ": wrong" in loser.text
    assert f"({SHOWN} of {len(rich.verdicts[0].gained_P)})" in text_of(blocks)


def test_a_long_completion_is_cut_and_says_so(rich, samples):
    blocks = examples(rich, lambda *key: samples(*key, text="x" * (LONGEST + 1)))
    assert only(Code, blocks)[0].text == "x" * LONGEST + "\n[… cut: 601 characters in all]"


def test_completions_that_are_not_in_the_store_are_said_to_be_missing(rich):
    blocks = examples(rich, lambda run_id, step: [])
    assert "its completion is not in the store" in text_of(blocks)


def test_samples_of_other_splits_are_not_taken_for_test(rich, samples):
    def on_dev(run_id, step):
        found = samples(run_id, step, text="from dev")
        for sample in found:
            sample.split = "dev"
        return found

    assert "from dev" not in text_of(examples(rich, on_dev))


def test_the_commits_of_the_models_are_named_where_the_hub_has_them(rich, samples):
    both = {"student": "5f0c", "teacher": "91ab"}
    arms = {"gkd": [run("gkd", revisions=both)], "grpo": [run("grpo", revisions={"student": "5f0c", "teacher": None})]}
    tables = only(Table, conditions.provenance(compared(arms)))
    facts = {row[0]: row[1:] for row in tables[1].rows}
    assert facts["student's model"] == ("Qwen/Qwen2.5-7B-Instruct, commit 5f0c",)
    assert facts["teacher's model"] == ("Qwen/Qwen2.5-14B-Instruct, commit 91ab",)


def test_an_experiment_is_reproduced_from_its_file_and_commit(rich, samples):
    blocks = conditions.reproduce(rich)
    codes = [block.text for block in only(Code, blocks)]
    assert f"git checkout {'9a8b7c6d' * 5}" in codes
    assert "atlas submit specs/case_study/experiment.yaml --set seeds=[0]" in codes, "with what was set"
    assert "atlas submit specs/case_study/experiment.yaml" not in codes
    assert SPEC_TEXT in codes
    assert "uncommitted changes" in text_of(blocks)
    (ids,) = only(Table, blocks)
    assert len(ids.rows) == 9 + 2


def test_single_runs_are_reproduced_one_by_one(poor, samples):
    blocks = conditions.reproduce(poor)
    assert "atlas show RUN --spec > FILE" in text_of(blocks)
    assert column(only(Table, blocks)[0], "run") == ["alone-1", "alone-2"]


def test_an_arm_whose_runs_were_all_deleted_is_shown_as_empty(rich, samples):
    gone = compared({"gkd": [], "grpo": [run("grpo")]})
    assert "not in the store any more" in text_of(conditions.resolved_spec(gone))
    said = text_of(block for part in document(gone, samples, AT_SECONDS).sections for block in part.blocks)
    assert "no run has a score on test yet" in said


def test_cautions_and_the_notes_of_jobs_are_shown(rich, samples):
    noted = run("gkd", job=job("gkd", notes="warm GPU"))
    comparison = compared({"gkd": [noted]}, notes=("the devices differ",))
    blocks = section(comparison, samples, "Notes and missing runs")
    assert "warm GPU" in text_of(blocks) and "the devices differ" in text_of(blocks)


def test_each_run_shows_the_step_whose_checkpoint_was_scored_on_test(rich, samples):
    alone = compared({"gkd": [run("gkd", test_step=40), run("gkd", seed=1, test_step=None)]})
    _, runs = only(Table, results.final_metrics(alone))
    chosen = column(runs, "chosen step")
    assert chosen[0] == "40" and chosen[1].startswith("–")


def test_a_pass_rate_that_is_nan_never_becomes_a_number(rich, samples):
    alone = compared({"gkd": [run("gkd", pass_rate_E=np.full(11, math.nan))]})
    arms, runs = only(Table, results.final_metrics(alone))
    assert column(arms, "peak (dev)")[0].startswith("–")
    assert column(runs, "peak (dev)")[0].startswith("–")
