"""A workspace with a real agent, for what the API asks of agents."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Thread

from werkzeug.serving import BaseWSGIServer, make_server

from app.agent.server import create_app as agent_app
from app.agent.service import Agent
from app.agent.settings import AgentSettings
from app.core.composition import Core
from app.core.sessions.model import Status
from tests.unit.api.helpers import move


class Workspace:
    """A workspace's folder, and a real agent that serves it in this process."""

    def __init__(self, core: Core, uuid: str, folder: Path) -> None:
        self.core, self.uuid = core, uuid
        self.app, self.home, token = folder / "app", folder / "home", folder / "token"
        self.app.mkdir()
        self.home.mkdir()
        token.write_text(core.credentials.token_file(uuid, core.store.get(uuid).epoch))
        state = folder / ".session"
        self._settings = AgentSettings(uuid=uuid, folder=self.app, state_folder=state, token_file=token, home=self.home)
        self.address = ""
        self._server: BaseWSGIServer | None = None
        self._agent: Agent | None = None

    def start(self) -> None:
        """An agent that calls."""
        self._agent = Agent(self._settings, {"PATH": "/usr/bin:/bin", "HOME": str(self.home)})
        self._agent.start()
        self._server = make_server("127.0.0.1", 0, agent_app(self._agent), threaded=True)
        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self.core.inbox.agent_here(self.uuid, self.address, "pod", f"boot {self.address}", time.time())

    def stop(self) -> None:
        """End the agent, as SIGTERM does."""
        if self._agent is not None and self._server is not None:
            self._agent.stop()
            self._server.shutdown()
            self._server.server_close()
            self._agent = None

    def sleep(self) -> None:
        """What a worker does."""
        assert self._agent is not None
        self._agent.expect_stop("sleep")
        self.core.inbox.agent_leaves(self.uuid)
        move(self.core, self.uuid, Status.SLEEPING)
        self.stop()
        self.core.inbox.agent_gone(self.uuid)

    def wake(self) -> None:
        """What a worker does."""
        if self.core.store.get(self.uuid).status is Status.SLEEPING:
            move(self.core, self.uuid, Status.WAKING)
        self.start()
        move(self.core, self.uuid, Status.ACTIVE)
