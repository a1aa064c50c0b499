"""Where a run came from: the project's commit, this Atlas, this machine. Nothing here raises or takes long.

What it returns is written into run directories, so secrets are taken out first.
"""

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from atlas import __version__
from atlas.secrets import REDACTED, names_secret, redact

PATCH_LIMIT_BYTES = 1_000_000
"""A longer diff is cut, and says so in its last line."""
PACKAGES = (
    "accelerate",
    "bitsandbytes",
    "datasets",
    "deepspeed",
    "flash-attn",
    "gguf",
    "math-verify",
    "numpy",
    "peft",
    "pydantic",
    "ray",
    "safetensors",
    "tokenizers",
    "torch",
    "torchao",
    "transformers",
    "triton",
    "trl",
    "vllm",
    "wandb",
)
"""Distributions whose version can change what a run measures."""
_GIT_TIMEOUT_SECONDS = 10


@dataclass(frozen=True)
class Gpu:
    """One GPU. `index` is NVML's (that of `nvidia-smi`, by PCI bus)."""

    index: int
    uuid: str
    name: str
    memory_bytes: int
    free_bytes: int
    driver: str


def project(folder: Path) -> dict[str, Any]:
    """`commit`, `branch` (None when detached) and `dirty` (an untracked file counts) of the git work tree that
    `folder` is in; all None outside one, or without git."""
    status = _git(folder, "status", "--porcelain=v2", "--branch", "--untracked-files=normal")
    if status is None:
        return {"commit": None, "branch": None, "dirty": None}
    lines = status.splitlines()
    headers = dict(line.split(" ", 2)[1:] for line in lines if line.startswith("# branch."))
    commit, branch = headers.get("branch.oid"), headers.get("branch.head")
    return {
        "commit": None if commit == "(initial)" else commit,
        "branch": None if branch == "(detached)" else branch,
        "dirty": any(not line.startswith("#") for line in lines),
    }


def patch(folder: Path) -> str:
    """`git diff HEAD` of the work tree, then a line `# untracked: NAME` for each untracked file; empty when clean.

    Lines that look like secrets are replaced; at most PATCH_LIMIT_BYTES long.
    """
    diff = _git(folder, "diff", "HEAD", "--no-color", "--no-ext-diff", "--no-textconv") or ""
    status = _git(folder, "status", "--porcelain", "--untracked-files=normal") or ""
    untracked = [f"# untracked: {line[3:]}\n" for line in status.splitlines() if line.startswith("?? ")]
    text = _without_secret_lines(diff + "".join(untracked))
    encoded = text.encode()
    if len(encoded) <= PATCH_LIMIT_BYTES:
        return text
    kept = encoded[:PATCH_LIMIT_BYTES].rpartition(b"\n")[0].decode()
    return f"{kept}\n# cut: the whole diff is longer than {PATCH_LIMIT_BYTES} bytes\n"


def environment() -> dict[str, Any]:
    """This Atlas, Python, machine, command, container image, and the versions in PACKAGES without importing them."""
    return {
        "atlas": {"version": __version__, "commit": _atlas_commit()},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "packages": {name: version for name in PACKAGES if (version := installed_version(name))},
        "gpus": [asdict(gpu) for gpu in gpus()],
        "cpu_count": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "command": command_line(sys.argv),
        "image": os.environ.get("ATLAS_IMAGE"),
    }


def gpus() -> list[Gpu]:
    """The NVIDIA GPUs this process may use, as NVML sees them; [] without a driver or without nvidia-ml-py.

    An outer CUDA_VISIBLE_DEVICES (indices or UUIDs) is honoured, in its order. Its indices are taken to be NVML's.
    MIG instances are not given out: Atlas can only hand a whole GPU to a worker.
    """
    try:
        import pynvml

        pynvml.nvmlInit()
    except (ImportError, OSError):
        return []
    except pynvml.NVMLError:
        return []
    try:
        return _visible(_all_gpus(pynvml), os.environ.get("CUDA_VISIBLE_DEVICES"))
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


