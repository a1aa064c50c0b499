"""Every spec that is shipped loads, and the pairs that are to be compared differ in nothing else."""

from pathlib import Path

import pytest
from recorded import Recorded, write

from atlas.experiment import load_checked
from atlas.job import load
from atlas.reference import json_schema
from atlas.source import read
from atlas.store.traces import TraceStore
from atlas.traces.filter import Filter

SPECS = Path(__file__).parents[1] / "specs"
FILES = sorted(SPECS.rglob("*.yaml"))


@pytest.fixture(scope="module")
def home_with_traces(tmp_path_factory):
    """A home with sessions as the agent of specs/loop records them: half of them were right without help."""
    home = tmp_path_factory.mktemp("home")
    sessions = []
    for n in range(200):
        session = Recorded(f"What is {n} doubled?", tags=["practice"])
        if n % 2:
            session.attempt(f"It is {n}.").outcome(False, str(2 * n)).intervene(f"{n} + {n} = {2 * n}.", by="tool")
        session.attempt(f"{n} + {n} = {2 * n}. The answer is: {2 * n}").outcome(True, str(2 * n))
        sessions.append(session.outcome(n % 2 == 0, scorer="unaided"))
    with TraceStore.open(home) as store:
        store.import_file(Path(write(home / "traces" / "agent.jsonl", sessions)))
        store.review_all(Filter(tags=("practice",)), "approved", by="rule:all")
    return home


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SPECS)))
def test_every_shipped_spec_loads_and_can_run(file, home_with_traces, monkeypatch):
    monkeypatch.setenv("ATLAS_HOME", str(home_with_traces))
    load_checked(file)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SPECS)))
def test_every_shipped_spec_fits_the_schema(file):
    jsonschema = pytest.importorskip("jsonschema")
    assert jsonschema.Draft202012Validator(json_schema()).is_valid(read(file).root.plain())


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SPECS)))
def test_every_shipped_spec_points_the_editor_to_the_schema(file):
    first = file.read_text().splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=")
    assert (file.parent / first.partition("=")[2]).resolve() == (SPECS / "schema.json").resolve()


@pytest.mark.parametrize(
    ("folder", "allowed"),
    [("case_study", set()), ("quickstart", {"training.learning_rate"})],
)
def test_the_compared_arms_differ_only_in_the_method_and_the_teacher(folder, allowed):
    experiment = load_checked(SPECS / folder / "experiment.yaml")
    elsewhere = {path for path in experiment.differences if path.split(".")[0] not in ("method", "teacher")}
    assert elsewhere == allowed
    assert list(experiment.spec.arms) == ["gkd", "grpo", "grpo_random", "grpo_format"]
    assert experiment.spec.seeds == [0, 1, 2]
    assert list(experiment.baselines) == ["student", "teacher"]
    assert experiment.spec.allow_differences == []
    rewards = {run.arm: run.job.method.rewards for run in experiment.runs if run.arm != "gkd"}
    weights = {arm: (weight.answer, weight.format, weight.random) for arm, weight in rewards.items()}
    assert weights == {"grpo": (1, 0, 0), "grpo_random": (0, 0, 1), "grpo_format": (0, 1, 0)}


def test_the_case_study_is_the_one_that_was_published():
    gkd = load(SPECS / "case_study" / "gkd.yaml")
    assert gkd.student.model == "Qwen/Qwen2.5-7B-Instruct"
    assert gkd.teacher.model == "Qwen/Qwen2.5-14B-Instruct"
    assert (gkd.dataset.type, gkd.dataset.path, gkd.dataset.test_size) == ("metamathqa", None, 1000)
    assert gkd.method.lmbda == 1.0
