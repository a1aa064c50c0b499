"""`atlas dashboard` before its server starts: who may be let in, the port, what is missing; and how it settles."""

import importlib.util
import json
import shutil
import socket
import subprocess
import sys

import pytest
from command_line import atlas
from lab import Lab

from atlas.cli.dashboard import free_port, streamlit_settings
from atlas.cli.stores import Settler
from atlas.cli.visitors import Auth, exposure, reviewers, reviewing, visitors_names
from atlas.errors import StoreError, UsageError
from atlas.store import Store
from dashboard.access import is_user
from dashboard.server import is_named

LOOPBACK = ["localhost", "127.0.0.1", "::1"]
SECRETS = """
[auth]
redirect_uri = "https://atlas.example.org/oauth2callback"
cookie_secret = "0123456789abcdef0123456789abcdef"
client_id = "atlas"
client_secret = "s3cret"
server_metadata_url = "https://login.example.org/.well-known/openid-configuration"
"""


@pytest.fixture
def authlib(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name == "authlib" else found(name))


@pytest.fixture
def secrets(tmp_path):
    def written(text):
        file = tmp_path / "secrets.toml"
        file.write_text(text)
        return [tmp_path / "nowhere.toml", file]

    return written


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], ["--host 0.0.0.0", "--auth oidc", "--auth proxy", "docs/dashboard.md", "ssh -L"]),
        (["--host", "10.0.0.5"], ["--auth"]),
        (["--allow-host", "atlas.example.org"], ["--allow-host", "--auth"]),
        (["--auth", "proxy"], ["--allow-host NAME"]),
        (["--auth", "proxy", "--allow-host", "*"], ["expected a name"]),
        (["--auth", "proxy", "--allow-host", "*.org*"], ["expected a name"]),
        (["--auth", "proxy", "--allow-host", "*.org"], ["expected a name"]),
        (["--auth", "proxy", "--allow-host", "https://atlas.example.org"], ["expected a name", "without scheme"]),
        (["--auth", "proxy", "--allow-host", "atlas.example.org:443"], ["expected a name"]),
        (["--auth", "proxy", "--allow-host", "a.example.org", "--allow-user", "ann@example.org"], ["--auth oidc"]),
        (["--allow-user", "ann@example.org"], ["--auth oidc"]),
        (["--auth", "nobody"], ["oidc"]),
        (
            ["--auth", "proxy", "--allow-host", "a.example.org", "--allow-review"],
            ["--user-header NAME", "X-Forwarded-User", "docs/dashboard.md"],
        ),
        (["--auth", "proxy", "--allow-host", "a.example.org", "--user-header", "X-User"], ["--allow-review"]),
        (["--allow-review", "--user-header", "X-User"], ["--auth proxy"]),
        (
            ["--auth", "proxy", "--allow-host", "a.example.org", "--allow-review", "--user-header", "X User:"],
            ["expected the name of a header"],
        ),
        (["--host", "0.0.0.0", "--allow-review"], ["--auth"]),
        (["--port", "65536"], ["65535"]),
    ],
)
def test_what_would_let_strangers_in_is_refused_with_the_next_step(arguments, words):
    output = atlas("dashboard", "--no-browser", *arguments, expect=2)
    assert all(word in output for word in words), output


def test_only_names_of_this_machine_are_served_by_default():
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        assert visitors_names(host, None, [], [], []) == LOOPBACK


def test_behind_a_proxy_the_names_of_visitors_are_served_too():
    names = visitors_names("0.0.0.0", Auth.proxy, ["Atlas.Example.org", "*.lab.example.org"], [], [])
    assert names == [*LOOPBACK, "atlas.example.org", "*.lab.example.org"]


