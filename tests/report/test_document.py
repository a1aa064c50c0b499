from atlas.report.document import Missing, table


def test_missing_numbers_with_one_reason_share_a_footnote():
    made = table(("arm", "a", "b"), [["x", Missing("no test"), "1"], ["y", Missing("no test"), Missing("one seed")]])
    assert made.rows == (("x", "–¹", "1"), ("y", "–¹", "–²"))
    assert made.footnotes == ("¹ no test", "² one seed")


def test_a_tenth_footnote_has_two_digits():
    made = table(("a",), [[Missing(f"reason {n}")] for n in range(10)])
    assert made.rows[9] == ("–¹⁰",)
    assert made.footnotes[9] == "¹⁰ reason 9"
