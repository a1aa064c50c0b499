"""A real Ray cluster on this machine, whose GPUs are numbers to schedule by. Only who knows its token may use it."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

import atlas
from atlas.errors import ExecutorError
from atlas.executors import RayExecutor

PATIENCE_SECONDS = 60
_TOKEN = secrets.token_hex(32)


class RayCluster:
    """A head, and the nodes that are added to it: processes of this machine, each in a session of its own."""

    def __init__(self) -> None:
        # Sockets lie in there, whose paths may have 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        self.port, self.dashboard, self.client, self.agent = _free_ports(4)
        self.nodes: list[subprocess.Popen[bytes]] = []
        self.executor = RayExecutor(address=f"http://127.0.0.1:{self.dashboard}", python=sys.executable)

    def start_head(self, gpus: int = 2, cpus: int = 4) -> None:
        options = {
            "--port": self.port,
            "--dashboard-port": self.dashboard,
            "--ray-client-server-port": self.client,
            "--dashboard-agent-listen-port": self.agent,
            "--num-gpus": gpus,
            "--num-cpus": cpus,
            # Of its own: Ray refuses to start a head again while it sees nodes of the old one on this machine.
            "--temp-dir": tempfile.mkdtemp(dir=self.folder),
        }
        self._start("--head", "--dashboard-host=127.0.0.1", "--include-dashboard=true", **options)
        self.wait_for(lambda: self.resources().get("CPU") == cpus)

    def add_node(self, name: str) -> "subprocess.Popen[bytes]":
        """A node with one core and one resource of this name."""
        (agent,) = _free_ports(1)
        options = {"--num-cpus": 1, "--num-gpus": 0, "--resources": f'{{"{name}": 1}}'}
        node = self._start(f"--address=127.0.0.1:{self.port}", f"--dashboard-agent-listen-port={agent}", **options)
        self.wait_for(lambda: name in self.resources())
        return node

    def resources(self) -> dict[str, float]:
        """Name -> how much the cluster has."""
        try:
            return {name: total for name, (_, total) in self.executor._usage().items()}
        except ExecutorError:
            return {}

    def wait_for(self, condition):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (outcome := condition()):
            assert time.monotonic() < deadline, f"waited for {PATIENCE_SECONDS} seconds\n{self.log()}"
            for node in self.nodes:
                assert node.poll() is None, self.log()
            threading.Event().wait(0.05)
        return outcome

    def kill(self, node: "subprocess.Popen[bytes]") -> None:
        """As if the machine lost its power: the head of it, and all that it holds but its jobs, which follow."""
        for process in psutil.process_iter():
            with suppress(psutil.Error, ProcessLookupError):
                if os.getsid(process.pid) == node.pid:
                    process.kill()
        node.wait()
        self.nodes.remove(node)

    def stop(self) -> None:
        for node in list(self.nodes):
            self.kill(node)
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        return (self.folder / "start.log").read_text()[-2000:]

    def _start(self, *flags: str, **options: object) -> "subprocess.Popen[bytes]":
        given = ["--object-store-memory=100000000", "--min-worker-port=0", "--max-worker-port=0", *flags]
        given += [f"{option}={value}" for option, value in options.items()]
        with open(self.folder / "start.log", "ab") as log:
            node = subprocess.Popen(
                [Path(sys.executable).with_name("ray"), "start", "--block", "--disable-usage-stats", *given],
                env=os.environ | self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.nodes.append(node)
        return node

    def environment(self) -> dict[str, str]:
        """For the cluster and for those who use it."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}


def stand_in(folder: Path, worker: str) -> str:
    """A Python whose Atlas has this worker. A cluster's nodes have the environment that they were started with."""
    package = folder / "stand-in/atlas"
    shutil.copytree(Path(atlas.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "worker.py").write_text(worker)
    return python_with(folder, package.parent)


def python_with(folder: Path, path: Path) -> str:
    """A Python that looks for packages in this folder first."""
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return str(python)


def working_cluster(monkeypatch: pytest.MonkeyPatch) -> RayCluster:
    """A running cluster, which the environment has the token of. Skips the test where Ray is not installed."""
    if not Path(sys.executable).with_name("ray").exists():
        pytest.skip("no Ray here: pip install 'ray[default]>=2.50' -c constraints.txt")
    cluster = RayCluster()
    for name, value in cluster.environment().items():
        monkeypatch.setenv(name, value)
    try:
        cluster.start_head()
    except BaseException:
        cluster.stop()
        raise
    return cluster


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
