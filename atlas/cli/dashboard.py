"""The command that opens the dashboard: who may look, the server process, and a store that is kept up to date."""

import importlib.util
import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from atlas.errors import AtlasError, UsageError

if TYPE_CHECKING:
    from atlas.store import Store

SETTLE_SECONDS = 2.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_PACKAGES = ("streamlit", "altair", "tsdownsample")
_START_SECONDS, _STOP_SECONDS = 60.0, 3.0
_TICK_SECONDS = 0.1
_MANUAL = "see docs/dashboard.md"


class Auth(StrEnum):
    """Who keeps strangers out when others can reach the server."""

    oidc = "oidc"
    proxy = "proxy"


def dashboard(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where it listens; 0: any free port.")] = 8501,
    host: Annotated[
        str, typer.Option(help="Address it listens on; another than this machine's own needs --auth.")
    ] = "127.0.0.1",
    auth: Annotated[
        Auth | None,
        typer.Option(
            help="oidc: visitors log in, see docs/dashboard.md; proxy: a reverse proxy in front logs them in."
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Name by which visitors reach it; may be repeated."),
    ] = None,
    allow_user: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EMAIL|@DOMAIN", help="With oidc: who may look; may be repeated. Default: all who log in."
        ),
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open it in a browser.")] = True,
) -> None:
    """Show runs, comparisons and samples in a browser, live. It only reads; Ctrl-C ends it."""
    _check_installed()
    names = visitors_names(host, auth, allow_host or [], allow_user or [], secrets_files())
    port = free_port(host, port)
    from atlas.store import home_from_environment

    home = home_from_environment()
    address = f"http://{_in_url(_reached_at(host))}:{port}"
    settings = streamlit_settings(host, port, names, address)
    environment = {"ATLAS_HOME": str(home), "ATLAS_DASHBOARD_AUTH": auth or ""}
    environment["ATLAS_DASHBOARD_USERS"] = " ".join(allow_user or [])
    with _stopped_by_signals(), _server(settings, environment) as server:
        _wait_until_it_answers(server, _reached_at(host), port)
        typer.echo(f"{address} shows {home}; Ctrl-C ends it")
        if auth is not None:
            typer.echo(exposure(home, host, auth, names, allow_user or []), err=True)
        if browser and _has_screen():
            webbrowser.open(address)
        threading.Thread(target=_keep_settled, args=(home,), daemon=True).start()
        while server.poll() is None:
            time.sleep(_TICK_SECONDS)
    raise AtlasError(f"the dashboard's server ended by itself, with exit code {server.returncode}; its output is above")


