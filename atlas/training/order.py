"""In which order the examples are learnt from: a function of the seed alone, the same for every method."""

import random
from collections.abc import Callable, Iterator, Sequence

from torch.utils.data import Sampler


class Order(Sampler[int]):
    """All examples of all steps, one after another, as a sampler of a whole run; `of_step` has those of one step.

    Every epoch has an order of its own and leaves out what does not fill a step.
    """

    def __init__(
        self,
        steps: int,
        examples: int,
        prompts_per_step: int,
        seed: int,
        share: Callable[[Sequence[int]], Sequence[int]] = lambda step: step,
    ) -> None:
        """`share`: what of a step the sampler yields."""
        self.share = share
        self.steps, self.examples, self.prompts_per_step, self.seed = steps, examples, prompts_per_step, seed
        self._epoch, self._shuffled = -1, [0]

    def __len__(self) -> int:
        return self.steps * self.prompts_per_step

    def __iter__(self) -> Iterator[int]:
        for step in range(self.steps):
            yield from self.share(self.of_step(step))

    def of_step(self, step: int) -> list[int]:
        """The indices of the examples of a step, counted from 0."""
        epoch, place = divmod(step, self.examples // self.prompts_per_step)
        if epoch != self._epoch:
            shuffled = random.Random(f"{self.seed} order {epoch}").sample(range(self.examples), self.examples)
            self._epoch, self._shuffled = epoch, shuffled
        return self._shuffled[place * self.prompts_per_step : (place + 1) * self.prompts_per_step]
