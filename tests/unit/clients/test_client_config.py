"""Where the client finds the service's address and its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from workspaces import ConfigError, Workspaces
from workspaces.config import config_path, load_config

BOTH = 'api_url = "http://of-file"\napi_key = "key-of-file"\n'


def test_the_environment_has_precedence_over_the_file(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text(BOTH)
    found = load_config(file, {"API_URL": "http://of-environment"})
    assert (found.api_url, found.api_key) == ("http://of-environment", "key-of-file")
    assert "key-of-file" not in repr(found)


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({}, Path.home() / ".config/workspaces/config.toml"),
        ({"XDG_CONFIG_HOME": "/x"}, Path("/x/workspaces/config.toml")),
        ({"XDG_CONFIG_HOME": "/x", "WORKSPACES_CONFIG": "/y.toml"}, Path("/y.toml")),
    ],
)
def test_the_file_is_where_settings_are_kept(environ, path):
    assert config_path(environ) == path


def test_a_client_is_made_of_it(tmp_path, monkeypatch):
    (tmp_path / "config.toml").write_text(BOTH)
    monkeypatch.setenv("WORKSPACES_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.delenv("API_URL", raising=False)
    monkeypatch.delenv("API_KEY", raising=False)
    with Workspaces.from_env(timeout=5) as client:
        assert client.api_url == "http://of-file"


def test_what_is_missing_is_named_with_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match=r"Set API_KEY, or write api_key into .*config\.toml"):
        load_config(environ={"API_URL": "http://x", "XDG_CONFIG_HOME": str(tmp_path)})


@pytest.mark.parametrize("text", ["api_url = ", "api_key = 7\napi_url = 'http://x'", "\xff"])
def test_a_file_that_can_not_be_read_is_named(tmp_path, text):
    file = tmp_path / "config.toml"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"config\.toml"):
        load_config(file, {})


def test_a_file_that_was_named_must_exist(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(tmp_path / "none", {})
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(environ={"WORKSPACES_CONFIG": str(tmp_path / "none")})
