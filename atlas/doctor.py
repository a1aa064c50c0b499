"""What would stop a run on this machine. Each check takes what it judges as arguments, and looks it up by default."""

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import psutil
from packaging.requirements import Requirement

from atlas import __version__, network
from atlas.errors import StoreError
from atlas.provenance import Gpu, gpus, installed_version

_GIB = 2**30
_NETWORK_TIMEOUT_SECONDS = 3.0


@dataclass(frozen=True)
class Check:
    """One finding. `fail`: runs will not work; `warn`: some will not, or something is at risk."""

    name: str
    status: Literal["ok", "warn", "fail"]
    message: str
    next_step: str | None = None


def checks(home: Path | None = None) -> list[Check]:
    """Everything worth knowing about this machine, in at most a few seconds. `home`: default as for every command.

    Shows no key or token. Imports neither torch nor wandb.
    """
    home = home or _default_home()
    found = gpus()
    asked: list[tuple[str, Callable[[], Check]]] = [
        ("atlas", atlas),
        *((f"packages: {extra}" if extra else "packages", partial(packages, extra)) for extra in _extras()),
        ("torch", partial(torch, found=found)),
        ("gpus", partial(graphics, found)),
        ("memory", memory),
        ("disk", partial(disk, home)),
        ("file system", partial(file_system, home)),
        ("sqlite", sqlite),
        ("store", partial(store, home)),
        ("hub", hub),
        ("hub token", hub_token),
        ("wandb", wandb),
        ("git", git),
    ]
    return [_guarded(name, check) for name, check in asked]


def atlas(python: str = platform.python_version()) -> Check:
    message = f"Atlas {__version__}, Python {python}"
    if tuple(map(int, re.findall(r"\d+", python)[:2])) < (3, 11):
        return Check("atlas", "fail", f"{message}; expected Python 3.11 or newer", "make a virtual environment with it")
    return Check("atlas", "ok", message)


def packages(
    extra: str,
    needed: Sequence[Requirement] | None = None,
    version_of: Callable[[str], str | None] = installed_version,
) -> Check:
    """Installed against needed versions of one extra; "" is the core."""
    name = f"packages: {extra}" if extra else "packages"
    target = f"atlas[{extra}]" if extra else "atlas"
    needed = _requirements(extra) if needed is None else needed
    installed = {requirement: version_of(requirement.name) for requirement in needed}
    missing = [str(requirement.name) for requirement, version in installed.items() if version is None]
    wrong = [
        f"{requirement.name} {version} (expected {requirement.specifier})"
        for requirement, version in installed.items()
        if version is not None and not requirement.specifier.contains(version, prereleases=True)
    ]
    if extra and len(missing) == len(installed):
        return Check(name, "ok", "not installed", f"if you need it: pip install '{target}'")
    if missing or wrong:
        problems = [f"{package} is not installed" for package in missing] + wrong
        return Check(name, "warn" if extra else "fail", "; ".join(problems), f"pip install --upgrade '{target}'")
    versions = ", ".join(f"{requirement.name} {version}" for requirement, version in installed.items())
    return Check(name, "ok", versions)


def torch(build: tuple[str, str | None] | None = None, found: Sequence[Gpu] = ()) -> Check:
    """`build`: torch's version and the CUDA version that it was built for."""
    build = build or _torch_build()
    if build is None:
        return Check(
            "torch", "warn", "not installed: this machine can check and queue jobs, not run them", "make install"
        )
    version, cuda = build
    if cuda is None and found:
        return Check(
            "torch",
            "fail",
            f"{version} is built for the CPU only, but there is a GPU: {found[0].name}",
            "install a CUDA build, see https://pytorch.org/get-started/locally",
        )
    return Check("torch", "ok", f"{version}, built for {f'CUDA {cuda}' if cuda else 'the CPU'}")


