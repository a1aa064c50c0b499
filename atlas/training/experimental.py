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
from trl.experimental.gold.gold_trainer import ULDLoss, build_teacher_inputs_from_texts
from trl.experimental.utils import is_byte_level_tokenizer, piece_byte_len

from atlas.errors import RunFailed

_IGNORED = -100
"""The label of a token that is no part of the completion."""


@dataclass(frozen=True)
class Reading:
    """A completion in the tokens of one side."""

    ids: list[int]
    offsets: Sequence[Sequence[int]]
    """Where each token starts and ends in the text, in bytes. Only the extended loss reads them."""


class GoldLoss:
    """TRL's `ULDLoss` of one completion, with the defaults of `GOLDConfig` and its own alignment.

    `extended`: chunks by byte offsets, in each a divergence between tokens of equal strings and the distance of the
    sorted probabilities of all others (`use_extended_uld` with `uld_use_hybrid_loss`). Otherwise that distance alone,
    between tokens at the same place (arXiv:2402.12030), and beta has no part in it. Each is a mean over chunks or
    places. The last token of a side is left out.

    Raises RunFailed(`bad_model`) for tokenizers that TRL does not align.
    """

    def __init__(
        self,
        student_tokenizer: PreTrainedTokenizerBase,
        teacher_tokenizer: PreTrainedTokenizerBase,
        *,
        extended: bool,
        beta: float,
        temperature: float,
        device: torch.device | str = "cpu",
    ) -> None:
        if extended:
            _check_byte_level(student_tokenizer, "student")
            _check_byte_level(teacher_tokenizer, "teacher")
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
        assert self._loss.skip_student_eos and self._loss.skip_teacher_eos, "nothing follows the last token"

    def readings(self, ids: Sequence[int]) -> tuple[Reading, Reading] | None:
        """Of a completion of the student: its tokens, and the teacher's of the text that they decode to, control tokens
        as text, with the teacher's EOS. None if TRL finds no byte offsets for it."""
        loss = self._loss
        text = loss.student_tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        try:
            ids_1T, labels_1T, _, offsets_1T2 = build_teacher_inputs_from_texts(
                loss.teacher_tokenizer, [""], [text], loss.use_extended_uld
            )
        except ValueError:
            return None
        written_1T = labels_1T != _IGNORED
        teacher = Reading(
            ids_1T[written_1T].tolist(), [(start, end) for start, end in offsets_1T2[written_1T].tolist()]
        )
        return Reading(list(ids), self._offsets(ids)), teacher

    def __call__(
        self, student: Reading, teacher: Reading, student_logits_SV: torch.Tensor, teacher_logits_TV: torch.Tensor
    ) -> torch.Tensor:
        """The loss, a scalar. Row i of the logits predicts token i."""
        device = student_logits_SV.device
        sides = [_batch_of_one(side, device) for side in (student, teacher)]
        by_kind = [tensor for pair in zip(*sides, strict=True) for tensor in pair]
        return self._loss(student_logits_SV[None], teacher_logits_TV[None], *by_kind).sum()  # of one number

    def _offsets(self, ids: Sequence[int]) -> list[tuple[int, int]]:
        end, offsets = 0, []
        for piece in self._loss.student_tokenizer.convert_ids_to_tokens(ids):
            start, end = end, end + piece_byte_len(piece or "")
            offsets.append((start, end))
        return offsets


def _batch_of_one(side: Reading, device: torch.device) -> list[torch.Tensor]:
    """Labels, ids and offsets: after one token of the prompt, at which the first is predicted."""
    rows = [_IGNORED, *side.ids], [0, *side.ids], [(0, 0), *side.offsets]
    return [torch.tensor([row], device=device) for row in rows]


def _check_byte_level(tokenizer: PreTrainedTokenizerBase, role: str) -> None:
    if not is_byte_level_tokenizer(tokenizer.backend_tokenizer):
        raise RunFailed(
            "bad_model",
            f"method.alignment gold is for byte-level tokenizers, and the {role}'s ({tokenizer.name_or_path}) is none; "
            "use push_forward, or uld",
        )
