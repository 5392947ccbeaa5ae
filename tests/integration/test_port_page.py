"""The page of a port on which nothing listens yet (app/editor/not_listening.js), in a browser."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser, expect

from tests.browser import browser, navigated
from tests.ports import free_port
from tests.unit.editor.test_ports import SECRET, UUID, editor, process_of

__all__ = ["browser"]


def test_the_page_goes_on_to_the_program_by_itself(browser: Browser, tmp_path: Path) -> None:
    """And leads back to nothing when it did."""
    port = free_port()
    named = {"X-Workspace-Secret": f"{SECRET} port={port}"}
    with editor(tmp_path) as served, browser.new_context(extra_http_headers=named) as context:
        page = context.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        assert navigated(page, f"http://{port}--vs-code-{UUID}.localhost:{served}/a?b") == 503
        expect(page.get_by_role("heading", name=f"Port {port} does not answer")).to_be_visible()
        with page.expect_response(lambda answer: answer.status == 503 and answer.request.method == "GET"):
            pass
        with process_of(UUID, "127.0.0.1", port=port):
            expect(page.get_by_text("hi", exact=True)).to_be_visible()
        assert page.url.endswith("/a?b") and faults == []
