"""What no line may hold is replaced before it is written."""

from collections.abc import Sequence
from typing import Any

from atlas.secrets import redact

VERSION = 1


class Redaction:
    """Replaces secrets in text. Patterns are regular expressions of what else must not be written."""

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self.name = f"builtin {VERSION}"

    def record(self, record: dict[str, Any]) -> dict[str, Any]:
        """The record with every text in it redacted, but for ids and what the schema names."""
        return {key: self._value(value) for key, value in record.items()}

    def text(self, text: str) -> str:
        return redact(text)

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self._value(item) for item in value]
        if isinstance(value, dict):
            return {self.text(key): self._value(item) for key, item in value.items()}
        return value
