"""The places a job can run, named under `executor:`. To add one: a file here, and a name in this union."""

from atlas.executors.local import LocalExecutor

AnyExecutor = LocalExecutor

__all__ = ["AnyExecutor", "LocalExecutor"]