def installed_version(name: str) -> str | None:
    """The version of an installed distribution, from its metadata; None if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def command_line(arguments: Sequence[str]) -> list[str]:
    """The arguments with every secret in them replaced: `--api-key X`, `TOKEN=X`, anything that looks like a token."""
    shown: list[str] = []
    value_is_secret = False
    for argument in arguments:
        name, separator, _ = argument.partition("=")
        flag = name.lstrip("-").replace("-", "_")
        if value_is_secret and not argument.startswith("-"):
            shown.append(REDACTED)
        elif separator and names_secret(flag):
            shown.append(f"{name}={REDACTED}")
        else:
            shown.append(without_secrets(argument))
        value_is_secret = argument.startswith("-") and not separator and names_secret(flag)
    return shown


def without_secrets(text: str, variables: Mapping[str, str] = os.environ) -> str:
    """The text without tokens and without the value of any environment variable whose name says that it is a secret."""
    for name, value in variables.items():
        if names_secret(name) and len(value) >= 8:
            text = text.replace(value, REDACTED)
    return redact(text)


_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)")
_ASSIGNMENT = re.compile(r"""([A-Za-z_][\w.-]*)["']?\s*[=:]\s*["']?([^\s"'()\[\]{}<>,;]{6,})""")


def _without_secret_lines(text: str) -> str:
    lines = without_secrets(_PRIVATE_KEY.sub(REDACTED, text)).splitlines(keepends=True)
    # The first character of a diff's line says whether it was added; keep it.
    return "".join(f"{line[0]}{REDACTED}\n" if REDACTED in line or _assigns_secret(line) else line for line in lines)


def _assigns_secret(line: str) -> bool:
    # `eos_token: none` is no secret; a value with a digit in it may be, and a password is one whatever it looks like.
    return any(
        names_secret(name) and (re.search(r"\d", value) or re.search("(?i)passw|secret|credential", name))
        for name, value in _ASSIGNMENT.findall(line)
    )


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints, at most PATCH_LIMIT_BYTES and a little; None if it fails, is missing or takes too long."""
    # A hook's GIT_DIR would name another repository; the locks would disturb a git of the user's at the same time.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    variables |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    with tempfile.TemporaryFile() as output:
        try:
            subprocess.run(
                ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.DEVNULL,
                env=variables,
                timeout=_GIT_TIMEOUT_SECONDS,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        output.seek(0)
        return output.read(PATCH_LIMIT_BYTES + 4096).decode("utf-8", "replace")


def _atlas_commit() -> str | None:
    """The commit Atlas itself runs from; None for an installed copy, even one inside another project's work tree."""
    package = Path(__file__).parent
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit: str | None = project(package)["commit"]
    return commit


def _all_gpus(nvml: Any) -> list[Gpu]:
    driver = _text(nvml.nvmlSystemGetDriverVersion())
    found = []
    for index in range(nvml.nvmlDeviceGetCount()):
        device = nvml.nvmlDeviceGetHandleByIndex(index)
        memory = nvml.nvmlDeviceGetMemoryInfo(device)
        uuid, name = _text(nvml.nvmlDeviceGetUUID(device)), _text(nvml.nvmlDeviceGetName(device))
        found.append(Gpu(index, uuid, name, memory.total, memory.free, driver))
    return found


def _visible(found: list[Gpu], cuda_visible_devices: str | None) -> list[Gpu]:
    """Reads CUDA_VISIBLE_DEVICES as CUDA does: a UUID may be shortened, and the first unknown entry ends the list."""
    if cuda_visible_devices is None:
        return found
    visible: list[Gpu] = []
    for entry in map(str.strip, cuda_visible_devices.split(",")):
        named = [
            gpu for gpu in found if entry == str(gpu.index) or (entry.startswith("GPU-") and gpu.uuid.startswith(entry))
        ]
        if len(named) != 1:
            break
        visible += named
    return visible


def _text(value: str | bytes) -> str:
    """Older NVML bindings return bytes."""
    return value.decode() if isinstance(value, bytes) else value
