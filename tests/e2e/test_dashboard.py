"""The dashboard as people use it: the real command, its real server, a real browser.

Screenshots of every page, light and dark, narrow and wide, are left in build/screenshots/.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from lab import Lab, append, sample

from atlas.cli.dashboard import free_port, streamlit_settings
from atlas.executors.local import process_handle
from atlas.store import Store
from dashboard import access

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt-get install chromium"),
]

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
PATIENCE_SECONDS = 30
PATIENCE_MS = 1000 * PATIENCE_SECONDS
PAGES = ("runs", "compare", "cross-tokenizer", "run", "samples")
FOREIGN = "evil.example"
HOSTILE = "\n\n".join(
    [
        "<img src=x onerror=alert(1)>",
        f"![tracker](http://{FOREIGN}/pixel.png)",
        "[click me](javascript:alert(1))",
        f"[a link](http://{FOREIGN}/)",
        "<script>alert(1)</script>",
        '<a href="javascript:alert(1)">x</a>',
        f"<iframe src=http://{FOREIGN}/></iframe>",
        '"><svg onload=alert(1)>',
        "$\\href{javascript:alert(1)}{x}$ :material/home: :red[red] &lt;b&gt;",
    ]
)
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "A" * 22 + "==",
}
HOSTILE_CONFIG = f"""
[server]
address = "0.0.0.0"
allowedHosts = ["*"]
enableCORS = false
enableXsrfProtection = false
enableStaticServing = true
enableAgentApi = true
[client]
toolbarMode = "developer"
showErrorDetails = "full"
allowedOrigins = ["http://{FOREIGN}"]
[browser]
gatherUsageStats = true
"""
"""A user's own ~/.streamlit/config.toml, which must not open anything."""


class Study:
    """A store of the real ingest path: two arms with two seeds, one of them across tokenizers, one run that goes on,
    and one that failed. What others write (completions, notes, tags, logs, messages) attacks."""

    def __init__(self, home):
        self.home = home
        self.store = Store.open(home)
        lab = Lab(self.store)
        hostile = {"notes": HOSTILE, "tags": ["<img src=x onerror=alert(1)>", f"![](http://{FOREIGN}/tag.png)"]}
        self.gkd = [lab.run("gkd", seed, rates(0.5 + 0.05 * seed), "1101", **hostile) for seed in (0, 1)]
        self.grpo = [lab.run("grpo", seed, rates(0.3 + 0.05 * seed), "0101", seconds_per_step=3.0) for seed in (0, 1)]
        self.failed = lab.run("sft", 0, [0.1], state="failed", **hostile)
        arms = [("gkd", n, run) for n, run in enumerate(self.gkd)] + [
            ("grpo", n, run) for n, run in enumerate(self.grpo)
        ]
        self.experiment = lab.experiment(arms).id
        self.live = lab.run("sft", 1, [0.1, 0.2], state="queued")
        for run in (*self.gkd, *self.grpo):
            self._write_what_was_said(run)
        self._align(self.gkd[0])
        for run in self.store.runs():
            (Path(run.run_dir) / "worker.log").write_text(f"step 1\n{HOSTILE}\nTraceback: {HOSTILE}\n")
            self.store.ingest(run.id)
        self._start_the_live_one()

    def _write_what_was_said(self, run):
        folder = self.home / "runs" / run
        problems = [{"role": "user", "content": f"What is {n} + {n}?\n{HOSTILE}"} for n in range(4)]
        append(
            folder / "problems.jsonl",
            [
                {"split": "test", "problem_id": f"p{n}", "messages": [message], "answer": str(2 * n)}
                for n, message in enumerate(problems)
            ],
        )
        said = [sample(0, f"p{n}", str(n % 2)) for n in range(4)]
        append(
            folder / "samples.jsonl", [line | {"completion": f"{HOSTILE}\n#### 4", "extracted": "4"} for line in said]
        )
        append(
            folder / "metrics.jsonl",
            [
                {"step": step, "clocks": Lab.clocks(step, 1.0, 8.0), "values": values}
                for step in range(1, 41)
                for values in [{"train/loss": 1 / step, "train/reverse_kl": 2 / step, "phase/generate_seconds": 0.5}]
            ],
        )

    def _align(self, run):
        folder = self.home / "runs" / run
        names = ("coverage", "one_to_one", "shared_mass_student", "shared_mass_teacher", "root_agreement")
        values = {f"alignment/{name}": 0.9 for name in names}
        append(
            folder / "metrics.jsonl",
            [
                {
                    "step": step,
                    "clocks": Lab.clocks(step, 1.0, 8.0),
                    "values": values | {"alignment/coverage": 1 - 0.1 / step},
                }
                for step in range(1, 41)
            ],
        )
        tokens = [["<img src=x ", 0], ["onerror=alert(1)>", 0], [" 125", 1], [f"![](http://{FOREIGN}/t.png)", 2]]
        aligned = {"prompt": HOSTILE, "student": tokens, "teacher": [*tokens[:2], [" 1", 1], ["25", 1], *tokens[3:]]}
        append(folder / "alignment.jsonl", [{"step": step, "divergence": [0.1, 2.0, 0.5]} | aligned for step in (1, 2)])

    def _start_the_live_one(self):
        self.worker = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
        claimed = self.store.claim("test", self.live)
        self.store.started(self.live, claimed.fence, process_handle(self.worker.pid), [])

    def measure(self, step, pass_rate):
        """The run that goes on reports an evaluation."""
        values = {"eval/pass_rate": pass_rate, "eval/problems": 100, "train/loss": 1 / step}
        lines = [
            {"step": step, "clocks": Lab.clocks(step, 1.0, 8.0), "values": values},
            {"progress": {"phase": "train", "step": step, "total": 1000}},
        ]
        append(self.home / "runs" / self.live / "metrics.jsonl", lines)

    def end_the_live_one(self):
        result = {"state": "succeeded", "step": 1000, "planned_step": 1000, "summary": {}}
        (self.home / "runs" / self.live / "result.json").write_text(json.dumps(result))
        self.close()

    def close(self):
        if self.worker.poll() is None:
            self.worker.kill()
            self.worker.wait()


