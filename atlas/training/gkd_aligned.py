"""On-policy distillation from a teacher that tokenizes otherwise.

Each side reads the prompt by its own chat template; the completion's bytes, as the student wrote them, are aligned.

S tokens of the student and T of the teacher in a micro-batch, C chunks, D size of a hidden state.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from atlas.datasets.base import Example
from atlas.errors import RunFailed
from atlas.methods.gkd import Gkd
from atlas.private import open_private
from atlas.run import Run
from atlas.training import ranks
from atlas.training.aligned_loss import Result, Roots, aligned_loss, aligned_policy_gradient
from atlas.training.alignment.align import Aligner, Alignment
from atlas.training.alignment.aligned_rows import AlignedRows
from atlas.training.alignment.byte_table import ByteTable, byte_table
from atlas.training.alignment.encoding import Encoder
from atlas.training.alignment.vocabulary import VocabularyMap, vocabulary_map
from atlas.training.chat_template import check_chat_template
from atlas.training.engine import frozen_hidden_states
from atlas.training.generation import eos_token_ids
from atlas.training.gkd import GkdTrainer
from atlas.training.head import head_of, hidden_states
from atlas.training.loop import Prepared
from atlas.training.packing import Packed, pack
from atlas.training.prompts import check_lengths, encode_prompts, render_prompt
from atlas.training.rollouts import Rollout
from atlas.training.teacher import Teacher

_LEAST_COVERAGE = 0.999
"""Share of the student's tokens in a chunk, under which the run says so."""
_SHOWN_ROWS = 2
"""Completions of a step whose chunks are kept, in steps 1, 2, 4, 8, ..."""


