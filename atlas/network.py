"""What can be reached from here: any server, and W&B in particular. Imports no client and shows no key."""

import configparser
import http.client
import netrc
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit


def host_url() -> str:
    """The W&B server: WANDB_BASE_URL, else what `wandb login --host` stored, else the public one."""
    return os.environ.get("WANDB_BASE_URL") or _stored_host() or "https://api.wandb.ai"


def is_switched_on(name: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether an environment variable such as HF_HUB_OFFLINE is set, as the hub's libraries read it."""
    return environment.get(name, "").upper() in ("1", "ON", "YES", "TRUE")


def has_key() -> bool:
    """Whether there is a login: WANDB_API_KEY, WANDB_IDENTITY_TOKEN_FILE or an entry for the host in the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    file = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    try:
        entry = netrc.netrc(file).authenticators(urlsplit(host_url()).netloc)
    except (OSError, netrc.NetrcParseError):
        return False
    return bool(entry and entry[2])


def why_unreachable(url: str, timeout_seconds: float = 5.0) -> str | None:
    """None if a server answers at this address, through the proxy if one is set; else the reason in words."""
    answer: list[str | None] = []
    # In a thread, because urllib's timeout does not bound the look-up of the host's name.
    thread = threading.Thread(target=lambda: answer.append(_ask(url, timeout_seconds)), daemon=True)
    thread.start()
    thread.join(timeout_seconds)
    return answer[0] if answer else f"no answer within {timeout_seconds:g} seconds"


def _ask(url: str, timeout_seconds: float) -> str | None:
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout_seconds).close()
    except urllib.error.HTTPError as error:
        # A server that says 404 is there; 407 is a proxy that lets nothing through.
        return f"HTTP {error.code} {error.reason}" if error.code >= 500 or error.code == 407 else None
    except (OSError, ValueError, http.client.HTTPException) as error:
        return str(getattr(error, "reason", error))
    return None


def _stored_host() -> str | None:
    folder = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser()
    settings = configparser.ConfigParser(interpolation=None)
    try:
        settings.read(folder / "settings")
    except configparser.Error:
        return None
    return settings.get("default", "base_url", fallback=None)
