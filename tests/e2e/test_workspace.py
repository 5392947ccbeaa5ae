"""A workspace's whole life, as its user sees it: in Chromium, in VS Code's own terminal."""

from __future__ import annotations

import stat

from playwright.sync_api import Browser, expect

from tests.browser import expect_file, in_terminal, open_editor
from tests.service import Service
from tests.waiting import wait_for


def test_a_workspace_lives_sleeps_wakes_dies_and_is_restored(service: Service, browser: Browser) -> None:
    """create → editor → a file from its terminal → sleep → wake → backup → delete → restore; nothing is lost."""
    session = service.create("auth0|a:b")
    uuid, files = session["uuid"], service.files(session["uuid"])

    page = open_editor(browser, service.link(uuid))
    in_terminal(
        page, "mkdir -p src && echo hello > src/proof.txt && chmod 750 src/proof.txt && ln -s src/proof.txt link"
    )
    wait_for(lambda: (files / "link").is_symlink(), "the terminal's files")
    page.close()

    service.done("POST", f"/session/{uuid}/scale-down")
    assert service.processes(WORKSPACE_UUID=uuid) == []
    assert service.workspace(session).status_code == 503
    assert service.status(uuid)["replicas"] == 0

    service.done("POST", f"/session/{uuid}/scale-up")
    assert (files / "src/proof.txt").read_text() == "hello\n"
    assert service.workspace(session).status_code in (200, 302)
    page = open_editor(browser, service.link(uuid))
    expect_file(page, "link")
    page.close()

    made = service.done("POST", f"/session/{uuid}/backup", headers={"Prefer": "wait=60"})
    assert made["status"] == "done"
    assert [each["name"] for each in service.done("GET", f"/session/{uuid}/backups")["backups"]] == [made["backup"]]
    gone = service.done("DELETE", f"/session/{uuid}")
    assert gone["status"] == "terminated"
    assert not files.parent.exists()
    assert service.processes(WORKSPACE_UUID=uuid) == []

    restored = service.done("POST", f"/backups/{gone['backup']}/restore")
    service.wait_status(restored["uuid"], "active")
    again = service.files(restored["uuid"])
    assert (again / "src/proof.txt").read_text() == "hello\n"
    assert stat.S_IMODE((again / "src/proof.txt").stat().st_mode) == 0o750
    assert (again / "link").readlink().as_posix() == "src/proof.txt"
    page = open_editor(browser, service.link(restored["uuid"]))
    page.close()
    service.done("DELETE", f"/session/{restored['uuid']}?backup=false")


def test_the_docs_page_works_without_any_other_host(service: Service, browser: Browser) -> None:
    """Every asset comes from the app; the page shows the operations, and breaks no content policy."""
    page = browser.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto(f"{service.url}/docs")
    expect(page.get_by_text("/session/create").first).to_be_visible()
    assert all(url.startswith((service.url, "data:", "blob:")) for url in asked), asked
    assert complaints == []
    page.close()
