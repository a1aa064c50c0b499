"""A Ray cluster, by its Jobs API: Ray finds the node and the GPUs, Atlas keeps the queue and the record.

Spoken to by HTTP, which needs no package here: Ray's own client takes half a second to import (12 s the first time) and
does no more with these few calls. Ray has no login unless its cluster was started with `RAY_AUTH_MODE=token`: whoever
reaches the address can run commands as the cluster's user, and reads all that a job was sent. What `env` passes is
therefore sent encrypted, and the key lies in the run directory, for the worker's node alone.
"""

import json
import logging
import os
import secrets
import shlex
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from pydantic import Field, field_validator

from atlas import __version__, ray_node
from atlas.errors import ExecutorError
from atlas.executors.base import BY_NAME, CPUS, HANDLE, THREADS, Executor, Variable
from atlas.private import only_owner

logger = logging.getLogger(__name__)

_OLDEST = (2, 50)
_SUBMIT_SECONDS, _ASK_SECONDS = 60, 10
"""How long a cluster may take to accept a job, of which the first takes the longest (2 s here), and to answer."""
_STOP_SECONDS = 300
"""What Ray leaves a stopped worker before it kills it; its default is 3 s. More than the scheduler's own patience: this
is for when there is no scheduler any more."""
_PENDING, _RUNNING = "PENDING", "RUNNING"
_NOT_RESOURCES = ("node:", "objectStoreMemory", "acceleratorType:")
_ADVICE = {
    "No module named": f"install Atlas {__version__} for that Python on every node, or name another in executor.python",
    "not found": "name the Python of the nodes that has Atlas in executor.python",
    "Unknown option: -P": "Atlas needs Python 3.11; name one in executor.python",
}
"""What a node says when the worker cannot be started there -> what to do."""

_Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.:-]*$")]
_Amount = Annotated[float, Field(gt=0)]


