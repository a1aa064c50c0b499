"""Distillation across tokenizers against TRL's GOLD and ULD: Llama-3.2 as student, Qwen2.5 as teacher, GSM8K.

    python benchmarks/cross_tokenizer.py [--part oracle|fixed-point|speed] [--json]

oracle       Both models know the text perfectly, so a valid loss is 0. Next-token laws are counted from the solutions
             of GSM8K after contexts of seven bytes; Jensen-Shannon divergence in nats (ULD: L1 distance).
fixed-point  A student that starts perfect learns from a perfect teacher. How much it writes with tokens of several
             digits must not move.
speed        1,000 solutions aligned; and the loss, forwards and backwards from hidden states, on the same ids, each
             measurement in a process of its own, in turns. CPU seconds, because this machine is shared.

With --json the last line is one object.
"""

import argparse
import json
import math
import random
import re
import statistics
import subprocess
import sys
import time
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer
from trl.experimental.gold.gold_trainer import ULDLoss, build_teacher_inputs_from_texts

from atlas.training.aligned_loss import Roots, aligned_loss, aligned_policy_gradient
from atlas.training.alignment.align import Aligner
from atlas.training.alignment.aligned_rows import AlignedRows
from atlas.training.alignment.byte_table import byte_table
from atlas.training.alignment.encoding import Encoder
from atlas.training.alignment.vocabulary import VocabularyMap, vocabulary_map
from atlas.training.divergence import divergence
from atlas.training.head import Head

SHARED = Path(__file__).resolve().parents[2] / "shared"
CONTEXT_BYTES = 7
SAMPLED = 100
"""Contexts of each kind, drawn by how often they come up."""
ORACLE_SOLUTIONS = 4000
HIDDEN = 256
REPEATS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.side:
        print(json.dumps(measure_loss(arguments.side)))
        return
    results = {}
    for part in [arguments.part] if arguments.part else PARTS:
        print(f"\n{part}")
        results[part] = PARTS[part]()
    if arguments.json:
        print(json.dumps(results))


class Pair:
    """The two tokenizers and what Atlas makes of them."""

    def __init__(self) -> None:
        self.student, self.teacher = (
            AutoTokenizer.from_pretrained(SHARED / "tokenizers" / name) for name in ("llama-3.2", "qwen2.5")
        )
        self.tables = byte_table(self.student), byte_table(self.teacher)
        self.aligner = Aligner(*self.tables, self.student, self.teacher)
        self.vocabulary = vocabulary_map(self.student, self.teacher, *self.tables, cache=None)
        self.roots = Roots(self.vocabulary)


def solutions(number: int | None = None) -> list[str]:
    with open(SHARED / "data" / "gsm8k" / "train.jsonl", encoding="utf-8") as file:
        return [json.loads(line)["answer"] for line in file][:number]


# oracle


def oracle() -> dict[str, Any]:
    pair = Pair()
    shared, own = count_laws(pair)
    generator = random.Random(0)
    kinds = {
        "all": sorted(shared),
        "digits": [key for key in sorted(shared) if digit_share(shared[key][0], pair) > 0.5],
        "after a number": [key for key in sorted(own) if key[1]],
    }
    results: dict[str, Any] = {}
    for kind, keys in kinds.items():
        after_number = kind == "after a number"
        laws = own if after_number else shared
        weights = [shared[key][0].total() for key in keys]
        chosen = generator.choices(keys, weights, k=SAMPLED)
        results[kind] = divergences([laws[key] for key in chosen], pair, closed=after_number)
        print(f"  {kind}: {len(keys)} contexts, {sum(weights)} chunks")
        for method, value in results[kind].items():
            print(f"    {method:<40}{value:.4f}")
    return results


Key = tuple[bytes, bool]
"""(The bytes before, whether they end a number that the two tokenizers split differently.)"""
Laws = dict[Key, tuple[Counter[int], Counter[int]]]


