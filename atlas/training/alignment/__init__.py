"""Two tokenizers on one text: which tokens of the one stand for the same bytes as which tokens of the other."""

from atlas.training.alignment.align import Alignment, align

__all__ = ["Alignment", "align"]
