"""A container on this machine: NVIDIA's PyTorch on a DGX, or any image with the packages that Atlas needs.

The container sees the run directory at the path that it has outside, and the same cache and hub downloads as all other
runs; the project, local models and data, and Atlas itself are there to be read only.
"""

import json
import os
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from atlas.errors import ExecutorError
from atlas.executors.base import BY_NAME, CPUS, GPUS, HANDLE, THREADS, Executor, Variable
from atlas.private import only_owner

PACKAGE = Path(__file__).parents[1]
"""The Atlas that the worker runs: this one, whatever the image holds."""
_CODE = "/opt/atlas"
_TIMEOUT_SECONDS = 60
"""Of a call of the engine. A container starts within seconds when its image is there."""
_IMAGE = "ATLAS_IMAGE"
"""Tells the worker, for the record, which image it runs in: name and digest."""
_RUN_LABEL, _HANDLE_LABEL, _CPUS_LABEL = "atlas.run", "atlas.handle", "atlas.cpus"
_RUN_TO_LOG = 'log=$1; shift; exec "$@" >>"$log" 2>&1'

_CAUSES = {
    ("cannot connect to the docker daemon", "is the docker daemon running", "connection refused"): (
        "its daemon does not answer; start it (`systemctl start docker`), or set executor.engine: podman"
    ),
    ("permission denied while trying to connect",): (
        "you may not use its daemon; join the group docker, or set executor.engine: podman"
    ),
    ("could not select device driver", "unresolvable cdi devices", "unknown or invalid runtime", "nvidia-container"): (
        "it cannot give GPUs to containers; install the NVIDIA container toolkit (for podman also "
        "`nvidia-ctk cdi generate`), or set resources.gpus: 0"
    ),
    ("no space left on device",): "the disk is full; free some space where the engine keeps its containers",
    ("setrlimit", "error setting rlimit"): (
        "this machine does not allow such limits; set executor.ulimits to what `ulimit -Hl` and `ulimit -Hs` print"
    ),
    ("exec: no such file", "not found in $path", "executable file not found"): (
        "the image has no `sh` or no `python`; use one with Python and Atlas's packages (docker/README.md)"
    ),
}
"""What an engine's stderr says, in small letters -> what that means, and what to do."""


_Folder = Annotated[str, Field(pattern=r"^/[^:]*$")]
_Limit = Literal["core", "memlock", "nofile", "nproc", "stack"]


