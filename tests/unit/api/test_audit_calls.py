"""Every call that does something is in the audit: who, to which session, from where, with which answer."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from flask import Flask

from app.api.blueprint import rules_of
from app.core.composition import Core
from app.core.redis import keys, task_queue
from app.core.redis.dead_letters import DeadLetter
from app.core.restore_points.index import RestorePoint
from app.core.sessions.model import Status
from app.core.storage.archive_keys import new_key
from tests.ports import free_port
from tests.unit.api.helpers import (
    ADMIN_KEY,
    BOUND_KEY,
    OWN_LIMITS_KEY,
    SERVICE_KEY,
    AppMaker,
    Client,
    add_backup,
    check_problem,
    core_of,
    digest,
    keyed,
    move,
    new_session,
)
from tests.world import SECRET_KEY

NOT_NOTED: frozenset[str] = frozenset()
"""Endpoints that change something and need no entry; each with a reason here."""

READS = {"GET", "HEAD", "OPTIONS"}
WITHOUT_WAIT = {"Prefer": "respond-async"}
ROOM = {f"rate_limit_{name}": "10000/minute" for name in ("default", "create", "chat", "wake", "delete")}
PROMPT = "the secret of the prompt"
MAKING = ("sessions.create", "backups.restore", "going_back.fork")
POINT = "p000000000000001"


@pytest.fixture
def app(make_app: AppMaker) -> Flask:
    bound_admin = {"name": "school", "sha256": digest("school-key"), "role": "admin", "user_prefix": "school-"}
    keys_of_all = [
        bound_admin,
        {"name": "backend", "sha256": digest(SERVICE_KEY), "role": "service"},
        {"name": "course", "sha256": digest(BOUND_KEY), "role": "service", "user_prefix": "course-"},
        {"name": "web", "sha256": digest(OWN_LIMITS_KEY), "role": "service", "limits": {"create": "5/minute"}},
    ]
    room = ROOM | {"max_sessions_per_user": 100, "llm_base_url": "http://127.0.0.1:1/v1"}
    return make_app(secret_key=SECRET_KEY, archive_key=new_key(), api_keys=json.dumps(keys_of_all), **room)


def entries(client: Client, **query: str) -> list[dict[str, Any]]:
    answer = client.get("/audit", query_string=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json["entries"]
    return found


def token_holder(app: Flask, client: Client, uuid: str) -> Client:
    holder: Client = app.test_client()
    holder.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {client.post(f'/session/{uuid}/token').json['token']}"
    return holder


def mutating(app: Flask) -> Iterator[tuple[str, str, str]]:
    """(endpoint, method, rule) of every route by which something can be changed, and of downloads."""
    for rule in app.url_map.iter_rules():
        for method in (rule.methods or set()) - READS:
            yield rule.endpoint, method, rule.rule
    yield "backups.download", "GET", "/backups/<name>/download"


def test_no_endpoint_that_changes_something_is_forgotten(app: Flask) -> None:
    """A new one needs a name in the audit, or a reason to have none."""
    changing = {endpoint for endpoint, _, _ in mutating(app)}
    actions = {name: rules.audit for name in app.view_functions if (rules := rules_of(app, name)).audit}
    assert changing - NOT_NOTED == actions.keys()
    assert len(set(actions.values())) == len(actions)


@pytest.mark.slow
def test_each_of_them_leaves_an_entry(app: Flask, client: Client, core: Core) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "sessions.create": {"user_id": "ada"},
        "messages.chat": {"message": PROMPT},
        "activity.keep_up": {"seconds": 60},
        "going_back.roll_back": {"restore_point": POINT},
        "going_back.fork": {"restore_point": POINT},
    }
    for endpoint, method, rule in mutating(app):
        uuid, name = new_session(client), add_backup(core).name
        move(core, uuid, Status.ACTIVE, provisioned=True)
        core.restore_points.put(
            uuid,
            [RestorePoint(id=POINT, uuid=uuid, created_at=1.0, trigger="api", files=1, size=1, stored=1)],
        )
        letter = DeadLetter(task=task_queue.BACKUP, args=(uuid,))
        core.dead_letters.add(letter)
        path = rule.replace("<session:uuid>", uuid).replace("<name>", name).replace("<letter_id>", letter.id)
        headers = WITHOUT_WAIT | {"X-Request-Id": f"of-{endpoint}"}
        body = bodies.get(endpoint) if method == "POST" else None
        for_admins = endpoint.startswith(("dead_letters.", "recovery."))
        by, role, key = ("api_key", "admin", ADMIN_KEY) if for_admins else ("backend", "service", SERVICE_KEY)
        answer = keyed(app, key).open(path, method=method, json=body, headers=headers)
        assert answer.status_code < 300, (endpoint, answer.text)
        answer.close()
        entry = entries(client)[0]
        made = answer.json["uuid"] if endpoint in MAKING else ""
        about = made or ("k3v9x0qa" if "<name>" in rule else uuid if "<" in rule else None)
        reason = name if "<name>" in rule else uuid if endpoint == "going_back.fork" else None
        assert entry == {
            "id": entry["id"],
            "at": entry["at"],
            "action": rules_of(app, endpoint).audit,
            "uuid": about,
            "user_id": None if endpoint in ("dead_letters.delete", "recovery.start") else "ada",
            "by": by,
            "role": role,
            "address": "127.0.0.1",
            "status": answer.status_code,
            "reason": reason,
            "request_id": f"of-{endpoint}",
            "count": 1,
        }


def test_reads_leave_none(app: Flask, client: Client, core: Core) -> None:
    uuid, name = new_session(client), add_backup(core).name
    before = entries(client)
    paths = ["/sessions", "/backups", "/metrics", "/health", "/livez", "/readyz", "/openapi.json", "/docs", "/audit"]
    paths += [f"/session/{uuid}{rest}" for rest in ("", "/status", "/messages", "/activity", "/backups")]
    paths += ["/nowhere", "/session/zzzzzzzz"]
    for path in paths:
        client.get(path)
    client.head(f"/backups/{name}/download")
    assert entries(client) == before


def test_what_did_not_come_to_be_says_so(app: Flask, client: Client, core: Core) -> None:
    uuid = new_session(client)
    client.post("/session/zzzzzzzz/wake")
    client.post("/session/NOT-A-NAME/wake")
    client.post("/session/create", json={"user_id": "no blanks"})
    client.post(f"/session/{uuid}/backup")
    found = [(each["action"], each["uuid"], each["status"], each["reason"]) for each in entries(client)]
    assert found[:4] == [
        ("backup", uuid, 409, "illegal_state"),
        ("create", None, 400, "invalid_request"),
        ("wake", None, 404, "session_not_found"),
        ("wake", "zzzzzzzz", 404, "session_not_found"),
    ]


def test_a_deletion_says_what_it_did_without(client: Client) -> None:
    for query, reason in (("", None), ("?backup=false", "backup=false"), ("?backup=partial", "backup=partial")):
        uuid = new_session(client)
        client.delete(f"/session/{uuid}{query}", headers=WITHOUT_WAIT)
        assert entries(client, uuid=uuid)[0]["reason"] == reason
    client.delete(f"/session/{uuid}?backup=%3Cscript%3E")
    assert entries(client, uuid=uuid)[0]["reason"] == "invalid_request"


@pytest.mark.slow
def test_a_session_made_of_a_backup_says_of_which(client: Client, core: Core) -> None:
    name = add_backup(core).name
    uuid = new_session(client, "bob", restore_from=name)
    [entry] = entries(client, uuid=uuid)
    assert (entry["action"], entry["user_id"], entry["reason"]) == ("create", "bob", name)
    client.delete(f"/backups/{name}")
    refused = entries(client)[0]
    assert (refused["action"], refused["status"], refused["reason"]) == ("delete_backup", 409, f"backup_in_use, {name}")


def test_a_call_that_is_only_answered_again_says_so(client: Client) -> None:
    headers = {"Idempotency-Key": "once"}
    for _ in range(2):
        client.post("/session/create", json={"user_id": "ada"}, headers=headers)
    assert [entry["reason"] for entry in entries(client)] == ["replayed", None]
    assert len({entry["uuid"] for entry in entries(client)}) == 1


def test_a_download_in_pieces_is_one_entry(client: Client, core: Core) -> None:
    name = add_backup(core, content=b"x" * 100).name
    for first in range(0, 100, 10):
        client.get(f"/backups/{name}/download", headers={"Range": f"bytes={first}-{first + 9}"}).close()
    [entry] = entries(client)
    assert (entry["action"], entry["uuid"], entry["status"], entry["count"]) == ("download", "k3v9x0qa", 206, 10)


def test_what_a_tenant_does_with_its_token_names_the_session(app: Flask, client: Client) -> None:
    uuid = new_session(client)
    holder = token_holder(app, client, uuid)
    for _ in range(5):
        holder.post(f"/session/{uuid}/chat", json={"message": PROMPT}, headers=WITHOUT_WAIT)
    [entry] = entries(client, key=f"session:{uuid}")
    assert (entry["action"], entry["role"], entry["status"], entry["count"]) == ("prompt", "session", 202, 5)


def test_no_entry_and_no_line_has_a_secret_or_a_prompt(
    app: Flask, client: Client, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="app.audit"):
        uuid = new_session(client)
        token = client.post(f"/session/{uuid}/token").json["token"]
        link = client.post(f"/session/{uuid}/open").json["url"].rpartition("=")[2]
        client.post(f"/session/{uuid}/chat", json={"message": PROMPT}, headers=WITHOUT_WAIT)
        app.test_client().get("/sessions", headers={"X-API-Key": "a-wrong-key"})
        app.test_client().get("/sessions", headers={"Authorization": "Bearer a-wrong-token"})
    kept = str([redis_client.xrange(name) for name in (keys.AUDIT, keys.AUDIT_REPEATED)])
    logged = str([vars(record) for record in caplog.records if record.name == "app.audit"])
    assert kept.count("unauthorized") == 1 and uuid in kept and uuid in logged
    for secret in (token, link, PROMPT, ADMIN_KEY, "a-wrong-key", "a-wrong-token"):
        assert secret not in kept + logged


# Refusals


def test_refusals_have_entries_whatever_was_asked(app: Flask, client: Client) -> None:
    uuid = new_session(client)
    holder = token_holder(app, client, uuid)
    app.test_client().get("/sessions")
    app.test_client().post(f"/session/{uuid}/open")
    keyed(app, SERVICE_KEY).get("/backups")
    holder.post(f"/session/{uuid}/token")
    client.post(f"/session/{uuid}/revoke")
    holder.get(f"/session/{uuid}")
    found = [(e["action"], e["by"], e["uuid"], e["status"], e["reason"]) for e in entries(client) if e["status"] > 400]
    assert found == [
        ("read", f"session:{uuid}", uuid, 401, "unauthorized"),
        ("token", f"session:{uuid}", uuid, 403, "forbidden"),
        ("read", "backend", None, 403, "forbidden"),
        ("open", "anonymous", uuid, 401, "unauthorized"),
        ("read", "anonymous", None, 401, "unauthorized"),
    ]


def test_refusals_of_one_caller_count_in_one_entry(app: Flask, client: Client, redis_client: redis.Redis) -> None:
    stranger = app.test_client()
    for _ in range(8):
        stranger.get("/sessions", headers={"X-API-Key": "guess"})
    [entry] = entries(client)
    assert (entry["by"], entry["role"], entry["count"]) == ("anonymous", "anonymous", 8)
    assert redis_client.xlen(keys.AUDIT) == 0


def test_who_asks_too_often_is_one_entry(make_app: AppMaker) -> None:
    app = make_app(rate_limit_wake="2/minute")
    client = keyed(app, SERVICE_KEY)
    for _ in range(6):
        client.post("/session/zzzzzzzz/wake")
    found = [(e["status"], e["reason"], e["count"]) for e in entries(keyed(app, ADMIN_KEY))]
    assert found == [(429, "rate_limited", 4), (404, "session_not_found", 1), (404, "session_not_found", 1)]


def test_the_address_is_the_one_behind_trusted_proxies(make_app: AppMaker) -> None:
    told = {"X-Forwarded-For": "198.51.100.1, 203.0.113.9"}
    for proxies, address in ((0, "127.0.0.1"), (1, "203.0.113.9")):
        app = make_app(trusted_proxies=proxies)
        keyed(app, ADMIN_KEY).post("/session/zzzzzzzz/wake", headers=told)
        assert entries(keyed(app, ADMIN_KEY))[0]["address"] == address


# Reading it


def test_only_an_admin_key_that_is_bound_to_no_users_reads_it(app: Flask, client: Client) -> None:
    uuid = new_session(client)
    check_problem(app.test_client().get("/audit"), 401, "unauthorized")
    callers = [keyed(app, key) for key in (SERVICE_KEY, BOUND_KEY, "school-key")]
    for each in (*callers, token_holder(app, client, uuid)):
        check_problem(each.get("/audit"), 403, "forbidden")
        check_problem(each.get(f"/audit?uuid={uuid}"), 403, "forbidden")
    assert client.get("/audit").status_code == 200


def test_it_is_asked_for_one_session_or_one_caller(app: Flask, client: Client) -> None:
    first, second = new_session(client), new_session(keyed(app, SERVICE_KEY))
    client.post(f"/session/{second}/wake")
    assert [entry["action"] for entry in entries(client, uuid=second)] == ["wake", "create"]
    assert [entry["uuid"] for entry in entries(client, key="backend")] == [second]
    assert [entry["action"] for entry in entries(client, uuid=second, key="api_key")] == ["wake"]
    assert entries(client, uuid=first, key="nobody") == []


def test_it_is_read_page_by_page(client: Client) -> None:
    uuids = [new_session(client, f"user{number}") for number in range(7)]
    seen: list[str] = []
    query: dict[str, str] = {"limit": "3"}
    for length in (3, 3, 1):
        page = client.get("/audit", query_string=query).json
        seen += [entry["uuid"] for entry in page["entries"]]
        assert len(page["entries"]) == length
        query["cursor"] = page["next_cursor"]
        client.post("/session/zzzzzzzz/wake")
    assert seen == uuids[::-1]
    assert page["next_cursor"] is None


@pytest.mark.parametrize(
    "query", ["uuid=x", "cursor=x", "limit=0", "key=", "user_id=ada", "uuid=zzzzzzzz&uuid=yyyyyyyy"]
)
def test_what_it_does_not_know_is_400(client: Client, query: str) -> None:
    check_problem(client.get(f"/audit?{query}"), 400, "invalid_request")


# When something goes wrong


def test_a_call_is_carried_out_though_its_entry_is_not_written(
    client: Client, core: Core, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**_: object) -> None:
        raise redis.ConnectionError("gone")

    uuid = new_session(client)
    monkeypatch.setattr(core.audit, "_add", fail)
    with caplog.at_level(logging.INFO, logger="app.audit"):
        assert client.post(f"/session/{uuid}/open").status_code == 200
    [line] = [vars(record) for record in caplog.records if record.name == "app.audit"]
    assert (line["levelname"], line["kept"], line["action"], line["uuid"], line["by"], line["address"]) == (
        "WARNING",
        False,
        "open",
        uuid,
        "api_key",
        "127.0.0.1",
    )


def test_without_redis_nobody_waits_for_it_twice(
    make_app: AppMaker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(redis_url=f"redis://127.0.0.1:{free_port()}/0")
    written: list[object] = []
    monkeypatch.setattr(core_of(app).audit, "_add", lambda **given: written.append(given))
    with caplog.at_level(logging.INFO, logger="app.audit"):
        check_problem(keyed(app, ADMIN_KEY).post("/session/zzzzzzzz/wake"), 503, "state_unavailable")
    [line] = [vars(record) for record in caplog.records if record.name == "app.audit"]
    assert (line["kept"], line["action"], line["status"], line["reason"]) == (False, "wake", "503", "state_unavailable")
    assert written == []


def test_a_call_whose_process_ends_before_its_answer_has_an_entry(
    client: Client, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited for the deletion when the service was stopped: what it asked for is done."""
    uuid = new_session(client)
    wait = type(core.sessions).wait

    def stop(*_: object) -> None:
        raise SystemExit

    monkeypatch.setattr(type(core.sessions), "wait", stop)
    with pytest.raises(SystemExit):
        client.delete(f"/session/{uuid}?backup=false")
    monkeypatch.setattr(type(core.sessions), "wait", wait)
    assert core.store.get(uuid).status is Status.TERMINATING
    entry = entries(client, uuid=uuid)[0]
    assert (entry["action"], entry["status"], entry["reason"]) == ("delete", None, "no_answer, backup=false")


def commands(core: Core, monkeypatch: pytest.MonkeyPatch, call: Any) -> int:
    """How often Redis is asked in a call."""
    asked: list[object] = []
    execute = redis.Redis.execute_command

    def note(client: redis.Redis, *command: object, **options: object) -> object:
        asked.append(command)
        return execute(client, *command, **options)

    with monkeypatch.context() as patched:
        patched.setattr(redis.Redis, "execute_command", note)
        assert call().status_code == 200
    return len(asked)


def test_an_entry_costs_one_round_trip_and_a_read_none(
    client: Client, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    uuid = new_session(client)

    def wake() -> Any:
        return client.post(f"/session/{uuid}/wake")

    def show() -> Any:
        return client.get(f"/session/{uuid}")

    wake()
    with_entry, read = commands(core, monkeypatch, wake), commands(core, monkeypatch, show)
    monkeypatch.setattr(core.audit, "note", lambda *_, **__: None)
    assert with_entry == commands(core, monkeypatch, wake) + 1
    assert read == commands(core, monkeypatch, show)
