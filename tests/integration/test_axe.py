"""The helper finds what is wrong, also where a page allows no script: a test that uses it can fail."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from tests.axe import violations
from tests.browser import browser
from tests.looks import LOOKS, looking

__all__ = ["browser"]

pytestmark = pytest.mark.slow

STRICT = "default-src 'none'; style-src 'unsafe-inline'"
PAGE = """<!doctype html><html lang="en"><head><title>A page</title></head>
<body style="background: Canvas; color: CanvasText; color-scheme: light dark"><main><h1>A page</h1>{}</main></body>"""


def seen(browser: Browser, look: str, body: str) -> list[str]:
    with looking(browser, look) as context:
        page = context.new_page()
        page.route(
            "**/*",
            lambda route: route.fulfill(
                body=PAGE.format(body), content_type="text/html", headers={"Content-Security-Policy": STRICT}
            ),
        )
        page.goto("http://a-page.localhost/")
        return violations(page)


@pytest.mark.parametrize("look", LOOKS)
def test_a_page_without_faults_has_none(browser: Browser, look: str) -> None:
    assert seen(browser, look, "<p>Text</p><button>Press</button>") == []


@pytest.mark.parametrize("look", LOOKS)
def test_each_fault_is_named(browser: Browser, look: str) -> None:
    body = "<p style='color: #888; background: #999'>Text</p><button></button><img src=x>"
    assert {each.split(" ")[0] for each in seen(browser, look, body)} == {"color-contrast", "button-name", "image-alt"}
