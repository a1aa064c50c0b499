"""A completion as two strips of tokens, the student's over the teacher's, chunk by chunk: HTML.

One cell a chunk, so that the strips stand under each other and wrap like text. Every character of a token is escaped
here; this is the only HTML of the dashboard. The tint and the bar over a chunk say its divergence, on one scale for all
runs and steps: one hue over the page's own background, so that text is readable in light, in dark and in print; each
level is also a taller bar.
"""

import bisect
import html
import math
import unicodedata
from collections.abc import Sequence

from atlas.store.aligned import AlignedCompletion, Chunk

LEVELS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Nats of a chunk from which on the tint is stronger: the divergences of one completion span orders of magnitude."""
MOST_CHUNKS = 1000
"""Of one completion that are drawn."""
_MOST_TOKENS, _LONGEST_TOKEN = 200, 200
"""Of one side of one chunk; characters of one token."""
_HUE = "213, 94, 0"  # vermillion of Okabe and Ito
_OPACITY = (0.0, 0.1, 0.2, 0.31, 0.43, 0.56, 0.7)
_SPACES = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}

_STYLE = f"""<style>
.atlas-strips {{ display: flex; flex-wrap: wrap; align-items: stretch; gap: 6px 3px; margin: 4px 0 14px;
  font: 13px/1.5 ui-monospace, "Source Code Pro", "DejaVu Sans Mono", monospace; print-color-adjust: exact;
  -webkit-print-color-adjust: exact; }}
.atlas-strips > span {{ display: grid; grid-template-rows: 15px auto auto; max-width: 100%; break-inside: avoid; }}
.atlas-strips > b {{ flex-basis: 100%; height: 0; }}
.atlas-strips .bar {{ align-self: end; min-height: 0; background: rgb({_HUE}); border-radius: 2px 2px 0 0;
  font-size: 10px; line-height: 15px; text-align: center; }}
.atlas-strips .side {{ display: flex; flex-wrap: wrap; justify-content: center; min-height: 21px; min-width: 0;
  border: 1px solid rgba(128, 128, 128, .55); }}
.atlas-strips .side + .side {{ border-top-style: dotted; }}
.atlas-strips .side > span {{ flex: 1 0 auto; max-width: 100%; padding: 0 2px; text-align: center; white-space: pre;
  overflow-wrap: anywhere; unicode-bidi: isolate; }}
.atlas-strips .side > span:has(+ span) {{ border-right: 1px solid rgba(128, 128, 128, .55); }}
.atlas-strips i {{ font-style: normal; opacity: .5; }}
.atlas-strips .masked .side {{ border-style: dashed; background: repeating-linear-gradient(135deg,
  rgba(128, 128, 128, .2) 0 2px, transparent 2px 8px); }}
.atlas-strips .odd .side {{ border: 2px solid rgb({_HUE}); }}
.atlas-strips .odd .bar {{ background: none; }}
.atlas-strips .name .side {{ border-color: transparent; justify-content: flex-start; opacity: .75;
  font-family: sans-serif; padding-right: 4px; }}