def rates(last):
    return [round(0.1 + (last - 0.1) * n / 4, 3) for n in range(5)]


class Dashboard:
    """`atlas dashboard` in a process of its own, until `close`."""

    def __init__(self, home, folder, *options):
        config = folder / ".streamlit" / "config.toml"
        config.parent.mkdir(exist_ok=True)
        config.write_text(HOSTILE_CONFIG)
        environment = os.environ | {"ATLAS_HOME": str(home), "HOME": str(folder), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "atlas", "dashboard", "--no-browser", "--port", "0", *options],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address = self.process.stdout.readline().split()[0]
        self.host = urlsplit(self.address).netloc

    @property
    def server(self):
        (server,) = psutil.Process(self.process.pid).children()
        return server

    def get(self, path, host=None, method="GET", **headers):
        connection = HTTPConnection(self.host, timeout=PATIENCE_SECONDS)
        connection.request(method, path, headers={"Host": host or self.host, **headers})
        return connection.getresponse()

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(PATIENCE_SECONDS)
        self.process.stdout.close()


class Visitor:
    """One browser window, which writes down whatever a page should not do."""

    def __init__(self, chromium, dashboard, width=1280, scheme="light"):
        self.dashboard = dashboard
        self.context = chromium.new_context(
            viewport={"width": width, "height": 1000}, color_scheme=scheme, accept_downloads=True
        )
        self.trouble = []
        self.frames = 0
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.context.on("request", self._check)
        self.page.on("dialog", self._dialog)
        self.page.on("pageerror", lambda error: self.trouble.append(f"error: {error}"))
        self.page.on("console", self._console)
        self.page.on("websocket", self._count)

    def _check(self, request):
        place = urlsplit(request.url)
        if place.scheme not in ("data", "blob") and place.netloc != self.dashboard.host:
            self.trouble.append(f"asked {request.url}")

    def _dialog(self, dialog):
        self.trouble.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _console(self, message):
        if "Content Security Policy" in message.text:
            self.trouble.append(message.text)

    def _count(self, socket):
        def received(_frame):
            self.frames += 1

        socket.on("framereceived", received)

    def open(self, page, query=""):
        self.page.goto(f"{self.dashboard.address}/{page}{query and '?' + query}")
        self.rest()
        return self.page

    def rest(self):
        """Until the script has run to its end and everything is drawn."""
        app = self.page.locator('[data-testid="stApp"]')
        app.and_(self.page.locator('[data-test-script-state="notRunning"]')).wait_for()
        self.page.wait_for_function(
            """() => !document.querySelector('[data-testid="stSkeleton"], [data-stale="true"]')
                && document.querySelector('[data-testid="stMain"] [data-testid="stElementContainer"]')"""
        )

    def text(self):
        return self.page.locator('[data-testid="stMain"]').inner_text()

    def photograph(self, name):
        """The whole page: Streamlit scrolls inside it, so the window is made as high."""
        height = self.page.evaluate("""document.querySelector('[data-testid="stMain"]').scrollHeight""")
        width = self.page.viewport_size["width"]
        self.page.set_viewport_size({"width": width, "height": min(6000, max(1000, height + 80))})
        self.rest()
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    study = Study(tmp_path_factory.mktemp("study"))
    yield study
    study.close()
    study.store.close()


