"""Charts on the page, and what of them can be taken along."""

import streamlit as st

from dashboard.charts.drawing import Drawing


def chart(drawing: Drawing, name: str, heading: str) -> None:
    """Draws it under its heading (Markdown) and a link to SVG, which is made when it is asked for. PNG is in the
    chart's own toolbar."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(heading, width="content")
        st.download_button(
            "SVG",
            data=lambda: drawing.svg(),
            file_name=f"{name}.svg",
            mime="image/svg+xml",
            key=f"svg-{name}",
            on_click="ignore",
            type="tertiary",
            icon=":material/download:",
            help="This chart as SVG. PNG: in the chart's toolbar.",
        )
    spec = {**drawing.spec, "datasets": dict(drawing.tables)}
    st.vega_lite_chart(spec=spec, width="stretch", alt=drawing.alt, key=f"chart-{name}")
