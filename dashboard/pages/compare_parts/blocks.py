"""Parts of a report, on the page: the same tables in the same words."""

from collections.abc import Iterable

import pandas as pd
import streamlit as st

from atlas.report.document import Block, Bullets, Code, Details, Paragraph, Table
from dashboard.text import plain


def show(blocks: Iterable[Block]) -> None:
    """All but figures, which the page draws itself."""
    for block in blocks:
        _show(block)


def _show(block: Block) -> None:
    match block:
        case Paragraph(text, "muted"):
            st.caption(plain(text))
        case Paragraph(text):
            st.markdown(plain(text))
        case Bullets(items):
            for item in items:
                st.markdown(f"- {plain(item)}")
        case Table():
            _table(block)
        case Code(text):
            st.code(text, language=None, wrap_lines=True, height=420)
        case Details(summary, inner):
            with st.expander(plain(summary)):
                show(inner)


def _table(table: Table) -> None:
    columns = [name or " " for name in table.columns]
    align = {
        name: st.column_config.TextColumn(alignment="left" if place < table.labels else "right")
        for place, name in enumerate(columns)
    }
    st.dataframe(
        pd.DataFrame([list(row) for row in table.rows], columns=columns),
        hide_index=True,
        height="content" if len(table.rows) <= 30 else 600,
        column_config=align,
    )
    for note in table.footnotes:
        st.caption(plain(note))