def count_laws(pair: Pair) -> tuple[Laws, Laws]:
    """Next-token counts of student and teacher after a context: where both have a boundary, and each at all boundaries
    of its own, which is what a model knows."""
    text = solutions(ORACLE_SOLUTIONS)
    student_ids = [
        [*ids, pair.student.eos_token_id] for ids in pair.student(text, add_special_tokens=False)["input_ids"]
    ]
    aligned = pair.aligner(student_ids)
    shared: Laws = defaultdict(lambda: (Counter(), Counter()))
    own: tuple[dict[bytes, Counter[int]], ...] = (defaultdict(Counter), defaultdict(Counter))
    keys = set()
    for row, (ids, content) in enumerate(zip(student_ids, text, strict=True)):
        data = content.encode()
        closes = aligned.closes_number[row]
        for side, (side_ids, chunk, table) in enumerate(
            zip(
                (ids, aligned.teacher_ids[row]),
                (aligned.student_chunk[row], aligned.teacher_chunk[row]),
                pair.tables,
                strict=True,
            )
        ):
            end = np.cumsum(table.lengths[side_ids])
            for place, i in enumerate(side_ids):
                start = int(end[place - 1]) if place else 0
                context = data[max(0, start - CONTEXT_BYTES) : start]
                own[side][context][i] += 1
                if place == 0 or chunk[place] != chunk[place - 1]:
                    key = context, bool(chunk[place] and closes[chunk[place] - 1])
                    shared[key][side][i] += 1
                    keys.add(key)
    return shared, {key: (own[0][key[0]], own[1][key[0]]) for key in keys}


def digit_share(counts: Counter[int], pair: Pair) -> float:
    digit = pair.vocabulary.digit[pair.vocabulary.student_root]
    return sum(number for i, number in counts.items() if digit[i]) / counts.total()


def divergences(
    laws: list[tuple[Counter[int], Counter[int]]], pair: Pair, closed: bool, block: int = 20
) -> dict[str, float]:
    """The mean over contexts by each method."""
    sums: Counter[str] = Counter()
    methods = trl_losses(pair.student, pair.teacher)
    for start in range(0, len(laws), block):
        some = laws[start : start + block]
        log_s, log_t = (
            log_law([counts[side] for counts in some], len(table.bytes_V)) for side, table in enumerate(pair.tables)
        )
        for name, loss in methods.items():
            sums[name] += len(some) * float(one_to_one(loss, log_s, log_t))
            if name == "GOLD":
                sums["GOLD, matched part"] += len(some) * float(loss.last_matched_loss)
                sums["GOLD, sorted part"] += len(some) * float(loss.last_unmatched_loss)
        sums["shared vocabulary renormalised"] += renormalised(log_s, log_t, pair).sum().item()
        sums["first pieces, one way (as X-Token's)"] += projected(log_s, log_t, pair).sum().item()
        pushed = pair.roots.student(log_s), pair.roots.teacher(log_t)
        sums["Atlas: push-forward"] += jsd(*pushed).sum().item()
        if closed:
            pushed = tuple(each.masked_fill(pair.roots.digit_R, -1e4) for each in pushed)
            sums["Atlas: push-forward, given no digit"] += jsd(*pushed).sum().item()
    return {name: value / len(laws) for name, value in sums.items()}


def log_law(counts: list[Counter[int]], width: int) -> torch.Tensor:
    law = torch.zeros(len(counts), width)
    for row, each in enumerate(counts):
        law[row, list(each)] = torch.tensor([number / each.total() for number in each.values()])
    return law.clamp(min=1e-30).log()


def jsd(student_logits: torch.Tensor, teacher_logits: torch.Tensor) -> torch.Tensor:
    return divergence(student_logits.log_softmax(-1), teacher_logits.log_softmax(-1), 0.5)


def renormalised(log_s: torch.Tensor, log_t: torch.Tensor, pair: Pair) -> torch.Tensor:
    """JSD over the tokens that both have, and the end of a turn."""
    columns = []
    for root_of, shared, table in (
        (pair.vocabulary.student_root, pair.vocabulary.student_shared, pair.tables[0]),
        (pair.vocabulary.teacher_root, pair.vocabulary.teacher_shared, pair.tables[1]),
    ):
        of_root = {int(root_of[i]): i for i in np.flatnonzero(shared)} | {pair.vocabulary.eot_root: table.end_of_turn}
        columns.append([of_root[root] for root in sorted(of_root)])
    return jsd(log_s[:, columns[0]], log_t[:, columns[1]])


def projected(log_s: torch.Tensor, log_t: torch.Tensor, pair: Pair) -> torch.Tensor:
    """JSD over the teacher's ids: each of the student's goes to the first of the ids that the teacher writes it with.
    X-Token's matrix, with all the weight on the first."""
    encode, end = Encoder(pair.teacher, pair.tables[1]), pair.tables[1].end_of_turn
    written = iter(encode([token for token in pair.tables[0].bytes_V if token]))
    first_piece = torch.tensor([next(written)[0] if token else end for token in pair.tables[0].bytes_V])
    law_t = torch.zeros_like(log_t).index_add(1, first_piece, log_s.exp())
    return jsd(law_t.clamp(min=1e-30).log(), log_t)


