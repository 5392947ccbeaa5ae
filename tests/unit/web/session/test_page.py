"""The page of a session: its tabs, its actions, its stream, and that it is gone."""

from __future__ import annotations

import pytest

from app.core.composition import Core
from app.core.restore_points.index import RestorePoint
from app.core.restore_points.names import new_id, reference
from app.core.sessions.model import Status
from tests.unit.api.helpers import add_backup, move
from tests.unit.web.conftest import HTMX, Visitor, page

WITHIN = HTMX | {"HX-Target": "tab"}
TABS = ["", "/chat", "/backups", "/restore-points", "/cost", "/activity", "/events", "/audit"]


@pytest.mark.parametrize("tab", TABS)
def test_each_tab_is_a_page_and_a_part_of_one(visitor: Visitor, uuid: str, tab: str) -> None:
    whole = page(visitor, f"/sessions/{uuid}{tab}")
    assert "<!doctype html>" in whole
    assert f'sse-connect="/sessions/{uuid}/stream?after=' in whole
    part = page(visitor, f"/sessions/{uuid}{tab}", **WITHIN)
    assert "<html" not in part
    assert "sse-connect" not in part
    for shown in (whole, part):
        assert shown.count('aria-current="page"') == shown.count('class="brand"') + 1, "the tab, and the menu's entry"
        assert "<script>" not in shown
        assert "<img src=x" not in shown
        assert " style=" not in shown


def test_a_page_that_is_gone_back_to_is_whole(visitor: Visitor, uuid: str) -> None:
    again = WITHIN | {"HX-History-Restore-Request": "true"}
    assert "<!doctype html>" in page(visitor, f"/sessions/{uuid}/chat", **again)


def test_the_overview_says_why_it_is_awake_and_what_happened(visitor: Visitor, uuid: str) -> None:
    shown = page(visitor, f"/sessions/{uuid}")
    assert "Awake because" in shown
    assert "<b>Sleeps in" in shown
    assert "&lt;img src=x onerror=alert(1)&gt;" in shown, "the label"
    timeline = shown[shown.index('<ol class="timeline">') :]
    assert timeline.index(">Awake<") < timeline.index(">Created<")


def test_the_head_says_what_is_being_restored(visitor: Visitor, core: Core, uuid: str) -> None:
    point = RestorePoint(id=new_id(), uuid=uuid, created_at=1.0, trigger="archive", files=3, size=5_000, stored=1)
    core.restore_points.put(uuid, [point])
    brings = {"files": 3, "bytes": 5_000, "of": "2026-05-03T14:02:11.000Z"}
    move(core, uuid, Status.SLEEPING, archived_at=1.0, restore_from=reference(uuid, point.id))
    core.sessions.wake(uuid)
    core.store.change(uuid, 1.0, restoring=brings)
    shown = page(visitor, f"/sessions/{uuid}/head")
    assert "Restoring 3 files, 5.0 kB, of 3 May 2026, 14:02 UTC." in shown


def test_the_last_start_is_shown_on_each_way_to_the_overview(visitor: Visitor, core: Core, uuid: str) -> None:
    core.store.change(uuid, 1.0, phases={"enqueued": 40, "started": 1_200})
    for shown in (page(visitor, f"/sessions/{uuid}"), page(visitor, f"/sessions/{uuid}", **WITHIN)):
        assert "<span>process</span> <b>1.2 s</b>" in shown
    assert "<span>queue</span> <b>40 ms</b>" in page(visitor, f"/sessions/{uuid}/facts")


def test_a_failure_is_said_with_its_reason(visitor: Visitor, core: Core, uuid: str) -> None:
    move(core, uuid, Status.FAILED, reason="<b>No</b> room")
    shown = page(visitor, f"/sessions/{uuid}/head")
    assert "&lt;b&gt;No&lt;/b&gt; room" in shown
    assert 'id="do-wake"' in shown


def test_a_session_is_put_to_sleep_and_woken(visitor: Visitor, core: Core, uuid: str) -> None:
    assert 'id="do-wake"' in visitor.post(f"/sessions/{uuid}/sleep").text
    assert core.sessions.get(uuid).status is Status.SLEEPING
    assert 'id="do-sleep"' in visitor.post(f"/sessions/{uuid}/wake").text
    assert core.sessions.get(uuid).status is Status.WAKING
    assert visitor.post(f"/sessions/{uuid}/explode").status_code == 404


