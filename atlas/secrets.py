"""What a token looks like, so that none is ever stored, logged or shown."""

import re

REDACTED = "[redacted]"

_TOKEN = re.compile(
    r"""
    (?<![A-Za-z0-9])(?:
      hf_[A-Za-z0-9]{16,}                                # Hugging Face
    | sk-[A-Za-z0-9_-]{16,}                              # OpenAI, Anthropic
    | (?:AKIA|ASIA)[A-Z0-9]{16}                          # AWS
    | gh[pousr]_[A-Za-z0-9]{20,} | github_pat_\w{20,}    # GitHub
    | glpat-[\w-]{16,}                                   # GitLab
    | wandb_v\d_\w{20,} | local-[0-9a-f]{40}             # Weights & Biases
    | xox[abprs]-[\w-]{10,}                              # Slack
    | AIza[\w-]{35} | nvapi-[\w-]{20,}                   # Google, NVIDIA
    | eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*                    # JSON Web Token
    ) | -----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY-----[\s\S]*
    | (?<=://)[^\s/:@]*:[^\s/@]+(?=@)                    # https://user:password@host
    """,
    re.VERBOSE,
)
_HEX_KEY = re.compile(r"[0-9a-f]{40}")
_SECRET_NAME = re.compile(
    r"(?:^|[_.-])(?:api_?key|access_?key|secret_?key|private_?key|(?:\w+_)?token|password|passwd|passphrase"
    r"|secrets?|credentials?)$",
    re.IGNORECASE,
)


def names_secret(key: str) -> bool:
    """Whether a key of this name is meant to hold a secret: `api_key`, `HF_TOKEN`, `password`, ..."""
    return bool(_SECRET_NAME.search(key))


def is_secret(text: str) -> bool:
    """Whether the text holds something with the form of a token. A bare commit hash is none."""
    return bool(_TOKEN.search(text))


def is_hex_key(text: str) -> bool:
    """Whether the text has the form of a W&B key, which is also that of a commit hash: the context decides."""
    return bool(_HEX_KEY.fullmatch(text))


def redact(text: str) -> str:
    """The text with every token in it replaced."""
    return _TOKEN.sub(REDACTED, text)
