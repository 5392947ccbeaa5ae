"""The product of docs/example in Chromium, wherever the service runs: from signing up to the preview of a dev server.

A module of tests derives a class, and has the fixtures `product`, its address, and `model`, the one that the service
was told of.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from playwright.sync_api import Browser, FrameLocator, Page, expect

from tests import vite
from tests.browser import AS_PEOPLE_HAVE_IT, expect_file, launched
from tests.example import HOST
from tests.looks import expect_readable, picture
from tests.model_server import Answer, ModelServer, Rule, ToolCall, when
from tests.ports import free_port

UPLOADED = "shop.tar.gz"

RED, GREEN = "rgb(200, 0, 0)", "rgb(0, 120, 0)"


def rules(port: int) -> list[Rule]:
    """What the model does about the user's three prompts; the dev server gets this port."""

    def does(asked: str, name: str, given: dict[str, Any], said: str) -> Rule:
        return when(asked, Answer(tool_calls=(ToolCall(name, given),)), Answer(text=said))

    unpack, paint = f"tar xzf {UPLOADED} && rm {UPLOADED}", f"sed -i 's/{RED}/{GREEN}/' shop.css"
    return [
        does("Unpack", "run_command", {"command": unpack}, "It is unpacked."),
        does("Start", "start_service", {"name": "web", "command": vite.DEV_SERVER, "port": port}, "{result}"),
        does("Make the title green", "run_command", {"command": paint}, "The title is green now."),
    ]


def sign_up(browser: Browser, product: str, name: str) -> Page:
    """Their page of the product, in a browser of their own."""
    page = browser.new_context(viewport={"width": 1600, "height": 800}).new_page()
    page.goto(product)
    page.get_by_label("Your name").fill(name)
    page.get_by_role("button", name="Sign up").click()
    expect(page.get_by_role("button", name="New workspace")).to_be_visible()
    return page


def signed_up(product: str, name: str) -> requests.Session:
    """The same, as a program does it."""
    made = requests.Session()
    made.post(f"{product}/sign-up", data={"name": name}, timeout=60)
    return made


def prompt(page: Page, text: str, answer: str) -> None:
    page.get_by_label("Prompt").fill(text)
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("log")).to_contain_text(answer)


def framed_editor(page: Page) -> FrameLocator:
    return page.frame_locator("[title='VS Code']")


def preview_of(page: Page) -> FrameLocator:
    return page.frame_locator("[title=Preview]")


def expect_colour(page: Page, colour: str) -> None:
    expect(preview_of(page).get_by_role("heading", name="Shop")).to_have_css("color", colour)


class Example:
    """The suite."""

    def test_a_user_signs_up_and_works(self, product: str, model: ModelServer, tmp_path: Path) -> None:
        """They upload a project; the agent unpacks it and starts its dev server, which is shown beside the editor at an
        origin of its own; the agent's edit is shown without a reload; the tests run; a file is downloaded. After a
        sleep the page brings it all back."""
        port = free_port()
        model.rules[:0] = rules(port)
        with launched(AS_PEOPLE_HAVE_IT) as browser:
            page = sign_up(browser, product, "Ada")
            page.get_by_role("button", name="New workspace").click()
            expect_readable(page)
            project = {"name": UPLOADED, "mimeType": "application/gzip", "buffer": vite.project()}
            page.get_by_label("Files", exact=True).set_input_files(project)  # type: ignore[arg-type]
            page.get_by_role("button", name="Upload").click()
            expect(page.get_by_role("link", name=UPLOADED)).to_be_visible()
            prompt(page, f"Unpack {UPLOADED}", "It is unpacked.")
            page.reload()
            expect(page.get_by_role("log")).to_contain_text("It is unpacked.")
            expect(page.get_by_role("link", name="next.test.js")).to_be_visible()
            editor = framed_editor(page)
            expect_file(editor, "next.test.js")
            prompt(page, "Start the dev server", f"web: running, port {port}")

            expect_colour(page, RED)
            frame = page.frame(name="preview")
            assert frame is not None
            address, workspace = (urlsplit(each.url).hostname for each in (frame, page.frames[1]))
            assert address == f"{port}--{workspace}"
            button = preview_of(page).get_by_role("button")
            button.click()
            expect(button).to_have_text("1")
            prompt(page, "Make the title green", "The title is green now.")
            expect_colour(page, GREEN)
            expect(button).to_have_text("1")
            editor.get_by_text("shop.css", exact=True).first.click()
            expect(editor.locator(".view-lines")).to_contain_text("120")
            picture(page, "example")

            page.get_by_label("Command").fill("node --test")
            page.get_by_role("button", name="Run tests").click()
            expect(page.get_by_role("log")).to_contain_text("[exit code 0]")
            expect(page.get_by_role("log")).to_contain_text("one more")
            with page.expect_download() as download:
                page.get_by_role("link", name="shop.css").click()
            download.value.save_as(tmp_path / "shop.css")
            assert (tmp_path / "shop.css").read_text() == vite.FILES["shop.css"].replace(RED, GREEN)

            page.get_by_role("button", name="Sleep").click()
            expect(page.get_by_text("sleeping")).to_be_visible()
            page.get_by_role("listitem").get_by_role("link").first.click()
            expect_file(editor, "next.test.js")
            expect(page.get_by_role("log")).to_contain_text("The title is green now.")
            expect_colour(page, GREEN)
            page.get_by_role("button", name="Delete").click()
            expect(page.get_by_text("You have no workspace")).to_be_visible()

    def test_what_is_refused_is_said(self, product: str) -> None:
        """To another user, to pages of others, which may be of the same site, and to the user whose call the service
        refuses."""
        here = product.replace(HOST, "127.0.0.1")
        ada, bob = signed_up(here, "Ada"), signed_up(here, "Bob")
        made = ada.post(f"{here}/workspaces", allow_redirects=False, timeout=60)
        workspace = here + made.headers["Location"]
        tried = {
            *(("GET", part) for part in ("", "/look", "/files/a")),
            *(("POST", part) for part in ("/chat", "/run", "/preview", "/files", "/sleep", "/delete")),
        }
        form = {"message": "hi", "command": "id", "port": "3000"}
        for method, part in tried:
            files = {"file": b"x"} if part == "/files" else None
            told = bob.request(method, workspace + part, data=form, files=files, timeout=60)
            assert told.status_code == 404, (method, part)
        for site in ("same-site", "cross-site"):
            foreign = ada.post(f"{workspace}/delete", headers={"Sec-Fetch-Site": site}, timeout=60)
            assert foreign.status_code == 403
        for part, given in (("/chat", {"message": ""}), ("/run", {"command": ""})):
            assert "did not work" in ada.post(workspace + part, data=given, timeout=60).text
        assert ada.get(f"{workspace}/files/none", timeout=60).status_code == 404
        assert ada.get(f"{workspace}/look", timeout=60).ok
        ada.post(f"{workspace}/delete", timeout=90)
        assert ada.get(workspace, timeout=60).status_code == 404
