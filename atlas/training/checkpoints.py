"""Checkpoints that are either whole or absent.

A checkpoint is written in `.staging`, described by a manifest with the sha256 of every file, synced to the disk, and
only then renamed to `step-N`. Whatever a kill leaves behind is told from a whole one by reading it again.

`best-step-N` holds the weights of the best evaluation on dev, and nothing to resume from.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from atlas.errors import RunFailed

FORMAT_VERSION = 1
"""Version of the manifest and of what a checkpoint holds."""
MANIFEST = "manifest.json"
CLOCKS = "clocks.json"
SUMMARY = "summary.json"
STAGING = ".staging"

_REQUIRED = ("trainer_state.json", "optimizer.pt", "scheduler.pt", "rng_state.pth", CLOCKS, SUMMARY)
"""Without one of these, a resumed run would go on silently and differently."""
_STEP = re.compile(r"step-(\d+)")


def commit(staged: Path, checkpoints: Path, step: int, clocks: Mapping[str, float], summary: Mapping[str, Any]) -> Path:
    """Makes a staged directory the checkpoint of a step, which then survives a power cut and did not exist before."""
    (staged / CLOCKS).write_text(json.dumps(clocks))
    (staged / SUMMARY).write_text(json.dumps(summary))
    files = {name: _describe(path) for name, path in _files(staged)}
    (staged / MANIFEST).write_text(json.dumps({"version": FORMAT_VERSION, "step": step, "files": files}, indent=1))
    return publish(staged, checkpoints / f"step-{step}")


def publish(staged: Path, target: Path) -> Path:
    """Syncs a directory to the disk and moves it into place, instead of what was there."""
    for _, path in _files(staged):
        _sync(path)
    for directory in (staged, *(path for path in staged.rglob("*") if path.is_dir())):
        _sync(directory)
    shutil.rmtree(target, ignore_errors=True)
    staged.rename(target)
    _sync(target.parent)
    return target


def rotate(checkpoints: Path, keep: int) -> None:
    """Removes all but the newest `keep` checkpoints."""
    for step in sorted(_steps(checkpoints))[:-keep]:
        shutil.rmtree(checkpoints / f"step-{step}")


def best_weights(checkpoints: Path, step: int) -> Path:
    """Where the weights of a step are kept if that step was the best on dev when it was measured."""
    return checkpoints / f"best-step-{step}"


def rotate_best(checkpoints: Path, step: int) -> None:
    """Removes the best weights of all steps but this one and those that a checkpoint's summary calls the best: a run
    that is resumed from there needs them again."""
    wanted = {best_weights(checkpoints, step).name}
    wanted |= {best_weights(checkpoints, best).name for best in _best_steps(checkpoints)}
    for weights in checkpoints.glob("best-step-*"):
        if weights.name not in wanted:
            shutil.rmtree(weights)


def step_of(checkpoint: Path) -> int:
    """The step of a directory named `step-N`."""
    match = _STEP.fullmatch(checkpoint.name)
    assert match, checkpoint
    return int(match[1])


def newest_complete(checkpoints: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint whose every byte is as it was written, and why newer ones were passed over.

    A half-written one is removed; one that was passed over is renamed to `passed-over-step-N`, so that it neither
    counts as one of the kept ones nor is mistaken for a newer one later.
    """
    reasons = []
    staging = checkpoints / STAGING
    if staging.is_dir() and any(staging.iterdir()):
        shutil.rmtree(staging)
        reasons.append("a checkpoint was being written when the worker ended; removed what there was of it")
    for step in sorted(_steps(checkpoints), reverse=True):
        checkpoint = checkpoints / f"step-{step}"
        flaw = _flaw(checkpoint)
        if flaw is None:
            return checkpoint, reasons
        reasons.append(f"passed over {checkpoint.name}: {flaw}")
        aside = checkpoints / f"passed-over-{checkpoint.name}"
        shutil.rmtree(aside, ignore_errors=True)
        checkpoint.rename(aside)
    return None, reasons


def resume_point(checkpoints: Path) -> tuple[Path | None, list[str]]:
    """As `newest_complete`. Raises RunFailed(`bad_checkpoint`) if there are checkpoints and none is complete."""
    checkpoint, reasons = newest_complete(checkpoints)
    broken = [path.name for path in checkpoints.glob("passed-over-step-*")]
    if checkpoint is None and broken:
        why = "; ".join(reasons) or f"{', '.join(sorted(broken))} were broken before"
        raise RunFailed(
            "bad_checkpoint",
            f"none of the checkpoints in {checkpoints} is complete: {why}; start over with `atlas rerun`",
        )
    return checkpoint, reasons


def _flaw(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint; None if nothing is."""
    if checkpoint.is_symlink() or any(path.is_symlink() for path in checkpoint.rglob("*")):
        return "it holds a symbolic link"
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text())
        version, files, step = manifest["version"], dict(manifest["files"]), manifest["step"]
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (ValueError, KeyError, TypeError):
        return f"{MANIFEST} is not readable"
    if version != FORMAT_VERSION:
        return f"its format is version {version}, this Atlas reads {FORMAT_VERSION}"
    if step != step_of(checkpoint):
        return f"{MANIFEST} is of step {step}"
    found = dict(_files(checkpoint))
    found.pop(MANIFEST)
    for name in [*_REQUIRED, *files]:
        if name not in found:
            return f"{name} is missing"
    for name, path in found.items():
        if name not in files:
            return f"{name} is not in the manifest"
        if _describe(path) != files[name]:
            return f"{name} is not as it was written"
    if not any(name.endswith(".safetensors") for name in found):
        return "it holds no weights"
    return None


def _files(directory: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            yield path.relative_to(directory).as_posix(), path


def _describe(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": path.stat().st_size}


def _steps(checkpoints: Path) -> list[int]:
    return [step_of(path) for path in checkpoints.glob("step-*") if _STEP.fullmatch(path.name)]


def _best_steps(checkpoints: Path) -> Iterator[int]:
    for step in _steps(checkpoints):
        try:
            yield json.loads((checkpoints / f"step-{step}" / SUMMARY).read_text())["best"]["step"]
        except (OSError, ValueError, KeyError):
            continue  # a broken checkpoint: nothing will be resumed from it


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
