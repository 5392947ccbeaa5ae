"""GET /events of a real web process: many streams cost neither threads nor connections to Redis, and end when Redis
fails."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

import psutil
import requests

from app.core.redis.connections import connect
from app.core.sessions.model import Record, Status
from app.core.sessions.store import SessionStore
from tests.events import Events
from tests.integration.serving import KEY, OwnRedis, running_web

HEADERS = {"X-API-Key": KEY}
STREAMS = 100
UUID = "k3v9x0qa"


class Stream:
    """An open stream."""

    def __init__(self, url: str, **headers: str) -> None:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        self.answer = requests.get(f"{url}/events", headers=HEADERS | named, stream=True, timeout=30)
        assert self.answer.status_code == 200, self.answer.text
        self._events = Events.answered(self.answer)
        assert self.next() == {"complete": True}

    def next(self) -> dict[str, object]:
        """The data of the next event, {} at the end."""
        return dict(next(self._events, ("", {}))[1])

    @property
    def last_id(self) -> str:
        """That of the last event that was read."""
        return self._events.last_id


def web_process(url: str) -> psutil.Process:
    """The one that serves: gunicorn's only worker."""
    port = int(url.rpartition(":")[2])
    (master,) = [
        each for each in psutil.Process().children() if any(c.laddr.port == port for c in each.net_connections())
    ]
    (worker,) = master.children()
    return worker


def test_a_hundred_streams_cost_no_thread_and_one_connection_to_redis(tmp_path: Path, own_redis: OwnRedis) -> None:
    with running_web(tmp_path, own_redis.url, WEB_WORKERS="1") as url, ExitStack() as closing:
        client = connect(own_redis.url, 5.0)
        store = SessionStore(client)
        streams = [Stream(url)]
        worker = web_process(url)
        threads = worker.num_threads()
        streams += [Stream(url) for _ in range(STREAMS - 1)]
        for stream in streams:
            closing.enter_context(stream.answer)
        store.create(Record(uuid=UUID, user_id="ada", created_at=1.0, status=Status.CREATED), quota=None)
        store.change(UUID, 2.0, to=Status.ACTIVE)
        told = [[stream.next()["status"] for _ in range(2)] for stream in streams]
        assert told == [["created", "active"]] * STREAMS
        assert worker.num_threads() <= threads
        pubsub = client.execute_command("CLIENT", "LIST", "TYPE", "PUBSUB")
        assert len(re.findall(r"^id=", pubsub, re.M)) == 1


def test_a_stream_ends_when_redis_dies_and_resumes_when_it_is_back(tmp_path: Path, own_redis: OwnRedis) -> None:
    with running_web(tmp_path, own_redis.url, WEB_WORKERS="1") as url:
        store = SessionStore(connect(own_redis.url, 5.0))
        store.create(Record(uuid=UUID, user_id="ada", created_at=1.0, status=Status.CREATED), quota=None)
        stream = Stream(url)
        store.change(UUID, 2.0, to=Status.ACTIVE)
        assert stream.next()["status"] == "active"
        own_redis.kill()
        assert stream.next() == {}
        assert requests.get(f"{url}/events", headers=HEADERS, timeout=60).status_code == 503
        own_redis.start()
        store.change(UUID, 3.0, to=Status.SLEEPING)
        again = Stream(url, Last_Event_ID=stream.last_id)
        with again.answer:
            assert again.next()["status"] == "sleeping"
