"""The page of traces: the list, the timeline of a session, and reviews where they are allowed."""

import json
import re
from pathlib import Path

import pytest
from hostile import HOSTILE, assert_no_markup
from streamlit.runtime.context import StreamlitHeaders
from trace_lines import attempt, begin, end, guidance, outcome, whole, write

import dashboard
from atlas.store.traces import TraceStore
from atlas.traces.filter import Filter
from dashboard import access
from dashboard.pages.traces_parts.place import Place, place_of

TEXTS = ("text", "code", "caption", "markdown", "warning", "success", "error", "subheader")


@pytest.fixture
def taken(lab, tmp_path):
    """`taken(lines)`: in the store of traces, which it returns."""
    stores = []

    def importing(lines):
        stores.append(TraceStore.open(lab.store.home))
        assert not stores[-1].import_file(write(tmp_path / f"{len(stores)}.jsonl", *lines)).bad
        return stores[-1]

    yield importing
    for store in stores:
        store.close()


@pytest.fixture
def allowed(monkeypatch):
    """As `atlas dashboard --allow-review` starts the server for ann."""
    monkeypatch.setenv(access.REVIEWER, "ann")


def texts(test):
    return "\n".join(str(element.value) for kind in TEXTS for element in test.get(kind)).replace("\\", "")


def listed(test):
    return list(test.dataframe[0].value["task"]) if test.dataframe else []


def press(test, label):
    (button,) = (button for button in test.button if button.label == label)
    return button.click().run()


def labels(test):
    return [button.label for button in test.button]


# -- without traces


def test_without_traces_the_page_says_what_makes_them_and_shows_them_when_they_have_come(show, taken, lab):
    test = show("traces")
    assert "atlas traces import" in texts(test) and not (lab.store.home / "traces.db").exists()
    taken([])
    assert "no sessions" in texts(test.run()) and "atlas traces import" in texts(test)
    taken(whole("s", task="At last"))
    assert listed(test.run()) == ["At last"] and not test.exception


def test_a_store_of_a_newer_atlas_is_named_as_such(show, taken):
    with taken(whole("s"))._writing() as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    assert "newer Atlas" in texts(show("traces"))


# -- the list


@pytest.fixture
def four(taken):
    """Begun on four days of 2026, at noon here."""
    from datetime import datetime

    days = [datetime(2026, 3, day, 12).timestamp() for day in (1, 2, 3, 4)]
    lines = [
        *whole("one", days[0], True, "answer", task="Add apples", tags=["fruit"], agent="adder"),
        *whole("two", days[1], False, "answer", task="Add pears", tags=["fruit", "hard"], agent="adder"),
        *whole("three", days[2], None, "judge", task="Count plums", tags=["fruit"], agent="counter"),
        begin("four", days[3], task="Peel APPLES"),
    ]
    store = taken(lines)
    store.review(["one"], "approved", "ann")
    store.review(["four"], "quarantined", "ann")
    return store


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, ["Peel APPLES", "Count plums", "Add pears", "Add apples"]),
        ({"text": "apples"}, ["Peel APPLES", "Add apples"]),
        ({"status": ["approved", "quarantined"]}, ["Peel APPLES", "Add apples"]),
        ({"outcome": "passed"}, ["Add apples"]),
        ({"outcome": "unscored"}, ["Peel APPLES", "Count plums"]),
        ({"scorer": "judge"}, ["Count plums"]),
        ({"scorer": "answer", "outcome": "failed"}, ["Add pears"]),
        ({"tag": ["fruit", "hard"]}, ["Add pears"]),
        ({"agent": "counter"}, ["Count plums"]),
        ({"since": "2026-03-02", "until": "2026-03-04"}, ["Count plums", "Add pears"]),
        ({"agent": "adder", "status": ["quarantined"]}, []),
    ],
)
def test_what_the_address_asks_for_is_listed_the_newest_first(show, four, asked, found):
    test = show("traces", **asked)
    assert listed(test) == found
    assert ("No session meets all of these conditions" in texts(test)) == (not found)
    assert not test.warning


def test_the_list_is_counted_by_review_and_outcome(show, four):
    said = texts(show("traces"))
    assert "4 sessions: ○ unreviewed 2, ✓ approved 1, ⊘ quarantined 1 · ✓ passed 1, ✕ failed 1, – unscored 2" in said
    said = texts(show("traces", scorer="answer"))
    assert "2 of 4 sessions: ○ unreviewed 1, ✓ approved 1 · by answer ✓ passed 1, ✕ failed 1" in said


