"""Files in workspaces of one machine (the suite is tests/suites/files.py), and what is killed under a write."""

from __future__ import annotations

from tests.conversation import Conversation
from tests.service import Service
from tests.suites.files import Files, check_no_half, check_no_part


class TestFilesLocally(Files):
    """The whole service, as scripts/run starts it."""


def kill_agent(service: Service, chat: Conversation) -> None:
    (agent,) = service.processes("app.agent", WORKSPACE_UUID=chat.uuid)
    agent.kill()
    agent.wait()


def test_a_killed_agent_leaves_no_half(service: Service, chat: Conversation) -> None:
    check_no_half(chat, lambda: kill_agent(service, chat))


def test_a_killed_agent_leaves_no_part_of_an_archive(service: Service, chat: Conversation) -> None:
    check_no_part(chat, lambda: kill_agent(service, chat))


def test_a_killed_web_process_leaves_no_half(service: Service, chat: Conversation) -> None:
    check_no_half(chat, lambda: service.wait_for_web(service.kill("web")))


def test_a_killed_web_process_leaves_no_part_of_an_archive(service: Service, chat: Conversation) -> None:
    check_no_part(chat, lambda: service.wait_for_web(service.kill("web")))
