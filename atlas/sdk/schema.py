"""What writer and reader of traces must agree on. The lines themselves are described in `atlas.traces.records`."""

from typing import Literal

VERSION: Literal[1] = 1
"""Version of the line schema."""
