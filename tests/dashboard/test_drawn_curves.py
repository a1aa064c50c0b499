import gc
import math
import shutil
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lab import append

from atlas.errors import UsageError
from atlas.run import CLOCKS
from atlas.store import Store
from atlas.store.blocks import BLOCK_STEPS
from atlas.store.snapshot import Snapshot
from dashboard import curves as module
from dashboard.curves import Curve, curves

SLOW = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
VALUES = st.floats(allow_nan=True, allow_infinity=True) | st.floats(-10, 10)


def lines(values, first=0, every=1, name="loss"):
    """One line for each value, with clocks."""
    return [
        {"step": step, "clocks": {clock: 2.0 * step for clock in CLOCKS}, "values": {name: value}}
        for step, value in zip(range(first, first + every * len(values), every), values, strict=True)
    ]


def write(lab, run_id, *documents):
    append(lab.store.home / "runs" / run_id / "metrics.jsonl", documents)
    lab.store.ingest(run_id)


@pytest.fixture
def run(lab):
    return lab.run("sft", state="running")


def drawn(lab, run_id, clock="step", points=100, metric="loss"):
    return curves(lab.store, [run_id], metric, clock, points)[run_id]


def from_scratch(lab, run_id, clock="step", points=100, metric="loss"):
    with Store.open_read_only(lab.store.home) as store:
        return curves(store, [run_id], metric, clock, points).get(run_id)


def assert_equal(left, right):
    assert (left is None) == (right is None)
    if left is not None:
        for name in Curve.__dataclass_fields__:
            np.testing.assert_equal(getattr(left, name), getattr(right, name), err_msg=name)


@pytest.fixture
def reading_fails(monkeypatch):
    """From now on, reading any measurement is an error."""

    def refuse():
        for name in ("rows", "blocks", "clocks"):
            monkeypatch.setattr(Snapshot, name, lambda *_: pytest.fail("read again"))

    return refuse


def test_a_short_curve_is_drawn_as_it_was_recorded_over_any_clock(lab, run):
    write(lab, run, *lines([3.0, 1.0, 2.0], every=10))
    curve = drawn(lab, run)
    assert (list(curve.clock_N), list(curve.value_N)) == ([0, 10, 20], [3, 1, 2])
    assert (curve.points, curve.nonfinite) == (3, ())
    assert list(drawn(lab, run, "rollouts").clock_N) == [0, 20, 40]
    assert (list(curve.mean_clock_M), list(curve.mean_M), list(curve.count_M)) == ([0, 10, 20], [3, 1, 2], [1, 1, 1])


def test_runs_without_the_metric_the_clock_or_any_trace_are_left_out(lab, run):
    write(lab, run, {"step": 1, "values": {"loss": 1.0}})
    other = lab.run("sft")
    assert list(curves(lab.store, [other, run, "nope"], "loss", "step")) == [run]
    assert curves(lab.store, [run], "loss", "rollouts") == {}
    assert curves(lab.store, [run], "kl", "step") == {}
    with pytest.raises(UsageError, match="unknown clock 'lunch'"):
        curves(lab.store, [run], "loss", "lunch")


def test_steps_at_which_the_clock_was_not_recorded_are_left_out(lab, run):
    write(lab, run, *lines([1.0, 2.0]), {"step": 2, "values": {"loss": 9.0}}, {"step": 3, "values": {"loss": "NaN"}})
    curve = drawn(lab, run, "train_seconds")
    assert (list(curve.clock_N), curve.nonfinite, curve.points) == ([0, 2], (), 4)


def test_not_a_number_and_infinities_are_kept_apart_and_named(lab, run):
    write(lab, run, *lines([1.0, "NaN", 2.0, "Infinity", "-Infinity"]))
    curve = drawn(lab, run, "wall_seconds")
    assert list(curve.value_N) == [1, 2]
    assert curve.nonfinite == ((2.0, "NaN"), (6.0, "Infinity"), (8.0, "-Infinity"))
    write(lab, run, *lines(["NaN"] * 100, 5))
    assert len(drawn(lab, run).nonfinite) == module.NONFINITE


@pytest.mark.parametrize("rows", [1500, 3000])
def test_a_run_that_diverged_is_drawn_up_to_there_whether_rows_or_blocks_are_read(lab, run, rows):
    write(lab, run, *lines([*np.linspace(1, 2, 1000).tolist(), *["NaN"] * (rows - 1000)]))
    curve = drawn(lab, run)
    assert curve.clock_N[-1] == 999 and curve.value_N[-1] == 2
    assert curve.nonfinite[0] == (1000.0, "NaN") and curve.points == rows


