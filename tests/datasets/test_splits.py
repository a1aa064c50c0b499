import logging
import random

import pytest

from atlas.datasets import Arithmetic
from atlas.datasets.base import Example, Splits
from atlas.datasets.splits import split
from atlas.errors import SpecError


def example(name: str, group: str | None = None, question: str | None = None) -> Example:
    messages = ({"role": "user", "content": question or f"question {name}"},)
    return Example(id=name, group=group or f"group {name}", messages=messages, answer="1")


def sizes(dev_size: int = 2, test_size: int = 3, **settings: int) -> Arithmetic:
    """`split` reads only the sizes of a dataset."""
    return Arithmetic(dev_size=dev_size, test_size=test_size, **settings)


def names(splits: Splits) -> tuple[list[str], ...]:
    return tuple([example.id for example in part] for part in (splits.train, splits.dev, splits.test))


def test_the_order_of_the_rows_does_not_matter() -> None:
    rows = [example(f"{n}{way}", f"Group  {n}", f"{way} {n // 2}") for n in range(20) for way in "abc"]
    expected = names(split(rows, sizes()))
    for seed in range(5):
        random.Random(seed).shuffle(rows)
        assert names(split(rows, sizes())) == expected


def test_adding_rows_of_known_questions_moves_no_question() -> None:
    rows = [example(str(n)) for n in range(20)]
    more = [example(f"{n} again", f"GROUP  {n}") for n in range(20)]
    held_out = {example.group for example in split(rows, sizes()).test}
    assert {example.group.lower().replace("  ", " ") for example in split(rows + more, sizes()).test} == held_out


def test_a_group_is_one_question_whatever_its_case_and_spaces() -> None:
    rows = [example(f"{n}{k}", text.format(n=n)) for n in range(10) for k, text in enumerate(("Q {n}", " q  {n}\n"))]
    splits = split(rows, sizes())
    assert len(splits.train) == 10
    assert len({example.id[0] for example in (*splits.train, *splits.dev, *splits.test)}) == 10


def test_an_equal_prompt_joins_groups_that_say_they_differ() -> None:
    rows = [
        example(f"{n}{k}", f"group {n}{k}", f"What is {n}?" if k else f"WHAT  is {n}?")
        for n in range(9)
        for k in (0, 1)
    ]
    for seed in range(10):
        train, dev, test = names(split(rows, sizes(split_seed=seed)))
        assert (len(train), len(dev), len(test)) == (8, 2, 3)
        assert not {name[0] for name in train} & {name[0] for name in (*dev, *test)}


def test_chains_of_equal_groups_and_prompts_stay_together() -> None:
    chain = [example("a", "g1", "p1"), example("b", "g2", "p1"), example("c", "g2", "p2"), example("d", "g3", "p2")]
    others = [example(str(n)) for n in range(6)]
    for seed in range(20):
        train = names(split(chain + others, sizes(1, 1, split_seed=seed)))[0]
        in_train = {"a", "b", "c", "d"} & set(train)
        assert in_train in ({"a", "b", "c", "d"}, set())


def test_official_test_problems_are_all_kept_out_of_train(caplog: pytest.LogCaptureFixture) -> None:
    train = [example(str(n)) for n in range(10)] + [
        example("leak", "group t1"),
        example("leak 2", question="question t2"),
    ]
    test = [example(f"t{n}") for n in range(6)]
    with caplog.at_level(logging.WARNING):
        splits = split(train, sizes(), official_test=test)
    assert len(splits.train) == 8 and len(splits.dev) == 2
    assert {name[0] for name in names(splits)[2]} == {"t"} and len(splits.test) == 3
    assert "2 training rows" in caplog.text


@pytest.mark.parametrize(
    ("dev_size", "test_size", "path", "says"),
    [
        (2, 8, "dataset.test_size", "test_size of at most 7"),
        (9, 1, "dataset.test_size", "test_size of at most 0"),
        (12, 1, "dataset.test_size", "lower test_size and dev_size to at most 9 in all"),
        (10, 0, "dataset.dev_size", "dev_size of at most 9"),
    ],
)
def test_too_few_questions_name_sizes_that_work(dev_size: int, test_size: int, path: str, says: str) -> None:
    rows = [example(str(n)) for n in range(10)]
    with pytest.raises(SpecError) as caught:
        split(rows, sizes(dev_size, test_size))
    (problem,) = caught.value.problems
    assert problem.path == path
    assert "there are 10 different questions" in problem.message and says in problem.message


def test_one_question_is_enough_when_nothing_is_held_out() -> None:
    assert names(split([example("a")], sizes(0, 0))) == (["a"], [], [])
