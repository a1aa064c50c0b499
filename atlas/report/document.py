"""What a report is made of, before it is HTML or Markdown.

Text is plain: the templates escape all of it. Only a `Figure` holds markup, and only what `atlas.report.chart` drew.
"""

from collections.abc import Sequence
from dataclasses import dataclass

_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Missing:
    """A number that was not measured, and why: shown as a dash with a footnote."""

    reason: str


Cell = str | Missing


@dataclass(frozen=True)
class Paragraph:
    text: str
    tone: str = "plain"
    """`plain`, `muted` (how a number is computed), `verdict`, `warning`."""
    kind: str = "paragraph"


@dataclass(frozen=True)
class Bullets:
    items: tuple[str, ...]
    tone: str = "plain"
    kind: str = "bullets"


@dataclass(frozen=True)
class Table:
    """Use `table`, which turns missing numbers into footnotes."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    labels: int
    """How many columns from the left are words; the others are numbers, aligned to the right."""
    footnotes: tuple[str, ...]
    kind: str = "table"


@dataclass(frozen=True)
class Figure:
    """A chart, and the same in words for those who cannot see it."""

    svg: str
    alt: str
    kind: str = "figure"


@dataclass(frozen=True)
class Code:
    """Text whose lines are kept: a file, a command, what a model wrote."""

    text: str
    kind: str = "code"


@dataclass(frozen=True)
class Details:
    """Blocks that are folded away at first."""

    summary: str
    blocks: "tuple[Block, ...]"
    kind: str = "details"


Block = Paragraph | Bullets | Table | Figure | Code | Details


@dataclass(frozen=True)
class Section:
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    title: str
    subtitle: str
    sections: tuple[Section, ...]


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], labels: int = 1) -> Table:
    """A table in which each missing number is a dash with the number of its footnote; equal reasons share one."""
    reasons: list[str] = []

    def shown(cell: Cell) -> str:
        if isinstance(cell, str):
            return cell
        if cell.reason not in reasons:
            reasons.append(cell.reason)
        return f"–{_superscript(reasons.index(cell.reason) + 1)}"

    shown_rows = tuple(tuple(shown(cell) for cell in row) for row in rows)
    assert all(len(row) == len(columns) for row in shown_rows)
    footnotes = tuple(f"{_superscript(number)} {reason}" for number, reason in enumerate(reasons, 1))
    return Table(tuple(columns), shown_rows, labels, footnotes)


def _superscript(number: int) -> str:
    return str(number).translate(_SUPERSCRIPTS)
