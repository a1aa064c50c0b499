import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas.analysis.smoothing import smoothed

VALUES = st.floats(-1e6, 1e6)
PARTS = st.lists(st.tuples(VALUES, st.integers(1, 9)), min_size=1, max_size=20)


def slowly(values, span):
    """The weighted mean of all points so far, each weighing 1 - 2 / (span + 1) of the next; at every point."""
    keep = 1 - 2 / (span + 1)
    averages = []
    for n in range(1, len(values) + 1):
        weights = [keep**age for age in reversed(range(n))]
        averages.append(sum(w * v for w, v in zip(weights, values[:n], strict=True)) / sum(weights))
    return averages


@given(parts=PARTS, span=st.floats(1, 100))
def test_a_mean_counts_as_its_points(parts, span):
    means, counts = (np.array(column) for column in zip(*parts, strict=True))
    points = np.repeat(means, counts)
    expected = np.array(slowly(points.tolist(), span))[np.cumsum(counts) - 1]
    np.testing.assert_allclose(smoothed(means, counts, span), expected, rtol=1e-7, atol=1e-6)


@given(parts=PARTS)
def test_a_span_of_one_smoothes_nothing(parts):
    means, counts = (np.array(column) for column in zip(*parts, strict=True))
    np.testing.assert_allclose(smoothed(means, counts, 1), means, atol=1e-6)


@given(value=VALUES, counts=st.lists(st.integers(1, 1000), min_size=1), span=st.floats(1, 1e6))
def test_a_constant_stays(value, counts, span):
    found = smoothed(np.full(len(counts), value), np.array(counts), span)
    np.testing.assert_allclose(found, value, atol=1e-6)


def test_nothing_smoothed_is_nothing():
    assert smoothed(np.array([]), np.array([], dtype=np.int64), 10).shape == (0,)


def test_means_of_a_long_series_smooth_as_the_series_does():
    noise = np.random.default_rng(0).normal(0, 1, 64_000)
    series = np.linspace(5, 1, len(noise)) + noise
    fine = smoothed(series, np.ones(len(series), dtype=np.int64), 2000)[63::64]
    coarse = smoothed(series.reshape(-1, 64).mean(axis=1), np.full(1000, 64), 2000)
    assert np.abs(fine - coarse)[100:].max() == pytest.approx(0, abs=0.01)
