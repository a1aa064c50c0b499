"""Words that matter when a number is read out of a sentence."""

import re


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}

MONTHS = _set(
    """january february march april may june july august september october november december
    jan feb mar apr jun jul aug sep sept oct nov dec"""
)
"""Beside a number, one of these makes it a date."""

MATHS_WORDS = _set(
    """and or sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp sqrt lim max min mod gcd lcm det
    deg dim ker arg inf sup pi"""
)
"""Words that belong to maths, not to prose, in an answer."""

UNITS = _set("""am cm ft g gb h hr in kb kg km l lb m mb mg mi min ml mm oz pm s sec sq tb yd""")
"""Short names of units: they may be glued to a number. Any other letters there are a product of variables: `5i`."""

_SHORT_WORDS = UNITS | _set("""a i an as at be by he is it of on so to us we""")

_NEGATIONS_AND_HEDGES = _set(
    """not never no none nor neither either isn't aren't wasn't don't doesn't cannot can't except without unless instead
    maybe perhaps possibly probably between less more fewer greater below above under over almost nearly least most"""
)
_OPERATIONS = _set("""plus minus times divided multiplied squared cubed factorial negative power root ratio""")
_NUMBERS = _set(
    """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety half halves third thirds quarter quarters
    fourth fourths fifth fifths tenth tenths twice double triple"""
)
_CHANGES_A_VALUE = (MATHS_WORDS - {"and"}) | _NEGATIONS_AND_HEDGES | _OPERATIONS | _NUMBERS
_WORD = re.compile(r"[A-Za-z][A-Za-z'’]*")


def harmless(word: str) -> bool:
    """Whether a word beside a number leaves its value alone: a unit or prose, not `not`, `half`, `plus` or `xy`."""
    word = word.lower().replace("’", "'")
    if word in SCALES or hedged(word):
        return False
    return len(word) > 2 or word in _SHORT_WORDS


def hedged(text: str) -> bool:
    """Whether a text holds a word that negates, hedges or otherwise changes the value of what stands beside it."""
    return any(word.lower().replace("’", "'") in _CHANGES_A_VALUE for word in _WORD.findall(text))
