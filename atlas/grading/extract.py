"""Where the final answer of a text stands."""

import re
from itertools import pairwise

from atlas.grading.compare import readable
from atlas.grading.latex import has_prose, without_delimiters
from atlas.grading.numerals import numeral
from atlas.grading.values import MAX_ANSWER
from atlas.grading.words import SCALES, UNITS, harmless, hedged

_MAX_TAIL = 2000
_MAX_MARKERS = 20
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\.|([{}])", re.DOTALL)
_IS = r"\b(?:is|are|equals|would be|must be|should be)\b"
_MARKER = re.compile(
    rf"####(?!#)|\banswer\b(?:[\s*_`'\")]{{0,4}}(?::|=|{_IS})|\sto (?:the|this|your) (?:question|problem)\s{_IS})",
    re.IGNORECASE,
)
_DISPLAY = re.compile(r"\$\$.*?\$\$|\\\[.*?\\\]", re.DOTALL)
_PREMISE = re.compile(r",\s*(?:so|then|we)\b", re.IGNORECASE)
_SUBJECT = re.compile(r".*\b(?:is|are|equals)\s+(?=[-$\\({0-9.])")
_END = re.compile(r"[.?](?:\s|$)|, (?:which|because|since)\b|\b(?:because|since)\b")
_JOIN = re.compile(r"\s*(?:,|;|,?\s*\b(?:and|or)\b)\s*", re.IGNORECASE)
_BOX_GAP = re.compile(r"(?:[^.\n]|\.(?=\S)){0,80}?(?:[,;]|\b(?:and|or)\b)(?:[^.\n]|\.(?=\S)){0,80}", re.IGNORECASE)
_SCALE = re.compile(rf"\s(?:{'|'.join(SCALES)})\b")
_LEADING_NUMBER = re.compile(r"[-+−]?[$€£]?\.?[0-9]")
_OPTION = re.compile(r"(?:[Oo]ption|[Cc]hoice) \(?[A-Z]\)?[.:]?")
_NUMBER = (
    r"(?:\bnegative )?[-+−]?[$€£]?(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]{1,3}(?: [0-9]{3})+(?![0-9])|[0-9]+)"
    rf"(?:\.[0-9]+)?|\.[0-9]+)(?:\s?/\s?[0-9]+|(?::[0-9]+)+)?(?:%|{_SCALE.pattern})?"
)
_NUMBERS = re.compile(rf"(?<![A-Za-z0-9_.]){_NUMBER}(?:\s*,?\s*\bor\s+{_NUMBER})*")


def final_answer(completion: str) -> str | None:
    """The answer that a completion ends on, or None. In this order:

    1. the last `\\boxed{}`; several that are joined by a comma, `and` or `or` are one list;
    2. what follows the last `####`, `answer is` or `answer:` (with or without `final`), up to the end of the sentence;
       not a premise, which goes on with `, so`;
    3. the whole completion, if it is one expression without prose, a number with its unit, or a choice;
    4. the last `$...$`, `\\(...\\)`, `\\[...\\]` or number, whichever comes later.

    A box that was opened and cut off is left out, with all after it.
    """
    if boxed := _boxed(completion):
        return boxed
    completion = _before_open_box(completion)
    return _announced(completion) or _bare(completion) or _last(completion)


def stated_answer(answer: str) -> str:
    """A gold answer without what stands around it: as `final_answer`, but never a part of an unmarked text."""
    return _boxed(answer) or _announced(answer) or answer.strip()


def _before_open_box(text: str) -> str:
    boxes = list(_BOX.finditer(text))
    if boxes and _closing_brace(text, boxes[-1].end(), len(text)) is None:
        return text[: boxes[-1].start()]
    return text


def _boxed(text: str) -> str | None:
    starts = list(_BOX.finditer(text))
    if not starts:
        return None
    contents: list[str] = []
    following: int | None = None
    for start in reversed(starts):
        end = _closing_brace(text, start.end(), len(text) if following is None else following)
        if end is None:
            break
        if following is not None and not _joins(text[end + 1 : following]):
            break
        contents.append(text[start.end() : end].strip())
        following = start.start()
    return ", ".join(reversed(contents)) or None


def _joins(gap: str) -> bool:
    return len(gap) < 160 and _BOX_GAP.fullmatch(gap) is not None


def _closing_brace(text: str, start: int, stop: int) -> int | None:
    depth = 1
    for brace in _BRACE.finditer(text, start, stop):
        if brace[1]:
            depth += 1 if brace[1] == "{" else -1
        if depth == 0:
            return brace.start()
    return None


