"""Text that somebody else wrote (models, users, workers), shown as the characters that it is.

Streamlit reads headings, captions, labels and options as Markdown. What was not written in this package goes through
`plain` there; whole texts go to `st.code` or `st.text`, which read nothing into them. Never `unsafe_allow_html`.
"""

import re
from collections.abc import Mapping

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:&])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """The text on one line, escaped so that Markdown shows it as it is: no links, images, HTML, maths or icons."""
    return _MARKDOWN.sub(r"\\\1", " ".join(visible(text).split()))


def visible(text: str) -> str:
    """The text with control characters, and those that turn the direction of writing, replaced by U+FFFD."""
    return _CONTROL.sub("\ufffd", text)


def cut(text: str, characters: int) -> str:
    """The beginning of a long text, and how much was left out."""
    if len(text) <= characters:
        return text
    return f"{text[:characters]}\n[... {len(text) - characters:,} more characters]"


def aligned(facts: Mapping[str, str | None]) -> str:
    """`name   value` for each that is known."""
    known = {name: " ".join(value.split()) for name, value in facts.items() if value}
    width = max(map(len, known), default=0)
    return "\n".join(f"{name:<{width}}   {value}" for name, value in known.items())