# TRL


def trl_losses(student: Any, teacher: Any) -> dict[str, ULDLoss]:
    """`ULDLoss` is GOLD's loss for different tokenizers. Both predict the token that they are compared at: TRL's
    default of `token_merge_strategy` is one place off."""
    settings = {
        "uld_crossentropy_weight": 0.0,
        "uld_distillation_weight": 1.0,
        "uld_student_temperature": 1.0,
        "uld_teacher_temperature": 1.0,
        "uld_skip_student_eos": False,
        "uld_skip_teacher_eos": False,
        "use_extended_uld": True,
        "uld_token_merge_strategy": "bayesian",
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


# fixed point

STEPS = 400
ROWS = 16
LEARNING_RATE = 0.02
NUMBERS_PER_CONTEXT = 25


def fixed_point() -> dict[str, Any]:
    world = World()
    losses = trl_losses(world.student.as_tokenizer, world.teacher.as_tokenizer)
    methods = {
        **{name: lambda rows, loss=loss: world.trl(loss, *rows) for name, loss in losses.items()},
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
            print(f"    {name:<40}{mass:.3f}")
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
        self.logits = (probabilities / probabilities.sum(1, keepdim=True)).clamp(min=1e-9).log()


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

    def atlas(
        self, logits: torch.Tensor, chosen: list[int], policy_gradient: bool = False, **flags: bool
    ) -> torch.Tensor:
        """The mean over the chunks."""
        student_ids, teacher_ids = ([model.ids[i] for i in chosen] for model in (self.student, self.teacher))
        chunks = [-(-(len(ids) - 1) // 3) + 1 for ids in teacher_ids]
        rows = AlignedRows.of(
            student_ids,
            teacher_ids,
            [np.arange(len(ids)) for ids in student_ids],
            [np.append(np.arange(len(ids) - 1) // 3, len_ - 1) for ids, len_ in zip(teacher_ids, chunks, strict=True)],
            [np.ones(number, dtype=bool) for number in chunks],
            [np.arange(number) == number - 2 for number in chunks],
        )
        rows = replace(rows, **{name: torch.full_like(getattr(rows, name), value) for name, value in flags.items()})
        # A hidden state says which prefix it is, and the head holds the logits.
        hidden = [
            torch.eye(len(model.logits))[torch.cat([model.texts[i][0] for i in chosen])]
            for model in (self.student, self.teacher)
        ]
        arguments = (hidden[0], Head(logits.t()), hidden[1], Head(self.teacher.logits.t()), rows, self.roots)
        if policy_gradient:
            loss, *_ = aligned_policy_gradient(*arguments)
        else:
            loss, *_ = aligned_loss(*arguments, beta=0.5, temperature=1.0)
        return loss / len(rows.next_C)

    def trl(self, loss: ULDLoss, logits: torch.Tensor, chosen: list[int]) -> torch.Tensor:
        ids, offsets, predicted = [], [], []
        for model, own in ((self.student, logits), (self.teacher, self.teacher.logits)):
            lengths = [len(token) for token in model.tokens]
            ids.append([model.ids[i] for i in chosen])
            ends = [np.cumsum([lengths[i] for i in row]).tolist() for row in ids[-1]]
            offsets.append([list(map(list, zip([0, *row], row, strict=False))) for row in ends])
            predicted.append([own[model.texts[i][0]] for i in chosen])
        return trl_loss(loss, *predicted, *ids, *offsets)


# speed


def speed() -> dict[str, Any]:
    results = {"alignment": alignment_seconds(), "loss": defaultdict(list)}
    for _ in range(REPEATS):
        for side in ("atlas", "GOLD"):
            command = [sys.executable, __file__, "--side", side]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{side} failed:\n{done.stderr[-3000:]}")
            results["loss"][side].append(json.loads(done.stdout.splitlines()[-1]))
    for kind in ("seconds", "peak_bytes"):
        values = {side: [run[kind] for run in runs] for side, runs in results["loss"].items()}
        ratios = [gold / atlas for gold, atlas in zip(values["GOLD"], values["atlas"], strict=True)]
        print(f"  loss, {kind}: {spread(values['atlas'])} Atlas, {spread(values['GOLD'])} GOLD; ratio {spread(ratios)}")
    return results


def alignment_seconds() -> dict[str, list[float]]:
    """Of 1,000 solutions, already sampled as the student's ids: others each time, after a first time for the caches of
    the tokenizers."""
    pair = Pair()
    results: dict[str, list[float]] = defaultdict(list)
    for repeat in range(REPEATS + 1):
        text = solutions()[1000 * repeat : 1000 * (repeat + 1)]
        written = pair.student(text, add_special_tokens=False, return_offsets_mapping=True)
        ids = [[*row, pair.student.eos_token_id] for row in written["input_ids"]]
        offsets = [[list(each) for each in row] for row in written["offset_mapping"]]
        sides = {
            "atlas": lambda ids=ids: pair.aligner(ids),
            "GOLD": lambda text=text, offsets=offsets: gold_alignment(pair, text, offsets),
        }
        for name, work in sides.items():
            start = time.process_time()
            work()
            if repeat:
                results[name].append(time.process_time() - start)
    ratios = [gold / atlas for gold, atlas in zip(results["GOLD"], results["atlas"], strict=True)]
    print(
        f"  alignment, seconds: {spread(results['atlas'])} Atlas, {spread(results['GOLD'])} GOLD; "
        f"ratio {spread(ratios)}"
    )
    return results


def gold_alignment(pair: Pair, text: list[str], student_offsets: list[list[list[int]]]) -> None:
    _, labels, _, offsets = build_teacher_inputs_from_texts(pair.teacher, [""] * len(text), text)
    for row, own in enumerate(student_offsets):
        ULDLoss._align_by_byte_offsets(own, offsets[row][labels[row] != -100].tolist())


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.4g} ({min(values):.4g} to {max(values):.4g})"


def measure_loss(side: str) -> dict[str, float]:
    """Loss and gradients of the student's hidden states and head from those of both sides, for some solutions."""
    pair, text = Pair(), solutions(3)
    ids = [[*row, pair.student.eos_token_id] for row in pair.student(text, add_special_tokens=False)["input_ids"]]
    aligned = pair.aligner(ids)
    tensors = []
    for rows, table in ((ids, pair.tables[0]), (aligned.teacher_ids, pair.tables[1])):
        tensors += [torch.randn(sum(map(len, rows)), HIDDEN), torch.randn(len(table.bytes_V), HIDDEN) / HIDDEN**0.5]
    hidden, weight, teacher_hidden, teacher_weight = tensors
    hidden.requires_grad_(), weight.requires_grad_()
    if side == "atlas":
        chunks = (aligned.student_chunk, aligned.teacher_chunk, aligned.canonical, aligned.closes_number)
        rows = AlignedRows.of(ids, aligned.teacher_ids, *chunks)

        def work() -> torch.Tensor:
            heads = Head(weight), Head(teacher_weight)
            return aligned_loss(
                hidden, heads[0], teacher_hidden, heads[1], rows, pair.roots, beta=0.5, temperature=1.0
            )[0]
    else:
        loss = trl_losses(pair.student, pair.teacher)["GOLD"]
        sizes = [list(map(len, rows)) for rows in (ids, aligned.teacher_ids)]
        ends = [
            [np.cumsum(table.lengths[row]).tolist() for row in rows]
            for rows, table in ((ids, pair.tables[0]), (aligned.teacher_ids, pair.tables[1]))
        ]
        offsets = [[list(map(list, zip([0, *row], row, strict=False))) for row in rows] for rows in ends]

        def work() -> torch.Tensor:
            logits = [
                list(each.split(size))
                for each, size in zip((hidden @ weight.t(), teacher_hidden @ teacher_weight.t()), sizes, strict=True)
            ]
            return trl_loss(loss, *logits, ids, aligned.teacher_ids, *offsets)

    Path("/proc/self/clear_refs").write_text("5")
    before = memory_bytes("VmRSS")
    start = time.process_time()
    work().backward()
    seconds = time.process_time() - start
    return {"seconds": seconds, "peak_bytes": memory_bytes("VmHWM") - before, "tokens": sum(map(len, ids))}


def memory_bytes(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


PARTS = {"oracle": oracle, "fixed-point": fixed_point, "speed": speed}

if __name__ == "__main__":
    main()
