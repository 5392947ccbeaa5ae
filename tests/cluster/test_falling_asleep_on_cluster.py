"""What keeps a workspace of a real cluster up: its signs pass from one container to the other, and to the manager."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Browser, expect

from tests.browser import PATIENCE, in_terminal, open_editor, sleep_warning
from tests.cluster.product import Api
from tests.waiting import wait_for

IDLE = 30
"""s: twice the time that a sign takes to reach the manager at most."""


def test_a_job_in_a_terminal_keeps_it_up_and_an_open_page_does_not(browser: Browser) -> None:
    """Its sleep is announced in the editor."""
    api = Api()
    uuid = api.call("POST", "/session/create", {"user_id": "ada", "idle_timeout": IDLE})["uuid"]
    # How long an editor takes to open is the machine's matter: the clock of idleness begins once the job is seen.
    keep_up(api, uuid, 600)
    page = open_editor(browser, api.link(uuid))
    in_terminal(page, f"timeout {2 * IDLE} sha256sum /dev/zero")

    def signals() -> dict[str, Any]:
        return {each["signal"]: each for each in api.call("GET", f"/session/{uuid}/activity")["signals"]}

    wait_for(lambda: signals()["jobs"]["detail"] == "sha256sum", "the job to be seen", lambda: str(signals()), 2 * IDLE)
    assert signals()["terminal"]["holds"]
    keep_up(api, uuid, 0)
    expect(sleep_warning(page)).to_be_visible(timeout=3 * PATIENCE)
    assert api.status(uuid) == "active"
    wait_for(lambda: api.status(uuid) == "sleeping", "the sleep", seconds=2 * IDLE)
    page.close()
    api.call("DELETE", f"/session/{uuid}?backup=false")


def keep_up(api: Api, uuid: str, seconds: int) -> None:
    api.call("POST", f"/session/{uuid}/keepalive", {"seconds": seconds})
