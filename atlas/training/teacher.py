"""The model that is learnt from."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from atlas.errors import RunFailed
from atlas.run import Run
from atlas.training import load, ranks
from atlas.training.generation import eos_token_ids
from atlas.training.head import Head, head_of
from atlas.training.loop import Prepared
from atlas.training.rollouts import Writer


@dataclass(frozen=True)
class Teacher:
    """A frozen model with its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    difference: str | None
    """Where its tokenizer differs from the student's; None where every id means the same text to both."""

    @property
    def vocabulary(self) -> int:
        """How many logits count: those of ids that the tokenizer has."""
        return min(load.vocabulary_size(self.tokenizer), load.logit_width(self.model))

    @property
    def head(self) -> Head:
        return head_of(self.model, self.vocabulary)

    def writer(self, prompts: Sequence[list[int]]) -> Writer:
        """To write after these prompts, which are in the teacher's tokens."""
        return Writer(self.model, self.vocabulary, prompts, eos_token_ids(self.model, self.tokenizer))


def load_teacher(run: Run, prepared: Prepared) -> Teacher:
    """The job's teacher. Raises RunFailed if it cannot be loaded."""
    spec = run.job.teacher
    assert spec is not None, "Method.check lets no job without its teacher pass"
    with ranks.first_goes_ahead():
        tokenizer = load.load_tokenizer(spec, prepared.cache)
        model = load.load_model(spec, prepared.cache, trainable=False)
    difference = load.tokenizer_difference(prepared.tokenizer, tokenizer)
    if difference is None:
        load.check_vocabulary(model, tokenizer)
    run.summary["revisions"]["teacher"] = load.resolved_revision(model)
    return Teacher(model, tokenizer, difference)


def require_same_tokenizer(teacher: Teacher) -> None:
    """Raises RunFailed(`bad_model`) unless every token id means the same text to student and teacher."""
    if teacher.difference is not None:
        raise RunFailed(
            "bad_model",
            f"the tokenizers of student and teacher differ: {teacher.difference}; "
            "choose a teacher of the student's family, or method gkd, which aligns tokenizers",
        )
