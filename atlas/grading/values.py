"""Numbers and collections of numbers, read exactly and without sympy."""

import re
from dataclasses import dataclass
from fractions import Fraction

from atlas.grading.numerals import numeral
from atlas.grading.policy import GradingSpec
from atlas.grading.words import MONTHS, SCALES, UNITS, harmless

MAX_ANSWER = 1000
"""Characters. Nothing longer is read as a number or as maths; it can still be equal as text."""


@dataclass(frozen=True)
class Quantity:
    """An exact number. `decimals` counts the digits after its point; 0 for a fraction. `unit` is normalised."""

    value: Fraction
    decimals: int = 0
    unit: str = ""
    variable: str = ""


@dataclass(frozen=True)
class Collection:
    """A list, set, tuple or interval. `brackets` is `()`, `[)`, ..., `⦃⦄` for a set and empty for a bare list."""

    brackets: str
    items: tuple["Value", ...]
    variable: str = ""


Value = Quantity | Collection


def readings(text: str) -> list[Value]:
    """All that a tidied text can mean: `1,22` is a decimal and a list. Empty when it is no number or collection."""
    text = _without_braces(text)
    if "\\" in text or len(text) > MAX_ANSWER:
        return []
    return [value for value in (_assigned(text), _collection(text)) if value is not None]


def same(left: Value, right: Value, policy: GradingSpec) -> bool:
    """Whether two values are equal.

    Numbers are equal exactly, or when one is a decimal of at least four digits to which the other, a fraction without
    a finite decimal form, rounds. Units and variables must agree where both sides have them. Tuples are ordered; sets
    are not, and ignore repetitions; a bare list is a sequence or a set, as the policy says, but
    `x = 1, y = 2` needs no order. A number is a bare list of itself. A bare list may stand for a tuple, in its order.
    """
    if left.variable and right.variable and left.variable != right.variable:
        return False
    if isinstance(left, Quantity) and isinstance(right, Quantity):
        return _same_quantity(left, right, policy)
    left, right = _as_list(left), _as_list(right)
    brackets = {left.brackets, right.brackets}
    in_order = policy.ordered_lists and brackets == {""} and not all(item.variable for item in left.items + right.items)
    if brackets <= {"", "⦃⦄"} and not in_order:
        return _same_set(left.items, right.items, policy)
    if len(brackets) > 1 and brackets != {"", "()"}:
        return False
    pairs = zip(left.items, right.items, strict=False)
    return len(left.items) == len(right.items) and all(same(a, b, policy) for a, b in pairs)


def _as_list(value: Value) -> Collection:
    return Collection("", (value,), value.variable) if isinstance(value, Quantity) else value


def _same_quantity(left: Quantity, right: Quantity, policy: GradingSpec) -> bool:
    if policy.percent == "fraction":
        left, right = _without_percent(left), _without_percent(right)
    if left.unit and right.unit and left.unit != right.unit:
        return False
    return left.value == right.value or _rounds(left, right) or _rounds(right, left)


def _without_percent(number: Quantity) -> Quantity:
    sign, _, unit = number.unit.partition(" ")
    if sign != "%":
        return number
    return Quantity(number.value / 100, number.decimals + 2 if number.decimals else 0, unit, number.variable)


def _rounds(decimal: Quantity, exact: Quantity) -> bool:
    if decimal.decimals < 4 or exact.decimals or not _endless(exact.value):
        return False
    return round(exact.value, decimal.decimals) == decimal.value


def _endless(value: Fraction) -> bool:
    denominator = value.denominator
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    return denominator != 1


def _same_set(left: tuple[Value, ...], right: tuple[Value, ...], policy: GradingSpec) -> bool:
    return all(any(same(a, b, policy) for b in right) for a in left) and all(
        any(same(a, b, policy) for a in left) for b in right
    )


