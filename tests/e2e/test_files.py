"""Files in workspaces of one machine (the suite is tests/suites/files.py), and what is killed under a write."""

from __future__ import annotations

from tests.conversation import Conversation
from tests.service import Service
from tests.suites.files import Files, check_no_half


class TestFilesLocally(Files):
    """The whole service, as scripts/run starts it."""


def test_a_killed_agent_leaves_no_half(service: Service, chat: Conversation) -> None:
    def kill() -> None:
        (agent,) = service.processes("app.agent", WORKSPACE_UUID=chat.uuid)
        agent.kill()
        agent.wait()

    check_no_half(chat, kill)


def test_a_killed_web_process_leaves_no_half(service: Service, chat: Conversation) -> None:
    check_no_half(chat, lambda: service.wait_for_web(service.kill("web")))