def _announced(text: str) -> str | None:
    markers = list(_MARKER.finditer(text))[-_MAX_MARKERS:]
    contents = [content for marker in markers if (content := _sentence(text[marker.end() :][:_MAX_TAIL]))]
    contents = [content for content in contents if not _PREMISE.search(content)]
    if not contents:
        return None
    telling = [content for content in contents if re.search(r"[0-9\\$]|(?<![A-Za-z])[A-Z](?![A-Za-z])", content)]
    sentence = (telling or contents)[-1]
    subject = _SUBJECT.match(sentence)
    if subject and not hedged(subject[0]):
        sentence = sentence[subject.end() :]
    return _only_maths(sentence)


def _sentence(rest: str) -> str:
    """The rest of the sentence. A display formula may span lines."""
    rest = re.sub(r"^[\s:*_=>`]+", "", rest)
    rest = re.sub(r"^is\b\s*:?\s*", "", rest)
    display = _DISPLAY.match(rest)
    if display:
        rest = display[0].replace("\n", " ") + rest[display.end() :]
    line = rest.split("\n", 1)[0]
    return _END.split(line, maxsplit=1)[0].strip(" \t\r*_`").rstrip(".,;:!?*_` ")


def _only_maths(sentence: str) -> str:
    """`therefore $\\sqrt{2}$` -> `\\sqrt{2}`, unless the words or numbers around it could change what is said."""
    spans = _maths(sentence)
    if not spans:
        return sentence
    (start, _, _), (_, end, _) = spans[0], spans[-1]
    around = sentence[:start] + " " + sentence[end:]
    joined = all(_JOIN.fullmatch(sentence[left[1] : right[0]]) for left, right in pairwise(spans))
    words = re.findall(r"[^\W\d_]+", around)
    if not joined or re.search(r"[0-9%]", around) or not words or not all(map(harmless, words)):
        return sentence
    return ", ".join(content for _, _, content in spans)


def _bare(text: str) -> str | None:
    text = text.strip(" \t\r\n*_`")
    if not text or len(text) > MAX_ANSWER or _BOX.search(text):
        return None
    if has_prose(text) and not _is_answer(text):
        return None
    inner = without_delimiters(text).strip()
    if "\n" in inner or not re.search(r"[^\W_]|∞", inner):
        return None
    return text


def _is_answer(text: str) -> bool:
    """Whether words are an answer by themselves: `5 apples`, `Option A`, `three quarters`."""
    if _OPTION.fullmatch(text) or numeral(text) is not None:
        return True
    return bool(_LEADING_NUMBER.match(text)) and readable(text)


def _last(text: str) -> str | None:
    tail = text[-_MAX_TAIL:]
    spans = _maths(tail)
    numbers = [number for number in _NUMBERS.finditer(tail) if _stands_alone(tail, number.end())]
    if not spans:
        return numbers[-1][0] if numbers else None
    if numbers and numbers[-1].start() >= spans[-1][1]:
        return numbers[-1][0]
    contents: list[str] = []
    following: int | None = None
    for start, end, content in reversed(spans):
        if following is not None and not _JOIN.fullmatch(tail[end:following]):
            break
        contents.append(content)
        following = start
    scale = _SCALE.match(tail, spans[-1][1])
    return ", ".join(reversed(contents)) + (scale[0] if scale else "")


def _stands_alone(text: str, end: int) -> bool:
    """`5km` and `5`, not `5x` or `5th`."""
    glued = re.compile(r"[A-Za-z]+").match(text, end)
    return glued is None or glued[0].lower() in UNITS or (len(glued[0]) > 2 and harmless(glued[0]))


_SPAN = re.compile(
    r"(?<!\\)\$\$(?P<a>(?:[^$\\]|\\.)+?)\$\$|\\\[(?P<b>.{1,1000}?)\\\]|\\\((?P<c>.{1,1000}?)\\\)"
    r"|(?<![\\0-9])\$(?P<d>(?:[^$\n\\]|\\.)+?)\$(?![0-9])",
    re.DOTALL,
)


def _maths(text: str) -> list[tuple[int, int, str]]:
    """(start, end, content) of each formula. `$5 and got $6` is money: a formula holds no prose."""
    spans = []
    position = 0
    while match := _SPAN.search(text, position):
        content = match[match.lastgroup or 0].strip()
        if not content or (match.lastgroup == "d" and has_prose(content)):
            position = match.start() + 1
            continue
        spans.append((match.start(), match.end(), content))
        position = match.end()
    return spans