def test_what_the_address_names_and_nothing_has_is_said(show, four):
    test = show("traces", tag=["nuts", "fruit"], agent="nobody", status="fine", since="2026-99-99", until="soon")
    warnings = " ".join(warning.value for warning in test.warning).replace("\\", "")
    assert all(word in warnings for word in ("nuts", "nobody", "fine", "2026-99-99", "soon"))
    assert listed(test) == ["Count plums", "Add pears", "Add apples"]


def test_the_list_has_pages_and_another_choice_begins_with_the_first(show, taken):
    taken([line for n in range(120) for line in whole(f"s{n}", 1000.0 + n, task=f"Task {n}", tags=[f"t{n % 2}"])])
    test = show("traces", page="2")
    assert listed(test) == [f"Task {n}" for n in range(69, 19, -1)]
    test.multiselect[1].set_value(["t0"]).run()
    assert listed(test)[0] == "Task 118" and test.session_state["page"] == 1


@pytest.mark.parametrize(("said", "cell"), [({"score": 0.5}, "0.5"), ({"passed": True}, "passed"), ({}, "?")])
def test_a_score_is_a_number_or_a_verdict_or_unknown(show, taken, said, cell):
    taken([begin("s"), attempt(), outcome(parent="a", **said)])
    assert list(show("traces").dataframe[0].value["scores"]) == [f"answer {cell}"]


# -- one session

STORY = [
    begin("s", 100.0, agent="adder", tags=["sums"], task=[{"role": "system", "content": "Be brief."}]),
    attempt("a1", at_seconds=101.0, text="five", model="tiny-1", prompt_version="v2", input_tokens=1200)
    | {"output_tokens": 30, "duration_seconds": 0.5, "cost_usd": 0.0012},
    outcome("o1", at_seconds=102.0, parent="a1", score=0.0, passed=False, reference="4"),
    guidance("g1", at_seconds=103.0, parent="a1", text="Count again.", kind="critique", name="large-2"),
    outcome("early", at_seconds=104.0, scorer="judge", score=1.0, passed=True),
    attempt("a2", at_seconds=105.0, text="four", parent="g1", error="TimeoutError: too late")
    | {"tool_calls": [{"function": {"name": "add", "arguments": '{"a": 2}'}}, {"odd": 1}]},
    guidance("g2", at_seconds=106.0, parent="gone", text="Who asked?", by="human"),
    outcome("o2", at_seconds=107.0, parent="a2", score=1.0, passed=True),
    outcome("o3", at_seconds=108.0, parent="a2", note="The grader was down."),
    outcome("o4", at_seconds=109.0, parent="a2", scorer="style", score=0.4),
]


def test_a_session_is_told_in_order_with_what_answers_and_measures_each_attempt(show, taken):
    taken([*STORY, end("e", at_seconds=110.0, answer="It is four.")])
    test = show("traces", session="s")
    codes = [code.value for code in test.code]
    told = ["Be brief.", "five", "Count again.", "four", 'add({"a": 2})\n{"odd": 1}', "TimeoutError: too late"]
    told += ["The grader was down.", "Who asked?", "It is four."]
    assert [code for code in codes if code in told] == told
    said = texts(test)
    assert "+1.0 s · tiny-1 · prompt v2 · 1,200 + 30 tokens · took 0.5 s · $0.0012" in said
    assert "**Critique by teacher large-2**" in said and "answers attempt 1" in said
    assert "after the critique by teacher large-2" in said, "what the second attempt reacts to"
    assert "**Guidance by human**" in said and "answers no attempt that is known" in said
    assert "compared with: 4" in said and "score 0 · measured after attempt 1" in said
    assert "**End**" in said and "final answer" in said


def heads(test):
    """(title, its badges) of what is on the timeline, in order."""
    found = []
    for element in test.markdown:
        if title := re.fullmatch(r"\*\*(.*)\*\*", element.value):
            found.append((title[1], []))
        elif (mark := re.fullmatch(r":\w+-badge\[(.*)\]", element.value)) and found:
            found[-1][1].append(mark[1].replace("\\", ""))
    return found


