"""The product's sign-in and its frame behind nginx, in Chromium: the same ways in as behind Traefik."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from app.core.access.landing_path import ENTERED
from tests.browser import AS_PEOPLE_HAVE_IT, EDITOR, expect_editor, expect_hint, launched, navigated
from tests.nginx import ADDRESS, API_HOST, component_setting, in_front, nginx_program
from tests.product import Product, product
from tests.service import Service

__all__ = ["nginx_program"]

NAMED, STRANGER = "product.localhost", "evil.localhost"


@pytest.fixture(scope="module")
def app() -> Iterator[Product]:
    with product() as served:
        yield served


@pytest.fixture(scope="module")
def service_settings(app: Product) -> Mapping[str, str]:
    return {
        "WORKSPACE_DOMAIN": "ws.localhost",
        "LOGIN_URL": app.login_url,
        "EMBED_ORIGINS": app.origin(NAMED),
        "INGRESS_FORWARD_AUTH": component_setting("INGRESS_FORWARD_AUTH"),
    }


@pytest.fixture(scope="module")
def session(service: Service, nginx_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One, behind nginx."""
    made = service.create("ada")
    with in_front(service, nginx_program, tmp_path_factory.mktemp("nginx"), [made["uuid"]]):
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One that finds nginx where others find Traefik."""
    with launched(f"--host-resolver-rules=MAP *.ws.localhost {ADDRESS}", AS_PEOPLE_HAVE_IT) as chromium:
        yield chromium


def test_a_bookmark_comes_back_through_the_products_sign_in(
    service: Service, browser: Browser, session: Any, app: Product
) -> None:
    app.opener = lambda uuid, path: service.done("POST", f"/session/{uuid}/open", {"path": path})["url"]
    bookmark = f"{session['workspace_url']}/?folder={service.files(session['uuid'])}"
    page = browser.new_context().new_page()
    page.goto(bookmark)
    expect_editor(page)
    assert page.url == bookmark
    assert [uuid for uuid, _ in app.asked] == [session["uuid"]]
    page.context.close()


def test_who_comes_back_without_a_cookie_gets_a_page(browser: Browser, session: Any, app: Product) -> None:
    """That of the API's host: nginx shows none of its own with words in it."""
    page = browser.new_context().new_page()
    assert navigated(page, f"{session['workspace_url']}/?{ENTERED}") == 401
    assert page.url.startswith(f"http://{API_HOST}:")
    expect(page.get_by_role("heading", name="did not keep")).to_be_visible()
    page.context.close()


def test_a_frame_of_a_named_page_shows_the_editor_and_others_the_reason(
    service: Service, browser: Browser, session: Any, app: Product
) -> None:
    page = browser.new_context().new_page()
    link = service.link(session["uuid"])
    page.goto(app.page_with(STRANGER, link))
    expect_hint(page.frame_locator("iframe"), "EMBED_ORIGINS")
    page.goto(app.page_with(NAMED, link))
    expect(page.frame_locator("iframe").first.locator(EDITOR)).to_be_visible()
    page.context.close()
