import os
import re
import subprocess
import sys
from itertools import chain

import pytest

from atlas.datasets import Arithmetic
from atlas.datasets.base import Example
from atlas.errors import SpecError


def load(**settings: int) -> list[Example]:
    splits = Arithmetic(**{"size": 400, "dev_size": 5, "test_size": 20, **settings}).load()
    return list(chain(splits.train, splits.dev, splits.test))


@pytest.mark.parametrize("steps", [1, 2])
def test_answers_and_workings_are_right(steps: int) -> None:
    for example in load(steps=steps):
        calculation = example.group.removeprefix("What is ").removesuffix("?")
        parts = calculation.split()
        assert len(parts) == 1 + 2 * steps
        assert int(example.answer) == eval(calculation) >= 1
        assert re.findall(r"\d+", example.messages[0]["content"]) == parts[::2], (
            "the story has the calculation's numbers"
        )
        *working, answer = example.solution.split(". ")
        assert answer == f"The answer is: {example.answer}"
        assert len(working) == steps
        for line in working:
            left, right = line.split(" = ")
            assert eval(left) == int(right)


def test_problems_are_different_and_all_of_the_size_asked_for() -> None:
    examples = load(size=500, dev_size=1, test_size=1, max_operand=99)
    questions = {example.messages[0]["content"] for example in examples}
    assert len(questions) == len(examples)
    assert 495 <= len(examples) <= 500, "only rewordings of the two held-out calculations are left out"


def test_a_held_out_calculation_is_in_no_training_problem() -> None:
    splits = Arithmetic(size=2000, max_operand=20, dev_size=10, test_size=50).load()
    held_out = {example.group for example in (*splits.dev, *splits.test)}
    assert len(held_out) == 60
    assert not held_out & {example.group for example in splits.train}


@pytest.mark.parametrize(("steps", "longest"), [(1, 75), (2, 100)])
def test_text_is_short_and_plain(steps: int, longest: int) -> None:
    examples = load(steps=steps, max_operand=99)
    assert max(len(example.messages[0]["content"]) for example in examples) <= longest
    assert max(len(example.solution) for example in examples) <= 50
    characters = set("".join(example.messages[0]["content"] + example.solution for example in examples))
    assert all(character.isascii() and character.isprintable() for character in characters)


def test_operands_stay_within_the_bound_and_reach_it() -> None:
    numbers = [int(n) for example in load(max_operand=7, size=250) for n in re.findall(r"\d+", example.group)]
    assert (min(numbers), max(numbers)) == (1, 7)


def test_the_problems_are_pinned() -> None:
    """Numbers in papers and READMEs hang on these: a change here is a new dataset."""
    splits = Arithmetic(size=100, dev_size=5, test_size=5).load()
    assert splits.fingerprint("test") == "c555304036b6a36abb25ff24bc8c209bfc42c4288363dd8609adac028fbba35f"


def test_the_problems_do_not_depend_on_the_hash_seed_of_python() -> None:
    small = "Arithmetic(size=50, dev_size=1, test_size=9)"
    code = f"from atlas.datasets import Arithmetic; print({small}.load().fingerprint('train'))"
    fingerprints = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(fingerprints) == 1


def test_seeds_give_other_problems() -> None:
    assert load(seed=0)[0] != load(seed=1)[0]


def test_more_problems_than_there_are_is_an_error() -> None:
    with pytest.raises(SpecError, match="size of at most 54") as caught:
        Arithmetic(size=55, max_operand=3).check()
    assert caught.value.problems[0].path == "dataset.size"
    assert len(load(size=54, max_operand=3, dev_size=0, test_size=1)) > 20