def test_unscored_stale_and_superseded_outcomes_are_said_to_be_that(show, taken):
    taken(STORY)
    test = show("traces", session="s")
    assert [head for head in heads(test) if head[0].startswith(("Outcome", "Attempt"))] == [
        ("Attempt 1", []),
        ("Outcome answer", ["✕ failed"]),
        ("Outcome judge", ["✓ passed", "· stale"]),
        ("Attempt 2", ["· error"]),
        ("Outcome answer", ["✓ passed", "· superseded"]),
        ("Outcome answer", ["– unscored"]),
        ("Outcome style", ["– no verdict"]),
    ]
    assert "no score · measured after attempt 2" in texts(test)


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([begin(), attempt()], "– unscored: nothing was measured"),
        ([begin(), attempt(), outcome(parent="a")], "– unscored: no scorer could say"),
        (
            [begin(), attempt(), outcome(parent="a", passed=True), attempt("b", at_seconds=110.0)],
            "– unscored: an attempt came after the last measurement",
        ),
        ([begin(), attempt(), outcome(parent="a", passed=True)], "✓ passed"),
    ],
)
def test_an_unscored_session_says_why(show, taken, lines, why):
    taken(lines)
    facts = next(code.value for code in show("traces", session="s").code if code.value.startswith("session "))
    assert re.search(r"^outcome +(.*)$", facts, re.M)[1] == why


def test_the_end_says_what_was_lost_and_a_missing_end_what_that_means(show, taken):
    taken([begin("s"), end(status="failed", error="ValueError: no", dropped=3), begin("t")])
    said = texts(show("traces", session="s"))
    assert "ValueError: no" in said and "3 events of this session could not be written" in said
    assert "open or killed" in texts(show("traces", session="t"))


def test_long_texts_are_folded_and_what_is_longer_still_is_cut(show, taken):
    taken([begin("s", task="x" * 100_000), attempt(text="short")])
    test = show("traces", session="s")
    folded = next(element for element in test.expander if element.label == "All 100,000 characters")
    assert "80,000 more characters" in folded.code[0].value
    beginning = next(code.value for code in test.code if code.value.startswith("xxx"))
    assert len(beginning) < 1000


def test_a_long_session_has_pages(show, taken):
    taken([begin("s"), *(attempt(f"a{n}", at_seconds=101.0 + n, text=f"try {n}") for n in range(60)), end()])
    test = show("traces", session="s")
    assert "try 24" in texts(test) and "try 25" not in texts(test) and "**End**" not in texts(test)
    assert "35 events and the end on the pages that follow" in texts(test)
    last = texts(show("traces", session="s", part="3"))
    assert "try 59" in last and "**Attempt 60**" in last and "**End**" in last


def test_another_session_is_shown_from_its_start(show, taken):
    tries = {session: [attempt(f"{session}{n}", session, 9e3 + n) for n in range(60)] for session in ("s", "t")}
    taken([begin("s", 200.0), *tries["s"], begin("t"), *tries["t"]])
    test = show("traces", session="s", part="2")
    assert "**Attempt 26**" in texts(test)
    press(test, "Next")
    assert "**Attempt 1**" in texts(test) and "**Attempt 26**" not in texts(test)


def test_sessions_around_and_inside_are_links(show, taken):
    taken([begin("outer", task="Plan"), begin("inner", 200.0, task="Part", parent="outer"), begin("x", parent="gone")])
    assert "[Part](/traces?session=inner)" in texts(show("traces", session="outer"))
    assert "[Plan](/traces?session=outer)" in texts(show("traces", session="inner"))
    assert "gone, which is not in this store" in texts(show("traces", session="x"))


def test_a_session_is_found_by_the_beginning_of_its_id_and_an_unknown_one_is_named(show, taken):
    taken([*whole("abcdef"), *whole("abxyz")])
    assert show("traces", session="abc").query_params["session"] in ("abcdef", ["abcdef"])
    assert "no session 'nope'" in texts(show("traces", session="nope"))
    assert "could be several" in texts(show("traces", session="ab"))


def test_times_and_numbers_that_no_calendar_has_are_shown_as_numbers(show, taken):
    numbers = {"at_seconds": -1e300, "input_tokens": 2**62, "cost_usd": 1e300, "duration_seconds": -1.0}
    taken([begin("s", 1e300), attempt() | numbers, outcome(score=-1e308), end(at_seconds=1e300)])
    assert "1e+300" in texts(show("traces", session="s"))
    show("traces", since="2026-01-01")


