"""`atlas traces`: from files to what may be trained on."""

import json
import stat
from pathlib import Path
from typing import get_args

import pytest
from command_line import atlas
from trace_lines import attempt, begin, end, guidance, outcome, whole, write

from atlas.store.traces import TraceStore
from atlas.traces.records import AnyRecord


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ATLAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TZ", "UTC")
    return tmp_path / "home"


@pytest.fixture
def taken(tmp_path):
    """A store with two sessions that passed, one that failed and one that nobody scored."""
    lines = [
        *whole("passed-1", 1_767_225_600, True, tags=["x"], agent="a"),
        *whole("passed-2", 1_767_312_000, True),
        *whole("failed-1", 1_767_398_400, False, tags=["x"], agent="a"),
        *whole("unscored", 1_767_484_800, None),
    ]
    atlas("traces", "import", write(tmp_path / "t.jsonl", *lines))


def statuses():
    return {row["id"]: row["status"] for row in json.loads(atlas("traces", "ls", "--json"))}


def test_an_import_says_what_it_did(tmp_path):
    folder = tmp_path / "traces" / "deep"
    folder.mkdir(parents=True)
    write(folder / "b.jsonl", *whole("s"), "{", attempt("z", duration_seconds=-1))
    write(folder / "a.jsonl", attempt("early", "t"), {"type": "review", "id": "r", "session": "t", "at_seconds": 1,
          "status": "approved", "by": "me"})  # fmt: skip
    write(folder / "other.txt", *whole("u"))
    output = atlas("traces", "import", tmp_path / "traces")
    assert output.startswith("6 new records from 2 files: 1 new session, 0 changed sessions; 0 records known already\n")
    assert f"{folder / 'b.jsonl'}:5: not JSON: " in output
    assert f"{folder / 'b.jsonl'}:6: negative duration of -1 s\n1 line taken, but odd\n" in output
    assert "1 review line not taken over: review here with `atlas traces review`" in output
    assert "1 record in the store wait for the record of their session" in output
    again = atlas("traces", "import", tmp_path / "traces", "--json")
    assert [report["new"] for report in json.loads(again)] == [0, 0]


def test_ten_bad_lines_are_shown_and_all_counted(tmp_path):
    output = atlas("traces", "import", write(tmp_path / "t.jsonl", begin(), *["{"] * 25))
    assert output.count("t.jsonl:") == 10
    assert "25 lines not taken; 15 more than shown" in output


def test_only_an_import_of_nothing_fails(tmp_path):
    bad = write(tmp_path / "bad.jsonl", "{")
    assert "1 line not taken" in atlas("traces", "import", bad, expect=1)
    good = write(tmp_path / "good.jsonl", begin())
    atlas("traces", "import", bad, good)
    atlas("traces", "import", write(tmp_path / "empty.jsonl"))


def test_a_file_that_cannot_be_read_stops_no_other(tmp_path):
    folder = tmp_path / "traces"
    folder.mkdir()
    write(folder / "b.jsonl", begin())
    (folder / "a.jsonl").symlink_to("a.jsonl")
    (folder / "c.jsonl").mkdir()
    atlas("traces", "import", folder)
    assert statuses() == {"s": "unreviewed"}


@pytest.mark.parametrize("make", [None, "folder"])
def test_a_path_without_traces_is_explained(tmp_path, make):
    if make:
        (tmp_path / "none").mkdir()
    assert "name a f" in atlas("traces", "import", tmp_path / "none", expect=2)


def test_without_a_store_the_next_step_is_named():
    for command in (["ls"], ["show", "x"], ["export", "-o", "x"]):
        assert "`atlas traces import FILE` makes it" in atlas("traces", *command, expect=2)


