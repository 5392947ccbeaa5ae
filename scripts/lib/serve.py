"""Runs the whole service on one machine; started by scripts/run.

Starts in order: ports and keys, Redis, the processes of the Procfile. On SIGINT, SIGTERM or SIGHUP it stops them in
reverse order, workspaces before Redis. Parts that die are restarted; processes left by a killed run are ended first.
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

from app.core.composition import check_keys
from app.core.storage.archive_keys import new_key
from app.core.storage.object_stores import is_remote
from app.process import redis_address
from app.process.settings import Settings, SettingsError
from scripts.lib import leftovers, monitoring, procfile, redis_server
from scripts.lib.data_dir import StartError, only_run, remembered_secret
from scripts.lib.ports import Ports
from scripts.lib.redis_server import RedisServer
from scripts.lib.run_log import RunLog
from scripts.lib.supervisor import Supervisor
from workers.runtime.local.processes import KILL_LIMIT
from workers.runtime.local.routes import web_url

PROCFILE = Path(__file__).resolve().parents[2] / "Procfile"

READY_DEADLINE = 60.0
"""Seconds until /readyz must answer; it takes about 3 on two cores."""

READY_TICK = 0.1
"""Seconds between two questions."""

LEFTOVERS_GRACE = 7.0
"""Seconds for the processes that a killed run left; the supervisor kills its own after less."""

WORKSPACES_SLACK = 5.0
"""Seconds for all workspaces beyond the longest time of one; eight are ended at a time."""

RESTARTS = 5
"""Attempts to restart Redis after which the run ends with an error."""

TICK = 1.0
"""Seconds between two looks at what no signal tells of."""

IN_MEMORY = Path("/dev/shm")
"""For the metrics, 7 MB a program: every request writes to them, and on a disk that takes a fifth of web's time."""


class Stop:
    """Whether this run was asked to end."""

    def __init__(self) -> None:
        self.requested = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # A run under nohup outlives its terminal.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self.request)

    def request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True


def environment(data_dir: Path, settings: Settings, ports: Ports) -> dict[str, str]:
    """The environment of every process, except REDIS_URL; raises `StartError` for invalid settings."""
    names = ["WORKSPACE_PORT", "FLOWER_PORT", "GATEWAY_PORT", "FORWARD_AUTH_PORT"]
    if measured := os.environ.get("MONITORING") == "1":
        names += [procfile.metrics_port_of(name) for name in procfile.MEASURED]
    chosen = {"PORT": str(ports.given("PORT", str(settings.port), settings.bind))}
    chosen |= {name: str(ports.given_or_remembered(name, os.environ.get(name, "0"))) for name in names}
    if measured:
        chosen |= monitoring.environment(data_dir, os.environ, ports)
        warn(monitoring.missing())
    key = settings.api_key or remembered_secret(data_dir / "api-key")
    if not key.isascii() or not key.isprintable() or set(key) & set(" ,"):
        raise StartError("API_KEY must be printable ASCII without spaces and commas.")
    secret_key = settings.secret_key or remembered_secret(data_dir / "secret-key")
    archive_key = settings.archive_key or remembered_secret(data_dir / "archive-key", new_key)
    return {
        "WEB_WORKERS": "1",
        **os.environ,
        **chosen,
        "DATA_DIR": str(data_dir),
        "API_KEY": key,
        "SECRET_KEY": secret_key,
        "ARCHIVE_KEY": archive_key,
        "FLOWER_ADDRESS": "127.0.0.1",
        "FLOWER_BASIC_AUTH": f"admin:{key}",
    }


def check_archive_keys(settings: Settings) -> None:
    """Refuse to start without the archive keys of what the stores hold. Raises `SettingsError`. Remote stores are asked
    by each process itself."""
    if not is_remote(settings.history_location()) and not is_remote(settings.backups_location()):
        check_keys(settings)


