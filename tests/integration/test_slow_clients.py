"""Clients that keep a connection for as long as they can, against the real processes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from app.web_worker import HEAD_LIMIT
from tests.conftest import PATIENCE
from tests.integration.serving import KEY, OwnRedis, running_forward_auth, running_gateway, running_web

HEADERS = {"X-API-Key": KEY}
WAITING = 200
"""More than there were threads."""


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    with OwnRedis(tmp_path) as server:
        yield server.url


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


def test_as_many_waiting_calls_as_one_likes_stop_neither_the_api_nor_the_door(tmp_path: Path, redis_url: str) -> None:
    settings = {"WEB_WORKERS": "1", "SECRET_KEY": "a-secret-key-of-32-characters-or-so"}
    with (
        running_web(tmp_path, redis_url, **settings) as url,
        running_forward_auth(tmp_path, redis_url, **settings) as door,
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
                assert requests.get(f"{door}/auth/verify", timeout=PATIENCE).status_code == 400
        finally:
            over.set()
            for thread in threads:
                thread.join(PATIENCE)
