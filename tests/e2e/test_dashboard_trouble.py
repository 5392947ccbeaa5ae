"""The dashboard in trouble, in Chromium: what is refused, not answered, or lost on the way is said, and costs nothing
that a person has typed."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qs

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, Route, expect

from tests.dashboard_browser import go, signed_in
from tests.model_server import ModelServer
from tests.service import Service

BAD_GATEWAY = "<h1>502 Bad Gateway</h1>"

EACH_TIME_HIDDEN = """() => {
  window.timesHidden = 0;
  const line = document.getElementById("lost");
  new MutationObserver(() => { timesHidden += line.hidden; }).observe(line, { attributeFilter: ["hidden"] });
}"""
"""Counts how often the line that tells of a lost connection goes."""


@pytest.fixture(scope="module")
def service_settings(model: ModelServer) -> Mapping[str, str]:
    return model.settings


@pytest.fixture
def page(context: BrowserContext, service: Service) -> Page:
    """The list, as an admin sees it, whatever the browser complains about."""
    return signed_in(context, service)


@pytest.fixture
def uuid(service: Service) -> str:
    made: str = service.create()["uuid"]
    service.wait_status(made, "active")
    return made


def in_chat(page: Page, service: Service, uuid: str) -> Locator:
    """The field for a prompt."""
    go(page, service, uuid, "chat")
    return page.get_by_label("Prompt")


def notices(page: Page) -> Locator:
    return page.locator("#notices .notice")


def lost(page: Page) -> Locator:
    return page.locator("#lost")


def test_a_refused_prompt_stays_in_its_field(page: Page, service: Service, uuid: str) -> None:
    field = in_chat(page, service, uuid)
    too_long = "x" * 200_000
    field.fill(too_long)
    page.get_by_role("button", name="Send").click()
    expect(notices(page)).to_have_count(1)
    expect(field).to_have_value(too_long)
    expect(page.locator(".turn")).to_have_count(0)
    field.fill("remember 42")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".turn .said")).to_have_text("42 noted")
    expect(field).to_have_value("")


def test_an_answer_of_the_ingress_is_no_part_of_the_page(page: Page, service: Service, uuid: str) -> None:
    field = in_chat(page, service, uuid)
    page.route("**/chat", lambda route: route.fulfill(status=502, content_type="text/html", body=BAD_GATEWAY))
    field.fill("remember 42")
    page.get_by_role("button", name="Send").click()
    expect(notices(page)).to_contain_text("did not answer")
    expect(lost(page)).to_be_visible()
    expect(page.get_by_text("Bad Gateway")).to_have_count(0)
    expect(field).to_have_value("remember 42")
    page.unroute("**/chat")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".turn .said")).to_have_text("42 noted")
    expect(lost(page)).not_to_be_visible()


def test_a_prompt_whose_answer_was_lost_is_sent_once(page: Page, service: Service, uuid: str) -> None:
    """It came through: it shows as any other, and the field is free for the next."""
    field = in_chat(page, service, uuid)

    def lose(route: Route) -> None:
        asked = parse_qs(route.request.post_data or "")
        service.prompt(uuid, asked["message"][0], asked["id"][0], prefer="respond-async")
        route.fulfill(status=502, content_type="text/html", body=BAD_GATEWAY)

    page.route("**/chat", lose)
    field.fill("remember 42")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".turn .said")).to_have_text("42 noted")
    expect(field).to_have_value("")
    page.unroute("**/chat")
    page.reload()
    expect(page.locator(".turn .said")).to_have_text("42 noted")


def test_what_is_typed_while_a_prompt_is_sent_stays(page: Page, service: Service, uuid: str) -> None:
    field = in_chat(page, service, uuid)
    held: list[Route] = []
    page.route("**/chat", lambda route: held.append(route))
    with page.expect_request("**/chat"):
        field.fill("remember 42")
        page.get_by_role("button", name="Send").click()
    field.fill("and then")
    held[0].continue_()
    expect(page.locator(".turn .said")).to_have_text("42 noted")
    expect(field).to_have_value("and then")


def test_what_is_refused_again_and_again_is_said_once(page: Page) -> None:
    page.wait_for_function("window.htmx")
    for _ in range(3):
        with page.expect_response("**/sessions/delete?uuid=none") as refused:
            page.evaluate("htmx.ajax('GET', '/sessions/delete?uuid=none', '#dialog')")
        assert refused.value.status == 400
    expect(notices(page)).to_have_count(1)
    expect(notices(page)).to_contain_text("Choose between one and")


def test_a_lost_stream_is_said_until_it_is_open_again(page: Page, service: Service, uuid: str) -> None:
    """However well the page's other requests are answered."""
    page.route("**/stream?*", lambda route: route.abort())
    go(page, service, uuid)
    expect(lost(page)).to_be_visible()
    page.evaluate(EACH_TIME_HIDDEN)
    page.locator("#tab-cost").click()
    expect(page.locator("table")).to_contain_text("Compute")
    assert page.evaluate("timesHidden") == 0
    page.unroute("**/stream?*")
    expect(lost(page)).not_to_be_visible()
    service.done("POST", f"/session/{uuid}/sleep")
    expect(page.locator(".session-state")).to_contain_text("Nothing runs")


def test_nothing_is_deleted_without_a_backup_by_two_clicks(page: Page, service: Service, uuid: str) -> None:
    go(page, service, uuid)
    page.locator("#do-delete").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("#confirm")).not_to_be_visible()
    dialog.get_by_label("Delete without a backup").check()
    expect(dialog.locator("#confirm")).to_be_visible()
    dialog.get_by_role("button", name=f"Delete {uuid}").click()
    expect(dialog.get_by_role("alert")).to_have_text(f"Type {uuid} to delete without a backup.")
    assert service.status(uuid)["session"]["status"] == "active"
    dialog.get_by_label("Delete without a backup").check()
    dialog.locator("#confirm").fill(uuid)
    dialog.get_by_role("button", name=f"Delete {uuid}").click()
    expect(page.get_by_text("One session is being deleted.")).to_be_visible()
    expect(page.locator(".session-state")).to_contain_text("It was deleted")