def make_metrics_folder(data_dir: Path) -> None:
    """Link `metrics` in the data folder, where the processes count, to a new folder in memory, if there is a place. By
    the link the next run finds what a killed one left."""
    drop_metrics_folder(data_dir)
    link = data_dir / "metrics"
    if os.access(IN_MEMORY, os.W_OK):
        shutil.rmtree(link, ignore_errors=True)
        link.symlink_to(tempfile.mkdtemp(prefix="workspace-metrics-", dir=IN_MEMORY))


def drop_metrics_folder(data_dir: Path) -> None:
    """Delete the folder in memory, when nothing counts any more."""
    link = data_dir / "metrics"
    if link.is_symlink():
        shutil.rmtree(link.readlink(), ignore_errors=True)
        link.unlink()


class Service:
    """The parts of a run: `start` them, `keep` them running, always `stop` them."""

    def __init__(self, data_dir: Path, stop: Stop) -> None:
        self.data_dir = data_dir
        self.log = data_dir / "log"
        self.stopping = stop
        self.ports = Ports(data_dir)
        self.redis: RedisServer | None = None
        self.supervisor: Supervisor | None = None
        self.environment: dict[str, str] = {}
        self.api_url = ""

    def start(self) -> None:
        """Start everything and wait until the API is ready; `StartError` if it doesn't become ready."""
        self.log.mkdir(parents=True, exist_ok=True)
        leftovers.end(leftovers.find(self.data_dir, leftovers.SUPERVISED), LEFTOVERS_GRACE)
        settings = Settings.from_env()
        warn(dangerous_user(os.geteuid()))
        self.api_url = web_url(settings)
        self.environment = environment(self.data_dir, settings, self.ports)
        check_archive_keys(replace(settings, archive_key=self.environment["ARCHIVE_KEY"]))
        make_metrics_folder(self.data_dir)
        if redis_address.is_named(os.environ):
            if why := redis_server.trouble(settings.redis_url):
                raise StartError(why)
            warn(redis_server.warnings(settings.redis_url))
        else:
            port = self.ports.remembered("REDIS_PORT")
            self.redis = RedisServer(self.data_dir / "redis", port, self.log / "redis.log", settings.redis_max_bytes)
            warn(redis_server.outdated(self.redis.program, self.redis.version))
            self.redis.start(self.environment, self.wait)
            self.environment["REDIS_URL"] = self.redis.url
        self.start_processes(settings)
        self.wait_ready()

    def start_processes(self, settings: Settings) -> None:
        log = RunLog(self.log / "run.log", os.environ.get("VERBOSE") == "1")
        programs = procfile.programs(PROCFILE.read_text(), self.environment, settings.heartbeat_limit)
        self.supervisor = Supervisor(programs, self.data_dir, log)
        self.supervisor.start()

    def wait_ready(self) -> None:
        deadline = time.monotonic() + READY_DEADLINE
        while not self.stopping.requested and not is_ready(self.api_url):
            if time.monotonic() > deadline:
                raise StartError(f"The API is not ready after {READY_DEADLINE:.0f} s. {self.last_words()}")
            self.keep(READY_TICK)

    def last_words(self) -> str:
        file = self.log / "run.log"
        lines = file.read_text(errors="replace").splitlines()[-30:] if file.exists() else []
        return f"The end of {file}:\n" + "\n".join(lines)

    def keep(self, seconds: float) -> None:
        """Keep everything running for so long, or until a signal comes: the processes, and Redis with its data."""
        if self.redis is not None and not self.redis.alive():
            print("Redis has ended; restarting it.", file=sys.stderr)
            self.restart_redis(self.redis)
        self.wait(seconds)

    def wait(self, seconds: float) -> None:
        """Let that time pass; the processes, once there are any, are kept running meanwhile."""
        if self.supervisor is None:
            time.sleep(seconds)
        else:
            self.supervisor.watch(seconds)

    def restart_redis(self, server: RedisServer) -> None:
        """Restart Redis, several times if need be; the run ends if it can't start."""
        for attempt in range(RESTARTS):
            try:
                server.start(self.environment, self.wait)
                return
            except StartError:
                if attempt + 1 == RESTARTS:
                    raise

    def end_processes(self) -> None:
        """End the processes of the Procfile, also what they left beside them, but not Redis."""
        if self.supervisor is not None:
            self.supervisor.stop()
        redis_pid = self.redis.process.pid if self.redis and self.redis.process else None
        left = [p for p in leftovers.find(self.data_dir, leftovers.SUPERVISED) if p.pid != redis_pid]
        leftovers.end(left, 1.0)

    def stop(self) -> None:
        """End everything: workspaces after the workers, which could start one, and before Redis."""
        self.end_processes()
        if self.environment:
            self.stop_workspaces()
        if self.redis is not None:
            self.redis.stop()
        leftovers.end(leftovers.find(self.data_dir, leftovers.SUPERVISED, leftovers.WORKSPACE), 1.0)
        drop_metrics_folder(self.data_dir)
        self.ports.close()

    def stop_workspaces(self) -> None:
        command = [sys.executable, "-m", "workers.runtime.local.driver", "stop-all"]
        limit = workspaces_limit(Settings.from_env())
        try:
            subprocess.run(command, env=self.environment, timeout=limit, check=True, start_new_session=True)
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
            print(f"Some workspaces did not stop in time and are killed ({error}).", file=sys.stderr)


