"""Text of a run as it is shown: no secrets, no control characters, no more than a browser likes."""

import re

from atlas.secrets import redact
from dashboard.text import cut, visible

_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
MOST_CHARACTERS = 20_000


def words(text: str, characters: int = MOST_CHARACTERS) -> str:
    """For `st.code` and cells of tables."""
    return cut(visible(redact(_ANSI.sub("", text).replace("\r\n", "\n").replace("\r", "\n"))), characters)


def size(count: float) -> str:
    """`3.4 MB`"""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count:.0f} B"
