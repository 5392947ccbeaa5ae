"""What a person does with one session or with many."""

from __future__ import annotations

import html
import json
import re
import time
from typing import Any

import pytest

from app.core.composition import Core
from app.core.sessions.model import Record, Signal, Status
from app.web.api import ApiError
from app.web.session_actions import labels_of
from tests.unit.api.helpers import add_backup, move
from tests.unit.web.conftest import Visitor


def only(core: Core) -> Record:
    """The one session there is."""
    [uuid] = core.redis.zrange("sessions:all", 0, -1)
    return core.store.get(uuid)


def created(visitor: Visitor, core: Core, status: Status = Status.ACTIVE, user_id: str = "ada") -> str:
    answer = visitor.post("/sessions/create", {"user_id": user_id})
    assert answer.status_code == 200, answer.text
    uuid = re.findall(r'name="uuid" value="(\w{8})"', answer.text)[0]
    for step in {Status.SLEEPING: (Status.ACTIVE, Status.SLEEPING)}.get(status, (status,)):
        move(core, uuid, step)
    return str(uuid)


def test_create_takes_a_user_a_size_and_labels(visitor: Visitor, core: Core) -> None:
    fields = {"user_id": " ada ", "size": "large", "labels": "course=python-101, team = a b"}
    answer = visitor.post("/sessions/create", fields)
    made = only(core)
    assert (made.user_id, made.size, dict(made.labels)) == ("ada", "large", {"course": "python-101", "team": "a b"})
    assert answer.headers["HX-Retarget"] == "#notices"
    assert set(json.loads(answer.headers["HX-Trigger"])) == {"list-changed", "dialog-done"}


@pytest.mark.parametrize(
    ("field", "text", "said"),
    [
        ("user_id", "a b", "1 to 128 of"),
        ("labels", "course", "as course=python-101"),
        ("labels", "-=x", "a letter or digit"),
    ],
)
def test_create_says_beside_the_field_what_is_wrong(visitor: Visitor, field: str, text: str, said: str) -> None:
    answer = visitor.post("/sessions/create", {"user_id": "ada", field: text})
    assert said in answer.text
    assert "HX-Retarget" not in answer.headers
    assert html.escape(text) in answer.text, "what was typed stays"


def test_the_dialog_begins_with_the_user_that_is_looked_at(visitor: Visitor) -> None:
    assert 'value="ada@example.com"' in visitor.get("/sessions/create?user_id=ada@example.com").text


def test_labels_are_typed_with_commas_or_lines() -> None:
    assert labels_of("a=1, b = two words\nc=x=y,") == {"labels": {"a": "1", "b": "two words", "c": "x=y"}}
    assert labels_of(" \n") == {}
    for text in ("a", "a=1, a=2"):
        with pytest.raises(ApiError):
            labels_of(text)


def test_the_first_workspace_shows_its_start_and_then_opens(visitor: Visitor, core: Core) -> None:
    page = visitor.post("/sessions/first").text
    made = only(core)
    assert made.user_id == "me"
    assert f'hx-get="/sessions/{made.uuid}/first" hx-trigger="every' in page
    assert "disabled" in page
    move(core, made.uuid, Status.ACTIVE, phases={"enqueued": 3, "ready": 840})
    page = visitor.get(f"/sessions/{made.uuid}/first").text
    assert "hx-trigger" not in page, "asked no more"
    assert "840 ms" in page
    assert 'action="/sessions/open" target="_blank" rel="noopener"' in page


def test_a_first_workspace_that_failed_says_why(visitor: Visitor, core: Core) -> None:
    visitor.post("/sessions/first")
    move(core, only(core).uuid, Status.FAILED, reason="No room")
    page = visitor.get(f"/sessions/{only(core).uuid}/first").text
    assert "It did not start" in page
    assert "No room" in page


def test_open_leads_to_a_link_for_one_use(visitor: Visitor, core: Core) -> None:
    uuid = created(visitor, core)
    page = visitor.post("/sessions/open", {"uuid": uuid}).text
    target = html.unescape(re.findall(r'http-equiv="refresh" content="0; url=([^"]+)"', page)[0])
    assert target.startswith(f"http://vs-code-{uuid}.")
    assert html.unescape(re.findall(r'<a class="button primary" href="([^"]+)"', page)[0]) == target


def test_several_sleep_and_wake_in_one_go(visitor: Visitor, core: Core) -> None:
    first, second = created(visitor, core), created(visitor, core)
    gone = created(visitor, core, Status.TERMINATING)
    answer = visitor.post("/sessions/sleep", {"uuid": [first, second, gone]})  # type: ignore[dict-item]
    assert "2 sessions go to sleep." in answer.text
    assert f"One was refused ({gone})" in answer.text
    assert [core.store.get(uuid).status for uuid in (first, second)] == [Status.SLEEPING] * 2
    answer = visitor.post("/sessions/wake", {"uuid": first})
    assert "One session wakes up." in answer.text
    assert core.store.get(first).status is Status.WAKING


def test_too_many_or_none_are_refused(visitor: Visitor) -> None:
    for uuids in ([], [f"{number:08d}" for number in range(51)], ["../admin"], ["k3v9x0qa", "x"]):
        answer = visitor.post("/sessions/sleep", {"uuid": uuids})  # type: ignore[dict-item]
        assert answer.status_code == 400, uuids


