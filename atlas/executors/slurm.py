"""A Slurm cluster: Slurm finds the node and the GPUs, Atlas keeps the record.

A job of Slurm is one attempt of a run, and may be started more than once: when its node fails, or a more urgent job
takes its place, Slurm runs the same script again, and the worker goes on from its last checkpoint. It is the same claim
with the same handle, so Slurm's job is alive until its last start has ended. What Atlas starts again by itself (a
worker that stopped in time, before its time limit) is a new job of Slurm.
"""

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from atlas.errors import ExecutorError
from atlas.executors.base import CPUS, GPUS, HANDLE, Executor
from atlas.private import only_owner, open_private

SCRIPT = "slurm.sh"
"""In the run directory: what Slurm runs on the node."""
_TIMEOUT_SECONDS = 60
"""Of a call. A controller that is there answers within milliseconds, a busy one within seconds."""
_NOTICE_SECONDS = 120
"""Before its time limit the worker is asked to stop: the scheduler's GRACE_SECONDS."""
_LISTED_SECONDS = 5.0
"""How long a list of all jobs that run or wait is good for: however many runs there are, and however often they are
looked after, the controller is asked as seldom as its administrators ask for."""
_UNKNOWN = "invalid job id"
_NEVER = {
    "PartitionConfig",
    "PartitionNodeLimit",
    "PartitionTimeLimit",
    "BadConstraints",
    "AccountNotAllowed",
    "InvalidAccount",
    "InvalidQOS",
    "QOSNotAllowed",
}
"""Slurm's reasons for a job to wait that pass only if the cluster's settings change. So do limits `PerJob`. Nodes that
are down or busy, reservations, and limits of how much one may use at a time do pass."""
_CAUSES = {
    "NODE_FAIL": ("killed", "its node failed"),
    "BOOT_FAIL": ("launch_failed", "its node could not be booted"),
    "OUT_OF_MEMORY": ("out_of_memory", "it used more memory than was asked for; add `--mem=...` to executor.options"),
    "TIMEOUT": ("killed", "it reached its time limit before it had stopped; raise executor.time_limit_minutes"),
    "DEADLINE": ("killed", "it reached its deadline"),
    "PREEMPTED": ("killed", "a more urgent job took its place"),
    "CANCELLED": ("killed", "somebody cancelled it with scancel"),
    "0:53": (
        "launch_failed",
        "Slurm could not open {folder}/worker.log there; put ATLAS_HOME on a file system that the nodes share and "
        "where you may write",
    ),
    "127:0": ("launch_failed", "{python} is not there; install Atlas at the same path on every node"),
}
"""State of an ended job, or its exit code and signal -> one of `errors.REASONS`, and what that means."""
_TEMPLATE = """#!/bin/sh
# Slurm runs this on the node that it chose, and again after the node failed or a more urgent job took its place.
python={python}
export {handle}="$SLURM_JOB_ID:$SLURM_JOB_NAME" {gpus}= {cpus}= CUDA_DEVICE_ORDER=PCI_BUS_ID
{environment}
if [ -n "$SLURM_RESTART_COUNT" ] && [ -e result.json ]; then
    # It had ended before, unless it only stopped to go on later.
    grep -q '^  "state": "stopped"' result.json || exit 0
    mv result.json "result.before-restart-$SLURM_RESTART_COUNT.json"
fi
if [ ! -x "$python" ]; then
    echo "$(hostname) has no $python: install Atlas at the same path on every node" >&2
    exit 127
fi
exec "$python" -P -m atlas.worker {run_dir}
"""

_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]
_Option = Annotated[
    str,
    Field(
        pattern=r"^--(begin|constraint|exclude|exclusive|licenses|mail-type|mail-user|mem|mem-per-cpu|mem-per-gpu|nice"
        r"|no-requeue|nodelist|qos|reservation|tmp)(=\S+)?$"
    ),
]


_FIELDS = "%T|%r|%P|%C|%b|%l"


class _Queued(NamedTuple):
    """_FIELDS of a job that runs or waits."""

    state: str
    reason: str
    partition: str
    cpus: str
    gpus: str
    time_limit: str

    def asked(self) -> str:
        gpus = "no GPUs" if self.gpus == "N/A" else self.gpus.removeprefix("gres:")
        return f"{self.cpus} CPUs, {gpus}, {self.time_limit.lower()} time in {self.partition}"


_listing: dict[float, dict[str, _Queued]] = {}
"""When the list was made -> handle -> job; at most one."""


