"""Services of a workspace, wherever the service runs. A module of tests derives a class and has the fixture `chat`, a
session there."""

from __future__ import annotations

from typing import Any

from tests.conversation import Conversation
from tests.ports import free_port
from tests.waiting import wait_for
from workspaces.models import Service

SERVER = """
import http.server, os
print("serving", os.getpid(), flush=True)
http.server.test(http.server.SimpleHTTPRequestHandler, port=int(os.environ["PORT"]), bind="127.0.0.1")
"""

ASK = """python3 -c 'import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1]).status)' http://127.0.0.1:{port}/server.py"""


class Web:
    """A service `web` that answers on its port."""

    def __init__(self, chat: Conversation, **more: Any) -> None:
        self.chat, self.uuid, self.services = chat, chat.uuid, chat.client().services
        self.port = free_port()
        self._more = more
        chat.workspace().write("server.py", SERVER)

    def start(self) -> Service:
        wanted = {"port": self.port, "wait": 60, **self._more}
        return self.services.start(self.uuid, "web", "exec python3 server.py", **wanted)

    def look(self) -> Service:
        return self.services.get(self.uuid, "web", wait=60)

    def answers(self) -> bool:
        return self.chat.workspace().run(ASK.format(port=self.port)).stdout == "200\n"

    def pids(self) -> list[int]:
        """Of its runs so far, by its log."""
        lines = self.services.log(self.uuid, "web").splitlines()
        return [int(line.removeprefix("serving ")) for line in lines if line.startswith("serving ")]


class Services:
    """What becomes of a service while its session lives as sessions do."""

    def test_it_runs_once_it_listens_and_the_status_shows_it(self, chat: Conversation) -> None:
        web = Web(chat)
        assert web.start().state == "running" and web.answers()
        shown = [{"name": "web", "port": web.port, "state": "running"}]
        wait_for(lambda: chat.session()["services"] == shown, "the status", lambda: str(chat.session()["services"]))
        assert web.start().starts == 1 and len(web.pids()) == 1, "it is left running"

    def test_a_sleep_ends_it_and_a_wake_starts_the_one_that_is_to(self, chat: Conversation) -> None:
        web = Web(chat, autostart=True)
        web.start()
        web.services.start(chat.uuid, "other", "exec sleep 1000")
        wait_for(lambda: len(chat.session()["services"]) == 2, "the status")
        chat.sleep()
        assert [each["state"] for each in chat.session()["services"]] == ["stopped", "stopped"]
        other = web.services.get(chat.uuid, "other")
        assert (other.state, other.reason) == ("stopped", "sleep")
        assert web.look().state == "running" and web.answers()
        assert len(web.pids()) == 2, "its log is kept, and it was started once"

    def test_what_fails_says_why_and_is_forgotten_on_request(self, chat: Conversation) -> None:
        services = chat.client().services
        services.start(chat.uuid, "web", "echo no module >&2; exit 3", restart="never")
        wait_for(lambda: services.get(chat.uuid, "web").state == "failed", "it to fail")
        assert services.get(chat.uuid, "web").exit_code == 3
        assert "\nno module\n" in services.log(chat.uuid, "web")
        services.stop(chat.uuid, "web")
        assert not services.list(chat.uuid).services
