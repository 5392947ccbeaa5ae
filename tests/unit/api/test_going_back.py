"""The calls that go back: rollback and fork."""

from __future__ import annotations

import time
from typing import Any
from unittest.mock import Mock

import pytest

from app.core.composition import Core
from app.core.errors import StateUnavailable
from app.core.redis import keys, task_queue
from app.core.restore_points.names import reference
from app.core.sessions.model import Status
from app.core.storage.archive_keys import new_key
from tests.fake_agent import FakeAgent
from tests.unit.api.helpers import ASYNC, ONCE, POINT, Client, check_problem, move, new_session, put_point

SAVED = "p000000000000002"
FILES = "0123456789abcdef"
FIND, RESTORE = "GET /checkpoints/first", "POST /checkpoints/first/restore"

pytestmark = pytest.mark.settings(archive_key=new_key(), wait_default=0.2)


@pytest.fixture
def uuid(client: Client, core: Core) -> str:
    """An active session with the restore point `POINT`."""
    made = new_session(client, labels={"course": "python"})
    move(core, made, Status.ACTIVE, provisioned=True, compute_since=time.time())
    put_point(core, made)
    return made


def roll_back(client: Client, uuid: str, headers: Any = None, **to: str) -> Any:
    return client.post(f"/session/{uuid}/rollback", json=to, headers=headers or {})


def fork(client: Client, uuid: str, headers: Any = None, **of: str) -> Any:
    return client.post(f"/session/{uuid}/fork", json=of, headers=headers or {})


# Rollback


def test_a_rollback_is_an_intent(client: Client, core: Core, uuid: str) -> None:
    answer = roll_back(client, uuid, ASYNC, restore_point=POINT)
    assert (answer.status_code, answer.json["session"]["status"]) == (202, "waking")
    assert (answer.json["session"]["rollback_to"], answer.json["session"]["rolled_back"]) == (POINT, None)
    record = core.store.get(uuid)
    assert (record.task, record.rollback_to) == (task_queue.ROLLBACK, POINT)


