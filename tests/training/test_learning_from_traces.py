"""Every way of learning, end to end on traces and tiny models."""

import json
from pathlib import Path
from typing import Any

import pytest
import recorded
from recorded import Recorded
from transformers import AutoModelForCausalLM, AutoTokenizer

from atlas.datasets import Traces
from atlas.errors import RunFailed
from atlas.run import Run
from atlas.training.generation import generate
from atlas.training.prompts import render_prompt

from .conftest import MakeRun
from .tiny import character_tokenizer, save, series, tiny_llama, train, watch_steps

LETTERS = "abcdefghij"


def session(letter: str, answers: list[str], **fields: Any) -> Recorded:
    """The agent is asked to copy a letter; what it says is `answers`, with help after each but the last."""
    made = Recorded(f"copy {letter}", **fields)
    for answer in answers[:-1]:
        made.attempt(answer).outcome(False, letter, "exact_match").intervene("no")
    return made.attempt(answers[-1]).outcome(answers[-1] == letter, letter, "exact_match").reviewed()


@pytest.fixture
def traces(tmp_path: Path):
    """`traces(**settings)`: five tasks that were solved, the last of them after help, and five that were not."""

    def make(*more: Recorded, **settings: Any) -> Traces:
        solved = [session(letter, [letter]) for letter in LETTERS[:4]] + [session("e", ["x", "e"])]
        failed = [session(letter, ["x", "y"]) for letter in LETTERS[5:]]
        path = recorded.write(tmp_path / "traces.jsonl", [*solved, *failed, *more])
        sizes = {"dev_size": 1, "test_size": 2, "scorer": "exact_match"}
        return Traces.model_validate({"type": "traces", "path": path} | sizes | settings)

    return make


def run_on(make_run: MakeRun, dataset: Traces, method: dict[str, Any], **sections: Any) -> Run:
    small = {"max_steps": 2, "batch_size": 2, "learning_rate": 1e-3}
    run = make_run(method, training=small, **sections)
    object.__setattr__(run.job, "dataset", dataset)
    return run


def test_sft_learns_the_last_attempts_of_successes(make_run: MakeRun, traces) -> None:
    run = run_on(make_run, traces(), {"type": "sft"})
    assert (final := train(run)) is not None
    assert set(series(run, "train/loss")) == {1, 2} and run.summary["test"]["step"] in (0, 2)
    card = json.loads((run.directory / "splits.json").read_text())["card"]
    assert card["sessions"] == 10 and card["reviewers"] == {"ann": card["trained_on"] + card["held_out"]}
    assert "trained_on:" in (final / "README.md").read_text()


def test_gkd_lets_the_student_try_again_where_the_agent_failed(make_run: MakeRun, traces, monkeypatch) -> None:
    steps = watch_steps(monkeypatch)
    dataset = traces(outcome="failed")
    run = run_on(make_run, dataset, {"type": "gkd"})
    train(run)
    prompts = {tuple(r.prompt_ids) for step in steps for r in step.rollouts}
    tokenizer = character_tokenizer()
    texts = [tokenizer.decode(list(prompt)) for prompt in prompts]
    assert texts and all("a:x\nu:no" in text and text.endswith("a:") for text in texts), texts
    assert {e.group for e in dataset.load().train} <= {f"copy {letter}" for letter in LETTERS[5:]}
    assert set(series(run, "train/loss")) == {1, 2}


@pytest.mark.parametrize("method", ["grpo", "gkd_reward"])
def test_the_recorded_scorer_is_the_reward(make_run: MakeRun, traces, student: Path, method: str) -> None:
    """The references are what the student writes when it is all but greedy."""
    tokenizer, model = AutoTokenizer.from_pretrained(student), AutoModelForCausalLM.from_pretrained(student)
    tasks = [f"copy {a}{b}" for a in LETTERS[:4] for b in LETTERS[:4]]
    prompts = [render_prompt(tokenizer, [{"role": "user", "content": task}]) for task in tasks]
    written = generate(model, tokenizer, prompts, max_completion_length=4, batch_size=16)
    sampling = {"temperature": 0.001, "max_completion_length": 4}
    for reference, reward in (("right", 1.0), ("never", 0.0)):
        said = [completion.text if reference == "right" else reference for completion in written]
        sessions = [
            Recorded(task, tags=["here"]).attempt(text).outcome(True, text, "exact_match").reviewed()
            for task, text in zip(tasks, said, strict=True)
        ]
        dataset = traces(*sessions, tags=["here"], outcome="any")
        run = run_on(make_run, dataset, {"type": method, "num_generations": 2}, name=reference, sampling=sampling)
        train(run)
        assert series(run, "train/rewards/answer/mean")[1] == reward


def test_a_template_that_leaves_out_tools_is_refused_with_the_way_out(make_run, traces, tmp_path, student) -> None:
    no_tools = (
        "<bos>{% for m in messages if m['role'] != 'tool' %}{{ m['role'][0] }}:{{ m['content'] }}\n{% endfor %}a:"
    )
    tokenizer = character_tokenizer(chat_template=no_tools)
    model = save(tmp_path / "no-tools", tiny_llama(len(tokenizer)), tokenizer)
    used = [
        Recorded(f"copy {a}")
        .attempt("look")
        .intervene(a, "tool_result", "tool")
        .attempt(a)
        .outcome(True, a, "exact_match")
        for a in "klmnop"
    ]
    more = [each.reviewed() for each in used]
    run = run_on(make_run, traces(*more), {"type": "sft"}, student={"model": str(model)})
    with pytest.raises(RunFailed, match=r"leaves out what the role tool says.*dataset\.roles") as caught:
        train(run)
    assert caught.value.reason == "bad_model"
    mapped = traces(*more, roles={"tool_result": "user"})
    train(run_on(make_run, mapped, {"type": "sft"}, name="mapped", student={"model": str(model)}))
