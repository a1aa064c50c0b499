"""LaTeX as it is met in answers, written in one way."""

import re

from atlas.grading.words import MATHS_WORDS, harmless

_TEXT = re.compile(
    r"\\(?:text(?:bf|it|rm|normal|sf|tt)?|math(?:rm|bf|it|sf)|mbox|emph|operatorname|boldsymbol|underline)"
    r"\s*\{([^{}]*)\}"
)
_TRAILING_TEXT = re.compile(rf"(.*?)(?:{_TEXT.pattern})(?:\^\{{?[23]\}}?)?", re.DOTALL)
_DOLLARS = re.compile(r"(?<!\\)(\$\$?)((?:[^$\\]|\\.)*)\1", re.DOTALL)
_BRACKETS = re.compile(r"\\[()\[\]]")
_FRACTION = re.compile(r"\\frac\s*(?:\{([^{}]*)\}|([0-9]))\s*(?:\{([^{}]*)\}|([0-9]))")
_WORD = re.compile(r"[^\W\d_]{2,}")

_NAMES = ("infty", "pi", "pm", "times", "le", "ge", "ne", "cup")
_CHARACTERS = str.maketrans(
    {
        **dict(zip("０１２３４５６７８９", "0123456789", strict=True)),
        **{part: rf"\frac{{{top}}}{{{bottom}}}" for part, top, bottom in zip("½⅓⅔¼¾", "11213", "23344", strict=True)},
        **dict.fromkeys("−‒–", "-"),
        **{sign: rf"\{name} " for sign, name in zip("∞π±×≤≥≠∪", _NAMES, strict=True)},
    }
)
_ROOT = re.compile(r"√\s*(?:\(([^()]*)\)|([0-9]+|[A-Za-z]))")
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_LOWERED = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_DIGITS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉", "0123456789" * 2)

_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
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
        (r"\\varnothing(?![A-Za-z])", r"\\emptyset"),
        (r"(?i)(?<=[0-9])\s?([ap])\.\s?m\b\.?", r" \1m"),
        (r"\bnegative (?=[$€£]?[0-9.])", "-"),
    )
]


def without_delimiters(text: str) -> str:
    """`$x$`, `$$x$$`, `\\(x\\)` and `\\[x\\]` -> `x`. An unpaired or escaped dollar is money and stays."""
    return _BRACKETS.sub(" ", _DOLLARS.sub(r"\2", text))


def spelled(text: str) -> str:
    """Mathematical characters as LaTeX: `2√3` -> `2\\sqrt{3}`, `x²` -> `x^{2}`, `½` -> `\\frac{1}{2}`."""
    if text.isascii():
        return text
    text = _ROOT.sub(lambda root: rf"\sqrt{{{root[1] or root[2]}}}", text.translate(_CHARACTERS))
    text = _RAISED.sub(lambda digits: f"^{{{digits[0].translate(_DIGITS)}}}", text)
    return _LOWERED.sub(lambda digits: f"_{{{digits[0].translate(_DIGITS)}}}", text)


def tidy(text: str) -> str:
    """Without delimiters, text commands and spacing: equal tidied texts mean the same."""
    text = _TEXT.sub(r" \1 ", without_delimiters(spelled(text)))
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return re.sub(r" +", " ", with_braced_fractions(text)).strip().rstrip(".,;:").strip()


def with_braced_fractions(text: str) -> str:
    """`\\frac12` -> `\\frac{1}{2}`."""
    return _FRACTION.sub(lambda part: rf"\frac{{{part[1] or part[2]}}}{{{part[3] or part[4]}}}", text)


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
    text = re.sub(r"\\(?:begin|end)\s*\{[A-Za-z*]*\}|\\[A-Za-z]+", " ", _TEXT.sub(" ", spelled(text)))
    return any(len(word) > 2 or not word.isascii() for word in _WORD.findall(text) if word.lower() not in MATHS_WORDS)