class ContainerExecutor(Executor):
    """Runs the job in a container on this machine, as the user who submitted it. Nothing is pulled, nothing is
    privileged, and no secret is written: `HF_TOKEN` and `WANDB_API_KEY` are passed by name."""

    type: Literal["container"] = "container"
    image: str = Field(min_length=1, max_length=500, pattern=r"^[^\s-]\S*$")
    """Image with torch and what else Atlas needs, already on this machine; docker/README.md makes one from NVIDIA's."""
    engine: Literal["docker", "podman"] = "docker"
    """Program that starts it."""
    network: Literal["bridge", "host", "none"] = "bridge"
    """What it can reach: `none` for jobs whose models and data are all local."""
    mounts: list[_Folder] = Field(default_factory=list)
    """More folders that the job reads, at the same path inside."""
    env: list[Variable] = Field(default_factory=list)
    """Names of more environment variables that are passed on."""
    ulimits: dict[_Limit, int] = Field({"memlock": -1, "stack": 67108864})
    """Limits inside; by default those that NVIDIA asks for."""

    def check(self) -> None:
        self._image()

    def launch(self, run_dir: Path, gpus: Sequence[int], cpus: Sequence[int]) -> str:
        try:
            with open(run_dir / "worker.log", "ab", opener=only_owner):
                pass  # the container adds to it; who creates it decides who may read it
            document = json.loads((run_dir / "spec.json").read_text())
            for folder in (_hub_cache(), _cache(run_dir)):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ExecutorError(f"could not start a worker in {run_dir}: {error}") from error
        command = self.command(run_dir, document, gpus, cpus)
        handle = command[command.index("--name") + 1]
        given = {HANDLE: handle, _IMAGE: self._image()}
        self._engine(command[1:], f"could not start a container of {self.image}", given)
        return handle

    def alive(self, handle: str) -> bool:
        """Asks the engine by label, so that a killed host or a reboot changes nothing. Raises ExecutorError if the
        engine does not answer."""
        return bool(
            self._ask("ps", "--quiet", "--filter", f"label={_HANDLE_LABEL}={handle}", "--filter", "status=running")
        )

    def cpus(self, handle: str) -> list[int]:
        if not self.alive(handle):
            return []
        told = self._ask("inspect", "--format", f'{{{{index .Config.Labels "{_CPUS_LABEL}"}}}}', handle)
        return [int(core) for core in told.split(",") if core]

    def terminate(self, handle: str, force: bool = False) -> None:
        if not self.alive(handle):
            return
        try:
            self._ask("kill", "--signal", "KILL" if force else "TERM", handle)
        except ExecutorError:
            if self.alive(handle):  # it did not end by itself in between
                raise

    def command(
        self, run_dir: Path, document: Mapping[str, Any], gpus: Sequence[int], cpus: Sequence[int]
    ) -> list[str]:
        name = f"atlas-{run_dir.name}.{secrets.token_hex(4)}"
        given = {
            GPUS: ",".join(map(str, gpus)),
            CPUS: ",".join(map(str, cpus)),
            # Inside, the GPUs that were given are all that there are, and count from 0.
            "CUDA_VISIBLE_DEVICES": ",".join(map(str, range(len(gpus)))),
            "HF_HOME": str(_hub_cache()),
            "HOME": "/tmp",
            "PYTHONPATH": _CODE,
        }
        if cpus:
            given |= dict.fromkeys(THREADS, str(len(cpus)))
        labels = {_RUN_LABEL: run_dir.name, _HANDLE_LABEL: name, _CPUS_LABEL: given[CPUS]}
        passed = [variable for variable in (*BY_NAME, *self.env) if variable in os.environ.keys() - given]
        read, written = self._folders(run_dir, document)
        return [
            self.engine,
            *("run", "--detach", "--rm", "--init", "--pull", "never"),
            *("--name", name),
            *(f"--label={label}={value}" for label, value in labels.items()),
            *("--user", f"{os.getuid()}:{os.getgid()}"),
            *(["--userns=keep-id"] if self.engine == "podman" and os.getuid() else []),
            *("--ipc=host", f"--network={self.network}"),
            *(f"--ulimit={limit}={value}:{value}" for limit, value in self.ulimits.items()),
            *self._gpu_options(gpus),
            *(f"--volume={folder}:{folder}:ro" for folder in read),
            *(f"--volume={folder}:{folder}" for folder in written),
            f"--volume={PACKAGE}:{_CODE}/{PACKAGE.name}:ro",
            *(f"--env={variable}={value}" for variable, value in given.items()),
            *(f"--env={variable}" for variable in (HANDLE, _IMAGE, *passed)),
            f"--workdir={run_dir}",
            self.image,
            *("sh", "-c", _RUN_TO_LOG, "sh", str(run_dir / "worker.log")),
            *("python", "-P", "-m", "atlas.worker", str(run_dir)),
        ]

    def _folders(self, run_dir: Path, document: Mapping[str, Any]) -> tuple[list[Path], list[Path]]:
        """(read, written): what is mounted, each at its own path. The written ones may lie in a read one."""
        job = document.get("job") or {}
        named = [job.get("student"), job.get("teacher"), job.get("dataset")]
        values = [value for each in named if each for value in each.values()]
        local = [Path(value) for value in values if isinstance(value, str) and value.startswith("/")]
        spec_file = document.get("spec_file")
        project = [_project(Path(spec_file).absolute().parent)] if spec_file and spec_file != "-" else []
        read = [folder for folder in [*project, *local, *map(Path, self.mounts)] if folder.exists()]
        return list(dict.fromkeys(read)), [run_dir, _cache(run_dir), _hub_cache()]

    def _gpu_options(self, gpus: Sequence[int]) -> list[str]:
        if not gpus:
            return []
        if self.engine == "podman":
            return [f"--device=nvidia.com/gpu={gpu}" for gpu in gpus]
        return ["--gpus", f'"device={",".join(map(str, gpus))}"']  # the quotes are docker's: its value is CSV

    def _image(self) -> str:
        """Name and digest of the image. Raises ExecutorError if it is not on this machine."""
        try:
            found = json.loads(self._engine(["image", "inspect", self.image], f"no image {self.image}"))[0]
        except ExecutorError as error:
            if "no such image" not in str(error).lower() and "image not known" not in str(error).lower():
                raise
            raise ExecutorError(
                f"the image {self.image} is not on this machine; `{self.engine} pull {self.image}` fetches it (20 GB "
                "if it is NVIDIA's), and docker/README.md says how to build Atlas's from that one"
            ) from error
        digests = found.get("RepoDigests") or []
        return str(digests[0] if digests else f"{self.image}@{found['Id']}")

    def _ask(self, *arguments: str) -> str:
        return self._engine(arguments, f"`{self.engine} {arguments[0]}` failed").strip()

    def _engine(self, arguments: Sequence[str], failing: str, given: Mapping[str, str] | None = None) -> str:
        """Runs the engine and returns what it prints. Raises ExecutorError with what is wrong and the next step."""
        try:
            done = subprocess.run(
                [self.engine, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_SECONDS,
                env=os.environ | (given or {}),
            )
        except FileNotFoundError as error:
            other = "podman" if self.engine == "docker" else "docker"
            raise ExecutorError(
                f"{failing}: there is no {self.engine} here; install it, or set executor.engine: {other}"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise ExecutorError(
                f"{failing}: {self.engine} has not answered within {_TIMEOUT_SECONDS} s; look at `{self.engine} info`"
            ) from error
        if done.returncode == 0:
            return done.stdout
        said = done.stderr.strip()
        causes = [cause for words, cause in _CAUSES.items() if any(word in said.lower() for word in words)]
        raise ExecutorError("; ".join([f"{failing}: {said}", *causes[:1]]))


def _cache(run_dir: Path) -> Path:
    """Of the home that the run is in: converted models, maps of vocabularies."""
    return run_dir.parents[1] / "cache"


def _hub_cache() -> Path:
    """Where this user's downloads from the hub are."""
    return Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser().absolute()


def _project(folder: Path) -> Path:
    """The project that a spec file is in, or just its folder."""
    for each in (folder, *folder.parents):
        if any((each / mark).exists() for mark in (".atlas", ".git", "pyproject.toml")):
            return each
    return folder