class AlignedGkdTrainer(GkdTrainer):
    """The loss is the mean over the chunks of a step; see `aligned_loss`. Chunks and their divergences of some
    completions are kept in `alignment.jsonl` of the run directory, a completion a line."""

    def __init__(self, run: Run, prepared: Prepared, method: Gkd, teacher: Teacher) -> None:
        super().__init__(run, prepared, method, teacher)
        self.prompts_of_teacher = teacher_prompts(teacher, prepared)
        self.student_table = byte_table(self.tokenizer, eos_token_ids(self.student, self.tokenizer))
        self.teacher_table = byte_table(teacher.tokenizer, eos_token_ids(teacher.model, teacher.tokenizer))
        check_logits(teacher, self.teacher_table)
        self.align = Aligner(self.student_table, self.teacher_table, self.tokenizer, teacher.tokenizer)
        tokenizers = (self.tokenizer, teacher.tokenizer)
        self.map = vocabulary_map(*tokenizers, self.student_table, self.teacher_table, prepared.cache)
        self.roots = Roots(_cut(self.map, teacher.vocabulary), self.args.device)
        self._encode = Encoder(self.tokenizer, self.student_table)
        self.alignment: Alignment
        self.prompts_at_hand: list[list[int]] = []
        """The teacher's prompts of what the step learns from."""
        self._complete = True
        self._shown: dict[int, torch.Tensor] = {}
        run.summary["alignment"] = {"difference": teacher.difference, **self.map.figures}

    def training_step(self, model: Any, inputs: Sequence[int], num_items_in_batch: Any = None) -> torch.Tensor:
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._keep_chunks()
        return loss

    def rollouts(self, prompts: Sequence[int]) -> list[Rollout]:
        self.prompts_at_hand = [self.prompts_of_teacher[i] for i in prompts]
        return super().rollouts(prompts)

    def score(self, examples: Sequence[Example], rollouts: Sequence[Rollout]) -> Mapping[str, float]:
        with self.phase("align"):
            alignment = self.align([rollout.completion_ids for rollout in rollouts])
        self.alignment = self._within_context(alignment)
        self._shown = {}
        coverage = alignment.figures["coverage"]
        if coverage < _LEAST_COVERAGE and self._complete:
            self.run.event(
                "alignment",
                f"step {self.state.global_step + 1}: only {coverage:.2%} of the student's tokens face tokens of the "
                "teacher, and the others are not learnt from; `atlas tokenizers` shows what it cannot write",
            )
        self._complete = coverage >= _LEAST_COVERAGE
        figures = self.alignment.figures if self.state.global_step else self.alignment.figures | self.map.figures
        return {**super().score(examples, rollouts), **{f"alignment/{name}": value for name, value in figures.items()}}

    def terms(self, rollouts: Sequence[Rollout], row: int) -> int:
        return len(self.alignment.canonical[row])

    def learnt_from(self, rollouts: Sequence[Rollout]) -> list[int]:
        return [row for row in super().learnt_from(rollouts) if self.terms(rollouts, row)]

    def packed_loss(self, packed: Packed, rows: Sequence[int]) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        loss, sums, divergence_C = self.aligned_loss(packed, rows)
        if not self.on_policy(self.state.global_step):
            sums.pop("reverse_kl", None)  # of the student's own rollouts alone, as where tokenizers are equal
        chunks = [len(self.alignment.canonical[row]) for row in rows]
        self._shown |= {
            row: of_row for row, of_row in zip(rows, divergence_C.split(chunks), strict=True) if row < _SHOWN_ROWS
        }
        return loss, sums

    def aligned_loss(self, packed: Packed, rows: Sequence[int]) -> Result:
        """Of a micro-batch of these rollouts of the step."""
        alignment = self.alignment
        teacher_rows = [(self.prompts_at_hand[row], alignment.teacher_ids[row]) for row in rows]
        with self.phase("teacher"):
            teacher_hidden_TD = frozen_hidden_states(self.teacher.model, pack(teacher_rows, self.args.device))
        aligned = AlignedRows.of(
            [self.at_hand[row].completion_ids for row in rows],
            [alignment.teacher_ids[row] for row in rows],
            [alignment.student_chunk[row] for row in rows],
            [alignment.teacher_chunk[row] for row in rows],
            [alignment.canonical[row] for row in rows],
            [alignment.closes_number[row] for row in rows],
            self.args.device,
        )
        student = hidden_states(self.student, packed), head_of(self.student, self.vocabulary)
        both = (*student, teacher_hidden_TD, self.teacher.head, aligned, self.roots)
        if self.method.loss == "policy_gradient":
            return aligned_policy_gradient(*both)
        return aligned_loss(*both, beta=self.method.beta, temperature=self.method.temperature)

    def means(self, sums: Mapping[str, float], terms: int) -> Mapping[str, float]:
        """Per chunk; and how well each side expects the text, in bits a byte: comparable across tokenizers."""
        sums = dict(sums)
        bits = max(1, self._aligned_bytes()) * math.log(2)
        per_byte = {
            f"bits_per_byte_{side}": sums.pop(f"nats_{side}") / bits
            for side in ("student", "teacher")
            if f"nats_{side}" in sums
        }
        return {_named(name): value for name, value in super().means(sums, terms).items()} | per_byte

    def written_by_teacher(self, prompts: Sequence[int]) -> list[Rollout]:
        written = self.written_by(self.teacher.writer(self.prompts_of_teacher), prompts)
        texts = [self.teacher_table.text(np.array(row.completion_ids)).tobytes() for row in written]
        context = getattr(self.student.config.get_text_config(), "max_position_embeddings", None)
        end = [] if self.student_table.end_of_turn is None else [self.student_table.end_of_turn]
        rollouts = []
        for i, text, ids, row in zip(prompts, texts, self._encode(texts), written, strict=True):
            # Where the student has no token for a byte its ids stop, which is no end of the turn.
            whole = not row.clipped and sum(self.student_table.lengths[id_] for id_ in ids) == len(text)
            completion = (ids + end if whole else ids)[: context and context - len(self.prompts[i])]
            rollouts.append(Rollout(self.prompts[i], completion, [], clipped=not whole or completion[-1:] != end))
        return rollouts

    def _within_context(self, alignment: Alignment) -> Alignment:
        """Without the rows that are too long for the teacher with its own prompt."""
        context = getattr(self.teacher.model.config.get_text_config(), "max_position_embeddings", None)
        rows = zip(self.prompts_at_hand, alignment.teacher_ids, strict=True)
        long = [i for i, row in enumerate(rows) if context is not None and sum(map(len, row)) > context]
        if not long:
            return alignment
        message = f"step {self.state.global_step + 1}: {len(long)} completions are longer than the teacher's context"
        self.run.event("alignment", f"{message} of {context} tokens and are not learnt from")
        fields: dict[str, Any] = {name: list(value) for name, value in vars(alignment).items() if name != "figures"}
        for i in long:
            fields["teacher_ids"][i] = []
            fields["student_chunk"][i] = np.full_like(fields["student_chunk"][i], -1)
            for name in ("teacher_chunk", "canonical", "closes_number"):
                fields[name][i] = fields[name][i][:0]
        chunks = np.concatenate(fields["student_chunk"])
        fields["figures"] = alignment.figures | {"coverage": float((chunks >= 0).mean())}
        return replace(alignment, **fields)

    def _aligned_bytes(self) -> int:
        lengths = self.student_table.lengths
        mine = sum(
            int(lengths[np.array(self.at_hand[row].completion_ids)][self.alignment.student_chunk[row] >= 0].sum())
            for row in self.learnt_from(self.at_hand)
        )
        return int(ranks.sum_of(mine))

    def _keep_chunks(self) -> None:
        step = self.state.global_step + 1
        if step & (step - 1) or ranks.rank():
            return
        path = self.run.directory / "alignment.jsonl"
        kept = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        part = path.with_suffix(".part")
        with open_private(part, "w") as file:
            # Steps that are made again, after the checkpoint that a run goes on from, replace what they left.
            file.writelines(line for line in kept if json.loads(line)["step"] < step)
            for row, divergence_C in sorted(self._shown.items()):
                student = (self.student_table, self.at_hand[row].completion_ids, self.alignment.student_chunk[row])
                teacher = (self.teacher_table, self.alignment.teacher_ids[row], self.alignment.teacher_chunk[row])
                record = {
                    "step": step,
                    "prompt": self.tokenizer.decode(self.at_hand[row].prompt_ids),
                    "student": _strip(self.tokenizer, *student),
                    "teacher": _strip(self.teacher.tokenizer, *teacher),
                    "divergence": [round(value, 6) for value in divergence_C.tolist()],
                }
                file.write(json.dumps(record) + "\n")
        part.replace(path)