def workspaces_limit(settings: Settings) -> float:
    """Seconds after which running workspaces are killed."""
    return settings.stop_grace + KILL_LIMIT + WORKSPACES_SLACK


def is_ready(url: str) -> bool:
    """Whether the API at this URL is ready; asked without the user's proxy."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"{url}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException):
        return False


def dangerous_user(euid: int) -> list[str]:
    """A warning if everything runs as root."""
    if euid != 0:
        return []
    return [
        "this runs as root, and so do the terminals of all workspaces: anyone with access to a workspace controls this "
        "machine. Start it as another user, unless you are its only user."
    ]


def warn(sentences: Iterable[str]) -> None:
    """Print warnings for the operator."""
    for sentence in sentences:
        print(f"Warning: {sentence}", file=sys.stderr)


def introduction(service: Service) -> str:
    """Printed once everything runs: URLs, key, and a first call."""
    env = service.environment
    return f"""
API_URL={service.api_url}
{dashboard()}API_KEY={env["API_KEY"]}
FLOWER_URL=http://127.0.0.1:{env["FLOWER_PORT"]}
{watched(env)}
{prompts(env)}
Docs: {service.api_url}/docs. Flower's user is admin, its password the API key. Log: {service.log}/run.log.
Ctrl-C stops everything. To start anew, stop it and delete {service.data_dir}. A first workspace:

  curl -H "X-API-Key: {env["API_KEY"]}" -H "Content-Type: application/json" \\
       -d '{{"user_id": "me"}}' {service.api_url}/session/create
"""


def dashboard() -> str:
    """Where the dashboard is, a line of its own; empty without one."""
    location = Settings.from_env().dashboard_location()
    return f"DASHBOARD_URL={location}\n" if location else ""


def watched(environ: Mapping[str, str]) -> str:
    """Where Prometheus is, a line of its own; empty without one."""
    port = environ.get("PROMETHEUS_PORT")
    return f"PROMETHEUS_URL=http://127.0.0.1:{port}\n" if port and environ.get("MONITORING") == "1" else ""


def prompts(environ: Mapping[str, str]) -> str:
    """Which model answers, with only the host of its URL, which may contain a password."""
    url = environ.get("LLM_BASE_URL", "")
    if not url:
        return "No model is set, so prompts are refused: see Prompts in docs/tutorial.md."
    return f"Prompts go to {environ.get('LLM_MODEL') or 'the model asked for'} at {urlsplit(url).hostname}."


def run(data_dir: Path) -> int:
    stop = Stop()
    with only_run(data_dir):
        service = Service(data_dir, stop)
        try:
            service.start()
            if not stop.requested:
                print(introduction(service), flush=True)
            while not stop.requested:
                service.keep(TICK)
            print("Stopping.", flush=True)
        finally:
            service.stop()
    return 0


def main() -> int:
    try:
        return run(Path(os.environ["DATA_DIR"]).resolve())
    except (StartError, SettingsError) as error:
        print(f"scripts/run: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