def test_a_long_metric_without_any_number_is_only_its_marks(lab, run):
    write(lab, run, *lines(["NaN"] * 3000))
    curve = drawn(lab, run)
    assert len(curve.value_N) == len(curve.mean_M) == 0
    assert curve.nonfinite[0] == (0.0, "NaN")


@SLOW
@given(
    values=st.lists(VALUES, min_size=1, max_size=60),
    repeats=st.integers(1, 60),
    every=st.sampled_from([1, 3, 100]),
    clock=st.sampled_from(["step", "train_seconds"]),
)
def test_thinning_keeps_recorded_points_the_ends_and_the_extremes(lab, values, repeats, every, clock):
    run_id = lab.run("sft", state="running")
    values = [value + n / 7 for n in range(repeats) for value in values]
    write(lab, run_id, *lines(values, every=every))
    recorded = {step: value for step, value in lab.store.metrics(run_id, "loss") if math.isfinite(value)}
    found = curves(lab.store, [run_id], "loss", clock, 50)
    if not recorded:
        assert all(len(curve.value_N) == 0 for curve in found.values())
        return
    curve = found[run_id]
    steps = (curve.clock_N / (1 if clock == "step" else 2)).astype(int).tolist()
    assert [recorded[step] for step in steps] == curve.value_N.tolist()
    assert len(steps) <= 50 and steps == sorted(set(steps))
    assert (steps[0], steps[-1]) == (min(recorded), max(recorded))
    assert (curve.value_N.min(), curve.value_N.max()) == (min(recorded.values()), max(recorded.values()))


@pytest.mark.parametrize("rows", [90, 1900, 5000])
def test_the_means_are_of_all_points_and_in_their_order(lab, run, rows):
    values = np.random.default_rng(0).normal(0, 1, rows)
    write(lab, run, *lines(values.tolist()))
    curve = drawn(lab, run, "rollouts")
    assert curve.count_M.sum() == rows and len(curve.mean_M) <= 100
    assert (curve.mean_M * curve.count_M).sum() == pytest.approx(values.sum())
    ends = np.cumsum(curve.count_M)
    expected = [values[end - count : end].mean() for end, count in zip(ends, curve.count_M, strict=True)]
    np.testing.assert_allclose(curve.mean_M, expected)
    np.testing.assert_allclose(curve.mean_clock_M, 2 * (ends - 1))


def test_many_runs_share_the_points_of_a_chart(lab, monkeypatch):
    monkeypatch.setattr(module, "ALL_POINTS", 300)
    run_ids = [lab.run("sft", seed, state="running") for seed in range(3)]
    for run_id in run_ids:
        write(lab, run_id, *lines(np.sin(np.arange(500)).tolist()))
    assert [len(curve.value_N) <= 100 for curve in curves(lab.store, run_ids, "loss", "step", 400).values()] == [
        True
    ] * 3
    assert 200 < len(drawn(lab, run_ids[0], points=300).value_N) <= 300


STEPS = st.integers(0, 40 * BLOCK_STEPS)
CHANGES = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 1500), VALUES),
    st.tuples(st.just("late"), STEPS, VALUES),
    st.tuples(st.just("other"), STEPS, VALUES),
    st.tuples(st.just("rewind"), STEPS, st.none()),
)


@settings(SLOW, max_examples=25)
@given(changes=st.lists(CHANGES, max_size=6), clock=st.sampled_from(["step", "wall_seconds"]))
def test_following_a_run_shows_what_reading_it_from_the_start_does(lab, changes, clock):
    run_id = lab.run("sft", state="running")
    for kind, number, value in [("append", 3, 0.5), *changes]:
        newest = lab.store.run(run_id).step
        if kind == "append":
            write(lab, run_id, *lines([value + n % 17 for n in range(number)], 0 if newest is None else newest + 1))
        elif kind == "rewind":
            write(lab, run_id, {"rewind": number})
        else:
            name = "loss" if kind == "late" else "other"
            write(lab, run_id, {"step": number, "values": {name: value}, "clocks": {"wall_seconds": 0.25}})
        followed = curves(lab.store, [run_id], "loss", clock, 50).get(run_id)
        assert_equal(followed, from_scratch(lab, run_id, clock, 50))