def teacher_prompts(teacher: Teacher, prepared: Prepared) -> list[list[int]]:
    """Token ids of every example's prompt by the teacher's own chat template.

    Raises RunFailed(`bad_model`) if the student has a chat template and the teacher none, or its template refuses the
    messages; `bad_data` if a prompt leaves no room in the teacher's context.
    """
    examples = prepared.examples
    if prepared.tokenizer.chat_template and not teacher.tokenizer.chat_template:
        raise RunFailed(
            "bad_model",
            "the student has a chat template and the teacher has none, so the teacher would read another conversation; "
            "choose the chat (instruct) version of the teacher, or put a chat_template into its tokenizer_config.json",
        )
    check_chat_template(teacher.tokenizer, examples[0].messages)
    check_lengths(teacher.model, teacher.tokenizer, examples, [1] * len(examples))
    rendered = [render_prompt(teacher.tokenizer, example.messages) for example in examples]
    return encode_prompts(teacher.tokenizer, rendered)


def check_logits(teacher: Teacher, table: ByteTable) -> None:
    """Raises RunFailed(`bad_model`) if the teacher has no logit for an id that text can have."""
    beyond = [i for i in range(teacher.vocabulary, len(table.bytes_V)) if i not in table.control or i in table.eot]
    if beyond:
        raise RunFailed(
            "bad_model",
            f"the teacher's tokenizer has the token id {beyond[0]} and the model only {teacher.vocabulary} logits; "
            "they do not belong together: check teacher.model and revision",
        )


def _cut(vocabulary: VocabularyMap, width: int) -> VocabularyMap:
    """Without control tokens that the teacher has no logits for."""
    cut = {name: getattr(vocabulary, name)[:width] for name in ("teacher_root", "teacher_shared")}
    return replace(vocabulary, **cut)


_OF_ALIGNMENT = ("shared_mass_student", "shared_mass_teacher", "root_agreement")


def _named(name: str) -> str:
    return f"alignment/{name}" if name in _OF_ALIGNMENT else name


def _strip(tokenizer: Any, table: ByteTable, ids: Sequence[int], chunks: np.ndarray) -> list[list[Any]]:
    """Text and chunk of each token; bytes that are no UTF-8 as backslash escapes."""
    pieces = [table.bytes_V[i] for i in ids]
    texts = [
        tokenizer.convert_ids_to_tokens(i) if piece is None else piece.decode("utf-8", "backslashreplace")
        for i, piece in zip(ids, pieces, strict=True)
    ]
    return [[text, int(chunk)] for text, chunk in zip(texts, chunks, strict=True)]
