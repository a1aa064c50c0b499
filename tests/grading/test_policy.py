"""What a policy changes, and that it changes nothing else. Each row is graded in both directions."""

import pytest

from atlas.datasets.arithmetic import Arithmetic
from atlas.datasets.base import Example
from atlas.grading import VERSION, GradingSpec, grade
from atlas.grading.compare import equal

UNIT, FRACTION = GradingSpec(), GradingSpec(percent="fraction")
ORDERED = GradingSpec(ordered_lists=True)


@pytest.mark.parametrize(
    ("left", "right", "as_unit", "as_fraction"),
    [
        (r"10\%", "10", True, False),
        (r"10\%", "0.1", False, True),
        (r"10\%", "1/10", False, True),
        (r"10\%", "10 percent", True, True),
        ("10 pct", "0.1", False, True),
        ("10% of the students", "0.1", False, True),
        ("12.5%", "1/8", False, True),
        ("33.33%", "1/3", False, True),
        ("33%", "1/3", False, False),
        ("0.1", "0.1", True, True),
        ("10", "0.1", False, False),
        ("10%, 20%", "0.2, 0.1", False, True),
        ("(10%, 20%)", "(10, 20)", True, False),
        ("x = 10%", "x = 0.1", False, True),
        ("0.5 or 50%", "1/2", False, True),
        (r"$\frac{50}{\pi}\%$", r"\frac{1}{2\pi}", False, True),
        (r"\frac{50}{\pi}\text{ percent}", r"\frac{50}{\pi}", True, False),
        (r"$\sqrt{2}$ %", r"\sqrt{2}", True, False),
        (r"\sqrt{2}, \sqrt{3}\%", r"\sqrt{2}, \sqrt{3}", True, False),
    ],
)
def test_percent_is_a_unit_or_a_hundredth(left: str, right: str, as_unit: bool, as_fraction: bool) -> None:
    for pair in ((left, right), (right, left)):
        assert (equal(*pair, UNIT), equal(*pair, FRACTION)) == (as_unit, as_fraction), pair


@pytest.mark.parametrize(
    ("left", "right", "unordered", "ordered"),
    [
        ("1, 2", "2, 1", True, False),
        ("1, 2", "1, 2.0", True, True),
        ("1, 1, 2", "1, 2", True, False),
        ("1, 1", "1", True, False),
        ("1 and 2", "2 or 1", True, False),
        ("1, 2; 3", "3; 1, 2", True, False),
        (r"\{1, 2\}", r"\{2, 1\}", True, True),
        (r"\{1, 2\}", "2, 1", True, True),
        ("(1, 2)", "(2, 1)", False, False),
        ("(1, 2)", "1, 2", True, True),
        ("(1, 2), (3, 4)", "(3, 4), (1, 2)", True, False),
        (r"\sqrt{2}, 1", r"1, \sqrt{2}", True, False),
        (r"\sqrt{2}, 1", r"\frac{2}{\sqrt{2}}, 1", True, True),
        (r"\{\sqrt{2}, 1\}", r"1, \sqrt{2}", True, True),
        (r"\pm 1", "-1, 1", True, True),
        ("x = 1, y = 2", "y = 2, x = 1", True, True),
    ],
)
def test_lists_are_sets_or_sequences(left: str, right: str, unordered: bool, ordered: bool) -> None:
    for pair in ((left, right), (right, left)):
        assert (equal(*pair, UNIT), equal(*pair, ORDERED)) == (unordered, ordered), pair


def test_dataset_grades_by_its_own_policy_and_names_it() -> None:
    example = Example(id="1", group="1", messages=(), answer="0.1")
    assert Arithmetic().grade(example, r"\boxed{10\%}") == grade(r"\boxed{10\%}", "0.1")
    assert not Arithmetic().grade(example, r"\boxed{10\%}").correct
    dataset = Arithmetic(grading=FRACTION)
    assert dataset.grade(example, r"\boxed{10\%}").correct
    assert dataset.grader() == {"version": VERSION, "percent": "fraction", "ordered_lists": False}
