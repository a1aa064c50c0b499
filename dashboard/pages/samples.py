"""What the models wrote: the same problem side by side, across runs and steps."""

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from atlas.comparison.by_problem import (
    FILTERS,
    NEWEST,
    TEST,
    Evaluation,
    common_steps,
    evaluations,
    problems_of,
)
from atlas.store import Store
from atlas.store.problems import Problem, problems
from dashboard import links
from dashboard.links import asked_for, begin_with
from dashboard.opening import opened_store
from dashboard.pages.samples_parts import problem_list, side_by_side
from dashboard.text import plain

_STEP, _SPLIT, _PROBLEM, _FILTER, _WORDS = "step", "split", "problem", "problems", "words"
MOST = 8
"""Evaluations that are put side by side."""


def page() -> None:
    store = opened_store()
    st.subheader("Samples")
    of_runs, of_split, of_steps = st.columns([11, 3, 6])
    with of_runs:
        run_ids = _runs(store)
    if not run_ids:
        return
    with of_split:
        split = _split(store, run_ids)
    if split is None:
        return
    with of_steps:
        compared = _evaluations(store, run_ids, split)
    if not compared:
        return
    asked = _asked(store, run_ids, split)
    shown = _filtered(store, compared, asked, split)
    if shown:
        problem_id = _chosen(compared, shown, asked)
        side_by_side.show(store, compared, split, problem_id, asked.get(problem_id))


def _runs(store: Store) -> list[str]:
    """The chosen runs; without a choice the newest one that was evaluated."""
    known = [run.id for run in store.runs()]
    if not known:
        st.text("No runs yet.")
        return []
    evaluated = store.latest_of(known, ["eval/pass_rate", "test/pass_rate"])
    begin_with(links.RUNS, [run_id for run_id in known if evaluated[run_id]][:1], known)
    unknown = [run_id for run_id in asked_for(links.RUNS) if run_id not in known]
    if unknown:
        st.warning(f"Not in this store: {plain(', '.join(unknown))}")
    run_ids = st.multiselect("Runs", known, key=links.RUNS, bind="query-params", max_selections=MOST)
    if not run_ids:
        st.text("Choose runs, up to eight: the first is the reference that the others gain and lose against.")
    return run_ids


def _split(store: Store, run_ids: Sequence[str]) -> str | None:
    found = {split for run_id in run_ids for _, split in store.evaluations(run_id)}
    splits = [split for split in ("test", "dev") if split in found]
    if not splits:
        st.text("No evaluated completions yet: the first come with the evaluation at step 0.")
        return None
    begin_with(_SPLIT, splits[0], splits)
    return st.segmented_control("Split", splits, key=_SPLIT, bind="query-params", required=True)


def _evaluations(store: Store, run_ids: Sequence[str], split: str) -> list[Evaluation]:
    steps = [TEST, NEWEST, *(str(step) for step in common_steps(store, run_ids, split))]
    unknown = [step for step in asked_for(_STEP) if step not in steps]
    if unknown:
        st.warning(
            f"Not a step at which all of these runs were evaluated on {plain(split)}: {plain(', '.join(unknown))}"
        )
    begin_with(_STEP, [TEST], steps)
    chosen = st.multiselect(
        "Steps",
        steps,
        key=_STEP,
        bind="query-params",
        help="test: the step whose weights were scored on test, else the newest. Numbers: steps that all runs have.",
    )
    found, missing = evaluations(store, run_ids, chosen, split)
    for sentence in missing:
        st.warning(plain(sentence))
    if len(found) > MOST:
        st.warning(f"The first {MOST} of {len(found)} evaluations are shown; choose fewer runs or steps.")
    if not chosen:
        st.text("Choose a step.")
    return found[:MOST]


def _asked(store: Store, run_ids: Sequence[str], split: str) -> dict[str, Problem]:
    """Problem id -> what was asked, as the first of the runs that recorded it has it."""
    for run_id in run_ids:
        found = {problem.id: problem for problem in problems(Path(store.run(run_id).run_dir), split)}
        if found:
            return found
    st.caption(
        "What was asked is not known: problems.jsonl is in none of these runs' directories. "
        "An older Atlas made them, or the directories are gone."
    )
    return {}


def _filtered(store: Store, compared: Sequence[Evaluation], asked: dict[str, Problem], split: str) -> list[str]:
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    with left:
        begin_with(_FILTER, "all", FILTERS)
        kind = st.segmented_control(
            "Problems", list(FILTERS), key=_FILTER, bind="query-params", required=True, help=_FILTERS_HELP
        )
    assert kind is not None
    with right:
        words = st.text_input(
            "Search", key=_WORDS, bind="query-params", placeholder="in problems, answers and completions"
        )
    shown = problems_of(compared, kind)
    if words:
        found = frozenset[str]().union(
            *(store.written(evaluation.run_id, evaluation.step, split, words) for evaluation in compared)
        )
        shown = [problem for problem in shown if problem in found or _holds(asked.get(problem), problem, words)]
    of = f"{len(shown)} of {len(problems_of(compared))} problems"
    reference = f"; gained and lost against {plain(compared[0].name)}" if len(compared) > 1 else ""
    st.caption(f"{of}{reference}")
    if not shown:
        alone = kind in ("gained", "lost") and len(compared) == 1
        st.text("Choose a second run or step to gain or lose against the first." if alone else "No such problem.")
    return shown


def _chosen(compared: Sequence[Evaluation], shown: list[str], asked: dict[str, Problem]) -> str:
    wanted = next(iter(asked_for(_PROBLEM)), None)
    if wanted is not None and wanted not in shown:
        st.warning(f"Problem {plain(wanted)} is not among these; here is the first that is.")
    begin_with(_PROBLEM, shown[0], shown)
    if _PROBLEM not in st.session_state:
        st.session_state[_PROBLEM] = wanted if wanted in shown else shown[0]
    return problem_list.choose(compared, shown, asked, _PROBLEM)


def _holds(problem: Problem | None, problem_id: str, words: str) -> bool:
    text = problem_id if problem is None else f"{problem_id}\n{problem.text}\n{problem.answer}"
    return words.lower() in text.lower()


_FILTERS_HELP = (
    "gained: wrong in the first column, right in another; lost: the reverse. "
    "The others: in some column. unparsed: no answer was found; clipped: cut at the token limit."
)
