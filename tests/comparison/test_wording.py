import math

import pytest

from atlas.comparison.wording import count, number, percent, seeds_text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.0"), (0.0312, "0.031"), (0.996, "1.0"), (6.84, "6.8"), (99.96, "100"), (1234.5, "1234"), (math.nan, "?")],
)
def test_a_number_has_two_digits_or_more(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(960, "960"), (9999, "9999"), (12_345, "12.3k"), (4_500_000, "4.5M"), (2e9, "2.0G"), (math.inf, "?")],
)
def test_a_count_is_short(value, text):
    assert count(value) == text


def test_a_level_has_the_digits_it_needs():
    assert [percent(1 - 0.05 / k) for k in (1, 2, 3)] == ["95", "97.5", "98.3"]


@pytest.mark.parametrize(
    ("sides", "text"),
    [
        ([(1, 1), (1, 1)], "1 seed"),
        ([(3, 3), (3, 3)], "3 seeds"),
        ([(2, 3), (2, 3)], "2 of 3 seeds"),
        ([(3, 3), (2, 3)], "3 and 2 of 3 seeds"),
        ([(1, 2), (1, 1)], "1 of 2 and 1 seeds"),
    ],
)
def test_seeds_are_counted_on_both_sides(sides, text):
    assert seeds_text(sides) == text
