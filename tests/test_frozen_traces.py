"""The review gate around the queue: what a run learns from is what was approved when it was submitted."""

import json
import stat
from pathlib import Path

import pytest
import recorded
from command_line import atlas
from recorded import Recorded, failed, solved

from atlas.datasets import Traces
from atlas.errors import SpecError
from atlas.executors import ContainerExecutor
from atlas.experiment import expand, load_checked
from atlas.job import JobSpec, check
from atlas.run import Run
from atlas.source import read
from atlas.store import Store
from atlas.store.traces import TraceStore
from atlas.submission import submit, submit_experiment

TINY = Path(__file__).parents[1] / "specs" / "quickstart" / "tiny"
JOB = f"""
name: again
student: {{model: {TINY}, from_scratch: true}}
method: {{type: sft}}
dataset: {{type: traces, dev_size: 2, test_size: 3}}
training: {{max_steps: 1, batch_size: 2}}
evaluation: {{max_completion_length: 16}}
resources: {{gpus: 0}}
"""
NAMES = [f"s{n}" for n in range(12)]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home whose store holds twelve sessions that somebody approved, and one that nobody did."""
    home = tmp_path / ".atlas"
    monkeypatch.setenv("ATLAS_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text(JOB)
    sessions = [*(solved(n, id=name) for n, name in enumerate(NAMES)), Recorded("new?", id="new").attempt("secret")]
    file = Path(recorded.write(tmp_path / "agent.jsonl", sessions))
    with TraceStore.open(home) as store:
        store.import_file(file)
        store.review(NAMES, "approved", by="ann")
    return home


@pytest.fixture
def job(home):
    loaded = load_checked("job.yaml")
    assert isinstance(loaded, JobSpec)
    return loaded


@pytest.fixture
def store(home):
    with Store.open(home) as store:
        yield store


def quarantine(home, *ids):
    with TraceStore.open(home) as traces:
        assert traces.review(ids, "quarantined", by="bob") == len(ids)


def queued(store, run_id) -> JobSpec:
    return JobSpec.model_validate_json(store.spec(run_id))


def sessions_in(path) -> set[str]:
    return {json.loads(line)["session"] for line in Path(path).read_text().splitlines()}


def test_submit_freezes_what_is_approved_for_the_owner_alone(home, store, job):
    run = submit(store, job)
    path = Path(queued(store, run.run_id).dataset.path)
    assert path.parent == home / "traces" and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert sessions_in(path) == set(NAMES) and "secret" not in path.read_text()
    assert list(home.glob(".traces-*")) == [], "nothing half-written is left"


def test_equal_sessions_are_one_file_and_one_job(home, store, job):
    first = submit(store, job)
    again = submit(store, job)
    assert (again.run_id, again.earlier_state) == (first.run_id, "queued")
    other = submit(store, job.model_copy(update={"name": "other"}))
    assert queued(store, other.run_id).dataset == queued(store, first.run_id).dataset
    assert len(list((home / "traces").iterdir())) == 1


def test_a_later_quarantine_changes_no_queued_run_but_what_is_submitted_then(home, store, job):
    first = submit(store, job)
    frozen = queued(store, first.run_id).dataset
    before = frozen.load()
    quarantine(home, "s0", "s1")
    assert frozen.load() == before
    assert submit(store, job).earlier_state is None
    later = queued(store, submit(store, job, force=True).run_id).dataset
    assert sessions_in(later.path) == set(NAMES) - {"s0", "s1"}


def test_a_job_that_was_queued_once_keeps_its_file(home, store, job):
    """As `atlas rerun` queues it again."""
    first = queued(store, submit(store, job).run_id)
    with TraceStore.open(home) as traces:
        traces.review(["new"], "approved", by="ann")
    check(first)
    assert queued(store, submit(store, first, force=True).run_id) == first


def test_a_copy_with_a_session_that_was_quarantined_since_is_not_queued_again(home, store, job):
    first = queued(store, submit(store, job).run_id)
    quarantine(home, "s0", "s3")
    with pytest.raises(SpecError, match=r"2 of its sessions have been quarantined since, s0 .*without path"):
        check(first)


def test_new_records_of_an_approved_session_take_it_out_until_it_is_looked_at_again(home, store, job, tmp_path):
    more = Recorded("What is 0 doubled?", id="s0")
    more.lines = [{"type": "attempt", "id": "s0-more", "session": "s0", "at_seconds": 1_700_000_100.0, "text": "odd"}]
    with TraceStore.open(home) as traces:
        traces.import_file(Path(recorded.write(tmp_path / "more.jsonl", [more])))
    assert "s0" not in sessions_in(queued(store, submit(store, job).run_id).dataset.path)
    assert job.dataset.load().card["dropped"] == {"unreviewed": 2}


def test_the_worker_reads_the_frozen_file_and_keeps_its_card(home, store, job):
    run = Run(Path(store.run(submit(store, job).run_id).run_dir))
    splits = run.job.dataset.load()
    run.record_splits(splits)
    assert json.loads((run.directory / "splits.json").read_text())["card"] == splits.card
    assert splits.card["reviewers"] == {"ann": 12} and splits.card["sessions"] == 12


def test_a_container_sees_the_frozen_file(home, store, job):
    run = store.run(submit(store, job).run_id)
    document = json.loads((Path(run.run_dir) / "spec.json").read_text())
    path = document["job"]["dataset"]["path"]
    command = ContainerExecutor(image="i").command(Path(run.run_dir), document, [], [])
    assert f"--volume={path}:{path}:ro" in command
    assert not [part for part in command if "traces.db" in part]


def test_print_command_names_the_frozen_file(home):
    said = atlas("submit", "job.yaml", "--print-command", "--set", "executor={type: container, image: i}")
    (path,) = (home / "traces").iterdir()
    assert f"--volume={path}:{path}:ro" in said


def test_all_runs_of_an_experiment_see_the_same_sessions(home, store, tmp_path):
    arms = "arms: {sft: {}, slow: {training: {learning_rate: 1e-6}}}"
    (tmp_path / "e.yaml").write_text(
        f"kind: experiment\nname: e\nbase: job.yaml\nseeds: [0, 1]\nbaselines: []\n{arms}\n"
    )
    _, submissions = submit_experiment(store, load_checked("e.yaml"))
    paths = {queued(store, submission.run_id).dataset.path for submission in submissions}
    assert len(submissions) == 4 and len(paths) == 1
    assert all(each.earlier_state == "queued" for each in submit_experiment(store, load_checked("e.yaml"))[1])


def test_arms_may_learn_from_different_outcomes_and_are_asked_the_same(home, store, tmp_path):
    sessions = [failed(n, id=f"f{n}") for n in range(50, 62)]
    with TraceStore.open(home) as traces:
        traces.import_file(Path(recorded.write(tmp_path / "failed.jsonl", sessions)))
        traces.review([session.id for session in sessions], "approved", by="ann")
    gkd = f"gkd: {{method: {{type: gkd}}, teacher: {{model: {TINY}}}, dataset: {{outcome: failed}}}}"
    student = f"student: {{model: {TINY}, from_scratch: false}}"
    (tmp_path / "e.yaml").write_text(
        f"kind: experiment\nname: e\nbase: {{extends: job.yaml, {student}}}\nseeds: [0]\nbaselines: []\n"
        f"arms: {{sft: {{}}, {gkd}}}\nallow_differences: [dataset.outcome]\n"
    )
    sft, gkd = (run.job.dataset.load() for run in expand(read("e.yaml")).runs)
    assert sft.fingerprint("test") == gkd.fingerprint("test") and sft.fingerprint("dev") == gkd.fingerprint("dev")
    assert all(e.solution for e in sft.train) and not any(e.solution for e in gkd.train)


def test_plan_shows_the_card_and_knows_the_equal_run_without_writing(home, store, job):
    shown = atlas("plan", "job.yaml")
    assert "data      13 sessions: 7 trained on, 5 held out" in shown and "dropped: unreviewed 1" in shown
    assert not (home / "traces").exists()
    submit(store, job)
    assert "this job is the same" in atlas("plan", "job.yaml")
    card = json.loads(atlas("plan", "job.yaml", "--json"))["data"]
    assert card["reviewers"] == {"ann": 12}
    quarantine(home, "s0")
    assert "dataset.path: " in atlas("plan", "job.yaml")
    assert len(list((home / "traces").iterdir())) == 1


def test_check_shows_the_card(home):
    said = atlas("check", "job.yaml")
    assert "job.yaml: ok" in said and "13 sessions: 7 trained on, 5 held out" in said


def test_names_from_traces_cannot_write_to_the_terminal(home, tmp_path):
    with TraceStore.open(home) as traces:
        traces.review(["new"], "quarantined", by="x")
        traces.review(["s3"], "unreviewed", by="x")
        traces.review(["s3"], "approved", by="\x1b[2Jmallory")
    assert "\x1b[2J" not in atlas("plan", "job.yaml") and "mallory" in atlas("plan", "job.yaml")


def test_an_empty_store_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("ATLAS_HOME", str(tmp_path / "empty"))
    (tmp_path / "job.yaml").write_text(JOB)
    monkeypatch.chdir(tmp_path)
    said = atlas("plan", "job.yaml", expect=2)
    assert "job.yaml:5:" in said and "atlas traces import" in said and "atlas traces approve" in said


def problems(job: JobSpec) -> str:
    with pytest.raises(SpecError) as caught:
        check(job)
    return str(caught.value)


def rewarded(dataset: Traces) -> JobSpec:
    return JobSpec.model_validate(
        {
            "name": "reward",
            "student": {"model": "a/b"},
            "method": {"type": "grpo", "num_generations": 2},
            "dataset": dataset.model_dump(mode="json"),
            "training": {"max_steps": 1, "batch_size": 2},
        }
    )


@pytest.fixture
def judged(tmp_path):
    """Four sessions that a human judged, and six that can be measured again."""
    sessions = [Recorded(f"Write {n}.", id=f"j{n}").attempt(f"Line {n}.") for n in range(4)]
    sessions = [session.outcome(True, scorer="human").reviewed() for session in sessions]
    path = recorded.write(tmp_path / "judged.jsonl", [*sessions, *(solved(n) for n in range(6))])
    return lambda **settings: Traces(path=path, dev_size=1, test_size=2, **settings)


def test_rewards_need_references_and_a_scorer_that_can_be_measured_again(judged):
    message = problems(rewarded(judged()))
    assert "of 4 training examples nobody knows the answer" in message and "dataset.scorer" in message
    message = problems(rewarded(judged(scorer="human")))
    assert "dataset.scorer: human says what somebody measured" in message and "answer, exact_match" in message
    check(rewarded(judged(scorer="answer")))


def test_imitating_failures_is_refused(tmp_path):
    path = recorded.write(tmp_path / "t.jsonl", [solved(1), solved(2), solved(3), failed(4), failed(5)])
    job = JobSpec.model_validate(
        {
            "name": "imitate",
            "student": {"model": "a/b"},
            "method": {"type": "sft"},
            "dataset": {"type": "traces", "path": path, "dev_size": 1, "test_size": 1, "outcome": "any"},
            "training": {"max_steps": 1, "batch_size": 1},
        }
    )
    assert "imitates worked solutions" in problems(job)


def test_a_date_in_a_file_is_text(home):
    job = load_checked("job.yaml", ["dataset.since=2023-01-31"])
    assert job.dataset.since == "2023-01-31"
    with pytest.raises(SpecError, match=r"dataset\.since: .*expected a date or time"):
        load_checked("job.yaml", ["dataset.since=soon"])
