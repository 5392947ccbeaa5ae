"""The dialog that deletes a session."""

from __future__ import annotations

import pytest
from flask import Flask

from app.core.sessions.model import Status
from tests.unit.api.helpers import ADMIN_KEY, core_of, keyed, move, new_session
from tests.unit.web.conftest import Visitor

RISK = {"uncommitted": {"count": 7, "names": ["<img src=x onerror=alert(1)>", "b.py"]}, "complete": True}


@pytest.fixture
def uuid(app: Flask) -> str:
    """A sleeping session that left work behind."""
    made = new_session(keyed(app, ADMIN_KEY), "ada@example.com")
    move(core_of(app), made, Status.ACTIVE)
    move(core_of(app), made, Status.SLEEPING, risk=RISK)
    return made


def test_the_dialog_shows_whose_it_is_and_the_work_at_risk(visitor: Visitor, uuid: str) -> None:
    shown = visitor.get(f"/sessions/{uuid}/delete").get_data(as_text=True)
    assert "Delete the session of ada@example.com?" in shown
    assert "7 files not committed: &lt;img src=x onerror=alert(1)&gt;, b.py and 5 more" in shown
    assert "<img" not in shown
    assert 'value="partial"' not in shown


def test_a_deletion_begins_with_the_backup_that_was_chosen(visitor: Visitor, app: Flask, uuid: str) -> None:
    shown = visitor.post(f"/sessions/{uuid}/delete", {"backup": "false"}).get_data(as_text=True)
    assert f"<code>{uuid}</code> is being deleted" in shown
    record = core_of(app).sessions.get(uuid)
    assert (record.status, record.delete_backup) == (Status.TERMINATING, False)


def test_a_backup_comes_first_unless_chosen_otherwise(visitor: Visitor, app: Flask, uuid: str) -> None:
    assert "is being backed up" in visitor.post(f"/sessions/{uuid}/delete").get_data(as_text=True)
    assert core_of(app).sessions.get(uuid).delete_backup


def test_after_a_backup_that_met_unreadable_files_one_without_them_is_offered(
    visitor: Visitor, app: Flask, uuid: str
) -> None:
    move(core_of(app), uuid, Status.TERMINATING)
    move(core_of(app), uuid, Status.FAILED, reason="2 files can't be read", reason_code="backup_incomplete")
    shown = visitor.get(f"/sessions/{uuid}/delete").get_data(as_text=True)
    assert 'value="partial" checked' in shown


def test_everything_is_erased_when_that_is_chosen(visitor: Visitor, app: Flask, uuid: str) -> None:
    assert "Nothing can be brought back." in visitor.get(f"/sessions/{uuid}/delete").get_data(as_text=True)
    shown = visitor.post(f"/sessions/{uuid}/delete", {"backup": "true", "erase": "true"}).get_data(as_text=True)
    assert f"<code>{uuid}</code> is being erased" in shown
    record = core_of(app).sessions.get(uuid)
    assert (record.status, record.delete_backup, record.delete_erase) == (Status.TERMINATING, False, True)


def test_a_refusal_is_shown_in_the_dialog(visitor: Visitor, uuid: str) -> None:
    shown = visitor.post(f"/sessions/{uuid}/delete", {"backup": "perhaps"})
    assert shown.status_code == 200
    assert '<p class="bad" role="alert">' in shown.get_data(as_text=True)


def test_a_session_that_is_not_there_has_no_dialog(visitor: Visitor) -> None:
    for uuid in ("aaaaaaaa", "a%3Fb=c%26", "..%2F..%2Faa"):
        assert visitor.get(f"/sessions/{uuid}/delete").status_code == 404


def test_a_key_that_only_reads_deletes_nothing(onlooker: Visitor, app: Flask, uuid: str) -> None:
    assert "may look and change nothing" in onlooker.post(f"/sessions/{uuid}/delete").get_data(as_text=True)
    assert core_of(app).sessions.get(uuid).status is Status.SLEEPING


def test_work_at_risk_that_nobody_knows_is_said_to_be_so(visitor: Visitor, app: Flask) -> None:
    """Awake, without an agent that answers."""
    uuid = new_session(keyed(app, ADMIN_KEY))
    move(core_of(app), uuid, Status.ACTIVE)
    assert "Unsaved work is not known" in visitor.get(f"/sessions/{uuid}/delete").get_data(as_text=True)
