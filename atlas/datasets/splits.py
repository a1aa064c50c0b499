"""Train, dev and test by hash of the question: independent of the order of the rows, and no question straddles."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Sequence

from atlas.datasets.base import Dataset, Example, Splits
from atlas.errors import SpecError

logger = logging.getLogger(__name__)


def split(examples: Sequence[Example], dataset: Dataset, official_test: Sequence[Example] = ()) -> Splits:
    """Questions in the order of sha256("split_seed:question"): the first `test_size` are test, the next `dev_size` dev,
    the rest train. Held-out splits take one example of each question; train takes all, in hash order.

    With `official_test`, test problems come from there only, and rows of `examples` that ask the same are left out.
    Examples of one group, or with the same prompt (but for case and spaces), are one question.
    Raises SpecError if there are too few questions.
    """
    seed = dataset.split_seed
    official = {example.id for example in official_test}
    questions = _questions([*examples, *official_test], seed)
    reserved = [question for question in questions if any(example.id in official for example in question)]
    if official:
        questions = [question for question in questions if not any(example.id in official for example in question)]
        _warn_of_overlap(len(examples) - sum(map(len, questions)), dataset)
        _check_official_size(len(reserved), dataset)
        _check_sizes(len(questions), 0, dataset.dev_size, len(questions) - 1)
        test = [[example for example in question if example.id in official] for question in reserved]
    else:
        _check_sizes(len(questions), dataset.test_size, dataset.dev_size, len(questions) - 1)
        test, questions = questions[: dataset.test_size], questions[dataset.test_size :]

    return Splits(
        train=_train([example for question in questions[dataset.dev_size :] for example in question], dataset),
        dev=[_representative(seed, question) for question in questions[: dataset.dev_size]],
        test=[_representative(seed, question) for question in test[: dataset.test_size]],
    )


def split_apart(learnt: Sequence[Example], asked: Sequence[Example], dataset: Dataset) -> tuple[Splits, frozenset[str]]:
    """`split` where what is learnt and what is asked are different examples, with ids of their own: only questions that
    are `asked` can be held out, and train takes what is `learnt` of all others, in an order that depends on its content
    and not on ids. Also returns the ids of all examples whose question is held out. Raises SpecError as `split` does.
    """
    seed, askable = dataset.split_seed, {example.id for example in asked}
    apart = [
        ([e for e in question if e.id in askable], [e for e in question if e.id not in askable])
        for question in _questions([*learnt, *asked], seed)
    ]
    questions = [pair for pair in apart if pair[0]]
    never_asked = [example for asking, answers in apart if not asking for example in answers]
    teaching = [place for place, (_, answers) in enumerate(questions) if answers]
    most = len(questions) if never_asked else max(teaching, default=0)
    _check_sizes(len(questions), dataset.test_size, dataset.dev_size, most)
    held_out = questions[: dataset.test_size + dataset.dev_size]
    rest = [example for _, answers in questions[len(held_out) :] for example in answers]
    chosen = [_representative(seed, asking) for asking, _ in held_out]
    splits = Splits(
        train=_train([*never_asked, *rest], dataset, content),
        dev=chosen[dataset.test_size :],
        test=chosen[: dataset.test_size],
    )
    return splits, frozenset(example.id for pair in held_out for part in pair for example in part)


def content(example: Example) -> str:
    """Equal for examples that teach the same."""
    return json.dumps([example.messages, example.solution])


def normalise(text: str) -> str:
    """The text without differences of case and white space."""
    return " ".join(text.casefold().split())


def _questions(examples: Iterable[Example], seed: int) -> list[list[Example]]:
    """The examples by question, in hash order: those linked by an equal group or an equal prompt (union-find).

    A group can be wrong or missing, an equal prompt in train and test would still be a leak.
    """
    parents: dict[str, str] = {}

    def root(key: str) -> str:
        parents.setdefault(key, key)
        while parents[key] != key:
            parents[key] = key = parents[parents[key]]
        return key

    keyed = []
    for example in examples:
        group = "group:" + normalise(example.group)
        prompt = "prompt:" + normalise("\n".join(message["content"] for message in example.messages))
        # The smallest key becomes the root, whatever the order of the rows; "group" comes before "prompt".
        low, high = sorted((root(group), root(prompt)))
        parents[high] = low
        keyed.append((group, example))
    members: dict[str, list[Example]] = {}
    for group, example in keyed:
        members.setdefault(root(group), []).append(example)
    return [members[key] for key in sorted(members, key=lambda key: _hash(seed, key.removeprefix("group:")))]


def _id(example: Example) -> str:
    return example.id


def _train(examples: Sequence[Example], dataset: Dataset, name: Callable[[Example], str] = _id) -> list[Example]:
    """As many as are wanted, in hash order of their names."""
    if dataset.train_size is not None and dataset.train_size > len(examples):
        raise SpecError(
            f"{dataset.train_size} training rows were asked for, but {len(examples)} are left beside the held-out "
            f"questions; ask for at most {len(examples)}, or remove train_size to use all",
            "dataset.train_size",
        )
    seed = dataset.split_seed
    return sorted(examples, key=lambda example: (_hash(seed, name(example)), example.id))[: dataset.train_size]


def _representative(seed: int, question: Sequence[Example]) -> Example:
    return min(question, key=lambda example: _order(seed, example))


def _order(seed: int, example: Example) -> tuple[str, str]:
    return _hash(seed, example.id), example.id


def _hash(seed: int, text: str) -> str:
    return hashlib.sha256(f"{seed}:{text}".encode()).hexdigest()


def _check_sizes(questions: int, test_size: int, dev_size: int, most_in_all: int) -> None:
    if test_size + dev_size <= most_in_all:
        return
    field, other, other_size = ("test_size", "dev_size", dev_size) if test_size else ("dev_size", "test_size", 0)
    most = most_in_all - other_size
    way_out = (
        f"use a {field} of at most {most}"
        if most >= 0
        else f"lower {field} and {other} to at most {most_in_all} in all"
    )
    raise SpecError(
        f"{test_size} test and {dev_size} dev problems were asked for, but there are {questions} different questions "
        f"and at least one must be left to train on; {way_out}, or add data",
        f"dataset.{field}",
    )


def _check_official_size(questions: int, dataset: Dataset) -> None:
    if dataset.test_size > questions:
        raise SpecError(
            f"{dataset.test_size} test problems were asked for, but the official test split has {questions} different "
            f"questions; use a test_size of at most {questions}",
            "dataset.test_size",
        )


def _warn_of_overlap(dropped: int, dataset: Dataset) -> None:
    if dropped:
        logger.warning("%d training rows ask what a test problem asks; they are left out of train and dev", dropped)