.atlas-strips.key {{ gap: 3px 14px; margin-bottom: 2px; font-size: 12px; }}
.atlas-strips.key .side {{ padding: 0 6px; }}
{
    "".join(
        f".atlas-strips .l{level} .side {{ background: rgba({_HUE}, {opacity}); }}"
        f".atlas-strips .l{level} .bar {{ height: {2 * level}px; }}"
        for level, opacity in enumerate(_OPACITY)
    )
}
</style>"""


def strips(completion: AlignedCompletion) -> str:
    """The first chunks of a completion, with what was left out."""
    chunks = completion.chunks()
    cells = [_name_cell(), *(_cell(chunk) for chunk in chunks[:MOST_CHUNKS])]
    if len(chunks) > MOST_CHUNKS:
        cells.append(f"<b></b><span>{len(chunks) - MOST_CHUNKS:,} more chunks are not drawn</span>")
    return f'{_STYLE}<div class="atlas-strips">{"".join(cells)}</div>'


def key() -> str:
    """What tint, bar and hatching mean."""
    words = [f"below {LEVELS[0]:g}", *(f"from {bound:g}" for bound in LEVELS)]
    cells = [_key_cell(f"l{level}", word) for level, word in enumerate(words)]
    cells.append(_key_cell("masked", "in no chunk: not learnt from"))
    name = '<span class="name"><span class="bar"></span><span class="side">nats a chunk</span></span>'
    return f'{_STYLE}<div class="atlas-strips key">{name}{"".join(cells)}</div>'


def document(title: str, completions: Sequence[tuple[str, AlignedCompletion]]) -> str:
    """A file of its own, to be printed or kept: completions, each under its caption."""
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title>'
    body = "".join(f"<p>{html.escape(caption)}</p>{strips(completion)}" for caption, completion in completions)
    return f"<!doctype html><html><head>{head}</head><body><h3>{html.escape(title)}</h3>{key()}{body}</body></html>"


def token(text: str) -> str:
    """Escaped; white space and what has no shape of its own as signs."""
    shown = text[:_LONGEST_TOKEN] + ("…" if len(text) > _LONGEST_TOKEN else "")
    alone = "<i>◌</i>" if shown and unicodedata.category(shown[0]) in ("Mn", "Me") else ""
    return alone + "".join(_character(character) for character in shown)


def amount(divergence: float | None) -> str:
    """`0.189 nats`; `NaN`."""
    if divergence is None:
        return "divergence not recorded"
    return f"{divergence:.3g} nats" if math.isfinite(divergence) else _word(divergence)


def _character(character: str) -> str:
    if character in _SPACES:
        return f"<i>{_SPACES[character]}</i>"
    if not character.isprintable():
        return f"<i>U+{ord(character):04X}</i>"
    return html.escape(character)


def _cell(chunk: Chunk) -> str:
    after = "<b></b>" if any("\n" in text for text in chunk.student or chunk.teacher) else ""
    bar = _word(chunk.divergence) if chunk.divergence is not None and not math.isfinite(chunk.divergence) else ""
    return (
        f'<span class="{_kind(chunk)}" title="{html.escape(_tooltip(chunk))}"><span class="bar">{bar}</span>'
        f"{_side(chunk.student)}{_side(chunk.teacher)}</span>{after}"
    )


def _side(tokens: Sequence[str]) -> str:
    shown = [f"<span>{token(text)}</span>" for text in tokens[:_MOST_TOKENS]]
    if len(tokens) > _MOST_TOKENS:
        shown.append(f"<span>… {len(tokens) - _MOST_TOKENS:,} more</span>")
    return f'<span class="side">{"".join(shown)}</span>'


def _kind(chunk: Chunk) -> str:
    if chunk.number is None:
        return "masked"
    if chunk.divergence is None:
        return "unknown"
    if not math.isfinite(chunk.divergence):
        return "odd"
    return f"l{bisect.bisect_right(LEVELS, chunk.divergence)}"


def _tooltip(chunk: Chunk) -> str:
    head = (
        "in no chunk: not learnt from" if chunk.number is None else f"chunk {chunk.number}: {amount(chunk.divergence)}"
    )
    sides = (
        f"{name}: {' | '.join(repr(text[:_LONGEST_TOKEN]) for text in tokens[:20])}"
        for name, tokens in (("student", chunk.student), ("teacher", chunk.teacher))
        if tokens
    )
    return "\n".join((head, *sides))


def _name_cell() -> str:
    return (
        '<span class="name"><span class="bar"></span><span class="side">student</span>'
        '<span class="side">teacher</span></span>'
    )


def _key_cell(kind: str, words: str) -> str:
    return f'<span class="{kind}"><span class="bar"></span><span class="side">{words}</span></span>'


def _word(value: float) -> str:
    return "NaN" if math.isnan(value) else "∞" if value > 0 else "-∞"
