"""Extract and compare answers: the one grader of reward and evaluation."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """`found`: an answer could be read out of the completion. `correct`: it equals the gold answer."""

    found: bool
    correct: bool
    extracted: str | None = None


def grade(completion: str, answer: str) -> Verdict:
    """Compares the final answer of a completion with the gold answer. Never raises, never hangs."""
    raise NotImplementedError
