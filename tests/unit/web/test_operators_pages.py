"""The overview, operations and settings."""

from __future__ import annotations

import time

import pytest
from flask import Flask

from app.core.composition import Core
from app.core.redis.counters import START_BUCKETS
from app.core.redis.dead_letters import DeadLetter
from app.core.sessions.samples import Last, Sample
from app.web.overview import evenly, times_of
from tests.dashboard import Visitor
from tests.unit.api.helpers import ADMIN_KEY, BOUND_KEY, keyed, new_session
from tests.unit.web.conftest import HTMX, page, signed_in

PAGES = ("/overview", "/overview/figures", "/operations", "/operations/processes", "/operations/recovery", "/settings")


@pytest.mark.parametrize("path", PAGES)
def test_a_new_service_has_each_page(visitor: Visitor, path: str) -> None:
    assert "Traceback" not in page(visitor, path)


def test_the_overview_draws_what_was_sampled(visitor: Visitor, core: Core) -> None:
    samples, now = core.samples, int(time.time()) // 60 * 60
    wakes = tuple(int(number == 5) for number in range(len(START_BUCKETS) + 1))
    last = Last("")
    for minute in (3, 2, 1):
        told = {"sessions": {"active": 4}, "failures": {"no_capacity": 1}, "cost": 0.5, "saved": 2.0}
        samples.add(last, {}, Sample(at=now - 60 * minute, wakes=wakes, creates=(), **told))  # type: ignore[arg-type]
        last = samples.last()
    shown = visitor.get("/overview").text
    for words in ("3 wakes", "$1.50", "$6.00 saved by sleeping", "no capacity"):
        assert words in shown
    assert shown.count('<path class="area ') == 4


def test_time_without_samples_is_a_gap() -> None:
    samples = [{"at": "2026-01-01T10:00:00.000Z", "n": 1}, {"at": "2026-01-01T10:03:00.000Z", "n": 2}]
    assert evenly(samples, 60) == [samples[0], {}, {}, samples[1]]
    assert evenly([], 60) == []


def test_medians_count_each_start() -> None:
    samples = [{"wakes": 1, "wake_p50_ms": 9, "wake_p95_ms": 9}, {"wakes": 9, "wake_p50_ms": 1, "wake_p95_ms": 2}]
    assert times_of("wake", samples) == {"count": 10, "p50": 1, "p95": 2}


def test_a_dead_letter_is_retried_and_dropped(visitor: Visitor, app: Flask, core: Core) -> None:
    client = keyed(app, ADMIN_KEY)
    uuid = new_session(client)
    for why in ("<b>lost</b>", "lost again"):
        args = (uuid, core.sessions.get(uuid).generation)
        core.dead_letters.add(DeadLetter(task="sessions.provision", args=args, why=why))
    shown = visitor.get("/operations").text
    assert "&lt;b&gt;lost&lt;/b&gt;" in shown
    assert "<b>lost" not in shown
    newest, oldest = (each["id"] for each in client.get("/dead-letters").json["dead_letters"])
    dropped = visitor.post(f"/operations/dead-letters/{newest}/drop", headers=HTMX)
    assert "is dropped" in dropped.text
    assert [each["id"] for each in client.get("/dead-letters").json["dead_letters"]] == [oldest]
    again = visitor.post(f"/operations/dead-letters/{newest}/retry", headers=HTMX)
    assert (again.status_code, again.headers["HX-Retarget"]) == (404, "#notices")


def test_lost_sessions_are_counted_and_brought_back(visitor: Visitor, core: Core) -> None:
    recoveries = core.recoveries
    core.makes_restore_points = True
    assert "Bring them back" in visitor.get("/operations").text

    counting = visitor.post("/operations/recovery/count", headers=HTMX).text
    assert "Looking through the store" in counting and "Bring them back" not in counting
    recovery = recoveries.waiting()
    assert recovery is not None and recovery.dry_run
    recoveries.end(recovery, time.time(), found=5, damaged=1)
    counted = visitor.get("/operations/recovery").text
    assert "4 sessions would come back" in counted and "1 have no restore point" in counted

    visitor.post("/operations/recovery/start", headers=HTMX)
    recovery = recoveries.waiting()
    assert recovery is not None and not recovery.dry_run
    recoveries.note_failed("<b>away</b>")
    failing = visitor.get("/operations/recovery").text
    assert "&lt;b&gt;away&lt;/b&gt; It is tried again." in failing
    recoveries.note_recovered()
    recoveries.end(recovery, time.time(), found=1, damaged=0)
    assert "1 of 1 sessions came back" in visitor.get("/operations/recovery").text


def test_settings_show_no_secret_and_those_that_were_changed_first(visitor: Visitor) -> None:
    shown = visitor.get("/settings").text
    assert ADMIN_KEY not in shown
    assert shown.index("<code>DASHBOARD_URL</code>") < shown.index("<code>BACKUP_RETENTION</code>")
    found = visitor.get("/settings?q=dashboard_url&changed=1").text
    assert "DASHBOARD_URL" in found
    assert "BACKUP_RETENTION" not in found
    assert "No setting matches" in visitor.get("/settings?q=nosuchsetting").text


def test_a_key_that_is_bound_to_users_sees_its_sessions_alone(app: Flask) -> None:
    bound = signed_in(app, BOUND_KEY)
    assert [bound.get(path).status_code for path in ("/overview", "/settings", "/operations")] == [403] * 3
