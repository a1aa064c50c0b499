"""What a dataset is: problems with answers, split so that no question straddles two splits, and a grader."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import Field

from atlas.grading import VERSION, Verdict, grade
from atlas.grading.policy import GradingSpec
from atlas.spec import Spec

Turn = dict[str, Any]
"""`{"role": ..., "content": ...}`, in traces with what messages about tools have besides."""


@dataclass(frozen=True)
class Example:
    """One problem. `messages` is the prompt and never holds the solution or the answer."""

    id: str
    group: str
    """Examples of one group (rewordings of one question) are always in the same split."""
    messages: tuple[Turn, ...]
    """The prompt as chat messages, ending with the user's turn (in traces perhaps with a tool's)."""
    answer: str
    """The gold answer. Empty, in a training example of traces, if nobody knows it."""
    solution: str | None = None
    """A worked solution to imitate, ending with the answer: sft's target, gkd's off-policy completion."""


@dataclass(frozen=True)
class Splits:
    """Disjoint in `group`. `dev` and `test` hold one example per group, so that their items are independent."""

    train: Sequence[Example]
    dev: Sequence[Example]
    test: Sequence[Example]
    card: Mapping[str, Any] | None = None
    """How they came about, for the record: what was read, used, and left out for which reason. Plain JSON."""

    def fingerprint(self, split: str) -> str:
        """sha256 over the split's content and order: equal fingerprints mean the same problems."""
        digest = hashlib.sha256()
        for example in getattr(self, split):
            digest.update(json.dumps(asdict(example), sort_keys=True).encode("utf-8", "surrogatepass") + b"\n")
        return digest.hexdigest()


class Dataset(Spec, ABC):
    """A source of problems. `score` is both GRPO's reward and the pass rate, so the two can never disagree."""

    dev_size: int = Field(200, ge=0)
    """Problems held out for choosing a checkpoint."""
    test_size: int = Field(1000, ge=0)
    """Problems held out for the final score."""
    train_size: int | None = Field(None, ge=1)
    """Use only this many training rows. Default: all that are not held out."""
    split_seed: int = Field(0, ge=0)
    """Which questions are held out. Runs are comparable only with equal splits."""
    system: str | None = None
    """System message put before every problem."""
    instruction: str = ""
    """Text put after every problem, such as how to write the answer."""
    grading: GradingSpec = GradingSpec()
    """How answers are compared, for the reward and the pass rate alike."""

    @abstractmethod
    def check(self) -> Splits | None:
        """The splits, if they can be read without the network. Raises SpecError (paths below `dataset`) for what can be
        seen without it: missing files, missing columns, too few problems."""

    @abstractmethod
    def load(self) -> Splits:
        """Reads everything. Raises SpecError as `check` does, and RunFailed if the hub cannot be reached."""

    def check_reward(self) -> None:
        """Raises SpecError if `score` is not what this dataset's problems were scored by."""

    def frozen(self, home: Path, keep: bool = True) -> Self:
        """What a queued run reads: this dataset, or, if it reads what changes, a copy of that below `home`, named by
        its content. Without `keep` the copy is only named, not made."""
        return self

    def prompt(self, turns: Sequence[Mapping[str, Any]]) -> tuple[Turn, ...]:
        """The prompt of an example: the turns of a row, after `system` and with `instruction` under the user's last."""
        messages = [dict(turn) for turn in turns]
        if self.system is not None:
            messages.insert(0, {"role": "system", "content": self.system})
        if self.instruction:
            asked = next(message for message in reversed(messages) if message["role"] == "user")
            asked["content"] += "\n" + self.instruction
        return tuple(messages)

    def grade(self, example: Example, completion: str) -> Verdict:
        """Whether an answer was found in the completion, and whether it is right."""
        return grade(completion, example.answer, self.grading)

    def grader(self) -> dict[str, Any]:
        """What identifies `grade`: pass rates compare only between equal ones. Overridden together with `grade`."""
        return {"version": VERSION, **self.grading.model_dump()}

    def score(self, example: Example, completion: str) -> float:
        """1.0 for a right answer, else 0.0."""
        return float(self.grade(example, completion).correct)
