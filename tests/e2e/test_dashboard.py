"""The dashboard as people use it: the real command, its real server, a real browser.

Screenshots of every page, light and dark, narrow and wide, are left in build/screenshots/.
"""

import getpass
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
from command_line import atlas
from lab import Lab, append, sample
from trace_lines import attempt, begin, end, guidance, outcome, whole, write

from atlas.cli.dashboard import free_port, streamlit_settings
from atlas.executors.local import process_handle
from atlas.store import Store
from atlas.store.traces import TraceStore
from dashboard import access
from dashboard.live import POLL_SECONDS

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt-get install chromium"),
]

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
PATIENCE_SECONDS = 60
PATIENCE_MS = 1000 * PATIENCE_SECONDS
PAGES = ("", "compare", "cross-tokenizer", "run", "samples", "traces")
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
        "<iframe src=//evil>",
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
        self.gkd = [lab.run("gkd", seed, rates(0.5 + 0.05 * seed), **hostile) for seed in (0, 1)]
        self.grpo = [lab.run("grpo", seed, rates(0.3 + 0.05 * seed), seconds_per_step=3.0) for seed in (0, 1)]
        self.failed = lab.run("sft", 0, [0.1], state="failed", **hostile)
        arms = [("gkd", n, run) for n, run in enumerate(self.gkd)] + [
            ("grpo", n, run) for n, run in enumerate(self.grpo)
        ]
        self.experiment = lab.experiment(arms).id
        self.live = lab.run("sft", 1, [0.1, 0.2], state="queued")
        for run, verdicts in zip((*self.gkd, *self.grpo), ("1101", "1001", "0101", "1100"), strict=True):
            self._write_what_was_said(run, verdicts)
        self._align(self.gkd[0])
        for run in self.store.runs():
            (Path(run.run_dir) / "worker.log").write_text(f"step 1\n{HOSTILE}\nTraceback: {HOSTILE}\n")
            self.store.ingest(run.id)
        self._start_the_live_one()
        self._trace()

    def _write_what_was_said(self, run, verdicts):
        folder = self.home / "runs" / run
        asked = [[{"role": "user", "content": f"What is {n} + {n}?\n{HOSTILE}"}] for n in range(4)]
        problems = [
            {"split": "test", "problem_id": f"p{n}", "messages": messages, "answer": str(2 * n)}
            for n, messages in enumerate(asked)
        ]
        append(folder / "problems.jsonl", problems)
        said = [
            sample(40, f"p{n}", verdict) | {"completion": f"{HOSTILE}\n#### {2 * n}", "extracted": str(2 * n)}
            for n, verdict in enumerate(verdicts)
        ]
        append(folder / "samples.jsonl", said)
        curves = [
            {"train/loss": 1 / step, "train/reverse_kl": 2 / step, "phase/generate_seconds": 0.5}
            for step in range(1, 41)
        ]
        curves[-1] |= {"test/step": 40, "test/pass_rate": verdicts.count("1") / 4, "test/problems": 4}
        self._append_metrics(folder, curves)

    def _append_metrics(self, folder, values):
        lines = [
            {"step": step, "clocks": Lab.clocks(step, 1.0, 8.0), "values": of_step}
            for step, of_step in enumerate(values, 1)
        ]
        append(folder / "metrics.jsonl", lines)

    def _align(self, run):
        folder = self.home / "runs" / run
        names = ("coverage", "one_to_one", "shared_mass_student", "shared_mass_teacher", "root_agreement")
        values = {f"alignment/{name}": 0.9 for name in names}
        self._append_metrics(folder, [values | {"alignment/coverage": 1 - 0.1 / step} for step in range(1, 41)])
        tokens = [["<img src=x ", 0], ["onerror=alert(1)>", 0], [" 125", 1], [f"![](http://{FOREIGN}/t.png)", 2]]
        aligned = {"prompt": HOSTILE, "student": tokens, "teacher": [*tokens[:2], [" 1", 1], ["25", 1], *tokens[3:]]}
        append(folder / "alignment.jsonl", [{"step": step, "divergence": [0.1, 2.0, 0.5]} | aligned for step in (1, 2)])

    def _trace(self):
        """Sums that an agent did: `sum-1` was begun last but one, and `story` has something of everything."""
        lines = [line for n in range(60) for line in whole(f"sum-{n}", 9000.0 - 60 * n, n % 3 > 0, task=f"{n} + {n}?")]
        lines += [
            begin("story", 9100.0, agent="adder", task=HOSTILE, tags=["sums", HOSTILE[:40]], parent="sum-1"),
            attempt("first", "story", 9101.0, text=HOSTILE, model="tiny-1", input_tokens=120, output_tokens=30)
            | {"messages": [{"role": "user", "content": HOSTILE}], "duration_seconds": 1.5, "cost_usd": 0.0004},
            outcome("o1", "story", 9102.0, parent="first", score=0.0, passed=False, reference="4"),
            guidance("told", "story", 9103.0, parent="first", kind="critique", name=HOSTILE[:40], text=HOSTILE),
            outcome("early", "story", 9104.0, scorer=HOSTILE[:40], passed=True),
            attempt("second", "story", 9105.0, parent="told", text="long " * 1000, error=HOSTILE)
            | {"tool_calls": [{"function": {"name": "add", "arguments": HOSTILE}}]},
            outcome("o2", "story", 9106.0, parent="second", score=1.0, passed=True, note=HOSTILE),
            end("e", "story", 9107.0, answer=HOSTILE, dropped=2),
        ]
        with TraceStore.open(self.home) as store:
            store.import_file(write(self.home / "agent.jsonl", *lines))
            store.review(["story"], "quarantined", by=HOSTILE[:40], reason=HOSTILE)

    def reviews(self):
        """id -> (status, by whom), of the sessions that were reviewed."""
        with TraceStore.open_read_only(self.home) as store:
            return {row.id: (row.status, row.reviewed_by) for row in store.rows() if row.reviewed_by}

    def _start_the_live_one(self):
        self.worker = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
        claimed = self.store.claim("test", self.live)
        self.store.started(self.live, claimed.fence, process_handle(self.worker.pid), [])

    def measure(self, step, pass_rate):
        """The run that goes on reports an evaluation."""
        values = {"eval/pass_rate": pass_rate, "eval/problems": 100, "train/loss": 1 / step}
        lines = [
            {"step": step, "clocks": Lab.clocks(step, 1.0, 8.0), "values": values},
            {"progress": {"phase": "train", "step": step, "total": 20}},
        ]
        append(self.home / "runs" / self.live / "metrics.jsonl", lines)

    def end_the_live_one(self):
        result = {"state": "succeeded", "step": 20, "planned_step": 20, "summary": {}}
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

    def __init__(self, chromium, dashboard, scheme="light", headers=None):
        self.dashboard = dashboard
        window = {"viewport": {"width": 1280, "height": 1000}, "color_scheme": scheme}
        self.context = chromium.new_context(**window, extra_http_headers=headers or {})
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

    def photograph(self, name, width):
        """The whole page: Streamlit scrolls inside it, so the window is made as high."""
        self.page.set_viewport_size({"width": width, "height": 1000})
        self.rest()
        height = self.page.evaluate("""document.querySelector('[data-testid="stMain"]').scrollHeight""")
        self.page.set_viewport_size({"width": width, "height": min(6000, max(1000, height))})
        self.rest()
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")
        overhang = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert self.page.evaluate(overhang) == 0, f"{name} is wider than its window"


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
def reviewing(study, tmp_path_factory):
    dashboard = Dashboard(study.home, tmp_path_factory.mktemp("reviewer"), "--allow-review")
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
    """`visit(scheme="light")`: a window; at the end of the test nothing may have gone wrong in it. `at`: of another
    server."""
    visitors = []

    def visiting(at=dashboard, **look):
        visitors.append(Visitor(chromium, at, **look))
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


