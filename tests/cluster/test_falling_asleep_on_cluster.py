"""What keeps a workspace of a real cluster up: its signs pass from one container to the other, and to the manager."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Browser, Page, expect

from tests.browser import PATIENCE, in_terminal, open_editor, sleep_warning
from tests.cluster.product import Api
from tests.waiting import wait_for

IDLE = 30
"""s: twice the time that a sign takes to reach the manager at most."""


def test_a_job_in_a_terminal_keeps_it_up_and_an_open_page_does_not(browser: Browser) -> None:
    """Its sleep is announced in the editor."""
    api = Api()
    uuid, page = kept_up_while_it_begins(api, browser, f"timeout {2 * IDLE} sha256sum /dev/zero")

    def job() -> str:
        return str(signal(api, uuid, "jobs")["detail"])

    wait_for(lambda: job() == "sha256sum", "the job to be seen", job, 2 * IDLE)
    assert signal(api, uuid, "terminal")["holds"]
    keep_up(api, uuid, 0)
    expect(sleep_warning(page)).to_be_visible(timeout=3 * PATIENCE)
    assert api.status(uuid) == "active"
    wait_for(lambda: api.status(uuid) == "sleeping", "the sleep", seconds=2 * IDLE)
    page.close()
    api.call("DELETE", f"/session/{uuid}?backup=false")


def test_a_quiet_job_keeps_it_up_and_a_program_that_waits_for_input_does_not(browser: Browser) -> None:
    """The editor's container shows what a program waits for, and has `keep`."""
    api = Api()
    line = f"sleep {2 * IDLE}; (keep 5 -- sleep {2 * IDLE}; touch done) & cat"
    uuid, page = kept_up_while_it_begins(api, browser, line)

    def quiet() -> dict[str, Any]:
        return signal(api, uuid, "quiet_job")

    def jobs() -> list[str]:
        risk = api.call("GET", f"/session/{uuid}/risk")["risk"] or {}
        return list(risk.get("jobs", {}).get("names", []))

    wait_for(lambda: quiet()["holds"], "the quiet job", lambda: str(quiet()))
    assert jobs() == ["sleep"]
    keep_up(api, uuid, 0)
    page.close()
    wait_for(lambda: "keep" in jobs(), "the command of keep", lambda: str(jobs()), seconds=3 * IDLE)
    wait_for(lambda: jobs() == ["cat"], "the end of that command", lambda: str(jobs()), seconds=3 * IDLE)
    assert quiet()["detail"].startswith("sleep, until ")
    wait_for(lambda: api.status(uuid) == "sleeping", "the sleep", seconds=2 * IDLE)
    api.call("DELETE", f"/session/{uuid}?backup=false")


def kept_up_while_it_begins(api: Api, browser: Browser, line: str) -> tuple[str, Page]:
    """A new session with this line in a terminal of its editor, and that page. How long an editor takes to open is the
    machine's matter: the clock of idleness begins with `keep_up` for 0 s."""
    uuid = api.call("POST", "/session/create", {"user_id": "ada", "idle_timeout": IDLE})["uuid"]
    keep_up(api, uuid, 600)
    page = open_editor(browser, api.link(uuid))
    in_terminal(page, line)
    return uuid, page


def signal(api: Api, uuid: str, name: str) -> dict[str, Any]:
    told = api.call("GET", f"/session/{uuid}/activity")["signals"]
    [found] = [each for each in told if each["signal"] == name]
    return dict(found)


def keep_up(api: Api, uuid: str, seconds: int) -> None:
    api.call("POST", f"/session/{uuid}/keepalive", {"seconds": seconds})
