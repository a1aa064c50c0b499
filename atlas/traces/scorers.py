"""Scorers that can be measured again, on a completion that nobody has seen yet. Any other name in an outcome is a
record of what somebody measured."""

from collections.abc import Callable, Mapping

from atlas.grading import GradingSpec, Verdict, grade
from atlas.grading.values import MAX_ANSWER

Measure = Callable[[str, str, GradingSpec], Verdict]
"""(completion, reference, how answers are compared) -> verdict."""


def exact_match(completion: str, reference: str, policy: GradingSpec) -> Verdict:
    """Whether the texts are equal but for case and white space. The policy is of no use: there is nothing to read."""
    said = " ".join(completion.split())
    if not said:
        return Verdict(False, False)
    correct = said.casefold() == " ".join(reference.split()).casefold()
    return Verdict(True, correct, completion.strip()[:MAX_ANSWER])


SCORERS: Mapping[str, Measure] = {"answer": grade, "exact_match": exact_match}
"""By the name that outcomes give. `answer` is Atlas's own grader."""
EXACT_MATCH_VERSION = 1
"""Raised whenever a verdict of `exact_match` changes, as `grading.VERSION` is for `answer`."""
