"""Atlas against GOLD on the same ids, in turns; CPU seconds, because this machine is shared."""

import gc
import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gold import Tokenized, student_offsets, teacher_offsets, trl_loss, trl_losses, walk
from pairs import Pair, solutions

from atlas.training.aligned_loss import aligned_loss
from atlas.training.alignment.align import Aligner, _rows, _Text
from atlas.training.alignment.aligned_rows import AlignedRows
from atlas.training.alignment.chunking import chunk
from atlas.training.alignment.encoding import Encoder
from atlas.training.alignment.pieces import Texts
from atlas.training.alignment.ragged import Ragged
from atlas.training.head import Head

HIDDEN = 256
REPEATS = 5


def speed() -> dict[str, Any]:
    results: dict[str, Any] = alignment_seconds()
    results["loss"] = defaultdict(list)
    for _ in range(REPEATS):
        for side in ("atlas", "GOLD"):
            command = [sys.executable, str(Path(__file__).parent), "--side", side]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{side} failed:\n{done.stderr[-3000:]}")
            results["loss"][side].append(json.loads(done.stdout.splitlines()[-1]))
    for kind in ("seconds", "peak_bytes"):
        show(f"loss, {kind}", {side: [run[kind] for run in runs] for side, runs in results["loss"].items()})
    return results


def alignment_seconds() -> dict[str, dict[str, list[float]]]:
    """Of 1,000 solutions, already sampled as the student's ids: others in each turn, after a first one for the caches
    of the tokenizers. GOLD is not charged for decoding what the student wrote.

    Chunks: from what the tokenizer returned, and what the student wrote, to the chunks of each row; of Atlas with the
    check of every byte. Everything else: all that Atlas returns when both sides' ids are known.
    """
    pair = Pair()
    results: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for repeat in range(REPEATS + 1):
        text = solutions()[1000 * repeat : 1000 * (repeat + 1)]
        ids = pair.student_ids(text)

        def gold(teacher: Any, ids: list[list[int]] = ids, text: list[str] = text) -> None:
            walk(student_offsets(pair.student, ids), teacher_offsets(teacher, text))

        seconds = {
            name: (cpu_seconds(partial(pair.aligner, ids)), cpu_seconds(partial(gold, pair.teacher)))
            for name in ("unseen", "seen")
        }
        known = student_offsets(pair.student, ids)
        seconds["unseen, the student's offsets given to GOLD"] = (
            seconds["unseen"][0],
            cpu_seconds(lambda text=text, known=known: walk(known, teacher_offsets(pair.teacher, text))),
        )
        aligner, tokenized_by_gold = tokenized(pair, ids), partial(gold, Tokenized(pair.teacher, text))
        seconds["chunks"] = cpu_seconds(partial(chunks, aligner, ids), 5), cpu_seconds(tokenized_by_gold, 5)
        seconds["everything else"] = cpu_seconds(partial(aligner, ids), 5), cpu_seconds(tokenized_by_gold, 5)
        for name, (atlas, other) in seconds.items():
            if repeat:
                results[name]["atlas"].append(atlas)
                results[name]["GOLD"].append(other)
    for name, sides in results.items():
        show(f"alignment, {name}, seconds", sides)
    return results


class Known:
    """An encoder that, when it is asked for the same texts again, knows their ids, and checks them as ever."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._ids: Ragged | None = None

    def encode(self, texts: Texts) -> Ragged:
        if self._ids is None:
            self._ids = self._encoder.encode(texts)
        return self._encoder._exact(self._ids, texts.texts)


def tokenized(pair: Pair, ids: list[list[int]]) -> Aligner:
    """An aligner to which both sides' ids of these texts are known."""
    aligner = Aligner(*pair.tables, pair.student, pair.teacher)
    aligner._as_student, aligner._as_teacher = Known(aligner._as_student), Known(aligner._as_teacher)
    aligner(ids)
    return aligner


def chunks(aligner: Aligner, ids: list[list[int]]) -> None:
    """The part of `Aligner.__call__` between the ids and the chunk of each token of both sides."""
    text = _Text(ids, aligner._student)
    encoded = aligner._as_teacher.encode(Texts(text.segments, aligner._pieces))
    _, teacher_end = aligner._teacher_tokens(text, encoded)
    student_chunk, teacher_chunk, _ = chunk(text.end_S, teacher_end, text.end_R)
    _rows(student_chunk, np.searchsorted(text.end_S, text.end_R, side="right"))
    _rows(teacher_chunk, np.searchsorted(teacher_end, text.end_R, side="right"))


def cpu_seconds(work: Callable[[], Any], times: int = 1) -> float:
    """The mean, without garbage collection, whose time depends on what else the process holds."""
    gc.collect()
    gc.disable()
    start = time.process_time()
    for _ in range(times):
        work()
    seconds = (time.process_time() - start) / times
    gc.enable()
    return seconds


def show(name: str, sides: dict[str, list[float]]) -> None:
    ratios = [gold / atlas for gold, atlas in zip(sides["GOLD"], sides["atlas"], strict=True)]
    print(f"  {name}: {spread(sides['atlas'])} Atlas, {spread(sides['GOLD'])} GOLD; ratio {spread(ratios)}", flush=True)


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.4g} ({min(values):.4g} to {max(values):.4g})"


def measure_loss(side: str) -> dict[str, float]:
    """Loss and gradients of the student's hidden states and head from those of both sides, for some solutions."""
    pair, text = Pair(), solutions(3)
    ids = pair.student_ids(text)
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
