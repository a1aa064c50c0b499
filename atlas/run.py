"""A run directory, seen from inside the job: what the worker reads and the only place it writes to.

spec.json      in   the resolved job and where it came from
metrics.jsonl  out  append-only, one writer. A line is one JSON object:
                    {"step": 10, "clocks": {...}, "values": {"train/loss": 0.3}}   NaN is written as "NaN"
                    {"progress": {"phase": "train", "step": 10, "total": 100}}
                    {"event": "checkpoint", "message": "..."}
                    {"rewind": 40}     resumed from step 40: everything after it is computed again
samples.jsonl  out  evaluated completions, one `Sample` a line; the same `rewind` lines
splits.json    out  written once, atomically: size and sha256 of each split, the identity of the grader, and of traces
                    their card
problems.jsonl out  written once, atomically: the problems that are evaluated (dev, then test), one a line:
                    {"split": "dev", "problem_id": "1a2b", "messages": [{"role": "user", "content": "2 + 3?"}],
                     "answer": "5"}
result.json    out  written last, atomically: its presence means "finished"
"""

import fcntl
import json
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from atlas.datasets.base import Splits
from atlas.errors import RunFailed
from atlas.job import JobSpec
from atlas.private import open_private

logger = logging.getLogger(__name__)

CLOCKS = ("wall_seconds", "train_seconds", "gpu_seconds", "tokens_generated", "tokens_trained", "rollouts")
"""What every metric can be drawn over. `gpu_seconds` is train_seconds x devices; the CPU counts as one device."""


HEADLINES = ("train/loss", "train/reward", "eval/pass_rate", "eval/teacher_pass_rate", "test/pass_rate")
"""The metrics that the worker's log shows as they come, for `atlas logs -f`."""


@dataclass
class Clock:
    """Time and work so far, over all attempts of the run. `train_seconds` leaves out loading and evaluation."""

    wall_seconds: float = 0.0
    train_seconds: float = 0.0
    gpu_seconds: float = 0.0
    tokens_generated: int = 0
    tokens_trained: int = 0
    rollouts: int = 0
    devices: int = 1
    phase_seconds: dict[str, float] = field(default_factory=dict)
    """Seconds per phase since the last `take_phases`."""
    _wall_mark: float = field(default_factory=time.monotonic)
    _train_mark: float | None = None
    _phase: str | None = None

    def readings(self) -> dict[str, float]:
        """The clocks now, for one metric line."""
        self._advance()
        return {name: getattr(self, name) for name in CLOCKS}

    @contextmanager
    def training(self) -> Iterator[None]:
        """The training clock runs inside this block."""
        self._advance()
        self._train_mark = time.monotonic()
        try:
            yield
        finally:
            self._advance()
            self._train_mark = None

    @contextmanager
    def phase(self, name: str, training: bool = True) -> Iterator[None]:
        """Adds the block's time to a phase. With `training=False` the training clock stands still inside it.

        Phases never overlap: while an inner one runs, the outer one stands still.
        """
        self._advance()
        outer, self._phase = self._phase, name
        paused = self._train_mark is not None and not training
        if paused:
            self._train_mark = None
        try:
            yield
        finally:
            self._advance()
            if paused:
                self._train_mark = time.monotonic()
            self._phase = outer

    def take_phases(self) -> dict[str, float]:
        """`phase/<name>_seconds` since the last call, and starts over."""
        self._advance()
        phases, self.phase_seconds = self.phase_seconds, {}
        return {f"phase/{name}_seconds": seconds for name, seconds in phases.items()}

    def restore(self, readings: Mapping[str, float]) -> None:
        """Goes on from the clocks of a checkpoint."""
        for name in CLOCKS:
            setattr(self, name, readings[name])
        self._wall_mark = time.monotonic()

    def _advance(self) -> None:
        now = time.monotonic()
        self.wall_seconds += now - self._wall_mark
        if self._phase is not None:
            self.phase_seconds[self._phase] = self.phase_seconds.get(self._phase, 0.0) + now - self._wall_mark
        self._wall_mark = now
        if self._train_mark is not None:
            self.train_seconds += now - self._train_mark
            self.gpu_seconds += (now - self._train_mark) * self.devices
            self._train_mark = now