def graphics(
    found: Sequence[Gpu],
    driver_loaded: bool = Path("/proc/driver/nvidia/version").exists(),
    bindings: str | None = installed_version("nvidia-ml-py"),
    environment: Mapping[str, str] = os.environ,
) -> Check:
    if found:
        return Check("gpus", "ok", "; ".join(_describe(gpu) for gpu in found) + f"; driver {found[0].driver}")
    if driver_loaded and bindings is None:
        return Check(
            "gpus", "warn", "there is an NVIDIA driver, but its bindings are missing", "pip install nvidia-ml-py"
        )
    if driver_loaded and "CUDA_VISIBLE_DEVICES" in environment:
        return Check(
            "gpus",
            "warn",
            f"CUDA_VISIBLE_DEVICES={environment['CUDA_VISIBLE_DEVICES']!r} leaves no whole GPU; jobs run on the CPU",
            "unset it, or name GPUs by index or UUID (MIG instances are not supported)",
        )
    if driver_loaded:
        return Check(
            "gpus", "warn", "there is an NVIDIA driver, but no GPU answers; jobs run on the CPU", "run nvidia-smi"
        )
    return Check("gpus", "ok", "none; jobs run on the CPU")


def memory(total_bytes: int | None = None, available_bytes: int | None = None) -> Check:
    now = psutil.virtual_memory()
    total_bytes = now.total if total_bytes is None else total_bytes
    available_bytes = now.available if available_bytes is None else available_bytes
    message = f"{available_bytes / _GIB:.1f} of {total_bytes / _GIB:.1f} GiB free"
    if available_bytes < 2 * _GIB:
        return Check("memory", "warn", message, "end other programs: torch alone needs about 1 GiB")
    return Check("memory", "ok", message)


def disk(home: Path, free_bytes: int | None = None) -> Check:
    free_bytes = shutil.disk_usage(_existing(home)).free if free_bytes is None else free_bytes
    message = f"{free_bytes / _GIB:.1f} GiB free at {home}"
    next_step = "remove old checkpoints there, or set ATLAS_HOME to a larger disk"
    if free_bytes < _GIB:
        return Check("disk", "fail", message, next_step)
    if free_bytes < 20 * _GIB:
        return Check("disk", "warn", f"{message}: a checkpoint of a 7B model takes 15 to 90 GiB", next_step)
    return Check("disk", "ok", message)


def file_system(home: Path, mounts: Mapping[str, str] | None = None) -> Check:
    """`mounts`: mount point to type of file system."""
    if mounts is None:
        mounts = {mount.mountpoint: mount.fstype for mount in psutil.disk_partitions(all=True)}
    place = _existing(home).resolve()
    above = [point for point in mounts if place.is_relative_to(point)]
    kind = mounts[max(above, key=len)] if above else "unknown"
    if _NETWORK_FILE_SYSTEM.fullmatch(kind):
        return Check(
            "file system",
            "fail",
            f"{home} is on {kind}, a network file system: SQLite's WAL does not work there and can lose data",
            "set ATLAS_HOME to a folder on a local disk",
        )
    return Check("file system", "ok", f"{kind} at {home}")


def sqlite(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> Check:
    shown = ".".join(map(str, version))
    repaired = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)
    if repaired:
        return Check("sqlite", "ok", shown)
    return Check(
        "sqlite",
        "warn",
        f"{shown} has the WAL-reset race, which can corrupt a database that two processes checkpoint at once",
        "use a Python whose SQLite is 3.51.3 or newer (or 3.50.7, 3.44.6), and run one scheduler at a time",
    )


def store(home: Path) -> Check:
    from atlas.store import Store
    from atlas.store.database import FILE_NAME

    if not (home / FILE_NAME).exists():
        writable = os.access(_existing(home), os.W_OK)
        if not writable:
            return Check("store", "fail", f"{_existing(home)} cannot be written", "set ATLAS_HOME to a folder of yours")
        return Check("store", "ok", f"none yet at {home}", "`atlas submit` makes it")
    try:
        opened = Store.open_read_only(home)
    except StoreError as error:
        return Check(
            "store", "fail", str(error), "if it is damaged: `atlas reindex` rebuilds it from the run directories"
        )
    try:
        return Check("store", "ok", f"{len(opened.runs())} runs in {opened.path}")
    finally:
        opened.close()


def hub(
    environment: Mapping[str, str] = os.environ,
    why_unreachable: Callable[[str, float], str | None] = network.why_unreachable,
) -> Check:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        if network.is_switched_on(name, environment):
            return Check("hub", "warn", f"{name} is set: only what is in the cache can be loaded", f"unset {name}")
    url = environment.get("HF_ENDPOINT") or "https://huggingface.co"
    reason = why_unreachable(url, _NETWORK_TIMEOUT_SECONDS)
    if reason is None:
        return Check("hub", "ok", f"{url} answers")
    return Check(
        "hub",
        "warn",
        f"{url} cannot be reached: {reason}",
        "check network and HTTPS_PROXY, set HF_ENDPOINT to a mirror, or use local models and data",
    )