def test_with_a_login_the_name_to_which_visitors_are_sent_back_is_served(authlib, secrets):
    names = visitors_names("0.0.0.0", Auth.oidc, [], ["@example.org"], secrets(SECRETS))
    assert names == [*LOOPBACK, "atlas.example.org"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("[auth]", "[other]"), ["lacks redirect_uri, cookie_secret, client_id, client_secret, server_metadata_url"]),
        (('client_secret = "s3cret"', ""), ["lacks client_secret"]),
        (("0123456789abcdef0123456789abcdef", "short"), ["cookie_secret", "32"]),
        (("/oauth2callback", "/"), ["redirect_uri", "expected https://NAME/oauth2callback"]),
        (("https://atlas", "http://atlas"), ["redirect_uri", "TLS"]),
        (("[auth]", "[auth"), ["cannot be read"]),
    ],
)
def test_a_login_that_cannot_work_is_refused_before_the_server_starts(change, words, authlib, secrets):
    with pytest.raises(UsageError) as refused:
        visitors_names("127.0.0.1", Auth.oidc, [], [], secrets(SECRETS.replace(*change)))
    assert all(word in str(refused.value) for word in words)
    assert "s3cret" not in str(refused.value)


def test_a_login_on_this_machine_needs_no_tls(authlib, secrets):
    local = secrets(SECRETS.replace("https://atlas.example.org", "http://localhost:8501"))
    assert visitors_names("127.0.0.1", Auth.oidc, [], [], local) == LOOPBACK


