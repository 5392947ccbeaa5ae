"""Where the dashboard is, and which addresses are refused."""

from __future__ import annotations

import dataclasses

import pytest

from app.process.settings import Settings, SettingsError


@pytest.mark.parametrize(
    ("changes", "location"),
    [
        ({}, "http://dashboard.localhost:8000"),
        ({"workspace_domain": "sessions.example.com"}, ""),
        ({"dashboard_url": "off"}, ""),
        ({"runtime": "kubernetes"}, ""),
        ({"runtime": "kubernetes", "dashboard_url": "https://d.example.com/"}, "https://d.example.com"),
    ],
)
def test_where_it_is(changes: dict[str, str], location: str) -> None:
    assert dataclasses.replace(Settings(), **changes).dashboard_location() == location  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://dashboard.example.com", "https://"),
        ("https://example.com/dashboard", "without a path"),
        ("https://vs-code-abcdefgh.example.com", "name of its own"),
        ("http://api.localhost", "name of its own"),
    ],
)
def test_what_it_may_not_be(url: str, text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        dataclasses.replace(Settings(), dashboard_url=url).checked()