def test_ls_lists_the_newest_first_and_filters(taken):
    output = atlas("traces", "ls")
    assert [line.split()[0] for line in output.splitlines()] == [
        "session", "unscored", "failed-1", "passed-2", "passed-1", "4"]  # fmt: skip
    assert "passed (answer passed)" in output
    assert "unscored (answer not scored)" in output
    listed = json.loads(atlas("traces", "ls", "--outcome", "passed", "--tag", "x", "--agent", "a", "--json"))
    assert [row["id"] for row in listed] == ["passed-1"]
    dated = json.loads(atlas("traces", "ls", "--since", "2026-01-02", "--until", "2026-01-03T00:00:00+00:00", "--json"))
    assert [row["id"] for row in dated] == ["passed-2"]
    assert "2 of 4 sessions; --limit shows more" in atlas("traces", "ls", "--limit", 2)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (["--status", "good"], "--status 'good' is unknown; expected one of unreviewed, approved, quarantined"),
        (["--outcome", "won"], "--outcome 'won' is unknown; expected one of passed, failed, unscored"),
        (["--since", "yesterday"], "--since 'yesterday' is no date; expected one such as 2026-01-31"),
    ],
)
def test_filters_that_mean_nothing_are_refused(taken, option, says):
    assert says in atlas("traces", "ls", *option, expect=2)


def test_show_is_a_timeline(tmp_path):
    lines = [
        begin(agent="solver", tags=["sums"]),
        attempt(model="m1", input_tokens=10, output_tokens=2, duration_seconds=-1),
        outcome("o1", at_seconds=102, parent="a", score=0.0, passed=False, reference="4"),
        guidance(parent="a", name="big", text="No.\nAgain."),
        attempt("b", at_seconds=103, text="4", parent="g", error="slow"),
        outcome("o2", at_seconds=104, parent="b"),
        end(at_seconds=105, answer="4", dropped=2),
    ]
    atlas("traces", "import", write(tmp_path / "t.jsonl", *lines))
    atlas("traces", "approve", "s", "--by", "rule:x", "--reason", "fine")
    output = atlas("traces", "show", "s")
    expected = """session s  approved
  begun 1970-01-01 00:01:40, agent solver, tags sums
task
  2 + 2?
+1.0 s  attempt 1, model m1, 10 + 2 tokens, -1 s (a negative duration)
  5
  +2.0 s  guidance by teacher big
    No.
    Again.
  +2.0 s  outcome answer: 0 failed against 4
+3.0 s  attempt 2
  4
  error: slow
  +4.0 s  outcome answer: unscored
+5.0 s  end: completed
  4
  2 events could not be written
result: unscored
review """
    assert output.startswith(expected)
    assert output.endswith(": approved by rule:x: fine\n")
    document = json.loads(atlas("traces", "show", "s", "--json"))
    assert document["attempts"][0]["interventions"][0]["name"] == "big"
    assert document["reviews"][0]["by"] == "rule:x"
    assert "no session 'nobody'; `atlas traces ls` lists them" in atlas("traces", "show", "nobody", expect=102)


def test_approve_says_what_it_did(taken):
    rule = ["--scorer", "answer", "--outcome", "passed", "--by", "rule:answer-passed"]
    assert atlas("traces", "approve", *rule, "--dry-run") == "would approve 2 sessions; 0 are approved already\n"
    assert set(statuses().values()) == {"unreviewed"}
    assert atlas("traces", "approve", "passed-1") == "approved 1 session; 0 were approved already\n"
    assert atlas("traces", "approve", *rule, "--dry-run") == "would approve 1 session; 1 are approved already\n"
    assert atlas("traces", "approve", *rule) == "approved 1 session; 1 were approved already\n"
    assert statuses() == {
        "passed-1": "approved", "passed-2": "approved", "failed-1": "unreviewed", "unscored": "unreviewed"}  # fmt: skip
    review = json.loads(atlas("traces", "show", "passed-2", "--json"))["reviews"][0]
    assert (review["status"], review["by"]) == ("approved", "rule:answer-passed")


def test_a_filter_leaves_quarantined_sessions_alone(taken):
    assert atlas("traces", "quarantine", "passed-1") == "quarantined 1 session; 0 were quarantined already\n"
    output = atlas("traces", "approve", "--outcome", "passed")
    assert output == (
        "approved 1 session; 0 were approved already\n"
        "1 quarantined session left alone; --status quarantined means them\n"
    )
    assert "1 quarantined session left alone" in atlas("traces", "approve", "--all")
    assert statuses()["passed-1"] == "quarantined"
    assert atlas("traces", "approve", "--outcome", "passed", "--status", "quarantined").startswith(
        "approved 1 session;"
    )
    assert statuses()["passed-1"] == "approved"


