"""Completions as strips of tokens, of the same step side by side."""

from collections.abc import Mapping
from pathlib import Path

import streamlit as st

from atlas.store import Store
from atlas.store.aligned import FILE, AlignedCompletion, aligned_completions, aligned_steps
from dashboard.charts import strips
from dashboard.links import asked_for, begin_with
from dashboard.text import cut, plain, visible

_STEP, _SAMPLE = "step", "sample"
_NEWEST = "newest"
_MOST_RUNS = 4
_LONGEST_PROMPT = 4000


def show(store: Store, names: Mapping[str, str]) -> None:
    """Of the first runs with these ids, each under its name: one completion of the step and sample of the address."""
    st.subheader("Tokens", help=_HELP)
    folders = {run_id: Path(store.run(run_id).run_dir) for run_id in list(names)[:_MOST_RUNS]}
    kept = {run_id: aligned_steps(folder) for run_id, folder in folders.items()}
    for run_id, steps in kept.items():
        if not steps:
            st.text(
                f"{names[run_id]} has no completions in {folders[run_id] / FILE}: it has not ended a step yet, an "
                "older Atlas made it, or its directory is gone."
            )
    if not any(kept.values()):
        return
    step, sample = _chosen(kept)
    if len(names) > _MOST_RUNS:
        st.caption(f"The strips of the first {_MOST_RUNS} runs are drawn.")
    found = {}
    for run_id, steps in kept.items():
        if steps:
            at = max(steps) if step == _NEWEST else int(step)
            found[f"{names[run_id]}, step {at}"] = aligned_completions(folders[run_id], at)[sample - 1 : sample]
    _draw({caption: completion for caption, completions in found.items() for completion in completions})
    lacking = [caption for caption, completions in found.items() if not completions]
    if lacking:
        st.text(f"No sample {sample} of: {'; '.join(lacking)}")


def _draw(found: Mapping[str, AlignedCompletion]) -> None:
    if not found:
        return
    prompts = dict.fromkeys(completion.prompt for completion in found.values())
    if len(prompts) == 1:
        _prompt(next(iter(prompts)))
    st.html(strips.key())
    for caption, completion in found.items():
        st.markdown(f"**{plain(caption)}**: {plain(_counts(completion))}")
        if len(prompts) > 1:
            _prompt(completion.prompt)
        st.html(strips.strips(completion))
    st.download_button(
        "Strips as an HTML file",
        strips.document("Tokens", list(found.items())).encode("utf-8", "replace"),
        "tokens.html",
        "text/html",
        on_click="ignore",
        icon=":material/download:",
    )


def _prompt(prompt: str) -> None:
    with st.expander("Prompt"):
        st.code(cut(visible(prompt), _LONGEST_PROMPT), language=None, wrap_lines=True)


def _counts(completion: AlignedCompletion) -> str:
    chunks = completion.chunks()
    masked = sum(len(chunk.student) for chunk in chunks if chunk.number is None)
    left = f", {masked:,} of the student's tokens in none" if masked else ""
    return (
        f"{len(completion.student):,} tokens of the student and {len(completion.teacher):,} of the teacher in "
        f"{sum(chunk.number is not None for chunk in chunks):,} chunks{left}; "
        f"mean divergence {strips.amount(completion.mean)}"
    )


def _chosen(kept: Mapping[str, Mapping[int, int]]) -> tuple[str, int]:
    steps = [_NEWEST, *(str(step) for step in sorted({step for steps in kept.values() for step in steps}))]
    samples = [str(number) for number in range(1, 1 + max(max(steps.values()) for steps in kept.values() if steps))]
    for name, known in ((_STEP, steps), (_SAMPLE, samples)):
        unknown = [value for value in asked_for(name) if value not in known]
        if unknown:
            st.warning(f"There is no {name} {plain(', '.join(unknown))} here.")
    begin_with(_STEP, _NEWEST, steps)
    begin_with(_SAMPLE, "1", samples)
    with st.container(horizontal=True):
        step = st.segmented_control("Step", steps, key=_STEP, bind="query-params", required=True, width="content")
        sample = st.segmented_control(
            "Sample", samples, key=_SAMPLE, bind="query-params", required=True, width="content"
        )
    return step or _NEWEST, int(sample or 1)


_HELP = (
    "The completions of a step that the run kept, as the student wrote it and in the teacher's tokens. A cell is a "
    "chunk: the bytes between two boundaries that both tokenizers have. Point at one for its number and divergence."
)
