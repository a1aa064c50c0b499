"""The table of all runs: honest states, filters, and a choice that stays with the runs and not with the rows."""

import json
import os
from io import StringIO
from urllib.parse import parse_qs, urlsplit

import pandas as pd
import pytest
from hostile import HOSTILE, assert_no_markup
from streamlit.proto.WidgetStates_pb2 import WidgetState

from atlas.executors.local import process_handle
from atlas.store.overview import overviews
from dashboard.pages.runs_parts.rows import Asked, Row, shown
from dashboard.pages.runs_parts.table import csv


def ids(test, table=0):
    return [parse_qs(urlsplit(link).query)["run"][0] for link in test.dataframe[table].value["run"]]


def cell(test, run_id, column):
    return test.dataframe[0].value[column][ids(test).index(run_id)]


def mark(test, rows, table=None):
    """What the browser sends when these rows of a table have been marked; `table`: as it was drawn earlier."""
    states = test._tree.get_widget_states()
    drawn = (test.dataframe[0] if table is None else table).proto.id
    states.widgets.append(WidgetState(id=drawn, string_value=json.dumps({"selection": {"rows": rows}})))
    test._run(states)
    assert not test.exception, test.exception


def marked(test):
    """The runs whose boxes are ticked in a table that is drawn for the first time."""
    rows = json.loads(test.dataframe[0].proto.selection_default)["selection"]["rows"]
    return [ids(test)[row] for row in rows]


def chosen(test):
    found = test.query_params.get("run", [])
    return [found] if isinstance(found, str) else list(found)


def links(test):
    return {element.proto.label: element.proto.url for element in test.get("link_button")}


def words(test):
    kinds = ("text", "caption", "markdown", "warning", "code")
    return "\n".join(str(element.value) for kind in kinds for element in test.get(kind))


def begin(lab, run_id):
    """Makes a queued run one that a living process works on."""
    run = lab.store.claim("test", run_id)
    lab.store.started(run_id, run.fence, process_handle(os.getpid()), [])


@pytest.fixture
def three(lab):
    return [lab.run(method, dev=[0.1, 0.2], id=f"{method}-{n}") for n, method in enumerate(("gkd", "grpo", "sft"))]


def test_a_run_is_shown_with_its_score_and_its_time(lab, show):
    lab.run("gkd", dev=[0.1, 0.25], metrics={"eval/pass_rate_low": 0.2, "eval/pass_rate_high": 0.3}, id="a")
    test = show("runs")
    row = test.dataframe[0].value.iloc[0]
    assert (row["state"], row["step"], row["method"], row["models"]) == (
        "✓ succeeded",
        "10/20",
        "gkd",
        "student ← teacher",
    )
    assert (row["rate"], row["interval"], row["on"], row["cpu"]) == (25, "20 – 30", "dev @10", 10)
    assert list(row["curve"]) == [10, 25]


def test_the_score_on_test_is_shown_where_there_is_one(lab, show):
    lab.run("gkd", dev=[0.1, 0.5], test="1100", test_step=0, id="a")
    test = show("runs")
    assert (cell(test, "a", "rate"), cell(test, "a", "on")) == (50, "test @0")


def test_a_run_whose_worker_is_dead_is_lost_and_nothing_is_polled_for_it(lab, show):
    lab.run("gkd", state="running", id="dead")
    test = show("runs")
    assert cell(test, "dead", "state") == "? lost"
    assert "All have ended" in words(test) and "Refresh" in [button.label for button in test.button]


def test_a_run_that_goes_on_says_what_it_does(lab, show):
    lab.run("gkd", dev=[0.1], state="queued", id="alive")
    begin(lab, "alive")
    with (lab.store.home / "runs/alive/metrics.jsonl").open("a") as file:
        file.write(json.dumps({"progress": {"phase": "evaluate", "step": 3, "total": 7}}) + "\n")
    lab.store.ingest("alive")
    test = show("runs")
    assert cell(test, "alive", "state") == "▶ running"
    assert cell(test, "alive", "step") == "0/20 · evaluate 3/7"
    assert "live" in words(test) and "Refresh" not in [button.label for button in test.button]


def test_why_a_run_failed_is_beside_its_state(lab, show):
    lab.run("gkd", state="failed", id="a")
    assert cell(show("runs"), "a", "state") == "✕ failed: out_of_memory"


def test_marked_rows_are_runs_in_the_address_and_in_the_links(three, show):
    test = show("runs")
    assert ids(test) == three[::-1]
    mark(test, [0, 2])
    assert chosen(test) == ["sft-2", "gkd-0"]
    assert links(test) == {
        "Compare (2)": "/compare?run=sft-2&run=gkd-0",
        "Samples (2)": "/samples?run=sft-2&run=gkd-0",
    }


def test_the_same_runs_are_marked_after_a_new_run_has_moved_the_rows(lab, three, show):
    test = show("runs")
    mark(test, [1])
    lab.run("sft", id="newest")
    test.run()
    assert ids(test)[0] == "newest"
    assert marked(test) == chosen(test) == ["grpo-1"]


def test_a_click_on_a_table_that_was_replaced_meanwhile_chooses_nothing_else(lab, three, show):
    test = show("runs")
    before = test.dataframe[0]
    lab.run("sft", id="newest")
    test.run()
    mark(test, [0], table=before)
    assert "newest" not in chosen(test)


