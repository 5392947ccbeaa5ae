"""The whole service as a newcomer starts it, with scripts/run, in a folder of the test's own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import redis
import requests

from app.process.settings import Settings
from tests.conftest import ROOT
from tests.ports import free_port
from tests.waiting import PATIENCE, wait_for

START_DEADLINE = 180.0
STOP_DEADLINE = 60.0

KEY = "a-key-of-the-tests"


class Service:
    """A running service. `environ` are settings as an operator gives them."""

    command = [str(ROOT / "scripts" / "run")]
    key = KEY
    patience, between = PATIENCE, 0.05
    """s that a conversation waits, and from one look to the next."""
    passing: tuple[int, ...] = ()
    """No call of a conversation may fail."""

    def __init__(self, folder: Path, code_server: str, **environ: str) -> None:
        self.data_dir = folder / "data"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._environ = {
            "CODE_SERVER": code_server,
            "DATA_DIR": str(self.data_dir),
            "PORT": str(self.port),
            "API_KEY": KEY,
            **{f"RATE_LIMIT_{name}": "100000/minute" for name in ("CREATE", "WAKE", "CHAT", "DELETE", "DEFAULT")},
            **environ,
        }
        self._process: subprocess.Popen[str] | None = None
        self.printed: list[str] = []

    def start(self) -> None:
        """Run scripts/run until it says where the API is."""
        inherited = {name: text for name, text in os.environ.items() if name not in Settings.variables()}
        self._process = subprocess.Popen(
            self.command,
            cwd=ROOT,
            env=inherited | self._environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            self._hear(self._process, time.monotonic() + START_DEADLINE)
        except BaseException:
            # Nobody else would: it is not running as far as the test knows.
            self.stop()
            raise

    @property
    def dashboard_url(self) -> str:
        """The dashboard's origin."""
        return f"http://dashboard.localhost:{self.port}"

    def _hear(self, process: subprocess.Popen[str], deadline: float) -> None:
        assert process.stdout is not None
        self.printed = []
        for line in process.stdout:
            self.printed.append(line)
            if "/session/create" in line:
                return
            assert time.monotonic() < deadline, "".join(self.printed)
        raise AssertionError("scripts/run ended:\n" + "".join(self.printed))

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it as an operator does; answers its exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        try:
            printed, _ = self._process.communicate(timeout=STOP_DEADLINE)
            self.printed.append(printed)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        return self._process.returncode

    def die(self) -> None:
        """SIGKILL scripts/run itself; whatever it started is left behind."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def redis(self, database: int = 0) -> redis.Redis:
        """The Redis of this run; the routes are in database 1."""
        config = (self.data_dir / "redis" / "redis.conf").read_text().split()
        port, password = (config[config.index(name) + 1] for name in ("port", "requirepass"))
        return redis.Redis(port=int(port), password=password, db=database, decode_responses=True)

    def kill(self, name: str) -> list[psutil.Process]:
        """SIGKILL one of its processes, as soon as it is there; it is started again by the service itself. Answers the
        one that was killed with its children, which may live on for a moment."""
        found: list[psutil.Process] = []

        def killed() -> bool:
            try:
                process = psutil.Process(int((self.data_dir / "pids" / f"{name}.pid").read_text()))
                found[:] = [process, *process.children(recursive=True)]
                process.kill()
            except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
                return False
            return True

        wait_for(killed, f"{name} to be there")
        return found

    def wait_for_web(self, killed: Sequence[psutil.Process]) -> None:
        """Wait until its web process answers again, of which these were killed: one that lives on for a moment would
        answer, and end in the next."""

        def there() -> bool:
            with suppress(requests.RequestException):
                return self.call("GET", "/readyz").ok
            return False

        wait_for(lambda: not any(each.is_running() for each in killed), "all of web to end")
        wait_for(there, "web to be there again")

    def processes(self, argument: str = "", **marks: str) -> list[psutil.Process]:
        """Every process that carries this DATA_DIR, and these variables, in its environment, and this argument, unless
        "", in its command line. Any of them may have ended when the list is read."""
        wanted = {"DATA_DIR": str(self.data_dir), **marks}
        found = []
        for process in psutil.process_iter():
            try:
                environ = process.environ()
                lives = process.status() != psutil.STATUS_ZOMBIE
                if lives and wanted.items() <= environ.items() and (not argument or argument in process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def call(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, timeout: float = 90.0
    ) -> requests.Response:
        return requests.request(
            method, self.url + path, json=body, headers={"X-API-Key": KEY} | dict(headers or {}), timeout=timeout
        )

    def done(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """The JSON answer of a call that must succeed, None if there is none."""
        answer = self.call(method, path, body, **more)
        assert answer.ok, answer.text
        return answer.json() if answer.content else None

    def create(self, user_id: str = "ada", **wanted: Any) -> Any:
        """A new session, as the API answers it, once it is active."""
        session = self.done("POST", "/session/create", {"user_id": user_id, **wanted})
        self.wait_status(session["uuid"], "active")
        return session

    def status(self, uuid: str) -> Any:
        return self.done("GET", f"/session/{uuid}")

    def wait_status(self, uuid: str, status: str, replicas: int | None = None) -> Any:
        """Wait until the session is in that state (and has that many replicas); answers it."""

        def reached() -> Any:
            seen = self.status(uuid)
            right = seen["session"]["status"] == status and replicas in (None, seen["replicas"])
            return seen if right else None

        return wait_for(reached, f"session {uuid} to be {status}", lambda: str(self.status(uuid)))

    def states(self, uuid: str) -> list[str]:
        """Those that a session was in, in order, also when nobody looked."""
        entries = [each for _, each in self.redis().xrange(f"session:{uuid}:events")]
        return [str(json.loads(each["data"])["status"]) for each in entries if each["type"] == "state"]

    def save(self, uuid: str) -> str:
        """A restore point of now; its id."""
        made = self.done("POST", f"/session/{uuid}/restore-points", headers={"Prefer": "wait=60"})
        assert made["status"] == "done", made
        return str(self.status(uuid)["session"]["restore_point"]["id"])

    def link(self, uuid: str) -> str:
        """The URL of a link that opens the workspace once."""
        return str(self.done("POST", f"/session/{uuid}/open")["url"])

    def token(self, uuid: str) -> str:
        """A session token."""
        return str(self.done("POST", f"/session/{uuid}/token")["token"])

    def workspace(
        self,
        session: Mapping[str, str],
        path: str = "/",
        *,
        method: str = "GET",
        ingress: str = "127.0.0.1",
        **headers: str,
    ) -> requests.Response:
        """What a program is told at the workspace's address, by Traefik or whichever `ingress` is at that IP; with a
        session token unless it brings other headers."""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        shown = named or {"Authorization": f"Bearer {self.token(session['uuid'])}"}
        host = session["workspace_url"].partition("://")[2]
        url = f"http://{ingress}:{self.workspace_port}{path}"
        return requests.request(method, url, headers={"Host": host} | shown, timeout=60, allow_redirects=False)

    @property
    def workspace_port(self) -> int:
        """Where Traefik serves the workspaces."""
        return int(self.ports["WORKSPACE_PORT"])

    @property
    def prometheus_url(self) -> str:
        """Where Prometheus is, in a run with MONITORING=1."""
        return f"http://127.0.0.1:{self.ports['PROMETHEUS_PORT']}"

    @property
    def forward_auth_url(self) -> str:
        """Where the ingress asks who gets into a workspace."""
        return f"http://127.0.0.1:{self.ports['FORWARD_AUTH_PORT']}"

    @property
    def gateway_url(self) -> str:
        """Where workspaces ask the gateway."""
        return f"http://127.0.0.1:{self.ports['GATEWAY_PORT']}"

    def agent(self, uuid: str, path: str, **headers: str) -> requests.Response:
        """A GET of the workspace's agent, through Traefik."""
        return requests.get(
            f"http://127.0.0.1:{self.workspace_port}/chat/{uuid}{path}",
            headers={"Host": "api.localhost"} | headers,
            timeout=60,
        )

    @property
    def ports(self) -> Any:
        """The ports of this run, by their variables."""
        return json.loads((self.data_dir / "ports.json").read_text()) | {"PORT": self.port}

    def leader(self, name: str) -> psutil.Process:
        """The first of the processes of this name, from which the others come."""
        file = self.data_dir / "pids" / f"{name}.pid"
        wait_for(lambda: file.exists() and file.read_text().endswith("\n"), f"{name} to be there")
        return psutil.Process(int(file.read_text()))

    def prompt(self, uuid: str, message: str, message_id: str, prefer: str = "wait=60") -> Any:
        """Send the agent a prompt; the JSON answer."""
        body = {"message": message, "id": message_id}
        return self.done("POST", f"/session/{uuid}/chat", body, headers={"Prefer": prefer})

    def ended(self, uuid: str, message_id: str) -> Any:
        """The message, once its end is known."""
        path = f"/session/{uuid}/messages/{message_id}"

        def over() -> Any:
            message = self.done("GET", path)
            return message if message["state"] in ("processed", "failed") else None

        return wait_for(over, f"{message_id} to end", lambda: self.call("GET", path).text)

    def conversation(self, uuid: str) -> list[Any]:
        """All of it, page by page."""
        messages: list[Any] = []
        path = f"/session/{uuid}/messages"
        cursor = None
        while True:
            page = self.done("GET", path + (f"?cursor={cursor}" if cursor else ""))
            messages += page["messages"]
            cursor = page["next_cursor"]
            if cursor is None:
                return messages

    def files(self, uuid: str) -> Path:
        return self.data_dir / "workspaces" / uuid / "app"

    def shell(self, uuid: str, command: str) -> str:
        """What a shell prints in the folder that the session's editor opens."""
        program = ["sh", "-c", command]
        return subprocess.run(
            program, cwd=self.files(uuid), check=True, capture_output=True, text=True, timeout=PATIENCE
        ).stdout

    def lose_volume(self, uuid: str) -> None:
        """The folder with all its files is gone, although they are in use."""
        shutil.rmtree(self.data_dir / "workspaces" / uuid, ignore_errors=True)

    def look(self, uuid: str) -> str:
        """The last that the session's agent said."""
        log = self.files(uuid).parent / "agent.log"
        return log.read_text(errors="replace")[-2_000:] if log.exists() else ""