def test_everything_needs_all(taken):
    for verb in ("approve", "quarantine"):
        assert f"{verb} every one with --all" in atlas("traces", verb, expect=2)
    assert "name some or filter, not both" in atlas("traces", "approve", "passed-1", "--tag", "x", expect=2)
    assert "leave it out" in atlas("traces", "approve", "passed-1", "--all", expect=2)
    assert "could be several sessions" in atlas("traces", "approve", "passed", expect=102)
    assert set(statuses().values()) == {"unreviewed"}
    assert atlas("traces", "quarantine", "--all") == "quarantined 4 sessions; 0 were quarantined already\n"


def test_review_asks_for_one_after_another(taken):
    output = atlas("traces", "review", "--by", "me", stdin="a it is right\n?\ns\nq\nx\n")
    assert output.index("session passed-1") < output.index("session passed-2") < output.index("session failed-1")
    assert "'?' is no key here" in output
    assert output.endswith("approved 1, quarantined 1; 2 sessions left as they were\n")
    found = statuses()
    assert (found["passed-1"], found["passed-2"], found["failed-1"]) == ("approved", "unreviewed", "quarantined")
    (review,) = json.loads(atlas("traces", "show", "passed-1", "--json"))["reviews"]
    assert (review["by"], review["reason"]) == ("me", "it is right")


def test_review_ends_with_its_input(taken):
    assert "approved 1, quarantined 0; 3 sessions left" in atlas("traces", "review", "--by", "me", stdin="a\n")
    assert "approved 0, quarantined 1; 0 sessions left" in atlas("traces", "review", "failed-1", stdin="q\n")


def test_review_does_not_decide_about_what_it_has_not_shown(taken, tmp_path, monkeypatch):
    late = write(tmp_path / "late.jsonl", attempt("late", "passed-1", 2e9))

    def answer():
        with TraceStore.open(tmp_path / "home") as store:
            store.import_file(late)
        return "a", None

    monkeypatch.setattr("atlas.cli.trace_review._answer", answer)
    assert "1 more records than were shown" in atlas("traces", "review", "passed-1", expect=2)
    assert statuses()["passed-1"] == "unreviewed"


def test_export_writes_what_is_approved_and_says_what_is_not(taken, tmp_path):
    atlas("traces", "approve", "--outcome", "passed")
    atlas("traces", "quarantine", "failed-1")
    output = atlas("traces", "export", "-o", tmp_path / "out.jsonl")
    assert output == (
        f"{tmp_path / 'out.jsonl'}: 2 sessions, 8 records\n  left out: 1 quarantined\n  left out: 1 unreviewed\n"
    )
    assert stat.S_IMODE((tmp_path / "out.jsonl").stat().st_mode) == 0o600
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["type"] for line in lines] == ["session", "attempt", "outcome", "end", "review"] * 2
    report = json.loads(atlas("traces", "export", "-o", tmp_path / "out.jsonl", "--status", "quarantined", "--json"))
    assert (report["sessions"], report["left_out"]) == (1, {"approved": 2, "unreviewed": 1})


HOSTILE = "\x1b]0;pwned\x07\x1b[2J[red]x[/red]\u202e"