@pytest.mark.parametrize("view", [{"sort": "oldest"}, {"sort": "name"}, {"filter": "gr"}, {"state": "succeeded"}])
def test_the_same_runs_are_marked_in_any_order_and_under_any_filter(three, show, view):
    assert marked(show("runs", run=["grpo-1"], **view)) == ["grpo-1"]


def test_a_chosen_run_that_is_filtered_out_stays_chosen_and_is_counted(three, show):
    test = show("runs", run=["grpo-1"], filter="gkd")
    mark(test, [0])
    assert chosen(test) == ["grpo-1", "gkd-0"]
    assert "1 chosen run not among those shown" in words(test)
    mark(test, [])
    assert chosen(test) == ["grpo-1"]


def test_clear_unmarks_all(three, show):
    test = show("runs", run=three)
    next(button for button in test.button if button.label == "Clear").click().run()
    assert chosen(test) == marked(test) == []


def test_a_run_that_is_not_in_the_store_is_left_out_with_a_word(three, show):
    test = show("runs", run=["gkd-0", "gone"])
    assert chosen(test) == ["gkd-0"] and "gone" in words(test)


def test_groups_are_tables_of_their_own(three, lab, show):
    lab.run("gkd", id="gkd-9")
    test = show("runs", group="method", run=["gkd-0"])
    assert [ids(test, table) for table in range(3)] == [["gkd-9", "gkd-0"], ["sft-2"], ["grpo-1"]]
    mark(test, [0], table=test.dataframe[2])
    assert chosen(test) == ["gkd-0", "grpo-1"]


def test_experiment_arm_and_seed_are_shown_and_can_be_filtered_by(lab, three, show):
    lab.experiment([("left", 0, "gkd-0"), ("right", 0, "grpo-1")])
    test = show("runs", of="study-0a0a0a")
    assert ids(test) == ["grpo-1", "gkd-0"]
    assert cell(test, "gkd-0", "arm") == "left" and cell(test, "gkd-0", "experiment") == "study-0a0a0a"


def test_the_experiments_count_their_runs_and_link_to_their_comparison(lab, three, show):
    lab.experiment([("left", 0, "gkd-0"), ("right", 0, "grpo-1"), ("right", 1, "deleted")])
    row = show("runs", view="experiments").dataframe[0].value.iloc[0]
    assert row["compare"] == "/compare?experiment=study-0a0a0a"
    assert row["states"] == "2 ✓ succeeded, 1 · gone"
    assert (row["arms"], row["seeds"]) == ("left, right", "0, 1")


def test_an_experiment_that_cannot_be_read_does_not_hide_the_runs(lab, three, show):
    lab.experiment([("left", 0, "gkd-0")])
    next((lab.store.home / "experiments").glob("*.json")).write_text("{")
    test = show("runs")
    assert len(ids(test)) == 3
    assert [error.value for error in test.error] == ["**The experiments cannot be read**"]


def test_a_filter_that_nothing_meets_says_so(three, show):
    test = show("runs", filter="nothing of this kind")
    assert "No run meets all of these conditions" in words(test) and not test.dataframe


def test_numbers_that_are_none_do_not_stop_the_table(lab, show):
    lab.run("gkd", dev=[float("nan"), float("inf")], id="a")
    lab.run("grpo", state="queued", id="b")
    test = show("runs", sort="pass rate")
    assert cell(test, "a", "interval") == "no number" and list(cell(test, "a", "curve")) == []


def test_text_of_others_is_never_markup(lab, show):
    for n, text in enumerate(HOSTILE):
        lab.run(
            "gkd",
            id=f"gkd-{n}",
            notes=text + "\n" + "x" * 100_000,
            tags=[text],
            student={"model": f"/{n}/{HOSTILE[0]}"},
        )
    lab.experiment([(HOSTILE[0], 0, "gkd-0")])
    for group in ("none", "student"):
        assert_no_markup(show("runs", group=group, run=["gkd-0"]))
    assert_no_markup(show("runs", view="experiments"))
    assert max(map(len, show("runs").dataframe[0].value["notes"])) < 300


def test_the_file_has_unrounded_numbers_and_no_formulas(lab):
    lab.run("gkd", dev=[0.1, 1 / 3], notes="=HYPERLINK(1)", id="a")
    frame = pd.read_csv(StringIO(csv(rows_of(lab))))
    assert frame["pass_rate"][0] == 1 / 3 and frame["notes"][0] == "'=HYPERLINK(1)" and frame["seed"][0] == 0


def test_many_runs_take_few_queries(lab, monkeypatch):
    for n in range(30):
        lab.run("gkd", dev=[0.1], seed=n, id=f"gkd-{n}")
    asked = []
    reading = type(lab.store)._reading
    monkeypatch.setattr(type(lab.store), "_reading", lambda store: asked.append(1) or reading(store))
    found = overviews(lab.store, lab.store.runs(), [])
    assert [of.seed for of in found] == list(range(29, -1, -1))
    assert len(asked) <= 5


def test_what_has_no_score_comes_last_by_score(lab):
    lab.run("gkd", dev=[0.1], id="low")
    lab.run("gkd", id="none")
    lab.run("gkd", dev=[0.9], id="high")
    [(_, rows)] = shown(rows_of(lab), Asked(sort="pass rate"))
    assert [row.id for row in rows] == ["high", "low", "none"]


def rows_of(lab):
    return [Row(of, of.run.state) for of in overviews(lab.store, lab.store.runs(), [])]
