"""LaTeX as it is met in answers, written in one way."""

import re

from atlas.grading.words import MATHS_WORDS, harmless

_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mathit|mbox|operatorname)\s*\{([^{}]*)\}")
_TRAILING_TEXT = re.compile(rf"(.*?)(?:{_TEXT.pattern})(?:\^\{{?[23]\}}?)?", re.DOTALL)
_DOLLARS = re.compile(r"(?<!\\)(\$\$?)((?:[^$\\]|\\.)*)\1", re.DOTALL)
_BRACKETS = re.compile(r"\\[()\[\]]")
_FRACTION = re.compile(r"\\frac\s*(?:\{([^{}]*)\}|([0-9]))\s*(?:\{([^{}]*)\}|([0-9]))")
_WORD = re.compile(r"[^\W\d_]{2,}")

_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"[−‒–]", "-"),
        (r"[\u00a0\u2009\u202f\t\r\n]", " "),
        (r"\\!\s*", ""),
        (r"\{,\}", ","),
        (r"\\[,;: ]|\\q?quad(?![A-Za-z])|~", " "),
        (r"\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])", ""),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\%", "%"),
        (r"\\\$", "$"),
        (r"\^\s*\{?\s*\\circ\s*\}?|\\degree(?![A-Za-z])", "°"),
        (r"\\(?:times|cdot)(?![A-Za-z])", "*"),
        (r"\\approx(?![A-Za-z])", "≈"),
    )
]


def without_delimiters(text: str) -> str:
    """`$x$`, `$$x$$`, `\\(x\\)` and `\\[x\\]` -> `x`. An unpaired or escaped dollar is money and stays."""
    return _BRACKETS.sub(" ", _DOLLARS.sub(r"\2", text))


def tidy(text: str) -> str:
    """Without delimiters, text commands and spacing: equal tidied texts mean the same."""
    text = _TEXT.sub(r" \1 ", without_delimiters(text))
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    text = _FRACTION.sub(lambda part: rf"\frac{{{part[1] or part[2]}}}{{{part[3] or part[4]}}}", text)
    return re.sub(r" +", " ", text).strip().rstrip(".,;:").strip()


def text_words(text: str) -> str:
    """The contents of `\\text{}` and its like, joined."""
    return " ".join(_TEXT.findall(text))


def without_unit(text: str) -> str:
    """`2\\pi\\text{ cm}^2` -> `2\\pi`; a text that says something else than a unit stays."""
    match = _TRAILING_TEXT.fullmatch(text.strip())
    if match and match[1].strip() and all(harmless(word) for word in match[2].split()):
        return match[1].strip()
    return text


def has_prose(text: str) -> bool:
    """Whether a text holds words outside of `\\text{}` that are neither maths (`sin`) nor a connective (`and`)."""
    text = re.sub(r"\\(?:begin|end)\s*\{[A-Za-z*]*\}|\\[A-Za-z]+", " ", _TEXT.sub(" ", text))
    return any(len(word) > 2 or not word.isascii() for word in _WORD.findall(text) if word.lower() not in MATHS_WORDS)
