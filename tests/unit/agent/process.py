"""The agent as a process, with a real port, a folder of its own, and a stub of everything it calls."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.unit.agent.fake_gateway import AGENT_SECRET, TOKEN, FakeGateway

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 60.0
UUID = f"{os.getpid():08x}"
"""Another one in each process of tests: an agent that starts ends what an agent of its session has left running."""


class AgentProcess:
    """`python -m app.agent`; `start` returns when it has called home, so it listens."""

    def __init__(self, gateway: FakeGateway, folder: Path, **environment: str) -> None:
        self.gateway = gateway
        self.folder = folder / "app"
        self.folder.mkdir(exist_ok=True)
        self.log = folder / "agent.log"
        token = folder / "token"
        token.write_text(f"{TOKEN}\n{AGENT_SECRET}\n")
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "LANG": "C.UTF-8",
            "HOME": str(folder / "home"),
            "WORKSPACE_UUID": UUID,
            "WORKSPACE_DIR": str(self.folder),
            "AGENT_TOKEN_FILE": str(token),
            "GATEWAY_URL": gateway.url,
            "AGENT_PORT": "0",
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._address = ""

    def start(self) -> AgentProcess:
        known = len(self.gateway.hellos)
        self.begin()
        self.gateway.wait(lambda: len(self.gateway.hellos) > known)
        self._address = urlsplit(self.gateway.hellos[-1]["address"]).netloc
        return self

    def begin(self) -> None:
        """Start it, and wait for nothing."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "app.agent"], cwd="/", env=self.environment, stderr=log, stdout=log
            )

    def give(self, token: str) -> None:
        """Write its token file anew, as a runtime does: all of it appears at once."""
        path = Path(self.environment["AGENT_TOKEN_FILE"])
        draft = path.with_name("token.new")
        draft.write_text(f"{token}\n{AGENT_SECRET}\n")
        draft.replace(path)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def terminate(self) -> int:
        """SIGTERM, as a sleep would; the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(PATIENCE)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._address, timeout=PATIENCE)

    def call(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """A call with the secret; status and the JSON of the answer."""
        connection = self.connect()
        try:
            text = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, text, {"Authorization": f"Bearer {AGENT_SECRET}", **(headers or {})})
            response = connection.getresponse()
            data = response.read()
            return response.status, json.loads(data) if data else None
        finally:
            connection.close()

    def chat(self, id_: str, message: str) -> tuple[int, Any]:
        """A prompt, and the answer waited for."""
        return self.call("POST", "/chat", {"id": id_, "message": message})

    def prompt(self, id_: str, message: str) -> tuple[int, Any]:
        """A prompt as the manager delivers it: 202 once it is accepted."""
        return self.call("POST", "/chat", {"id": id_, "message": message}, {"Prefer": "respond-async"})

    def history(self) -> list[dict[str, Any]]:
        return self.call("GET", "/history")[1]["messages"]