_MAX_DEPTH = 5
_PLAIN = re.compile(r"[-+]?[0-9]{1,300}(?:\.([0-9]{1,300}))?")
_GROUPED = r"[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]{1,3}(?: [0-9]{3})+(?![0-9])"
_DECIMAL_COMMA = r"[0-9]+,(?:[0-9]{1,2}|[0-9]{4,})(?![0-9,])"
_NUMBER = rf"(?:(?:{_GROUPED}|{_DECIMAL_COMMA}|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{{1,2}}(?![0-9]))?"
_AMOUNT = re.compile(
    rf"(?<![A-Za-z0-9_.])(?P<sign>[-+]?)\s?(?P<currency>[$€£]?)\s?"
    rf"(?:(?P<whole>[0-9]+)\s+(?P<numerator>[0-9]+)\s?/\s?(?P<denominator>[0-9]+)"
    rf"|(?P<number>{_NUMBER})(?:\s?/\s?(?P<divisor>-?{_NUMBER}))?)"
)
_NUMERIC_FRACTION = re.compile(r"\\frac\{\s*(-?[0-9][0-9.,]*)\s*\}\{\s*(-?[0-9][0-9.,]*)\s*\}")
_EXPONENT = re.compile(r"(?<=[A-Za-z])\s?\^\s?([23])")
_POWER_OF_TEN = re.compile(
    r"(?<![0-9A-Za-z.,/*^)])(?:([0-9]+(?:\.[0-9]+)?) ?[*x×] ?)?10 ?\^ ?([-+]?[0-9]{1,2})(?![0-9!]|[.,][0-9]| ?\^)"
)
_RECURRING = re.compile(r"(?<![0-9.,])([0-9]*)\.([0-9]*)\\(?:overline|bar)\{([0-9]+)\}(?![0-9])")
_UNIT = re.compile(r"°[CF](?![A-Za-z])|[A-Za-z][A-Za-z'’-]*[23]?|\S")
_UNIT_NAMES = {
    name: unit
    for unit, names in {
        "%": "percent pct percentage",
        "°": "degree",
        "$": "dollar usd",
        "€": "euro eur",
        "£": "gbp",
        "¢": "cent",
        "mm": "millimeter millimetre",
        "cm": "centimeter centimetre",
        "m": "meter metre",
        "km": "kilometer kilometre",
        "in": "inch inche",
        "ft": "foot feet",
        "yd": "yard",
        "mi": "mile",
        "g": "gram",
        "mg": "milligram",
        "kg": "kilogram",
        "ml": "milliliter millilitre",
        "l": "liter litre",
        "oz": "ounce",
        "h": "hour hr hrs",
        "min": "minute",
        "s": "second sec",
        "mi per h": "mph",
        "square": "sq",
    }.items()
    for name in names.split()
}
_NAME = re.compile(r"[A-Za-z][A-Za-z_0-9' ]*(?:\([A-Za-z0-9, ]*\))?|\([A-Za-z]( ?, ?[A-Za-z])*\)")
_RATIO_OF_NAMES = re.compile(r"[A-Za-z]_?[0-9]?(?: ?: ?[A-Za-z]_?[0-9]?)+")
_ARITHMETIC = re.compile(r"[-+*/÷()\[\]., 0-9$€£%]*")
_OPENING, _CLOSING = "([⦃{", ")]⦄}"


def _without_braces(text: str) -> str:
    """Set braces become `⦃⦄`, numeric fractions `a/b`, and grouping braces, which are not seen in print, vanish."""
    text = _RECURRING.sub(_recurring, text)
    text = _with_set_braces(_NUMERIC_FRACTION.sub(r" \1/\2", text)).replace("{", "").replace("}", "")
    text = _POWER_OF_TEN.sub(lambda power: f"{power[1] or 1}e{power[2]}", text)
    return re.sub(r" +", " ", text).strip()


def _recurring(decimal: re.Match[str]) -> str:
    whole, fixed, period = decimal.groups()
    nines = (10 ** len(period) - 1) * 10 ** len(fixed)
    return f"{int(whole + fixed + period) - int('0' + whole + fixed)}/{nines}"


def _with_set_braces(text: str) -> str:
    return text.replace(r"\{", "⦃").replace(r"\}", "⦄")


def _value(text: str, depth: int) -> Value | None:
    return _assigned(text, depth) or _collection(text, depth)


def _assigned(text: str, depth: int = 0) -> Value | None:
    """A number, also behind `x =` or at the end of `3 + 4 = 7`."""
    *names, text = text.split("=")
    if "≈" in text:
        exact, _, rounded = text.partition("≈")
        text = exact if re.search(r"[0-9]", exact) else rounded
    if not names:
        return _quantity(text.strip())
    first = names[0].strip()
    is_name = bool(_NAME.fullmatch(first) or _RATIO_OF_NAMES.fullmatch(first))
    if not all(_ARITHMETIC.fullmatch(part) for part in names[is_name:]):
        return None
    value = _value(text.strip(), depth + 1) if depth < _MAX_DEPTH else None
    if value is None or not is_name or first[0] == "(":
        return value
    variable = first.replace(" ", "")
    if isinstance(value, Quantity):
        return Quantity(value.value, value.decimals, value.unit, variable)
    return Collection(value.brackets, value.items, variable)


def _collection(text: str, depth: int = 0) -> Value | None:
    if depth >= _MAX_DEPTH:
        return None
    brackets, parts = items(text)
    if len(parts) == 1 and not brackets:
        return None
    if len(parts) == 1 and brackets in ("()", "⦃⦄"):
        return _value(parts[0], depth + 1)
    values = tuple(value for part in parts if (value := _value(part, depth + 1)) is not None)
    if len(values) < len(parts):
        return None
    return Collection(brackets, values)


def items(text: str) -> tuple[str, list[str]]:
    """The brackets around a tidied collection, empty for a bare list, and its items: `[1, 2]` -> `[]`, `1`, `2`."""
    text = _with_set_braces(text)
    parts = _split(text)
    if len(parts) == 1 and text[:1] in tuple(_OPENING) and _closes_at_end(text):
        return (text[0] + text[-1]).replace("{}", ""), _split(text[1:-1].strip())
    return "", parts


def _closes_at_end(text: str) -> bool:
    depth = 0
    for position, character in enumerate(text):
        depth += (character in _OPENING) - (character in _CLOSING)
        if depth == 0:
            return position == len(text) - 1
    return False


