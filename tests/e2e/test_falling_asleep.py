"""When a workspace falls asleep by itself, with a real editor in a real browser, and timeouts of half a minute."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect

from tests.browser import PATIENCE, in_terminal, open_editor, sleep_warning, type_untitled
from tests.service import Service
from tests.waiting import wait_for

IDLE = 30
"""s: twice the time that a sign takes to reach the manager at most."""


def an_impatient_session(service: Service, idle_timeout: int = IDLE) -> dict[str, Any]:
    """One that is kept up until it is left alone, however long its page takes to be there."""
    wanted = {"user_id": "ada", "idle_timeout": idle_timeout}
    session: dict[str, Any] = service.done("POST", "/session/create", wanted)
    keep_up(service, session["uuid"], 3_600)
    service.wait_status(session["uuid"], "active")
    return session


def keep_up(service: Service, uuid: str, seconds: int) -> None:
    service.done("POST", f"/session/{uuid}/keepalive", {"seconds": seconds})


def leave_alone(service: Service, uuid: str) -> None:
    keep_up(service, uuid, 0)


def activity(service: Service, uuid: str) -> dict[str, Any]:
    """What keeps it up, by the signal's name; and the verdict."""
    told = service.done("GET", f"/session/{uuid}/activity")
    return {each["signal"]: each for each in told["signals"]} | {
        "verdict": told["verdict"],
        "why": told["verdict"]["why"],
    }


def show(page: Page, name: str) -> None:
    """Open a file."""
    page.locator(".explorer-folders-view").get_by_text(name, exact=True).dblclick()
    expect(page.locator(".monaco-editor .view-line").first).to_be_visible()


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
    leave_alone(service, uuid)
    page.get_by_role("button", name="Keep going").click(timeout=PATIENCE)
    expect(sleep_warning(page)).to_be_hidden()
    expect(sleep_warning(page)).to_be_visible()
    assert never_slept(service, uuid)
    service.wait_status(uuid, "sleeping", replicas=0)
    page.close()
    service.done("DELETE", f"/session/{uuid}?backup=false")


def test_a_page_in_the_background_lets_it_sleep(service: Service, browser: Browser) -> None:
    """Though a file that is open in it changes all the time: that is not its user's doing."""
    session = an_impatient_session(service)
    uuid = session["uuid"]
    file = service.files(uuid) / "a.txt"
    file.write_text("one\n")
    context = browser.new_context()
    page = open_editor(context, service.link(uuid))
    show(page, "a.txt")
    # A browser under test takes every page for the one in front otherwise.
    context.new_cdp_session(page).send("Emulation.setFocusEmulationEnabled", {"enabled": False})
    context.new_page().bring_to_front()
    assert not page.evaluate("document.hasFocus()")
    changes = itertools.count()

    def change() -> None:
        file.write_text(f"{next(changes)}\n")

    def shows_changes() -> bool:
        change()
        return page.locator(".monaco-editor .view-line").first.inner_text() != "one"

    # The editor begins to watch the folder some time after it shows a file; it misses what changes before.
    wait_for(shows_changes, "a change in the page")
    leave_alone(service, uuid)

    def asleep_though_changed() -> bool:
        change()
        return bool(service.status(uuid)["session"]["status"] != "active")

    wait_for(asleep_though_changed, "the sleep", seconds=6 * IDLE)
    service.wait_status(uuid, "sleeping", replicas=0)
    context.close()
    service.done("DELETE", f"/session/{uuid}?backup=false")


def test_typing_keeps_it_up(service: Service, browser: Browser) -> None:
    """For longer than its timeout."""
    session = an_impatient_session(service)
    uuid = session["uuid"]
    (service.files(uuid) / "a.txt").write_text("one\n")
    page = open_editor(browser, service.link(session["uuid"]))
    show(page, "a.txt")
    page.keyboard.type("x")
    wait_for(lambda: activity(service, uuid)["editor"]["holds"], "the editor's use to be told")
    leave_alone(service, uuid)
    began = time.monotonic()
    while time.monotonic() - began < 1.5 * IDLE:
        page.keyboard.type("x", delay=1_000)
        assert never_slept(service, uuid)
    told = activity(service, uuid)
    assert told["why"].startswith("the editor was used"), told["why"]
    page.close()
    service.done("DELETE", f"/session/{uuid}?backup=false")


def test_a_job_in_a_terminal_keeps_it_up_until_it_is_done(service: Service, browser: Browser) -> None:
    """First it waits, then it works, each for longer than what was typed counts; its page is closed. The workspace's
    sleep comes after it, and not before."""
    session = an_impatient_session(service)
    uuid = session["uuid"]
    (service.files(uuid) / "Makefile").write_text("all:\n\t-timeout 45 sha256sum /dev/zero\n\ttouch done\n")
    page = open_editor(browser, service.link(session["uuid"]))
    in_terminal(page, "sleep 60; make")
    wait_for(lambda: activity(service, uuid)["terminal"]["holds"], "the terminal's input")
    leave_alone(service, uuid)
    page.close()
    wait_for(lambda: activity(service, uuid)["why"].startswith("a quiet job was at work"), "the quiet job", seconds=60)
    quiet = activity(service, uuid)["quiet_job"]
    assert (quiet["holds"], quiet["by_a_person"]) == (True, False)
    assert quiet["detail"].startswith("sleep, until ")
    wait_for(lambda: activity(service, uuid)["jobs"]["detail"] == "sha256sum", "the build to be seen", seconds=120)
    wait_for((service.files(uuid) / "done").exists, "the end of the build", seconds=180)
    assert never_slept(service, uuid)
    told = activity(service, uuid)
    assert not told["terminal"]["holds"]
    assert told["why"].startswith("a terminal's processes used CPU"), told["why"]
    wait_for(lambda: service.status(uuid)["session"]["status"] == "sleeping", "the sleep", seconds=150)
    service.wait_status(uuid, "sleeping", replicas=0)
    service.done("DELETE", f"/session/{uuid}?backup=false")


def test_a_command_in_the_background_keeps_it_up_if_it_asks_for_that(service: Service, browser: Browser) -> None:
    """For at most as long as it asks for; the other one in the background, and the prompt, keep nothing up."""
    session = an_impatient_session(service)
    uuid = session["uuid"]
    page = open_editor(browser, service.link(session["uuid"]))
    in_terminal(page, "sleep 900 & (keep 5 -- sleep 75; touch done) &")
    wait_for(lambda: activity(service, uuid)["quiet_job"]["holds"], "the command to be seen")
    leave_alone(service, uuid)
    page.close()
    wait_for((service.files(uuid) / "done").exists, "the command's end", seconds=120)
    assert never_slept(service, uuid)
    assert activity(service, uuid)["quiet_job"]["detail"].startswith("sleep, until ")
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
