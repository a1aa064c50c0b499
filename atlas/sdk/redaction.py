"""What no line may hold is replaced before it is written, by a word that says what it was: `[redacted:email]`.

Most text holds nothing of the kind, so a cheap test comes first, and only what fails it is looked at closely
(`atlas.sdk.rules`), by detectors of detect-secrets too where that is installed. Redacting twice changes nothing.
"""

from collections.abc import Sequence
from typing import Any

from atlas.sdk import detectors
from atlas.sdk.fields import STRUCTURE
from atlas.sdk.patterns import checked
from atlas.sdk.plain import free_key
from atlas.sdk.rules import NAMED, PLACEHOLDER, is_secret_value, label_of, random_runs, rules_for

VERSION = 1
"""Of the rules: rises when they find something else."""
MAX_ROUNDS = 10
_IDS = frozenset({"id", "tool_call_id"})
"""Keys of random text that is no secret: it is how a call and its result are put together."""


class Redaction:
    """Replaces secrets in text. `patterns` are regular expressions of what else must not be written; PatternError says
    which cannot be used."""

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self._patterns = [checked(pattern, number) for number, pattern in enumerate(patterns, start=1)]

    @property
    def name(self) -> str:
        """Which redaction this is, for the record of a session."""
        library = detectors.installed_version()
        return f"builtin {VERSION}" + (f" + detect-secrets {library}" if library else "")

    def record(self, record: dict[str, Any]) -> dict[str, Any]:
        """The record with every text in it redacted, names in metadata too. Ids and the schema's own words stay."""
        texts: list[str] = []
        for key, value in record.items():
            if key not in STRUCTURE:
                _collect(value, texts)
        if not rules_for("\n".join(texts)) and not any(p.search(text) for p in self._patterns for text in texts):
            return record
        return {key: value if key in STRUCTURE else self._value(value) for key, value in record.items()}

    def text(self, text: str) -> str:
        """The text with every secret in it replaced."""
        return self._text(text, is_id=False)

    def _text(self, text: str, is_id: bool) -> str:
        for _ in range(MAX_ROUNDS):
            before = text
            for rule in rules_for(text):
                if not (is_id and rule is random_runs):
                    text = rule(text)
            for pattern in self._patterns:
                parts = PLACEHOLDER.split(text)
                parts[::2] = [pattern.sub("[redacted:custom]", part) for part in parts[::2]]
                text = "".join(parts)
            if text == before:
                return text
        raise RuntimeError("redaction does not come to an end")

    def _value(self, value: Any, key: str = "") -> Any:
        named = NAMED.search(key)
        if isinstance(value, str):
            if named and value and not PLACEHOLDER.fullmatch(value) and is_secret_value(named[0], value):
                return label_of(named[0])
            return self._text(value, is_id=key in _IDS)
        if isinstance(value, list):
            return [self._value(item, key) for item in value]
        if isinstance(value, dict):
            made: dict[str, Any] = {}
            for name, item in value.items():
                made[free_key(self.text(name), made)] = self._value(item, name)
            return made
        if named and isinstance(value, int) and not isinstance(value, bool) and is_secret_value(named[0], str(value)):
            return label_of(named[0])
        return value


def _collect(value: Any, texts: list[str]) -> None:
    """Every text in a value, a key and its value also as `key: value`, as the rules for text know them."""
    if isinstance(value, str):
        texts.append(value)
    elif isinstance(value, list):
        for item in value:
            _collect(item, texts)
    elif isinstance(value, dict):
        for key, item in value.items():
            texts.append(f"{key}:")
            _collect(item, texts)
