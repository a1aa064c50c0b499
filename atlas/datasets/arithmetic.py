"""Generated word problems, so that everything can be tried without a download."""

import hashlib
from collections.abc import Iterator
from typing import Literal, NamedTuple

from pydantic import Field

from atlas.datasets.base import Dataset, Splits
from atlas.datasets.files import Row
from atlas.datasets.metamathqa import ANSWER_MARK, metamath_examples
from atlas.datasets.splits import split
from atlas.errors import SpecError


class Arithmetic(Dataset):
    """Generated word problems with worked solutions, in MetaMathQA's schema. The same settings give the same problems
    on every machine.

    A problem adds or subtracts whole numbers; no result on the way is below 1. Problems with the same calculation are
    rewordings of one question: the held-out calculations are never trained on.
    """

    type: Literal["arithmetic"] = "arithmetic"
    size: int = Field(20000, ge=1, le=200000)
    """Different problems in all, held-out ones included."""
    seed: int = Field(0, ge=0)
    """Seed of the problems. (`split_seed` is that of the split.)"""
    steps: int = Field(1, ge=1, le=2)
    """Operations in a problem."""
    max_operand: int = Field(99, ge=2, le=999)
    """The largest number in a problem; the smallest is 1."""

    def check(self) -> Splits:
        return self.load()

    def load(self) -> Splits:
        most = self.max_operand ** (self.steps + 1) * len(STORIES)
        if self.size > most:
            raise SpecError(
                f"{self.size} different problems are too many for {self.steps} operation(s) on numbers up to "
                f"{self.max_operand}; use a size of at most {most}, or raise max_operand",
                "dataset.size",
            )
        return split(metamath_examples(self._rows(), self, self.type), self)

    def _rows(self) -> Iterator[Row]:
        queries: set[str] = set()
        index = 0
        while len(queries) < self.size:
            row = self._row(index)
            index += 1
            if row is not None and row["query"] not in queries:
                queries.add(row["query"])
                yield row

    def _row(self, index: int) -> Row | None:
        """Problem number `index`, a function of the settings alone; None if it would go below 1."""
        draw = _Draw(f"{self.seed}:{self.steps}:{self.max_operand}:{index}")
        story = STORIES[draw.below(len(STORIES))]
        words = {"name": NAMES[draw.below(len(NAMES))], "things": THINGS[draw.below(len(THINGS))]}
        start = total = 1 + draw.below(self.max_operand)
        sentences, working, calculation = [story.start.format(n=start, **words)], [], str(start)
        for _ in range(self.steps):
            operand, sign = 1 + draw.below(self.max_operand), "+-"[draw.below(2)]
            result = total + operand if sign == "+" else total - operand
            if result < 1:
                return None
            event = story.more if sign == "+" else story.less
            sentences.append(event.format(n=operand, **words))
            working.append(f"{total} {sign} {operand} = {result}.")
            calculation += f" {sign} {operand}"
            total = result
        return {
            "query": " ".join([*sentences, story.question.format(**words)]),
            "response": " ".join([*working, f"{ANSWER_MARK} {total}"]),
            "type": "Arithmetic_Rephrased",
            "original_question": f"What is {calculation}?",
        }


class Story(NamedTuple):
    """The sentences of a problem: how it starts, what adds, what takes away, and what is asked."""

    start: str
    more: str
    less: str
    question: str


STORIES = (
    Story(
        "{name} has {n} {things}.", "{name} buys {n} more.", "{name} sells {n}.", "How many {things} has {name} now?"
    ),
    Story(
        "{name} picks {n} {things}.", "{name} picks {n} more.", "{n} of them get lost.", "How many {things} are there?"
    ),
    Story("A box holds {n} {things}.", "{name} adds {n}.", "{name} takes {n}.", "How many {things} does it hold?"),
    Story("{n} people ride a bus.", "{n} get on.", "{n} get off.", "How many people ride it now?"),
    Story("A shop has {n} {things}.", "It gets {n} more.", "It sells {n}.", "How many {things} are left?"),
    Story("There are {n} birds in a tree.", "{n} more come.", "{n} fly away.", "How many birds are there?"),
)
"""The first number of a story is always the one that the rest is added to or taken from."""
NAMES = ("Ann", "Ben", "Eva", "Ida", "Leo", "Mia", "Sam", "Tom")
THINGS = ("apples", "books", "cards", "coins", "eggs", "pens", "shells", "stamps")


class _Draw:
    """Small random numbers out of one hash: the same for ever, which `random` does not promise."""

    def __init__(self, key: str) -> None:
        self._number = int.from_bytes(hashlib.sha256(key.encode()).digest())

    def below(self, limit: int) -> int:
        self._number, value = divmod(self._number, limit)
        return value
