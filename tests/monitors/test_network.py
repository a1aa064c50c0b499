"""Whether W&B can be used: decided without importing it."""

import socket

import pytest
from wandb_server import Server

from atlas.network import has_key, host_url, why_unreachable


@pytest.fixture
def home(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_CONFIG_DIR", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def store_login(home, host):
    (home / ".netrc").write_text(f"machine {host}\n  login user\n  password {'f' * 40}\n")
    (home / ".netrc").chmod(0o600)


def test_a_key_in_the_environment_is_a_login(home, monkeypatch):
    assert not has_key()
    monkeypatch.setenv("WANDB_API_KEY", "f" * 40)
    assert has_key()


def test_an_empty_key_is_none(home, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "")
    assert not has_key()


def test_a_login_counts_only_for_its_own_host(home, monkeypatch):
    store_login(home, "api.wandb.ai")
    assert has_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.com")
    assert not has_key()
    store_login(home, "wandb.example.com")
    assert has_key()


def test_a_broken_netrc_is_no_login(home):
    (home / ".netrc").write_text("machine without an end\n  what is this")
    assert not has_key()


def test_the_host_is_the_environments_then_the_stored_one_then_the_public_one(home, monkeypatch):
    assert host_url() == "https://api.wandb.ai"
    (home / ".config/wandb").mkdir(parents=True)
    (home / ".config/wandb/settings").write_text("[default]\nbase_url = https://stored.example.com\n")
    assert host_url() == "https://stored.example.com"
    monkeypatch.setenv("WANDB_BASE_URL", "https://named.example.com")
    assert host_url() == "https://named.example.com"


def test_a_server_is_reachable_while_it_answers():
    server = Server()
    assert why_unreachable(server.url) is None
    server.down = True
    assert "503" in why_unreachable(server.url)
    server.close()
    assert "refused" in why_unreachable(server.url)


def test_an_address_that_is_none_is_unreachable():
    assert "unknown url type" in why_unreachable("no address")


def test_a_server_that_never_answers_is_given_up_on():
    with socket.create_server(("127.0.0.1", 0)) as listening:  # accepts, and says nothing
        assert why_unreachable(f"http://127.0.0.1:{listening.getsockname()[1]}", timeout_seconds=0.05)