class RayExecutor(Executor):
    """Runs the job on a node of a Ray cluster that sees the run directory at the same path, as a user who may write
    there. `resources.gpus` and `resources.cpus` are reserved in the cluster; without `cpus`, one core. Ray asks nobody
    for a password by default: see docs/ray.md before the address is other than this machine's."""

    places_itself: ClassVar[bool] = True

    type: Literal["ray"] = "ray"
    address: str = Field(
        "http://127.0.0.1:8265",
        pattern=r"^https?://[^\s@/]+(/[^\s@]*)?$",
        json_schema_extra={
            "patternErrorMessage": "the address of Ray's dashboard, http://HOST:8265, without a password"
        },
    )
    """Where the cluster's dashboard answers."""
    python: str = Field("python", pattern=r"^[^\s-]\S*$")
    """Python on the nodes that has this version of Atlas."""
    memory_bytes: int | None = Field(None, gt=0)
    """Memory to reserve."""
    entrypoint_resources: dict[_Name, _Amount] = Field(default_factory=dict)
    """Other resources of the cluster to reserve, by name."""
    runtime_env: dict[str, Any] = Field(default_factory=dict)
    """Ray's runtime environment (`pip`, `conda`, `image_uri`, ...), as it is. Nothing is uploaded: no local folders."""
    env: list[Variable] = Field(default_factory=list)
    """Names of more environment variables that the worker gets from here, besides HF_TOKEN and WANDB_API_KEY."""
    start_timeout_seconds: float = Field(600, gt=0)
    """How long the cluster may take to start the job. Ray gives up after 900 s (`RAY_JOB_START_TIMEOUT_SECONDS`)."""

    @field_validator("runtime_env")
    @classmethod
    def _no_values(cls, value: dict[str, Any]) -> dict[str, Any]:
        if "env_vars" in value:
            raise ValueError("values of variables would be stored and shown by Ray; name the variables in executor.env")
        return value

    def check(self) -> None:
        found = str((self._get("/api/version") or {}).get("ray_version"))
        if _version(found) < _OLDEST:
            oldest = ".".join(map(str, _OLDEST))
            raise ExecutorError(f"the Ray cluster at {self.address} has version {found}; Atlas needs {oldest} or later")
        if self.address.startswith("http://") and not self._is_here():
            logger.warning(
                "%s is neither encrypted nor, unless its cluster was started with RAY_AUTH_MODE=token, asks for a "
                "password: whoever reaches it can run commands there (docs/ray.md)",
                self.address,
            )

    def command(
        self, run_dir: Path, document: Mapping[str, Any], gpus: Sequence[int], cpus: Sequence[int]
    ) -> list[str]:
        """Asks the cluster whether it has GPUs if the job leaves that open. What `env` names is left out."""
        handle = _new_handle(run_dir, document)
        asked = self._asked(document)
        options = {
            "--address": self.address,
            "--submission-id": Path(handle).name,
            "--runtime-env-json": json.dumps(self._runtime_env({ray_node.VERSION: __version__})),
            "--entrypoint-num-cpus": asked["entrypoint_num_cpus"],
            "--entrypoint-num-gpus": asked["entrypoint_num_gpus"],
            "--entrypoint-memory": asked.get("entrypoint_memory"),
            "--entrypoint-resources": json.dumps(self.entrypoint_resources) if self.entrypoint_resources else None,
        }
        given = [part for option, value in options.items() if value is not None for part in (option, str(value))]
        return ["ray", "job", "submit", "--no-wait", *given, "--", *self._entrypoint(handle)]

    def launch(self, run_dir: Path, gpus: Sequence[int], cpus: Sequence[int]) -> str:
        """The handle is a path: the run directory's, and below it the id of Ray's job."""
        try:
            with open(run_dir / "worker.log", "ab", opener=only_owner):
                pass  # who creates it decides who may read it
            document = json.loads((run_dir / "spec.json").read_text())
            handle = _new_handle(run_dir, document)
            asked = self._asked(document)
            sealed = ray_node.seal(handle, self._told(document, handle, asked))
        except OSError as error:
            raise ExecutorError(f"could not start a worker in {run_dir}: {error}") from error
        job = {
            "submission_id": Path(handle).name,
            "entrypoint": f"exec {shlex.join(self._entrypoint(handle))}",
            "runtime_env": self._runtime_env({ray_node.SEALED: sealed, ray_node.VERSION: __version__}),
            **asked,
        }
        try:
            self._call("/api/jobs/", job)
        except ExecutorError:
            ray_node.withdraw(handle)  # it may have been accepted: then it ends as soon as it begins
            raise
        return handle

    def alive(self, handle: str) -> bool:
        """Follows Ray's word while the cluster knows the job. Of one that it calls ended or has forgotten, as it does
        with all when its head is restarted, the worker lives as long as it holds its run directory."""
        waits = ray_node.may_start(handle)  # first: a ticket is used only after the job has become RUNNING
        status = self._status(handle)
        if status == _PENDING:
            return waits
        return status == _RUNNING or _holds_its_directory(handle)

    def overdue(self, handle: str, waited_seconds: float) -> str | None:
        if waited_seconds <= self.start_timeout_seconds:
            return None
        if self._status(handle) != _PENDING:
            return None
        asked = self._asked(json.loads((Path(handle).parent / "spec.json").read_text()))
        wanted = {
            "CPU": asked["entrypoint_num_cpus"],
            "GPU": asked["entrypoint_num_gpus"],
            "bytes of memory": self.memory_bytes,
            **self.entrypoint_resources,
        }
        words = ", ".join(f"{amount:.12g} {name}" for name, amount in wanted.items() if amount)
        there = ", ".join(
            f"{total:.12g} {name} ({total - used:.12g} free)" for name, (used, total) in self._usage().items()
        )
        return (
            f"the Ray cluster at {self.address} has not started it within {self.start_timeout_seconds:g} s: asked for "
            f"{words}; it has {there or 'no nodes'}; ask for less, add nodes, or raise executor.start_timeout_seconds"
        )

    def cause_of_end(self, handle: str) -> tuple[str, str] | None:
        job = self._job(handle)
        ray_node.withdraw(handle)  # it is a key, which nobody needs any more
        if job is None:
            return "killed", f"the Ray cluster at {self.address} has forgotten the job: its head was restarted"
        began, message = ray_node.has_begun(handle), str(job.get("message") or "")
        if job.get("error_type") != "JOB_ENTRYPOINT_COMMAND_ERROR":
            if job["status"] not in ("FAILED", "STOPPED"):
                return None
            return "killed" if began else "launch_failed", f"Ray says: {_shortened(message)}"
        said = [] if began else _own_lines(message)
        if not said:
            return None
        advice = [advice for words, advice in _ADVICE.items() if words in said[-1]]
        return "launch_failed", "; ".join([f"could not be started on its node: {_shortened(said[-1])}", *advice[:1]])

    def cpus(self, handle: str) -> list[int]:
        return []

    def terminate(self, handle: str, force: bool = False) -> None:
        """Ray's own stop says yes to a job that waits, and leaves it waiting: its ticket is taken away, without which
        it ends as soon as it begins. Ray has no way to kill a worker that it has let stop: its node does it."""
        if self._status(handle) in (_PENDING, _RUNNING):
            ray_node.withdraw(handle)
            self._call(f"/api/jobs/{Path(handle).name}/stop", {})
        elif _holds_its_directory(handle):
            ray_node.stop(handle)
        if force:
            ray_node.kill(handle)

    def _entrypoint(self, handle: str) -> list[str]:
        return [self.python, "-P", "-m", ray_node.__name__, handle]

    def _runtime_env(self, variables: Mapping[str, str]) -> dict[str, Any]:
        return self.runtime_env | {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_SECONDS), **variables}}

    def _asked(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """What is reserved. A job that asks for nothing would be run by the head, however many are there already."""
        resources = (document.get("job") or {}).get("resources") or {}
        gpus = resources.get("gpus")
        if gpus is None:
            gpus = min(1, int(self._usage().get("GPU", (0, 0))[1]))
        return {
            "entrypoint_num_gpus": gpus,
            "entrypoint_num_cpus": resources.get("cpus") or 1,
            **({"entrypoint_memory": self.memory_bytes} if self.memory_bytes else {}),
            **({"entrypoint_resources": self.entrypoint_resources} if self.entrypoint_resources else {}),
        }

    def _told(self, document: Mapping[str, Any], handle: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What only the node reads."""
        passed = {name: os.environ[name] for name in (*BY_NAME, *self.env) if name in os.environ}
        cpus = ((document.get("job") or {}).get("resources") or {}).get("cpus")
        if cpus:
            passed |= dict.fromkeys(THREADS, str(cpus))
        passed |= {HANDLE: handle, CPUS: ""}
        return {"run_id": document["run_id"], "gpus": asked["entrypoint_num_gpus"], "env": passed}

    def _job(self, handle: str) -> dict[str, Any] | None:
        return self._get(f"/api/jobs/{Path(handle).name}")

    def _status(self, handle: str) -> str | None:
        job = self._job(handle)
        return None if job is None else str(job["status"])

    def _usage(self) -> dict[str, tuple[float, float]]:
        """Resource -> (used, total), of the whole cluster."""
        status = (self._get("/api/cluster_status") or {}).get("data") or {}
        usage = ((status.get("clusterStatus") or {}).get("loadMetricsReport") or {}).get("usage") or {}
        return {name: (used, total) for name, (used, total) in usage.items() if not name.startswith(_NOT_RESOURCES)}

    def _get(self, path: str) -> dict[str, Any] | None:
        """None if the cluster answers that there is no such thing."""
        return self._call(path)

    def _call(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """Raises ExecutorError with what is wrong and the next step."""
        headers = {"Content-Type": "application/json"} | _authorization()
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.address.rstrip("/") + path, data, headers)
        opener = build_opener(ProxyHandler({})) if self._is_here() else build_opener()
        try:
            with opener.open(request, timeout=_ASK_SECONDS if data is None else _SUBMIT_SECONDS) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except HTTPError as error:
            if error.code == HTTPStatus.NOT_FOUND and data is None:
                return None
            if error.code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                raise ExecutorError(
                    f"the Ray cluster at {self.address} asks for a token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
                ) from error
            said = _own_lines(error.read().decode("utf-8", "replace"))
            raise ExecutorError(
                f"the Ray cluster at {self.address} refuses {path}: {_shortened(said[-1]) if said else error}"
            ) from error
        except (URLError, OSError, ValueError) as error:
            raise ExecutorError(
                f"no Ray cluster answers at {self.address}: {getattr(error, 'reason', error)}; start one "
                "(`ray start --head`), or set executor.address to that of its dashboard"
            ) from error

    def _is_here(self) -> bool:
        host = urlsplit(self.address).hostname or ""
        return host in ("localhost", "::1") or host.startswith("127.")


def _new_handle(run_dir: Path, document: Mapping[str, Any]) -> str:
    """Ray refuses an id that it has seen, so each attempt has its own."""
    return str(run_dir / f"{document.get('run_id', run_dir.name)}.{secrets.token_hex(4)}")


def _holds_its_directory(handle: str) -> bool:
    from atlas.run import is_working  # which knows jobs, which know executors

    try:
        return ray_node.has_begun(handle) and is_working(Path(handle).parent)
    except OSError:  # there are file systems without locks
        return False


def _authorization() -> dict[str, str]:
    """As Ray's own client finds the token, and only where the user says that there is one."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return {}
    token = os.environ.get("RAY_AUTH_TOKEN")
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    if not token and file.is_file():
        token = file.read_text().strip()
    return {"Authorization": f"Bearer {token}"} if token else {}


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())


def _own_lines(text: str) -> list[str]:
    """What is left of a job's log, or of an answer, without what Ray says each time."""
    always = ("Job entrypoint command failed", "Running entrypoint for job", "Runtime env is setting up.")
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line.strip(".") and not any(words in line for words in always)]


def _shortened(text: str) -> str:
    """On one line."""
    return " ".join(text.split())[:500]
