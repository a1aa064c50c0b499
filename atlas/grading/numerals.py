"""Numbers in words: `five`, `twenty-five`, `three quarters`, `two and a half`."""

from fractions import Fraction

_SMALL_WORDS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen"""
_TENS_WORDS = "twenty thirty forty fifty sixty seventy eighty ninety"
_SMALL = {word: value for value, word in enumerate(_SMALL_WORDS.split())}
_TENS = {word: 10 * value for value, word in enumerate(_TENS_WORDS.split(), start=2)}
_PARTS = {
    word: value
    for value, words in enumerate(
        ("half halves", "third thirds", "quarter quarters fourth fourths", "fifth fifths", "sixth sixths"), start=2
    )
    for word in words.split()
}


def numeral(text: str) -> Fraction | None:
    """The number that the whole text says in words, below one hundred; None for any other text."""
    text = text.lower()
    whole, _, part = text.rpartition(" and ")
    if whole:
        left, right = _whole(whole), _fraction(part)
        return None if left is None or right is None else left + right
    value = _whole(text)
    return _fraction(text) if value is None else Fraction(value)


def _whole(text: str) -> int | None:
    if text in _SMALL:
        return _SMALL[text]
    tens, _, ones = text.replace("-", " ").partition(" ")
    if tens not in _TENS or not (ones == "" or 0 < _SMALL.get(ones, 0) < 10):
        return None
    return _TENS[tens] + _SMALL.get(ones, 0)


def _fraction(text: str) -> Fraction | None:
    count, _, part = text.replace("-", " ").rpartition(" ")
    if part not in _PARTS:
        return None
    if count in ("", "a", "one"):
        return Fraction(1, _PARTS[part])
    value = _whole(count)
    return None if value is None else Fraction(value, _PARTS[part])
