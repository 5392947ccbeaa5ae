"""Streams of a model that one gateway process carries at once, by gunicorn's threads and by its gevent worker.

The model is a server of asyncio in this process: it gives each stream a piece at a steady pace, with the time in it,
and takes next to nothing of the processor. Beside the streams the gateway is asked for its health.
"""

from __future__ import annotations

import asyncio
import json
import resource
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from app.core.access.agent_credentials import AgentCredentials
from app.core.redis.connections import connect
from app.core.sessions.store import SessionStore
from scripts.bench.api import fill
from scripts.bench.servers import percentile, running_gateway, running_redis
from scripts.bench.streams import AT_ONCE, at_pace
from scripts.bench.table import Row

STREAMS = 2_000
STREAMS_OF_A_SESSION = 5
"""Below GATEWAY_CALLS_PER_SESSION."""

PACE = 4.0
"""s between two pieces of a stream: 500 a second of all together."""

ASKED = 20
"""Calls of `/livez` a second."""

LIMIT = 120.0
"""s within which all streams must have begun."""

SECRET_KEY = "the-secret-key-of-the-measurement"
WORKERS: Mapping[str, str] = {
    "threads": f"--worker-class gthread --threads {STREAMS + 50}",
    "gevent": "",
}
"""What gunicorn is told besides its configuration, which is the product's."""


@dataclass
class Seen:
    """What the clients saw; times are in s."""

    begun: int = 0
    held: int = 0
    failed: int = 0
    late: list[float] = field(default_factory=list)
    asked: list[float] = field(default_factory=list)
    cpu: float = 0.0
    memory: float = 0.0


def run() -> list[Row]:
    """Measure; rows of label, value and target."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    rows: list[Row] = []
    for name, options in WORKERS.items():
        seen = asyncio.run(measure(options))
        late, asked = (
            [f"{1000 * percentile(times, rank):.1f}" for rank in (50, 99)] for times in (seen.late, seen.asked)
        )
        rows += [
            (f"{name}: streams held", str(seen.held), str(STREAMS)),
            (f"{name}: streams and calls that failed", str(seen.failed), "0"),
            (f"{name}: a piece through the gateway, p50 / p99 (ms)", " / ".join(late), ""),
            (f"{name}: GET /livez beside them, p50 / p99 (ms)", " / ".join(asked), ""),
            (f"{name}: memory of the process (MB)", f"{seen.memory:.0f}", ""),
            (f"{name}: processor, of one core", f"{seen.cpu:.2f}", ""),
        ]
    return rows


async def measure(options: str) -> Seen:
    """What is seen with one kind of worker."""
    model = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=STREAMS)
    url = f"http://127.0.0.1:{model.sockets[0].getsockname()[1]}/v1"
    async with model:
        with gateway(url, options) as (port, tokens, process):
            return await Scene(port, tokens, process).play()


@contextmanager
def gateway(model: str, options: str) -> Iterator[tuple[int, list[str], psutil.Process]]:
    """A gateway's port, a token for each stream, and gunicorn's first process."""
    with tempfile.TemporaryDirectory(prefix="bench-streams-") as name, running_redis(Path(name)) as redis_url:
        uuids = fill(SessionStore(connect(redis_url, 5.0)), STREAMS // STREAMS_OF_A_SESSION)
        secrets = AgentCredentials([SECRET_KEY])
        tokens = [secrets.token(uuid, 1) for uuid in uuids] * STREAMS_OF_A_SESSION
        # All of them come from one address here.
        settings = {"GATEWAY_CONNECTIONS_PER_PEER": "0", "GUNICORN_CMD_ARGS": options}
        with running_gateway(Path(name), redis_url, model, SECRET_KEY, **settings) as port:
            (master,) = (each for each in psutil.Process().children() if "gunicorn" in each.cmdline())
            yield port, tokens, master


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The model: pieces without an end, until whoever asked has gone."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
    try:
        while not writer.is_closing():
            piece = {"choices": [{"index": 0, "delta": {"content": str(time.time())}}]}
            writer.write(f"data: {json.dumps(piece)}\n\n".encode())
            await writer.drain()
            await asyncio.sleep(PACE)
    except (OSError, asyncio.CancelledError):
        pass  # the client has gone, or the measurement is over
    finally:
        writer.close()


class Scene:
    """All clients of one gateway."""

    def __init__(self, port: int, tokens: list[str], master: psutil.Process) -> None:
        self._port, self._tokens, self._master = port, tokens, master
        self._seen = Seen()
        self._opening = asyncio.Semaphore(AT_ONCE)
        self._settled = False

    async def play(self) -> Seen:
        """Begin every stream, and look on for a while when the last has begun."""
        held = [asyncio.create_task(self._stream(token)) for token in self._tokens]
        deadline = time.monotonic() + LIMIT
        while self._seen.begun < STREAMS and time.monotonic() < deadline:
            await asyncio.sleep(0.5)
        await asyncio.sleep(PACE)
        self._settled = True
        (process,) = self._master.children()
        before, began = sum(process.cpu_times()[:2]), time.monotonic()
        await at_pace(ASKED, self._ask)
        self._seen.cpu = (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began)
        self._seen.memory = process.memory_info().rss / 1e6
        self._seen.held = sum(not task.done() for task in held)
        for task in held:
            task.cancel()
        ends = await asyncio.gather(*held, return_exceptions=True)
        self._seen.failed += sum(not isinstance(end, asyncio.CancelledError) for end in ends)
        return self._seen

    async def _open(self, head: str, body: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(f"{head}\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        return reader, writer

    async def _stream(self, token: str) -> None:
        body = {"model": "stub", "stream": True, "messages": [{"role": "user", "content": "go on"}]}
        head = f"POST /llm/v1/chat/completions HTTP/1.1\r\nAuthorization: Bearer {token}"
        async with self._opening:
            reader, writer = await self._open(f"{head}\r\nContent-Type: application/json", json.dumps(body).encode())
            await reader.readuntil(b'"content": "')
            self._seen.begun += 1
        try:
            while line := await reader.readline():
                at = line.partition(b'"content": "')[2].partition(b'"')[0]
                if at and self._settled:
                    self._seen.late.append(time.time() - float(at))
        finally:
            writer.close()

    async def _ask(self) -> None:
        began = time.monotonic()
        try:
            reader, writer = await self._open("GET /livez HTTP/1.1\r\nConnection: close")
            seen = await asyncio.wait_for(reader.read(), 30)
            writer.close()
            self._seen.failed += not seen.startswith(b"HTTP/1.1 200")
        except (OSError, TimeoutError):
            self._seen.failed += 1
        self._seen.asked.append(time.monotonic() - began)
