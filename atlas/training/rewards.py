"""What GRPO rewards: the fields of `RewardWeights`, by their names."""

from collections.abc import Callable, Mapping, Sequence
from random import Random

from atlas.datasets.base import Dataset, Example

Reward = Callable[[Sequence[Example], Sequence[str], int], list[float]]
"""(the example of each completion, the completions of one step as text, the step) -> their rewards, in [0, 1]."""


def reward_functions(dataset: Dataset, seed: int, rank: int = 0) -> Mapping[str, Reward]:
    """All of them; `RewardWeights` says what each is. `rank`: whose share of the step's completions they get."""

    def answer(examples: Sequence[Example], completions: Sequence[str], step: int) -> list[float]:
        return [dataset.score(example, text) for example, text in zip(examples, completions, strict=True)]

    def format(examples: Sequence[Example], completions: Sequence[str], step: int) -> list[float]:
        return [float(dataset.grade(example, text).found) for example, text in zip(examples, completions, strict=True)]

    def random(examples: Sequence[Example], completions: Sequence[str], step: int) -> list[float]:
        # A coin of its own for each place in the step: a resumed run throws the same ones.
        first = rank * len(completions)
        return [float(Random(f"{seed} {step} {first + place}").getrandbits(1)) for place in range(len(completions))]

    return {"answer": answer, "format": format, "random": random}
