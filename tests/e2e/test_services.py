"""Services in workspaces of one machine (the suite is tests/suites/services.py), and what is killed under them."""

from __future__ import annotations

import psutil

from tests.conversation import Conversation
from tests.service import Service
from tests.suites.services import Services, Web
from tests.waiting import wait_for


class TestServicesLocally(Services):
    """The whole service, as scripts/run starts it."""


def test_a_killed_agent_leaves_none_and_the_next_one_starts_it(service: Service, chat: Conversation) -> None:
    web = Web(chat)
    web.start()
    (agent,) = service.processes("app.agent", WORKSPACE_UUID=chat.uuid)
    agent.kill()
    agent.wait()
    assert web.look().state == "running" and web.answers()
    first, second = web.pids()
    assert first != second and not psutil.pid_exists(first)


def test_a_killed_web_process_ends_none(service: Service, chat: Conversation) -> None:
    web = Web(chat)
    web.start()
    service.wait_for_web(service.kill("web"))
    assert web.look().starts == 1 and web.answers()


def test_a_delete_leaves_none(chat: Conversation) -> None:
    web = Web(chat)
    web.start()
    (pid,) = web.pids()
    chat.delete()
    wait_for(lambda: not psutil.pid_exists(pid), "its process to end")
