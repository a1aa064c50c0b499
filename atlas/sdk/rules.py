"""What a secret looks like in text, and a cheap test whether a text may hold one."""

import base64
import binascii
import re
from collections.abc import Callable

from atlas.sdk import detectors
from atlas.secrets import FORM_START, FORMS, PRIVATE_KEY, SECRET_NAMES

Rule = Callable[[str], str]
PLACEHOLDER = re.compile(r"(\[redacted:[\w-]+\])")

# Keys, tokens and passwords.
_FORM = re.compile(
    FORM_START + "(?:" + "|".join(f"(?P<{name}>{form})" for name, form in FORMS.items()) + ")", re.IGNORECASE
)
_PRIVATE_KEY = re.compile(rf"{PRIVATE_KEY}|PuTTY-User-Key-File-\d[\s\S]*", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(?<=://)(?P<user>[^\s/:@\"'<>]*):(?!\d{1,5}[/?#])(?P<value>[^\s\"'<>]+)@")

_QUOTE = r"\\*[\"'`]"
_BARE = (
    r"(?!\[redacted:|<[\w -]+>(?!\w))"
    r"(?:(?![,;&]\s*[\"']?[\w.-]+[\"']?\s*[=:])(?![,;.)\]}>]*(?:\s|$))(?!</|\\n)[^\s\"'`])+"
)
"""A value without quotes: up to a space, the next `name=`, or closing signs."""
_ASSIGNED = re.compile(
    rf"(?P<name>{SECRET_NAMES}|pwd|x-amz-signature)(?:{_QUOTE})?\]?(?P<sign>\s*(?::=|=>|[=!]?={{1,2}}|:)\s*|\s+is\s+|>)"
    rf"(?:(?P<quote>{_QUOTE})(?P<quoted>(?:(?!(?P=quote))(?:\\.|[^\n]))+)|(?P<value>{_BARE}))",
    re.IGNORECASE,
)
_OPTION = re.compile(rf"(?P<name>--[\w-]*(?:{SECRET_NAMES}))\s+(?:{_QUOTE})?(?!-)(?P<value>{_BARE})", re.IGNORECASE)
_USER_OPTION = re.compile(r"(?<!\S)(?:-u|--user)[ =][\"']?[^\s:\"'/]+:(?!\d+\b|\[redacted:)(?P<value>[^\s\"']+)")
_AUTHORIZATION = re.compile(
    rf"authorization(?:{_QUOTE})?\s*[:=]\s*(?:{_QUOTE})?(?:(?P<scheme>[a-z]\w*)\s+)?(?P<value>{_BARE})", re.IGNORECASE
)
_BEARER = re.compile(r"\bbearer\s+(?P<value>[\w.~+/=-]{8,})", re.IGNORECASE)
_BASIC = re.compile(r"\bbasic\s+(?P<value>[A-Za-z0-9+/_-]{6,}={0,2})", re.IGNORECASE)
_COOKIE = re.compile(
    r"\bcookie[\"']?:\s*[\"']?(?P<value>[\w.-]+=[^\s;\"']{6,}(?:;\s*[\w.-]+=[^\s;\"']*)*)", re.IGNORECASE
)
NAMED = re.compile(rf"(?:{SECRET_NAMES}|pwd)$", re.IGNORECASE)
"""The end of a key that holds a secret, `dbPassword` and `X-Api-Key` among them."""
_PASSWORD_NAME = re.compile(r"pass|pwd", re.IGNORECASE)
_NO_SECRET = re.compile(
    r"(?i:none|null|nil|true|false|str|string|int|bytes|any|optional|required|undefined)[,;:.)\]}|?]*$"
    r"|[*.x_-]+$|[A-Za-z_.]+[(\[]|\$\{?[A-Z_][A-Z0-9_]*\}?$|\$\(|<[\w -]+>$|\{+[\w. ]+\}+$|%\w+%$"
)
_WORD = re.compile(r"[A-Za-z_]+(?:\.[A-Za-z_]+)*[^A-Za-z0-9]*|[\W\d_]*")
_NOT_OF_WORDS = re.compile(r"[0-9!#$%^&*~]")


def is_secret_value(name: str, value: str, stated: bool = True) -> bool:
    """Whether this value of a field of such a name is a secret. Of a password any value is; of a token, a key, or where
    a sentence says `is`, only what is no word and no number."""
    if _NO_SECRET.match(value):
        return False
    if name.lower().endswith("pwd") and value[0] in "/~":
        return False
    if _PASSWORD_NAME.search(name) and stated:
        return True
    if len(value) < 6 or " " in value:
        return False
    return not _is_word(value) and (_is_mixed(value) or bool(_NOT_OF_WORDS.search(value)))


def _is_word(value: str) -> bool:
    return bool(_WORD.fullmatch(value)) and not _is_mixed(value) and (len(value) < 20 or value.islower())


def _is_mixed(value: str) -> bool:
    """Whether these are capitals and small letters as no word has them."""
    if len(value) < 16 or value.islower() or value.isupper():
        return False
    return sum(map(len, _WORDLIKE.findall(value))) < 0.75 * len(value)


def label_of(name: str) -> str:
    return "[redacted:password]" if _PASSWORD_NAME.search(name) else "[redacted:secret]"


def private_keys(text: str) -> str:
    return _PRIVATE_KEY.sub("[redacted:pem]", text)


def url_passwords(text: str) -> str:
    return _URL_PASSWORD.sub(r"\g<user>:[redacted:url_password]@", text)


def forms(text: str) -> str:
    return _FORM.sub(lambda found: f"[redacted:{found.lastgroup}]", text)


def authorizations(text: str) -> str:
    def replaced(found: re.Match[str]) -> str:
        if not found["scheme"] and _is_word(found["value"]):
            return found[0]
        scheme = (found["scheme"] or "").lower()
        return _put(found, "value", f"[redacted:{scheme if scheme in ('bearer', 'basic') else 'authorization'}]")

    text = _AUTHORIZATION.sub(replaced, text)
    text = _BEARER.sub(
        lambda found: found[0] if _is_word(found["value"]) else _put(found, "value", "[redacted:bearer]"), text
    )
    text = _BASIC.sub(
        lambda found: _put(found, "value", "[redacted:basic]") if _is_basic(found["value"]) else found[0], text
    )
    return _COOKIE.sub(lambda found: _put(found, "value", "[redacted:cookie]"), text)


def _is_basic(value: str) -> bool:
    """Whether this is `user:password` in base64, and no word after "basic"."""
    try:
        said = base64.b64decode(value + "=" * (-len(value) % 4)).decode("utf-8")
    except (binascii.Error, ValueError):
        return False
    return ":" in said and said.isprintable()


def assignments(text: str) -> str:
    def replaced(found: re.Match[str]) -> str:
        group = "quoted" if found["quoted"] else "value"
        stated = "is" not in found["sign"].lower()
        if PLACEHOLDER.fullmatch(found[group]) or not is_secret_value(found["name"], found[group], stated):
            return found[0]
        return _put(found, group, label_of(found["name"]))

    def option(found: re.Match[str]) -> str:
        return (
            _put(found, "value", label_of(found["name"]))
            if is_secret_value(found["name"], found["value"])
            else found[0]
        )

    text = _OPTION.sub(option, _ASSIGNED.sub(replaced, text))
    return _USER_OPTION.sub(lambda found: _put(found, "value", "[redacted:password]"), text)


def _put(found: re.Match[str], group: str, label: str) -> str:
    """What was found, with the label in the place of this group."""
    start, end = (place - found.start() for place in found.span(group))
    return found[0][:start] + label + found[0][end:]


# Of people.
_EMAIL = re.compile(r"(?<![\w.+-])(?!git@)[\w.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}(?![\w-])")
_DIGIT_GROUPS = re.compile(r"(?<![A-Za-z0-9.])\d{3,19}(?:[ -]\d{3,19})*(?![A-Za-z0-9])")
_CARD = re.compile(  # Visa, Mastercard, American Express, Diners, Discover, JCB, UnionPay
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}|3[47]\d{13}"
    r"|3(?:0[0-5]|[68]\d)\d{11}|(?:6011|65\d\d|64[4-9]\d|62\d\d|352[89]|35[3-8]\d)\d{12}"
)
MOST_GROUPS = 6


def emails(text: str) -> str:
    return _EMAIL.sub("[redacted:email]", text)


def cards(text: str) -> str:
    return _DIGIT_GROUPS.sub(_without_cards, text)


def _without_cards(found: re.Match[str]) -> str:
    """A row of groups of digits, with those groups replaced that together are the number of a card."""
    groups = list(re.finditer(r"\d+", found[0]))
    for first in range(len(groups)):
        for last in range(first, min(first + MOST_GROUPS, len(groups))):
            number = "".join(group[0] for group in groups[first : last + 1])
            if len(number) > 19:
                break
            if _CARD.fullmatch(number) and _luhn(number):
                rest = _DIGIT_GROUPS.sub(_without_cards, found[0][groups[last].end() :])
                return f"{found[0][: groups[first].start()]}[redacted:card]{rest}"
    return found[0]


def _luhn(number: str) -> bool:
    digits = [int(digit) for digit in reversed(number)]
    return (sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])) % 10 == 0