def hub_token(environment: Mapping[str, str] = os.environ) -> Check:
    home = Path(environment.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    file = Path(environment.get("HF_TOKEN_PATH") or home / "token")
    if environment.get("HF_TOKEN") or environment.get("HUGGING_FACE_HUB_TOKEN"):
        return Check("hub token", "ok", "there is one in the environment")
    if file.is_file():
        return Check("hub token", "ok", f"there is one in {file}")
    return Check("hub token", "ok", "none; enough for public models", "for gated ones: `hf auth login` or HF_TOKEN")


def wandb(
    environment: Mapping[str, str] = os.environ,
    has_key: Callable[[], bool] = network.has_key,
    why_unreachable: Callable[[str, float], str | None] = network.why_unreachable,
) -> Check:
    url, offline = network.host_url(), "runs with `wandb:` are written to offline files"
    mode = environment.get("WANDB_MODE", "").lower()
    if mode in ("offline", "dryrun", "disabled"):
        return Check("wandb", "warn", f"WANDB_MODE is {mode}", "unset WANDB_MODE to stream runs with `wandb:`")
    if not has_key():
        return Check("wandb", "warn", f"no login for {url}: {offline}", "`wandb login`, or set WANDB_API_KEY")
    reason = why_unreachable(url, _NETWORK_TIMEOUT_SECONDS)
    if reason:
        return Check("wandb", "warn", f"{url} cannot be reached: {reason}; {offline}", "check network and HTTPS_PROXY")
    return Check("wandb", "ok", f"there is a login for {url}, which answers")


def git(program: str | None = None) -> Check:
    program = shutil.which("git") if program is None else program
    try:
        version = subprocess.run([program or "git", "--version"], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return Check("git", "warn", "not found: runs cannot record the commit they came from", "install git")
    return Check("git", "ok", version.stdout.strip().removeprefix("git version "))


_NETWORK_FILE_SYSTEM = re.compile(
    r"9p|afs|beegfs|(fuse\.)?ceph(fs)?|cifs|(fuse\.)?glusterfs|gpfs|lustre|ncpfs|nfs4?|smb(2|3|fs)|wekafs"
    r"|fuse\.(gcsfuse|juicefs|rclone|s3fs|sshfs)"
)


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except Exception as error:  # one broken part must not hide the state of the others
        message = f"could not be checked: {type(error).__name__}: {error}"
        return Check(name, "fail", message, "please report this as a bug of Atlas")


def _default_home() -> Path:
    try:
        from atlas.store import home_from_environment
    except ImportError:  # the doctor must answer when packages are missing: that is what it is asked about
        return Path(os.environ.get("ATLAS_HOME") or ".atlas").expanduser().absolute()
    return home_from_environment()


def _extras() -> list[str]:
    metadata = importlib.metadata.metadata("atlas")
    return ["", *(metadata.get_all("Provides-Extra") or [])]


def _requirements(extra: str) -> list[Requirement]:
    """What the installed Atlas says it needs for this extra ("": always)."""
    declared = [Requirement(line) for line in importlib.metadata.requires("atlas") or []]
    always = [requirement for requirement in declared if _applies(requirement, "")]
    return [
        requirement
        for requirement in declared
        if _applies(requirement, extra) and (not extra or requirement not in always)
    ]


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _torch_build() -> tuple[str, str | None] | None:
    """From torch's files: importing it takes seconds."""
    version = installed_version("torch")
    spec = importlib.util.find_spec("torch") if version else None
    if version is None or spec is None or spec.origin is None:
        return None
    text = (Path(spec.origin).parent / "version.py").read_text()
    cuda = re.search(r"^cuda\b.*=\s*['\"]([\d.]+)", text, re.MULTILINE)
    return version, cuda[1] if cuda else None


def _describe(gpu: Gpu) -> str:
    return f"{gpu.index}: {gpu.name}, {gpu.free_bytes / _GIB:.0f} of {gpu.memory_bytes / _GIB:.0f} GiB free"


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())
