"""What lies in a run directory, read for a person: what was submitted, where it ran, its checkpoints. Changes nothing.

Files that are not there are empty. Raises StoreError, with what to do, for one that cannot be understood.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atlas.errors import StoreError
from atlas.training.checkpoints import FORMAT_VERSION, MANIFEST, STAGING

_STEP = re.compile(r"(?:.*-)?step-(\d+)")


@dataclass(frozen=True)
class CheckpointFiles:
    """One folder of `checkpoints/`."""

    name: str
    use: str
    """What it is for: `resume`, `best on dev`, `final model`, or `passed over` and `being written` for what is none."""
    step: int | None
    bytes: int
    flaw: str | None
    """Why it cannot be used, as far as names and sizes tell (a resume compares every byte). None: it is complete."""

    @property
    def complete(self) -> bool:
        return self.flaw is None


def checkpoints(run_dir: Path) -> list[CheckpointFiles]:
    """By step; those that are no use come last."""
    try:
        folders = [folder for folder in (run_dir / "checkpoints").iterdir() if folder.is_dir()]
    except OSError:
        return []
    found = [_checkpoint(folder) for folder in folders if folder.name != STAGING or any(_sizes(folder))]
    return sorted(found, key=lambda files: (not files.complete, files.step is None, files.step or 0, files.name))


def environment(run_dir: Path) -> dict[str, Any]:
    """Of the newest attempt: versions, machine, GPUs, as `atlas.provenance.environment` says them."""
    path = run_dir / "environment.json"
    lines = _read(path).rpartition("\n")[0].splitlines()  # a worker may be writing the last one
    return _document(path, lines[-1]) if lines else {}


def submitted(run_dir: Path) -> dict[str, Any]:
    """spec.json: `command`, `spec_file`, `spec_text`, `git`, `atlas_version`, `job`."""
    path = run_dir / "spec.json"
    text = _read(path)
    return _document(path, text) if text else {}


def result(run_dir: Path) -> dict[str, Any]:
    """result.json; {} before the end."""
    path = run_dir / "result.json"
    text = _read(path)
    return _document(path, text) if text else {}


def patch(run_dir: Path) -> str:
    """What the project's work tree had beyond its commit when the run was submitted; empty if nothing."""
    return _read(run_dir / "project.patch")


def _checkpoint(folder: Path) -> CheckpointFiles:
    match = _STEP.fullmatch(folder.name)
    sizes = dict(_sizes(folder))
    use, flaw = "other", None
    if folder.name == STAGING:
        use, flaw = "being written", "it is not yet whole, or its worker died while writing it"
    elif folder.name.startswith("passed-over-"):
        use, flaw = "passed over", "it was not as it was written when the run was resumed"
    elif folder.name.startswith("best-step-"):
        use, flaw = "best on dev", _without_weights(sizes)
    elif folder.name == "final":
        use, flaw = "final model", _without_weights(sizes)
    elif match:
        use, flaw = "resume", _unlike_its_manifest(folder, sizes)
    return CheckpointFiles(folder.name, use, int(match[1]) if match else None, sum(sizes.values()), flaw)


def _unlike_its_manifest(folder: Path, sizes: dict[str, int]) -> str | None:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        version = manifest["version"]
        written = {name: described["bytes"] for name, described in manifest["files"].items()}
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is not readable"
    if version != FORMAT_VERSION:
        return f"its format is version {version}, this Atlas reads {FORMAT_VERSION}"
    for name, size in written.items():
        if sizes.get(name) != size:
            return f"{name} has {sizes[name]} of {size} bytes" if name in sizes else f"{name} is missing"
    return _without_weights(sizes)


def _without_weights(sizes: dict[str, int]) -> str | None:
    weights = any(name.endswith((".safetensors", ".gguf")) for name in sizes)
    return None if weights else "it holds no weights"


def _sizes(folder: Path) -> Iterator[tuple[str, int]]:
    """Name -> bytes of the files that are still there: a worker may be removing them."""
    for path in folder.rglob("*"):
        try:
            if path.is_file():
                yield path.relative_to(folder).as_posix(), path.stat().st_size
        except OSError:
            continue


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error}; put it back or remove it") from error


def _document(path: Path, text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise StoreError(f"cannot read {path}: {error}; expected a JSON object: put it back or remove it") from error
    if not isinstance(document, dict):
        raise StoreError(f"{path} holds {text[:60]!r}, expected a JSON object: put it back or remove it")
    return document
