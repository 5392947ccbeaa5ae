"""The calls on sessions: bodies, statuses, waiting."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from app.agent.protocol import ServiceState
from app.core.composition import Core
from app.core.sessions.model import Status, iso
from app.core.sessions.reported_services import ReportedService
from tests.unit.api.helpers import (
    ASYNC,
    LONG_WAIT,
    Client,
    add_backup,
    changes,
    check_problem,
    create,
    meanwhile,
    move,
    new_session,
)

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def shown(client: Client, uuid: str) -> Any:
    return client.get(f"/session/{uuid}").json["session"]


def test_create_answers_201_with_the_contracts_fields(client: Client) -> None:
    answer = create(client)
    body = answer.json
    assert answer.status_code == 201
    assert body.keys() == {"uuid", "user_id", "status", "workspace_url", "created_at"}
    assert re.fullmatch("[0-9a-z]{8}", body["uuid"])
    assert body["status"] == "created"
    assert body["workspace_url"] == f"http://vs-code-{body['uuid']}.localhost"
    assert TIME.fullmatch(body["created_at"])
    assert answer.headers["Location"] == f"/session/{body['uuid']}"


def test_create_keeps_what_the_caller_chose(client: Client, core: Core) -> None:
    backup = add_backup(core).name
    chosen: dict[str, Any] = {"size": "large", "ttl": 60, "idle_timeout": 0, "labels": {"course": "Python 101 é"}}
    session = shown(client, new_session(client, restore_from=backup, **chosen))
    assert {name: session[name] for name in (*chosen, "restore_from")} == chosen | {"restore_from": backup}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "user_id"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": "a b"}, "user_id"),
        ({"user_id": "ada\n"}, "user_id"),
        ({"user_id": "a\x00"}, "user_id"),
        ({"user_id": "x" * 129}, "user_id"),
        ({"user_id": 7}, "user_id"),
        ({"user_id": "ada", "nope": 1}, "nope"),
        ({"user_id": "ada", "size": "huge"}, "size"),
        ({"user_id": "ada", "ttl": -1}, "ttl"),
        ({"user_id": "ada", "ttl": "60"}, "ttl"),
        ({"user_id": "ada", "ttl": True}, "ttl"),
        ({"user_id": "ada", "ttl": 10**400}, "ttl"),
        ({"user_id": "ada", "restore_from": "../etc"}, "restore_from"),
        ({"user_id": "ada", "labels": {"": "x"}}, "labels..key"),
        ({"user_id": "ada", "labels": {"k": "\ud800"}}, "labels.k.value"),
        ({"user_id": "ada", "labels": {f"k{n}": "" for n in range(33)}}, "labels"),
        ([1], "body"),
    ],
)
def test_create_names_the_field_that_is_not_acceptable(client: Client, body: object, field: str) -> None:
    problem = check_problem(client.post("/session/create", json=body), 400, "invalid_request")
    assert field in problem["errors"]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("data", "content_type", "status", "code"),
    [
        (b"{", "application/json", 400, "invalid_json"),
        (b"\xff\xfe", "application/json", 400, "invalid_json"),
        (b'{"ttl": ' + b"9" * 5000 + b"}", "application/json", 400, "invalid_json"),
        (b"[" * 999, "application/json", 400, "invalid_json"),
        (b"[" * 50_000, "application/json", 422, "json_too_complex"),
        (b"x" * 65_537, "application/json", 413, "payload_too_large"),
        (b'{"user_id": "ada", "ttl": NaN}', "application/json", 400, "invalid_request"),
        (b"user_id=ada", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
        (b'{"user_id": "ada"}', "application/json; charset=latin-1", 415, "unsupported_media_type"),
        (b'{"user_id": "ada"}', "", 415, "unsupported_media_type"),
        (b"x" * 1_048_577, "application/json", 413, "payload_too_large"),
    ],
)
def test_a_body_that_is_no_json_is_refused(
    client: Client, data: bytes, content_type: str, status: int, code: str
) -> None:
    check_problem(client.post("/session/create", data=data, content_type=content_type), status, code)


def test_create_from_an_unknown_backup_is_404(client: Client) -> None:
    answer = create(client, restore_from="app-k3v9x0qa-20261120-080000.zip")
    check_problem(answer, 404, "backup_not_found")


@pytest.mark.slow
def test_create_waits_for_active_only_when_asked_to(client: Client) -> None:
    answer = create(client, {"Prefer": "wait=1"})
    assert (answer.status_code, answer.json["status"]) == (201, "created")
    assert answer.headers["Preference-Applied"] == "wait=1"


@pytest.mark.parametrize("call", ["create", "restore"])
@pytest.mark.parametrize(("ended", "code"), [(Status.FAILED, "start_failed"), (Status.TERMINATING, "superseded")])
def test_a_start_that_failed_names_its_session(client: Client, core: Core, call: str, ended: Status, code: str) -> None:
    """It is there, and counts: who made it can look at it, wake it or delete it. A repetition is about the same one."""
    path = "/session/create" if call == "create" else f"/backups/{add_backup(core).name}/restore"
    headers = LONG_WAIT | {"Idempotency-Key": "k1"}

    def end() -> None:
        [record] = core.sessions.page(user_id="ada").items
        move(core, record.uuid, ended, reason="the editor exited with 1")

    meanwhile(lambda: core.sessions.page(user_id="ada").items, end)
    answer = client.post(path, json={"user_id": "ada"}, headers=headers)
    [record] = core.sessions.page(user_id="ada").items
    assert client.get(answer.headers["Location"]).json["session"]["status"] == ended
    again = client.post(path, json={"user_id": "ada"}, headers=headers)
    for told in (answer, again):
        assert check_problem(told, 409, code)["uuid"] == record.uuid
        assert told.headers["Location"] == f"/session/{record.uuid}"
    assert core.sessions.page(user_id="ada").total == 1


@pytest.mark.parametrize("path", ["/session/{}", "/session/{}/status"])
def test_status_has_the_contracts_fields(client: Client, core: Core, path: str) -> None:
    uuid = new_session(client)
    move(core, uuid, Status.ACTIVE, replicas=1, pod_name="local", phases={"ready": 412})
    body = client.get(path.format(uuid)).json
    assert {"uuid", "session", "replicas", "queue_length", "phases", "timestamp"} <= body.keys()
    contract = {"user_id", "status", "created_at", "last_activity", "expires_at", "workspace_url", "pod_name", "reason"}
    assert contract <= body["session"].keys()
    assert body["session"]["status"] == "active"
    assert (body["replicas"], body["queue_length"], body["phases"]) == (1, 0, {"ready": 412})
    assert TIME.fullmatch(body["timestamp"])


def test_what_a_start_waits_for_is_shown_and_told(client: Client, core: Core) -> None:
    """For a person, and for a program; also to whoever begins to listen only then."""
    uuid = new_session(client)

    def why() -> tuple[str | None, ...]:
        session = shown(client, uuid)
        return session["status"], session["reason"], session["reason_code"]

    assert why() == ("created", None, None)
    core.store.change(uuid, time.time(), reason="No machine has room.", reason_code="no_capacity")
    assert why() == ("created", "No machine has room.", "no_capacity")
    first = next(iter(client.get(f"/session/{uuid}/events").response))
    assert '"reason_code": "no_capacity"' in str(first)
    core.sessions.sleep(uuid)
    assert why() == ("sleeping", None, None)


def test_wake_answers_at_once_where_it_is(client: Client, core: Core, uuid: str) -> None:
    assert client.post(f"/session/{uuid}/wake").json["status"] == "active"
    move(core, uuid, Status.SLEEPING)
    assert client.post(f"/session/{uuid}/wake").json == {"uuid": uuid, "action": "wake", "status": "waking"}


def test_sleep_is_queued_only_until_it_is_done(client: Client, core: Core, uuid: str) -> None:
    asleep = {"uuid": uuid, "action": "sleep", "status": "sleeping"}
    answer = client.post(f"/session/{uuid}/sleep")
    assert (answer.status_code, answer.json) == (200, asleep | {"message": "Pod queued for sleep"})
    core.store.change(uuid, time.time(), settle=True)
    for headers in ({}, {"Prefer": "wait=5"}):
        assert client.post(f"/session/{uuid}/sleep", headers=headers).json == asleep | {"message": "Pod is asleep"}


def test_sleep_of_a_session_that_is_still_starting_is_accepted(client: Client) -> None:
    answer = client.post(f"/session/{new_session(client)}/sleep")
    assert (answer.status_code, answer.json["status"]) == (200, "sleeping")


def test_scale_up_waits_until_the_session_is_active(client: Client, core: Core) -> None:
    uuid = new_session(client)
    meanwhile(changes(core, uuid), lambda: move(core, uuid, Status.ACTIVE))
    answer = client.post(f"/session/{uuid}/scale-up", headers=LONG_WAIT)
    assert answer.status_code == 200
    assert answer.json == {"uuid": uuid, "action": "scale_up", "status": "success", "message": "Pod scaled up"}


@pytest.mark.slow
def test_scale_up_says_where_it_is_when_the_wait_runs_out(client: Client) -> None:
    answer = client.post(f"/session/{new_session(client)}/scale-up")
    assert (answer.status_code, answer.json["status"]) == (202, "created")


def test_scale_up_answers_at_once_when_async_is_preferred(client: Client) -> None:
    answer = client.post(f"/session/{new_session(client)}/scale-up", headers=ASYNC)
    assert (answer.status_code, answer.headers["Preference-Applied"]) == (202, "respond-async")


@pytest.mark.parametrize(
    ("method", "path", "code"), [("POST", "/scale-up", "start_failed"), ("DELETE", "", "teardown_failed")]
)
def test_a_wait_for_what_fails_tells_why(client: Client, core: Core, method: str, path: str, code: str) -> None:
    uuid, reason = new_session(client), "the disk is full"
    meanwhile(changes(core, uuid), lambda: move(core, uuid, Status.FAILED, reason=reason))
    answer = client.open(f"/session/{uuid}{path}", method=method, headers=LONG_WAIT)
    assert check_problem(answer, 409, code)["detail"] == reason


@pytest.mark.slow
def test_scale_down_waits_until_the_processes_are_gone(client: Client, core: Core, uuid: str) -> None:
    """`sleeping` is said at once; only a settled intent means that nothing runs any more."""
    running = client.post(f"/session/{uuid}/scale-down")
    assert (running.status_code, running.json["status"]) == (202, "sleeping")
    core.store.change(uuid, 1.0, settle=True)
    done = client.post(f"/session/{uuid}/scale-down")
    assert done.json == {"uuid": uuid, "action": "scale_down", "status": "success", "message": "Pod scaled down"}


def test_scale_down_that_something_newer_overtook_is_409(client: Client, core: Core, uuid: str) -> None:
    meanwhile(changes(core, uuid), lambda: core.sessions.wake(uuid))
    check_problem(client.post(f"/session/{uuid}/scale-down", headers=LONG_WAIT), 409, "superseded")


def test_delete_waits_and_answers_the_same_again(client: Client, core: Core, uuid: str) -> None:
    backup, unsaved = f"app-{uuid}-20261120-080000.zip", {"jobs": {"count": 1, "names": ["make"]}, "complete": True}
    meanwhile(changes(core, uuid), lambda: move(core, uuid, Status.TERMINATED, backup=backup, unsaved_work=unsaved))
    for headers in (LONG_WAIT, {}):
        answer = client.delete(f"/session/{uuid}", headers=headers)
        assert answer.status_code == 200
        assert answer.json == {
            "uuid": uuid,
            "status": "terminated",
            "message": "Session and all resources deleted",
            "backup": backup,
            "risk": unsaved,
        }
    assert shown(client, uuid)["status"] == "terminated"


def test_the_status_says_when_the_kept_conversation_is_behind(client: Client, core: Core, uuid: str) -> None:
    """At once since when and why; as stale after two intervals, in which the agent has tried again."""
    fine = {"stale": False, "unsaved_since": None, "reason": None}
    assert shown(client, uuid)["conversation"] == fine
    patience = 2 * core.settings.checkpoint_interval
    for age, stale in ((patience - 30, False), (patience + 30, True)):
        since, reason = round(time.time() - age, 3), "The archive is full."
        core.store.change(uuid, time.time(), unarchived={"since": since, "reason": reason})
        told = {"stale": stale, "unsaved_since": iso(since), "reason": reason}
        assert shown(client, uuid)["conversation"] == told
    core.store.change(uuid, time.time(), unarchived={})
    assert shown(client, uuid)["conversation"] == fine


@pytest.mark.parametrize(
    ("query", "kept", "partial"),
    [
        ("", True, False),
        ("?backup=true", True, False),
        ("?backup=false", False, False),
        ("?backup=partial", True, True),
    ],
)
def test_delete_backs_up_unless_told_not_to(client: Client, core: Core, query: str, kept: bool, partial: bool) -> None:
    uuid = new_session(client)
    answer = client.delete(f"/session/{uuid}{query}", headers=ASYNC)
    assert (answer.status_code, answer.json["status"]) == (202, "terminating")
    record = core.store.get(uuid)
    assert (record.delete_backup, record.delete_partial) == (kept, partial)


def test_a_second_delete_says_anew_what_backup_is_wanted(client: Client, core: Core, uuid: str) -> None:
    client.delete(f"/session/{uuid}?backup=partial", headers=ASYNC)
    move(core, uuid, Status.FAILED)
    client.delete(f"/session/{uuid}", headers=ASYNC)
    assert not core.store.get(uuid).delete_partial


@pytest.mark.parametrize(
    "query",
    ["?backup=maybe", "?backup=", "?backup=Partial", "?backup=true&backup=false", "?nope=1", "?erase=", "?erase=1"],
)
def test_delete_refuses_a_query_it_does_not_understand(client: Client, uuid: str, query: str) -> None:
    check_problem(client.delete(f"/session/{uuid}{query}"), 400, "invalid_request")


def test_list_pages_through_all_sessions_newest_first(client: Client) -> None:
    made = [new_session(client, user_id=f"user{number}") for number in range(5)]
    seen, cursor = [], ""
    for _ in range(3):
        page = client.get(f"/sessions?limit=2{cursor}").json
        assert page["total"] == 5
        seen += [session["uuid"] for session in page["sessions"]]
        cursor = f"&cursor={page['next_cursor']}"
    assert page["next_cursor"] is None
    assert sorted(seen) == sorted(made)


def test_a_row_of_a_list_says_what_the_session_itself_says(client: Client, core: Core) -> None:
    uuid = new_session(client, labels={"course": "python-101"})
    move(core, uuid, Status.FAILED, reason="no room", reason_code="no_capacity")
    [row] = client.get("/sessions").json["sessions"]
    full = client.get(f"/session/{uuid}").json
    assert row == {name: (full["session"] | full)[name] for name in row}
    assert (row["labels"], row["reason_code"]) == ({"course": "python-101"}, "no_capacity")
    fields = {"uuid", "user_id", "status", "created_at", "last_activity", "expires_at", "workspace_url", "labels"}
    fields |= {
        "reason",
        "reason_code",
        "queue_length",
        "tier",
        "archived_at",
        "archives_at",
        "services",
        "opened_ports",
    }
    assert row.keys() == fields


def test_the_services_of_a_session_are_shown_and_stopped_where_it_is_not_active(client: Client, core: Core) -> None:
    uuid = new_session(client)
    assert shown(client, uuid)["services"] == []
    web = ReportedService("web", 3_000, ServiceState.RUNNING)
    core.store.note_services(uuid, [web, ReportedService("worker", None, ServiceState.FAILED)])
    told: list[dict[str, Any]] = [
        {"name": "web", "port": 3_000, "state": "running"},
        {"name": "worker", "port": None, "state": "failed"},
    ]
    for status in (Status.ACTIVE, Status.SLEEPING, Status.WAKING, Status.FAILED):
        move(core, uuid, status)
        wanted = told if status is Status.ACTIVE else [each | {"state": "stopped"} for each in told]
        assert shown(client, uuid)["services"] == wanted, status
        [row] = client.get("/sessions").json["sessions"]
        assert row["services"] == wanted
    core.store.note_services(uuid, [])
    assert shown(client, uuid)["services"] == []


def test_the_opened_ports_of_a_session_are_shown_by_number(client: Client, core: Core) -> None:
    uuid = new_session(client)
    assert shown(client, uuid)["opened_ports"] == []
    until = int(time.time()) + 60
    opened = {port: core.openings.open(uuid, port, until if port == 3_000 else 0) for port in (5_173, 3_000)}
    wanted = [
        {
            "port": port,
            "url": f"http://{port}--vs-code-{uuid}.localhost",
            "opened_at": iso(opened[port].opened_at),
            "public_until": iso(opened[port].public_until),
        }
        for port in (3_000, 5_173)
    ]
    assert [each["public_until"] for each in wanted] == [iso(until), None]
    for status in (Status.ACTIVE, Status.SLEEPING):
        move(core, uuid, status)
        assert shown(client, uuid)["opened_ports"] == wanted
    [row] = client.get("/sessions").json["sessions"]
    assert row["opened_ports"] == wanted


def test_list_filters_by_status_user_labels_and_search(client: Client, core: Core) -> None:
    both = new_session(client, labels={"course": "python-101", "team": "blue=green"})
    one = new_session(client, "Bob@example.com", labels={"course": "python-101"})
    move(core, both, Status.ACTIVE)
    for query, wanted in (
        ("status=active", [both]),
        ("user_id=ada", [both]),
        ("user_id=ada&status=active", [both]),
        ("user_id=Bob@example.com&status=active", []),
        ("label=course=python-101", [one, both]),
        ("label=course=python-101&label=team=blue%3Dgreen", [both]),
        ("label=course=", []),
        ("q=BLUE", [both]),
        (f"q={one[2:7].upper()}", [one]),
        ("q=bob@&label=course=python-101&status=created", [one]),
    ):
        page = client.get(f"/sessions?{query}").json
        assert ([row["uuid"] for row in page["sessions"]], page["next_cursor"]) == (wanted, None), query


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=1_0", "limit=x", "limit=", "status=none", "user_id=a%00", "cursor=!", "a=b"]
    + ["label=x", "label==x", "label=a%01=b", "q=", "q=%07", "q=a&q=b", f"q={'a' * 257}", "label=a=b&" * 33 + "q=a"],
)
def test_list_refuses_a_query_it_does_not_understand(client: Client, query: str) -> None:
    check_problem(client.get(f"/sessions?{query}"), 400, "invalid_request")
