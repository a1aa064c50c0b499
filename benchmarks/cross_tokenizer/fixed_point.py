"""A student that starts perfect learns from a perfect teacher.

How much it writes with tokens of several digits must not move, and a student that writes digit by digit must get there.
"""

import math
import re
from collections import Counter, defaultdict
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from gold import ULDLoss, trl_loss, trl_losses
from pairs import solutions

from atlas.training.aligned_loss import Roots, aligned_loss, aligned_policy_gradient
from atlas.training.alignment.aligned_rows import AlignedRows
from atlas.training.alignment.vocabulary import VocabularyMap
from atlas.training.head import Head

CONTEXT_BYTES = 7
STEPS = 400
ROWS = 16
LEARNING_RATE = 0.02
NUMBERS_PER_CONTEXT = 25


def fixed_point() -> dict[str, Any]:
    world = World()
    losses = trl_losses(world.student.as_tokenizer, world.teacher.as_tokenizer)
    methods = {
        **{name: lambda rows, loss=loss: world.trl(loss, *rows) for name, loss in losses.items()},
        "ALM, raw chunk likelihoods": lambda rows: world.raw(*rows, policy_gradient=False),
        "CTOPD-style, raw chunk likelihood ratio": lambda rows: world.raw(*rows, policy_gradient=True),
        "Atlas": lambda rows: world.atlas(*rows),
        "Atlas, policy gradient": lambda rows: world.atlas(*rows, policy_gradient=True),
        "Atlas without the remainder": lambda rows: world.atlas(*rows, canonical_C=False),
        "Atlas, numbers not closed": lambda rows: world.atlas(*rows, closes_number_C=False),
    }
    true = world.several_digits(world.student.logits)
    starts = {"perfect": world.student.logits, "digit by digit": world.reluctant()}
    print(f"  {len(world.law)} texts; tokens of several digits first: {true:.3f}")
    results: dict[str, Any] = {"text": true}
    for start, logits in starts.items():
        print(f"  from a student that is {start}, {world.several_digits(logits):.3f}")
        results[start] = {name: world.several_digits(learn(world, logits, method)) for name, method in methods.items()}
        for name, mass in results[start].items():
            print(f"    {name:<42}{mass:.3f}")
    return results


def learn(world: "World", start: torch.Tensor, method: Any) -> torch.Tensor:
    """The student's logits after it learnt from texts that it writes itself."""
    logits = start.clone().requires_grad_()
    optimizer, generator = torch.optim.Adam([logits], lr=LEARNING_RATE), torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        logprobs = logits.detach().log_softmax(-1)
        paths = torch.stack([logprobs[rows, ids].sum() for rows, ids in world.student.texts])
        chosen = paths.softmax(0).multinomial(ROWS, replacement=True, generator=generator)
        optimizer.zero_grad()
        method((logits, chosen.tolist())).backward()
        optimizer.step()
    return logits.detach()


class Model:
    """A tokenizer, and the perfect model with it: the next-token law after every prefix of a text."""

    def __init__(self, tokens: list[str], digits: int, law: dict[tuple[int, str], float]) -> None:
        self.tokens = {token: i for i, token in enumerate(tokens)}
        self.as_tokenizer = SimpleNamespace(get_vocab=lambda: self.tokens)
        split = re.compile(rf"\d{{1,{digits}}}|\D")
        self.ids = [[self.tokens[token] for token in split.findall(text)] for _, text in law]
        prefixes: dict[tuple[int, ...], int] = {}
        probabilities = torch.zeros(sum(map(len, self.ids)), len(tokens))
        self.texts = []
        for (context, _), ids, share in zip(law, self.ids, law.values(), strict=True):
            rows = [prefixes.setdefault((context, *ids[:n]), len(prefixes)) for n in range(len(ids))]
            probabilities[rows, ids] += share
            self.texts.append((torch.tensor(rows), torch.tensor(ids)))
        self.starts = [row for prefix, row in prefixes.items() if len(prefix) == 1]
        probabilities = probabilities[: len(prefixes)]
        self.law = probabilities / probabilities.sum(1, keepdim=True)
        self.logits = self.law.clamp(min=1e-9).log()  # what never comes can still be learnt


