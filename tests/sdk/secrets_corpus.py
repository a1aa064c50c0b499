"""Secrets drawn at random, in what they are found in. None is or was a real one, and none is written in this file."""

import base64
import itertools
import json
import random
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass

LETTERS = string.ascii_letters
ALPHANUMERIC = LETTERS + string.digits
URL_SAFE = ALPHANUMERIC + "-_"
BASE64 = ALPHANUMERIC + "+/"
HEX = "0123456789abcdef"


@dataclass(frozen=True)
class Planted:
    """A text with a secret in it. `parts` is what must not be left of it."""

    kind: str
    carrier: str
    text: str
    parts: tuple[str, ...]

    def leaked(self, redacted: str) -> bool:
        """Whether six characters in a row are left of the secret; a shorter one must be gone as a whole."""
        folded = redacted.lower()
        pieces = (part[at : at + 6] for part in self.parts for at in range(max(1, len(part) - 5)))
        return any(piece.lower() in folded for piece in pieces)


def planted(seed: int, rounds: int) -> Iterator[Planted]:
    draw = random.Random(seed)
    for _ in range(rounds):
        for kind, make in KINDS.items():
            for carrier, put in CARRIERS.items():
                snippet, *parts = make(draw)
                text = put(snippet)
                if text is not None and not (carrier == "unusual case" and kind in CASE_MATTERS):
                    yield Planted(kind, carrier, text, tuple(parts))


def _of(draw: random.Random, alphabet: str, length: int) -> str:
    return "".join(draw.choices(alphabet, k=length))


def _token(prefix: str, alphabet: str, length: int, suffix: str = "") -> Callable[[random.Random], tuple[str, str]]:
    def make(draw: random.Random) -> tuple[str, str]:
        secret = _of(draw, alphabet, length)
        return prefix + secret + suffix, secret

    return make


def _random(alphabet: str, length: int) -> Callable[[random.Random], tuple[str, str]]:
    """A run of all kinds of characters; one without digits looks like a word."""

    def make(draw: random.Random) -> tuple[str, str]:
        while True:
            secret = _of(draw, alphabet, length)
            if sum(map(str.isdigit, secret)) >= 3:
                return secret, secret

    return make


def _dotted(prefix: str, *lengths: int) -> Callable[[random.Random], tuple[str, ...]]:
    def make(draw: random.Random) -> tuple[str, ...]:
        parts = [_of(draw, URL_SAFE, length) for length in lengths]
        return prefix + ".".join(parts), *parts

    return make


def _jwt(draw: random.Random) -> tuple[str, ...]:
    head, body = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
        for part in (
            {"alg": "HS256", "typ": "JWT"},
            {"sub": _of(draw, string.digits, 12), "name": _of(draw, LETTERS, 9)},
        )
    )
    signature = _of(draw, URL_SAFE, 43)
    return f"{head}.{body}.{signature}", body, signature


def _pem(name: str, end: bool) -> Callable[[random.Random], tuple[str, ...]]:
    def make(draw: random.Random) -> tuple[str, ...]:
        lines = [_of(draw, BASE64, 64) for _ in range(6)]
        last = [f"-----END {name}-----"] if end else []
        return "\n".join([f"-----BEGIN {name}-----", *lines, *last]), *lines

    return make


def _password(draw: random.Random) -> str:
    return _of(draw, LETTERS, 5) + _of(draw, string.digits, 2) + _of(draw, "!#%*-_.~^", 1) + _of(draw, ALPHANUMERIC, 4)


def _with_password(template: str) -> Callable[[random.Random], tuple[str, str]]:
    def make(draw: random.Random) -> tuple[str, str]:
        secret = _password(draw)
        return template.format(secret), secret

    return make


def _with_key(template: str) -> Callable[[random.Random], tuple[str, str]]:
    def make(draw: random.Random) -> tuple[str, str]:
        secret = _of(draw, HEX, 32)
        return template.format(secret), secret

    return make


def _basic(draw: random.Random) -> tuple[str, str]:
    secret = base64.b64encode(f"{_of(draw, LETTERS, 6)}:{_password(draw)}".encode()).decode()
    return f"Authorization: Basic {secret}", secret.rstrip("=")


def _email(draw: random.Random) -> tuple[str, str]:
    first, last, host = (_of(draw, string.ascii_lowercase, length) for length in (7, 6, 8))
    return f"{first}.{last}@{host}.org", f"{first}.{last}@{host}.org"


def _card(
    prefix: str, length: int, sizes: tuple[int, ...], separator: str
) -> Callable[[random.Random], tuple[str, str]]:
    def make(draw: random.Random) -> tuple[str, str]:
        body = prefix + _of(draw, string.digits, length - len(prefix) - 1)
        number = next(body + digit for digit in string.digits if _luhn(body + digit))
        places = [sum(sizes[:count]) for count in range(len(sizes) + 1)]
        shown = separator.join(number[a:b] for a, b in itertools.pairwise(places))
        return shown, shown

    return make


