"""Backups in the dashboard."""

from __future__ import annotations

from app.core.composition import Core
from app.core.redis.events import FROM_START
from tests.unit.api.helpers import add_backup
from tests.unit.web.conftest import HTMX, ORIGIN, Visitor, page


def test_backups_are_listed_newest_first(visitor: Visitor, core: Core, uuid: str) -> None:
    assert "No backups yet" in page(visitor, f"/sessions/{uuid}/backups")
    names = [add_backup(core, uuid).name for _ in range(3)]
    shown = page(visitor, f"/sessions/{uuid}/backups")
    assert sorted(names, key=shown.index) == names[::-1]
    assert shown.count("verified</span>") == 3


def test_a_backup_is_asked_for_and_its_end_shown(visitor: Visitor, core: Core, uuid: str) -> None:
    core.events.append(uuid, "backup", {"status": "failed", "reason": "an earlier one"})
    answer = visitor.post(f"/sessions/{uuid}/backup", headers={"HX-Target": "tab"})
    assert "Backing up …" in answer.text
    again = answer.headers["HX-Push-Url"]
    live = again.replace("/backups?", "/backups/live?")
    assert "Backing up …" in page(visitor, again), "after a reload too"
    core.events.append(uuid, "backup", {"status": "failed", "reason": "<b>No</b> room."})
    assert "&lt;b&gt;No&lt;/b&gt; room." in page(visitor, live)
    core.events.append(uuid, "backup", {"status": "done", "name": "app.zip", "unreadable": ["<i>a</i>"]})
    assert "Without files that can't be read: &lt;i&gt;a&lt;/i&gt;" in page(visitor, live)
    for since in ("x", "1-2-3", FROM_START):
        assert visitor.get(f"/sessions/{uuid}/backups/live?since={since}").status_code == 200


def test_a_backup_is_downloaded_in_whole_and_in_parts(visitor: Visitor, core: Core, uuid: str) -> None:
    content = b"PK" + bytes(range(256)) * 1_000
    name = add_backup(core, uuid, content=content).name
    path = f"/sessions/{uuid}/backups/{name}/download"
    answer = visitor.client.get(path, base_url=ORIGIN)
    assert answer.get_data() == content
    assert answer.headers["Content-Length"] == str(len(content))
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'
    part = visitor.client.get(path, base_url=ORIGIN, headers={"Range": "bytes=2-11"})
    assert (part.status_code, part.get_data()) == (206, content[2:12])


def test_a_backup_is_restored_into_a_new_session(visitor: Visitor, core: Core, uuid: str) -> None:
    name = add_backup(core, uuid).name
    answer = visitor.post(f"/sessions/{uuid}/backups/{name}/restore", headers=HTMX)
    made = answer.headers["HX-Redirect"].removeprefix("/sessions/")
    assert core.sessions.get(made).restore_from == name


def test_a_backup_is_deleted(visitor: Visitor, core: Core, uuid: str) -> None:
    first, second = add_backup(core, uuid).name, add_backup(core, uuid).name
    shown = visitor.post(f"/sessions/{uuid}/backups/{first}/delete").text
    assert first not in shown
    assert second in shown