def test_of_a_run_that_has_not_gone_on_nothing_is_read_again_not_even_for_another_clock(lab, run, reading_fails):
    write(lab, run, *lines([float(n) for n in range(3000)]))
    before = drawn(lab, run)
    reading_fails()
    assert_equal(drawn(lab, run), before)
    assert drawn(lab, run, "rollouts").clock_N[-1] == 2 * 2999


def test_of_a_run_that_has_gone_on_only_the_end_is_read(lab, run, monkeypatch):
    write(lab, run, *lines([float(n) for n in range(1000)]))
    drawn(lab, run)
    write(lab, run, *lines([5.0] * 10, 1000))
    read = []
    for name in ("rows", "blocks"):
        original = getattr(Snapshot, name)

        def counted(*arguments, original=original):
            read.append(len(original(*arguments)))
            return original(*arguments)

        monkeypatch.setattr(Snapshot, name, counted)
    assert drawn(lab, run).points == 1010
    assert sum(read) <= 3 * BLOCK_STEPS


def test_a_rewind_that_comes_long_after_the_run_was_claimed_again_is_followed(lab, run):
    write(lab, run, *lines([1.0] * 200))
    fence = lab.store.run(run).fence
    lab.store.finish(run, fence, "preempted")
    lab.store.requeue(run, fence, "preempted")
    lab.store.claim("test", run)
    assert drawn(lab, run).points == 200
    write(lab, run, {"rewind": 50}, *lines([2.0] * 149, 51))
    assert drawn(lab, run, points=200).value_N.tolist() == [1.0] * 51 + [2.0] * 149
    write(lab, run, {"rewind": 20})
    assert drawn(lab, run).points == 21


def test_a_store_that_was_opened_again_shows_what_its_file_holds(lab, run):
    write(lab, run, *lines([1.0, 2.0]))
    home = lab.store.home
    with Store.open_read_only(home) as old:
        curves(old, [run], "loss", "step")
    copy = home.parent / "copy"
    shutil.copytree(home, copy)
    write(lab, run, *lines([3.0], 2))
    with Store.open_read_only(copy) as first, Store.open_read_only(home) as second:
        assert [curves(store, [run], "loss", "step")[run].points for store in (first, second)] == [2, 3]


def test_what_is_kept_never_exceeds_its_bound_and_stays_right(lab, monkeypatch):
    monkeypatch.setattr(module, "CACHE_BYTES", 60_000)
    run_ids = [lab.run("sft", seed, state="running") for seed in range(6)]
    for seed, run_id in enumerate(run_ids):
        write(lab, run_id, *lines([float(seed)] * 300))
    for asked in (run_ids, run_ids[::-1], run_ids[2:4]):
        found = curves(lab.store, asked, "loss", "step", 100)
        assert [curve.value_N[0] for curve in found.values()] == [float(run_ids.index(run_id)) for run_id in asked]
        cache = module._cache_of(lab.store)
        assert 0 < cache.bytes <= 60_000
        assert cache.bytes == sum(series.bytes for series in cache._series.values())
    assert list(cache._series)[-1][0] == run_ids[3], "the last one asked for goes last"


def test_a_curve_larger_than_all_that_may_be_kept_is_drawn_and_not_kept(lab, run, monkeypatch):
    monkeypatch.setattr(module, "CACHE_BYTES", 100)
    write(lab, run, *lines([1.0] * 300))
    assert drawn(lab, run).points == 300
    assert module._cache_of(lab.store).bytes == 0


def test_a_store_that_nobody_holds_keeps_nothing(lab):
    store = Store.open_read_only(lab.store.home)
    curves(store, [], "loss", "step")
    before = len(module._CACHES)
    store.close()
    del store
    gc.collect()
    assert len(module._CACHES) < before


def test_sessions_share_what_was_read_and_get_the_same(lab, monkeypatch):
    run_ids = [lab.run("sft", seed, state="running") for seed in range(4)]
    for run_id in run_ids:
        write(lab, run_id, *lines([1.0] * 100))
    reads, original = [], Snapshot.blocks
    monkeypatch.setattr(Snapshot, "blocks", lambda *arguments: reads.append(1) or original(*arguments))
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(curves(lab.store, run_ids, "loss", "step"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reads) == len(run_ids)
    for result in found:
        for run_id in run_ids:
            assert_equal(result[run_id], found[0][run_id])
    assert len(found) == 8