def test_with_a_login_no_page_shows_anything_before_it(study, chromium, server_with_login):
    visitor = Visitor(chromium, server_with_login)
    for page in PAGES:
        shown = visitor.open(page, f"run={study.gkd[0]}")
        assert shown.get_by_role("button", name="Log in").is_visible()
        assert shown.get_by_role("link", name="Compare").count() == 0
        assert not any(run.id in shown.content() for run in study.store.runs())
    visitor.context.close()
    assert not visitor.trouble


# -- from one page to the next


def test_two_runs_are_chosen_by_id_and_compared_over_another_clock_and_a_colleague_sees_the_same(visit, study):
    visitor = visit()
    page = visitor.open("")
    grid = page.locator('[data-testid="stDataFrame"] canvas').first
    for run in (study.grpo[1], study.gkd[1]):
        tick(page, grid, [*study.gkd, *study.grpo, study.failed, study.live][::-1].index(run))
        page.wait_for_url(f"**{run}*")
    with visitor.context.expect_page() as opened:
        page.get_by_role("link", name="Compare (2)").click()
    page = visitor.page = opened.value
    visitor.rest()
    assert all(run in page.url for run in (study.grpo[1], study.gkd[1])) and study.gkd[0] not in page.url
    page.get_by_text("device time (CPU-s)").first.wait_for()

    page.get_by_role("radio", name="rollouts").click()
    page.wait_for_url("**clock=rollouts*")
    page.locator("svg").get_by_text("rollouts").first.wait_for()
    visitor.rest()

    colleague = visit()
    colleague.page.goto(page.url)
    colleague.rest()
    colleague.page.locator("svg").get_by_text("rollouts").first.wait_for()
    assert colleague.text() == visitor.text()
    assert drawn(colleague.page) == drawn(page) != []
    assert colleague.page.url == page.url


