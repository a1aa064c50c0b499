"""How the C library gives memory back."""

import ctypes
import sys

_M_MMAP_THRESHOLD = -3
"""Of glibc's malloc.h."""
_BYTES = 4 * 2**20


def return_large_blocks() -> None:
    """Has glibc return every block of some megabytes to the system when it is freed.

    By itself it raises that bound to 32 MB after the first such block, and the gradients then lie scattered between
    freed activations, in holes that nothing else fits into: 0.2 GB of a 135M model's step on a CPU, and returning
    blocks takes no measurable time. Nothing changes where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _BYTES)
