"""Restore points in the dashboard."""

from __future__ import annotations

from app.core.composition import Core
from app.core.redis import keys
from app.core.restore_points.index import RestorePoint
from app.core.storage.archive_keys import new_key
from tests.unit.web.conftest import HTMX, Visitor, page

NOW = 1_763_625_600.0


def add(core: Core, uuid: str, number: int, **more: object) -> str:
    point = RestorePoint(
        id=f"p{number:015d}", uuid=uuid, created_at=NOW + number, trigger="sleep", files=2, size=30, stored=4
    )
    core.restore_points.put(uuid, [RestorePoint(**{**vars(point), **more})])
    return point.id


def test_points_are_listed_newest_first(visitor: Visitor, core: Core, uuid: str) -> None:
    assert "No restore points yet" in page(visitor, f"/sessions/{uuid}/restore-points")
    names = [add(core, uuid, number) for number in range(3)]
    shown = page(visitor, f"/sessions/{uuid}/restore-points")
    assert sorted(names, key=shown.index) == names[::-1]
    assert shown.count("after a sleep") == 3


def test_a_point_that_is_broken_or_lacks_files_says_so_and_a_broken_one_starts_nothing(
    visitor: Visitor, core: Core, uuid: str
) -> None:
    name = add(core, uuid, 1, broken=True)
    add(core, uuid, 2, unreadable=1_200)
    shown = page(visitor, f"/sessions/{uuid}/restore-points")
    assert ">broken<" in shown
    assert f"{name}/restore" not in shown
    assert ">lacks 1,200<" in shown


def test_how_safe_the_files_are_is_shown(visitor: Visitor, core: Core, uuid: str) -> None:
    core.store.change(uuid, NOW, point_at=NOW, files_of=NOW, point_error="<b>The store</b> is away.")
    for path in ("restore-points", "restore-points/live"):
        shown = page(visitor, f"/sessions/{uuid}/{path}")
        assert "&lt;b&gt;The store&lt;/b&gt; is away." in shown
        assert "The volume was lost" in shown
    facts = page(visitor, f"/sessions/{uuid}/facts")
    assert "Files saved" in facts
    assert "its volume was lost" in facts


def test_a_point_starts_a_new_session(visitor: Visitor, core: Core, uuid: str) -> None:
    name = add(core, uuid, 1)
    answer = visitor.post(f"/sessions/{uuid}/restore-points/{name}/restore", headers=HTMX)
    assert answer.status_code == 204, answer.text
    made = answer.headers["HX-Redirect"].removeprefix("/sessions/")
    record = core.sessions.get(made)
    assert (record.restore_from, record.user_id) == (f"point-{uuid}-{name}", "ada@example.com")


def test_a_point_is_asked_for(visitor: Visitor, core: Core, uuid: str) -> None:
    # As its operator had set it; settings are frozen.
    object.__setattr__(core.settings, "archive_key", new_key())
    answer = visitor.post(f"/sessions/{uuid}/restore-points", headers={"HX-Target": "tab"})
    assert "Saving …" in answer.text
    assert core.store.pending(keys.POINT_REQUESTS, uuid)


def test_a_session_is_rolled_back(visitor: Visitor, core: Core, uuid: str) -> None:
    """After a question; the tab shows that it is under way, and how it ended."""
    object.__setattr__(core.settings, "archive_key", new_key())
    core.store.change(uuid, NOW, provisioned=True)
    name = add(core, uuid, 1)
    assert "hx-confirm" in page(visitor, f"/sessions/{uuid}/restore-points")
    answer = visitor.post(f"/sessions/{uuid}/restore-points/{name}/rollback", headers={"HX-Target": "tab"})
    assert f"Rolling back to {name}" in answer.text
    assert core.sessions.get(uuid).rollback_to == name
    for told, words in (
        ({"files_of": "2026-11-20T08:00:00.000Z"}, "Rolled back: the files are those of"),
        ({"error": "<b>Away</b>"}, "The rollback was called off.</span> &lt;b&gt;Away&lt;/b&gt;"),
    ):
        core.store.change(uuid, NOW, rollback_to="", rolled_back=told)
        assert words in page(visitor, f"/sessions/{uuid}/restore-points/live")