def _check_installed() -> None:
    missing = [package for package in _PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise UsageError(f"the dashboard needs {', '.join(missing)}: pip install 'atlas[dashboard]'")
    if importlib.util.find_spec("dashboard") is None:
        raise UsageError("the package `dashboard` is not installed beside `atlas`: pip install 'atlas[dashboard]'")


def visitors_names(
    host: str, auth: Auth | None, allowed: Sequence[str], users: Sequence[str], secrets: Sequence[Path]
) -> list[str]:
    """The host names that requests may be addressed to. Raises UsageError if the options would let strangers in."""
    for name in allowed:
        _check_name(name)
    if auth is None and not _is_loopback(host):
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
    return list(dict.fromkeys([*_LOOPBACK, *(name.lower() for name in (*redirect, *allowed))]))


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
    if redirect.scheme == "http" and not _is_loopback(redirect.hostname):
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


def free_port(host: str, port: int) -> int:
    """The port itself, or a free one for 0. Raises UsageError, with the next free one, if it is taken."""
    try:
        return _bound(host, port)
    except PermissionError as error:
        raise UsageError(f"port {port} cannot be used: {error}; take one above 1023, such as --port 8501") from error
    except OSError as error:
        if _is_address_of_this_machine(host):
            for other in range(port + 1, min(port + 100, 65536)):
                if _is_free(host, other):
                    raise UsageError(
                        f"port {port} is taken, perhaps by another dashboard; --port {other} is free"
                    ) from error
        raise UsageError(f"cannot listen on {host}, port {port}: {error}") from error


def _is_free(host: str, port: int) -> bool:
    try:
        _bound(host, port)
    except OSError:
        return False
    return True


def _is_address_of_this_machine(host: str) -> bool:
    return _is_free(host, 0)


def _bound(host: str, port: int) -> int:
    """Listens for a moment, as the server will."""
    ((family, kind, protocol, _, address), *_) = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    with socket.socket(family, kind, protocol) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        return int(listening.getsockname()[1])


def streamlit_settings(host: str, port: int, names: Sequence[str], address: str) -> dict[str, Any]:
    """Options that win over the environment and every config.toml: nothing in those can open what is closed here."""
    return {
        "server.address": host,
        "server.port": port,
        "server.allowedHosts": list(names),
        "server.baseUrlPath": "",
        "server.headless": True,  # this command opens the browser
        "server.enableCORS": True,
        "server.corsAllowedOrigins": [],
        "server.enableXsrfProtection": True,
        "server.trustedUserHeaders": {},
        "server.unsafeMetricsUserAttributes": [],
        "server.enableAgentApi": False,
        "server.scriptHealthCheckEnabled": False,
        "server.enableStaticServing": False,
        "server.customComponentBaseUrlPath": "",
        "server.maxUploadSize": 1,  # no page takes uploads
        "server.fileWatcherType": "none",
        "server.runOnSave": False,
        "server.allowRunOnSave": False,
        "secrets.files": [str(file) for file in secrets_files() if file.is_file()],
        "browser.gatherUsageStats": False,
        "browser.serverAddress": urlsplit(address).hostname,
        "client.toolbarMode": "viewer",
        "client.showErrorDetails": "none",
        "client.showErrorLinks": False,
        "client.allowedOrigins": [],
        "global.developmentMode": False,
        "runner.magicEnabled": False,
        "logger.hideWelcomeMessage": True,
    }


def exposure(home: Path, host: str, auth: Auth, names: Sequence[str], users: Sequence[str]) -> str:
    """Who can see what, in lines."""
    if auth == Auth.proxy:
        who = "everybody whom the reverse proxy lets through"
    else:
        who = " and ".join(users) or "everybody whom the identity provider lets log in (--allow-user narrows that)"
    others = [name for name in names if name not in _LOOPBACK]
    lines = [
        f"Open to {who}, under {', '.join(others or _LOOPBACK)}.",
        f"They can read all runs of {home}: metrics, prompts and completions, specs, logs, and the environment "
        "(machine, versions, commit and uncommitted changes). They can change nothing.",
    ]
    if auth == Auth.proxy and not _is_loopback(host):
        lines.append(f"Nothing here checks who comes to {host} past the proxy: a firewall must keep others away.")
    return "\n".join(lines)


@contextmanager
def _server(settings: dict[str, Any], environment: dict[str, str]) -> "Iterator[subprocess.Popen[bytes]]":
    """The server process. It ends with this context, and, through its stdin, with this process however that dies."""
    server = subprocess.Popen(
        # -P: a folder `dashboard` in the working directory is not ours
        [sys.executable, "-P", "-m", "dashboard.server", json.dumps(settings)],
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C in the terminal reaches this process, which ends the server
    )
    try:
        yield server
    finally:
        server.terminate()
        try:
            server.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:  # it waits for a browser
            server.kill()
            server.wait()


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the command as Ctrl-C does: cleanly, with exit code 0."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit() from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait_until_it_answers(server: "subprocess.Popen[bytes]", host: str, port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection((host, port), timeout=1).close()
        except OSError:
            time.sleep(_TICK_SECONDS)
        else:
            return
    if server.poll() is None:
        raise AtlasError(f"the dashboard's server did not answer within {_START_SECONDS:.0f} s")
    raise AtlasError(f"the dashboard's server could not start (exit code {server.returncode}); its output is above")


def _keep_settled(home: Path) -> None:
    """Settles for as long as this process lives, in one thread: one round after the other."""
    settle = Settler(home, lambda message: typer.echo(message, err=True))
    while True:
        settle()
        time.sleep(SETTLE_SECONDS)


class Settler:
    """Brings the store of a home up to date with its run directories. Makes no store, and says what went wrong once."""

    def __init__(self, home: Path, say: Callable[[str], None]) -> None:
        self._home, self._say = home, say
        self._said: set[str] = set()
        self._store: Store | None = None
        self._inode: int | None = None

    def __call__(self) -> None:
        """One round. Never raises: whatever a home holds, it is shown as far as it can be read."""
        try:
            self._settle()
        except Exception as error:
            message = str(error) if isinstance(error, AtlasError) else f"{type(error).__name__}: {error}"
            if message not in self._said:
                self._said.add(message)
                self._say(f"runs are shown as they were last recorded: {message}")

    def _settle(self) -> None:
        from atlas.scheduler import settle
        from atlas.store import Store
        from atlas.store.database import FILE_NAME

        file = self._home / FILE_NAME
        inode = file.stat().st_ino if file.is_file() else None
        if inode != self._inode or self._store is None:  # `atlas reindex` has put another file there
            if self._store is not None:
                self._store.close()
            self._store, self._inode = (Store.open(self._home), inode) if inode is not None else (None, None)
        if self._store is not None:
            settle(self._store)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _reached_at(host: str) -> str:
    """An address of the server as seen from this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _has_screen() -> bool:
    return sys.platform == "darwin" or bool({"DISPLAY", "WAYLAND_DISPLAY", "BROWSER"} & os.environ.keys())
