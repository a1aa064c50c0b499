"""`atlas alignment`: completions in the tokens of student and teacher, chunk by chunk, in a terminal."""

import json
import math
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atlas.cli.options import Json, RunReference
from atlas.errors import NotFoundError

if TYPE_CHECKING:
    from atlas.store.aligned import AlignedCompletion, Chunk

_WIDTH = 100
"""Of a line where nobody reads it in a terminal."""
_LABELS = ("student", "teacher", "nats")
_LITTLE = 0.01
"""Nats of a chunk that are not written out."""
_SPACES = str.maketrans({" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"})


def alignment(
    reference: RunReference,
    step: Annotated[int | None, typer.Option(min=1, help="One of the kept steps. Default: the newest.")] = None,
    as_json: Json = False,
) -> None:
    """Show completions of a distillation across tokenizers: the student's tokens over the teacher's, chunk by chunk."""
    from atlas.cli.stores import settled_store
    from atlas.store.aligned import FILE, aligned_completions, aligned_steps

    run = settled_store().run(reference)
    kept = aligned_steps(Path(run.run_dir))
    if not kept:
        raise NotFoundError(
            f"{run.id} has no completions in {Path(run.run_dir) / FILE}: only gkd from a teacher that tokenizes "
            "otherwise keeps them, from its first step on"
        )
    if step is not None and step not in kept:
        raise NotFoundError(f"{run.id} kept no completions of step {step}; it has {', '.join(map(str, sorted(kept)))}")
    completions = aligned_completions(Path(run.run_dir), max(kept) if step is None else step)
    if as_json:
        typer.echo(json.dumps([_document(completion) for completion in completions], indent=2))
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDTH
    for number, completion in enumerate(completions, 1):
        typer.echo(
            f"{run.id}, step {completion.step}, sample {number}: mean divergence {completion.mean:.3g} nats a chunk"
        )
        for line in _lines(completion, width):
            typer.echo(line)
    steps = ", ".join(map(str, sorted(kept)))
    typer.echo(f"a column is a chunk; .: below {_LITTLE} nats; ( ): in no chunk, not learnt from; kept steps: {steps}")


def _lines(completion: "AlignedCompletion", width: int) -> Iterator[str]:
    """Three lines for as many chunks as fit, then an empty one; a chunk that ends a line of the text ends these too."""
    from rich.cells import cell_len

    label = max(map(len, _LABELS))
    taken = label
    columns: list[tuple[str, ...]] = []
    for chunk in completion.chunks():
        cells = _cells(chunk)
        wide = 1 + max(map(cell_len, cells))
        if columns and taken + wide > width:
            yield from _rows(columns, label)
            columns, taken = [], label
        columns.append(cells)
        taken += wide
        if any("\n" in text for text in chunk.student):
            yield from _rows(columns, label)
            columns, taken = [], label
    if columns:
        yield from _rows(columns, label)


def _rows(columns: Sequence[tuple[str, ...]], label: int) -> Iterator[str]:
    from rich.cells import cell_len, set_cell_size

    widths = [max(map(cell_len, cells)) for cells in columns]
    for row, name in enumerate(_LABELS):
        cells = (set_cell_size(cells[row], width) for cells, width in zip(columns, widths, strict=True))
        yield f"{name:<{label}} {' '.join(cells)}".rstrip()
    yield ""


def _cells(chunk: "Chunk") -> tuple[str, str, str]:
    """The student's tokens, the teacher's, the divergence."""
    sides = ["|".join(_visible(text) for text in tokens) for tokens in (chunk.student, chunk.teacher)]
    if chunk.number is None:
        return f"({sides[0]})", f"({sides[1]})", ""
    return sides[0], sides[1], _nats(chunk.divergence)


def _nats(divergence: float | None) -> str:
    if divergence is None:
        return "?"
    return "." if abs(divergence) < _LITTLE else f"{divergence:.2f}"


def _visible(text: str) -> str:
    from atlas.cli.tables import printable

    return printable(text.translate(_SPACES))


def _document(completion: "AlignedCompletion") -> dict[str, Any]:
    return {
        "step": completion.step,
        "prompt": completion.prompt,
        "chunks": [
            {
                "chunk": chunk.number,
                "student": list(chunk.student),
                "teacher": list(chunk.teacher),
                "divergence": _plain(chunk.divergence),
            }
            for chunk in completion.chunks()
        ],
    }


def _plain(value: float | None) -> float | str | None:
    """JSON has no NaN and no infinity."""
    return value if value is None or math.isfinite(value) else str(value)