class SlurmExecutor(Executor):
    """Runs the job on a node of a Slurm cluster, submitted from here, a machine with `sbatch`. The nodes must see the
    run directory and this Python at the paths that they have here. `resources.gpus` and `resources.cpus` are asked of
    the cluster; without `gpus`, one GPU if it has any. The job gets the environment of whoever starts it, which Slurm
    keeps until the job has ended, where only its administrators can read it."""

    places_itself: ClassVar[bool] = True

    type: Literal["slurm"] = "slurm"
    partition: _Name | None = None
    """Where to queue. Default: SBATCH_PARTITION, or the cluster's default partition."""
    account: _Name | None = None
    """Whom to charge. Default: SBATCH_ACCOUNT, or your default account."""
    gpu_type: _Name | None = None
    """Kind of GPU, as the cluster calls it, such as `a100`. Default: any."""
    time_limit_minutes: int | None = Field(None, ge=5)
    """Time limit of one job of Slurm. A worker that reaches it saves a checkpoint and goes on in a new one. Default:
    the partition's."""
    options: list[_Option] = Field(default_factory=list)
    """More options of `sbatch`, such as `--mem=64G`, `--qos=high`, `--constraint=a100` or `--no-requeue`."""

    def check(self) -> None:
        if shutil.which("sbatch") is None:
            raise ExecutorError("there is no sbatch here; submit on a login node of the Slurm cluster")
        there = self._ask("sinfo", "--noheader", "--format=%R").split()
        if self.partition is not None and self.partition not in there:
            raise ExecutorError(
                f"the cluster has no partition {self.partition}; set executor.partition to one of {', '.join(there)}"
            )

    def command(
        self, run_dir: Path, document: Mapping[str, Any], gpus: Sequence[int], cpus: Sequence[int]
    ) -> list[str]:
        """Options and not `#SBATCH` lines: those yield to SBATCH_* variables that happen to be set. Asks the cluster
        whether it has GPUs if the job leaves that open."""
        wanted, cores = self._resources(document)
        kind = f"gpu:{self.gpu_type}" if self.gpu_type else "gpu"
        options = {
            "--job-name": _name(run_dir),
            "--chdir": run_dir,
            "--output": "worker.log",
            "--open-mode": "append",
            "--export": "ALL",
            "--signal": f"B:TERM@{_NOTICE_SECONDS}",
            "--nodes": 1,
            "--ntasks": 1,
            "--cpus-per-task": cores,
            "--gres": f"{kind}:{wanted}" if wanted else None,
            "--partition": self.partition,
            "--account": self.account,
            "--time": self.time_limit_minutes,
        }
        given = [f"{option}={value}" for option, value in options.items() if value is not None]
        return ["sbatch", "--parsable", "--requeue", *given, *self.options, str(run_dir / SCRIPT)]

    def launch(self, run_dir: Path, gpus: Sequence[int], cpus: Sequence[int]) -> str:
        """The handle is the job's id and its name: ids are given out again by a cluster that has lost its state."""
        try:
            document = json.loads((run_dir / "spec.json").read_text())
            with open(run_dir / "worker.log", "ab", opener=only_owner):
                pass  # who creates it decides who may read it
            with open_private(run_dir / SCRIPT, "w") as file:
                file.write(_script(run_dir, *self._resources(document)))
        except OSError as error:
            raise ExecutorError(f"could not start a worker in {run_dir}: {error}") from error
        command = self.command(run_dir, document, gpus, cpus)
        try:
            job = self._ask(*command).split()[-1].split(";")[0]
        except ExecutorError as error:
            wanted, cores = self._resources(document)
            asked = f"{wanted} GPU, {cores or 'its default of'} CPUs"
            raise ExecutorError(f"{error}; asked for {asked}; there is {self._there(self.partition)}") from error
        (name,) = [part.partition("=")[2] for part in command if part.startswith("--job-name=")]
        return f"{job}:{name}"

    def alive(self, handle: str) -> bool:
        """Also while it waits, for its first start or for another one, and for a few seconds after its end. Raises
        ExecutorError if the controller does not answer."""
        return self._listed(handle) is not None

    def overdue(self, handle: str, waited_seconds: float) -> str | None:
        """However long the queue is, only a request that can never be satisfied is given up."""
        queued = self._listed(handle)
        if queued is None or queued.state != "PENDING":
            return None
        if queued.reason not in _NEVER and "PerJob" not in queued.reason:
            return None
        return (
            f"Slurm would never start it ({queued.reason}): asked for {queued.asked()}; there is "
            f"{self._there(queued.partition)}; ask for less, or set executor.partition"
        )

    def cause_of_end(self, handle: str) -> tuple[str, str] | None:
        """As long as the controller remembers the job (MinJobAge, five minutes by default)."""
        job, name = handle.split(":", 1)
        try:
            told = self._ask("scontrol", "--oneliner", "show", "job", job).split()
        except ExecutorError as error:
            if _UNKNOWN in str(error).lower():
                return None
            raise
        found = dict(part.split("=", 1) for part in told if "=" in part)
        if found.get("JobName") != name:
            return None
        known = _CAUSES.get(found.get("ExitCode", "")) or _CAUSES.get(found.get("JobState", ""))
        if known is None:
            return None
        meaning = known[1].format(folder=found.get("WorkDir"), python=sys.executable)
        return known[0], f"Slurm's job {job} ended on {found.get('BatchHost', 'no node')}: {meaning}"

    def cpus(self, handle: str) -> list[int]:
        """None: Slurm gives the cores and binds the worker to them."""
        return []

    def terminate(self, handle: str, force: bool = False) -> None:
        """A job that waits leaves the queue. With `force`, Slurm asks once more and kills after its KillWait."""
        queued = self._queued(handle)
        if queued is None or queued.state == "COMPLETING":
            return
        job, name = handle.split(":", 1)
        ask_only = [] if force or queued.state == "PENDING" else ["--signal=TERM", "--full"]
        try:
            self._ask("scancel", *ask_only, f"--name={name}", job)
        except ExecutorError:
            if self._queued(handle) is not None:  # it did not end by itself in between
                raise
        _listing.clear()

    def _resources(self, document: Mapping[str, Any]) -> tuple[int, int | None]:
        """GPUs and CPU cores that the job asks for; None is the cluster's own default."""
        asked = (document.get("job") or {}).get("resources") or {}
        gpus = asked.get("gpus")
        if gpus is None:
            gpus = int("gpu" in self._sinfo("%G", self.partition))
        return gpus, asked.get("cpus")

    def _listed(self, handle: str) -> _Queued | None:
        """As `_queued`, but up to _LISTED_SECONDS late: one question for all jobs. One that is too new for the list, or
        is another user's, or has ended, is asked for by itself."""
        now_seconds = time.monotonic()
        if not any(now_seconds - at_seconds < _LISTED_SECONDS for at_seconds in _listing):
            told = self._ask("squeue", "--me", "--noheader", f"--format=%i:%j|{_FIELDS}")
            lines = [line.split("|") for line in told.splitlines()]
            _listing.clear()
            _listing[now_seconds] = {found: _Queued(*fields) for found, *fields in lines}
        return next(iter(_listing.values())).get(handle) or self._queued(handle)

    def _queued(self, handle: str) -> _Queued | None:
        """None if it has ended."""
        job, name = handle.split(":", 1)
        fields = f"--format={_FIELDS}"
        try:
            told = self._ask("squeue", "--noheader", f"--jobs={job}", f"--name={name}", fields).strip()
        except ExecutorError as error:
            if _UNKNOWN in str(error).lower():
                return None
            raise
        return _Queued(*told.split("|")) if told else None

    def _there(self, partition: str | None) -> str:
        """What the partition has, or each of them."""
        try:
            told = self._sinfo("%R: %D x %c CPUs, %G, at most %l", partition)
        except ExecutorError:
            return "nobody knows what"
        return "; ".join(told.split("\n")[:-1]).replace("(null)", "no GPUs") or "no such partition"

    def _sinfo(self, fields: str, partition: str | None) -> str:
        where = [f"--partition={partition}"] if partition else []
        return self._ask("sinfo", "--noheader", *where, f"--format={fields}")

    def _ask(self, program: str, *arguments: str) -> str:
        """Raises ExecutorError with what is wrong and the next step."""
        # These would hide jobs. CUDA_VISIBLE_DEVICES is of this machine.
        hiding = ("SQUEUE_", "SCANCEL_", "SINFO_", "CUDA_VISIBLE_DEVICES")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(hiding)}
        try:
            done = subprocess.run(
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_SECONDS,
                env=environment,
            )
        except FileNotFoundError as error:
            raise ExecutorError(
                f"there is no {program} on {socket.gethostname()}; use a login node of the Slurm cluster"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise ExecutorError(f"{program} has not answered within {_TIMEOUT_SECONDS} s; look at `sinfo`") from error
        if done.returncode:
            said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
            raise ExecutorError(f"{program} failed: {said}")
        return done.stdout


def _name(run_dir: Path) -> str:
    """No other job of Slurm has it."""
    return f"atlas-{run_dir.name}.{os.urandom(4).hex()}"


def _script(run_dir: Path, gpus: int, cores: int | None) -> str:
    environment = [] if gpus else ["export CUDA_VISIBLE_DEVICES="]
    environment += [f"export OMP_NUM_THREADS={cores} MKL_NUM_THREADS={cores}"] if cores else []
    return _TEMPLATE.format(
        python=shlex.quote(sys.executable),
        handle=HANDLE,
        gpus=GPUS,
        cpus=CPUS,
        environment="\n".join(environment),
        run_dir=shlex.quote(str(run_dir)),
    )
