"""`DELETE /session/{uuid}?erase=true` as its callers see it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest

from app.core.composition import Core
from app.core.prompts.history_store import Checkpoint
from app.core.redis import keys, task_queue
from app.core.sessions.model import Record, Status
from tests.fakes import FakeRuntime
from tests.unit.api.helpers import (
    ASYNC,
    LONG_WAIT,
    ONCE,
    Client,
    add_backup,
    changes,
    check_problem,
    create,
    meanwhile,
    move,
    new_session,
    terminate,
)
from workers.erasing import Erasing


def ask(client: Client, uuid: str, headers: Mapping[str, str] = ASYNC) -> Any:
    return client.delete(f"/session/{uuid}?erase=true", headers=headers)


def erase(core: Core, uuid: str) -> None:
    Erasing(core, FakeRuntime()).erase(uuid)


def finish(core: Core, uuid: str) -> None:
    """What the workers do."""
    move(core, uuid, Status.TERMINATED)
    erase(core, uuid)


def test_it_waits_until_nothing_is_left_and_answers_the_same_again(client: Client, core: Core, uuid: str) -> None:
    meanwhile(changes(core, uuid), lambda: finish(core, uuid))
    first = ask(client, uuid, LONG_WAIT)
    assert first.status_code == 200
    message = "Session erased, with its backups, restore points and conversation"
    assert first.json == {"uuid": uuid, "status": "terminated", "message": message, "backup": None, "risk": None}
    shown = client.get(f"/session/{uuid}").json["session"]
    assert (shown["status"], shown["user_id"]) == ("terminated", f"erased-{uuid}")
    meanwhile(lambda: core.erasures.pending(uuid), lambda: erase(core, uuid))
    again = client.delete(f"/session/{uuid}?erase=True", headers=LONG_WAIT)
    assert (again.status_code, again.json) == (200, first.json)


def test_while_it_goes_on_the_session_is_terminating(client: Client, core: Core) -> None:
    """Also after its workspace is gone; whatever `backup` says, none is made."""
    uuid = new_session(client)
    for _ in range(2):
        answer = client.delete(f"/session/{uuid}?erase=true&backup=partial", headers=ASYNC)
        assert (answer.status_code, answer.json["status"]) == (202, "terminating")
        record = core.store.get(uuid)
        assert (record.delete_backup, record.delete_erase) == (False, True)
        if record.status is Status.TERMINATING:
            move(core, uuid, Status.TERMINATED)
    assert core.erasures.pending(uuid)


def test_a_failed_deletion_is_told(client: Client, core: Core) -> None:
    uuid = new_session(client)
    ask(client, uuid)
    move(core, uuid, Status.FAILED, reason="the node is lost")
    meanwhile(changes(core, uuid), lambda: move(core, uuid, Status.FAILED, reason="again"))
    answer = ask(client, uuid, LONG_WAIT)
    assert check_problem(answer, 409, "teardown_failed")["detail"] == "again"


def test_a_restore_under_way_is_a_conflict(client: Client, core: Core) -> None:
    uuid, other = new_session(client), new_session(client)
    core.redis.hset(keys.IN_USE, other, f"app-{uuid}-20260101-000000.zip")
    problem = check_problem(ask(client, uuid), 409, "backup_in_use")
    assert f"app-{uuid}-20260101-000000.zip" in str(problem["detail"])
    assert core.store.get(uuid).status is Status.CREATED
    terminate(core, uuid)
    check_problem(ask(client, uuid), 409, "backup_in_use")
    assert not core.erasures.pending(uuid)


@pytest.mark.parametrize("left", ["ledger", "conversation"])
def test_what_is_left_without_a_record_can_be_erased(client: Client, core: Core, left: str) -> None:
    uuid = "aaaa0001"
    check_problem(ask(client, uuid), 404, "session_not_found")
    if left == "ledger":
        core.redis.hset(keys.LEDGER_SESSION.format(uuid=uuid), "user_id", "ada@example.com")
    else:
        core.history_store.write(uuid, Checkpoint())
    meanwhile(lambda: core.erasures.pending(uuid), lambda: erase(core, uuid))
    answer = ask(client, uuid, LONG_WAIT)
    assert (answer.status_code, answer.json["status"]) == (200, "terminated")
    assert core.history_store.last_written(uuid) is None


def test_a_key_erases_only_what_it_may_see(bound: Client, core: Core) -> None:
    """What has no user any more is for keys that see all."""
    core.redis.hset(keys.LEDGER_SESSION.format(uuid="aaaa0001"), "user_id", "somebody@else.com")
    core.history_store.write("bbbb0002", Checkpoint())
    for other in ("aaaa0001", "bbbb0002"):
        check_problem(ask(bound, other), 404, "session_not_found")


def test_its_own_entry_in_the_audit_names_no_user(client: Client, core: Core) -> None:
    uuid = new_session(client)
    ask(client, uuid)
    entry = core.audit.page(uuid=uuid).entries[0]
    assert (entry.act.action, entry.act.reason, entry.act.user_id) == ("delete", "erase", f"erased-{uuid}")


def test_its_task_is_enqueued_for_what_is_terminated(client: Client, core: Core, uuid: str) -> None:
    terminate(core, uuid)
    ask(client, uuid)
    assert core.tasks.waiting().has(task_queue.ERASE, uuid)
    assert core.erasures.due(time.time() + core.settings.stale_after + 1) == [uuid]


def test_a_kept_answer_to_its_creation_is_erased(client: Client, core: Core) -> None:
    """It names the user. Those to other creations of the same key stay, and a repetition makes no second session."""
    other: Any = {"headers": {"Idempotency-Key": "other"}, "user_id": "ben"}
    created, kept = create(client, ONCE), create(client, **other).json["uuid"]
    backup = add_backup(core, created.json["uuid"]).name
    restored = client.post(f"/backups/{backup}/restore", headers={"Idempotency-Key": "restored"})
    assert len(core.redis.keys("idempotency:*")) == 3
    for answer in (restored, created):
        uuid = answer.json["uuid"]
        core.store.change(uuid, time.time(), restore_from="")
        ask(client, uuid)
        finish(core, uuid)
    (left,) = core.redis.keys("idempotency:*")
    assert kept in str(core.redis.get(left))
    others = keys.NAMING_ANSWERS.format(uuid=kept)
    assert core.redis.keys(keys.NAMING_ANSWERS.format(uuid="?" * 8)) == [others]
    assert create(client, **other).headers["Idempotency-Replayed"] == "true"
    again = create(client, ONCE).json
    assert (again["uuid"], again["user_id"]) == (uuid, f"erased-{uuid}")


@pytest.mark.parametrize("call", ["create", "wake"])
def test_a_call_that_outlasts_the_erasure_keeps_no_answer(
    client: Client, core: Core, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would name the user again."""
    key = {"Idempotency-Key": "once", "Prefer": "wait=30"}
    path = "/session/create" if call == "create" else f"/session/{new_session(client)}/wake"

    def erased_meanwhile(uuid: str, *_: object) -> Record:
        core.sessions.delete(uuid, backup=False, erase=True)
        finish(core, uuid)
        return core.store.get(uuid)

    with monkeypatch.context() as waits:
        waits.setattr(core.sessions, "wait", erased_meanwhile)
        client.post(path, json={"user_id": "ada"} if call == "create" else None, headers=key)
    assert core.store.uuids([Status.TERMINATED])
    assert core.redis.keys("idempotency:*") == []
    assert core.redis.keys("answers:*") == []
