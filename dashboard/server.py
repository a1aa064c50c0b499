"""The server process of `atlas dashboard`: `python -m dashboard.server SETTINGS`, Streamlit's options as JSON.

Streamlit compares the Host header of WebSockets with `server.allowedHosts`; here every other route (pages, downloads,
status) is guarded by the same names, and a page can load nothing from, and send nothing to, another server.
"""

import json
import os
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit.runtime.pages_manager import PagesManager
from streamlit.starlette import App

HEADERS = {
    # Streamlit's own page has inline scripts and styles; Vega compiles its expressions.
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "connect-src 'self' data: blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Of every answer."""


class Guard:
    """ASGI: refuses requests that do not name this server: a foreign page has rebound its name to this address."""

    def __init__(self, app: ASGIApp, names: Sequence[str]) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif is_named(Headers(scope=scope).get("host", ""), self._names):
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            refusal = PlainTextResponse("This name is not one of the dashboard's; see `atlas dashboard --help`.\n", 421)
            await refusal(scope, receive, send)


def is_named(host: str, names: Sequence[str]) -> bool:
    """Whether a Host header holds one of the names; the port counts for nothing, `*.` stands for any subdomain."""
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return False
    return any(name.endswith(known[1:]) if known.startswith("*.") else name == known for known in names)


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(HEADERS)
        await send(message)

    return sending


def end_with_the_parent() -> None:
    """Ends this process, at once, when the one that holds the other end of stdin is gone, however it went."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        os._exit(0)  # nothing is written here but reviews, and a transaction is whole or not at all

    threading.Thread(target=wait, daemon=True).start()


def main(settings: dict[str, Any]) -> None:
    """Serves until it is told to stop."""
    # Until `st.navigation` has run once, Streamlit takes the folder `pages` for pages of an old kind, without app.py:
    # the first visitor of /compare would see nothing.
    PagesManager.uses_pages_directory = False
    # What takes seconds to import is there before the first visitor.
    for heavy in ("altair", "pandas", "atlas.comparison.collect", "atlas.store.traces"):
        import_module(heavy)
    guard = Middleware(Guard, names=[name.lower() for name in settings["server.allowedHosts"]])
    App(Path(__file__).with_name("app.py"), middleware=[guard]).run(config=settings)


if __name__ == "__main__":
    end_with_the_parent()
    main(json.loads(sys.argv[1]))
