"""Who may look at the dashboard: under which names it answers, who logs visitors in, what they then see, and whether
they may review."""

import getpass
import importlib.util
import ipaddress
import re
import tomllib
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from atlas.errors import UsageError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_MANUAL = "see docs/dashboard.md"


class Auth(StrEnum):
    """Who keeps strangers out when others can reach the server."""

    oidc = "oidc"
    proxy = "proxy"


def visitors_names(
    host: str, auth: Auth | None, allowed: Sequence[str], users: Sequence[str], secrets: Sequence[Path]
) -> list[str]:
    """The host names that requests may be addressed to. Raises UsageError if the options would let strangers in."""
    for name in allowed:
        _check_name(name)
    if auth is None and not is_loopback(host):
        raise UsageError(
            f"--host {host} lets others in: say who keeps strangers out, --auth oidc or --auth proxy ({_MANUAL}); "
            "for yourself, `ssh -L 8501:localhost:8501 THIS_MACHINE` needs neither"
        )
    if auth is None and allowed:
        raise UsageError(
            f"--allow-host lets others in: say who keeps strangers out, --auth oidc or --auth proxy ({_MANUAL})"
        )
    if users and auth != Auth.oidc:
        raise UsageError("--allow-user needs --auth oidc: nobody else knows who a visitor is")
    for user in users:
        if "@" not in user or any(character.isspace() for character in user):
            raise UsageError(f"--allow-user {user}: expected an e-mail address, or @example.org for all of a domain")
    if auth == Auth.proxy and not allowed:
        raise UsageError("--auth proxy needs --allow-host NAME: the name that visitors type, such as atlas.example.org")
    redirect = [check_login(secrets)] if auth == Auth.oidc else []
    return list(dict.fromkeys([*LOOPBACK, *(name.lower() for name in (*redirect, *allowed))]))


def _check_name(name: str) -> None:
    bare = name.removeprefix("*.")
    try:
        whole = urlsplit(f"//{bare}").hostname == bare.lower() or ipaddress.ip_address(bare).version == 6
    except ValueError:
        whole = False
    if not whole or "*" in bare or (name != bare and "." not in bare):
        raise UsageError(
            f"--allow-host {name}: expected a name without scheme and port, such as atlas.example.org or *.example.org"
        )


def secrets_files() -> list[Path]:
    """Where the login's settings may be; a later file wins."""
    return [folder / ".streamlit" / "secrets.toml" for folder in (Path.home(), Path.cwd())]


def check_login(files: Sequence[Path]) -> str:
    """The host name to which the identity provider sends visitors back. Raises UsageError, with what is missing, if a
    login could not work."""
    if importlib.util.find_spec("authlib") is None:
        raise UsageError("--auth oidc needs Authlib: pip install 'Authlib>=1.3.2'")
    present = [file for file in files if file.is_file()]
    if not present:
        places = " or ".join(map(str, files[::-1]))
        raise UsageError(f"--auth oidc needs a section [auth] in {places}: {_MANUAL}")
    section = _auth_section(present)
    needed = ("redirect_uri", "cookie_secret", "client_id", "client_secret", "server_metadata_url")
    missing = [key for key in needed if not section.get(key)]
    if missing:
        raise UsageError(f"[auth] of {present[-1]} lacks {', '.join(missing)}: {_MANUAL}")
    if len(section["cookie_secret"]) < 32:
        raise UsageError(f"cookie_secret of {present[-1]} can be guessed: expected 32 random characters or more")
    redirect = urlsplit(section["redirect_uri"])
    if redirect.path != "/oauth2callback" or not redirect.hostname or redirect.scheme not in ("http", "https"):
        raise UsageError(
            f"redirect_uri of {present[-1]} is {section['redirect_uri']!r}; expected https://NAME/oauth2callback"
        )
    if redirect.scheme == "http" and not is_loopback(redirect.hostname):
        raise UsageError(
            f"redirect_uri of {present[-1]} is {section['redirect_uri']!r}: without TLS everybody on the way can read "
            f"the login; put a proxy with https in front ({_MANUAL})"
        )
    return redirect.hostname


def _auth_section(files: Sequence[Path]) -> dict[str, str]:
    """Streamlit lets a whole section of a later file win over an earlier file's."""
    section: dict[str, Any] = {}
    for file in files:
        try:
            content = tomllib.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise UsageError(f"{file} cannot be read: {error}") from error
        section = content.get("auth", section)
    if not isinstance(section, dict):
        raise UsageError(f"`auth` of {files[-1]} is not a section: {_MANUAL}")
    return {key: str(value) for key, value in section.items() if not isinstance(value, dict)}


def reviewers(allow_review: bool, auth: Auth | None, user_header: str | None) -> str:
    """The login name of who lets visitors review; empty: nobody may. Raises UsageError where a review could not say
    whose it is."""
    if user_header is not None and not (allow_review and auth == Auth.proxy):
        raise UsageError(
            "--user-header is for --allow-review with --auth proxy: nothing else asks for a visitor's name"
        )
    if user_header is not None and not re.fullmatch(r"[A-Za-z0-9-]+", user_header):
        raise UsageError(f"--user-header {user_header}: expected the name of a header, such as X-Forwarded-User")
    if not allow_review:
        return ""
    if auth == Auth.proxy and user_header is None:
        raise UsageError(
            "--allow-review with --auth proxy needs --user-header NAME, such as X-Forwarded-User: a review says whose "
            f"it is, and only the proxy knows who a visitor is ({_MANUAL})"
        )
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:
        raise UsageError("--allow-review: there is no login name here; set LOGNAME to say who reviews") from error


def reviewing(reviewer: str, auth: Auth | None, user_header: str | None) -> str:
    """Who can review, and under which name, in a line; `reviewer`: what `reviewers` returned, which is not empty."""
    if auth == Auth.oidc:
        return "They can review traces, each under the address that the identity provider vouches for."
    if auth == Auth.proxy:
        return (
            f"They can review traces, each under the name in {user_header}: the proxy must set it, whatever a visitor "
            "sent; whoever comes past the proxy can review under any name."
        )
    return f"Everybody who has an account on this machine can review traces here, as {reviewer}."


def exposure(home: Path, host: str, auth: Auth, names: Sequence[str], users: Sequence[str], review: bool) -> str:
    """Who can see what, and change it, in lines."""
    if auth == Auth.proxy:
        who = "everybody whom the reverse proxy lets through"
    else:
        who = " and ".join(users) or "everybody whom the identity provider lets log in (--allow-user narrows that)"
    others = [name for name in names if name not in LOOPBACK]
    lines = [
        f"Open to {who}, under {', '.join(others or LOOPBACK)}.",
        f"They can read all runs of {home}: metrics, prompts and completions, specs, logs, and the environment "
        "(machine, versions, commit and uncommitted changes); and all traces of agents. They can change nothing"
        f"{' but reviews' if review else ''}.",
    ]
    if auth == Auth.proxy and not is_loopback(host):
        lines.append(f"Nothing here checks who comes to {host} past the proxy: a firewall must keep others away.")
    return "\n".join(lines)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