# Whatever else is random.
RANDOM_CHARACTERS = 20
_RUN = re.compile(r"[A-Za-z0-9+/_-]{20,}={0,2}")
_LONGEST_RUN = 500
"""Longer runs are files, such as a picture in base64."""
_WORDLIKE = re.compile(r"[A-Z][a-z]{2,}|[a-z]{3,}|[A-Z]{4,}|[0-9]{4,}")
_PLAIN_PIECE = re.compile(r"[A-Za-z]?[a-z]*|[0-9]{1,4}")
_HEX = re.compile(
    r"(?<![A-Za-z0-9])(?:[0-9a-fA-F]{16,}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})(?![A-Za-z0-9])"
)
"""What a hash or a UUID looks like, and no less a secret."""
_MEDIA = re.compile(r"data:(?:image|audio|video|font)/[\w.+-]+;base64,$")


def is_random(run: str) -> bool:
    """Whether a run of letters and digits looks drawn at random: capitals, small letters and digits in an order that
    words, names of code and of models do not have. Hex digits may be a hash, and are not."""
    pieces = run.split("/")
    if len(run) > _LONGEST_RUN:
        return False
    if any(is_random(piece) for piece in pieces if RANDOM_CHARACTERS <= len(piece) < len(run)):
        return True
    digits = sum(map(str.isdigit, run))
    separators = sum(map(run.count, "+/_-"))
    if not digits or _HEX.search(run) or not any(map(str.isalpha, run)):
        return False
    if run.islower() or run.isupper():
        return len(run) >= 24 and not separators and len(re.findall(r"\d+", run)) >= 4 and 2 * digits <= len(run)
    wordlike = sum(map(len, _WORDLIKE.findall(run))) + 2 * separators  # the limits are measured: docs/traces.md
    return wordlike < (0.6 if len(run) < 30 else 0.75) * len(run)


