"""When a workspace falls asleep by itself, with a real editor in Chromium: what keeps it up, and what does not.

One suite for wherever the service runs. A module of tests derives a class from `FallingAsleep`, and has the fixture
`sleepy`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser import PATIENCE, in_terminal, open_editor, sleep_warning, type_untitled
from tests.conversation import Conversation, Host
from tests.suites.execs import Terminal
from tests.suites.files import Follower
from tests.waiting import wait_for
from workspaces import Asleep, Event, ExitEvent, OutputEvent

IDLE = 30
"""s: twice the time that a sign takes to reach the manager at most."""


class Sleepy(Conversation):
    """A session that falls asleep soon, but only once it is left alone, however long its page takes to be there."""

    def __init__(self, host: Host) -> None:
        super().__init__(host, awake=False, idle_timeout=IDLE)
        self._keep_up(3_600)
        self.wait_awake()

    def opened(self, browser: Browser | BrowserContext) -> Page:
        """The page of its editor."""
        return open_editor(browser, self.link())

    def leave_alone(self) -> None:
        self._keep_up(0)

    def activity(self) -> dict[str, Any]:
        """What keeps it up, by the signal's name; and `why` it is up."""
        told = self.call("GET", f"/session/{self.uuid}/activity").json()
        return {each["signal"]: each for each in told["signals"]} | {"why": told["verdict"]["why"]}

    def why(self) -> str:
        return str(self.activity()["why"])

    def holds(self, signal: str) -> bool:
        """Whether this keeps it up."""
        return bool(self.activity()[signal]["holds"])

    def works_on(self, job: str) -> bool:
        """Whether this program was the last seen that used CPU in a terminal."""
        return bool(self.activity()["jobs"]["detail"] == job)

    def risk(self, kind: str) -> list[str]:
        """The names of what a deletion would lose, of this kind."""
        told = self.call("GET", f"/session/{self.uuid}/risk").json()["risk"] or {}
        return list(told.get(kind, {}).get("names", []))

    def never_slept(self) -> bool:
        """Each sleep is an intent of its own."""
        session = self.session()
        return (session["status"], session["generation"]) == ("active", 1)

    def wait(self, condition: Callable[[], object], what: str, seconds: float = 2 * IDLE) -> None:
        wait_for(condition, what, self.why, seconds, self._host.between)

    def falls_asleep(self, within: float) -> None:
        """Within so many s."""
        self.wait(lambda: self._is("sleeping", 0), "the sleep", within)

    def _keep_up(self, seconds: int) -> None:
        self.call("POST", f"/session/{self.uuid}/keepalive", {"seconds": seconds})


def said(events: Sequence[Event]) -> str:
    """What a command wrote."""
    return "".join(each.text for each in events if isinstance(each, OutputEvent))


@pytest.fixture
def sleepy(host: Host) -> Iterator[Sleepy]:
    made = Sleepy(host)
    yield made
    made.delete()


