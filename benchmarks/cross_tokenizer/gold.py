"""TRL's own code: GOLD's and ULD's loss, and how GOLD aligns."""

from types import SimpleNamespace
from typing import Any

import torch
from trl.experimental.gold.gold_trainer import GOLDTrainer, ULDLoss, build_teacher_inputs_from_texts


def trl_losses(student: Any, teacher: Any, merge: str = "bayesian") -> dict[str, ULDLoss]:
    """`ULDLoss` is GOLD's loss for different tokenizers. With `bayesian` both predict the token that they are compared
    at; TRL's default, `observed`, is one place off."""
    settings = {
        "uld_crossentropy_weight": 0.0,
        "uld_distillation_weight": 1.0,
        "uld_student_temperature": 1.0,
        "uld_teacher_temperature": 1.0,
        "uld_skip_student_eos": False,
        "uld_skip_teacher_eos": False,
        "use_extended_uld": True,
        "uld_token_merge_strategy": merge,
        "uld_hybrid_matched_weight": None,
        "uld_hybrid_unmatched_weight": None,
        "beta": 0.5,
    }
    return {
        name: ULDLoss(SimpleNamespace(**settings, uld_use_hybrid_loss=hybrid), student, teacher, "cpu")
        for name, hybrid in (("ULD", False), ("GOLD", True))
    }


def one_to_one(loss: ULDLoss, log_s: torch.Tensor, log_t: torch.Tensor) -> torch.Tensor:
    """TRL's loss of laws that face each other, as a text of tokens of one byte."""
    places = torch.arange(len(log_s))
    offsets = torch.stack([places, places + 1], 1).tolist()
    ids = [[0] * len(log_s)]
    return trl_loss(loss, [log_s], [log_t], ids, ids, [offsets], [offsets])


def trl_loss(
    loss: ULDLoss,
    student_logits: list[torch.Tensor],
    teacher_logits: list[torch.Tensor],
    student_ids: list[list[int]],
    teacher_ids: list[list[int]],
    student_offsets: list[list[list[int]]],
    teacher_offsets: list[list[list[int]]],
) -> torch.Tensor:
    """TRL's loss of rows, given the logits that predict each of their tokens. A prompt of one token comes first."""

    def batch(rows: list[Any], fill: float, before: list[Any]) -> torch.Tensor:
        width = max(map(len, rows)) + 1
        tensors = [torch.tensor([*before, *row]) for row in rows]
        padding = [torch.full((width - len(each), *each.shape[1:]), fill, dtype=each.dtype) for each in tensors]
        return torch.stack([torch.cat(parts) for parts in zip(tensors, padding, strict=True)])

    def logits(rows: list[torch.Tensor]) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence(
            [torch.cat([row, row.new_zeros(1, row.shape[1])]) for row in rows], batch_first=True
        )

    return loss(
        logits(student_logits),
        logits(teacher_logits),
        batch(student_ids, -100, [-100]),
        batch(teacher_ids, -100, [-100]),
        batch(student_ids, 0, [0]),
        batch(teacher_ids, 0, [0]),
        batch(student_offsets, 0, [[0, 0]]),
        batch(teacher_offsets, 0, [[0, 0]]),
    )


def student_offsets(student: Any, ids: list[list[int]]) -> list[list[list[int]]]:
    """Of each token its bytes in the text, as GOLD finds them for what the student wrote: by row, without padding."""
    trainer = SimpleNamespace(
        use_uld_loss=True,
        teacher_tokenizer=True,
        uld_loss_fn=SimpleNamespace(use_extended_uld=True),
        _tokenizer=student,
    )
    offsets = []
    for row in ids:
        batch = {"input_ids": torch.tensor([row]), "labels": torch.tensor([row])}
        GOLDTrainer._maybe_add_completion_byte_offsets(trainer, batch)
        offsets.append(batch["byte_offsets"][0].tolist())
    return offsets


def teacher_offsets(teacher: Any, texts: list[str]) -> list[list[list[int]]]:
    """The same of the teacher's tokens, with empty prompts."""
    _, labels, _, offsets = build_teacher_inputs_from_texts(teacher, [""] * len(texts), texts)
    tokens = (labels != -100).sum(1).tolist()
    return [row[:number].tolist() for row, number in zip(offsets, tokens, strict=True)]


def walk(student: list[list[list[int]]], teacher: list[list[list[int]]]) -> None:
    for row, other in zip(student, teacher, strict=True):
        ULDLoss._align_by_byte_offsets(row, other)


class Tokenized:
    """A tokenizer that has tokenized these texts already: what GOLD does with the result is left."""

    def __init__(self, tokenizer: Any, texts: list[str]) -> None:
        self.pad_token_id, self.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
        backend = tokenizer.backend_tokenizer
        encoded = backend.encode_batch(texts, add_special_tokens=False)
        self.backend_tokenizer = SimpleNamespace(
            pre_tokenizer=backend.pre_tokenizer, decoder=backend.decoder, encode_batch=lambda *_, **__: encoded
        )

    def __call__(self, prompts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[] for _ in prompts]}
