"""Both models know the text perfectly, so a valid loss is 0.

Next-token laws are counted from the solutions of GSM8K after contexts of seven bytes; Jensen-Shannon divergence in nats
(ULD: L1 distance).
"""

import random
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import torch
from gold import one_to_one, trl_losses
from pairs import Pair, pairs, solutions

from atlas.training.alignment.encoding import Encoder
from atlas.training.divergence import divergence

CONTEXT_BYTES = 7
SAMPLED = 100
"""Contexts of each kind, drawn by how often they come up."""
ORACLE_SOLUTIONS = 4000


def oracle() -> dict[str, Any]:
    return {pair.name: oracle_of(pair) for pair in pairs()}


def oracle_of(pair: Pair) -> dict[str, Any]:
    print(f"  {pair.name}")
    shared, own = count_laws(pair)
    generator = random.Random(0)
    kinds = {
        "all": sorted(shared),
        "digits": [key for key in sorted(shared) if digit_share(shared[key][0], pair) > 0.5],
        "after a number": [key for key in sorted(own) if key[1]],
    }
    results: dict[str, Any] = {}
    for kind, keys in kinds.items():
        if not keys:
            continue
        after_number = kind == "after a number"
        laws = own if after_number else shared
        weights = [shared[key][0].total() for key in keys]
        chosen = generator.choices(keys, weights, k=SAMPLED)
        results[kind] = divergences([laws[key] for key in chosen], pair, closed=after_number)
        print(f"    {kind}: {len(keys)} contexts, {sum(weights)} chunks")
        for method, value in results[kind].items():
            print(f"      {method:<40}{value:.4f}")
    return results


Key = tuple[bytes, bool]
"""(The bytes before, whether they end a number that the two tokenizers split differently.)"""
Laws = dict[Key, tuple[Counter[int], Counter[int]]]


def count_laws(pair: Pair) -> tuple[Laws, Laws]:
    """Next-token counts of student and teacher after a context: where both have a boundary, and each at all boundaries
    of its own, which is what a model knows."""
    text = solutions(ORACLE_SOLUTIONS)
    student_ids = pair.student_ids(text)
    aligned = pair.aligner(student_ids)
    shared: Laws = defaultdict(lambda: (Counter(), Counter()))
    own: tuple[dict[bytes, Counter[int]], ...] = (defaultdict(Counter), defaultdict(Counter))
    keys = set()
    for row, (ids, content) in enumerate(zip(student_ids, text, strict=True)):
        data = content.encode()
        closes = aligned.closes_number[row] & pair.vocabulary.digits_differ
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
