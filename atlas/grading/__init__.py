"""Extract and compare answers: the one grader of reward and evaluation. The rules are in docs/grading.md."""

from dataclasses import dataclass

from atlas.grading import symbolic
from atlas.grading.compare import DEFAULT, equal, readable, same_text
from atlas.grading.extract import final_answer, stated_answer
from atlas.grading.policy import GradingSpec
from atlas.grading.values import MAX_ANSWER

__all__ = ["VERSION", "GradingSpec", "Verdict", "compared", "grade", "parses", "times_out"]

VERSION = 1
"""Raised whenever a verdict changes. Pass rates compare only between equal versions."""


@dataclass(frozen=True)
class Verdict:
    """`found`: an answer could be read out of the completion. `correct`: it equals the gold answer.

    `extracted` is the answer as the completion spells it, cut to 1,000 characters; None when nothing was found.
    """

    found: bool
    correct: bool
    extracted: str | None = None


def grade(completion: str, answer: str, policy: GradingSpec = DEFAULT) -> Verdict:
    """Compares the final answer of a completion with the gold answer, as the policy says.

    Never raises and never hangs, whatever the two texts are: what cannot be decided in bounded time is not correct.
    Safe in threads and after a fork. Raises AtlasError only when math-verify itself cannot be started.
    """
    extracted, gold = compared(completion, answer)
    if extracted is None:
        return Verdict(False, False)
    return Verdict(True, equal(extracted, gold, policy), extracted[:MAX_ANSWER])


def compared(completion: str, answer: str) -> tuple[str | None, str]:
    """What of the two texts `grade` compares: all of both if they are the same, else the final answer of the completion
    (None when there is none) and the gold answer without what stands around it."""
    if same_text(completion, answer):
        return completion.strip(), answer.strip()
    return final_answer(completion), stated_answer(answer)


def times_out(answer: str) -> bool:
    """Whether a gold answer is maths that cannot be compared in time; only the same text is then right."""
    return symbolic.endless(stated_answer(answer))


def parses(answer: str) -> bool:
    """Whether a gold answer is a number, a list of numbers, a choice letter or maths that math-verify reads.

    False means that a completion can only be right by writing the same text.
    """
    stated = stated_answer(answer)
    return readable(stated) or symbolic.readable(stated)