def tick(page, grid, row):
    """Marks a row of a table, which is painted on a canvas: its boxes are in a column at the left."""
    grid.scroll_into_view_if_needed()
    box = grid.bounding_box()
    page.mouse.click(box["x"] + 16, box["y"] + 36 + 32 * row + 16)


def drawn(page):
    """The lines and areas of all charts."""
    paths = page.locator('[data-testid="stVegaLiteChart"] svg path')
    return paths.evaluate_all("paths => paths.map(path => path.getAttribute('d'))")


def test_the_exported_table_is_what_the_command_line_prints_and_charts_are_saved_as_pictures(visit, study, monkeypatch):
    page = visit().open("compare", f"experiment={study.experiment}")
    with page.expect_download() as exported:
        page.get_by_role("button", name="CSV").first.click()
    text = Path(exported.value.path()).read_text()
    monkeypatch.setenv("ATLAS_HOME", str(study.home))
    assert text.strip() == atlas("compare", study.experiment, "--csv").strip()
    assert all(run in text for run in (*study.gkd, *study.grpo))

    for kind, beginning in (("SVG", b"<svg"), ("Download as PNG", b"\x89PNG")):
        with page.expect_download() as saved:
            page.get_by_role("button", name=kind).first.press("Enter")
        assert Path(saved.value.path()).read_bytes().startswith(beginning)


def test_pages_are_reached_by_keyboard(visit):
    page = visit().open("")
    for expected in ("Skip to main content", "Runs", "Compare"):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.innerText") == expected
    page.keyboard.press("Enter")
    page.wait_for_url("**/compare*")


# -- what pages must not do


@pytest.mark.parametrize(
    "page", [*PAGES, "run?view=events+and+log", "run?view=spec", "?view=experiments", "traces?session=story"]
)
def test_what_others_wrote_is_shown_as_characters(page, visit, study):
    visitor = visit()
    page, _, view = page.partition("?")
    visitor.open(page, "&".join([f"run={run}" for run in (study.gkd[0], study.failed)] + [view] * bool(view)))
    page = visitor.page
    assert page.locator(f'img[src*="{FOREIGN}"], img[src="x"], iframe[src*="{FOREIGN}"]').count() == 0
    assert page.locator(f'[data-testid="stMain"] a[href*="{FOREIGN}"], a[href^="javascript"]').count() == 0
    assert page.locator('[data-testid="stMain"] script, svg[onload]').count() == 0
    assert page.locator('[data-testid="stException"]').count() == 0, visitor.text()
    assert page.locator('[data-testid="stMain"] iframe').count() == 0
    if view == "session=story":
        assert HOSTILE.splitlines()[0] in visitor.text(), "the trace is there"
        page.get_by_role("combobox", name="Tags").click()
        page.get_by_role("option").get_by_text(HOSTILE.splitlines()[0]).wait_for()
        assert page.locator('img[src="x"], [role="option"] a').count() == 0
    if view == "view=events+and+log":
        assert HOSTILE.splitlines()[0] in visitor.text(), "the log is there"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_drawn_and_photographed(scheme, visit, study):
    visitor = visit(scheme=scheme)
    for page in PAGES:
        runs = [study.gkd[0]] if page == "run" else [*study.gkd, *study.grpo]
        visitor.open(page, "session=story" if page == "traces" else "&".join(f"run={run}" for run in runs))
        assert visitor.page.locator('[data-testid="stException"]').count() == 0, visitor.text()
        assert "nan" not in visitor.text().split(), "an interval that was not recorded"
        for width in (1280, 2560):
            visitor.photograph(f"{page or 'runs'}-{scheme}-{width}", width)


# -- traces of agents


