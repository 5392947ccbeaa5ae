"""One token fills a small Redis with prompts: everybody else's sleeps and deletions work, and it recovers by itself."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
import redis
import requests

from app.core.redis import keys
from tests.service import KEY, Service
from tests.waiting import wait_for

MOST_PROMPTS = 3_000
CHUNK = 100_000
"""Bytes of somebody else's data that are written at a time."""

NEARLY_FULL = 85
"""%: new prompts are refused at 90 or a little before, for what the request itself takes."""

LENGTHS = (99_000, 5_000, 100)
"""Of the prompts: long ones, and then shorter ones into what is left."""


@pytest.fixture(scope="module")
def service_settings() -> Mapping[str, str]:
    """A model that never answers, so that prompts stay; and no budget that would stop them before Redis is full."""
    return {
        "LLM_BASE_URL": "http://127.0.0.1:9/v1",
        "REDIS_MAX_BYTES": str(32 * 1024**2),
        "SESSION_PROMPT_BYTES": "1000000000",
        "USER_PROMPT_BYTES": "1000000000",
        "INBOX_LIMIT": "10000",
    }


def fill(service: Service, uuid: str, length: int) -> requests.Response:
    """Send prompts of this length with a session's token until one is refused; that answer."""
    token = service.token(uuid)
    for number in range(MOST_PROMPTS):
        answer = requests.post(
            f"{service.url}/session/{uuid}/chat",
            json={"message": "x" * length},
            headers={
                "Authorization": f"Bearer {token}",
                "Prefer": "respond-async",
                "Idempotency-Key": f"prompt-{length}-{number}",
            },
            timeout=30,
        )
        if answer.status_code != 202:
            return answer
    raise AssertionError("nothing was refused")


def health(service: Service) -> Any:
    return requests.get(f"{service.url}/health", headers={"X-API-Key": KEY}, timeout=10).json()


def create(service: Service, user_id: str) -> requests.Response:
    headers = {"X-API-Key": KEY, "Idempotency-Key": f"for-{user_id}"}
    return requests.post(f"{service.url}/session/create", json={"user_id": user_id}, headers=headers, timeout=30)


def test_a_full_redis_lets_sleep_and_delete_through_and_recovers(service: Service) -> None:
    hostile, sleeper, goner = (create(service, user).json()["uuid"] for user in ("eve", "ada", "bob"))
    for uuid in (hostile, sleeper, goner):
        service.wait_status(uuid, "active")
    (service.files(goner) / "work.txt").write_text("not to be lost")

    for length in LENGTHS:
        refused = fill(service, hostile, length)
        assert (refused.status_code, refused.json()["error"]) == (507, "insufficient_storage"), refused.text
    assert "delete" in refused.json()["detail"]
    told = health(service)
    assert (told["status"], told["redis_memory"]["percent"] > NEARLY_FULL) == ("degraded", True), told

    service.done("POST", f"/session/{sleeper}/scale-down", headers={"Prefer": "wait=60"})
    assert service.status(sleeper)["replicas"] == 0
    gone = service.done("DELETE", f"/session/{goner}", headers={"Prefer": "wait=60"})
    assert gone["status"] == "terminated" and gone["backup"]
    assert health(service)["redis_memory"]["percent"] > NEARLY_FULL, "it was full all the time"
    service.done("POST", f"/session/{sleeper}/scale-up", headers={"Prefer": "wait=60"})

    service.done("DELETE", f"/session/{hostile}", headers={"Prefer": "wait=60"})
    wait_for(lambda: health(service)["redis_memory"]["state"] == "ok", "room", lambda: str(health(service)))
    assert health(service)["status"] == "healthy"
    assert create(service, "carol").status_code == 201
    taken = service.prompt(sleeper, "hello", "m1", prefer="respond-async")
    assert taken["state"] == "queued"


def test_sleep_and_delete_work_when_others_have_filled_redis_to_the_brim(service: Service) -> None:
    """Whose data ask nobody for room: what is left is the ballast."""
    sleeper, goner = (create(service, user).json()["uuid"] for user in ("dan", "eli"))
    for uuid in (sleeper, goner):
        service.wait_status(uuid, "active")
    with service.redis() as client:
        wait_for(lambda: client.exists(keys.BALLAST), "the ballast")
        with pytest.raises(redis.OutOfMemoryError):
            for number in range(MOST_PROMPTS):
                client.set(f"foreign:{number}", "x" * CHUNK)
        with suppress(redis.OutOfMemoryError):
            for number in range(MOST_PROMPTS):
                client.set(f"foreign:small:{number}", "x" * 1_000)
        wait_for(lambda: not client.exists(keys.BALLAST), "the ballast to be given up")
        assert health(service)["status"] == "degraded"
        assert create(service, "fay").status_code == 507
        service.done("POST", f"/session/{sleeper}/scale-down", headers={"Prefer": "wait=60"})
        assert service.status(sleeper)["replicas"] == 0
        gone = service.done("DELETE", f"/session/{goner}", headers={"Prefer": "wait=60"})
        assert gone["status"] == "terminated" and gone["backup"]
        for name in client.scan_iter("foreign:*"):
            client.delete(name)
        wait_for(lambda: client.exists(keys.BALLAST), "the ballast again")
    assert health(service)["status"] == "healthy"
