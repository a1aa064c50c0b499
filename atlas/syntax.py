"""PyYAML's errors of syntax in words that say what to do."""

import re
from typing import Any

import yaml


def explained(error: yaml.MarkedYAMLError, text: str, lines: bool) -> tuple[Any, str]:
    """Where the mistake is and what it is. With `lines` the message names the line as well."""
    mark = error.problem_mark or error.context_mark
    assert mark is not None
    context = error.context_mark or mark
    problem = (error.problem or "").replace("\t", "\\t")
    match, message = next((match, message) for pattern, message in _MESSAGES if (match := re.search(pattern, problem)))

    def on(at: Any) -> str:
        return f" on line {at.line + 1}" if lines else ""

    said = message.format(*match.groups(), line=on(mark), opened=on(context), problem=shown(problem, quote=False))
    if "unterminated" in said:
        return context, said
    quote = _multiline_quote(text, mark)
    if quote is not None:
        said += f" (or an unterminated quote: the one opened{on(quote)} closes on a later line)"
    return mark, said


def _multiline_quote(text: str, end: Any) -> Any | None:
    """Where the last quoted text before an error starts if it goes over several lines: its quote was forgotten."""
    last = None
    try:
        for token in yaml.scan(text, yaml.SafeLoader):
            if token.start_mark.index >= end.index:
                break
            if isinstance(token, yaml.ScalarToken) and token.style in ("'", '"'):
                last = token
    except yaml.YAMLError:
        pass  # The error itself is being reported; this only looks for a better explanation of it.
    return last.start_mark if last is not None and last.start_mark.line < last.end_mark.line else None


_MESSAGES = [
    (r"end of stream|document separator", "unterminated quote: the quote opened{opened} is never closed"),
    (r"escape character '(.)'", "unknown escape \\{0} in double quotes{line}; use single quotes: 'C:\\data'"),
    (r"escape", "unknown escape in double quotes{line} ({problem}); use single quotes: 'C:\\data'"),
    (r"character '\\t'", "a tab{line}; YAML is indented with spaces only"),
    (r"character '(.)' that cannot start", "a value cannot start with {0}{line}; quote it"),
    (
        r"mapping values are not allowed",
        "unexpected ':'{line}; check the indentation, or quote the value if it holds ': '",
    ),
    (r"sequence entries are not allowed", "unexpected '- '{line}; a list starts on a line of its own"),
    (r"could not find expected ':'", "expected `key: value`{opened}; is a ':' or a space after it missing?"),
    (r"expected ',' or '([]}])', but got '<stream end>'", "the bracket opened{opened} is never closed; add {0}"),
    (r"but got '\{'", "unexpected '{{'{line}; quote ${{env:NAME}} inside brackets"),
    (r"expected ',' or '([]}])'", "expected ',' or {0}{line}; is a comma or a closing bracket missing?"),
    (r"undefined tag handle", "YAML tags are not allowed{line}; write the plain value"),
    (r"but found '<scalar>'", "unexpected text{line}; check the indentation, or quote the whole value"),
    (r"", "not valid YAML{line}: {problem}"),
]
"""What PyYAML says -> what is shown. The first that matches counts."""


def shown(text: str, quote: bool = True) -> str:
    """The text on one line, unprintable characters escaped, cut to a sensible length."""
    text = text if len(text) <= 60 else text[:57] + "..."
    printable = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return f"'{printable}'" if quote else printable
