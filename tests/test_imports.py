"""Imports point one way, and the command line starts fast: checked on what is really loaded."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "wandb", "streamlit", "sqlmodel", "sqlalchemy", "alembic")


def loaded_by(code):
    script = f"{code}\nimport sys; print(*sys.modules, sep='\\n')"
    return set(
        subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    )


def test_help_loads_nothing_heavy():
    code = "import contextlib, io, sys\nfrom atlas.cli import app\nsys.argv = ['atlas', '--help']\n"
    code += "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit): app()"
    modules = loaded_by(code)
    assert "atlas.cli" in modules
    assert not modules & {*HEAVY, "pydantic"}


def test_the_package_itself_loads_nothing_else():
    assert {m for m in loaded_by("import atlas") if m.startswith("atlas")} == {"atlas"}


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("atlas.errors", ("atlas.spec", "pydantic")),
        ("atlas.spec", ("atlas.methods", "atlas.job", *HEAVY)),
        ("atlas.job", ("atlas.run", "atlas.store", "atlas.scheduler", "atlas.training", *HEAVY)),
        ("atlas.run", ("atlas.store", "atlas.scheduler", "atlas.cli", *HEAVY)),
        ("atlas.worker", ("atlas.store", "atlas.scheduler", "atlas.cli", *HEAVY)),
        ("atlas.store", ("atlas.scheduler", "atlas.worker", "atlas.cli", "torch", "transformers", "trl")),
        ("atlas.scheduler", ("atlas.cli", "atlas.training", "torch", "transformers", "trl")),
        ("atlas.analysis.summary", ("atlas.store", "atlas.job", *HEAVY)),
    ],
)
def test_imports_point_one_way(module, forbidden):
    assert not loaded_by(f"import {module}") & set(forbidden)