class FallingAsleep:
    """The suite, of the signs that pass from the editor to the manager."""

    def test_an_open_page_in_which_nobody_does_anything_lets_it_sleep(self, sleepy: Sleepy, browser: Browser) -> None:
        """Its sockets stay open all the while. It announces the sleep; "Keep going" counts as use, once."""
        page = sleepy.opened(browser)
        sleepy.leave_alone()
        page.get_by_role("button", name="Keep going").click(timeout=PATIENCE)
        expect(sleep_warning(page)).to_be_hidden()
        expect(sleep_warning(page)).to_be_visible()
        assert sleepy.never_slept()
        sleepy.falls_asleep(2 * IDLE)
        page.close()

    def test_a_job_in_a_terminal_keeps_it_up_until_it_is_done(self, sleepy: Sleepy, browser: Browser) -> None:
        """First it waits, then it works, each for longer than what was typed counts; its page is closed. The sleep of
        the workspace comes after it, and not before."""
        page = sleepy.opened(browser)
        in_terminal(page, "sleep 60; sh -c 'timeout 45 sha256sum /dev/zero; touch done'")
        sleepy.wait(lambda: sleepy.holds("terminal"), "the terminal's input")
        sleepy.leave_alone()
        page.close()
        sleepy.wait(lambda: sleepy.why().startswith("a quiet job was at work"), "the quiet job")
        quiet = sleepy.activity()["quiet_job"]
        assert (quiet["holds"], quiet["by_a_person"]) == (True, False)
        assert quiet["detail"].startswith("sleep, until ")
        assert sleepy.risk("jobs") == ["sleep"]
        sleepy.wait(lambda: sleepy.works_on("sha256sum"), "the work to be seen", 4 * IDLE)
        sleepy.wait(lambda: sleepy.has("done"), "the end of the work", 6 * IDLE)
        assert sleepy.never_slept()
        assert not sleepy.holds("terminal")
        why = sleepy.why()
        assert why.startswith("a terminal's processes used CPU"), why
        sleepy.falls_asleep(5 * IDLE)

    def test_a_command_in_the_background_keeps_it_up_if_it_asks_for_that(
        self, sleepy: Sleepy, browser: Browser
    ) -> None:
        """For at most as long as it asks for; the other one in the background, and the program that waits for input,
        keep nothing up."""
        page = sleepy.opened(browser)
        in_terminal(page, "sleep 900 & (keep 5 -- sleep 75; touch done) & cat")
        sleepy.wait(lambda: sleepy.holds("quiet_job"), "the command to be seen")
        assert sleepy.risk("jobs") == ["bash", "cat", "keep", "sleep"]
        sleepy.leave_alone()
        page.close()
        sleepy.wait(lambda: sleepy.has("done"), "the command's end", 4 * IDLE)
        assert sleepy.never_slept()
        assert sleepy.activity()["quiet_job"]["detail"].startswith("sleep, until ")
        sleepy.wait(lambda: sleepy.risk("jobs") == ["cat", "sleep"], "its end to be seen")
        sleepy.falls_asleep(2 * IDLE)

    def test_a_shell_that_is_left_open_lets_it_sleep(self, sleepy: Sleepy) -> None:
        """Though it is followed all the while: only what is typed and written there counts."""
        shell = Terminal(sleepy, "PS1='ready ' exec bash --norc")
        shell.shows("ready ")
        seen: list[Event] = []

        def watch() -> None:
            for event in shell.calls.follow(sleepy.uuid, shell.id, wake=False):
                seen.append(event)

        with ThreadPoolExecutor(1) as watching:
            end = watching.submit(watch)
            shell.type("for i in $(seq 15); do sleep 3; echo line $i; done\r")
            sleepy.leave_alone()
            # Not by looking at the command: a call is use.
            sleepy.wait(lambda: "line 15\r\n" in said(seen), "the last line", 4 * IDLE)
            assert sleepy.never_slept()
            sleepy.falls_asleep(3 * IDLE)
            # Either is the truth: the end was told before the workspace was gone, or not.
            how, last = end.exception(PATIENCE), seen[-1]
            assert isinstance(how, Asleep) or (isinstance(last, ExitEvent) and last.reason == "sleep")

    def test_who_follows_changes_of_files_lets_it_sleep(self, sleepy: Sleepy) -> None:
        """It is told of the sleep and of the next wake, and causes neither."""
        follower = Follower(sleepy)
        sleepy.leave_alone()
        sleepy.falls_asleep(3 * IDLE)
        follower.hears("asleep")
        assert sleepy.session()["generation"] == 2
        sleepy.wake()
        follower.hears("reset")

    def test_what_a_delete_puts_at_risk_is_in_its_answer(self, sleepy: Sleepy, browser: Browser) -> None:
        """A file that is not saved, one that git does not have, and a job that runs."""
        page = sleepy.opened(browser)
        type_untitled(page, "not saved")
        commit = "git -c user.name=a -c user.email=a@b.c commit -q --allow-empty -m first"
        in_terminal(page, f"git init -q . && touch mine && {commit}; sleep 600")
        sleepy.wait(lambda: sleepy.risk("jobs") == ["sleep"], "the job to be seen")
        sleepy.wait(lambda: sleepy.risk("unsaved"), "the unsaved file to be seen")
        page.close()
        risk = sleepy.call("DELETE", f"/session/{sleepy.uuid}?backup=false", prefer="wait=60").json()["risk"]
        assert risk["complete"]
        assert risk["uncommitted"] == {"count": 1, "names": ["mine"]}
        assert risk["unpushed"]["count"] == 1
        assert risk["unpushed"]["names"][0].endswith(" first")
        assert risk["unsaved"]["count"] == 1
        assert risk["jobs"] == {"count": 1, "names": ["sleep"]}
