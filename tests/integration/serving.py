"""The web process as it runs in production, gunicorn included, for tests that need the real thing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType

from tests.conftest import ROOT
from tests.ports import free_port, listens
from tests.waiting import PATIENCE, wait_for

KEY = "the-key-of-integration-tests"
SECRET_KEY = "integration-secret-key-of-32-characters"


class OwnRedis:
    """A Redis that a test may stop, freeze and start again on the same port, with all it had: it writes an AOF, though
    no answer waits for the disk."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> OwnRedis:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and return when it answers."""
        program = shutil.which("redis-server")
        assert program is not None, "redis-server is needed on PATH"
        options = {
            "--port": str(self.port),
            "--bind": "127.0.0.1",
            "--dir": str(self._folder),
            "--appendonly": "yes",
            "--appendfsync": "no",
            "--save": "",
        }
        arguments = [part for pair in options.items() for part in pair]
        self._process = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL)
        wait_for(lambda: listens(self.port), "redis listens")

    def kill(self) -> None:
        """End it at once, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def freeze(self, frozen: bool) -> None:
        """Let it hang: connections open, nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP if frozen else signal.SIGCONT)


def running_web(folder: Path, redis_url: str, **settings: str) -> AbstractContextManager[str]:
    """The URL of a gunicorn that serves the API; rate limits never bind unless `settings` say so."""
    unlimited = {f"RATE_LIMIT_{name}": "1000000/minute" for name in ("CREATE", "WAKE", "CHAT", "DELETE", "DEFAULT")}
    given = {"API_KEY": KEY, "LOG_LEVEL": "WARNING", **unlimited, **settings}
    return _serving("web", "app/gunicorn.conf.py", "app.main:create_app()", "PORT", folder, redis_url, given)


def running_forward_auth(folder: Path, redis_url: str, **settings: str) -> AbstractContextManager[str]:
    """The URL of what the ingress asks."""
    config, app, port = "app/forward_auth.conf.py", "app.main:create_forward_auth()", "FORWARD_AUTH_PORT"
    given = {"API_KEY": KEY, "LOG_LEVEL": "WARNING", **settings}
    return _serving("forward-auth", config, app, port, folder, redis_url, given)


def running_gateway(folder: Path, redis_url: str, **settings: str) -> AbstractContextManager[str]:
    """The URL of a gunicorn that serves the gateway; what it logs is in `gateway.log` of the folder."""
    config, app, port = "app/gateway/gunicorn.conf.py", "app.gateway.main:create_app()", "GATEWAY_PORT"
    given = {"LOG_LEVEL": "DEBUG", "SECRET_KEY": SECRET_KEY, **settings}
    return _serving("gateway", config, app, port, folder, redis_url, given)


@contextmanager
def _serving(
    name: str, config: str, app: str, port_setting: str, folder: Path, redis_url: str, given: dict[str, str]
) -> Iterator[str]:
    """The URL of a gunicorn while the block lasts; its log has its name."""
    port = free_port()
    own = {"DATA_DIR": str(folder / "data"), "REDIS_URL": redis_url, port_setting: str(port)}
    command = [sys.executable, "-m", "gunicorn", "--config", config, app]
    with started(command, own | given, folder / f"{name}.log"):
        wait_for(lambda: listens(port), f"{name} listens")
        yield f"http://127.0.0.1:{port}"


@contextmanager
def started(command: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    """A process of this checkout's while the block lasts."""
    with log.open("ab") as output:
        environ = os.environ | {"PYTHONPATH": str(ROOT)} | environment
        process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=output, stderr=output)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