@pytest.mark.parametrize("text", [*HOSTILE, "T09"])
def test_what_an_agent_wrote_is_never_markup(show, taken, shared, text, allowed):
    if text == "T09":
        lines = (shared / "data/bad_inputs.jsonl").read_text().splitlines()
        text = next(row["input"]["content"] for row in map(json.loads, lines) if row["id"] == "T09")
    chat = [{"role": "user", "content": text, "name": text}]
    calls = [{"function": {"name": text, "arguments": text}}]
    who = {"model": text, "prompt_version": text, "metadata": {text: text}}
    store = taken(
        [
            begin(text, 90.0, task=text),
            begin("s", task=chat, agent=text, tags=[text], parent=text, redaction=text, **who),
            begin("part", parent="s", task=text),
            attempt(text=text, messages=chat, tool_calls=calls, error=text, **who),
            guidance(text=text, name=text, parent="a", error=text, **who),
            guidance("loose", text=text, name=text),
            outcome(scorer=text, reference=text, note=text, parent="a"),
            outcome("whole", scorer=text, reference=text, note=text),
            end(answer=text, error=text),
        ]
    )
    store.review(["s"], "quarantined", by=text, reason=text)
    for session in ("s", text, f"{text} that is not there"):
        test = show("traces", session=session, tag=[text], agent=text, scorer=text, text=text[:8], since=text)
        assert_no_markup(test)
        if session == "s":
            assert [code.value for code in test.code].count(text) >= 8
            press(test, "Approve")
            assert_no_markup(test)


# -- one after the other


@pytest.mark.parametrize("filter", [Filter(), Filter(tags=("odd",)), Filter(since_seconds=102.0, until_seconds=104.0)])
def test_the_place_of_a_session_is_that_in_the_whole_list(taken, filter):
    times = [101.0, 102.0, 102.0, 102.0, 103.0, 104.0, 104.0]
    tags = [["odd"] if n % 2 else [] for n in range(len(times))]
    store = taken([begin(f"s{n}", at, tags=tags[n]) for n, at in enumerate(times)])
    ids = [row.id for row in store.rows(filter)]
    order = [row.id for row in store.rows()]
    for id in order:
        above = [other for other in order[: order.index(id)] if other in ids]
        below = [other for other in order[order.index(id) + 1 :] if other in ids]
        number = ids.index(id) + 1 if id in ids else None
        expected = Place(number, above[-1] if above else None, below[0] if below else None)
        assert place_of(store, filter, store.row(id)) == expected


def test_next_and_previous_go_through_the_list_and_turn_its_pages(show, taken):
    taken([begin(f"s{n:02}", 1000.0 - n, task=f"Task {n}") for n in range(60)])
    test = show("traces", session="s49")
    assert "50 of 60" in texts(test)
    press(test, "Next")
    assert test.query_params["session"] in ("s50", ["s50"]) and listed(test)[0] == "Task 50"
    press(test, "Previous")
    assert listed(test)[0] == "Task 0" and "50 of 60" in texts(test)


def test_a_session_outside_of_the_filter_is_shown_all_the_same(show, four):
    test = show("traces", session="two", agent="counter")
    assert "not in the list above" in texts(test) and "Add pears" in texts(test)


# -- reviews


def contents(lab):
    with TraceStore.open_read_only(lab.store.home) as store:
        return [(row.id, row.status, row.reviewed_by) for row in store.rows()]


def test_without_the_flag_nothing_can_be_decided_and_the_page_says_how_it_could(show, four, lab):
    before = contents(lab)
    test = show("traces", session="two")
    assert labels(test) == ["Refresh", "Previous", "Next"]
    assert "atlas dashboard --allow-review" in texts(test) and "atlas traces review" in texts(test)
    assert contents(lab) == before


def test_a_button_that_is_older_than_the_end_of_the_permission_changes_nothing(show, four, lab, allowed, monkeypatch):
    before = contents(lab)
    test = show("traces", session="two")
    monkeypatch.setenv(access.REVIEWER, "")
    press(test, "Approve")
    assert "Nothing was changed. Reviewing is off here" in texts(test)
    assert contents(lab) == before


def test_one_module_of_the_dashboard_can_open_a_store_for_writing():
    folder = Path(dashboard.__file__).parent
    writing = re.compile(r"Store\.open\(|open_for_writing|review_all\(|\.review\(|import_file\(")
    found = {file.relative_to(folder).as_posix() for file in folder.rglob("*.py") if writing.search(file.read_text())}
    assert found == {"pages/traces_parts/reviewing.py"}


