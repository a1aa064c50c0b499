"""The command that opens the dashboard: the server process, and a store that is kept up to date beside it."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from atlas.cli.visitors import Auth, exposure, reviewers, reviewing, secrets_files, visitors_names
from atlas.errors import AtlasError, UsageError

SETTLE_SECONDS = 2.0
_PACKAGES = ("streamlit", "altair", "tsdownsample")
_START_SECONDS, _STOP_SECONDS = 60.0, 3.0
_TICK_SECONDS = 0.1


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
    allow_review: Annotated[
        bool,
        typer.Option("--allow-review", help="Let visitors approve and quarantine traces; else they change nothing."),
    ] = False,
    user_header: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With --allow-review and proxy: the header in which it names the visitor."),
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open it in a browser.")] = True,
) -> None:
    """Show runs, comparisons, samples and traces in a browser, live. It only reads, unless reviews are allowed; Ctrl-C
    ends it."""
    _check_installed()
    names = visitors_names(host, auth, allow_host or [], allow_user or [], secrets_files())
    reviewer = reviewers(allow_review, auth, user_header)
    port = free_port(host, port)
    from atlas.store import home_from_environment

    home = home_from_environment()
    address = f"http://{_in_url(_reached_at(host))}:{port}"
    settings = streamlit_settings(host, port, names, address)
    environment = {"ATLAS_HOME": str(home), "ATLAS_DASHBOARD_AUTH": auth or ""}
    environment["ATLAS_DASHBOARD_USERS"] = " ".join(allow_user or [])
    # Always set: what this command was started with must not decide it.
    environment |= {"ATLAS_DASHBOARD_REVIEWER": reviewer, "ATLAS_DASHBOARD_USER_HEADER": user_header or ""}
    with _stopped_by_signals(), _server(settings, environment) as server:
        _wait_until_it_answers(server, _reached_at(host), port)
        typer.echo(f"{address} shows {home}; Ctrl-C ends it")
        if auth is not None:
            typer.echo(exposure(home, host, auth, names, allow_user or [], allow_review), err=True)
        if reviewer:
            typer.echo(reviewing(reviewer, auth, user_header), err=True)
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
        # Of what is chosen: the red of Streamlit looks like an error. One for both themes would fix the light one.
        "theme.light.primaryColor": "#0072B2",
        "theme.dark.primaryColor": "#56B4E9",
    }


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
    from atlas.cli.stores import Settler

    settle = Settler(home, lambda message: typer.echo(message, err=True))
    while True:
        settle()
        time.sleep(SETTLE_SECONDS)


def _reached_at(host: str) -> str:
    """An address of the server as seen from this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _has_screen() -> bool:
    return sys.platform == "darwin" or bool({"DISPLAY", "WAYLAND_DISPLAY", "BROWSER"} & os.environ.keys())
