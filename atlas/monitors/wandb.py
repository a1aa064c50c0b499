"""Streams a run's metrics to Weights & Biases from a process of its own: python -m atlas.monitors.wandb RUN_DIR.

Every value of metrics.jsonl becomes the W&B value of the same name, over the metric `step`; the clocks are
`clock/<name>`. W&B's own step counts the rows sent. It follows from the file alone, so that after a restart W&B's
server says how many rows it has and the rest is sent: none twice, none lost.

RUN_DIR/wandb.json says how far it got: `step`, `mode`, `url`, `offset_bytes` (of metrics.jsonl), and a `note` in words.
"""

import fcntl
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from atlas.network import has_key, host_url, why_unreachable
from atlas.private import only_owner, open_private
from atlas.provenance import without_secrets
from atlas.run import is_working

logger = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_RETRY_SECONDS = 30.0
_UPLOAD_ATTEMPTS = 1440
"""W&B waits up to a minute between attempts, so an outage of a day is survived; `wandb sync` mends a longer one."""


def start(run_dir: Path) -> "subprocess.Popen[bytes] | None":
    """Starts streaming this run and returns at once; None if not even a process could be started. Never raises."""
    try:
        with open(run_dir / "wandb.log", "ab", opener=only_owner) as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "atlas.monitors.wandb", str(run_dir)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
                start_new_session=True,
            )
    except OSError:
        logger.exception("could not start the W&B streamer; training goes on without it")
        return None


def stop(process: "subprocess.Popen[bytes] | None", timeout_seconds: float) -> None:
    """Call after result.json is written: waits at most this long for the rest to be sent, then lets the process go on
    by itself. It ends when all is sent."""
    if process is None:
        return
    try:
        process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        logger.warning("W&B has not got everything yet; process %d goes on sending", process.pid)


@dataclass
class Status:
    """The content of wandb.json."""

    mode: Literal["online", "offline", "disabled"]
    note: str | None
    url: str | None = None
    step: int | None = None
    offset_bytes: int = 0

    def save(self, run_dir: Path) -> None:
        temporary = run_dir / "wandb.json.part"
        with open_private(temporary, "w") as file:
            json.dump(asdict(self), file)
        temporary.replace(run_dir / "wandb.json")


def send(run_dir: Path, wait: Callable[[float], None] = time.sleep) -> bool:
    """Sends the run's metrics until the run has ended; returns whether W&B or its offline files have all of them.

    `wait` takes seconds. W&B being away delays this, or makes it write offline files: `note` in wandb.json says which.
    """
    document = json.loads((run_dir / "spec.json").read_text())
    asked = document["job"]["wandb"]["mode"]
    status = _choose_mode(run_dir, asked)
    while True:
        status.save(run_dir)
        logger.info("%s", status.note or status.mode)
        if status.mode == "disabled":
            return True
        reason = why_unreachable(host_url()) if status.mode == "online" else None
        try:
            if reason is None:
                _stream(run_dir, document, status, wait)
                return True
        except Exception as error:  # whatever W&B raises, it is no reason to lose what it was given
            logger.exception("W&B failed")
            reason = without_secrets(f"{type(error).__name__}: {error}")
            _tear_down()
        if status.mode == "offline":
            Status("offline", f"W&B has nothing of this run: {reason}").save(run_dir)
            return False
        if asked == "auto" or _ended(run_dir):
            status = _offline(run_dir, f"{host_url()}: {reason}")
        else:
            status = Status("online", f"waiting for {host_url()}: {reason}")
            wait(_RETRY_SECONDS)


def follow(path: Path, ended: Callable[[], bool], wait: Callable[[], None]) -> Iterator[tuple[dict[str, Any], int]]:
    """Each whole line of a growing JSON Lines file with the offset in bytes after it, until it has ended.

    `wait` is called whenever there is nothing to read. A line that is not JSON (torn by a kill) is passed over.
    """
    offset = 0
    while True:
        last_look = ended()  # asked before reading: what is written in between is read too
        if path.exists():
            with open(path, "rb") as file:
                file.seek(offset)
                while (line := file.readline()).endswith(b"\n"):
                    offset += len(line)
                    try:
                        yield json.loads(line), offset
                    except ValueError:
                        logger.warning("passed over a torn line that ends at byte %d of %s", offset, path)
        if last_look:
            return
        wait()


