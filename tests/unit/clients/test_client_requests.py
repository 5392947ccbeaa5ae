"""What the client sends, and when it sends it again."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.unit.clients.api import KEY, UUID, Api, action, answer, created, problem, session, stream
from workspaces import (
    ApiError,
    ConfigError,
    ConnectionFailed,
    InvalidAnswer,
    RateLimited,
    ServiceUnavailable,
    TimedOut,
    Workspaces,
)
from workspaces.retries import MOST_SECONDS

REFUSED = httpx.ConnectError("refused")
LOST = httpx.ReadTimeout("no answer")


def test_a_request_carries_the_key_and_an_id_of_its_own():
    api = Api(answer(session()), answer(session()))
    client = api.client()
    client.sessions.get(UUID)
    client.sessions.get(UUID)
    first, second = api.requests
    assert first.headers["X-API-Key"] == KEY
    assert first.headers["X-Request-Id"] != second.headers["X-Request-Id"]
    assert first.headers["User-Agent"].startswith("workspaces-python/")


def test_what_is_left_out_is_left_to_the_service():
    api = Api(created(), created())
    api.client().sessions.create("ada")
    api.client().sessions.create("ada", size="small", ttl=0, labels={"a": "b"}, open=False)
    assert api.bodies == [
        {"user_id": "ada"},
        {"user_id": "ada", "size": "small", "ttl": 0, "labels": {"a": "b"}, "open": False},
    ]
    assert "Prefer" not in api.requests[0].headers


@pytest.mark.parametrize(("wait", "prefer"), [(0, "respond-async"), (30, "wait=30"), (0.5, "wait=1")])
def test_a_wait_is_asked_for_and_waited_for(wait, prefer):
    api = Api(action("wake"))
    api.client().sessions.wake(UUID, wait=wait)
    (request,) = api.requests
    assert request.headers["Prefer"] == prefer
    assert request.extensions["timeout"]["read"] > wait


def test_a_name_never_leads_to_another_path():
    api = Api(answer(session()))
    api.client().sessions.get("../keys?x=#")
    assert api.requests[0].url.raw_path == b"/session/..%2Fkeys%3Fx%3D%23"


@pytest.mark.parametrize("failure", [REFUSED, LOST, httpx.ReadError("reset"), httpx.RemoteProtocolError("gone")])
def test_a_post_is_repeated_with_its_idempotency_key(failure):
    """Whether it was carried out or not: the service answers the same."""
    api = Api(failure, created())
    assert api.client().sessions.create("ada").uuid == UUID
    first, second = api.requests
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    assert api.bodies[0] == api.bodies[1]


def test_each_post_has_another_idempotency_key_unless_the_caller_names_one():
    api = Api(created(), created(), created())
    client = api.client()
    client.sessions.create("ada")
    client.sessions.create("ada")
    client.sessions.create("ada", idempotency_key="mine")
    keys = [request.headers["Idempotency-Key"] for request in api.requests]
    assert keys[0] != keys[1]
    assert keys[2] == "mine"


def test_a_repetition_waits_for_the_first_request_with_its_key():
    api = Api(LOST, problem(409, "request_in_progress", retry_after="1"), created())
    assert api.client().sessions.create("ada").uuid == UUID
    assert len(api.requests) == 3


@pytest.mark.parametrize("call", ["session", "backup"])
def test_a_delete_whose_answer_was_lost_is_not_repeated(call):
    """It may have been carried out, and a second one may begin another deletion."""
    api = Api(LOST)
    client = api.client()
    with pytest.raises(TimedOut):
        client.sessions.delete(UUID) if call == "session" else client.backups.delete("app.zip")
    assert len(api.requests) == 1


@pytest.mark.parametrize("failure", [REFUSED, httpx.ConnectTimeout("no"), problem(503, "x", retry_after="1")])
def test_a_delete_that_did_not_begin_is_repeated(failure):
    api = Api(failure, answer({"uuid": UUID, "status": "terminated", "message": "", "backup": None, "risk": None}))
    assert api.client().sessions.delete(UUID).status == "terminated"


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_retry_after_is_heeded(status):
    api = Api(problem(status, "x", retry_after="7"), answer(session()))
    api.client().sessions.get(UUID)
    assert [int(pause) for pause in api.slept] == [7]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 500, 502, 503, 507])
def test_a_refusal_that_names_no_time_is_final(status):
    api = Api(problem(status, "x"))
    with pytest.raises(ApiError) as raised:
        api.client().sessions.wake(UUID)
    assert raised.value.status == status
    assert not api.slept


def test_tries_are_bounded():
    api = Api(*[problem(503, "state_unavailable", retry_after="2")] * 3)
    with pytest.raises(ServiceUnavailable):
        api.client(retries=2).sessions.get(UUID)
    assert len(api.requests) == 3


def test_time_is_bounded():
    api = Api(problem(429, "rate_limited", retry_after=str(int(MOST_SECONDS))))
    with pytest.raises(RateLimited) as raised:
        api.client(retries=100).sessions.get(UUID)
    assert raised.value.retry_after == MOST_SECONDS
    assert not api.slept


def test_pauses_grow_up_to_a_limit():
    api = Api(*[REFUSED] * 9)
    with pytest.raises(ConnectionFailed):
        api.client(retries=8).sessions.get(UUID)
    assert api.slept == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_a_body_that_broke_off_is_asked_for_again():
    broken = stream("{", breaks=True)
    api = Api(broken, answer(session()))
    assert api.client().sessions.get(UUID).uuid == UUID


def test_without_retries_nothing_is_repeated():
    with pytest.raises(ConnectionFailed):
        Api(REFUSED).client(retries=0).sessions.get(UUID)


@pytest.mark.parametrize("text", ["<html>", "", "[1]", '"x"', "{}"])
def test_an_answer_of_something_else_is_said_to_be_one(text):
    """Such as the page of a proxy's login."""
    with pytest.raises(InvalidAnswer):
        Api(httpx.Response(200, text=text)).client().sessions.list().page()


@pytest.mark.parametrize(
    ("url", "key"),
    [("", "k"), ("api.example.com", "k"), ("ftp://x", "k"), ("http://", "k"), ("http://x", ""), ("http://x", "a\nb")],
)
def test_an_address_or_key_that_can_be_none_is_refused_at_once(url, key):
    with pytest.raises(ConfigError):
        Workspaces(url, key)


def test_the_key_is_in_no_text():
    client = Api().client()
    assert KEY not in repr(client)
    with pytest.raises(ConnectionFailed) as raised:
        Api(REFUSED).client(retries=0).sessions.get(UUID)
    assert KEY not in str(raised.value) + json.dumps(raised.value.body)


def test_a_path_below_the_services_address_is_kept():
    """As behind a proxy that serves it under a folder."""
    api = Api(answer(session()))
    with Workspaces("http://api.test/workspaces/", KEY, transport=api) as client:
        client.sessions.get(UUID)
    assert api.requests[0].url.path == f"/workspaces/session/{UUID}"