@dataclass(frozen=True)
class Sample:
    """One evaluated completion."""

    problem_id: str
    completion: str
    extracted: str | None
    found: bool
    correct: bool
    tokens: int
    clipped: bool
    sample: int = 0
    """0-based number among the completions of the same problem."""


class Stopped(Exception):
    """Raised by a method that saw `Run.stop_requested`, saved a checkpoint, and ended early."""


class Run:
    """The job's side of the run directory. Logging never raises and never waits for the network."""

    def __init__(self, directory: Path, rank: int = 0) -> None:
        """`rank`: of several processes that train together (`atlas.ranks`), only the first logs."""
        self.directory, self.rank = directory, rank
        self.document = json.loads((directory / "spec.json").read_text())
        self.id: str = self.document["run_id"]
        self.job = JobSpec.model_validate_json(json.dumps(self.document["job"]))
        self.clock = Clock(devices=max(1, self.job.resources.gpus or 1))
        self.stop_requested = False
        """Set by SIGTERM: checkpoint at the next step's end, then stop."""
        self.summary: dict[str, Any] = {}
        """What the method adds to result.json."""
        self.step = 0
        self.planned_step = 0
        """The step at which training is complete."""
        self._metrics, self._samples = (
            _open_for_append(directory / name if rank == 0 else Path(os.devnull))
            for name in ("metrics.jsonl", "samples.jsonl")
        )

    @property
    def checkpoints(self) -> Path:
        return self.directory / "checkpoints"

    def record_splits(self, splits: Splits) -> None:
        """Writes splits.json: size and sha256 of each split, and the identity of the grader; and problems.jsonl: what
        is asked in dev and test.

        Raises RunFailed(`bad_data`) if an earlier attempt had other problems or another grader.
        """
        found = {
            split: {"examples": len(getattr(splits, split)), "sha256": splits.fingerprint(split)}
            for split in ("train", "dev", "test")
        }
        document = {"splits": found, "grader": self.job.dataset.grader()}
        if splits.card is not None:
            document["card"] = dict(splits.card)
        path = self.directory / "splits.json"
        if path.exists():
            self._check_unchanged(json.loads(path.read_text()), document)
        elif self.rank == 0:
            self._write_whole(path.name, json.dumps(document, indent=2))
        problems = self.directory / "problems.jsonl"
        if self.rank == 0 and not problems.exists():  # also of a run that an older Atlas began
            self._write_whole(problems.name, "".join(_problem_lines(splits)))

    @staticmethod
    def _check_unchanged(before: dict[str, Any], document: dict[str, Any]) -> None:
        changed = [
            f"{split} (then {before['splits'][split]['examples']} examples, now {now['examples']})"
            for split, now in document["splits"].items()
            if now != before["splits"][split]
        ]
        if changed:
            raise RunFailed(
                "bad_data",
                f"the data has changed since this run began, in {', '.join(changed)}, so that what was measured "
                "before and after would not compare; put the data back and `atlas resume` the run, or start over with "
                "`atlas rerun`",
            )
        if document["grader"] != before["grader"]:
            raise RunFailed(
                "bad_data",
                f"answers are graded otherwise than when this run began: then {before['grader']}, now "
                f"{document['grader']}; resume the run with the Atlas that began it, or start over with `atlas rerun`",
            )

    def log(self, values: Mapping[str, float | None], step: int) -> None:
        """Appends one metric line with the clocks of now. A value that is None is left out, as is, with a line in the
        worker's log, one that is no number."""
        self.step = max(self.step, step)
        shown = {}
        for name, value in values.items():
            try:
                if value is not None:
                    shown[name] = _plain(value)
            except (TypeError, ValueError, RuntimeError, OverflowError):  # RuntimeError: a tensor of several numbers
                logger.exception("%s is no number at step %d", name, step)
        self._write(self._metrics, {"step": step, "clocks": self.clock.readings(), "values": shown})
        headlines = [f"{name} {float(shown[name]):.4g}" for name in HEADLINES if name in shown]
        if headlines:
            logger.info("step %d  %s", step, "  ".join(headlines))

    def logged(self, name: str, step: int) -> dict[str, float] | None:
        """The values of the line that logged this metric at this step, in any attempt; None if there is none, or if a
        rewind has voided it."""
        values = None
        for line in (self.directory / "metrics.jsonl").read_text().splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue  # torn by a kill
            if record.get("rewind", step) < step:
                values = None
            elif record.get("step") == step and name in record["values"]:
                values = record["values"]
        return values

    def log_samples(self, samples: Sequence[Sample], step: int, split: str) -> None:
        """Appends evaluated completions."""
        for sample in samples:
            self._write(self._samples, {"step": step, "split": split, **asdict(sample)})

    def progress(self, phase: str, step: int | None = None, total: int | None = None) -> None:
        """Says what the job is doing, for the live display. The total of phase `train` is the planned step."""
        if phase == "train" and total is not None:
            self.planned_step = total
        self._write(self._metrics, {"progress": {"phase": phase, "step": step, "total": total}})

    def event(self, kind: str, message: str) -> None:
        """Records something worth knowing afterwards, such as a checkpoint that was passed over."""
        self._write(self._metrics, {"event": kind, "message": message})

    def rewind(self, step: int) -> None:
        """Declares everything logged after `step` void, because it is about to be computed again; -1 voids all."""
        self.step = max(step, 0)
        for stream in (self._metrics, self._samples):
            self._write(stream, {"rewind": step})

    def flush(self) -> None:
        """Puts everything logged so far on the disk: call before a checkpoint."""
        for stream in (self._metrics, self._samples) if self.rank == 0 else ():
            try:
                os.fsync(stream.fileno())
            except OSError:
                logger.exception("could not flush %s", stream.name)

    def finish(self, state: str, **result: Any) -> None:
        """Writes result.json atomically. A process that is not the first says only why it failed, in
        `rank-<rank>.json`."""
        if self.rank and state != "failed":
            return
        self.flush()
        document = {"state": state, "step": self.step, "clocks": self.clock.readings(), **result}
        document["summary"] = self.summary
        name = f"rank-{self.rank}.json" if self.rank else "result.json"
        self._write_whole(name, json.dumps(document, indent=2, default=str))

    def _write_whole(self, name: str, text: str) -> None:
        temporary = self.directory / f"{name}.part"
        with open_private(temporary, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.directory / name)

    def _write(self, stream: IO[str], record: dict[str, Any]) -> None:
        try:
            stream.write(json.dumps(record, ensure_ascii=True) + "\n")
            stream.flush()
        except (OSError, ValueError, TypeError):
            logger.exception("could not write to %s", stream.name)


def is_working(run_dir: Path) -> bool:
    """Whether some worker process holds this run directory, on this machine."""
    try:
        with open(run_dir / "worker.lock", "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _problem_lines(splits: Splits) -> Iterator[str]:
    for split in ("dev", "test"):
        for example in getattr(splits, split):
            problem = {"problem_id": example.id, "messages": example.messages, "answer": example.answer}
            yield json.dumps({"split": split, **problem}) + "\n"


def _plain(value: float) -> float | str:
    """JSON has no NaN and no infinity; the store reads these words back."""
    value = float(value)
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _open_for_append(path: Path) -> IO[str]:
    """Opens for appending; a torn last line of a killed worker is closed off, so that it spoils only itself."""
    torn = path.exists() and not _ends_with_newline(path)
    stream = open_private(path, "a")
    if torn:
        stream.write("\n")
        stream.flush()
    return stream


def _ends_with_newline(path: Path) -> bool:
    """Whether the file is empty or its last line is whole."""
    with open(path, "rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"
