"""What is a matter of taste when two answers are compared."""

from typing import Literal

from atlas.spec import Spec


class GradingSpec(Spec):
    """How answers are compared where reasonable graders differ. Pass rates compare only between equal settings."""

    percent: Literal["unit", "fraction"] = "unit"
    """What `10%` equals. `unit`: 10, the sign being a unit that may be left out. `fraction`: 0.1 (and `10%`)."""
    ordered_lists: bool = False
    """Whether `1, 2` and `2, 1` differ. Tuples and intervals are always ordered, sets never."""
