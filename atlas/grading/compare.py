"""Whether two answers are the same: as text, as numbers, as choices, and only then as mathematics."""

import re

from atlas.grading import symbolic
from atlas.grading.extract import MAX_ANSWER
from atlas.grading.latex import tidy
from atlas.grading.values import readings, same
from atlas.grading.words import harmless, hedged

_PLAIN_NUMBER = re.compile(r"[-+]?[0-9][0-9,.]*")
_CHOICE = re.compile(r"(?:(?:option|choice)\s)?\(?([A-Z])\)?[.:)]?|\(([A-Z])\)\s([^()]*)", re.DOTALL)


def equal(prediction: str, gold: str) -> bool:
    """Whether a prediction equals the gold answer. Cheap and exact for numbers; else math-verify decides."""
    if same_text(prediction, gold):
        return True
    if max(len(prediction), len(gold)) > MAX_ANSWER:
        return False
    tidy_prediction, tidy_gold = tidy(prediction), tidy(gold)
    if choice := _choice(tidy_gold):
        return _choice(tidy_prediction) == choice
    predicted, expected = readings(tidy_prediction), readings(tidy_gold)
    if predicted and expected:
        return any(same(left, right) for left in predicted for right in expected)
    return symbolic.same(prediction, gold)


def same_text(prediction: str, gold: str) -> bool:
    """Equality of normalised texts: without delimiters and spacing; words without case. An empty text equals none."""
    if max(len(prediction), len(gold)) > MAX_ANSWER:
        return prediction == gold
    if _PLAIN_NUMBER.fullmatch(gold) and _PLAIN_NUMBER.fullmatch(prediction):
        return prediction == gold
    left, right = _canonical(prediction), _canonical(gold)
    return left == right != ""


def readable(answer: str) -> bool:
    """Whether an answer is a number, a collection of numbers or a choice."""
    if len(answer) > MAX_ANSWER:
        return False
    answer = tidy(answer)
    return bool(_choice(answer) or readings(answer))


def _canonical(text: str) -> str:
    text = tidy(text)
    text, is_language = re.sub(r"(?<![0-9]) | (?![0-9])", "", text), _is_language(text)
    return text.casefold() if is_language else text


def _is_language(text: str) -> bool:
    """Whether case means nothing: `Tuesday`, `No`, `5 Apples`; not `A`, `xY`, `\\Delta`."""
    words = re.findall(r"[A-Za-z]+", text)
    if not words or max(map(len, words)) == 1 or re.search(r"[\\=^_]", text):
        return False
    return all(len(word) > 2 or word.lower() == "no" or harmless(word) for word in words)


def _choice(text: str) -> str | None:
    match = _CHOICE.fullmatch(text)
    if match is None or hedged(match[3] or "") or re.search(r"\b[A-Z]\b", match[3] or ""):
        return None
    return match[1] or match[2]
