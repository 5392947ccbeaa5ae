"""The overview, operations and settings."""

from __future__ import annotations

import dataclasses
import json
import time

import pytest
import redis
from flask import Flask

from app.core.composition import Core
from app.core.redis.counters import START_BUCKETS
from app.core.redis.dead_letters import DeadLetter
from app.core.sessions.samples import Last, Sample
from app.main import create_app
from app.process.settings import Settings
from app.web.overview import evenly, times_of
from tests.dashboard import ORIGIN, Visitor
from tests.unit.api.helpers import ADMIN_KEY, Client, core_of, digest, new_session

PAGES = ("/overview", "/overview/figures", "/operations", "/operations/processes", "/operations/recovery", "/settings")


@pytest.mark.parametrize("path", PAGES)
def test_a_new_service_has_each_page(visitor: Visitor, path: str) -> None:
    answer = visitor.get(path)
    assert answer.status_code == 200
    assert "Traceback" not in answer.get_data(as_text=True)


def test_the_overview_draws_what_was_sampled(visitor: Visitor, app: Flask) -> None:
    samples, now = core_of(app).samples, int(time.time()) // 60 * 60
    wakes = tuple(int(number == 5) for number in range(len(START_BUCKETS) + 1))
    last = Last("")
    for minute in (3, 2, 1):
        told = {"sessions": {"active": 4}, "failures": {"no_capacity": 1}, "cost": 0.5, "saved": 2.0}
        samples.add(last, {}, Sample(at=now - 60 * minute, wakes=wakes, creates=(), **told))  # type: ignore[arg-type]
        last = samples.last()
    page = visitor.get("/overview").get_data(as_text=True)
    assert "3 wakes" in page
    assert "$1.50" in page
    assert "$6.00 saved by sleeping" in page
    assert "no capacity" in page
    assert page.count('<path class="area ') == 4


def test_time_without_samples_is_a_gap() -> None:
    samples = [{"at": "2026-01-01T10:00:00.000Z", "n": 1}, {"at": "2026-01-01T10:03:00.000Z", "n": 2}]
    assert evenly(samples, 60) == [samples[0], {}, {}, samples[1]]
    assert evenly([], 60) == []


def test_medians_count_each_start() -> None:
    samples = [{"wakes": 1, "wake_p50_ms": 9, "wake_p95_ms": 9}, {"wakes": 9, "wake_p50_ms": 1, "wake_p95_ms": 2}]
    assert times_of("wake", samples) == {"count": 10, "p50": 1, "p95": 2}


def test_a_dead_letter_is_retried_and_dropped(visitor: Visitor, app: Flask) -> None:
    client: Client = app.test_client()
    client.environ_base["HTTP_X_API_KEY"] = ADMIN_KEY
    uuid, letters = new_session(client), core_of(app).dead_letters
    record = core_of(app).sessions.get(uuid)
    for why in ("<b>lost</b>", "lost again"):
        letters.add(DeadLetter(task="sessions.provision", args=(uuid, record.generation), why=why))
    page = visitor.get("/operations").get_data(as_text=True)
    assert "&lt;b&gt;lost&lt;/b&gt;" in page
    assert "<b>lost" not in page
    newest, oldest = (each["id"] for each in client.get("/dead-letters").json["dead_letters"])
    dropped = visitor.post(f"/operations/dead-letters/{newest}/drop", headers={"HX-Request": "true"})
    assert "is dropped" in dropped.get_data(as_text=True)
    assert [each["id"] for each in client.get("/dead-letters").json["dead_letters"]] == [oldest]
    again = visitor.post(f"/operations/dead-letters/{newest}/retry", headers={"HX-Request": "true"})
    assert (again.status_code, again.headers["HX-Retarget"]) == (404, "#notices")


def test_lost_sessions_are_counted_and_brought_back(visitor: Visitor, core: Core) -> None:
    recoveries = core.recoveries
    core.makes_restore_points = True
    page = visitor.get("/operations").get_data(as_text=True)
    assert "Bring them back" in page

    counting = visitor.post("/operations/recovery/count", headers={"HX-Request": "true"}).get_data(as_text=True)
    assert "Looking through the store" in counting and "Bring them back" not in counting
    recovery = recoveries.waiting()
    assert recovery is not None and recovery.dry_run
    recoveries.end(recovery, time.time(), found=5, damaged=1)
    counted = visitor.get("/operations/recovery").get_data(as_text=True)
    assert "4 sessions would come back" in counted and "1 have no restore point" in counted

    visitor.post("/operations/recovery/start", headers={"HX-Request": "true"})
    recovery = recoveries.waiting()
    assert recovery is not None and not recovery.dry_run
    recoveries.note_failed("<b>away</b>")
    failing = visitor.get("/operations/recovery").get_data(as_text=True)
    assert "&lt;b&gt;away&lt;/b&gt; It is tried again." in failing
    recoveries.note_recovered()
    recoveries.end(recovery, time.time(), found=1, damaged=0)
    assert "1 of 1 sessions came back" in visitor.get("/operations/recovery").get_data(as_text=True)


def test_settings_show_no_secret_and_those_that_were_changed_first(visitor: Visitor) -> None:
    page = visitor.get("/settings").get_data(as_text=True)
    assert ADMIN_KEY not in page
    assert page.index("<code>DASHBOARD_URL</code>") < page.index("<code>BACKUP_RETENTION</code>")
    found = visitor.get("/settings?q=dashboard_url&changed=1").get_data(as_text=True)
    assert "DASHBOARD_URL" in found
    assert "BACKUP_RETENTION" not in found
    assert "No setting matches" in visitor.get("/settings?q=nosuchsetting").get_data(as_text=True)


def test_a_key_that_is_bound_to_users_sees_its_sessions_alone(settings: Settings, redis_client: redis.Redis) -> None:
    key = "a-key-bound-to-a-course"
    bound = [{"name": "course", "sha256": digest(key), "role": "service", "user_prefix": "course-"}]
    app = create_app(dataclasses.replace(settings, api_key=ADMIN_KEY, api_keys=json.dumps(bound), dashboard_url=ORIGIN))
    visitor = Visitor(app)
    visitor.sign_in(key)
    assert visitor.get("/overview").status_code == 403
    assert visitor.get("/settings").status_code == 403
    assert visitor.get("/operations").status_code == 403
