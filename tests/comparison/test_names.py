"""Names of runs that stand side by side."""

from atlas.comparison.names import short_names


def test_what_all_runs_are_called_and_hashes_are_left_out():
    names = short_names(["study-gkd-s0-aa11", "study-grpo-s0-bb22", "study-gkd-s0-aa11"])
    assert names == {"study-gkd-s0-aa11": "gkd-s0", "study-grpo-s0-bb22": "grpo-s0"}
    assert short_names(["study-gkd-s0-aa11"]) == {"study-gkd-s0-aa11": "study-gkd-s0"}
    assert short_names(["a", "b-1"]) == {"a": "a", "b-1": "b"}
    assert short_names([]) == {}


def test_runs_that_differ_by_the_hash_alone_keep_it():
    assert list(short_names(["study-gkd-aa11", "study-gkd-bb22"]).values()) == ["gkd-aa11", "gkd-bb22"]
