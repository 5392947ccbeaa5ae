"""Every way to say where Redis is leads to one URL, and two that contradict each other to a sentence that says so."""

from __future__ import annotations

import ssl
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from app.process.redis_address import AddressError, address, celery_broker, is_named, tls
from app.process.settings import Settings, SettingsError
from tests.certificates import Authority

SECRET = "p@ss:/?#[]%25 +ü"
QUOTED = "p%40ss%3A%2F%3F%23%5B%5D%2525%20%2B%C3%BC"


@pytest.fixture
def ca_file(tmp_path: Path) -> str:
    return str(Authority(tmp_path / "ca with space").file)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, "redis://127.0.0.1:6379/0"),
        ({"REDIS_URL": "redis://redis"}, "redis://redis:6379/0"),
        ({"REDIS_URL": "rediss://u:p%40@redis:7000/3"}, "rediss://u:p%40@redis:7000/3"),
        ({"REDIS_URL": "rediss://redis?ssl_cert_reqs=required"}, "rediss://redis:6379/0"),
        (
            {"REDIS_URL": "redis://redis/0", "REDIS_USERNAME": "web", "REDIS_PASSWORD": "x"},
            "redis://web:x@redis:6379/0",
        ),
        ({"REDIS_URL": "redis://:x@redis/0", "REDIS_PASSWORD": "x"}, "redis://:x@redis:6379/0"),
        ({"REDIS_HOST": "old"}, "redis://old:6379/0"),
        ({"REDIS_HOST": "old", "REDIS_PORT": "7000", "REDIS_DB": "2"}, "redis://old:7000/2"),
        ({"REDIS_HOST": "old", "REDIS_PASSWORD": SECRET}, f"redis://:{QUOTED}@old:6379/0"),
        ({"REDIS_HOST": "::1"}, "redis://[::1]:6379/0"),
        ({"REDIS_URL": "redis://[::1]:7000"}, "redis://[::1]:7000/0"),
    ],
)
def test_the_variables_make_up_one_url(given: dict[str, str], url: str) -> None:
    """Of all there are; what none says is the default."""
    assert address(given) == url


def test_a_password_is_the_same_after_the_way_through_the_url() -> None:
    """However odd its characters: a client decodes what was encoded once."""
    url = address({"REDIS_USERNAME": "a b:c@", "REDIS_PASSWORD": SECRET})
    assert unquote(urlsplit(url).password or "") == SECRET
    assert unquote(urlsplit(url).username or "") == "a b:c@"
    assert address({"REDIS_URL": url}) == url


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"REDIS_URL": "redis://a", "REDIS_HOST": "b"}, "REDIS_HOST says something else than REDIS_URL"),
        ({"REDIS_URL": "redis://a:1", "REDIS_PORT": "2"}, "REDIS_PORT says something else"),
        ({"REDIS_URL": "redis://a/1", "REDIS_DB": "2"}, "REDIS_DB says something else"),
        ({"REDIS_URL": "redis://hush:hush@a", "REDIS_USERNAME": "b"}, "REDIS_USERNAME says something else"),
        ({"REDIS_URL": "redis://:hush@a", "REDIS_PASSWORD": "hush2"}, "REDIS_PASSWORD says something else"),
        ({"REDIS_URL": "http://a"}, "must begin with redis://"),
        ({"REDIS_URL": "unix:///hush"}, "must begin with redis://"),
        ({"REDIS_URL": "redis://:hu/sh@host/0"}, "REDIS_PASSWORD, as it is"),
        ({"REDIS_URL": "redis://:hu#sh@host/0"}, "REDIS_PASSWORD, as it is"),
        ({"REDIS_URL": "redis://a:hush"}, "port of REDIS_URL must be a number"),
        ({"REDIS_URL": "rediss://a?ssl_cert_reqs=none"}, "always verified"),
        ({"REDIS_URL": "rediss://a?ssl_check_hostname=false"}, "always verified"),
        ({"REDIS_URL": "redis://a?password=hush"}, "REDIS_URL must not have password"),
        ({"REDIS_PORT": "tcp://10.0.0.1:6379"}, "enableServiceLinks"),
        ({"REDIS_PORT": "0"}, "1 to 65535"),
        ({"REDIS_HOST": "a", "REDIS_DB": "x"}, "must be a number"),
        ({"REDIS_USERNAME": "web"}, "set REDIS_PASSWORD"),
        ({"REDIS_URL": "rediss://a", "REDIS_CA_FILE": "/nowhere"}, "REDIS_CA_FILE"),
    ],
)
def test_what_can_not_hold_says_what_to_do(given: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a setting that is wrong does, before anything is started; and no password is in it."""
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=said) as error:
        Settings.from_env()
    assert "hush" not in str(error.value)


def test_the_certificates_are_verified_by_the_file_that_is_named(ca_file: str) -> None:
    """The one URL says it to redis-py; Celery and Flower are told beside it."""
    url = address({"REDIS_HOST": "redis", "REDIS_PASSWORD": "x", "REDIS_CA_FILE": ca_file})
    assert url.startswith("rediss://:x@redis:6379/0?ssl_ca_certs=")
    verified = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True, "ssl_ca_certs": ca_file}
    assert tls(url) == verified
    assert celery_broker(url) == {"broker_url": "rediss://:x@redis:6379/0", "broker_use_ssl": verified}
    assert address({"REDIS_URL": url}) == address({"REDIS_URL": url, "REDIS_CA_FILE": ca_file}) == url


def test_without_a_file_they_are_verified_by_the_systems() -> None:
    """And nothing is said of TLS where there is none."""
    assert tls("rediss://redis:6379/0") == {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}
    assert celery_broker("redis://redis:6379/0") == {"broker_url": "redis://redis:6379/0", "broker_use_ssl": False}


def test_a_file_that_verifies_nothing_is_refused_before_the_first_connection(ca_file: str, tmp_path: Path) -> None:
    """Whoever gives one for a connection that is not encrypted believes that it is; another has no certificate."""
    with pytest.raises(AddressError, match="must begin with rediss://"):
        address({"REDIS_URL": "redis://redis", "REDIS_CA_FILE": ca_file})
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    with pytest.raises(AddressError, match="certificates in PEM"):
        address({"REDIS_URL": "rediss://redis", "REDIS_CA_FILE": str(empty)})


def test_settings_hold_the_password_in_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the URL, which every client takes."""
    for name, value in {"URL": "redis://redis/1", "USERNAME": "web", "PASSWORD": SECRET}.items():
        monkeypatch.setenv(f"REDIS_{name}", value)
    settings = Settings.from_env()
    assert settings.redis_url == f"redis://web:{QUOTED}@redis:6379/1"
    assert settings.redis_password == ""
    assert settings.routes_url == f"redis://web:{QUOTED}@redis:6379/2"


def test_any_of_the_variables_names_a_redis_that_is_not_ours_to_start() -> None:
    """An empty one says nothing."""
    assert not is_named({"REDIS_URL": "", "PORT": "1"})
    assert is_named({"REDIS_HOST": "redis"})
