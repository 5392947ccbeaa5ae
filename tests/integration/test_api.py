"""The real web process: Redis that dies, hangs and returns, requests that are no HTTP, streams over sockets."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from app.core.redis.connections import connect
from app.core.redis.events import EventLog
from app.core.redis.memory import Memory
from tests.events import Events
from tests.integration.serving import KEY, OwnRedis, running_web
from tests.waiting import PATIENCE, wait_for

HEADERS = {"X-API-Key": KEY}


@pytest.fixture
def url(tmp_path: Path, own_redis: OwnRedis) -> Iterator[str]:
    with running_web(tmp_path, own_redis.url) as address:
        yield address


def create(url: str, timeout: float = PATIENCE) -> requests.Response:
    return requests.post(f"{url}/session/create", json={"user_id": "ada"}, headers=HEADERS, timeout=timeout)


def check_unavailable(url: str, uuid: str) -> None:
    """Every kind of call answers 503."""
    for method, path in (("GET", f"/session/{uuid}"), ("POST", f"/session/{uuid}/wake"), ("GET", "/sessions")):
        answer = requests.request(method, url + path, headers=HEADERS, timeout=PATIENCE)
        assert answer.status_code == 503
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.headers["Retry-After"]
        assert answer.json()["error"] == "state_unavailable"
    idempotent = HEADERS | {"Idempotency-Key": "k"}
    answer = requests.post(f"{url}/session/create", json={"user_id": "a"}, headers=idempotent, timeout=PATIENCE)
    assert answer.status_code == 503
    assert requests.get(f"{url}/health", timeout=PATIENCE).json()["redis"] == "disconnected"
    assert requests.get(f"{url}/readyz", timeout=PATIENCE).status_code == 503
    assert requests.get(f"{url}/livez", timeout=PATIENCE).status_code == 200


def test_a_killed_redis_is_503_and_its_return_needs_no_help(url: str, own_redis: OwnRedis) -> None:
    uuid = create(url).json()["uuid"]
    own_redis.kill()
    check_unavailable(url, uuid)
    own_redis.start()
    wait_for(lambda: requests.get(f"{url}/readyz", timeout=PATIENCE).status_code == 200, "the API is ready again")
    assert requests.get(f"{url}/session/{uuid}", headers=HEADERS, timeout=PATIENCE).status_code == 200


def test_a_hanging_redis_is_503_and_its_return_needs_no_help(url: str, own_redis: OwnRedis) -> None:
    uuid = create(url).json()["uuid"]
    own_redis.freeze(True)
    try:
        check_unavailable(url, uuid)
    finally:
        own_redis.freeze(False)
    wait_for(lambda: requests.get(f"{url}/readyz", timeout=PATIENCE).status_code == 200, "the API is ready again")
    assert requests.get(f"{url}/session/{uuid}", headers=HEADERS, timeout=PATIENCE).status_code == 200


def test_the_web_process_starts_without_redis(tmp_path: Path, own_redis: OwnRedis) -> None:
    own_redis.kill()
    with running_web(tmp_path, own_redis.url) as url:
        assert requests.get(f"{url}/livez", timeout=PATIENCE).status_code == 200
        assert requests.get(f"{url}/readyz", timeout=PATIENCE).status_code == 503
        own_redis.start()
        wait_for(lambda: create(url).status_code == 201, "sessions can be created")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET /livez HTTP/9.9\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nbad header\r\n\r\n", 400),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /livez HTTP/1.1\r\nA: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (
            b"POST /session/create HTTP/1.1\r\nHost: x\r\nX-API-Key: " + KEY.encode() + b"\r\n"
            b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nnonsense\r\n",
            400,
        ),
    ],
)
def test_what_is_no_http_gets_a_problem_document_too(url: str, request_bytes: bytes, status: int) -> None:
    address = urlsplit(url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=PATIENCE) as client:
        client.sendall(request_bytes)
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"content-type: application/problem+json" in head.lower()
    assert json.loads(body)["status"] == status


def test_a_request_sent_twice_at_once_is_done_once(url: str) -> None:
    """The twin is told to come back, or gets the first one's answer; there is one session in either case."""
    answers: list[requests.Response] = []
    headers = HEADERS | {"Idempotency-Key": "twins"}

    def call() -> None:
        body = {"user_id": "twin"}
        answers.append(requests.post(f"{url}/session/create", json=body, headers=headers, timeout=30))

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.json()["uuid"] for answer in answers if answer.status_code == 201}) == 1
    listed = requests.get(f"{url}/sessions?user_id=twin", headers=HEADERS, timeout=PATIENCE).json()
    assert listed["total"] == 1


def test_a_stream_tells_of_a_change_made_by_another_process(url: str) -> None:
    uuid = create(url).json()["uuid"]
    with requests.get(f"{url}/session/{uuid}/events", headers=HEADERS, stream=True, timeout=30) as stream:
        events = Events.answered(stream)
        seen = [next(events)[1]["status"]]
        requests.delete(f"{url}/session/{uuid}", headers=HEADERS | {"Prefer": "respond-async"}, timeout=PATIENCE)
        seen.append(next(events)[1]["status"])
    assert seen == ["created", "terminating"]


def test_places_of_streams_whose_clients_left_are_free_again(tmp_path: Path, own_redis: OwnRedis) -> None:
    """A client that left is noticed when the next event can't be delivered."""
    with running_web(tmp_path, own_redis.url, MAX_STREAMS="1", WEB_WORKERS="1") as url:
        uuid = create(url).json()["uuid"]
        path = f"{url}/session/{uuid}/events"
        first = requests.get(path, headers=HEADERS, stream=True, timeout=30)
        next(Events.answered(first))
        assert requests.get(path, headers=HEADERS, timeout=30).status_code == 503
        first.close()

        redis = connect(own_redis.url, 5.0)
        events = EventLog(redis, Memory(redis))

        def free_again() -> bool:
            events.append(uuid, "phase", {"ready": 1})
            with requests.get(path, headers=HEADERS, stream=True, timeout=30) as stream:
                return stream.status_code == 200

        wait_for(free_again, "the place is free again")