def test_the_wait_ends_with_the_session(client: Client, core: Core, uuid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resend = core.sessions.resend

    def done(record: object) -> None:
        resend(record)  # type: ignore[arg-type]
        told = {"restore_point": POINT, "files_of": "2026-01-01T00:00:00.000Z", "saved": None}
        core.store.change(uuid, time.time(), rollback_to="", rolled_back=told)
        move(core, uuid, Status.ACTIVE)

    monkeypatch.setattr(core.sessions, "resend", done)
    answer = roll_back(client, uuid, restore_point=POINT)
    assert (answer.status_code, answer.json["session"]["status"]) == (200, "active")
    assert answer.json["session"]["rolled_back"]["restore_point"] == POINT


def test_one_that_is_called_off_is_a_problem(
    client: Client, core: Core, uuid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    why = "The store is away."

    def called_off(record: object) -> None:
        core.store.change(uuid, time.time(), rollback_to="", rolled_back={"error": why})

    monkeypatch.setattr(core.sessions, "resend", called_off)
    answer = roll_back(client, uuid, restore_point=POINT)
    assert why in str(check_problem(answer, 409, "rollback_failed")["detail"])


def test_what_is_refused(client: Client, bound: Client, core: Core, uuid: str) -> None:
    both = {"restore_point": POINT, "message_id": "m"}
    for call, wrong in ((roll_back, ({}, both, {"restore_point": "x"})), (fork, (both,))):
        for body in wrong:
            check_problem(call(client, uuid, **body), 400, "invalid_request")
        check_problem(call(client, uuid, restore_point="p000000000000009"), 404, "restore_point_not_found")
        check_problem(call(bound, uuid, restore_point=POINT), 404, "session_not_found")
    check_problem(roll_back(client, uuid, message_id="m"), 404, "message_not_found")
    put_point(core, uuid, broken=True)
    check_problem(roll_back(client, uuid, restore_point=POINT), 409, "illegal_state")
    put_point(core, uuid)
    move(core, uuid, Status.TERMINATING)
    for call in (roll_back, fork):
        check_problem(call(client, uuid, restore_point=POINT), 409, "illegal_state")


@pytest.mark.settings(archive_key="")
def test_without_an_archive_key_there_is_none(client: Client, uuid: str) -> None:
    check_problem(roll_back(client, uuid, restore_point=POINT), 409, "restore_points_off")
    check_problem(fork(client, uuid), 409, "restore_points_off")


# By message


@pytest.fixture
def awake(core: Core, uuid: str, agent: FakeAgent) -> FakeAgent:
    """The session's agent, which has no checkpoint of its prompt `first`."""
    assert core.inbox.agent_here(uuid, agent.address, "pod", "boot", time.time())
    core.inbox.take(uuid, "do", "first", now=time.time())
    return agent


@pytest.fixture
def undoing(awake: FakeAgent) -> FakeAgent:
    """The session's agent, which can undo its prompt `first`."""
    awake.restored = {"files": 3, "ms": 20, "messages_cut": ["first"]}
    return awake


@pytest.fixture
def saves(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each restore point that is asked for is made at once."""
    ask = core.sessions.ask_for_point

    def made(uuid: str, trigger: str, request_id: str = "") -> None:
        ask(uuid, trigger, request_id)
        core.store.change(uuid, time.time(), point=SAVED, point_at=time.time())

    monkeypatch.setattr(core.sessions, "ask_for_point", made)


def asked(agent: FakeAgent) -> list[str]:
    """What the agent was asked for, besides fingerprints."""
    return [f"{method} {path}" for method, path, _ in agent.requests if path != "/fingerprint"]


@pytest.mark.usefixtures("saves")
def test_a_message_is_undone_by_the_agent(client: Client, core: Core, uuid: str, undoing: FakeAgent) -> None:
    for name in ("second", "third"):
        core.inbox.take(uuid, "do", name, now=time.time())
    for name in ("first", "second"):
        core.inbox.delivered(uuid, name, time.time())
    core.inbox.finish(uuid, "first", response={"text": "done"}, now=time.time())
    undoing.restored["messages_cut"] = ["first", "second", "*"]
    answer = roll_back(client, uuid, message_id="first")
    assert (answer.status_code, answer.json["session"]["status"]) == (200, "active")
    told = answer.json["session"]["rolled_back"]
    assert (told["restored"], told["message_id"], told["files"]) == ("checkpoint", "first", 3)
    assert told["saved"] == SAVED
    assert asked(undoing) == [FIND, RESTORE]
    assert core.store.get(uuid).point_trigger == "rollback"
    for name, state in (("first", "processed"), ("second", "failed"), ("third", "failed")):
        shown = client.get(f"/session/{uuid}/messages/{name}").json
        assert (shown["state"], shown["rolled_back_at"] is not None) == (state, True)
    assert core.inbox.unfinished(uuid) == []


def test_nothing_is_undone_before_the_present_state_is_saved(
    client: Client, core: Core, uuid: str, undoing: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    undoing.running = True
    check_problem(roll_back(client, uuid, message_id="first"), 504, "restore_point_late")
    assert asked(undoing) == [FIND]
    assert undoing.running and not core.inbox.get(uuid, "first").rolled_back_at
    assert (core.store.get(uuid).point_trigger, core.store.get(uuid).rolled_back) == ("rollback", {})

    # The point goes on being made, and is enough for the next call, however long it took, if nothing changed since.
    ask = core.sessions.ask_for_point
    monkeypatch.setattr(core.sessions, "ask_for_point", lambda *_: pytest.fail("no point more is needed"))
    put_point(core, uuid, id=SAVED, created_at=time.time(), fingerprint=FILES)
    undoing.fingerprint = FILES
    done = roll_back(client, uuid, message_id="first")
    assert (done.status_code, done.json["session"]["rolled_back"]["saved"]) == (200, SAVED)

    # Not for one that changed something.
    monkeypatch.setattr(core.sessions, "ask_for_point", ask)
    undoing.undone.clear()
    undoing.fingerprint = FILES[::-1]
    check_problem(roll_back(client, uuid, message_id="first"), 504, "restore_point_late")


def test_a_point_that_can_not_read_all_files_is_not_enough(
    client: Client, core: Core, uuid: str, undoing: FakeAgent
) -> None:
    """They may be readable now."""
    undoing.fingerprint = FILES
    put_point(core, uuid, fingerprint=FILES, unreadable=1)
    check_problem(roll_back(client, uuid, message_id="first"), 504, "restore_point_late")


@pytest.mark.usefixtures("undoing")
def test_a_state_that_can_not_be_saved_says_why(
    client: Client, core: Core, uuid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once: the next attempt may be minutes away."""
    ask, why = core.sessions.ask_for_point, "The store is full."

    def fail(*given: str) -> None:
        ask(*given)
        core.store.change(uuid, time.time(), point_error=why)

    monkeypatch.setattr(core.sessions, "ask_for_point", fail)
    answer = roll_back(client, uuid, {"Prefer": "wait=60"}, message_id="first")
    assert why in str(check_problem(answer, 504, "restore_point_late")["detail"])


@pytest.mark.usefixtures("undoing")
def test_a_point_that_began_before_the_call_is_followed_by_another(client: Client, core: Core, uuid: str) -> None:
    core.sessions.ask_for_point(uuid, "interval")
    under_way = core.store.get(uuid).point_asked
    roll_back(client, uuid, message_id="first")
    assert not core.store.settle_point(uuid, under_way)


@pytest.mark.usefixtures("undoing", "saves")
def test_an_undo_whose_answer_was_lost_still_names_the_state_before(
    client: Client, core: Core, uuid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as lost:
        lost.setattr(core.inbox, "end_as_rolled_back", Mock(side_effect=StateUnavailable("killed")))
        check_problem(roll_back(client, uuid, message_id="first"), 503, "state_unavailable")
    monkeypatch.setattr(core.sessions, "ask_for_point", lambda *_: pytest.fail("that state is gone"))
    assert roll_back(client, uuid, message_id="first").json["session"]["rolled_back"]["saved"] == SAVED


@pytest.mark.usefixtures("saves")
def test_a_turn_is_cancelled_only_for_an_undo(client: Client, core: Core, uuid: str, agent: FakeAgent) -> None:
    """Not where there is nothing to restore."""
    assert core.inbox.agent_here(uuid, agent.address, "pod", "boot", time.time())
    core.inbox.take(uuid, "do", "first", now=time.time() - 3_600)
    agent.running = True
    check_problem(roll_back(client, uuid, message_id="first"), 404, "restore_point_not_found")
    assert agent.running
    agent.restored = {"files": 3, "ms": 20, "messages_cut": ["first"]}
    assert roll_back(client, uuid, message_id="first").status_code == 200
    assert asked(agent) == [FIND, FIND, RESTORE, "POST /cancel", RESTORE]


def test_without_a_checkpoint_the_restore_point_before_it_is_restored(
    client: Client, core: Core, uuid: str, awake: FakeAgent
) -> None:
    assert roll_back(client, uuid, ASYNC, message_id="first").status_code == 202
    assert core.store.get(uuid).rollback_to == POINT
    assert asked(awake) == [FIND]
    assert not core.store.pending(keys.POINT_REQUESTS, uuid), "the rollback saves the state by itself"


def test_a_message_from_before_all_points_can_not_be_undone(client: Client, core: Core, uuid: str) -> None:
    core.inbox.take(uuid, "do", "first", now=time.time() - 3_600)
    check_problem(roll_back(client, uuid, ASYNC, message_id="first"), 404, "restore_point_not_found")


# Fork


def test_a_fork_starts_with_the_point_once_for_a_key(client: Client, core: Core, uuid: str) -> None:
    answer, again = (fork(client, uuid, ONCE, restore_point=POINT) for _ in range(2))
    assert (answer.status_code, again.json["uuid"]) == (201, answer.json["uuid"])
    made = core.store.get(answer.json["uuid"])
    source = core.store.get(uuid)
    assert (made.user_id, made.restore_from) == (source.user_id, reference(uuid, POINT))
    assert (answer.json["forked_from"], answer.json["restore_point"]) == (uuid, POINT)
    assert core.restore_points.needed(uuid) == [POINT]


def test_a_fork_for_another_user_takes_no_choices_along(client: Client, core: Core, uuid: str) -> None:
    own = fork(client, uuid, restore_point=POINT).json["uuid"]
    other = fork(client, uuid, restore_point=POINT, user_id="ben").json["uuid"]
    assert core.store.get(own).labels == {"course": "python"}
    assert (core.store.get(other).user_id, core.store.get(other).labels) == ("ben", {})


def test_a_fork_by_message_takes_the_point_before_it(client: Client, core: Core, uuid: str) -> None:
    core.inbox.take(uuid, "do", "first", now=time.time())
    assert fork(client, uuid, message_id="first").json["restore_point"] == POINT


def test_a_point_whose_files_were_still_read_is_not_from_before_a_message(
    client: Client, core: Core, uuid: str
) -> None:
    """It may have what the prompt did."""
    now = time.time()
    core.inbox.take(uuid, "do", "first", now=now)
    put_point(core, uuid, read_until=now - 1)
    put_point(core, uuid, id=SAVED, created_at=now - 30, read_until=now + 1)
    assert fork(client, uuid, message_id="first").json["restore_point"] == POINT
    assert fork(client, uuid, restore_point=SAVED).json["restore_point"] == SAVED


def test_a_fork_of_now_asks_for_a_point(client: Client, core: Core, uuid: str) -> None:
    check_problem(fork(client, uuid), 504, "restore_point_late")
    assert core.store.pending(keys.POINT_REQUESTS, uuid)


def test_a_fork_of_a_sleeping_session_takes_its_newest_point(client: Client, core: Core, uuid: str) -> None:
    now = time.time()
    move(core, uuid, Status.SLEEPING, point=POINT, point_at=now, compute_since=0.0, compute_until=now - 1)
    assert client.post(f"/session/{uuid}/fork").json["restore_point"] == POINT
