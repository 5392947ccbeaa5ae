"""Clients that keep a connection for as long as they can, against the real processes."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from app.http.gunicorn_worker import HEAD_LIMIT
from tests.integration.serving import KEY, OwnRedis, running_forward_auth, running_gateway, running_web
from tests.waiting import PATIENCE

HEADERS = {"X-API-Key": KEY}
WAITING = 200
"""More than there were threads."""


@pytest.fixture
def redis_url(own_redis: OwnRedis) -> str:
    return own_redis.url


def connect(url: str) -> socket.socket:
    address = urlsplit(url)
    return socket.create_connection((address.hostname or "", address.port or 0), timeout=PATIENCE)


def test_heads_that_trickle_are_cut_off_and_hold_nobody_up(tmp_path: Path, redis_url: str) -> None:
    """Without a token, on the gateway: as many as would have held all its threads."""
    with running_gateway(tmp_path, redis_url) as url, ExitStack() as stack:
        slow = [stack.enter_context(connect(url)) for _ in range(300)]
        for client in slow:
            client.sendall(b"GET /llm/v1/models HTTP/1.1\r\nX-Trickled: ")
        began = time.monotonic()
        while slow and time.monotonic() - began < HEAD_LIMIT + PATIENCE:
            assert requests.get(f"{url}/livez", timeout=PATIENCE).status_code == 200
            for client in list(slow):
                try:
                    client.sendall(b"x")
                except OSError:
                    slow.remove(client)
            time.sleep(0.5)
        assert slow == []


def test_as_many_waiting_calls_as_one_likes_stop_neither_the_api_nor_forward_auth(
    tmp_path: Path, redis_url: str
) -> None:
    settings = {"WEB_WORKERS": "1", "SECRET_KEY": "a-secret-key-of-32-characters-or-so"}
    with (
        running_web(tmp_path, redis_url, **settings) as url,
        running_forward_auth(tmp_path, redis_url, **settings) as forward_auth,
    ):
        uuid = requests.post(
            f"{url}/session/create", json={"user_id": "ada"}, headers=HEADERS, timeout=PATIENCE
        ).json()["uuid"]
        path = f"{url}/session/{uuid}/wake"
        over = threading.Event()

        def wait() -> None:
            while not over.is_set():
                requests.post(path, headers=HEADERS | {"Prefer": "wait=5"}, timeout=PATIENCE + 5)

        threads = [threading.Thread(target=wait, daemon=True) for _ in range(WAITING)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(10):
                assert requests.get(f"{url}/livez", timeout=PATIENCE).status_code == 200
                assert requests.get(f"{url}/session/{uuid}", headers=HEADERS, timeout=PATIENCE).status_code == 200
                assert requests.get(f"{forward_auth}/auth/verify", timeout=PATIENCE).status_code == 400
        finally:
            over.set()
            for thread in threads:
                thread.join(PATIENCE)


def test_a_body_that_is_refused_is_not_read_to_its_end(tmp_path: Path, redis_url: str) -> None:
    """The client is told why, and its next requests come over another connection; after a small one over the same."""
    size, piece = 256 * 1024 * 1024, b"x" * 65_536
    head = f"POST /session/create HTTP/1.1\r\nHost: api\r\nX-API-Key: {KEY}\r\nContent-Type: application/json\r\n"
    with running_web(tmp_path, redis_url) as url, connect(url) as large:
        large.sendall(f"{head}Content-Length: {size}\r\n\r\n".encode())
        sent, answer = 0, b""
        with suppress(OSError):
            while sent < size:
                large.sendall(piece)
                sent += len(piece)
        with suppress(OSError):
            answer = large.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert sent < size / 4
        address = urlsplit(url)
        small = HTTPConnection(address.hostname or "", address.port, timeout=PATIENCE)
        with closing(small):
            kept = set()
            for _ in range(2):
                small.request("POST", "/session/create", piece[:1000], {"Content-Type": "application/json"})
                assert small.getresponse().read()
                kept.add(small.sock)
            assert len(kept) == 1
            assert None not in kept