def test_the_dialog_of_a_deletion_shows_what_is_at_risk(visitor: Visitor, core: Core) -> None:
    uuid = created(visitor, core)
    risk = {
        "uncommitted": {"count": 7, "names": ["<img src=x onerror=alert(1)>", "b.py"]},
        "jobs": {"count": 1, "names": []},
        "complete": False,
    }
    move(core, uuid, Status.SLEEPING, unsaved_work=risk, waiting=1)
    add_backup(core, uuid)
    page = " ".join(visitor.get(f"/sessions/delete?uuid={uuid}").text.split())
    assert f"Delete the session <code>{uuid}</code> of ada?" in page
    assert (
        "When it was last stopped: 7 files not committed: &lt;img src=x onerror=alert(1)&gt;, b.py and 5 more" in page
    )
    assert "<img" not in page
    assert "1 program running in a terminal" in page
    assert "not everything could be checked" in page
    assert "1 prompt is not answered yet" in page
    assert "1 file, 6 B" in page
    assert "partial" not in page


def test_a_workspace_that_is_awake_is_asked_what_is_unsaved(
    visitor: Visitor, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It alone: several would take seconds each. One that does not answer is said not to."""
    uuid, other = created(visitor, core), created(visitor, core)
    answers: list[dict[str, Any] | None] = [None, {"unsaved": {"count": 1, "names": ["a.py"]}, "complete": True}]
    monkeypatch.setattr("app.api.activity.asked_risk", lambda _: answers.pop(0))
    assert "Unsaved work is not known" in visitor.get(f"/sessions/delete?uuid={uuid}").text
    assert "Now: 1 unsaved file: a.py" in visitor.get(f"/sessions/delete?uuid={uuid}").text
    assert "is not known" not in visitor.get(f"/sessions/delete?uuid={uuid}&uuid={other}").text
    assert answers == []


def test_the_dialog_says_that_the_agent_is_at_work(visitor: Visitor, core: Core) -> None:
    uuid = created(visitor, core)
    core.store.change(uuid, time.time(), signals={"turn": Signal(time.time()), "editor": Signal(time.time() - 130)})
    page = visitor.get(f"/sessions/delete?uuid={uuid}").text
    assert "Its agent was at work just now, somebody used the editor 2 min ago." in page
    assert "It has no backup yet" in page


def test_a_partial_backup_is_offered_after_files_could_not_be_read(visitor: Visitor, core: Core) -> None:
    uuid = created(visitor, core, Status.FAILED)
    core.store.change(uuid, 1.0, reason_code="backup_incomplete")
    assert 'value="partial" checked' in visitor.get(f"/sessions/delete?uuid={uuid}").text
    visitor.post("/sessions/delete", {"uuid": uuid, "backup": "partial"})
    assert core.store.get(uuid).delete_partial


def test_delete_backs_up_unless_the_person_typed_what_is_lost(visitor: Visitor, core: Core) -> None:
    kept, lost = created(visitor, core), created(visitor, core)
    assert "One session is being backed up, and then deleted." in visitor.post("/sessions/delete", {"uuid": kept}).text
    assert core.store.get(kept).delete_backup
    for confirm in ("", kept):
        answer = visitor.post("/sessions/delete", {"uuid": lost, "backup": "false", "confirm": confirm})
        assert f"Type {lost}" in answer.text
        assert core.store.get(lost).status is Status.ACTIVE
    visitor.post("/sessions/delete", {"uuid": lost, "backup": "false", "confirm": lost})
    record = core.store.get(lost)
    assert (record.status, record.delete_backup) == (Status.TERMINATING, False)


def test_everything_is_erased_if_the_person_typed_what(visitor: Visitor, core: Core) -> None:
    uuid = created(visitor, core)
    fields = {"uuid": uuid, "backup": "true", "erase": "true"}
    answer = visitor.post("/sessions/delete", fields)
    assert f"Type {uuid} to erase everything" in answer.text and 'name="erase" value="true" checked' in answer.text
    assert core.store.get(uuid).status is Status.ACTIVE
    assert "One session is being erased." in visitor.post("/sessions/delete", fields | {"confirm": uuid}).text
    record = core.store.get(uuid)
    assert (record.delete_backup, record.delete_erase) == (False, True)


def test_several_are_deleted_without_a_backup_by_their_number(visitor: Visitor, core: Core) -> None:
    uuids = [created(visitor, core) for _ in range(2)]
    fields = {"uuid": uuids, "backup": "false", "confirm": "2 sessions"}
    assert "2 sessions are being deleted" in visitor.post("/sessions/delete", fields).text  # type: ignore[arg-type]


def test_a_strange_choice_deletes_nothing(visitor: Visitor, core: Core) -> None:
    uuid = created(visitor, core)
    assert visitor.post("/sessions/delete", {"uuid": uuid, "backup": "no"}).status_code == 400
    assert core.store.get(uuid).status is Status.ACTIVE


def test_a_session_that_is_not_there_has_no_dialog(visitor: Visitor) -> None:
    for uuid in ("aaaaaaaa", "a%3Fb=c%26", "..%2F..%2Faa"):
        assert visitor.get(f"/sessions/delete?uuid={uuid}").status_code in (400, 404)


@pytest.mark.parametrize("path", ["create", "first", "open", "wake", "sleep", "delete"])
def test_another_origin_changes_nothing(visitor: Visitor, core: Core, path: str) -> None:
    uuid = created(visitor, core)
    for options in ({"origin": "http://vs-code-k3v9x0qa.localhost:8000"}, {"headers": {"X-CSRF-Token": "x"}}):
        answer = visitor.post(f"/sessions/{path}", {"uuid": uuid, "user_id": "eve"}, **options)
        assert answer.status_code == 403
    assert only(core).status is Status.ACTIVE
