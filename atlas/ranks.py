"""The processes that train one model together, each with a GPU of its own: started and watched by the worker.

The worker stays what host and executor know: it holds the lock, is told to stop, and sees that all end together. It
starts them as torchrun would, except that torchrun puts each into a session of its own, so that they keep their GPUs
when the worker's process group is killed, and leaves them 30 seconds to stop.
"""

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

RANK, RENDEZVOUS = "ATLAS_RANK", "ATLAS_RENDEZVOUS"
"""Variables of these processes: `rank/size`, and the file through which they find each other."""
_POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 20.0
"""How long the others may take to end by themselves, with a reason, when one has failed."""


def place() -> tuple[int, int]:
    """Rank and number of the processes that this one belongs to; (0, 1) for one alone."""
    rank, _, size = os.environ.get(RANK, "0/1").partition("/")
    return int(rank), int(size)


def supervise(command: Sequence[str], size: int, stop_requested: Callable[[], bool]) -> tuple[list[int], int | None]:
    """Runs `size` processes of a command to their end. Returns their exit codes, and which was seen to fail first while
    the first process still ran.

    When `stop_requested`, the first is told (TERM) and speaks for all. When one has failed, the others are soon killed:
    they would wait for it for ever. When this process dies, all of them end, whatever killed it.
    """
    with tempfile.TemporaryDirectory(prefix="atlas-") as folder:
        ranks = [_start(command, rank, size, Path(folder) / "rendezvous") for rank in range(size)]
        told, culprit, patience_seconds = False, None, _PATIENCE_SECONDS
        try:
            while None in [process.poll() for process in ranks] and patience_seconds > 0:
                if stop_requested() and not told:
                    ranks[0].send_signal(signal.SIGTERM)
                    told = True
                failed = [rank for rank, process in enumerate(ranks) if process.returncode]
                if failed:
                    patience_seconds -= _POLL_SECONDS
                    culprit = failed[0] if culprit is None and ranks[0].returncode is None else culprit
                time.sleep(_POLL_SECONDS)
        finally:
            for process in ranks:
                process.kill()
        return [process.wait() for process in ranks], culprit


def end_with_parent() -> None:
    """For such a process: ends it as soon as its worker is gone, which holds the other end of its standard input."""

    def wait() -> None:
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _start(command: Sequence[str], rank: int, size: int, rendezvous: Path) -> subprocess.Popen[bytes]:
    given = {RANK: f"{rank}/{size}", RENDEZVOUS: str(rendezvous)}
    visible = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    if visible:
        assert len(visible) == size, (visible, size)
        given["CUDA_VISIBLE_DEVICES"] = visible[rank]
    elif "CUDA_VISIBLE_DEVICES" not in os.environ:  # a container shows the GPUs that it was given, and only those
        given["CUDA_VISIBLE_DEVICES"] = str(rank)
    return subprocess.Popen(command, stdin=subprocess.PIPE, env=os.environ | given)
