"""Where the hours went."""

import streamlit as st

from atlas.comparison.model import Comparison
from atlas.comparison.phases import phase_means
from atlas.report import results
from atlas.report.document import Paragraph
from dashboard.charts.arms import SHOWN
from dashboard.charts.phases import phase_chart
from dashboard.pages.compare_parts import blocks
from dashboard.pages.compare_parts.drawn import chart
from dashboard.text import plain


def show(comparison: Comparison) -> None:
    """A bar for each arm; the teacher's shares and the same in numbers from the report."""
    spent = {arm.name: seconds for arm in comparison.arms[:SHOWN] if (seconds := phase_means(arm))}
    if not spent:
        st.subheader("Where the time went")
        st.caption("No phases were recorded.")
        return
    chart(phase_chart(spent), "phases", "### Where the time went")
    of_report = results.phases_in_words(comparison)
    sentences = [block.text for block in of_report if isinstance(block, Paragraph) and block.tone == "plain"]
    st.markdown("  \n".join(map(plain, sentences)))
    blocks.show(block for block in of_report if not (isinstance(block, Paragraph) and block.tone == "plain"))
