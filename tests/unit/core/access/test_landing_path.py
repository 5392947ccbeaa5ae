"""Where somebody lands in a workspace: a path, and nothing that leads anywhere else."""

from __future__ import annotations

from urllib.parse import parse_qs, urljoin, urlsplit

import pytest

from app.core.access.landing_path import LONGEST, is_landing, landing, login_location
from app.process.settings import Settings

PATHS = [
    "/",
    "/?folder=/app",
    "/a%20b/c?x=y&z=%2F%2Fevil",
    "/?x=//evil.example.com",
    "/~ada/!?a=b;c&d",
    "/.//evil",
    "/..//x",
]
NO_PATHS = [
    "",
    "x",
    "?x=y",
    "//evil.example.com",
    "/\\evil.example.com",
    "\\\\evil.example.com",
    "/a\\b",
    "https://evil.example.com/",
    "javascript:alert(1)",
    "/\t/evil.example.com",
    "/a b",
    "/a\r\nSet-Cookie: a=b",
    "/a\n",
    "/a\x00",
    "/a#b",
    "/ä",
    "/" + "x" * LONGEST,
    "/?workspace-link=stolen",
    "/x?a=b&workspace-link=stolen",
    "/?workspace-entered",
]


@pytest.mark.parametrize("text", PATHS)
def test_a_path_stays_on_whichever_host_it_is_put_behind(text: str) -> None:
    """Also where the product resolves it against its own page."""
    assert is_landing(text)
    assert urlsplit(urljoin("https://app.example.com/sign-in", text)).netloc == "app.example.com"


@pytest.mark.parametrize("text", NO_PATHS)
def test_what_a_browser_could_take_for_more_is_no_path(text: str) -> None:
    assert not is_landing(text)


@pytest.mark.parametrize(
    ("path", "query", "expected"),
    [
        ("/x", "a=b&workspace-link=s3cret&c", "/x?a=b&c"),
        ("/x", "workspace-entered", "/x"),
        ("/x", "", "/x"),
        ("//evil.example.com", "a=b", "/"),
        ("/\\evil", "", "/"),
        ("/" + "x" * LONGEST, "", "/"),
        ("/\r\nx", "", "/"),
    ],
)
def test_of_an_address_the_path_is_told_without_what_is_ours(path: str, query: str, expected: str) -> None:
    assert landing(path, query) == expected


@pytest.mark.parametrize("url", ["https://app.example.com/sign-in", "https://app.example.com/sign-in?from=ide"])
def test_the_products_page_is_told_workspace_and_path(url: str) -> None:
    """Whatever it has in its own query stays; what is in the path's does not get out of it."""
    path = "/?folder=/app&workspace=bbbb0002#"[:-1]
    location = login_location(Settings(login_url=url), "aaaa0001", path)
    assert location.startswith(url)
    told = parse_qs(urlsplit(location).query)
    assert (told["workspace"], told["return_to"]) == (["aaaa0001"], [path])
