"""Event streams and waiting calls that two web processes hold at once, by gunicorn's threads and by its gevent worker.

Besides them the call that clients make most is asked at a steady pace, and sessions have news all the while. What is
compared is taken in one run; the processor time says most, as latencies also tell what else the machine does.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import resource
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from app.core.redis.connections import connect
from app.core.redis.events import EventLog
from app.core.redis.memory import Memory
from app.core.sessions.model import Status
from app.core.sessions.store import SessionStore
from scripts.bench.api import fill
from scripts.bench.servers import HEADERS, percentile, running_gunicorn, running_redis
from scripts.bench.table import Row

STREAMS, WAITS = 5_000, 1_000
PROCESSES = 2
SECONDS = 20.0
"""s for which the rest is measured while they are held."""

ASKED, NEWS = 20, 50
"""`GET /session/{uuid}` and events a second meanwhile."""

LIMIT = 120.0
"""s within which all of them must be there, and the processes be quiet."""

QUIET = 0.3
"""Of a core, that both processes together take once all that came at once is dealt with."""

AT_ONCE = 200
"""Connections that the client opens at a time."""

WORKERS: Mapping[str, str] = {
    "threads": f"--worker-class gthread --threads {STREAMS + WAITS}",
    "gevent": "",
}
"""What gunicorn is told besides its configuration, which is the product's."""

UNBOUND = {
    "WEB_WORKERS": str(PROCESSES),
    "MAX_STREAMS": str(STREAMS),
    "RATE_LIMIT_WAKE": "1000000000/minute",
    "WAIT_MAX": "300",
}


@dataclass
class Seen:
    """What the client saw; times are in s. Of processes that were `ended`, time and memory say nothing."""

    streams: int = 0
    waits: int = 0
    held: tuple[int, int] = (0, 0)
    asked: list[float] = field(default_factory=list)
    failed: int = 0
    told: list[float] = field(default_factory=list)
    ended: int = 0
    cpu: float = 0.0
    memory: float = 0.0


