"""How arms and runs are told apart: a colour, and a dash as the second channel."""

from atlas.report.chart import COLOURS

DASHES: tuple[list[int], ...] = ([], [6, 3], [2, 2], [8, 3, 2, 3], [4, 4], [1, 3])
"""Of the lines, in the order of the colours; with more lines than colours the pairs still differ."""
INK = "#767676"
"""Of lines that stand for no arm: as far from white as from black."""


def colour(number: int) -> str:
    """Of the arm with this number."""
    return COLOURS[number % len(COLOURS)]


def dash(number: int) -> list[int]:
    """Of the arm with this number: shifted by one with each round of colours."""
    return DASHES[(number + number // len(COLOURS)) % len(DASHES)]
