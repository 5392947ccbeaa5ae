"""The calls on dead letters: what is shown, and what a retry does."""

from __future__ import annotations

import time
from typing import Any

import pytest

from app.core.composition import Core
from app.core.redis import keys, task_queue
from app.core.redis.dead_letters import DeadLetter
from app.core.sessions.model import Status
from tests.unit.api.helpers import ONCE, Client, check_problem, move


def given_up(core: Core, task: str, uuid: str, *, failed: bool = True, **values: Any) -> DeadLetter:
    """A dead letter as a worker leaves it."""
    args = (uuid,) if task == task_queue.BACKUP else (uuid, core.store.get(uuid).generation)
    if failed:
        move(core, uuid, Status.FAILED, reason="given up")
    letter = DeadLetter(task=task, args=args, at=time.time(), **values)
    core.dead_letters.add(letter)
    return letter


def test_a_dead_letter_is_shown_in_full(client: Client, core: Core, uuid: str) -> None:
    told: dict[str, Any] = {"why": "No node has room.", "error": "RetryableError", "tries": 5, "request_id": "r1"}
    letter = given_up(core, task_queue.WAKE, uuid, **told)
    body = client.get("/dead-letters").json
    assert body["total"] == 1
    assert body["next_cursor"] is None
    [shown] = body["dead_letters"]
    assert shown == {
        "id": letter.id,
        "at": shown["at"],
        "task": "sessions.wake",
        "queue": "wake",
        "uuid": uuid,
        "generation": letter.generation,
        "tries": 5,
        "error": "RetryableError",
        "reason": "No node has room.",
        "request_id": "r1",
    }


def test_pages_follow_one_another_newest_first(client: Client, core: Core) -> None:
    for at in (1.0, 3.0, 2.0):
        core.dead_letters.add(DeadLetter(task=task_queue.BACKUP, args=("k3v9x0qa",), at=at))
    first = client.get("/dead-letters?limit=2").json
    second = client.get(f"/dead-letters?limit=2&cursor={first['next_cursor']}").json
    times = [letter["at"][:19] for page in (first, second) for letter in page["dead_letters"]]
    assert times == ["1970-01-01T00:00:03", "1970-01-01T00:00:02", "1970-01-01T00:00:01"]
    assert second["next_cursor"] is None
    check_problem(client.get("/dead-letters?cursor=x"), 400, "invalid_request")


@pytest.mark.parametrize("task", [task_queue.PROVISION, task_queue.WAKE, task_queue.RESTORE])
def test_a_start_that_is_retried_wakes_the_session(client: Client, core: Core, uuid: str, task: str) -> None:
    """Once, though its call is repeated with the same key."""
    letter = given_up(core, task, uuid)
    for _ in range(2):
        answer = client.post(f"/dead-letters/{letter.id}/retry", headers=ONCE)
        assert answer.status_code == 202
        assert answer.json == {"id": letter.id, "uuid": uuid, "task": task, "status": "waking"}
    record = core.store.get(uuid)
    assert record.generation == (letter.generation or 0) + 1
    assert core.tasks.waiting().has(task_queue.WAKE, uuid, record.generation)
    assert core.dead_letters.count() == 0


@pytest.mark.parametrize("task", [task_queue.LEAVE, task_queue.TEARDOWN])
def test_a_deletion_that_is_retried_demands_the_same_backup(client: Client, core: Core, uuid: str, task: str) -> None:
    core.sessions.delete(uuid, partial=True)
    letter = given_up(core, task, uuid)
    assert client.post(f"/dead-letters/{letter.id}/retry").json["status"] == "terminating"
    record = core.store.get(uuid)
    assert (record.delete_backup, record.delete_partial) == (True, True)
    assert core.tasks.waiting().has(task_queue.TEARDOWN, uuid, record.generation)


def test_a_backup_that_is_retried_is_requested_again(client: Client, core: Core, uuid: str) -> None:
    core.store.change(uuid, time.time(), provisioned=True)
    letter = given_up(core, task_queue.BACKUP, uuid, failed=False)
    assert client.post(f"/dead-letters/{letter.id}/retry").json["status"] == "active"
    assert core.redis.zscore(keys.BACKUP_REQUESTS, uuid) is not None
    assert core.dead_letters.count() == 0


@pytest.mark.parametrize("case", ["woken since", "deleted", "no record", "a sleep"])
def test_a_retry_that_makes_no_sense_is_refused_and_drops_nothing(
    client: Client, core: Core, uuid: str, case: str
) -> None:
    letter = given_up(core, task_queue.SLEEP if case == "a sleep" else task_queue.WAKE, uuid)
    if case == "woken since":
        core.sessions.wake(uuid)
    elif case == "deleted":
        core.sessions.delete(uuid)
        move(core, uuid, Status.TERMINATED)
    elif case == "no record":
        core.redis.delete(keys.SESSION.format(uuid=uuid))
    before = None if case == "no record" else core.store.get(uuid)
    body = check_problem(client.post(f"/dead-letters/{letter.id}/retry"), 409, "illegal_state")
    assert "drop this dead letter" in str(body["detail"]).lower()
    assert core.dead_letters.get(letter.id) == letter
    assert before is None or core.store.get(uuid) == before


def test_one_that_is_dropped_is_gone_and_no_other(client: Client, core: Core, uuid: str) -> None:
    kept, dropped = given_up(core, task_queue.WAKE, uuid), given_up(core, task_queue.WAKE, uuid, failed=False)
    assert client.delete(f"/dead-letters/{dropped.id}").status_code == 204
    assert core.dead_letters.read() == [kept]
    for answer in (client.delete(f"/dead-letters/{dropped.id}"), client.post(f"/dead-letters/{dropped.id}/retry")):
        check_problem(answer, 404, "dead_letter_not_found")


def test_the_newest_thousand_are_kept(core: Core) -> None:
    for number in range(1_003):
        core.dead_letters.add(DeadLetter(task=task_queue.BACKUP, args=("k3v9x0qa",), at=float(number)))
    found = core.dead_letters.read()
    assert (len(found), found[0].at, found[-1].at) == (1_000, 1_002.0, 3.0)