def test_a_choice_of_sessions_and_the_chosen_one_are_in_the_address(visit, study):
    visitor = visit()
    page = visitor.open("traces")
    page.get_by_role("textbox", name="Task").fill("+ 1")
    page.keyboard.press("Enter")
    page.wait_for_url("**text=*")
    page.get_by_role("combobox", name="Outcome").click()
    page.get_by_role("option", name="passed").click()
    page.wait_for_url("**outcome=passed*")
    visitor.rest()
    tick(page, page.locator('[data-testid="stDataFrame"] canvas').first, 1)
    page.wait_for_url("**session=sum-10*")
    visitor.rest()
    assert "2 of 8" in visitor.text() and "of 61 sessions" in visitor.text()

    colleague = visit()
    colleague.page.goto(page.url)
    colleague.rest()
    assert colleague.text() == visitor.text() and colleague.page.url == page.url


def test_without_the_flag_no_visitor_can_review_whatever_the_environment_says(study, visit, tmp_path, monkeypatch):
    monkeypatch.setenv(access.REVIEWER, "mallory")
    opened = Dashboard(study.home, tmp_path)
    try:
        assert opened.server.environ()[access.REVIEWER] == ""
        visitor = visit(at=opened)
        page = visitor.open("traces", "session=sum-0")
        page.get_by_text("Reviewing is off here").wait_for()
        assert page.get_by_role("button", name="Approve").count() == 0
    finally:
        opened.close()


def test_sessions_are_approved_by_keyboard_one_after_the_other(study, visit, reviewing):
    visitor = visit(at=reviewing)
    page = visitor.open("traces", "session=sum-1&status=unreviewed")
    before = study.reviews()
    page.get_by_role("textbox", name="Reason").focus()
    page.keyboard.type("adds up")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**session=sum-2*")
    visitor.rest()
    assert study.reviews() == before | {"sum-1": ("approved", getpass.getuser())}
    assert "Approved sum-1; here is the next." in visitor.text()
    visitor.photograph("reviewing-light-1280", 1280)


def test_behind_a_proxy_reviews_are_of_whom_it_names_and_others_cannot_review(study, visit, tmp_path):
    options = ("--auth", "proxy", "--allow-host", "atlas.example.org", "--allow-review", "--user-header", "X-User")
    opened = Dashboard(study.home, tmp_path, *options)
    try:
        page = visit(at=opened).open("traces", "session=sum-40")
        page.get_by_text("nothing says who you are").wait_for()
        assert page.get_by_role("button", name="Approve").count() == 0
        page = visit(at=opened, headers={"X-User": "bo@example.org"}).open("traces", "session=sum-40")
        page.get_by_role("button", name="Approve").click()
        page.get_by_text("Approved sum-40").wait_for()
        assert study.reviews()["sum-40"] == ("approved", "bo@example.org")
    finally:
        opened.close()


def test_what_came_after_a_session_was_shown_must_be_seen_first(study, visit, reviewing):
    visitor = visit(at=reviewing)
    page = visitor.open("traces", "session=sum-30")
    with TraceStore.open(study.home) as store:
        store.import_file(write(study.home / "late.jsonl", attempt("late", "sum-30", 9200.0, text="And yet")))
    page.get_by_role("button", name="Approve").click()
    page.get_by_text("more records than were shown").wait_for()
    page.get_by_text("And yet").wait_for()
    assert "sum-30" not in study.reviews()


# -- live: the last tests, for the run that goes on ends in them


def test_a_run_that_goes_on_is_followed_without_a_reload_and_no_longer_when_it_has_ended(visit, study):
    visitor = visit()
    page = visitor.open("compare", f"run={study.live}")
    page.evaluate("window.loadedOnce = true")
    page.get_by_text("(step 10 of 20)").first.wait_for()
    study.measure(15, 0.9)
    page.get_by_text("(step 15 of 20)").first.wait_for()

    study.end_the_live_one()
    page.get_by_text("1 succeeded").first.wait_for()
    assert page.evaluate("window.loadedOnce")
    quiet_for(visitor, 3 * POLL_SECONDS)
    assert page.get_by_text("follows every two seconds").count() == 0


def quiet_for(visitor, seconds):
    """Waits until the server has sent nothing for so long."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    frames, since = visitor.frames, time.monotonic()
    while time.monotonic() - since < seconds:
        assert time.monotonic() < deadline, "the page goes on asking"
        visitor.page.wait_for_timeout(100)
        if visitor.frames != frames:
            frames, since = visitor.frames, time.monotonic()
