"""Files in workspaces of one machine (the suite is tests/suites/files.py), and what is killed under a write."""

from __future__ import annotations

from tests.conversation import Conversation
from tests.service import Service
from tests.suites.files import Files, Follower, check_no_half, check_no_part


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


def test_who_follows_changes_goes_on_whichever_process_is_killed(service: Service, chat: Conversation) -> None:
    ws, follower = chat.workspace(), Follower(chat)
    killed = service.kill("web")
    chat.inside("touch meanwhile")
    service.wait_for_web(killed)
    follower.sees("meanwhile")
    assert "reset" not in follower.unheard(), "it resumed where the connection broke"
    kill_agent(service, chat)
    ws.write("after", "x")
    follower.hears("reset")
    follower.sees("meanwhile", "after")
