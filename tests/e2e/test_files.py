"""Files in workspaces of one machine (the suite is tests/suites/files.py), and what is killed under a write."""

from __future__ import annotations

from contextlib import suppress

import requests

from tests.conversation import Conversation
from tests.service import Service
from tests.suites.files import Files, check_no_half
from tests.waiting import wait_for


class TestFilesLocally(Files):
    """The whole service, as scripts/run starts it."""


def test_a_killed_agent_leaves_no_half(service: Service, chat: Conversation) -> None:
    def kill() -> None:
        (agent,) = service.processes("app.agent", WORKSPACE_UUID=chat.uuid)
        agent.kill()
        agent.wait()

    check_no_half(chat, kill)


def test_a_killed_web_process_leaves_no_half(service: Service, chat: Conversation) -> None:
    def there() -> bool:
        with suppress(requests.RequestException):
            return service.call("GET", "/readyz").ok
        return False

    def kill() -> None:
        family = service.kill("web")
        # Else a child that lives on answers, and ends in the next moment.
        wait_for(lambda: not any(each.is_running() for each in family), "all of web to end")
        wait_for(there, "web to be there again")

    check_no_half(chat, kill)
