"""Extract and compare answers: the one grader of reward and evaluation. The rules are in docs/grading.md."""

from dataclasses import dataclass

from atlas.grading import symbolic
from atlas.grading.compare import equal, readable, same_text
from atlas.grading.extract import MAX_ANSWER, final_answer, stated_answer

__all__ = ["Verdict", "grade", "parses", "times_out"]


@dataclass(frozen=True)
class Verdict:
    """`found`: an answer could be read out of the completion. `correct`: it equals the gold answer.

    `extracted` is the answer as the completion spells it, cut to 1,000 characters; None when nothing was found.
    """

    found: bool
    correct: bool
    extracted: str | None = None


def grade(completion: str, answer: str) -> Verdict:
    """Compares the final answer of a completion with the gold answer.

    Never raises and never hangs, whatever the two texts are: what cannot be decided in bounded time is not correct.
    Safe in threads and after a fork. Raises AtlasError only when math-verify itself cannot be started.
    """
    if same_text(completion, answer):
        return Verdict(True, True, completion.strip()[:MAX_ANSWER])
    extracted = final_answer(completion)
    if extracted is None:
        return Verdict(False, False)
    return Verdict(True, equal(extracted, stated_answer(answer)), extracted[:MAX_ANSWER])


def times_out(answer: str) -> bool:
    """Whether a gold answer is maths that cannot be compared in time; only the same text is then right."""
    return symbolic.endless(stated_answer(answer))


def parses(answer: str) -> bool:
    """Whether a gold answer is a number, a list of numbers, a choice letter or maths that math-verify reads.

    False means that a completion can only be right by writing the same text.
    """
    stated = stated_answer(answer)
    return readable(stated) or symbolic.readable(stated)
