"""The settings are shown to operators, and no secret with them."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from app.core.operations.settings_in_force import in_force, without_credentials
from app.process.settings import Settings

SECRETIVE = re.compile(r"key|secret|password|token|credential|passphrase", re.IGNORECASE)

HARMLESS = {"ingress_tls_secret": "the name of a Secret of the cluster"}
"""Texts whose name only sounds like a secret."""


def test_each_text_that_sounds_like_a_secret_is_one() -> None:
    """A new one is flagged, or stands above with the reason why it need not be."""
    texts = [spec for spec in dataclasses.fields(Settings) if str(spec.type) == "str"]
    sounding = {spec.name for spec in texts if SECRETIVE.search(spec.name)}
    secret = {spec.name for spec in dataclasses.fields(Settings) if spec.metadata["secret"]}
    assert sounding - HARMLESS.keys() == secret
    assert HARMLESS.keys() <= sounding


def test_each_text_that_sounds_like_a_url_is_shown_without_credentials() -> None:
    urls = {spec.name for spec in dataclasses.fields(Settings) if spec.name.endswith("_url")}
    assert urls <= {spec.name for spec in dataclasses.fields(Settings) if spec.metadata["unit"] == "URL"}


def test_no_secret_is_in_what_is_shown() -> None:
    """Each text set to one of its own, and looked for in all that is shown."""
    texts = {spec.name for spec in dataclasses.fields(Settings) if str(spec.type) == "str"}
    secrets: dict[str, Any] = {
        name: f"hidden-{name}" for name in texts if SECRETIVE.search(name) and name not in HARMLESS
    }
    urls: dict[str, Any] = {
        name: f"redis://user:hidden-{name}@host:1/0?key=hidden-{name}" for name in texts if name.endswith("_url")
    }
    found = in_force(dataclasses.replace(Settings(), **secrets, **urls))
    assert "hidden" not in str(found)
    by_name = {each.name: each for each in found}
    assert all(by_name[name.upper()].value == "set" and by_name[name.upper()].changed for name in secrets)
    assert by_name["LLM_BASE_URL"].value == "redis://***@host:1/0?key=***"


def test_a_setting_is_shown_with_its_unit_and_reason() -> None:
    settings = dataclasses.replace(Settings(), web_workers=7, data_dir=Path("/srv/data"))
    found = {each.name: each for each in in_force(settings)}
    workers = found["WEB_WORKERS"]
    assert (workers.value, workers.default, workers.changed, workers.unit) == (7, 2, True, "processes")
    assert (found["DATA_DIR"].value, found["DATA_DIR"].default) == ("/srv/data", ".data")
    assert found["LLM_API_KEY"].value == "not set"
    changed = {name for name, each in found.items() if each.changed}
    assert changed == {"WEB_WORKERS", "DATA_DIR"}
    assert list(found) == Settings.variables()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", ""),
        ("file:///srv/backups", "file:///srv/backups"),
        ("s3://bucket/path", "s3://bucket/path"),
        ("https://ada:pw@host:443/v1", "https://***@host:443/v1"),
        ("redis://:a@b@host/0", "redis://***@host/0"),
        ("gs://bucket?token=abc&b=c#frag", "gs://bucket?token=***&b=***"),
        ("http://[half", "***"),
    ],
)
def test_a_url_is_shown_without_what_may_let_somebody_in(url: str, told: str) -> None:
    assert without_credentials(url) == told
