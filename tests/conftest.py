"""What several test folders need."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the project's real data; the test is skipped where it is absent."""
    folder = Path(os.environ.get("ATLAS_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set ATLAS_SHARED")
    return folder
