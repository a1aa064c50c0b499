"""What a token looks like, so that none is ever stored, logged or shown."""

import re

REDACTED = "[redacted]"

FORMS = {
    "hf": r"hf_[A-Za-z0-9]{16,}|api_org_[A-Za-z0-9]{16,}",  # Hugging Face
    "anthropic": r"sk-ant-[A-Za-z0-9_-]{16,}",
    "openai": r"sk-[A-Za-z0-9_-]{16,}",
    "aws": r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}",
    "github": r"gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}",
    "gitlab": r"gl(?:pat|dt|ft|rt|soat|cbt|ptt|imt|agent|oas)-[\w-]{16,}",
    "wandb": r"wandb_v\d_\w{20,}|local-[0-9a-f]{40}",
    "slack": r"xox[abceoprs]-[\w-]{10,}|xapp-[\w-]{10,}",
    "google": r"AIza[\w-]{35}|ya29\.[\w-]{20,}|GOCSPX-[\w-]{20,}",
    "nvidia": r"nvapi-[\w-]{20,}",
    "groq": r"gsk_[A-Za-z0-9]{32,}",
    "xai": r"xai-[A-Za-z0-9]{32,}",
    "replicate": r"r8_[A-Za-z0-9]{32,}",
    "perplexity": r"pplx-[A-Za-z0-9]{32,}",
    "langsmith": r"lsv2_[a-z]{2}_[0-9a-f]{32}_[0-9a-f]{10}",
    "stripe": r"[sr]k_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9]{16,}",
    "npm": r"npm_[A-Za-z0-9]{30,}",
    "pypi": r"pypi-AgE[\w-]{32,}",
    "docker": r"dckr_[a-z]{3}_[\w-]{20,}",
    "digitalocean": r"do[opr]_v1_[0-9a-f]{32,}",
    "databricks": r"dapi[0-9a-f]{32}",
    "vault": r"hv[sbr]\.[\w-]{20,}",
    "shopify": r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}",
    "jwt": r"eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*",  # JSON Web Token
}
"""The tokens of each issuer. `(?:...)` only, so that they can be joined."""
FORM_START = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt])|(?<=%[0-9A-Fa-f]{2}))"
"""What may stand before a token: no part of a word, but an escaped line end or a percent-encoded sign."""
PRIVATE_KEY = (
    r"-----BEGIN[A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"
    r"[\s\S]*?(?:-----END[A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\Z)"
)
"""A whole key, or where its end is missing all that follows."""
SECRET_NAMES = (
    r"(?:api|access|account|auth|client|encryption|private|secret|signing)[_-]?key"
    r"|token|password|passwd|passphrase|passcode|secrets?|credentials?"
)
"""How a key that holds a secret ends."""

_TOKEN = re.compile(
    rf"{FORM_START}(?:{'|'.join(FORMS.values())})|{PRIVATE_KEY}"
    r"|(?<=://)[^\s/:@]*:[^\s/@]+(?=@)"  # https://user:password@host
)
_HEX_KEY = re.compile(r"[0-9a-f]{40}")
_SECRET_NAME = re.compile(rf"(?:^|[_.-])(?:{SECRET_NAMES})$", re.IGNORECASE)


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
