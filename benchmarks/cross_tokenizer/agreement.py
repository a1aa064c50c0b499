"""What a loss is where models agree, where the student is sure of something else, and which way it pulls "125"."""

from typing import Any

import numpy as np
import torch
from fixed_point import Model, World
from gold import trl_loss, trl_losses
from pairs import Pair

from atlas.training.aligned_loss import aligned_loss
from atlas.training.alignment.aligned_rows import AlignedRows
from atlas.training.head import Head

SURE = 30.0
"""A logit above all others."""


def agreement() -> dict[str, Any]:
    """Of the texts of the fixed point: both models know them; then both are sure of one text after each context, and
    then the student of others."""
    world = World()
    everything = list(range(len(world.law)))
    contexts = [context for context, _ in world.law]
    one_each = [contexts.index(context) for context in sorted(set(contexts))]  # the likeliest of each context
    right, wrong, teacher = (
        _sure(model, one_each, wrong=elsewhere)
        for model, elsewhere in ((world.student, False), (world.student, True), (world.teacher, False))
    )
    methods: dict[str, Any] = {
        f"Atlas, beta {beta}": lambda *a, beta=beta, **k: world.atlas(*a, beta=beta, **k) for beta in (0.0, 0.5, 1.0)
    }
    for name, loss in trl_losses(world.student.as_tokenizer, world.teacher.as_tokenizer).items():
        methods[name] = lambda *a, loss=loss, **k: world.trl(loss, *a, **k)
    perfect, perfect_teacher = (model.law.clamp(min=1e-30).log() for model in (world.student, world.teacher))
    results = {}
    for name, method in methods.items():
        results[name] = {
            "both perfect": method(perfect, everything, teacher_logits=perfect_teacher).item(),
            "both sure": method(right, one_each, teacher_logits=teacher).item(),
            "student sure of wrong tokens": method(wrong, one_each, teacher_logits=teacher).item(),
        }
        print(f"    {name:<20}" + ", ".join(f"{case} {value:.2g}" for case, value in results[name].items()))
    return results


def _sure(model: Model, chosen: list[int], wrong: bool) -> torch.Tensor:
    """Logits that are sure of these texts, or of tokens with which other text begins: a letter for a digit, a digit
    for a letter."""
    tokens = list(model.tokens)
    letter, digit = next(i for i, token in enumerate(tokens) if not token.isdigit()), tokens.index("7")
    logits = torch.zeros_like(model.logits)
    for places, ids in (model.texts[i] for i in chosen):
        for place, i in zip(places.tolist(), ids.tolist(), strict=True):
            logits[place, (letter if tokens[i].isdigit() else digit) if wrong else i] = SURE
    return logits


TEXT = "48+77 = 125 clips"


def gradient_sign() -> dict[str, Any]:
    """The gradient by the student's logit of "125" where the text has it: the teacher is sure of it, the student gives
    it half. Below 0, a step raises it."""
    pair = Pair()
    ids = pair.student_ids([TEXT])
    aligned = pair.aligner(ids)
    generator = torch.Generator().manual_seed(0)
    logits = []
    for row, table, odds in ((ids[0], pair.tables[0], 0.0), (aligned.teacher_ids[0], pair.tables[1], 10.0)):
        each = torch.randn(len(row), len(table.bytes_V), generator=generator)
        places = range(len(row))
        each[places, row] = -torch.inf
        each[places, row] = each.logsumexp(1) + odds
        logits.append(each)
    place = [pair.tables[0].bytes_V[i] for i in ids[0]].index(b"125")
    start = logits[0].requires_grad_()

    def atlas() -> torch.Tensor:
        hidden = [torch.eye(len(each)) for each in logits]
        chunks = (aligned.student_chunk, aligned.teacher_chunk, aligned.canonical, aligned.closes_number)
        rows = AlignedRows.of(ids, aligned.teacher_ids, *chunks)
        heads = [Head(each.t()) for each in logits]
        loss, *_ = aligned_loss(hidden[0], heads[0], hidden[1], heads[1], rows, pair.roots, beta=0.5, temperature=1.0)
        return loss / len(rows.next_C)

    offsets = []
    for row, table in ((ids[0], pair.tables[0]), (aligned.teacher_ids[0], pair.tables[1])):
        end = np.cumsum(table.lengths[row]).tolist()
        offsets.append([list(map(list, zip([0, *end], end, strict=False)))])
    methods: dict[str, Any] = {"Atlas": atlas}
    for merge in ("observed", "bayesian"):
        for name, loss in trl_losses(pair.student, pair.teacher, merge).items():
            methods[f"{name}, {merge}"] = lambda loss=loss: trl_loss(
                loss, [start], [logits[1]], ids, aligned.teacher_ids, *offsets
            )
    results = {}
    for name, method in methods.items():
        [gradient] = torch.autograd.grad(method(), start)
        results[name] = gradient[place, ids[0][place]].item()
        print(f"    {name:<20}{results[name]:+.2g}")
    return results
