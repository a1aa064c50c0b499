import json
import math

import pytest

from atlas.errors import NotFoundError, UsageError


@pytest.fixture
def three(store, queue):
    """gkd-aaa1 (oldest), gkd-aaa2 and grpo-bbb3."""
    queue("gkd-aaa1", name="gkd", tags=["small"], created_seconds=1.0)
    queue("gkd-aaa2", name="gkd", tags=["small", "paper"], created_seconds=2.0, digest="other")
    queue("grpo-bbb3", name="grpo", created_seconds=3.0)
    return store


def ids(runs):
    return [run.id for run in runs]


def test_runs_are_listed_newest_first_by_every_condition(three):
    three.claim("s")
    assert ids(three.runs()) == ["grpo-bbb3", "gkd-aaa2", "gkd-aaa1"]
    assert ids(three.runs(states=("queued",))) == ["grpo-bbb3", "gkd-aaa2"]
    assert ids(three.runs(states=())) == []
    assert ids(three.runs(name="gkd")) == ["gkd-aaa2", "gkd-aaa1"]
    assert ids(three.runs(tag="small")) == ["gkd-aaa2", "gkd-aaa1"]
    assert ids(three.runs(tag="paper", name="gkd", states=("queued",))) == ["gkd-aaa2"]
    assert ids(three.runs(tag="pap")) == []
    assert ids(three.runs(limit=1)) == ["grpo-bbb3"]
    assert three.counts() == dict.fromkeys(three.counts(), 0) | {"queued": 2, "claimed": 1}


def test_a_run_is_found_by_id_by_name_and_by_a_beginning(three):
    assert three.run("gkd-aaa1").id == "gkd-aaa1"
    assert three.run("gkd").id == "gkd-aaa2"
    assert three.run("gr").id == "grpo-bbb3"


def test_an_ambiguous_beginning_lists_what_it_could_mean(three):
    with pytest.raises(NotFoundError, match="'gkd-a' could mean gkd-aaa2, gkd-aaa1; write more"):
        three.run("gkd-a")


@pytest.mark.parametrize(
    ("reference", "says"),
    [("grop", "did you mean grpo"), ("gkd-aa1", "gkd-aaa1"), ("", "atlas ls"), ("%", "atlas ls"), ("zzz", "atlas ls")],
)
def test_an_unknown_run_says_what_there_is(three, reference, says):
    with pytest.raises(NotFoundError, match=says) as raised:
        three.run(reference)
    assert f"no run {reference!r}" in str(raised.value)
    assert raised.value.exit_code == 102


def test_the_last_run_of_a_name_may_have_to_have_ended(three):
    assert three.last_run_of_name("gkd").id == "gkd-aaa2"
    assert three.last_run_of_name("gkd", ended=True) is None
    three.request_cancel("gkd-aaa1")
    assert three.last_run_of_name("gkd", ended=True).id == "gkd-aaa1"
    assert three.last_run_of_name("nope") is None


def test_runs_of_equal_jobs_are_found_by_digest(three):
    assert ids(three.runs_of_digest("d")) == ["grpo-bbb3", "gkd-aaa1"]
    assert three.runs_of_digest("nope") == []


def test_equal_specs_are_stored_once_and_returned_as_json(store, queue):
    queue("a-1", spec='{"name": "a",   "notes": "\\ud800 \\u00e9"}')
    queue("a-2", spec='{"name":"a","notes":"\\ud800 é"}')
    queue("a-3", spec='{"name": "b"}')
    assert json.loads(store.spec("a-1")) == {"name": "a", "notes": "\ud800 é"}
    assert store.run("a-1").spec_digest == store.run("a-2").spec_digest != store.run("a-3").spec_digest


def test_a_metric_is_drawn_over_any_clock(store, running, append):
    run, run_dir = running
    append(
        run_dir / "metrics.jsonl",
        {"step": 10, "values": {"loss": 1.0}, "clocks": {"train_seconds": 5.5, "rollouts": 64}},
        {"step": 20, "values": {"loss": "NaN"}, "clocks": {"train_seconds": 9.0}},
        {"step": 30, "values": {"loss": 3.0}},
    )
    store.ingest(run.id)
    assert store.curve(run.id, "loss", "rollouts") == [(64.0, 1.0)]
    assert str(store.curve(run.id, "loss", "train_seconds")) == "[(5.5, 1.0), (9.0, nan)]"
    assert store.curve(run.id, "nope", "rollouts") == []
    assert store.clocks(run.id)[10]["rollouts"] == 64
    assert math.isnan(store.clocks(run.id)[20]["rollouts"])
    with pytest.raises(UsageError, match="unknown clock 'lunch'; expected one of wall_seconds"):
        store.curve(run.id, "loss", "lunch")


def test_runs_do_not_see_each_others_measurements(store, queue, append):
    for run_id, loss in (("a-1", 1.0), ("b-2", 2.0)):
        append(queue(run_id) / "metrics.jsonl", {"step": 1, "values": {"loss": loss}, "clocks": {"rollouts": loss}})
        store.ingest(run_id)
    assert (store.metrics("a-1", "loss"), store.latest("b-2")) == ([(1, 1.0)], {"loss": 2.0})
    assert store.curve("b-2", "loss", "rollouts") == [(2.0, 2.0)]