_SEPARATORS = [
    re.compile(r"\s*;\s*"),
    re.compile(r"\s*,?\s*\bor\b\s*|\s*,?\s*\band\b\s*|,\s+|,(?![0-9]{3}(?![0-9]))"),
]


def _split(text: str) -> list[str]:
    """Parts at the outermost separator: semicolons, else commas, `and`, `or`. `1,000, 2,000` has two parts."""
    for separator in _SEPARATORS:
        parts = _split_outside_brackets(text, separator)
        if len(parts) > 1:
            return parts
    if "," in text and not re.fullmatch(rf"[-+]?[$€£]?(?:{_GROUPED})(?:\.[0-9]+)?\D*", text):
        return _split_outside_brackets(text, re.compile(","))
    return [text]


def _split_outside_brackets(text: str, separator: re.Pattern[str]) -> list[str]:
    depths = [0]
    for character in text:
        depths.append(depths[-1] + (character in _OPENING) - (character in _CLOSING))
    parts, start = [], 0
    for match in separator.finditer(text):
        if depths[match.start()] == 0:
            parts.append(text[start : match.start()].strip())
            start = match.end()
    return [*parts, text[start:].strip()]


def _quantity(text: str) -> Quantity | None:
    if plain := _PLAIN.fullmatch(text):
        return Quantity(Fraction(text), len(plain[1] or ""))
    if (named := numeral(text)) is not None:
        return Quantity(named)
    amount = _AMOUNT.search(text)
    if amount is None:
        return None
    before, after = _before(text[: amount.start()]), _after(text[amount.end() :])
    if before is None or after is None:
        return None
    negative, currency = before
    scale, unit = after
    value, decimals = _number(amount)
    if value is None:
        return None
    if negative and amount["sign"]:
        return None
    sign = -1 if negative or amount["sign"] == "-" else 1
    return Quantity(sign * value * scale, 0 if scale > 1 else decimals, currency or amount["currency"] or unit)


def _number(amount: re.Match[str]) -> tuple[Fraction | None, int]:
    if amount["whole"]:
        denominator = int(amount["denominator"])
        if denominator == 0:
            return None, 0
        return int(amount["whole"]) + Fraction(int(amount["numerator"]), denominator), 0
    number, decimals = _decimal(amount["number"])
    if not amount["divisor"]:
        return number, decimals
    divisor, _ = _decimal(amount["divisor"])
    return (number / divisor, 0) if divisor else (None, 0)


def _decimal(text: str) -> tuple[Fraction, int]:
    text = text.replace(" ", "")
    text = text.replace(",", ".") if re.fullmatch(_DECIMAL_COMMA, text) else text.replace(",", "")
    mantissa = re.split("[eE]", text)[0]
    return Fraction(text), len(mantissa.partition(".")[2])


def _before(text: str) -> tuple[bool, str] | None:
    """(negative, currency) of what stands before a number, or None if it could change the number's meaning."""
    match = re.fullmatch(r"(?P<words>(?:\S+\s+)*?)(?P<sign>-?)(?P<currency>[$€£]?)\s*", text)
    if match is None or not all(harmless(word.strip(",:'\"")) for word in _tokens(match["words"])):
        return None
    if MONTHS.intersection(_tokens(match["words"].lower())[-1:]):
        return None
    return bool(match["sign"]), match["currency"]


def _tokens(words: str) -> list[str]:
    return [word for word in words.split() if word not in (":", ",")]


def _after(text: str) -> tuple[int, str] | None:
    """(scale, unit) of what stands after a number, or None if it could change the number's meaning."""
    if not text:
        return 1, ""
    glued = re.match(r"[A-Za-z]+", text)
    if (glued and glued[0].lower() not in UNITS) or re.match(r"\s?/\s?[A-Za-z]{1,2}(?![A-Za-z])", text):
        return None
    if re.fullmatch(r"\s[A-Za-z]{1,2}", text) and text.strip().lower() not in UNITS:
        return None
    text = _EXPONENT.sub(r"\1", text.replace("(s)", ""))
    if MONTHS.intersection(text.lower().split()[:1]):
        return None
    scale = 1
    units: list[str] = []
    for token in _UNIT.findall(text):
        if not units and scale == 1 and token.lower() in SCALES:
            scale = SCALES[token.lower()]
        elif token[0] in "%°¢":
            units.append(token)
        elif token[0].isalpha() and token[0].isascii() and _names_a_unit(token.rstrip("23'’-")):
            units.append(_unit(token))
        elif token == "/":
            units.append("per")
        elif token != ".":
            return None
    return scale, re.sub(r"\b(square|cubic) (\w+)", _power, " ".join(units))


def _power(unit: re.Match[str]) -> str:
    return unit[2] + {"square": "2", "cubic": "3"}[unit[1]]


def _names_a_unit(word: str) -> bool:
    return word.lower() in UNITS or harmless(word)


def _unit(word: str) -> str:
    word = word.lower()
    word, power = (word[:-1], word[-1]) if word[-1] in "23" else (word, "")
    if len(word) > 3:
        word = word.removesuffix("s")
    return _UNIT_NAMES.get(word, word) + power
