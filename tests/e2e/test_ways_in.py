"""Ways into a workspace that a product has besides a link, on one machine (the suite is tests/ways_in.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from playwright.sync_api import BrowserContext

from tests.browser import navigated
from tests.product import Product, product
from tests.service import Service
from tests.ways_in import DOMAIN, KEPT, Ways, WaysIn, browser, context, settings_with, signs_in

__all__ = ["browser", "context", "signs_in"]


@pytest.fixture(scope="module")
def app() -> Iterator[Product]:
    with product() as served:
        yield served


@pytest.fixture(scope="module")
def service_settings(app: Product) -> Mapping[str, str]:
    return settings_with(app)


@pytest.fixture(scope="module")
def ways(service: Service, app: Product) -> Ways:
    made = service.create("ada")
    folder = service.files(made["uuid"])
    (folder / KEPT).write_text("kept")
    return Ways(service.done, app, made, str(folder))


class TestWaysInLocally(WaysIn):
    """The whole service, as scripts/run starts it."""


def test_the_product_decides_about_a_workspace_that_is_not_there(
    service: Service, context: BrowserContext, signs_in: Product
) -> None:
    signs_in.opener = lambda *_: signs_in.origin("127.0.0.1") + "/not-yours"
    page = context.new_page()
    assert navigated(page, f"http://vs-code-zzzzzzzz.{DOMAIN}:{service.workspace_port}/x") == 404
    assert page.url == f"{signs_in.origin('127.0.0.1')}/not-yours"
    assert signs_in.asked == [("zzzzzzzz", "/x")]
