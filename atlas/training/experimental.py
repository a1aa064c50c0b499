"""What Atlas takes from `trl.experimental`: the losses of TRL's GOLDTrainer. Names there change without notice, so this
is the only file that imports it. Checked on TRL 1.16.0.

S tokens of a completion for the student, T for the teacher; V logits of a side.
"""

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from types import SimpleNamespace

import torch
from transformers import PreTrainedTokenizerBase
from trl.experimental.gold import GOLDConfig
from trl.experimental.gold.gold_trainer import ULDLoss

_IGNORED = -100
"""The label of a token that is no part of the completion."""


@dataclass(frozen=True)
class Reading:
    """A completion in the tokens of one side. Its last token is left out of the loss: it should end the turn."""

    ids: Sequence[int]
    ends: Sequence[int]
    """Where each token ends in the text, in bytes."""


class GoldLoss:
    """TRL's `ULDLoss` of one completion, with the defaults of `GOLDConfig` and its own alignment.

    `extended`: chunks by byte offsets, in each a divergence between tokens of equal strings and the distance of the
    sorted probabilities of all others (`use_extended_uld` with `uld_use_hybrid_loss`). Otherwise that distance alone,
    between tokens at the same place (arXiv:2402.12030), and beta has no part in it. Each is a mean over chunks or
    places.
    """

    def __init__(
        self,
        student_tokenizer: PreTrainedTokenizerBase,
        teacher_tokenizer: PreTrainedTokenizerBase,
        *,
        extended: bool,
        beta: float,
        temperature: float,
        device: torch.device,
    ) -> None:
        settings = {
            "use_extended_uld": extended,
            "uld_use_hybrid_loss": extended,
            "uld_student_temperature": temperature,
            "uld_teacher_temperature": temperature,
            "beta": beta,
        }
        # Not a GOLDConfig: to make one, a TrainingArguments, resets the accelerate state of the trainer at work.
        defaults = {field.name: field.default for field in fields(GOLDConfig) if field.default is not MISSING}
        assert settings.keys() <= defaults.keys(), "TRL has renamed a setting"
        self._loss = ULDLoss(SimpleNamespace(**defaults | settings), student_tokenizer, teacher_tokenizer, device)
        assert self._loss.skip_student_eos and self._loss.skip_teacher_eos, "nothing is predicted after the last token"

    def __call__(
        self, student: Reading, teacher: Reading, student_logits_SV: torch.Tensor, teacher_logits_TV: torch.Tensor
    ) -> torch.Tensor:
        """A scalar. Row i of the logits predicts token i."""
        sides = [_batch_of_one(side, student_logits_SV.device) for side in (student, teacher)]
        by_kind = [tensor for pair in zip(*sides, strict=True) for tensor in pair]
        return self._loss(student_logits_SV[None], teacher_logits_TV[None], *by_kind).sum()  # of one number


def _batch_of_one(side: Reading, device: torch.device) -> list[torch.Tensor]:
    """Labels, ids and offsets, after the token of the prompt at which the first of these is predicted."""
    offsets = list(zip([0, *side.ends], side.ends, strict=False))
    rows = [_IGNORED, *side.ids], [0, *side.ids], [(0, 0), *offsets]
    return [torch.tensor([row], device=device) for row in rows]