class World:
    """The numbers of GSM8K that follow the eight contexts most often before a digit, and what comes after them."""

    def __init__(self) -> None:
        data = [text.encode() for text in solutions()]
        pattern = re.compile(rb"(?<=[^\d])(?=(\d{1,6}[^\d]))", re.S)
        follow: dict[bytes, Counter[str]] = defaultdict(Counter)
        for each in data:
            for match in pattern.finditer(each):
                context = each[match.start() - CONTEXT_BYTES : match.start()]
                follow[context][match[1].decode("latin-1")] += 1
        contexts = sorted(follow, key=lambda context: -follow[context].total())[:8]
        self.law = {
            (n, text): float(number)
            for n, context in enumerate(contexts)
            for text, number in follow[context].most_common(NUMBERS_PER_CONTEXT)
        }
        after = sorted({text[-1] for _, text in self.law})
        numbers = [f"{number:0{width}}" for width in (1, 2, 3) for number in range(10**width)]
        teacher_only = [f"<only the teacher has this {n}>" for n in range(len(numbers))]
        self.student = Model([*numbers, *after], 3, self.law)
        self.teacher = Model([*numbers[:10], *after, *teacher_only], 1, self.law)
        roots = [*numbers[:10], *after, "other"]
        student_root = [roots.index(token[0]) for token in self.student.tokens]
        # What only the teacher has goes to one root, which the student has as "999" here: both never write it.
        student_root[self.student.tokens["999"]] = len(roots) - 1
        teacher_root = [min(i, len(roots) - 1) for i in range(len(self.teacher.tokens))]
        self.roots = Roots(
            VocabularyMap(
                student_root=np.array(student_root, dtype=np.int32),
                teacher_root=np.array(teacher_root, dtype=np.int32),
                student_shared=np.array([token in roots for token in self.student.tokens]),
                teacher_shared=np.array([token in roots for token in self.teacher.tokens]),
                roots=len(roots),
                digit=np.array([root.isdigit() for root in roots]),
                eot_root=len(roots) - 1,
                other_root=len(roots) - 1,
                digits_differ=True,
                figures={},
            )
        )

    def reluctant(self) -> torch.Tensor:
        """The student's logits if it had a tenth of the odds for tokens of several digits."""
        several = torch.tensor([token.isdigit() and len(token) > 1 for token in self.student.tokens])
        return self.student.logits - math.log(10) * several

    def several_digits(self, logits: torch.Tensor) -> float:
        """How likely the first token has several digits, by context."""
        several = torch.tensor([token.isdigit() and len(token) > 1 for token in self.student.tokens])
        return logits.softmax(-1)[self.student.starts][:, several].sum(1).mean().item()

    def split(self, chosen: list[int]) -> tuple[list[list[int]], list[list[int]], list[np.ndarray], list[np.ndarray]]:
        """Ids and chunks of both sides: each token of the student faces up to three digits of the teacher."""
        student_ids, teacher_ids = ([model.ids[i] for i in chosen] for model in (self.student, self.teacher))
        return (
            student_ids,
            teacher_ids,
            [np.arange(len(ids)) for ids in student_ids],
            [np.append(np.arange(len(ids) - 1) // 3, -(-(len(ids) - 1) // 3)) for ids in teacher_ids],
        )

    def atlas(
        self,
        logits: torch.Tensor,
        chosen: list[int],
        policy_gradient: bool = False,
        beta: float = 0.5,
        teacher_logits: torch.Tensor | None = None,
        **flags: bool,
    ) -> torch.Tensor:
        """The mean over the chunks."""
        split = self.split(chosen)
        chunks = [len(ids) for ids in split[0]]
        rows = AlignedRows.of(
            *split,
            [np.ones(number, dtype=bool) for number in chunks],
            [np.arange(number) == number - 2 for number in chunks],
        )
        rows = replace(rows, **{name: torch.full_like(getattr(rows, name), value) for name, value in flags.items()})
        # A hidden state says which prefix it is, and the head holds the logits.
        hidden = [
            torch.eye(len(model.logits))[torch.cat([model.texts[i][0] for i in chosen])]
            for model in (self.student, self.teacher)
        ]
        teacher_logits = self.teacher.logits if teacher_logits is None else teacher_logits
        arguments = (hidden[0], Head(logits.t()), hidden[1], Head(teacher_logits.t()), rows, self.roots)
        if policy_gradient:
            loss, *_ = aligned_policy_gradient(*arguments)
        else:
            loss, *_ = aligned_loss(*arguments, beta=beta, temperature=1.0)
        return loss / len(rows.next_C)

    def raw(self, logits: torch.Tensor, chosen: list[int], policy_gradient: bool) -> torch.Tensor:
        """The mean over the chunks of what compares only how likely a chunk's tokens are to each side: as ALM
        (arXiv:2503.20083) the KL divergence of "this chunk or another", or a policy gradient with the log-ratio."""
        student, teacher = (
            self._chunk_logprobs(model, own, chosen, chunk)
            for model, own, chunk in zip(
                (self.student, self.teacher), (logits, self.teacher.logits), self.split(chosen)[2:], strict=True
            )
        )
        if policy_gradient:
            return -(student * (teacher - student).detach().clamp(-10, 10)).mean()
        return _binary_kl(teacher, student).mean()

    def _chunk_logprobs(
        self, model: Model, logits: torch.Tensor, chosen: list[int], chunk: list[np.ndarray]
    ) -> torch.Tensor:
        firsts = np.cumsum([0, *(each[-1] + 1 for each in chunk)])
        of_token = np.concatenate([each + first for each, first in zip(chunk, firsts, strict=False)])
        places, ids = (torch.cat(parts) for parts in zip(*(model.texts[i] for i in chosen), strict=True))
        logprobs = logits.log_softmax(-1)[places, ids]
        return logprobs.new_zeros(int(firsts[-1])).index_add(0, torch.from_numpy(of_token), logprobs)

    def trl(
        self, loss: ULDLoss, logits: torch.Tensor, chosen: list[int], teacher_logits: torch.Tensor | None = None
    ) -> torch.Tensor:
        teacher_logits = self.teacher.logits if teacher_logits is None else teacher_logits
        ids, offsets, predicted = [], [], []
        for model, own in ((self.student, logits), (self.teacher, teacher_logits)):
            lengths = [len(token) for token in model.tokens]
            ids.append([model.ids[i] for i in chosen])
            ends = [np.cumsum([lengths[i] for i in row]).tolist() for row in ids[-1]]
            offsets.append([list(map(list, zip([0, *row], row, strict=False))) for row in ends])
            predicted.append([own[model.texts[i][0]] for i in chosen])
        return trl_loss(loss, *predicted, *ids, *offsets)


def _binary_kl(log_t: torch.Tensor, log_s: torch.Tensor) -> torch.Tensor:
    log_t, log_s = (each.double().clamp(max=-1e-9) for each in (log_t, log_s))
    others_t, others_s = (torch.log(-torch.expm1(each)) for each in (log_t, log_s))
    return log_t.exp() * (log_t - log_s) + others_t.exp() * (others_t - others_s)