def test_who_only_reads_sees_no_action_and_deletes_nothing(onlooker: Visitor, core: Core, uuid: str) -> None:
    for tab in TABS:
        shown = page(onlooker, f"/sessions/{uuid}{tab}")
        assert "hx-post" not in shown, tab
        assert 'id="do-open"' not in shown
    assert "may look and change nothing" in onlooker.post("/sessions/delete", {"uuid": uuid}).text
    assert core.sessions.get(uuid).status is Status.ACTIVE


def test_opening_leads_to_the_workspace_by_a_link_of_its_own(visitor: Visitor, uuid: str) -> None:
    """The one-time link is in the page, which nothing keeps."""
    answer = visitor.post(f"/sessions/{uuid}/open")
    assert f'http-equiv="refresh" content="0; url=http://vs-code-{uuid}.' in answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "same-origin"


def test_the_stream_brings_what_happens_after_the_page(visitor: Visitor, core: Core, uuid: str) -> None:
    after = core.events.last_id(uuid)
    core.events.append(uuid, "backup", {"status": "done"})
    move(core, uuid, Status.TERMINATING)
    move(core, uuid, Status.TERMINATED, event=("state", {"status": "terminated"}))
    answer = visitor.get(f"/sessions/{uuid}/stream?after={after}")
    assert answer.mimetype == "text/event-stream"
    events = answer.text
    assert events.index("event: backup") < events.index('"terminated"') < events.index("event: ended")
    later = visitor.get(f"/sessions/{uuid}/stream?after={after}", headers={"Last-Event-ID": core.events.last_id(uuid)})
    assert later.text == "event: ended\ndata: 1\n\n", "what the browser says itself counts"
    assert visitor.get(f"/sessions/{uuid}/stream?after=x").status_code == 400


def test_a_session_that_is_gone_offers_its_backups(visitor: Visitor, core: Core) -> None:
    backup, other = (add_backup(core, "k3v9x0qa") for _ in range(2))
    answer = visitor.get("/sessions/k3v9x0qa/chat")
    assert answer.status_code == 404
    shown = answer.text
    assert "This session is gone" in shown
    assert f"/sessions/k3v9x0qa/backups/{backup.name}/restore" in shown
    part = visitor.get("/sessions/k3v9x0qa/head", headers=HTMX)
    assert (part.status_code, part.headers["HX-Refresh"]) == (204, "true")
    assert "There is no such page or session" in visitor.get("/sessions/aaaaaaaa").text
    left = visitor.post(f"/sessions/k3v9x0qa/backups/{backup.name}/delete", headers=HTMX).text
    assert backup.name not in left and other.name in left
    none = visitor.post(f"/sessions/k3v9x0qa/backups/{other.name}/delete", headers=HTMX).text
    assert "No backup is kept." in none


def test_a_deleted_session_can_be_looked_at(visitor: Visitor, core: Core, uuid: str) -> None:
    move(core, uuid, Status.TERMINATING)
    move(core, uuid, Status.TERMINATED)
    shown = page(visitor, f"/sessions/{uuid}")
    assert "It was deleted" in shown
    assert "do-open" not in shown
    assert "sse-connect" not in shown, "nothing happens to it any more"
    # Nothing is left of which a copy could be made.
    for tab, offer in (("backups", "Back up now"), ("restore-points", "Make one now")):
        assert offer not in page(visitor, f"/sessions/{uuid}/{tab}")


def test_names_are_checked_before_they_are_part_of_a_call(visitor: Visitor, uuid: str) -> None:
    for path in (
        "/sessions/..%2Fcosts%3F/chat",
        "/sessions/ABCDEFGH",
        f"/sessions/{uuid}/backups/..%2F..%2Faudit/download",
        f"/sessions/{uuid}/backups/app.zip/download",
        f"/sessions/{uuid}/chat/turns/a%2Fb%3Fc",
    ):
        assert visitor.get(path).status_code == 404, path