def _luhn(number: str) -> bool:
    total = 0
    for place, digit in enumerate(reversed(number)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


KINDS: dict[str, Callable[[random.Random], tuple[str, ...]]] = {
    "hf": _token("hf" + "_", LETTERS, 34),
    "openai": _token("sk" + "-", ALPHANUMERIC, 48),
    "openai project": _token("sk" + "-proj-", URL_SAFE, 100),
    "anthropic": _token("sk" + "-ant-api03-", URL_SAFE, 93),
    "aws id": _token("AK" + "IA", string.ascii_uppercase + "234567", 16),
    "aws secret": _with_key("aws_secret_access_key = {}"),
    "github": _token("gh" + "p_", ALPHANUMERIC, 36),
    "github fine-grained": _token("github" + "_pat_", ALPHANUMERIC, 82),
    "gitlab": _token("gl" + "pat-", URL_SAFE, 20),
    "wandb": _token("local" + "-", HEX, 40),
    "slack": _token("xox" + "b-", string.digits + "-", 24),
    "slack webhook": _token("https://hooks.slack.com/services/T" + "0A1B2C3D4/B0A1B2C3D4/", ALPHANUMERIC, 24),
    "google": _token("AI" + "za", URL_SAFE, 35),
    "nvidia": _token("nv" + "api-", URL_SAFE, 64),
    "groq": _token("gs" + "k_", ALPHANUMERIC, 52),
    "xai": _token("xa" + "i-", ALPHANUMERIC, 80),
    "replicate": _token("r8" + "_", ALPHANUMERIC, 37),
    "stripe": _token("sk" + "_live_", ALPHANUMERIC, 24),
    "npm": _token("np" + "m_", ALPHANUMERIC, 36),
    "pypi": _token("pypi" + "-AgEIcHlwaS5vcmc", URL_SAFE, 80),
    "sendgrid": _dotted("SG" + ".", 22, 43),
    "twilio": _token("SK", HEX, 32),
    "telegram": _token("7012345678:", URL_SAFE, 35),
    "discord": _dotted("M", 25, 6, 27),
    "digitalocean": _token("do" + "p_v1_", HEX, 64),
    "databricks": _token("da" + "pi", HEX, 32),
    "vault": _token("hv" + "s.", URL_SAFE, 24),
    "shopify": _token("shp" + "at_", HEX, 32),
    "mailchimp": _token("", HEX, 32, "-us12"),
    "square": _token("sq0" + "csp-", URL_SAFE, 43),
    "artifactory": _token("AK" + "C", ALPHANUMERIC, 40),
    "azure storage": _token("AccountKey=", BASE64, 86, "=="),
    "jwt": _jwt,
    "pem": _pem("RSA PRIVATE KEY", end=True),
    "pem without end": _pem("PRIVATE KEY", end=False),
    "openssh key": _pem("OPENSSH PRIVATE KEY", end=True),
    "pgp key": _pem("PGP PRIVATE KEY BLOCK", end=True),
    "bearer": _token("Authorization: Bearer ", URL_SAFE, 40),
    "bearer alone": _token("sent with bearer ", ALPHANUMERIC, 24),
    "basic": _basic,
    "url password": _with_password("postgres://agent:{}@db.internal:5432/main"),
    "password": _with_password("password = {}"),
    "password in json": _with_password('"db_password": "{}"'),
    "password option": _with_password("login --password {}"),
    "user option": _with_password("curl -u agent:{}"),
    "api key": _with_key("api_key: {}"),
    "header": _with_key("X-Api-Key: {}"),
    "environment": _with_key("export SERVICE_TOKEN={}"),
    "email": _email,
    "visa": _card("4", 16, (4, 4, 4, 4), " "),
    "mastercard": _card("53", 16, (4, 4, 4, 4), "-"),
    "amex": _card("37", 15, (4, 6, 5), " "),
    "discover": _card("6011", 16, (16,), ""),
    "random letters and digits": _random(ALPHANUMERIC, 40),
    "random base64": _random(BASE64, 64),
    "random url-safe": _random(URL_SAFE, 43),
}
CASE_MATTERS = {
    "random letters and digits", "random base64", "random url-safe", "slack webhook", "square", "artifactory",
    "discord", "telegram", "sendgrid", "twilio", "basic", "azure storage", "mailchimp", "user option",
}  # fmt: skip
"""In capitals these are no secrets any more: what they open is told by the case of every letter."""

CARRIERS: dict[str, Callable[[str], str | None]] = {
    "sentence": lambda secret: f"The old one was {secret}, which no longer works.",
    "json": lambda secret: json.dumps({"result": [{"note": secret, "ok": True}]}),
    "json in json": lambda secret: json.dumps({"arguments": json.dumps({"note": secret})}),
    "shell": lambda secret: f"$ run --verbose {secret} | tee out.log",
    "url": lambda secret: None if " " in secret or "\n" in secret else f"https://example.org/find?q={secret}&page=2",
    "code": lambda secret: f"value = f('''{secret}''', limit=3)",
    "lines": lambda secret: f"step 1 done\n{secret}\nstep 2 done",
    "markdown": lambda secret: f"| name | value |\n|---|---|\n| it | `{secret}` |",
    "bold": lambda secret: f"Use **{secret}** here",
    "unusual case": lambda secret: secret.swapcase(),
}
