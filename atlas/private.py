"""Files that only their owner can read: what Atlas writes may hold what a job was told in confidence."""

import os
from pathlib import Path
from typing import IO


def open_private(path: Path, mode: str) -> IO[str]:
    """Opens a text file, created with mode 0600."""
    return open(path, mode, encoding="utf-8", opener=only_owner)


def only_owner(path: str, flags: int) -> int:
    """The `opener` of `open` for files of mode 0600."""
    return os.open(path, flags, 0o600)
