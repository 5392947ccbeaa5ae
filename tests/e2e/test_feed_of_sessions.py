"""GET /events of the real service: a session's life as its product's backend follows it, with a key of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from tests.events import Events
from tests.service import Service

BACKEND = {"X-API-Key": "a-key-of-the-backend"}


@pytest.fixture(scope="module")
def service_settings() -> Mapping[str, str]:
    digest = hashlib.sha256(BACKEND["X-API-Key"].encode()).hexdigest()
    return {"API_KEYS": json.dumps([{"name": "backend", "sha256": digest, "role": "service"}])}


class Feed(Events):
    """An open stream."""

    def next_of(self, wanted: str) -> Any:
        """The data of the next event of this type."""
        kind, data = "", None
        while kind != wanted:
            kind, data = next(self)
        return data

    def until(self, *wanted: str) -> list[tuple[str, str]]:
        """The sessions and states up to the one wanted."""
        seen: list[tuple[str, str]] = []
        while not seen or seen[-1] != wanted:
            _, data = next(self)
            seen.append((data["uuid"], data.get("status", "")))
        return seen


@contextmanager
def following(service: Service, **headers: str) -> Iterator[Feed]:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    with requests.get(f"{service.url}/events", headers=BACKEND | named, stream=True, timeout=60) as stream:
        assert stream.status_code == 200, stream.text
        yield Feed.answered(stream)


def test_a_products_backend_follows_its_sessions_through_their_lives(service: Service) -> None:
    """created, active, asleep, awake, backed up, deleted; with a break, after which nothing is missing."""
    others = service.create("eve")["uuid"]
    with following(service) as feed:
        assert next(feed) == ("begin", {"complete": True})
        made = service.call("POST", "/session/create", {"user_id": "ada", "labels": {"course": "a"}}, headers=BACKEND)
        uuid = made.json()["uuid"]
        assert feed.until(uuid, "active") == [(uuid, "created"), (uuid, "active")]
        service.done("POST", f"/session/{uuid}/scale-down")
        assert feed.until(uuid, "sleeping")[-1] == (uuid, "sleeping")
        left = feed.last_id
    service.done("POST", f"/session/{uuid}/scale-up")
    with following(service, Last_Event_ID=left) as feed:
        assert next(feed) == ("begin", {"complete": True})
        assert (uuid, "waking") in feed.until(uuid, "active")
        service.done("POST", f"/session/{uuid}/backup")
        backup = feed.next_of("backup")
        assert (backup["uuid"], backup["user_id"], backup["status"]) == (uuid, "ada", "done")
        service.done("DELETE", f"/session/{others}?backup=false")
        service.done("DELETE", f"/session/{uuid}")
        assert feed.until(uuid, "terminated")[0] == (uuid, "terminating")
