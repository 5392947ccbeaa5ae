"""A Redis in memory, for machines without a redis-server: fakeredis, with two commands of ours that it lacks."""

from __future__ import annotations

import pickle
from typing import Any

import fakeredis
import redis
from fakeredis._commands import Key, command
from fakeredis._socket._fakesocket import FakeSocket


@command(name="INFO", fixed=(), repeat=(bytes,))
def info(self: FakeSocket, *sections: bytes) -> bytes:
    """Redis without a limit of memory, as much as scripts and the memory guard read of it."""
    return b"# Memory\r\nused_memory:1000000\r\nmaxmemory:0\r\nmem_not_counted_for_evict:0\r\n"


@command(name="MEMORY USAGE", fixed=(Key(),), repeat=(bytes,))
def memory_usage(self: FakeSocket, key: Any, *options: bytes) -> int | None:
    """About the bytes that a key takes."""
    return 64 + len(pickle.dumps(key.value)) if key else None


FakeSocket.info = info  # type: ignore[attr-defined]
FakeSocket.memory_usage = memory_usage  # type: ignore[attr-defined]


def fake_redis() -> redis.Redis:
    """A client of an empty Redis of its own."""
    return fakeredis.FakeRedis(server=fakeredis.FakeServer(version=(7, 0)), decode_responses=True)