def test_the_newest_values_of_many_runs_are_those_of_each(store, queue, append):
    for run_id, lines in (
        ("a-1", [{"loss": 1.0, "kl": "NaN"}]),
        ("b-2", [{"loss": 2.0}, {"loss": "-inf"}]),
        ("c-3", []),
    ):
        run_dir = queue(run_id)
        append(run_dir / "metrics.jsonl", *[{"step": step, "values": values} for step, values in enumerate(lines)])
        store.ingest(run_id)
    asked = ["c-3", "a-1", "b-2"]
    found = store.latest_of(asked)
    assert list(found) == asked
    assert repr(found) == repr({run_id: store.latest(run_id) for run_id in asked})
    assert store.latest_of(asked, ["loss", "nope"]) == {"c-3": {}, "a-1": {"loss": 1.0}, "b-2": {"loss": -math.inf}}
    assert (store.latest_of(["a-1"], []), store.latest_of([])) == ({"a-1": {}}, {})


def test_asking_for_the_newest_values_of_an_unknown_run_says_so(three):
    with pytest.raises(NotFoundError, match="no run 'nope'"):
        three.latest_of(["gkd-aaa1", "nope"])


def test_samples_are_returned_by_step_and_in_order(store, running, append):
    run, run_dir = running
    sample = {"split": "dev", "completion": "x", "extracted": None, "found": False, "correct": False, "tokens": 1,
              "clipped": True}  # fmt: skip
    append(
        run_dir / "samples.jsonl",
        *[{"step": step, "problem_id": problem, **sample} for step in (0, 5) for problem in ("p9", "p1", "p5")],
    )
    store.ingest(run.id)
    assert [found.problem_id for found in store.samples(run.id, step=5)] == ["p9", "p1", "p5"]
    assert [found.step for found in store.samples(run.id, limit=4)] == [0, 0, 0, 5]


@pytest.mark.parametrize(
    "query", ["events", "evaluations", "metric_names", "latest", "samples", "spec", "clocks", "ingest"]
)
def test_asking_about_an_unknown_run_says_so(store, query):
    with pytest.raises(NotFoundError, match="no run 'nope'"):
        getattr(store, query)("nope")


def test_what_is_returned_outlives_the_store(store, queue):
    queue(tags=["t"])
    run = store.run("a-1")
    store.close()
    assert (run.name, run.tags, run.model_dump()["state"]) == ("a", ["t"], "queued")


def test_the_outcomes_of_an_evaluation_are_means_over_the_completions_of_each_problem(store, running, append):
    run, run_dir = running
    rest = {"completion": "x", "extracted": None, "found": True, "tokens": 1, "clipped": False}
    answers = [("p9", 0, True), ("p9", 1, False), ("p1", 0, False), ("p1", 1, False), ("p5", 0, True), ("p5", 1, True)]
    append(
        run_dir / "samples.jsonl",
        *[
            {"step": step, "split": split, "problem_id": problem, "sample": number, "correct": correct, **rest}
            for step, split in ((0, "test"), (5, "dev"), (5, "test"))
            for problem, number, correct in answers
            if (step, split) == (5, "test") or problem == "p1"
        ],
    )
    store.ingest(run.id)
    assert store.outcomes(run.id, 5, "test") == [("p9", 0.5), ("p1", 0.0), ("p5", 1.0)]
    assert store.outcomes(run.id, 5, "dev") == [("p1", 0.0)]
    assert store.outcomes(run.id, 6, "test") == []


def test_one_problem_of_one_evaluation_is_read_without_the_others(lab):
    run = lab.run("gkd", dev=[0.5, 0.6], test="101")
    assert lab.store.evaluations(run) == [(10, "test")]
    verdicts = lab.store.verdicts(run, 10, "test")
    assert [(row.problem_id, row.correct, row.extracted) for row in verdicts] == [
        ("p0", True, None),
        ("p1", False, None),
        ("p2", True, None),
    ]
    assert [row.completion for row in lab.store.sample_of(run, 10, "test", "p1")] == ["x"]
    assert lab.store.sample_of(run, 10, "dev", "p1") == []
    assert lab.store.written(run, 10, "test", "X") == {"p0", "p1", "p2"}
    assert lab.store.written(run, 10, "test", "%") == frozenset()


def test_runs_are_found_by_their_ids_in_the_order_asked_and_unknown_ones_are_left_out(three):
    assert ids(three.runs_of(["grpo-bbb3", "nope", "gkd-aaa1", "gkd", "grpo-bbb3"])) == ["grpo-bbb3", "gkd-aaa1"]
    assert three.runs_of([]) == []


def test_the_clocks_of_a_metric_are_those_at_its_steps_and_the_newest(store, running, append):
    run, run_dir = running
    append(
        run_dir / "metrics.jsonl",
        *[{"step": step, "values": {"loss": 1.0}, "clocks": {"rollouts": step}} for step in range(6)],
        {"step": 2, "values": {"rate": 1.0}},
        {"step": 9, "values": {"rate": 1.0}},
    )
    store.ingest(run.id)
    everything = store.clocks(run.id)
    assert repr(store.clocks(run.id, "rate")) == repr({step: everything[step] for step in (2, 5)})
    assert list(store.clocks(run.id, "nope")) == [5]
