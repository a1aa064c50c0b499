"""What must hold for every dataset. A new one joins by a line in the `make` fixture."""

import json
from collections.abc import Callable
from itertools import chain

import pytest

from atlas.datasets.base import Dataset, Splits
from atlas.datasets.splits import normalise
from atlas.errors import SpecError
from atlas.grading import parses

Make = Callable[..., Dataset]


def prompt(example) -> str:
    return "\n".join(message["content"] for message in example.messages)


def everything(splits: Splits):
    return chain(splits.train, splits.dev, splits.test)


def test_splits_have_the_sizes_asked_for(make: Make) -> None:
    splits = make(train_size=7).load()
    assert (len(splits.train), len(splits.dev), len(splits.test)) == (7, 5, 8)


def test_no_question_and_no_prompt_is_in_two_splits(make: Make) -> None:
    splits = make().load()
    for what in (lambda example: normalise(example.group), lambda example: normalise(prompt(example))):
        train, dev, test = ({what(example) for example in part} for part in (splits.train, splits.dev, splits.test))
        assert not train & dev and not train & test and not dev & test
        assert len(dev) == 5 and len(test) == 8, "one example per question is held out"


def test_the_solution_is_never_in_the_prompt(make: Make) -> None:
    splits = make(system="Be brief.", instruction="End with the answer.").load()
    assert all(example.solution for example in splits.train)
    for example in everything(splits):
        if example.solution is None:
            continue
        assert example.solution.strip() not in prompt(example)
        assert all(line not in prompt(example) for line in example.solution.splitlines() if "answer is" in line)


def test_every_gold_answer_parses_and_its_solution_is_graded_right(make: Make) -> None:
    dataset = make()
    for example in everything(dataset.load()):
        assert parses(example.answer)
        assert dataset.score(example, example.solution or example.answer) == 1.0
        assert dataset.score(example, "The answer is: 123456789") == 0.0


def test_loading_twice_gives_the_same_splits(make: Make) -> None:
    first, second = make().load(), make().load()
    assert [first.fingerprint(name) for name in ("train", "dev", "test")] == [
        second.fingerprint(name) for name in ("train", "dev", "test")
    ]


def test_a_resolved_spec_loads_the_same_splits(make: Make) -> None:
    """The worker reads the dataset back from spec.json, where all defaults are written out."""
    dataset = make()
    again = type(dataset).model_validate_json(json.dumps(dataset.model_dump(mode="json")))
    assert again == dataset
    assert again.load() == dataset.load()


def test_split_seed_changes_what_is_held_out(make: Make) -> None:
    assert make().load().fingerprint("test") != make(split_seed=1).load().fingerprint("test")


def test_train_size_takes_a_prefix_and_leaves_the_held_out_problems_alone(make: Make) -> None:
    few, all_rows = make(train_size=5).load(), make().load()
    assert list(few.train) == list(all_rows.train[:5])
    assert (few.dev, few.test) == (all_rows.dev, all_rows.test)


def test_ids_name_one_example_each(make: Make) -> None:
    ids = [example.id for example in everything(make().load())]
    assert len(ids) == len(set(ids))


def test_messages_are_system_question_instruction(make: Make) -> None:
    plain, dressed = make().load().test[0], make(system="Be brief.", instruction="Use ####.").load().test[0]
    assert [message["role"] for message in plain.messages] == ["user"]
    question = plain.messages[0]["content"]
    assert dressed.messages == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": question + "\nUse ####."},
    )
    assert dressed.id == plain.id


def test_check_accepts_what_loads(make: Make) -> None:
    make().check()


@pytest.mark.parametrize("load", [lambda dataset: dataset.check(), lambda dataset: dataset.load()])
def test_a_split_that_is_too_small_names_the_size_that_works(make: Make, load) -> None:
    with pytest.raises(SpecError) as caught:
        load(make(test_size=100_000))
    (problem,) = caught.value.problems
    assert problem.path == "dataset.test_size"
    assert "100000 test" in problem.message
    most = int(problem.message.partition("test_size of at most ")[2].split(",")[0])
    splits = make(test_size=most).load()
    assert len(splits.test) == most and splits.train


def test_too_many_training_rows_name_the_size_that_works(make: Make) -> None:
    with pytest.raises(SpecError, match="at most") as caught:
        make(train_size=100_000).load()
    assert caught.value.problems[0].path == "dataset.train_size"
    most = int(caught.value.problems[0].message.partition("ask for at most ")[2].split(",")[0])
    assert len(make(train_size=most).load().train) == most
