"""The dashboard of the whole product, in Chromium: its main flow, what operators see of every process, and that nobody
else's page shows it.

One suite for wherever the service runs. A module of tests derives a class from `TheDashboard`, and has a fixture of
its own, `secrets`: values that no page may show.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import requests
from playwright.sync_api import BrowserContext, Page, expect

from scripts.lib.processes import MANAGER
from tests.browser import expect_editor
from tests.conversation import Conversation, Host
from tests.dashboard_browser import go, signed_in
from tests.looks import LOOKS, expect_readable, picture
from tests.model_server import ModelServer
from tests.ports import free_port
from tests.product import product
from tests.waiting import wait_for

FILES = {
    "README.md": b"# Say hello\n",
    "package.json": b'{"name": "hello", "scripts": {"dev": "vite"}}\n',
    "say hello.py": b"import sys\n\nprint('hello from', sys.argv[0])\n",
}


def by_name(host: Host, url: str, method: str, path: str, **more: object) -> requests.Response:
    """What somebody with the key is told at the API's address, by the name of this URL."""
    headers = {"Host": urlsplit(url).netloc, "X-API-Key": host.key}
    return requests.request(
        method, host.url + path, headers=headers, json=more or None, timeout=60, allow_redirects=False
    )


def check(page: Page, where: str) -> None:
    """It can be read and used, and the way to every page is within the window."""
    expect_readable(page, where)
    width = page.evaluate("innerWidth")
    for each in page.locator("nav.nav").locator("a, button").all():
        box = each.bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= width, (where, each.inner_text())


def ask(page: Page, prompt: str, answer: str) -> None:
    """Send a prompt, until the agent has answered it with this."""
    page.get_by_label("Prompt").fill(prompt)
    page.get_by_role("button", name="Send").click()
    turn = page.locator(".turn").filter(has_text=prompt)
    expect(turn).to_have_attribute("data-state", "processed")
    expect(turn.locator(".work")).to_contain_text(answer)


def run(page: Page, command: str) -> None:
    """Run a command in the workspace."""
    form = page.locator("#run-composer")
    form.get_by_label("Command").fill(command)
    form.get_by_role("button", name="Run").click()


def framed(page: Page) -> str:
    """The protocol of what the page's frame shows."""
    return str(page.frames[1].evaluate("location.protocol"))


