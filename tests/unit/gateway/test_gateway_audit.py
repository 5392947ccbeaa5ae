"""Whom the gateway refuses is in the audit: who, of which session, from where, why; and never what they showed."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest
import redis
from flask import Flask

from app.core.access.agent_credentials import AgentCredentials
from app.core.access.audit import DISTINCT_ENTRIES, SEVERAL, Entry
from app.core.redis import keys
from app.core.sessions.model import Status
from tests.unit.gateway.helpers import SECRET_KEY, USER, GatewayMaker, Workspace, parts_of

MODELS, HELLO, CHECKPOINT = "/llm/v1/models", "/agent/v1/hello", "/agent/v1/checkpoint"
THIEF = "203.0.113.7"
"""Where a request comes from that is none of the workspace's."""


def show(app: Flask, token: str, path: str = MODELS, method: str = "GET", address: str = THIEF) -> int:
    """The status of the answer to who shows this."""
    headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": "198.51.100.1"}
    answer = app.test_client().open(path, method=method, headers=headers, environ_base={"REMOTE_ADDR": address})
    return int(answer.status_code)


def end_token(workspace: Workspace) -> None:
    """As a revoke does."""
    workspace.core.store.change(workspace.uuid, time.time(), epoch=2)


def entries(app: Flask) -> list[Entry]:
    """Newest first."""
    return parts_of(app).core.audit.page().entries


def told(app: Flask) -> list[tuple[Any, ...]]:
    acts = [(entry.act, entry.count) for entry in entries(app)]
    return [(a.action, a.by, a.role, a.uuid, a.user_id, a.address, a.status, a.reason, n) for a, n in acts]


def test_a_token_that_ended_names_its_session_and_who_shows_it(app: Flask, workspace: Workspace) -> None:
    """A revoke was not in vain: whoever goes on with what they have stolen shows here."""
    stolen = workspace.core.credentials.token(workspace.uuid, 1)
    end_token(workspace)
    assert show(app, stolen) == 401
    by = f"workspace:{workspace.uuid}"
    assert told(app) == [("model", by, "workspace", workspace.uuid, USER, THIEF, 401, "token_ended", 1)]


def test_that_of_a_terminated_session_is_told_as_such(app: Flask) -> None:
    workspace = Workspace(app, status=Status.TERMINATED)
    assert show(app, workspace.core.credentials.token(workspace.uuid, 1), CHECKPOINT) == 403
    [(action, _, role, uuid, *_, reason, _)] = told(app)
    assert (action, role, uuid, reason) == ("conversation", "workspace", workspace.uuid, "session_terminated")


@pytest.mark.parametrize("token", [AgentCredentials(["x" * 32]).token("abcd1234", 1), f"abcd1234.1.{'0' * 64}"])
def test_a_token_nobody_signed_is_anonymous_and_names_the_session_it_was_made_for(app: Flask, token: str) -> None:
    """A guess, or another session's with this one's name."""
    assert show(app, token, HELLO, "POST") == 401
    assert told(app) == [("report", "anonymous", "anonymous", "abcd1234", "", THIEF, 401, "unauthorized", 1)]


@pytest.mark.parametrize("text", ["", "guess", "abcd1234", "../../x.y.z"])
def test_what_is_no_token_at_all_names_none(app: Flask, text: str) -> None:
    assert show(app, text, "/nothing") == 401
    assert told(app) == [("unknown", "anonymous", "anonymous", "", "", THIEF, 401, "unauthorized", 1)]


def test_one_who_asks_for_more_than_a_session_may_have_is_noted(make_gateway: GatewayMaker) -> None:
    app = make_gateway(llm_tokens_per_day=1)
    workspace = Workspace(app)
    assert workspace.ask().status_code == 200
    assert workspace.ask().status_code == 429
    assert [(entry.act.by, entry.act.reason) for entry in entries(app)] == [
        (f"workspace:{workspace.uuid}", "llm_budget_exceeded")
    ]


def test_what_is_let_in_and_what_is_merely_wrong_leave_none(
    app: Flask, workspace: Workspace, model: Any, redis_client: redis.Redis
) -> None:
    """Nor a refusal of the provider's, who is not asked by this session alone."""
    workspace.ask()
    workspace.report()
    workspace.call("POST", HELLO, data=b"{")
    workspace.call("GET", "/nothing")
    workspace.call("GET", CHECKPOINT)
    model.api_key = "another"
    workspace.ask()
    app.test_client().get("/livez")
    assert entries(app) == []
    assert not redis_client.exists(keys.AUDIT, keys.AUDIT_REPEATED)


@pytest.mark.slow
def test_a_flood_is_one_entry_that_counts_and_pushes_nothing_out(
    app: Flask, workspace: Workspace, redis_client: redis.Redis
) -> None:
    """In the stream of refusals, and of one caller some ten things are told apart."""
    workspace.core.audit.note_own("sleep", workspace.uuid, USER, "idle")
    for _ in range(15):
        show(app, "guess")
    for number in range(DISTINCT_ENTRIES + 5):
        show(app, f"{number:08d}.1.{'0' * 64}")
    assert redis_client.xlen(keys.AUDIT) == 1
    counts = {(entry.act.action, entry.act.uuid): entry.count for entry in entries(app)}
    assert counts["model", ""] == 15
    assert counts[SEVERAL, ""] == 6
    assert len(counts) == DISTINCT_ENTRIES + 2


def test_the_same_token_from_two_places_is_two_entries(app: Flask, workspace: Workspace) -> None:
    """The workspace's own agent goes on for a moment with what has ended; the thief is somebody else."""
    stolen = workspace.core.credentials.token(workspace.uuid, 1)
    end_token(workspace)
    for address in (THIEF, "10.0.0.5", THIEF):
        show(app, stolen, address=address)
    assert [(entry.act.address, entry.count) for entry in entries(app)] == [("10.0.0.5", 1), (THIEF, 2)]


def test_no_entry_and_no_line_has_a_token(
    app: Flask, workspace: Workspace, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    ended, forged = (AgentCredentials([key]).token(workspace.uuid, 1) for key in (SECRET_KEY, "x" * 32))
    end_token(workspace)
    with caplog.at_level(logging.DEBUG):
        for token in (ended, forged, "a-guess-that-may-be-a-password"):
            show(app, token)
    kept = str([redis_client.xrange(name) for name in (keys.AUDIT, keys.AUDIT_REPEATED)])
    logged = str([vars(record) for record in caplog.records])
    assert kept.count("unauthorized") == 2 and workspace.uuid in logged
    for secret in (ended, forged, ended.rpartition(".")[2], forged.rpartition(".")[2], "a-guess-that-may-be"):
        assert secret not in kept + logged


def test_a_refusal_is_the_same_where_it_can_not_be_noted(
    make_gateway: GatewayMaker, caplog: pytest.LogCaptureFixture
) -> None:
    """Without Redis it is in the log."""
    app = make_gateway(redis_url="redis://127.0.0.1:1/0")
    with caplog.at_level(logging.INFO, logger="app.audit"):
        assert show(app, "guess") == 401
    [line] = [vars(record) for record in caplog.records if record.name == "app.audit"]
    assert (line["kept"], line["reason"], line["address"]) == (False, "unauthorized", THIEF)
