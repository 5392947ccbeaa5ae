"""A Redis with the users of app/core/redis/users.py, as on a cluster, and a look at what it refused them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from app.core.redis import users
from scripts.lib import redis_server
from tests.conftest import wait_for_redis
from tests.ports import free_port


def password(user: str) -> str:
    """That of the tests."""
    return f"password-of-{user}"


@dataclass(frozen=True)
class Guarded:
    """A Redis whose `default` may do nothing."""

    port: int

    def url(self, user: str, database: int = 0) -> str:
        """For the clients of a process."""
        return f"redis://{user}:{password(user)}@127.0.0.1:{self.port}/{database}"

    def client(self, user: str) -> redis.Redis:
        """Who connects as that user."""
        return redis.Redis.from_url(self.url(user), decode_responses=True, socket_timeout=10.0)

    def refused(self) -> list[str]:
        """What anybody was refused so far: who, and which command, key or channel, from inside of a script or not."""
        log: Any = self.client(users.ADMIN).acl_log()
        return [f"{each['username']}: {each['reason']} {each['object']} ({each['context']})" for each in log]


@contextmanager
def guarded_redis(folder: Path, more: str = "") -> Iterator[Guarded]:
    """One while the block lasts; `more` are further lines of its file of users."""
    file = folder / "users.acl"
    names = [line.partition(" ")[0] for line in users.lines()]
    lines = users.access_list({name: password(name) for name in names})
    file.write_text(f"user default off\n{lines}{more}")
    made = Guarded(free_port())
    options = {
        "--port": str(made.port),
        "--bind": "127.0.0.1",
        "--dir": str(folder),
        "--aclfile": str(file),
        # As the service wants it, though no answer waits for the disk.
        "--appendonly": "yes",
        "--appendfsync": "no",
        "--maxmemory": "256mb",
        "--maxmemory-policy": "noeviction",
        "--notify-keyspace-events": "KEA",
        "--save": "",
    }
    command = [redis_server.program()[0], *(part for pair in options.items() for part in pair)]
    with (folder / "redis.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_for_redis(made.url(users.ADMIN), process)
            yield made
        finally:
            process.terminate()
            process.wait(60)
