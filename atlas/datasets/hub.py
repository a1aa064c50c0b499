"""Datasets on the Hugging Face hub."""

import errno
from abc import ABC

from atlas.datasets.base import Dataset, Splits
from atlas.datasets.files import Row
from atlas.errors import RunFailed, SpecError
from atlas.spec import LocalPath


class HubDataset(Dataset, ABC):
    """A dataset of the hub, or a local copy of it in the same schema."""

    path: LocalPath | None = None
    """Local copy to read instead of the hub."""
    revision: str | None = None
    """Branch, tag or commit on the hub. Pin a commit to make a run repeatable."""

    def check(self) -> Splits | None:
        if self.path is None:
            return None
        if self.revision is not None:
            raise SpecError("a local path has no revision, so this would be ignored; remove it", "dataset.revision")
        return self.load()


def read_hub(name: str, split: str, revision: str | None, config: str | None = None) -> list[Row]:
    """The rows of a hub dataset, from its cache if it was downloaded before.

    Raises RunFailed (`hub_unreachable`, `disk_full`, `missing_package`), and SpecError if there is no such revision.
    """
    try:
        import datasets
    except ImportError as error:
        raise RunFailed("missing_package", "the hub needs the package datasets: pip install 'atlas[train]'") from error
    try:
        table = datasets.load_dataset(name, config, split=split, revision=revision)
    except datasets.exceptions.DatasetNotFoundError as error:
        if revision is None:
            raise _unreachable(name, error) from error
        raise SpecError(f"no revision {revision!r} of {name} could be read: {error}", "dataset.revision") from error
    except (OSError, datasets.exceptions.DatasetsError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise RunFailed("disk_full", f"no space left to download {name}; free some, or set HF_HOME") from error
        raise _unreachable(name, error) from error
    rows: list[Row] = table.to_list()
    return rows


def _unreachable(name: str, error: Exception) -> RunFailed:
    return RunFailed(
        "hub_unreachable",
        f"the dataset {name} could not be read from the hub: {error}. Check the network; or download it once and set "
        "HF_HUB_OFFLINE=1; or download its files by hand and name them with dataset.path",
    )
