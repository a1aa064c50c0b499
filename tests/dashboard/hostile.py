"""Text that does harm where it is taken for markup, and a look for it on a page."""

import re

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "![x](http://h/y.png)",
    "[a](javascript:alert(1))",
    "</div><script>alert(1)</script>",
    "`` ` ``` :material/home: $x$ **b** :red[r] <b>&amp;",
)
_TAG = re.compile(r"(?<!\\)<(script|img)")
_MARKDOWN = ("markdown", "caption", "warning", "error", "info", "success", "header", "subheader", "title")


def assert_no_markup(test):
    """No hostile text stands as it is in what Streamlit reads as Markdown or HTML, nor in a label."""
    shown = [str(element.value) for kind in _MARKDOWN for element in test.get(kind)]
    shown += [
        str(getattr(element, "label", ""))
        for kind in ("selectbox", "multiselect", "text_input", "button", "download_button", "expander", "metric")
        for element in test.get(kind)
    ]
    for text in HOSTILE:
        for page in shown:
            assert text not in page, page
            assert not _TAG.search(page), page
    for element in test.get("html"):
        assert not _TAG.search(element.proto.body), element.proto.body
