"""`GET /session/{uuid}/metrics`: what one session uses."""

from __future__ import annotations

import time

import pytest

from app.api.session_metrics_schemas import PercentilesSchema
from app.core.composition import Core
from app.core.prompts.token_usage import Tokens, TokenUsage
from app.core.sessions.resources import Sample
from tests.unit.api.helpers import Client

MIB = 1_048_576
BUSY = Sample(0.25, 300 * MIB, 900 * MIB)


def test_it_shows_now_the_last_hour_the_answers_and_the_tokens(client: Client, core: Core, uuid: str) -> None:
    now = time.time()
    core.store.change(uuid, now, replicas=1)
    for minutes in (1, 2):
        core.resources.note(uuid, BUSY, now - 60 * minutes)
    for number in range(3):
        core.inbox.take(uuid, "hello", f"m{number}", now=now - 10)
        core.inbox.finish(uuid, f"m{number}", response={"text": "done"}, now=now - 10 + 2 + number)
    core.inbox.take(uuid, "hello", "failed", now=now - 10)
    core.inbox.finish(uuid, "failed", reason="It failed.", now=now)
    TokenUsage(core.redis).add(uuid, "ada", Tokens(120, 30), now)
    shown = client.get(f"/session/{uuid}/metrics").json
    busy = {"cpu": 0.25, "memory_bytes": 300 * MIB, "disk_bytes": 900 * MIB}
    assert shown["now"] == busy
    assert len(shown["hour"]) == 60
    assert [{**each, "at": ""} for each in shown["hour"][-2:]] == [{**busy, "at": ""}] * 2
    assert shown["hour"][-3]["memory_bytes"] == 0
    assert all(each["at"].endswith(":00.000Z") for each in shown["hour"])
    assert shown["chat_ms"] == {"p50": 3_000, "p95": 4_000}
    assert shown["tokens"] == {"prompt": 120, "completion": 30}


def test_a_session_that_never_reported_uses_nothing(client: Client, uuid: str) -> None:
    shown = client.get(f"/session/{uuid}/metrics").json
    nothing = {"cpu": 0.0, "memory_bytes": 0, "disk_bytes": 0}
    assert shown["now"] == nothing
    assert all({**each, "at": ""} == {**nothing, "at": ""} for each in shown["hour"])
    assert shown["chat_ms"] == {"p50": None, "p95": None}


def test_nobody_is_billed_by_what_a_workspace_reports(client: Client, core: Core, uuid: str) -> None:
    core.resources.note(uuid, Sample(4_000.0, 2**50, 2**50), time.time())
    cost = client.get(f"/session/{uuid}/cost").json
    assert (cost["dollars"]["total"], cost["compute_seconds"], cost["storage_gib_hours"]) == (0.0, {}, 0.0)


@pytest.mark.parametrize(
    ("seconds", "p50", "p95"),
    [([], None, None), ([1.5], 1_500, 1_500), ([1, 2, 3, 4], 2_500, 4_000), ([*range(1, 101)], 50_500, 95_000)],
)
def test_percentiles(seconds: list[float], p50: int | None, p95: int | None) -> None:
    assert PercentilesSchema().dump(seconds) == {"p50": p50, "p95": p95}
