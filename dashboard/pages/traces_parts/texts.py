"""Texts that agents wrote: as characters, and long ones folded."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from atlas.traces.records import Message
from dashboard.pages.traces_parts.words import calls
from dashboard.text import cut, plain, visible

_SHORT, _SHORT_LINES = 800, 12
"""Characters and lines of a text that is shown whole."""
_BEGINNING, _BEGINNING_LINES = 500, 6
_LONGEST, _HEIGHT = 20_000, 420
"""Characters of an opened text; the rest is in `atlas traces show`."""
_MOST_MESSAGES = 50


def show_text(text: str) -> None:
    """Whole, or its beginning with the rest folded under it."""
    if not text:
        st.caption("no text")
        return
    if len(text) <= _SHORT and text.count("\n") < _SHORT_LINES:
        st.code(visible(text), language=None, wrap_lines=True)
        return
    beginning = "\n".join(text[:_BEGINNING].split("\n")[:_BEGINNING_LINES])
    st.code(f"{visible(beginning)} …", language=None, wrap_lines=True)
    with st.expander(f"All {len(text):,} characters"):
        st.code(cut(visible(text), _LONGEST), language=None, wrap_lines=True, height=_HEIGHT)


def show_messages(messages: Sequence[Message]) -> None:
    """Turns of a chat, each under its role."""
    for message in messages[:_MOST_MESSAGES]:
        name = f" {message.name}" if message.name else ""
        st.caption(plain(f"{message.role}{name}"))
        if message.content or not message.tool_calls:
            show_text(message.content)
        if message.tool_calls:
            show_calls(message.tool_calls)
    if len(messages) > _MOST_MESSAGES:
        st.caption(f"{len(messages) - _MOST_MESSAGES:,} more messages")


def show_calls(tool_calls: Sequence[Mapping[str, Any]]) -> None:
    """What tools were asked for."""
    st.caption("calls")
    show_text(calls(tool_calls))


def show_metadata(metadata: Mapping[str, Any]) -> None:
    """Whatever else is known of a record, folded."""
    if metadata:
        with st.expander("metadata"):
            said = json.dumps(metadata, indent=2, ensure_ascii=False)
            st.code(cut(visible(said), _LONGEST), language=None, wrap_lines=True)
