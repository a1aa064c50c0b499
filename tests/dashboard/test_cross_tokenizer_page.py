"""The page of runs whose student and teacher tokenize differently."""

import math

import pytest
from hostile import HOSTILE, assert_no_markup
from lab import append

METRICS = {
    "alignment/coverage": 1.0,
    "alignment/chunk_len_student": 1.0,
    "alignment/chunk_len_teacher": 2.0,
    "alignment/vocab_overlap_bytes_student": 0.25,
    "alignment/vocab_overlap_bytes_teacher": 1.0,
    "alignment/shared_mass_student": 0.5,
    "alignment/shared_mass_teacher": 0.75,
    "train/bits_per_byte_student": 0.2,
    "train/bits_per_byte_teacher": 1.5,
}


def aligned(lab, *steps, id=None, text="48", **metrics):
    """A run with alignment metrics, and two completions of each of these steps."""
    run = lab.run(
        "gkd", dev=[0.1, 0.2], metrics=METRICS | {name.replace("_of_", "/"): metrics[name] for name in metrics}, id=id
    )
    append(folder(lab, run) / "alignment.jsonl", [completion(step, text) for step in steps for _ in range(2)])
    return run


def completion(step, text="48", divergence=(0.5, 0.0), prompt="What?"):
    student, teacher = [[text, 0], ["!", 1], ["x", -1]], [["4", 0], ["8", 0], ["!", 1]]
    return {"step": step, "prompt": prompt, "student": student, "teacher": teacher, "divergence": list(divergence)}


def folder(lab, run):
    return lab.store.home / "runs" / run


def texts(test):
    kinds = ("text", "code", "caption", "markdown", "warning")
    return "\n".join(str(element.value) for kind in kinds for element in test.get(kind)).replace("\\", "")


def strips(test):
    """The HTML of the completions, without the key."""
    return [element.proto.body for element in test.get("html")][1:]


def figure(test, beginning, column=1):
    table = test.dataframe[0].value
    (row,) = [row for row in table.values.tolist() if row[0].startswith(beginning)]
    return row[column]


def test_without_runs_that_align_the_page_says_how_to_get_one(show, lab):
    lab.run("grpo", dev=[0.1])
    assert "specs/cross_tokenizer/quickstart.yaml" in texts(show("cross_tokenizer"))


def test_the_newest_run_that_aligns_is_shown_and_is_in_the_address(show, lab):
    run = aligned(lab, 1, 2)
    lab.run("grpo", dev=[0.1])
    test = show("cross_tokenizer")
    assert (test.query_params["run"], test.query_params["step"], test.query_params["sample"]) == (run, "newest", "1")
    assert figure(test, "vocabulary that the other has too, by bytes") == "25.0% / 100.0%"
    assert figure(test, "boundaries") == "100.0% / 50.0%" and figure(test, "bits a byte") == "0.2 / 1.5"
    assert ">48<" in strips(test)[0] and "step 2" in texts(test)
    assert "3 tokens of the student and 3 of the teacher in 2 chunks, 1 of the student's tokens in none" in texts(test)


def test_several_runs_stand_on_one_page(show, lab):
    runs = [aligned(lab, 1, id=f"study-{arm}-s0-aa1", text=arm) for arm in ("push", "gold", "uld")]
    test = show("cross_tokenizer", run=runs)
    assert list(test.dataframe[0].value.columns) == ["newest value", "push-s0", "gold-s0", "uld-s0"]
    assert [arm in strip for arm, strip in zip(("push", "gold", "uld"), strips(test), strict=True)] == [True] * 3
    assert [element.value for element in test.code] == ["What?"]


def test_the_step_and_the_sample_are_those_of_the_address(show, lab):
    run = aligned(lab, 1, 2)
    append(folder(lab, run) / "alignment.jsonl", [completion(4, "four"), completion(4, "five")])
    assert "five" in strips(show("cross_tokenizer", run=run, step="4", sample="2"))[0]
    test = show("cross_tokenizer", run=run, step="3", sample="9")
    assert "There is no step 3" in texts(test) and "There is no sample 9" in texts(test)


def test_a_run_without_this_step_says_so_and_the_others_are_drawn(show, lab):
    runs = [aligned(lab, 1, 2, id="study-push-s0-aa1"), aligned(lab, 1, id="study-gold-s0-aa1")]
    test = show("cross_tokenizer", run=runs, step="2")
    assert "No sample 1 of: gold-s0, step 2" in texts(test) and len(strips(test)) == 1


def test_low_coverage_is_a_warning(show, lab):
    run = aligned(lab, 1, alignment_of_coverage=0.97)
    assert "only 97.00% of the student's tokens" in texts(show("cross_tokenizer", run=run))
    assert not show("cross_tokenizer", run=aligned(lab, 1)).warning


def test_values_that_are_no_numbers_are_said(show, lab):
    run = aligned(lab, 1, train_of_reverse_kl=math.nan, alignment_of_root_agreement=math.inf)
    append(folder(lab, run) / "alignment.jsonl", [completion(2, divergence=[math.nan, -math.inf])])
    test = show("cross_tokenizer", run=run)
    assert "NaN at step 10" in texts(test) and figure(test, "reverse KL") == "nan"
    assert "NaN" in strips(test)[0] and "mean divergence NaN" in texts(test)


@pytest.mark.parametrize("content", [None, "", "{", '{"step": 1}\n[]\n'])
def test_without_completions_the_page_says_what_it_lacks(show, lab, content):
    run = aligned(lab)
    (folder(lab, run) / "alignment.jsonl").unlink()
    if content is not None:
        (folder(lab, run) / "alignment.jsonl").write_text(content)
    test = show("cross_tokenizer", run=run)
    assert "has no completions in" in texts(test) and "alignment.jsonl" in texts(test)
    assert figure(test, "coverage") == "100.00%"


def test_a_run_that_does_not_align_says_why(show, lab):
    aligned(lab, 1)
    grpo, alike, young = lab.run("grpo"), lab.run("gkd", dev=[0.1, 0.2]), lab.run("gkd", state="running")
    for run, reason in (
        (grpo, "reads no teacher's tokens"),
        (alike, "tokenize alike"),
        (young, "has not ended its first step"),
        ("gone-1", "Not in this store"),
    ):
        assert reason in texts(show("cross_tokenizer", run=run))


def test_a_step_of_a_run_in_progress_is_shown(show, lab):
    run = lab.run("gkd", dev=[0.1, 0.2], metrics=METRICS, state="running")
    assert "it has not ended a step yet" in texts(show("cross_tokenizer", run=run))


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_model_wrote_is_never_markup(show, lab, text):
    run = aligned(lab, 1, text=text)
    append(folder(lab, run) / "alignment.jsonl", [completion(1, text, prompt=text)])
    test = show("cross_tokenizer", run=[run, text], step=["1", text], sample="3")
    assert text in [element.value for element in test.code]
    assert_no_markup(test)
