import math

from atlas.analysis.summary import Evaluation, summarize


def evaluation(step, pass_rate):
    return Evaluation(step, pass_rate, 0.0, 1.0, train_seconds=step * 2.0, gpu_seconds=step * 2.0, rollouts=step * 8)


def test_no_evaluation_has_no_summary():
    assert summarize([]) is None
    assert summarize([evaluation(0, math.nan)]) is None


def test_the_earliest_of_equal_peaks_counts_whatever_the_order():
    points = [evaluation(20, 0.5), evaluation(0, 0.1), evaluation(10, 0.5), evaluation(30, 0.4)]
    summary = summarize(points)
    assert (summary.first.step, summary.peak.step, summary.last.step) == (0, 10, 30)


def test_a_nan_evaluation_is_never_the_peak():
    assert summarize([evaluation(0, 0.1), evaluation(5, math.nan)]).peak.step == 0