class Rows:
    """Turns metric lines into W&B rows, each value once: what a resumed run computes again is not sent again."""

    def __init__(self) -> None:
        self._sent: dict[int, frozenset[str]] = {}
        self._shared: dict[frozenset[str], frozenset[str]] = {}

    def row(self, record: Mapping[str, Any]) -> dict[str, float] | None:
        """The row of one line of metrics.jsonl; None if it has nothing new to show."""
        if "values" not in record:
            return None
        step, sent = record["step"], self._sent.get(record["step"], frozenset())
        new = {name: float(value) for name, value in record["values"].items() if name not in sent}
        if not new:
            return None
        names = sent.union(new)
        self._sent[step] = self._shared.setdefault(names, names)  # most steps have the same names: keep them once
        return {"step": step, **new, **{f"clock/{name}": value for name, value in record["clocks"].items()}}


def _choose_mode(run_dir: Path, asked: str) -> Status:
    wanted = os.environ.get("WANDB_MODE", "").lower()
    if asked == "auto" and wanted == "disabled":
        return Status("disabled", "W&B is disabled by WANDB_MODE")
    if asked == "auto" and wanted in ("offline", "dryrun"):
        return _offline(run_dir, "WANDB_MODE says so")
    if asked == "offline":
        return _offline(run_dir, "the job says so")
    if not has_key():
        return _offline(run_dir, f"no API key for {host_url()} (WANDB_API_KEY or `wandb login`)")
    return Status("online", None)


def _offline(run_dir: Path, reason: str) -> Status:
    return Status("offline", f"offline: {reason}; send it later with `wandb sync {run_dir}/wandb/offline-run-*`")


def _stream(run_dir: Path, document: dict[str, Any], status: Status, wait: Callable[[float], None]) -> None:
    assert status.mode != "disabled"
    run = _begin(run_dir, document, status.mode)
    online = status.mode == "online"
    status.url = run.url if online else None
    # Offline files of an attempt that was killed lack its end: each segment is whole, and syncing two changes nothing.
    already_there = run.starting_step if online else 0
    rows, number = Rows(), 0

    def rest() -> None:
        status.save(run_dir)
        wait(_POLL_SECONDS)

    for record, offset in follow(run_dir / "metrics.jsonl", lambda: _ended(run_dir), rest):
        row = rows.row(record)
        status.offset_bytes = offset
        if row is None:
            continue
        if number >= already_there:
            run.log(row, step=number)
        status.step = max(status.step or 0, record["step"])
        number += 1
    run.finish(exit_code=0 if _succeeded(run_dir) else 1)
    status.save(run_dir)


def _begin(run_dir: Path, document: dict[str, Any], mode: Literal["online", "offline"]) -> Any:
    import wandb

    job = document["job"]
    run = wandb.init(
        id=document["run_id"],
        resume="allow",
        mode=mode,
        project=job["wandb"]["project"],
        entity=job["wandb"]["entity"],
        name=job["name"],
        job_type=job["method"]["type"],
        notes=job["notes"],
        tags=[tag[:64] for tag in job["tags"] if tag],  # W&B refuses longer ones; the config has them whole
        config=job | {"atlas_version": document["atlas_version"], "git": document["git"]},
        dir=str(run_dir),
        # Nothing of this process is W&B's business: its output, arguments, code and machine may hold secrets.
        settings=wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            save_code=False,
            silent=True,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
            x_file_stream_retry_max=_UPLOAD_ATTEMPTS,
        ),
    )
    run.define_metric("step")
    run.define_metric("*", step_metric="step")
    return run


def _tear_down() -> None:
    """Ends what is left of a failed attempt, so that the next one starts afresh."""
    try:
        import wandb

        wandb.teardown()
    except Exception:
        logger.exception("W&B could not be torn down")


def _ended(run_dir: Path) -> bool:
    """Whether nothing more will be written: there is a result, or no worker holds the directory."""
    return (run_dir / "result.json").exists() or not is_working(run_dir)


def _succeeded(run_dir: Path) -> bool:
    try:
        return bool(json.loads((run_dir / "result.json").read_text())["state"] == "succeeded")
    except FileNotFoundError:
        return False


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python -m atlas.monitors.wandb RUN_DIR")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    os.umask(0o077)  # W&B would leave its files readable to all
    os.nice(10)
    run_dir = Path(sys.argv[1]).resolve()
    with open(run_dir / "wandb.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the streamer of an earlier attempt may still be sending
        sys.exit(0 if send(run_dir) else 1)


if __name__ == "__main__":
    main()
