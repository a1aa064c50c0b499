"""Addresses, and what a widget of another page leaves behind."""

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.links import address


def test_an_address_names_each_value():
    assert address("compare", run=["a", "b&c"], clock="step") == "/compare?run=a&run=b%26c&clock=step"
    assert address("runs") == "/runs"


@pytest.mark.parametrize(
    "held, value, begins",
    [
        (["a", "x"], ["b"], ["a"]),
        ([], ["b"], []),
        ("a", ["b"], ["a"]),
        (None, ["b"], ["b"]),
        (["x"], ["b"], ["b"]),
        (["a", "b"], "b", "a"),
        ("a", "b", "a"),
        ("x", "b", "b"),
        ([], "b", "b"),
        (None, "b", "b"),
        (7, "b", "b"),
    ],
)
def test_what_another_page_left_is_taken_along_where_it_fits(held, value, begins):
    test = AppTest.from_string(f"from dashboard.links import begin_with\nbegin_with('k', {value!r}, ['a', 'b'])\n")
    test.session_state["k"] = held
    assert test.run().session_state["k"] == begins and not test.exception


def test_a_view_begins_with_what_the_address_names_and_else_says_it_there():
    code = "from dashboard.links import begin_with\nbegin_with('k', ['b'])\n"
    test = AppTest.from_string(code).run()
    assert test.session_state["k"] == ["b"] and test.query_params["k"] in ("b", ["b"])
    test = AppTest.from_string(code)
    test.query_params["k"] = "a"
    assert "k" not in test.run().session_state