@pytest.fixture(scope="module")
def dashboard(study, tmp_path_factory):
    dashboard = Dashboard(study.home, tmp_path_factory.mktemp("user"))
    yield dashboard
    dashboard.close()


@pytest.fixture(scope="module")
def server_with_login(study, tmp_path_factory):
    """As `--auth oidc` starts it, without the package and the settings that a login needs: nobody can log in."""
    opened = Dashboard.__new__(Dashboard)
    port = free_port("127.0.0.1", 0)
    opened.address, opened.host = f"http://127.0.0.1:{port}", f"127.0.0.1:{port}"
    settings = streamlit_settings("127.0.0.1", port, ["127.0.0.1"], opened.address)
    environment = os.environ | {"ATLAS_HOME": str(study.home), access.VARIABLE: access.OIDC}
    command = [sys.executable, "-P", "-m", "dashboard.server", json.dumps(settings)]
    opened.process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE)
    wait_for("the server", lambda: answers(opened))
    yield opened
    opened.process.stdin.close()
    assert opened.process.wait(PATIENCE_SECONDS) == 0


def answers(dashboard):
    try:
        return dashboard.get("/_stcore/health").status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def chromium():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, dashboard):
    """`visit(width=1280, scheme="light")`: a window; at the end of the test nothing may have gone wrong in it."""
    visitors = []

    def visiting(**look):
        visitors.append(Visitor(chromium, dashboard, **look))
        return visitors[-1]

    yield visiting
    for visitor in visitors:
        visitor.context.close()
        assert not visitor.trouble


def wait_for(what, condition):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.1)


# -- the server


@pytest.mark.parametrize(
    "path", ["/", "/runs", "/media/x.csv", "/_stcore/health", "/_stcore/metrics", "/_stcore/host-config"]
)
def test_only_the_names_of_this_machine_are_answered(dashboard, path):
    port = urlsplit(dashboard.address).port
    for host in (FOREIGN, f"{FOREIGN}:{port}", f"localhost.{FOREIGN}"):
        assert dashboard.get(path, host).status == 421
    assert dashboard.get(path, f"localhost:{port}").status != 421


def test_a_foreign_name_or_page_opens_no_websocket(dashboard):
    assert dashboard.get("/_stcore/stream", FOREIGN, **UPGRADE).status == 403
    assert dashboard.get("/_stcore/stream", Origin=f"http://{FOREIGN}", **UPGRADE).status == 403
    assert dashboard.get("/_stcore/stream", Origin=dashboard.address, **UPGRADE).status == 101