class TheDashboard:
    """The suite."""

    @pytest.mark.parametrize("look", LOOKS)
    def test_a_workspace_from_its_creation_to_its_deletion(self, page: Page, model: ModelServer, look: str) -> None:
        """Create, open, ask the agent, back up, save, sleep, wake by a prompt, delete; readable in each look, and no
        script of a page makes a mistake."""
        user = f"{look}-{uuid4().hex[:8]}"
        state = page.locator(".session-state")
        check(page, "list")
        page.get_by_role("button", name="New session").click()
        page.locator("#user_id").fill(user)
        check(page, "create")
        page.locator("#dialog").get_by_role("button", name="Create").click()
        expect(page.locator("#dialog")).not_to_be_visible()
        row = page.locator("tr[data-uuid]").filter(has_text=user)
        expect(row.locator(".status")).to_have_text("active")
        # What tells of a new session lies over the first row until that is shown.
        expect(page.locator("#new-count a")).to_have_count(0)
        check(page, "list with the session")
        uuid = row.get_attribute("data-uuid")
        row.locator("a.session").click()
        expect(state).to_contain_text("active")
        check(page, "session")
        with page.context.expect_page() as opened:
            page.locator("#do-open").click()
        expect_editor(opened.value)
        opened.value.close()

        page.locator("#tab-chat").click()
        ask(page, "run: echo hello | tee kept.txt", "hello")
        check(page, "chat")
        page.locator("#do-backup").click()
        expect(page.locator(".backup-state")).to_contain_text("Backed up and verified")
        expect(page.locator("#backup-list tbody tr")).to_have_count(1)
        check(page, "backups")
        page.locator("#tab-restore-points").click()
        page.get_by_role("button", name="Make one now").click()
        expect(page.locator("#restore-point-list tbody tr").first).to_be_visible()
        check(page, "restore points")

        page.locator("#do-sleep").click()
        expect(state).to_contain_text("Nothing runs")
        page.locator("#tab-chat").click()
        ask(page, "run: cat kept.txt", "hello")
        expect(state).to_contain_text("active")

        page.locator("#do-delete").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Delete without a backup").check()
        dialog.locator("#confirm").fill(str(uuid))
        check(page, "delete")
        dialog.get_by_role("button", name=f"Delete {uuid}").click()
        expect(state).to_contain_text("It was deleted")
        page.get_by_role("navigation", name="Main").get_by_role("link", name="Settings").click()
        expect(page.get_by_role("heading", name="Settings")).to_be_visible()

    def test_a_person_works_in_a_workspace(self, host: Host, page: Page) -> None:
        """Upload a file and read it, run it, start a service, and see its page at its own origin; asleep, a look at the
        same tabs wakes nothing, and a command does."""
        uuid, port = Conversation(host).uuid, free_port()
        state = page.locator(".session-state")
        go(page, host, uuid, "files")
        files: Any = [{"name": name, "mimeType": "text/plain", "buffer": text} for name, text in FILES.items()]
        page.locator("#upload").set_input_files(files)
        script = page.get_by_role("link", name="say hello.py", exact=True)
        expect(script).to_be_visible()
        picture(page, "dashboard-files")
        script.click()
        expect(page.locator(".file-text")).to_contain_text("hello from")
        check(page, "file")

        page.locator("#tab-run").click()
        run(page, "python3 'say hello.py'")
        expect(page.locator(".exec").first).to_contain_text("exit code 0")
        expect(page.locator(".exec pre").first).to_contain_text("hello from")
        picture(page, "dashboard-run")
        check(page, "run")

        page.locator("#tab-services").click()
        page.locator("#do-start").click()
        page.get_by_label("Name").fill("web")
        page.get_by_label("Command").fill("exec python3 -m http.server $PORT --bind 127.0.0.1")
        page.get_by_label("Port — ").fill(str(port))
        page.locator("#dialog").get_by_role("button", name="Start").click()
        expect(page.locator("#service-web .status")).to_have_text("running")
        picture(page, "dashboard-services")
        check(page, "services")
        with page.context.expect_page() as opened:
            page.locator("#service-web").get_by_role("button", name=f"Open port {port}").click()
        expect(opened.value.get_by_role("link", name="say hello.py")).to_be_visible()
        assert urlsplit(opened.value.url).netloc.startswith(f"{port}--vs-code-{uuid}.")
        opened.value.close()

        page.locator("#do-sleep").click()
        expect(state).to_contain_text("Nothing runs")
        for tab in ("files", "run", "services"):
            page.locator(f"#tab-{tab}").click()
            expect(page.locator(".empty").first).to_contain_text("The session sleeps")
        expect(page.locator("#service-web .status")).to_have_text("stopped")
        expect(state).to_contain_text("Nothing runs")
        page.locator("#tab-run").click()
        run(page, "ls")
        expect(page.locator(".exec pre").first).to_contain_text("say hello.py")
        expect(state).to_contain_text("active")

    def test_operators_see_every_process_and_a_diagnosis(self, host: Host, page: Page) -> None:
        page.goto(f"{host.dashboard_url}/operations")
        expect(page.locator("#diagnosis tr").first).to_be_visible()
        table = page.locator("section", has_text="Processes").last
        for kind in MANAGER:
            expect(table.locator("tr", has=page.get_by_role("cell", name=kind, exact=True)).first).to_be_visible()
        page.goto(f"{host.dashboard_url}/overview")
        expect(page.get_by_text("All processes are alive.")).to_be_visible()

    def test_the_charts_show_the_time_that_is_chosen(self, host: Host, page: Page) -> None:
        page.goto(f"{host.dashboard_url}/overview")
        ranges = page.get_by_role("navigation", name="Time")
        expect(ranges.locator("[aria-current]")).to_have_text("24 hours")
        for label, hours in (("1 hour", 1), ("7 days", 168), ("30 days", 720)):
            ranges.get_by_role("link", name=label).click()
            page.wait_for_url(f"**/overview?hours={hours}")
            expect(ranges.locator("[aria-current]")).to_have_text(label)
            # What the page asks for again is of the same time.
            expect(page.locator("#figures")).to_have_attribute("hx-get", f"/overview/figures?hours={hours}")
            expect(page.locator("#figures")).to_contain_text("Awake")

    def test_the_settings_show_no_secret(self, host: Host, secrets: Sequence[str], page: Page) -> None:
        page.goto(f"{host.dashboard_url}/settings")
        assert all(secrets)
        assert not [each for each in secrets if each in page.content()]
        page.get_by_label("Search the settings").fill("redis_url")
        page.get_by_role("button", name="Show").click()
        settings = page.locator(".settings-list tbody tr")
        expect(settings.filter(has=page.locator("code", has_text="REDIS_URL")).first).to_be_visible()
        assert not [each for each in secrets if each in page.content()]

    def test_the_dashboards_name_serves_no_api_and_the_apis_no_dashboard(self, host: Host) -> None:
        answer = by_name(host, host.dashboard_url, "GET", "/openapi.json")
        assert (answer.status_code, answer.headers["Location"]) == (302, "/sign-in?next=%2Fopenapi.json")
        assert by_name(host, host.dashboard_url, "POST", "/session/create", user_id="a").status_code == 403
        assert by_name(host, host.url, "GET", "/sign-in").status_code == 404

    def test_no_page_of_another_origin_frames_it(self, host: Host, context: BrowserContext) -> None:
        page = signed_in(context, host)
        refusals: list[str] = []
        page.on("console", lambda message: refusals.append(message.text))
        with product() as beside:
            for name in ("product.localhost", "127.0.0.1"):
                refusals.clear()
                page.goto(beside.page_with(name, f"{host.dashboard_url}/"))
                wait_for(lambda: framed(page) == "chrome-error:", "the browser's own page in the frame")
                assert any("frame-ancestors" in each for each in refusals), refusals
        for path in ("/", "/operations", "/nothing-here"):
            answer = page.goto(host.dashboard_url + path)
            assert answer is not None
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"], path
            assert answer.headers["x-frame-options"] == "DENY", path
