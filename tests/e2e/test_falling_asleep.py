"""When a workspace falls asleep by itself, with a real editor in a real browser, and timeouts of half a minute."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser import PATIENCE, in_terminal, open_editor, type_untitled
from tests.service import Service, wait_for

IDLE = 30
"""s: twice the time that a sign takes to reach the manager at most."""


def an_impatient_session(service: Service) -> dict[str, Any]:
    session: dict[str, Any] = service.done("POST", "/session/create", {"user_id": "ada", "idle_timeout": IDLE})
    service.wait_status(session["uuid"], "active")
    return session


def activity(service: Service, uuid: str) -> dict[str, Any]:
    """What keeps it up, by the signal's name; and the verdict."""
    told = service.done("GET", f"/session/{uuid}/activity")
    return {each["signal"]: each for each in told["signals"]} | {
        "verdict": told["verdict"],
        "why": told["verdict"]["why"],
    }


def warning(page: Page) -> Locator:
    """The announcement in the editor."""
    return page.locator(".notification-toast").get_by_text("goes to sleep in")


def told_in(file: Path, word: str) -> bool:
    """Whether the editor has left this sign."""
    return file.exists() and word in file.read_text()


def never_slept(service: Service, uuid: str) -> bool:
    """Each sleep is an intent of its own."""
    session: dict[str, Any] = service.status(uuid)["session"]
    return session["status"] == "active" and session["generation"] == 1


def test_an_open_page_in_which_nobody_does_anything_lets_it_sleep(service: Service, browser: Browser) -> None:
    """Its sockets stay open all the while. It announces the sleep; "Keep going" counts as use, once."""
    session = an_impatient_session(service)
    uuid = session["uuid"]
    page = open_editor(browser, service.link(session["uuid"]))
    page.get_by_role("button", name="Keep going").click(timeout=PATIENCE)
    expect(warning(page)).to_be_hidden(timeout=PATIENCE)
    expect(warning(page)).to_be_visible(timeout=PATIENCE)
    assert never_slept(service, uuid)
    service.wait_status(uuid, "sleeping", replicas=0)
    page.close()
    service.done("DELETE", f"/session/{uuid}?backup=false")


def test_typing_keeps_it_up(service: Service, browser: Browser) -> None:
    """For longer than its timeout."""
    session = an_impatient_session(service)
    uuid = session["uuid"]
    (service.files(uuid) / "a.txt").write_text("one\n")
    page = open_editor(browser, service.link(session["uuid"]))
    page.locator(".explorer-folders-view").get_by_text("a.txt", exact=True).dblclick()
    expect(page.locator(".monaco-editor .view-line").first).to_be_visible(timeout=PATIENCE)
    began = time.monotonic()
    while time.monotonic() - began < 1.5 * IDLE:
        page.keyboard.type("x", delay=1_000)
        assert never_slept(service, uuid)
    told = activity(service, uuid)
    assert told["why"].startswith("the editor was used"), told["why"]
    page.close()
    service.done("DELETE", f"/session/{uuid}?backup=false")


def test_a_job_in_a_terminal_keeps_it_up_until_it_is_done(service: Service, browser: Browser) -> None:
    """First it waits, then it works; its page is closed. The sleep comes after it, and not before."""
    session = an_impatient_session(service)
    uuid = session["uuid"]
    page = open_editor(browser, service.link(session["uuid"]))
    in_terminal(page, f"sleep {IDLE // 2}; timeout {1.5 * IDLE:.0f} sha256sum /dev/zero; touch done")
    wait_for(lambda: activity(service, uuid)["terminal"]["holds"], "the terminal's input")
    page.close()
    wait_for(lambda: activity(service, uuid)["jobs"]["detail"] == "sha256sum", "the job to be seen")
    wait_for((service.files(uuid) / "done").exists, "the end of the job", seconds=6 * IDLE)
    assert never_slept(service, uuid)
    service.wait_status(uuid, "sleeping", replicas=0)
    service.done("DELETE", f"/session/{uuid}?backup=false")


def test_what_a_delete_puts_at_risk_is_in_its_answer(service: Service, browser: Browser) -> None:
    """A file that is not saved, one that git does not have, and a job that runs."""

    def git(*arguments: str) -> str:
        return " ".join(["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments])

    session = service.create("ada")
    uuid = session["uuid"]
    page = open_editor(browser, service.link(session["uuid"]))
    type_untitled(page, "not saved")
    in_terminal(
        page, f"git init -q . && touch mine && {git('commit', '-q', '--allow-empty', '-m', 'first')}; sleep 600"
    )
    signs = service.files(uuid).parent / "home" / ".local" / "state" / "workspace"
    wait_for(lambda: told_in(signs / "terminals.json", "sleep"), "the job to be seen")
    wait_for(lambda: told_in(signs / "unsaved.json", "Untitled-"), "the unsaved file to be seen")
    page.close()
    risk = service.done("DELETE", f"/session/{uuid}?backup=false")["risk"]
    assert risk["complete"]
    assert risk["uncommitted"] == {"count": 1, "names": ["mine"]}
    assert risk["unpushed"]["count"] == 1
    assert risk["unpushed"]["names"][0].endswith(" first")
    assert risk["unsaved"]["count"] == 1
    assert risk["jobs"] == {"count": 1, "names": ["sleep"]}
