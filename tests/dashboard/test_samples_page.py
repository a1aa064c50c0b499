"""The page that puts completions of the same problem side by side."""

import pytest
from hostile import HOSTILE, assert_no_markup
from lab import append, sample


def add(lab, run, *samples):
    append(lab.store.home / "runs" / run / "samples.jsonl", samples)
    lab.store.ingest(run)


def record(lab, run, *problems):
    lines = [
        {"split": "test", "problem_id": name, "messages": [{"role": "user", "content": text}], "answer": answer}
        for name, text, answer in problems
    ]
    append(lab.store.home / "runs" / run / "problems.jsonl", lines)


@pytest.fixture
def pair(lab):
    """Two runs: p1 is gained and p2 lost by the second."""
    return lab.run("gkd", dev=[0.1], test="1010"), lab.run("grpo", dev=[0.1], test="1100")


def texts(test):
    kinds = ("text", "code", "caption", "markdown", "warning")
    return "\n".join(str(element.value) for kind in kinds for element in test.get(kind))


def listed(test):
    return list(test.dataframe[0].value["problem"])


def test_without_a_choice_the_newest_evaluated_run_is_shown_and_is_in_the_address(show, pair, lab):
    lab.run("sft", state="running")
    test = show("samples")
    assert test.query_params["run"] == pair[1] and test.query_params["problem"] == "p0"
    assert listed(test) == ["p0", "p1", "p2", "p3"]


@pytest.mark.parametrize(
    "kind, problems", [("all", 4), ("gained", ["p1"]), ("lost", ["p2"]), ("right", 3), ("wrong", 3)]
)
def test_the_filters_say_what_the_first_run_is_for(show, pair, kind, problems):
    test = show("samples", run=list(pair), problems=kind)
    assert listed(test) == problems if isinstance(problems, list) else len(listed(test)) == problems
    assert "gained and lost against" in texts(test) and "(reference)" in texts(test)


@pytest.mark.parametrize("kind", ["clipped", "unparsed"])
def test_completions_without_an_end_or_an_answer_are_found(show, pair, lab, kind):
    assert "No such problem" in texts(show("samples", run=list(pair), problems=kind))
    add(lab, pair[1], sample(0, "p9", "0") | {"clipped": True, "found": False})
    test = show("samples", run=list(pair), problems=kind)
    assert listed(test) == ["p9"] and "not asked here" in texts(test)
    assert "no answer found" in texts(test) and "cut at the token limit" in texts(test)


def test_one_run_alone_gains_nothing_and_the_page_says_what_to_do(show, pair):
    assert "Choose a second run or step" in texts(show("samples", run=[pair[0]], problems="gained"))


def test_one_problem_stands_side_by_side_with_what_was_asked(show, pair, lab):
    for run, completion in zip(pair, ("six", "nine"), strict=True):
        add(lab, run, sample(0, "p7", "0") | {"completion": completion, "extracted": f"<{completion}>"})
    record(lab, pair[0], ("p7", "What is 2 + 4?", "6!"))
    test = show("samples", run=list(pair), problem="p7")
    codes = [element.value for element in test.code]
    assert codes == ["What is 2 + 4?", "6!", "six", "nine"]
    assert "answer: <six>" in texts(test) and test.selectbox[0].value == "p7"


def test_two_steps_of_one_run_stand_side_by_side(show, lab):
    run = lab.run("gkd", dev=[0.1, 0.2], test="10")
    add(
        lab,
        run,
        *(sample(step, "p0", str(step // 10)) | {"split": "dev", "completion": f"at {step}"} for step in (0, 10)),
    )
    test = show("samples", run=[run], split="dev", step=["0", "10"], problems="gained")
    assert [element.value for element in test.code] == ["at 0", "at 10"]


def test_a_run_whose_problems_were_not_recorded_says_so(show, pair, lab):
    assert "What was asked is not known" in texts(show("samples", run=list(pair)))
    record(lab, pair[1], ("p0", "Asked?", "1"))
    assert "Asked?" in texts(show("samples", run=list(pair)))


def test_next_and_previous_go_through_what_is_shown(show, pair):
    test = show("samples", run=list(pair), problems="right")
    assert test.button[0].disabled
    test.button[1].click().run()
    assert test.query_params["problem"] == "p1" and "2 of 3" in texts(test)
    test.button[0].click().run()
    assert test.selectbox[0].value == "p0"


def test_a_search_looks_into_problems_answers_and_completions(show, pair, lab):
    add(lab, pair[0], sample(0, "p8", "0") | {"completion": "Zebra_100%"})
    record(lab, pair[0], ("p1", "How many okapis?", "1"), ("p2", "Why?", "quagga"))
    for words, found in (("zebra_100%", ["p8"]), ("OKAPI", ["p1"]), ("quagga", ["p2"]), ("p3", ["p3"])):
        assert listed(show("samples", run=list(pair), words=words)) == found
    assert "No such problem" in texts(show("samples", run=list(pair), words="nowhere"))


def test_what_the_address_names_wrongly_is_said(show, pair):
    test = show("samples", run=[pair[0], "gone-1"], problem="nope", step=["77", "test"])
    warnings = " ".join(element.value for element in test.warning).replace("\\", "")
    assert "gone-1" in warnings and "nope" in warnings and "77" in warnings
    assert listed(test) == ["p0", "p1", "p2", "p3"]


def test_a_run_without_completions_says_so(show, lab):
    run = lab.run("gkd", state="running")
    assert "No evaluated completions yet" in texts(show("samples", run=[run]))


def test_only_eight_evaluations_stand_side_by_side(show, lab):
    run = lab.run("gkd", dev=[0.1], test="1")
    add(lab, run, *(sample(step, "p0", "1") for step in range(1, 13)))
    test = show("samples", run=[run], step=[str(step) for step in range(13)])
    assert len(test.code) == 8 and "first 8 of 13" in texts(test)


def test_a_hundred_kilobytes_are_cut_and_can_be_had_whole(show, pair, lab):
    whole = "x" * 100_000
    add(lab, pair[0], sample(0, "p5", "0") | {"completion": whole})
    test = show("samples", run=[pair[0]], problem="p5")
    shown = test.code[-1].value
    assert len(shown) < 10_000 and "94,000 more characters" in shown
    assert [element.label for element in test.get("download_button")] == ["The whole completion"]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_model_wrote_is_never_markup(show, lab, text):
    runs = [lab.run("gkd", dev=[0.1], test="1"), lab.run("grpo", dev=[0.1], test="0")]
    for run in runs:
        add(lab, run, sample(0, text, "0") | {"completion": text, "extracted": text, "clipped": True})
        record(lab, run, (text, text, text))
    test = show("samples", run=runs, problem=text, words=text[:8], step=[text, "test"])
    assert text in [element.value for element in test.code]
    assert_no_markup(test)