def run() -> list[Row]:
    """Measure; rows of label, value and target."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    seen = {name: measure(options) for name, options in WORKERS.items()}
    rows: list[Row] = []
    for name, each in seen.items():
        asked, told = (
            [f"{1000 * percentile(times, rank):.0f}" for rank in (50, 99)] for times in (each.asked, each.told)
        )
        rows += [
            (f"{name}: streams and waits held", f"{each.held[0]} + {each.held[1]}", f"{STREAMS} + {WAITS}"),
            (f"{name}: GET /session/{{uuid}} beside them, p50 (ms)", asked[0], ""),
            (f"{name}: GET /session/{{uuid}} beside them, p99 (ms)", asked[1], "< 100 ms"),
            (f"{name}: of these failed", f"{each.failed}", "0"),
            (f"{name}: until an event is there, p50 (ms)", told[0], ""),
            (f"{name}: until an event is there, p99 (ms)", told[1], ""),
            (f"{name}: processes that gunicorn gave up", f"{each.ended}", "0"),
        ]
        if not each.ended:
            rows += [
                (f"{name}: memory of the larger process (MB)", f"{each.memory:.0f}", "< 400 MB"),
                (f"{name}: processor time in {SECONDS:.0f} s (s)", f"{each.cpu:.1f}", ""),
            ]
    if not any(each.ended for each in seen.values()):
        ratio = seen["threads"].cpu / seen["gevent"].cpu
        rows.append(("processor time, threads against gevent", f"{ratio:.1f}x", ""))
    return rows


def measure(options: str) -> Seen:
    """What is seen with one kind of worker."""
    with tempfile.TemporaryDirectory(prefix="bench-streams-") as name, running_redis(Path(name)) as redis_url:
        client = connect(redis_url, 5.0)
        store = SessionStore(client)
        awake, asleep = fill(store, STREAMS), fill(store, WAITS)
        for uuid in asleep:
            store.change(uuid, time.time(), to=Status.SLEEPING, settle=True)
        settings = UNBOUND | {"GUNICORN_CMD_ARGS": f"{options} --worker-connections {2 * (STREAMS + WAITS)}"}
        with running_gunicorn("app.main:create_app()", Path(name), redis_url, **settings) as port:
            (master,) = (each for each in psutil.Process().children() if "gunicorn" in each.cmdline())
            events = EventLog(client, Memory(client))
            return asyncio.run(Scene(port, awake, asleep, events, master).play())


class Scene:
    """All clients of one server."""

    def __init__(
        self, port: int, awake: list[str], asleep: list[str], events: EventLog, master: psutil.Process
    ) -> None:
        self._port, self._awake, self._asleep = port, awake, asleep
        self._events, self._master = events, master
        self._seen = Seen()
        self._opening = asyncio.Semaphore(AT_ONCE)

    async def play(self) -> Seen:
        """Open everything, let it come to rest, and measure."""
        processes = set(self._master.children())
        held = [asyncio.create_task(self._stream(uuid)) for uuid in self._awake]
        held += [asyncio.create_task(self._wait(uuid)) for uuid in itertools.islice(self._asleep, WAITS)]
        await self._rest()
        before, self._seen.held = self._cpu(), (self._seen.streams, self._seen.waits)
        await asyncio.gather(at_pace(ASKED, self._ask), at_pace(NEWS, self._tell))
        self._seen.cpu = self._cpu() - before
        self._seen.ended = len(processes - set(self._master.children()))
        self._seen.memory = max(each.memory_info().rss for each in self._master.children()) / 1e6
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        return self._seen

    async def _rest(self) -> None:
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            before = self._cpu()
            await asyncio.sleep(2.0)
            there = self._seen.streams >= STREAMS and self._seen.waits >= WAITS
            if there and self._cpu() - before < 2 * QUIET:
                return

    def _cpu(self) -> float:
        return sum(sum(each.cpu_times()[:2]) for each in self._master.children())

    async def _open(self, method: str, path: str, *more: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        given = [f"{name}: {value}" for name, value in HEADERS.items()]
        writer.write("\r\n".join([f"{method} {path} HTTP/1.1", *given, *more, "", ""]).encode())
        return reader, writer

    async def _stream(self, uuid: str) -> None:
        async with self._opening:
            reader, writer = await self._open("GET", f"/session/{uuid}/events")
            await reader.readuntil(b"event: state")
            self._seen.streams += 1
        try:
            while line := await reader.readline():
                if line.startswith(b'data: {"at": '):
                    self._seen.told.append(time.time() - float(line[13:].partition(b"}")[0]))
        finally:
            self._seen.streams -= 1
            writer.close()

    async def _wait(self, uuid: str) -> None:
        """Wake a session that nobody starts, and wait for it."""
        async with self._opening:
            reader, writer = await self._open("POST", f"/session/{uuid}/wake", "Prefer: wait=300", "Content-Length: 0")
            self._seen.waits += 1
        try:
            await reader.readline()
        finally:
            self._seen.waits -= 1
            writer.close()

    async def _ask(self) -> None:
        began = time.monotonic()
        try:
            reader, writer = await self._open("GET", f"/session/{random.choice(self._awake)}", "Connection: close")
            answer = await asyncio.wait_for(reader.read(), 30)
            writer.close()
            self._seen.failed += not answer.startswith(b"HTTP/1.1 200")
        except (OSError, TimeoutError):
            self._seen.failed += 1
        self._seen.asked.append(time.monotonic() - began)

    async def _tell(self) -> None:
        uuid, data = random.choice(self._awake), {"at": time.time()}
        await asyncio.to_thread(self._events.append, uuid, "phase", data)


async def at_pace(a_second: int, act: Callable[[], Awaitable[None]]) -> None:
    """Do it so often a second for `SECONDS`, however long each takes."""
    began = time.monotonic()
    async with asyncio.TaskGroup() as running:
        for number in range(int(a_second * SECONDS)):
            await asyncio.sleep(max(0.0, began + number / a_second - time.monotonic()))
            running.create_task(_awaited(act))


async def _awaited(act: Callable[[], Awaitable[None]]) -> None:
    await act()