def test_a_decision_is_written_with_its_reason_and_the_next_session_is_shown(show, four, lab, allowed):
    test = show("traces", session="three", status="unreviewed")
    test.text_input[1].set_value("  counts well ")
    press(test, "Approve")
    assert ("three", "approved", "ann") in contents(lab)
    assert four.reviews("three")[-1].reason == "counts well"
    assert test.query_params["session"] in ("two", ["two"]) and "Approved three; here is the next." in texts(test)
    assert listed(test) == ["Add pears"] and test.text_input[1].value == ""
    press(test, "Quarantine")
    assert ("two", "quarantined", "ann") in contents(lab) and "it was the last of the list" in texts(test)


def test_a_decision_can_be_taken_back_and_all_of_them_are_told(show, four, lab, allowed):
    test = show("traces", session="one")
    test.checkbox[0].uncheck().run()
    press(test, "Unreviewed")
    assert ("one", "unreviewed", "ann") in contents(lab) and test.query_params["session"] in ("one", ["one"])
    said = texts(test)
    assert said.index("○ unreviewed by ann") < said.index("✓ approved by ann")
    assert [button.label for button in test.button if button.disabled] == ["Next", "Unreviewed"]


def test_a_decision_about_less_than_there_is_now_is_refused(show, four, lab, taken, allowed):
    test = show("traces", session="two")
    taken([attempt("late", "two", 9e9)])
    press(test, "Approve")
    assert "1 more records than were shown" in texts(test) and ("two", "unreviewed", None) in contents(lab)
    assert "**Attempt 2**" in texts(test), "what came is shown now"
    press(test, "Approve")
    assert ("two", "approved", "ann") in contents(lab)


def test_a_late_click_never_decides_about_what_is_shown_by_then(show, four, lab, allowed):
    test = show("traces", session="three")
    (late,) = (button for button in test.button if button.label == "Approve")
    press(test, "Next")
    states = test._tree.get_widget_states()
    states.widgets.append(late.click()._widget_state)  # as a browser that is late sends it
    test._run(states)
    assert not test.exception
    assert ("two", "unreviewed", None) in contents(lab)


def test_a_store_that_has_gone_is_not_made_anew(show, four, lab, allowed):
    test = show("traces", session="two")
    for file in lab.store.home.glob("traces.db*"):
        file.unlink()
    press(test, "Approve")
    assert not (lab.store.home / "traces.db").exists() and "atlas traces import" in texts(test)


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ([("X-User", "bo@example.org")], "bo@example.org"),
        ([("x-user", " bo ")], "bo"),
        ([("X-User", "bo"), ("X-User", "ann")], None),
        ([("X-User", "")], None),
        ([("X-Other", "bo")], None),
        ([], None),
    ],
)
def test_behind_a_proxy_a_review_is_of_whom_the_proxy_names_and_else_there_is_none(headers, name, allowed, monkeypatch):
    monkeypatch.setenv(access.VARIABLE, access.PROXY)
    monkeypatch.setenv(access.USER_HEADER, "X-User")
    monkeypatch.setattr(type(access.st.context), "headers", StreamlitHeaders(headers))
    assert access.reviewer() == name


def test_without_a_user_header_or_with_an_unknown_login_nobody_reviews(allowed, monkeypatch):
    monkeypatch.setattr(type(access.st.context), "headers", StreamlitHeaders([("", "bo"), ("X-User", "bo")]))
    monkeypatch.setenv(access.VARIABLE, access.PROXY)
    monkeypatch.setenv(access.USER_HEADER, "")
    assert access.reviewer() is None
    monkeypatch.setenv(access.VARIABLE, "another")
    assert access.reviewer() is None
    monkeypatch.setenv(access.VARIABLE, access.OIDC)
    assert access.reviewer() is None, "nobody is logged in"


def test_visitors_whom_nothing_names_are_told_so(show, four, allowed, monkeypatch):
    monkeypatch.setenv(access.VARIABLE, access.PROXY)
    test = show("traces", session="two")
    assert "nothing says who you are" in texts(test) and "Approve" not in labels(test)


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"email": "bo@example.org", "sub": "7"}, "bo@example.org"),
        ({"email": "bo@example.org", "email_verified": False, "sub": "7"}, "7"),
        ({"sub": "7", "name": "ann"}, "7"),
        ({"name": "ann"}, None),
    ],
)
def test_a_login_is_called_what_the_provider_vouches_for(claims, name):
    assert access.name_of(claims) == name
