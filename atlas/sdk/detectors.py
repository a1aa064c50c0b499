"""Detectors of the library detect-secrets, where it is installed: for the tokens of issuers that `atlas.secrets` does
not list.

Left out are those that our own rules replace: keywords (450 microseconds a kilobyte), entropy (finds strings in quotes
only), private keys, URLs and tokens that are in both. `IPPublicDetector` finds what is no secret.
"""

import functools
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

LIBRARY = "detect_secrets"
SHORTEST = 8
_CHOSEN = {
    "artifactory": "ArtifactoryDetector",
    "aws": "AWSKeyDetector",
    "azure_storage_key": "AzureStorageKeyDetector",
    "cloudant": "CloudantDetector",
    "discord": "DiscordBotTokenDetector",
    "ibm_cloud_iam": "IbmCloudIamDetector",
    "ibm_cos_hmac": "IbmCosHmacDetector",
    "mailchimp": "MailchimpDetector",
    "npm": "NpmDetector",
    "sendgrid": "SendGridDetector",
    "slack": "SlackDetector",
    "softlayer": "SoftlayerDetector",
    "square_oauth": "SquareOAuthDetector",
    "telegram_token": "TelegramBotTokenDetector",
    "twilio": "TwilioKeyDetector",
}
"""Module of `detect_secrets.plugins`, which is also the word in the text, and its class."""


@functools.cache
def installed_version() -> str | None:
    """The library's version, read without importing it, which takes a tenth of a second; None where it is absent."""
    found = find_spec(LIBRARY)
    if found is None or found.origin is None:
        return None
    written = Path(found.origin).with_name("__version__.py").read_text(encoding="utf-8")
    return written.partition("'")[2].partition("'")[0]


def redact(line: str) -> str:
    """The line with what the library finds in it replaced."""
    if installed_version() is None:
        return line
    for name, detector in _detectors():
        for found in detector.analyze_string(line):
            secret = found.strip(' \t\r=:"')
            if len(secret) >= SHORTEST and "[redacted:" not in secret:
                line = line.replace(secret, f"[redacted:{name}]")
    return line


@functools.cache
def _detectors() -> list[tuple[str, Any]]:
    return [
        (name, getattr(import_module(f"{LIBRARY}.plugins.{name}"), detector)()) for name, detector in _CHOSEN.items()
    ]
