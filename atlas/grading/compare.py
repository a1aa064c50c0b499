"""Whether two answers are the same: as text, as numbers, as choices, and only then as mathematics."""

import re

from atlas.grading import symbolic
from atlas.grading.latex import tidy, without_delimiters
from atlas.grading.policy import GradingSpec
from atlas.grading.values import MAX_ANSWER, items, readings, same
from atlas.grading.words import harmless, hedged

_PLAIN_NUMBER = re.compile(r"[-+]?[0-9][0-9,.]*")
_CHOICE = re.compile(r"(?:(?:[Oo]ption|[Cc]hoice)\s)?\(?([A-Z])\)?[.:)]?|\(([A-Z])\)\s([^()]*)", re.DOTALL)


_RELATION = re.compile(r"[<>]|\\(?:[lg]t|[lg]eq?|[lg]eqslant)(?![A-Za-z])")
_PERCENT = re.compile(r"\s*(?:\\?%|\\text\s*\{\s*(?:percent|pct)\s*\})\s*$")

DEFAULT = GradingSpec()


def equal(prediction: str, gold: str, policy: GradingSpec = DEFAULT) -> bool:
    """Whether two answers are equal. Cheap and exact for numbers; else math-verify decides.

    Symmetric. An answer equals itself, unless nothing is left of it without delimiters, spacing and a full stop.
    """
    if same_text(prediction, gold):
        return True
    if max(len(prediction), len(gold)) > MAX_ANSWER:
        return False
    tidy_prediction, tidy_gold = tidy(prediction), tidy(gold)
    choices = {_choice(tidy_prediction), _choice(tidy_gold)}
    if choices != {None}:
        return len(choices) == 1
    predicted, expected = readings(tidy_prediction), readings(tidy_gold)
    if predicted and expected:
        return any(same(left, right, policy) for left in predicted for right in expected)
    left, right = items(tidy_prediction), items(tidy_gold)
    brackets = {left[0], right[0]}
    if min(len(left[1]), len(right[1])) > 1:
        if brackets == {"", "()"} or (brackets == {""} and policy.ordered_lists):
            pairs = zip(left[1], right[1], strict=False)
            return len(left[1]) == len(right[1]) and all(equal(*pair, policy) for pair in pairs)
        if len(brackets) > 1 and brackets != {"", "⦃⦄"}:
            return False
    relations = [bool(_RELATION.search(text)) for text in (tidy_prediction, tidy_gold)]
    if relations[0] != relations[1] and any(len(parts) > 1 and kind in ("", "⦃⦄") for kind, parts in (left, right)):
        return False
    return symbolic.same(_without_percent(prediction, policy), _without_percent(gold, policy))


def _without_percent(text: str, policy: GradingSpec) -> str:
    """A formula whose percent sign is dropped, or counted, as the policy says."""
    text = without_delimiters(text).strip()
    match = _PERCENT.search(text)
    if match is None:
        return text
    formula = text[: match.start()]
    if policy.percent == "unit":
        return formula
    return "" if re.search("[=,;]", formula) else rf"\frac{{{formula}}}{{100}}"


def same_text(prediction: str, gold: str) -> bool:
    """Equality of normalised texts: without delimiters and spacing; words without case. An empty text equals none."""
    if max(len(prediction), len(gold)) > MAX_ANSWER:
        return prediction == gold and not gold.isspace()
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
