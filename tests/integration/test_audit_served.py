"""The audit of a service that is stopped while calls wait in it."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from pathlib import Path

import requests

from app.core.access.audit import Audit
from app.core.redis.connections import connect
from app.core.redis.keys import SESSION
from tests.integration.serving import KEY, OwnRedis, running_web
from tests.waiting import wait_for

HEADERS = {"X-API-Key": KEY}
WAITING = HEADERS | {"Prefer": "wait=60"}


def test_a_call_that_waits_while_the_service_is_stopped_has_an_entry(tmp_path: Path, own_redis: OwnRedis) -> None:
    """Its client never hears of it, but what it asked for was recorded, and will be done."""
    client = connect(own_redis.url, 5.0)
    with running_web(tmp_path, own_redis.url, LOG_LEVEL="ERROR") as url:
        made = requests.post(f"{url}/session/create", json={"user_id": "ada"}, headers=HEADERS, timeout=60)
        uuid = made.json()["uuid"]

        def delete() -> None:
            with suppress(requests.RequestException):
                requests.delete(f"{url}/session/{uuid}?backup=false", headers=WAITING, timeout=60)

        waiting = threading.Thread(target=delete, daemon=True)
        waiting.start()
        wait_for(lambda: client.hget(SESSION.format(uuid=uuid), "status") == "terminating", "the deletion is asked for")
    waiting.join(60)
    entries = Audit(client).page(uuid=uuid).entries
    assert [(entry.act.action, entry.act.status, entry.act.reason) for entry in entries] == [
        ("delete", 0, "no_answer, backup=false"),
        ("create", 201, ""),
    ]
    lines = [json.loads(line) for line in (tmp_path / "web.log").read_text().splitlines() if '"app.audit"' in line]
    assert [(line["action"], line["uuid"], line["by"]) for line in lines] == [
        ("create", uuid, "api_key"),
        ("delete", uuid, "api_key"),
    ]
