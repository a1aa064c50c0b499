"""python -m atlas.ray_node RUN_DIR/ID: what a node of a Ray cluster runs to start the worker and watch over it.

Two files carry what Ray cannot. RUN_DIR/ID.ticket is a job's leave to begin, and the key to what it is told: whoever
moves it away first, the node or a host that cancels, has decided. RUN_DIR/ID.lease takes its place while the worker
runs; without it, the node kills the worker. RUN_DIR/ID is the handle of the executor.
"""

import base64
import getpass
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import psutil

from atlas import __version__
from atlas.executors.base import GPUS
from atlas.private import only_owner

SEALED, VERSION = "ATLAS_SEALED", "ATLAS_VERSION"
"""What a job is told, encrypted; and the version of Atlas that told it. All of it can be read in Ray's dashboard."""
REFUSED = 78
"""Exit code of a node where the worker cannot be started."""
_LOOK_SECONDS = 0.5


def seal(handle: str, told: Mapping[str, Any]) -> str:
    """Writes a ticket and returns what only its holder can read. Each of the two alone is noise."""
    content = json.dumps(told).encode()
    key = secrets.token_bytes(len(content))
    with open(_ticket(handle), "xb", opener=only_owner) as file:
        file.write(key)
    return base64.b64encode(_xor(content, key)).decode()


def may_start(handle: str) -> bool:
    """Whether the job has neither begun nor been withdrawn."""
    return _ticket(handle).exists()


def withdraw(handle: str) -> bool:
    """Takes the leave to begin away. False if the job has begun, or had it no more."""
    return _remove(_ticket(handle))


def stop(handle: str) -> None:
    """Lets the node ask the worker and all that it started to stop, for when Ray cannot be told to."""
    with suppress(FileNotFoundError), open(_lease(handle), "r+") as lease:
        lease.write("stop")


def kill(handle: str) -> None:
    """Lets the node kill the worker and all that it started."""
    _remove(_lease(handle))


def has_begun(handle: str) -> bool:
    """Whether the newest worker of the run directory is this one."""
    try:
        document = json.loads((Path(handle).parent / "worker.json").read_text())
    except (FileNotFoundError, ValueError):
        return False
    return bool(document["handle"] == handle)


def _start(handle: str) -> int:
    """Runs the worker to its end and returns its exit code."""
    told = _redeem(handle)
    run_dir = Path(handle).parent
    before: list[int] = []
    # Ray sends SIGTERM to the worker too, if there is one yet. A handler, and not SIG_IGN, which it would inherit.
    signal.signal(signal.SIGTERM, lambda signum, frame: before.append(signum))
    with open(run_dir / "worker.log", "ab", opener=only_owner) as log:
        worker = subprocess.Popen(
            [sys.executable, "-P", "-m", "atlas.worker", str(run_dir)],
            cwd=run_dir,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **told["env"], **_devices(told["gpus"])},
        )
    if before:
        worker.terminate()
    try:
        return _watch(handle, worker)
    finally:
        _remove(_lease(handle))
        _kill_group()


def _watch(handle: str, worker: "subprocess.Popen[bytes]") -> int:
    while True:
        try:
            code = worker.wait(_LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            _keep(handle)
        else:
            return code if code >= 0 else 128 - code


def _keep(handle: str) -> None:
    """Changes the lease before reading it: network file systems remember what they saw. Other errors pass."""
    try:
        os.utime(_lease(handle))
        if _lease(handle).read_bytes():
            os.truncate(_lease(handle), 0)
            os.killpg(os.getpgrp(), signal.SIGTERM)
    except FileNotFoundError:
        _kill_group()
    except OSError:
        return


def _kill_group() -> None:
    """The worker and all that it started and left behind. Ray gives each job a process group of its own."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if process.pid != os.getpid() and os.getpgid(process.pid) == os.getpgrp():
                process.kill()


def _redeem(handle: str) -> dict[str, Any]:
    """Uses the ticket. Refuses in another directory, with another version of Atlas, and once it was withdrawn."""
    asked = os.environ.pop(VERSION, "none")
    if asked != __version__:
        _refuse(f"its Atlas ({sys.executable}) has version {__version__}, the run needs {asked}")
    run_dir = Path(handle).parent
    try:
        run_id = json.loads((run_dir / "spec.json").read_text())["run_id"]
    except (OSError, ValueError, KeyError) as error:
        _refuse(f"{getpass.getuser()} cannot read the run directory {run_dir} ({error}); share its path with all nodes")
    try:
        key = _ticket(handle).read_bytes()
        _ticket(handle).rename(_lease(handle))
        os.truncate(_lease(handle), 0)
    except FileNotFoundError:
        _refuse(
            f"{_ticket(handle)} is not there: the job was cancelled, or {run_dir} is not the one that it was sent from"
        )
    except OSError as error:
        _refuse(f"{getpass.getuser()} cannot write to the run directory {run_dir} ({error})")
    told: dict[str, Any] = json.loads(_xor(base64.b64decode(os.environ.pop(SEALED)), key))
    if told["run_id"] != run_id:
        _refuse(f"{run_dir} is the directory of run {run_id}, not of {told['run_id']}")
    return told


def _devices(gpus: int) -> dict[str, str]:
    """The GPUs that Ray gave. Where it was asked for none, it hides none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "") if gpus else ""
    numbered = all(device.isdecimal() for device in visible.split(","))
    return {"CUDA_VISIBLE_DEVICES": visible, GPUS: visible if numbered else ""}


def _refuse(why: str) -> NoReturn:
    """Ray keeps what a job prints, and the host reads it there: there may be no run directory to write to."""
    print(f"on {socket.gethostname()}, {why}", file=sys.stderr)
    sys.exit(REFUSED)


def _ticket(handle: str) -> Path:
    return Path(f"{handle}.ticket")


def _lease(handle: str) -> Path:
    return Path(f"{handle}.lease")


def _remove(file: Path) -> bool:
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    return True


def _xor(content: bytes, key: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(content, key, strict=True))


if __name__ == "__main__":
    sys.exit(_start(sys.argv[1]))