def test_a_login_without_secrets_or_authlib_says_what_is_missing(authlib, secrets, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"\[auth\] in .*nowhere"):
        visitors_names("127.0.0.1", Auth.oidc, [], [], [tmp_path / "nowhere"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install 'Authlib"):
        visitors_names("127.0.0.1", Auth.oidc, [], [], secrets(SECRETS))


def test_a_missing_extra_is_named_with_its_pip_line(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "streamlit" else found(name))
    assert "streamlit: pip install 'atlas[dashboard]'" in atlas("dashboard", expect=2)


def test_a_taken_port_is_named_with_a_free_one():
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        output = atlas("dashboard", "--no-browser", "--port", taken, expect=2)
    assert f"port {taken} is taken" in output and "--port" in output.split("; ")[1]


def test_port_0_is_any_free_port_and_a_foreign_address_is_said_to_be_one():
    assert free_port("127.0.0.1", 0) > 0
    with pytest.raises(UsageError, match=r"cannot listen on 203.0.113.1"):
        free_port("203.0.113.1", 8501)


def test_it_says_who_can_see_what(tmp_path):
    behind = exposure(tmp_path, "0.0.0.0", Auth.proxy, [*LOOPBACK, "atlas.example.org"], [], review=False)
    assert "under atlas.example.org" in behind and "firewall" in behind
    for word in ("completions", "logs", "uncommitted changes", "traces", "change nothing.", str(tmp_path)):
        assert word in behind
    assert "firewall" not in exposure(tmp_path, "127.0.0.1", Auth.proxy, ["a.example.org"], [], review=False)
    assert "--allow-user" in exposure(tmp_path, "0.0.0.0", Auth.oidc, ["a.example.org"], [], review=False)
    named = exposure(tmp_path, "0.0.0.0", Auth.oidc, ["a.example.org"], ["@example.org"], review=True)
    assert "Open to @example.org" in named and "nothing but reviews" in named


def test_it_says_who_can_review_and_under_which_name():
    assert "as ann" in reviewing("ann", None, None) and "account on this machine" in reviewing("ann", None, None)
    assert "identity provider" in reviewing("ann", Auth.oidc, None)
    behind = reviewing("ann", Auth.proxy, "X-User")
    assert "X-User" in behind and "past the proxy" in behind and "ann" not in behind


def test_reviews_are_allowed_by_the_option_alone(monkeypatch):
    monkeypatch.setenv("LOGNAME", "ann")
    assert reviewers(False, None, None) == "" == reviewers(False, Auth.proxy, None)
    assert reviewers(True, None, None) == "ann" == reviewers(True, Auth.oidc, None)
    assert reviewers(True, Auth.proxy, "X-Forwarded-User") == "ann"


HOSTILE = {
    "server.address": "0.0.0.0",
    "server.allowedHosts": ["*"],
    "server.enableCORS": False,
    "server.corsAllowedOrigins": ["http://evil.example"],
    "server.enableXsrfProtection": False,
    "server.enableStaticServing": True,
    "server.enableAgentApi": True,
    "server.fileWatcherType": "poll",
    "server.baseUrlPath": "elsewhere",
    "browser.gatherUsageStats": True,
    "client.toolbarMode": "developer",
    "client.showErrorDetails": "full",
    "client.allowedOrigins": ["http://evil.example"],
    "secrets.files": ["/tmp/evil.toml"],
}


def test_no_config_file_and_no_variable_weakens_the_settings(tmp_path):
    settings = streamlit_settings("127.0.0.1", 8501, LOOPBACK, "http://127.0.0.1:8501")
    file = tmp_path / ".streamlit" / "config.toml"
    file.parent.mkdir()
    lines = [f"{name} = {json.dumps(value)}" for name, value in HOSTILE.items()]
    file.write_text("\n".join(lines))
    code = (
        "import json, sys; from streamlit.web import bootstrap; from streamlit import config; "
        "settings = json.loads(sys.argv[1]); bootstrap.load_config_options(settings); "
        "print(json.dumps({name: config.get_option(name) for name in settings}))"
    )
    environment = {"HOME": str(tmp_path), "STREAMLIT_SERVER_ENABLE_AGENT_API": "true", "PATH": "/usr/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(settings)],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        check=True,
    )
    assert json.loads(done.stdout) == settings


def test_the_settings_close_what_the_dashboard_does_not_need():
    settings = streamlit_settings("127.0.0.1", 8501, LOOPBACK, "http://127.0.0.1:8501")
    off = ("enableStaticServing", "enableAgentApi", "runOnSave", "allowRunOnSave", "scriptHealthCheckEnabled")
    assert not any(settings[f"server.{name}"] for name in off)
    assert not settings["browser.gatherUsageStats"] and settings["server.fileWatcherType"] == "none"
    assert settings["client.showErrorDetails"] == "none" and settings["server.allowedHosts"] == LOOPBACK


def test_settling_makes_no_store(tmp_path):
    said = []
    Settler(tmp_path / "home", said.append)()
    assert not said and not (tmp_path / "home").exists()


def test_settling_brings_a_run_up_to_date(lab):
    run = lab.run("gkd", state="running")  # by a worker that has never been
    Settler(lab.store.home, pytest.fail)()
    assert lab.store.run(run).state == "failed"


def test_settling_says_each_trouble_once_and_goes_on(lab, monkeypatch):
    said = []
    settle = Settler(lab.store.home, said.append)
    troubles = iter([StoreError("read-only"), StoreError("read-only"), ValueError("another Atlas wrote it"), None])

    def troubled(_store):
        if trouble := next(troubles):
            raise trouble

    monkeypatch.setattr("atlas.cli.stores.settle", troubled)
    for _ in range(4):
        settle()
    assert [message.split(": ", 1)[1] for message in said] == ["read-only", "ValueError: another Atlas wrote it"]


def test_settling_reads_a_store_that_was_rebuilt(lab, empty_database):
    settle = Settler(lab.store.home, pytest.fail)
    settle()
    copy = lab.store.home / "copy.db"
    shutil.copy2(empty_database, copy)
    copy.replace(lab.store.path)
    settle()
    with Store.open(lab.store.home) as store:
        run = Lab(store).run("gkd", state="running")
        settle()
        assert store.run(run).state == "failed"


def test_users_are_addresses_or_domains_and_unverified_addresses_are_nobody():
    assert is_user({}, []), "everybody who can log in"
    users = ["ann@example.org", "@lab.example.org"]
    assert is_user({"email": "Ann@example.org"}, users) and is_user({"email": "bo@lab.example.org"}, users)
    for claims in (
        {},
        {"email": None},
        {"email": "bo@example.org"},
        {"email": "bo@evil.lab.example.org"},
        {"email": "ann@example.org", "email_verified": False},
        {"email": "lab.example.org"},
    ):
        assert not is_user(claims, users)


@pytest.mark.parametrize(
    ("host", "named"),
    [
        ("localhost:8501", True),
        ("LOCALHOST", True),
        ("localhost.", True),
        ("[::1]:8501", True),
        ("a.lab.example.org", True),
        ("lab.example.org", False),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("evil.example#localhost", False),
        ("localhost@evil.example", False),
        ("", False),
        ("[::1", False),
    ],
)
def test_a_host_header_is_compared_as_a_whole(host, named):
    assert is_named(host, [*LOOPBACK, "*.lab.example.org"]) is named
