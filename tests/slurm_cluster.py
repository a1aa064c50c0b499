"""A real Slurm cluster on this machine: one node with four cores, and two GPUs that are only numbers to schedule by."""

import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from atlas.executors import SlurmExecutor, slurm

PATIENCE_SECONDS = 30
PARTITION, NODE = "debug", "node1"
_CONFIGURATION = """
ClusterName=atlas-test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
# No cgroups, and more cores than there may be.
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=10000,bf_interval=1
MessageTimeout=4
ReturnToService=2
KillWait=5
GresTypes=gpu
NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 CPUs=4 Gres=gpu:2 State=UNKNOWN
PartitionName={partition} Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=short Nodes=ALL MaxTime=10 State=UP
"""


class SlurmCluster:
    """Its state and its daemons' logs are in a folder of its own; `slurm.conf` in there is the way to reach it."""

    def __init__(self) -> None:
        # Sockets lie in there, whose paths may have 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
        self.executor = SlurmExecutor()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._configure()

    def start(self) -> None:
        munge = {"socket": "munge.sock", "key-file": "munge.key", "log-file": "munged.log", "pid-file": "munged.pid"}
        paths = [f"--{name}={self.folder / file}" for name, file in (munge | {"seed-file": "munge.seed"}).items()]
        self._start("munged", "--foreground", "--force", "--num-threads=2", *paths)
        self.wait_for("munge", (self.folder / "munge.sock").exists)
        self.start_controller()
        self._start("slurmd", "-D", "-N", NODE)
        self._wait_for_node()

    def start_controller(self) -> None:
        self._start("slurmctld", "-D")
        self.wait_for("the controller", lambda: "is UP" in self.ask("scontrol", "ping", check=False))

    def stop_controller(self) -> None:
        self._end("slurmctld")

    def start_again(self, handle: str) -> None:
        """Has Slurm start a job again, at once and not after the two minutes that it leaves a node to recover."""
        job = handle.split(":")[0]
        self.ask("scontrol", "requeue", job)
        self.wait_for("the queue", lambda: "JobState=PENDING" in self.ask("scontrol", "show", "job", job))
        # Whole seconds: a start in the second of the first one's end would be taken for the one that was revoked.
        earliest = time.time() + 2

        def started() -> bool:
            if time.time() < earliest:
                return False
            self.ask("scontrol", "update", f"JobId={job}", "StartTime=now", check=False)
            told = self.ask("scontrol", "show", "job", job)
            return not any(f"JobState={state}" in told for state in ("PENDING", "CONFIGURING", "COMPLETING"))

        self.wait_for("a second start", started)

    def forget(self) -> None:
        """Loses all that the controller knows, job ids included."""
        self.stop_controller()
        shutil.rmtree(self.folder / "state")
        (self.folder / "state").mkdir()
        self.start_controller()
        self._wait_for_node()

    def stop(self) -> None:
        for program in ("slurmd", "slurmctld", "munged"):
            self._end(program)
        shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def wait_for(self, what, condition):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (outcome := condition()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited in vain for {what}\n{self._logs()}")
            threading.Event().wait(0.05)
        return outcome

    def _wait_for_node(self) -> None:
        self.wait_for("the node", lambda: "idle" in self.ask("sinfo", "--noheader", "--format=%T", check=False))

    def _configure(self) -> None:
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        controller_port, node_port = _free_ports(2)
        (self.folder / "slurm.conf").write_text(
            _CONFIGURATION.format(
                host=socket.gethostname().split(".")[0],
                node=NODE,
                partition=PARTITION,
                folder=self.folder,
                controller_port=controller_port,
                node_port=node_port,
            )
        )
        for gpu in range(2):
            os.mknod(self.folder / f"gpu{gpu}", 0o20600, os.makedev(1, 3))  # as /dev/null
        gpus = f"NodeName={NODE} Name=gpu File={self.folder}/gpu[0-1] Flags=nvidia_gpu_env\n"
        (self.folder / "gres.conf").write_text(gpus)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)

    def _start(self, program: str, *arguments: str) -> None:
        with open(self.folder / f"{program}.out", "ab") as output:
            self._running[program] = subprocess.Popen(
                [f"/usr/sbin/{program}", *arguments], stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def _end(self, program: str) -> None:
        process = self._running.pop(program, None)
        if process is None:
            return
        process.terminate()
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _logs(self) -> str:
        text = ""
        for program in ("munged", "slurmctld", "slurmd"):
            for ending in ("out", "log"):
                with suppress(FileNotFoundError):
                    text += (self.folder / f"{program}.{ending}").read_text(errors="replace")[-1000:]
        return text


def working_slurm(monkeypatch: pytest.MonkeyPatch) -> SlurmCluster:
    """Starts a cluster and sets the environment to it. Skips the test where Slurm cannot run."""
    lacking = [name for name in ("munged", "slurmctld", "slurmd") if not Path("/usr/sbin", name).exists()]
    lacking += ["root"] if os.getuid() else []
    if lacking:
        pytest.skip(f"no Slurm here: {', '.join(lacking)} missing (apt-get install slurm-wlm munge)")
    try:
        cluster = SlurmCluster()
    except OSError as error:
        pytest.skip(f"no Slurm here: {error}")
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_", "SQUEUE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(slurm, "_LISTED_SECONDS", 0)
    monkeypatch.setenv("SLURM_CONF", str(cluster.folder / "slurm.conf"))
    try:
        cluster.start()
    except (OSError, TimeoutError) as error:
        cluster.stop()
        pytest.skip(f"no Slurm here: {error}")
    return cluster


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