def test_hostile_text_is_shown_escaped(tmp_path):
    fields = {"metadata": {HOSTILE: HOSTILE}, "model": HOSTILE}
    lines = [
        begin(f"s{HOSTILE}", task=HOSTILE, agent=HOSTILE, tags=[HOSTILE], **fields),
        attempt(session=f"s{HOSTILE}", text=HOSTILE, error=HOSTILE, **fields),
        guidance(session=f"s{HOSTILE}", parent="a", text=HOSTILE, name=HOSTILE),
        outcome(session=f"s{HOSTILE}", parent="a", scorer=HOSTILE, note=HOSTILE, reference=HOSTILE),
        end(session=f"s{HOSTILE}", answer=HOSTILE, error=HOSTILE),
        {HOSTILE: 1},
        attempt(session=f"s{HOSTILE}", text="another"),
        {"task": "t", "steps": [{HOSTILE: 1}], HOSTILE: 1, "review_status": HOSTILE},
    ]
    outputs = [
        atlas("traces", "import", write(tmp_path / f"{HOSTILE.replace('/', '')}.jsonl", *lines)),
        atlas("traces", "ls"),
        atlas("traces", "show", "s"),
        atlas("traces", "review", "--by", "me", stdin=f"{HOSTILE}\na {HOSTILE}\n"),
        atlas("traces", "export", "-o", tmp_path / "x.jsonl", "--tag", HOSTILE),
        atlas("traces", "show", HOSTILE, expect=102),
    ]
    atlas("traces", "import", write(tmp_path / "u.jsonl", begin(f"s{HOSTILE}2"), begin(f"s{HOSTILE}3")))
    outputs.append(atlas("traces", "show", "s", expect=102))
    for output in outputs:
        assert not {"\x1b", "\x07", "\u202e"} & {*output}
    assert "\\x1b]0;pwned\\x07\\x1b[2J[red]x[/red]" in outputs[2]
    assert "[red]x[/red]" in outputs[1]


def inputs_of(shared):
    lines = (shared / "data" / "bad_inputs.jsonl").read_text().splitlines()
    return {entry["id"]: entry for line in lines if (entry := json.loads(line))["kind"] == "trace"}


def test_known_bad_inputs_are_answered_as_expected(shared, tmp_path):
    known = inputs_of(shared)
    parent, negative = known["T15"], known["T17"]
    texts = {id: json.dumps(known[id]["input"]) for id in ("T03", "T04", "T14")}
    lines = [
        begin(),
        attempt(parent["input"]["span_id"], parent=parent["input"]["parent_id"]),
        attempt("b", duration_seconds=negative["input"]["end"] - negative["input"]["start"]),
        '{"content": ' + "[" * 10_000 + "]" * 10_000 + "}",
        *(attempt(id, text=next(iter(known[id]["input"].values()))) for id in texts),
    ]
    output = atlas("traces", "import", write(tmp_path / "t.jsonl", *lines))
    assert all(word in output for word in parent["expect"]["says"])
    assert "negative duration" in output
    assert known["T22"]["expect"]["says"][0] in output
    shown = atlas("traces", "show", "s")
    for id in texts:
        assert not any(word in shown for word in known[id]["expect"].get("never", []))
        assert all(word.split()[0] in shown for word in known[id]["expect"]["says"])
    assert "\x1b" not in shown


def test_arc_is_recognised_and_counted(tmp_path):
    step = {"step_id": 1, "description": "d", "trace": "t", "output": "o", "reward": {"score": 0.5}, "context": {}}
    session = {"task": "t", "final_answer": "a", "steps": [step], "session_metadata": {}, "review_status": "approved"}
    output = atlas("traces", "import", write(tmp_path / "arc.jsonl", session))
    assert "arc: 1 x steps[] -> attempt\n" in output
    assert "arc: lost 1 x steps[].context\n" in output
    assert "arc: review_status approved of 1 session not taken over\n" in output
    assert [*statuses().values()] == ["unreviewed"]


def test_the_documented_lines_are_what_is_imported(tmp_path):
    text = (Path(__file__).parents[1] / "docs" / "traces.md").read_text().split("## The line schema")[1]
    lines = [line for line in text.splitlines() if line.startswith('{"')]
    output = atlas("traces", "import", write(tmp_path / "t.jsonl", *lines))
    assert output.startswith("6 new records from 1 file: 1 new session,")
    (row,) = json.loads(atlas("traces", "ls", "--json"))
    assert (row["passed"], row["attempts"], row["interventions"], row["end"]) == (True, 2, 1, "completed")


def test_the_documentation_names_every_key(tmp_path):
    text = (Path(__file__).parents[1] / "docs" / "traces.md").read_text().split("## The line schema")[1]
    for model in get_args(AnyRecord):
        assert not [name for name in model.model_fields if f"`{name}`" not in text], model