def random_runs(text: str) -> str:
    def replaced(found: re.Match[str]) -> str:
        if not is_random(found[0]) or _MEDIA.search(text, max(0, found.start() - 60), found.start()):
            return found[0]
        pieces = found[0].split("/")
        if not any(len(piece) >= RANDOM_CHARACTERS and is_random(piece) for piece in pieces):
            return "[redacted:high_entropy]"
        return "/".join(piece if _PLAIN_PIECE.fullmatch(piece) else "[redacted:high_entropy]" for piece in pieces)

    return _RUN.sub(replaced, text)


def of_library(text: str) -> str:
    return "\n".join(detectors.redact(line) if of_library in rules_for(line) else line for line in text.split("\n"))


# The cheap test. `in` is several times as fast as a regular expression, so that those come last.
LONG_WORD_CHARACTERS = 12
"""No token is shorter. Shorter secrets are known by a word next to them."""
_BESIDE_HINTS = (
    "key", "token", "pass", "pwd", "secret", "credential", "signature", "authorization", "bearer", "basic ", "cookie",
    "--", "-u", "putty",
)  # fmt: skip
_BESIDE = re.compile(
    rf"(?:{SECRET_NAMES}|pwd|signature)[\\\"'`\]]*\s*(?:[:=>!]|is\s)|authorization|bearer\s|basic\s|cookie[\"']?:"
    rf"|--[\w-]*(?:{SECRET_NAMES})|(?:-u|--user)[ =]|putty-user-key"
)
_TOKEN_HINTS = (
    "hf_", "org_", "sk-", "akia", "asia", "abia", "acca", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "_pat_", "glpat",
    "gldt", "glft", "glrt", "glsoat", "glcbt", "glptt", "glimt", "glagent", "gloas", "wandb_v", "local-", "xox",
    "xapp-", "aiza", "ya29", "gocspx", "nvapi", "gsk_", "xai-", "r8_", "pplx", "lsv2", "k_live", "k_test", "whsec",
    "npm_", "pypi-", "dckr", "dop_", "doo_", "dor_", "dapi", "hvs.", "hvb.", "hvr.", "shpat", "shpca", "shppa", "shpss",
    "eyj", "akc", "sq0csp", "sg.", "accountkey", "-us", "hooks.slack",
)  # fmt: skip
_TOKEN_HINT = re.compile(r"[as][ck][a-z0-9]{32}|ap[0-9a-f][a-z0-9]{8}|\d{8}:|[mno][\w-]{23,25}\.[\w-]{6}\.")
_LONG_NUMBER = re.compile(r"\d{13}")
_CARD_HINT = re.compile(r"\d\d\d[ -]\d\d\d")  # as \d{3}, but in half the time
_CARD_LENGTH = re.compile(r"\d[\d -]{11,}\d")


def rules_for(text: str) -> list[Rule]:
    """The rules that could find something in this text, in the order in which they are used: the more is known about a
    secret, the earlier. Most texts have none, so that ordinary events cost little."""
    lowered = text.lower()
    beside = _has(_BESIDE_HINTS, lowered) and bool(_BESIDE.search(lowered))
    long = "\n".join([word for word in text.split() if len(word) >= LONG_WORD_CHARACTERS])
    lowered = long.lower()
    token = _has(_TOKEN_HINTS, lowered) or bool(_TOKEN_HINT.search(lowered))
    random = any(map(is_random, _RUN.findall(long)))
    at = "@" in text
    card = _LONG_NUMBER.search(long) or (_CARD_HINT.search(text) and _CARD_LENGTH.search(text))
    found: list[Rule] = []
    if "-----" in text or beside:
        found.append(private_keys)
    if at:
        found.append(url_passwords)
    if token:
        found.append(forms)
    if beside:
        found += [authorizations, assignments]
    if at:
        found.append(emails)
    if card:
        found.append(cards)
    if token or beside:
        found.append(of_library)
    if random:
        found.append(random_runs)
    return found


def _has(hints: tuple[str, ...], text: str) -> bool:
    for hint in hints:  # noqa: SIM110  (any() takes twice as long)
        if hint in text:
            return True
    return False