def test_a_config_file_of_the_user_opens_nothing(dashboard):
    listening = {
        connection.laddr.ip for connection in dashboard.server.net_connections() if connection.status == "LISTEN"
    }
    assert listening == {"127.0.0.1"}
    agent = dashboard.get("/_stcore/agent/interact", method="POST")
    assert agent.status >= 400 and b"does not serve the agent API" in agent.read()
    settings = json.loads(dashboard.get("/_stcore/host-config").read())
    assert settings["allowedOrigins"] == []
    answer = dashboard.get("/_stcore/health", Origin=f"http://{FOREIGN}")
    assert answer.getheader("Access-Control-Allow-Origin") is None
    assert b"<!DOCTYPE html>" in dashboard.get("/app/static/app.py").read(), "the page, not a file"


def test_every_answer_forbids_what_pages_do_not_need(dashboard):
    for path in ("/", "/media/x.csv", "/_stcore/health"):
        answer = dashboard.get(path)
        policy = answer.getheader("Content-Security-Policy")
        assert "default-src 'self'" in policy and "http" not in policy and "frame-ancestors 'none'" in policy
        assert answer.getheader("X-Content-Type-Options") == "nosniff"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_the_server_ends_with_the_command_however_that_ends(number, tmp_path):
    opened = Dashboard(tmp_path / "nowhere", tmp_path)
    server = opened.server
    opened.process.send_signal(number)
    assert opened.process.wait(PATIENCE_SECONDS) == (-number if number == signal.SIGKILL else 0)
    wait_for("the end of the server", lambda: not server.is_running())
    assert not (tmp_path / "nowhere").exists(), "looking makes no store"
    opened.close()


def test_behind_a_proxy_the_visitors_name_is_answered(tmp_path):
    opened = Dashboard(tmp_path / "nowhere", tmp_path, "--auth", "proxy", "--allow-host", "atlas.example.org")
    try:
        assert opened.get("/", "atlas.example.org").status == 200
        assert opened.get("/", "example.org").status == 421
        origin = "https://atlas.example.org"
        assert opened.get("/_stcore/stream", "atlas.example.org", Origin=origin, **UPGRADE).status == 101
        assert opened.get("/_stcore/stream", "atlas.example.org", Origin=f"http://{FOREIGN}", **UPGRADE).status == 403
    finally:
        opened.close()


@pytest.mark.parametrize("page", PAGES)
def test_with_a_login_no_page_shows_anything_before_it(page, study, chromium, server_with_login):
    visitor = Visitor(chromium, server_with_login)
    shown = visitor.open(page, f"run={study.gkd[0]}")
    assert shown.get_by_role("button", name="Log in").is_visible()
    assert shown.get_by_role("link", name="Compare").count() == 0
    assert not any(run.id in shown.content() for run in study.store.runs())
    visitor.context.close()


# -- what pages must not do


@pytest.mark.parametrize("page", PAGES)
def test_what_others_wrote_is_shown_as_characters(page, visit, study):
    visitor = visit()
    visitor.open(page, "&".join(f"run={run}" for run in (study.gkd[0], study.failed)))
    page = visitor.page
    assert page.locator(f'img[src*="{FOREIGN}"], img[src="x"], iframe[src*="{FOREIGN}"]').count() == 0
    assert page.locator(f'[data-testid="stMain"] a[href*="{FOREIGN}"], a[href^="javascript"]').count() == 0
    assert page.locator('[data-testid="stMain"] script, svg[onload]').count() == 0
    assert page.locator('[data-testid="stException"]').count() == 0, visitor.text()


@pytest.mark.parametrize("width", [1280, 2560])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_drawn_and_photographed(width, scheme, visit, study):
    visitor = visit(width=width, scheme=scheme)
    for page in PAGES:
        runs = [study.gkd[0]] if page == "run" else [*study.gkd, *study.grpo]
        visitor.open(page, "" if page == "runs" else "&".join(f"run={run}" for run in runs))
        assert visitor.page.locator('[data-testid="stException"]').count() == 0, visitor.text()
        visitor.photograph(f"{page}-{scheme}-{width}")
