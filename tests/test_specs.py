"""Every spec that is shipped loads, and the pairs that are to be compared differ in nothing else."""

from pathlib import Path

import pytest

from atlas.cli.planning import differences
from atlas.job import check, load

SPECS = Path(__file__).parents[1] / "specs"
FILES = sorted(SPECS.rglob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SPECS)))
def test_every_shipped_spec_loads_and_can_run(file):
    check(load(file))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SPECS)))
def test_every_shipped_spec_points_the_editor_to_the_schema(file):
    first = file.read_text().splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=")
    assert (file.parent / first.partition("=")[2]).resolve() == (SPECS / "schema.json").resolve()


@pytest.mark.parametrize(
    ("folder", "allowed"),
    [("case_study", set()), ("quickstart", {"training.learning_rate"})],
)
def test_the_compared_jobs_differ_only_in_the_method_and_the_teacher(folder, allowed):
    found = differences(load(SPECS / folder / "gkd.yaml"), load(SPECS / folder / "grpo.yaml"))
    elsewhere = {path for path in found if path.split(".")[0] not in ("name", "method", "teacher")}
    assert elsewhere == allowed
    assert "method.type" in found and "teacher.model" in found


def test_the_case_study_is_the_one_that_was_published():
    gkd = load(SPECS / "case_study" / "gkd.yaml")
    assert gkd.student.model == "Qwen/Qwen2.5-7B-Instruct"
    assert gkd.teacher.model == "Qwen/Qwen2.5-14B-Instruct"
    assert (gkd.dataset.type, gkd.dataset.path, gkd.dataset.test_size) == ("metamathqa", None, 1000)
    assert gkd.method.lmbda == 1.0
