"""A document as HTML or Markdown, in a file.

Everything that is not `Markup` is untrusted: models write text that wants to be code. What a template prints passes
through `finalize`, so none is forgotten.
"""

import base64
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from atlas.errors import UsageError
from atlas.report.chart import themed
from atlas.report.document import Document
from atlas.secrets import redact

_TEMPLATES = {".html": "report.html.j2", ".htm": "report.html.j2", ".md": "report.md.j2"}


def check_output(output: Path) -> None:
    """Raises UsageError if the file's name does not end in a format, or it cannot be written there."""
    if output.suffix.lower() not in _TEMPLATES:
        raise UsageError(f"{output}: a report is HTML or Markdown; let the name end in .html or .md")
    if output.is_dir():
        raise UsageError(f"{output} is a folder; expected the name of a file")
    if not output.parent.is_dir():
        raise UsageError(f"{output.parent} is no folder; create it or write the report elsewhere")


def write(document: Document, output: Path) -> None:
    """Writes the report, in the format of the suffix, over what was there. A crash leaves the old file or the new one.

    Raises UsageError as `check_output`, and if the file cannot be written.
    """
    check_output(output)
    text = rendered(document, output.suffix.lower())
    output = output.resolve()  # a link stays a link
    part = output.with_name(f".{output.name}.part")
    try:
        part.write_text(text, encoding="utf-8", newline="\n")
        part.replace(output)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UsageError(f"cannot write {output}: {error.strerror}; choose another place with -o") from error


def rendered(document: Document, suffix: str) -> str:
    """The document as text; `suffix` is `.html`, `.htm` or `.md`."""
    template = _TEMPLATES[suffix]
    return _environment(template).get_template(template).render(document=document)


def visible(text: str) -> str:
    """The text with secrets taken out and everything that is not printed written out: control characters, ANSI codes,
    marks that turn the direction of writing, lone surrogates. Newlines and tabs stay."""
    return "".join(
        character if character.isprintable() or character in "\n\t" else _escape(ord(character))
        for character in redact(text)
    )


def markdown(text: str) -> Markup:
    """One line of text in which nothing is Markdown or HTML, safe in a table's cell too."""
    line = " ".join(visible(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*\[\]|~$])", r"\\\1", line)
    line = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", line)  # inside a word it is only itself
    return Markup(re.sub(r"^(?=#|[-+=]+(?:\s|$))", r"\\", line))


def fenced(text: str) -> Markup:
    """Text as a code block, its fence longer than any run of backticks in the text."""
    shown = visible(text)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", shown)), default=0))
    return Markup(f"{fence}text\n{shown.rstrip()}\n{fence}")


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


@cache
def _environment(template: str) -> Environment:
    finalize: Callable[[str], str] = markdown if template.endswith(".md.j2") else visible
    environment = Environment(
        loader=PackageLoader("atlas.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: value if isinstance(value, Markup) else finalize(str(value)),
    )
    filters: dict[str, Any] = {"fenced": fenced, "inline_svg": _inline_svg, "data_uri": _data_uri}
    environment.filters.update(filters)
    return environment


def _inline_svg(svg: str) -> Markup:
    return Markup(themed(svg))


def _data_uri(svg: str) -> Markup:
    return Markup(f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}")
