"""Every call that does something is in the audit: who, to which session, from where, with which answer."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest
import redis
from flask import Flask

from app.api.blueprint import rules_of
from app.core.composition import Core
from app.core.redis import keys, task_queue
from app.core.redis.dead_letters import DeadLetter
from app.core.sessions.model import Status
from app.core.storage.archive_keys import new_key
from tests.fake_agent import SERVICE, FakeAgent
from tests.unit.api.helpers import (
    ADMIN_KEY,
    ASYNC,
    BOUND_KEY,
    KEYS,
    NO_REDIS,
    ONCE,
    POINT,
    SERVICE_KEY,
    Client,
    add_backup,
    bearer,
    check_problem,
    create,
    key_entry,
    keyed,
    move,
    new_session,
    put_point,
)

NOT_NOTED = frozenset({"execs.type_in", "execs.resize"})
"""Endpoints that change something and need no entry; each with a reason here. What is typed into a terminal comes key
by key, and would soon be all that the audit keeps; that the terminal was begun, and by whom, is noted."""

READS = {"GET", "HEAD", "OPTIONS"}
PROMPT = "the secret of the prompt"
MAKING = ("sessions.create", "backups.restore", "going_back.fork")
SCHOOL = key_entry("school", "school-key", "admin", user_prefix="school-")

pytestmark = pytest.mark.settings(
    archive_key=new_key(), api_keys=json.dumps([SCHOOL, *KEYS]), max_sessions_per_user=100
)


def entries(client: Client, **query: str) -> list[dict[str, Any]]:
    answer = client.get("/audit", query_string=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json["entries"]
    return found


def told(client: Client, *names: str, **query: str) -> list[tuple[Any, ...]]:
    """These fields of the entries."""
    return [tuple(entry[name] for name in names) for entry in entries(client, **query)]


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
def test_each_of_them_leaves_an_entry(app: Flask, client: Client, core: Core, agent: FakeAgent) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "sessions.create": {"user_id": "ada"},
        "messages.chat": {"message": PROMPT},
        "activity.keep_up": {"seconds": 60},
        "execs.run": {"command": PROMPT},
        "services.start": {"name": "web", "command": PROMPT},
        "files.change": {"make": "folder"},
        "going_back.roll_back": {"restore_point": POINT},
        "going_back.fork": {"restore_point": POINT},
    }
    for endpoint, method, rule in mutating(app):
        if endpoint in NOT_NOTED:
            continue
        uuid, name = new_session(client), add_backup(core).name
        move(core, uuid, Status.ACTIVE, provisioned=True)
        if endpoint.startswith(("execs.", "files.", "ports.", "services.", "trees.")):
            core.inbox.agent_here(uuid, agent.address, "pod", "boot", time.time())
        agent.services["web"] = dict(SERVICE)
        put_point(core, uuid)
        letter = DeadLetter(task=task_queue.BACKUP, args=(uuid,))
        core.dead_letters.add(letter)
        names = {
            "<session:uuid>": uuid,
            "<name>": name,
            "<letter_id>": letter.id,
            "<exec_id>": "x1",
            "<service:name>": "web",
            "<port:port>": "3000",
            "<file:path>": "a",
        }
        path = "/".join(names.get(part, part) for part in rule.split("/"))
        headers = ASYNC | {"X-Request-Id": f"of-{endpoint}"}
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
        reason = "port 3000" if "<port" in rule else reason
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


def test_reads_leave_none(client: Client, core: Core, uuid: str) -> None:
    name = add_backup(core).name
    before = entries(client)
    paths = ["/sessions", "/backups", "/metrics", "/health", "/livez", "/readyz", "/openapi.json", "/docs", "/audit"]
    paths += [f"/session/{uuid}{rest}" for rest in ("", "/status", "/messages", "/activity", "/backups")]
    paths += ["/nowhere", "/session/zzzzzzzz"]
    for path in paths:
        client.get(path)
    client.head(f"/backups/{name}/download")
    assert entries(client) == before


def test_what_did_not_come_to_be_says_so(client: Client) -> None:
    uuid = new_session(client)
    client.post("/session/zzzzzzzz/wake")
    client.post("/session/NOT-A-NAME/wake")
    create(client, user_id="no blanks")
    client.post(f"/session/{uuid}/backup")
    assert told(client, "action", "uuid", "status", "reason")[:4] == [
        ("backup", uuid, 409, "illegal_state"),
        ("create", None, 400, "invalid_request"),
        ("wake", None, 404, "session_not_found"),
        ("wake", "zzzzzzzz", 404, "session_not_found"),
    ]


def test_what_a_service_is_called_names_no_other_session(client: Client) -> None:
    """It may look like a backup of one."""
    uuid = new_session(client)
    client.delete(f"/session/{uuid}/services/app-zzzzzzzz-20261120-080000.zip")
    assert told(client, "action", "uuid")[0] == ("stop_service", uuid)


def test_a_port_is_named_with_whether_everybody_may_see_it(client: Client, core: Core, agent: FakeAgent) -> None:
    uuid = new_session(client)
    move(core, uuid, Status.ACTIVE)
    core.inbox.agent_here(uuid, agent.address, "pod", "boot", time.time())
    for body in ({}, {"public_until": time.time() + 60}):
        assert client.post(f"/session/{uuid}/ports/3000/open", json=body).status_code == 200
    client.delete(f"/session/{uuid}/ports/3000")
    client.delete("/session/zzzzzzzz/ports/3000")
    assert told(client, "action", "status", "reason")[:4] == [
        ("close_port", 404, "session_not_found, port 3000"),
        ("close_port", 204, "port 3000"),
        ("open_port", 200, "port 3000, public"),
        ("open_port", 200, "port 3000"),
    ]


def test_a_deletion_says_what_it_did_without(client: Client) -> None:
    for query, reason in (("", None), ("?backup=false", "backup=false"), ("?backup=partial", "backup=partial")):
        uuid = new_session(client)
        client.delete(f"/session/{uuid}{query}", headers=ASYNC)
        assert entries(client, uuid=uuid)[0]["reason"] == reason
    client.delete(f"/session/{uuid}?backup=%3Cscript%3E")
    assert entries(client, uuid=uuid)[0]["reason"] == "invalid_request"


@pytest.mark.slow
def test_a_session_made_of_a_backup_says_of_which(client: Client, core: Core) -> None:
    name = add_backup(core).name
    uuid = new_session(client, "bob", restore_from=name)
    assert told(client, "action", "user_id", "reason", uuid=uuid) == [("create", "bob", name)]
    client.delete(f"/backups/{name}")
    refused = told(client, "action", "status", "reason")[0]
    assert refused == ("delete_backup", 409, f"backup_in_use, {name}")


def test_a_call_that_is_only_answered_again_says_so(client: Client) -> None:
    for _ in range(2):
        uuid = create(client, ONCE).json["uuid"]
    assert told(client, "uuid", "reason") == [(uuid, "replayed"), (uuid, None)]


def test_a_download_in_pieces_is_one_entry(client: Client, core: Core) -> None:
    name = add_backup(core, content=b"x" * 100).name
    for first in range(0, 100, 10):
        client.get(f"/backups/{name}/download", headers={"Range": f"bytes={first}-{first + 9}"}).close()
    assert told(client, "action", "uuid", "status", "count") == [("download", "k3v9x0qa", 206, 10)]


def test_what_a_tenant_does_with_its_token_names_the_session(client: Client, holder: Client, uuid: str) -> None:
    for _ in range(5):
        holder.post(f"/session/{uuid}/chat", json={"message": PROMPT}, headers=ASYNC)
    found = told(client, "action", "role", "status", "count", key=f"session:{uuid}")
    assert found == [("prompt", "session", 202, 5)]


def test_no_entry_and_no_line_has_a_secret_or_a_prompt(
    client: Client, stranger: Client, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="app.audit"):
        uuid = new_session(client)
        token = client.post(f"/session/{uuid}/token").json["token"]
        link = client.post(f"/session/{uuid}/open").json["url"].rpartition("=")[2]
        client.post(f"/session/{uuid}/chat", json={"message": PROMPT}, headers=ASYNC)
        stranger.get("/sessions", headers={"X-API-Key": "a-wrong-key"})
        stranger.get("/sessions", headers=bearer("a-wrong-token"))
    kept = str([redis_client.xrange(name) for name in (keys.AUDIT, keys.AUDIT_REPEATED)])
    logged = str(logged_by(caplog))
    assert kept.count("unauthorized") == 1 and uuid in kept and uuid in logged
    for secret in (token, link, PROMPT, ADMIN_KEY, "a-wrong-key", "a-wrong-token"):
        assert secret not in kept + logged


def logged_by(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if record.name == "app.audit"]


# Refusals


def test_refusals_have_entries_whatever_was_asked(
    client: Client, service: Client, stranger: Client, holder: Client, uuid: str
) -> None:
    stranger.get("/sessions")
    stranger.post(f"/session/{uuid}/open")
    service.get("/backups")
    holder.post(f"/session/{uuid}/token")
    client.post(f"/session/{uuid}/revoke")
    holder.get(f"/session/{uuid}")
    found = told(client, "action", "by", "uuid", "status", "reason")
    assert [each for each in found if each[3] > 400] == [
        ("read", f"session:{uuid}", uuid, 401, "unauthorized"),
        ("token", f"session:{uuid}", uuid, 403, "forbidden"),
        ("read", "backend", None, 403, "forbidden"),
        ("open", "anonymous", uuid, 401, "unauthorized"),
        ("read", "anonymous", None, 401, "unauthorized"),
    ]


def test_refusals_of_one_caller_count_in_one_entry(client: Client, stranger: Client, redis_client: redis.Redis) -> None:
    for _ in range(8):
        stranger.get("/sessions", headers={"X-API-Key": "guess"})
    assert told(client, "by", "role", "count") == [("anonymous", "anonymous", 8)]
    assert redis_client.xlen(keys.AUDIT) == 0


@pytest.mark.settings(rate_limit_wake="2/minute")
def test_who_asks_too_often_is_one_entry(client: Client, service: Client) -> None:
    for _ in range(6):
        service.post("/session/zzzzzzzz/wake")
    unknown = (404, "session_not_found", 1)
    assert told(client, "status", "reason", "count") == [(429, "rate_limited", 4), unknown, unknown]


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("127.0.0.1", marks=pytest.mark.settings(trusted_proxies=0)),
        pytest.param("203.0.113.9", marks=pytest.mark.settings(trusted_proxies=1)),
    ],
)
def test_the_address_is_the_one_behind_trusted_proxies(client: Client, address: str) -> None:
    client.post("/session/zzzzzzzz/wake", headers={"X-Forwarded-For": "198.51.100.1, 203.0.113.9"})
    assert told(client, "address") == [(address,)]


# Reading it


def test_only_an_admin_key_that_is_bound_to_no_users_reads_it(
    app: Flask, client: Client, stranger: Client, holder: Client, uuid: str
) -> None:
    check_problem(stranger.get("/audit"), 401, "unauthorized")
    for each in (*(keyed(app, key) for key in (SERVICE_KEY, BOUND_KEY, "school-key")), holder):
        check_problem(each.get("/audit"), 403, "forbidden")
        check_problem(each.get(f"/audit?uuid={uuid}"), 403, "forbidden")
    assert client.get("/audit").status_code == 200


def test_it_is_asked_for_one_session_or_one_caller(client: Client, service: Client) -> None:
    first, second = new_session(client), new_session(service)
    client.post(f"/session/{second}/wake")
    assert told(client, "action", uuid=second) == [("wake",), ("create",)]
    assert told(client, "uuid", key="backend") == [(second,)]
    assert told(client, "action", uuid=second, key="api_key") == [("wake",)]
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
    client: Client, core: Core, uuid: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(core.audit, "_add", Mock(side_effect=redis.ConnectionError("gone")))
    with caplog.at_level(logging.INFO, logger="app.audit"):
        assert client.post(f"/session/{uuid}/open").status_code == 200
    [line] = logged_by(caplog)
    shown = [line[name] for name in ("levelname", "kept", "action", "uuid", "by", "address")]
    assert shown == ["WARNING", False, "open", uuid, "api_key", "127.0.0.1"]


@pytest.mark.settings(redis_url=NO_REDIS)
def test_without_redis_nobody_waits_for_it_twice(
    client: Client, core: Core, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Mock()
    monkeypatch.setattr(core.audit, "_add", written)
    with caplog.at_level(logging.INFO, logger="app.audit"):
        check_problem(client.post("/session/zzzzzzzz/wake"), 503, "state_unavailable")
    [line] = logged_by(caplog)
    assert (line["kept"], line["action"], line["status"], line["reason"]) == (False, "wake", "503", "state_unavailable")
    written.assert_not_called()


def test_a_call_whose_process_ends_before_its_answer_has_an_entry(
    client: Client, core: Core, uuid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited for the deletion when the service was stopped: what it asked for is done."""
    with monkeypatch.context() as stopping, pytest.raises(SystemExit):
        stopping.setattr(type(core.sessions), "wait", Mock(side_effect=SystemExit))
        client.delete(f"/session/{uuid}?backup=false")
    assert core.store.get(uuid).status is Status.TERMINATING
    assert told(client, "action", "status", "reason", uuid=uuid)[0] == ("delete", None, "no_answer, backup=false")


def test_an_entry_costs_one_round_trip_and_a_read_none(
    client: Client, core: Core, uuid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    execute = redis.Redis.execute_command

    def note(client: redis.Redis, *command: object, **options: object) -> object:
        asked.append(command)
        return execute(client, *command, **options)

    def costs(method: str, path: str) -> int:
        """How often Redis is asked in a call."""
        asked.clear()
        assert client.open(f"/session/{uuid}{path}", method=method).status_code == 200
        return len(asked)

    monkeypatch.setattr(redis.Redis, "execute_command", note)
    costs("POST", "/wake")
    with_entry, read = costs("POST", "/wake"), costs("GET", "")
    monkeypatch.setattr(core.audit, "note", lambda *_, **__: None)
    assert (with_entry, read) == (costs("POST", "/wake") + 1, costs("GET", ""))
