"""Answers become dataclasses, errors exceptions, and pages one list."""

from __future__ import annotations

import dataclasses
from datetime import UTC, date, datetime

import httpx
import pytest

import workspaces
from tests.conftest import ROOT
from tests.unit.clients.api import TIME, UUID, Api, answer, created, message, problem, session
from workspaces import ApiError, InvalidAnswer, WorkspacesError, errors
from workspaces.models import Status


def test_a_session_is_one_flat_object():
    found = Api(answer(session("sleeping"))).client().sessions.get(UUID)
    assert (found.uuid, found.status, found.replicas) == (UUID, Status.SLEEPING, 1)
    assert found.labels == {"course": "python-101"}
    assert found.created_at == datetime(2026, 11, 20, 8, tzinfo=UTC)
    assert found.idle_timeout == 600.0
    assert found.conversation is not None and found.conversation.stale is False


def test_words_and_fields_of_a_later_service_break_nothing():
    found = Api(answer(session("archived", mood="merry"))).client().sessions.get(UUID)
    assert found.status == "archived"
    assert not hasattr(found, "mood")
    assert found.raw["mood"] == "merry"
    assert "raw" not in repr(found)


def test_fields_that_an_earlier_service_lacks_are_empty():
    body = session()
    for name in ("labels", "risk", "conversation"):
        del body["session"][name]
    found = Api(answer(body)).client().sessions.get(UUID)
    assert (found.labels, found.risk, found.conversation) == ({}, None, None)


def test_an_answer_is_not_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Api(created()).client().sessions.create("ada").status = "active"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"created_at": "soon"}, "created_at"),
        ({"user_id": 7}, "user_id"),
        ({"user_id": None}, "user_id"),
        ({"uuid": True}, "uuid"),
    ],
)
def test_a_value_of_another_type_is_named(change, place):
    with pytest.raises(InvalidAnswer, match=place):
        Api(created(**change)).client().sessions.create("ada")


def test_a_missing_value_is_named():
    with pytest.raises(InvalidAnswer, match="the answer.uuid is missing"):
        Api(answer({})).client().sessions.wake(UUID)


def test_costs_have_days_and_numbers():
    usage = {
        "compute_seconds": {"small": 5},
        "storage_gib_hours": 1,
        "backup_gib_hours": 0.0,
        "point_gib_hours": 3,
        "tokens": {"gpt": {"prompt": 1, "completion": 2}},
        "dollars": {"compute": 0.1, "disk": 0, "backups": 0, "points": 0.01, "tokens": 0, "total": 0.11},
        "saved_dollars": 0.0,
    }
    prices = {
        "vcpu_hour": 1.0,
        "gib_hour": 1.0,
        "compute_hour": {"small": 1.0},
        "disk_gib_month": 0.1,
        "backup_gib_month": 0.1,
        "million_tokens": {"other": {"prompt": 1.0, "completion": 2.0}},
    }
    about = {"uuid": UUID, "user_id": "ada", "size": "small", "labels": {}, "prices": prices}
    api = Api(answer(usage | about | {"from": "2026-11-01", "to": "2026-11-20"}))
    cost = api.client().costs.of_session(UUID, first=date(2026, 11, 1))
    assert (cost.first, cost.last) == (date(2026, 11, 1), date(2026, 11, 20))
    assert cost.tokens["gpt"].completion == 2
    assert (cost.point_gib_hours, cost.dollars.points) == (3.0, 0.01)
    assert cost.prices.million_tokens["other"].prompt == 1.0
    assert str(api.requests[0].url.query, "ascii") == "from=2026-11-01"


def test_an_answers_text_is_the_agents():
    done = {"status": "processed", "state": "processed", "pod_response": {"text": "hello"}}
    client = Api(answer({"uuid": UUID, "message_id": "m1", **done}), answer(message("m1"))).client()
    assert client.messages.send(UUID, "hi", id="m1").text == "hello"
    found = client.messages.get(UUID, "m1")
    assert (found.text, found.finished) == ("hello", True)


# Errors


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        *((418, code, kind) for code, kind in errors.BY_CODE.items()),
        *((status, "new_code", kind) for status, kind in errors.BY_STATUS.items()),
        (418, "new_code", ApiError),
        (500, "new_code", errors.ServerError),
    ],
)
def test_a_code_has_its_class_and_one_of_a_later_service_that_of_its_status(status, code, kind):
    with pytest.raises(ApiError) as raised:
        Api(problem(status, code, "no, thanks")).client().sessions.get(UUID)
    assert type(raised.value) is kind
    assert (raised.value.code, raised.value.status, raised.value.request_id) == (code, status, "r1")
    assert str(raised.value) == "no, thanks"


def test_every_code_that_the_docs_name_has_a_class():
    page = (ROOT / "docs/api.md").read_text()
    table = page.partition("| Status | `error` |")[2].partition("\n\n")[0]
    codes = {code.strip("` ") for row in table.splitlines()[2:] for code in row.split("|")[2].split(",")}
    assert len(codes) > 10
    assert codes <= errors.BY_CODE.keys()


def test_an_invalid_request_names_its_fields():
    refused = problem(400, "invalid_request", "Some values are invalid.", errors={"user_id": ["Too long."]})
    with pytest.raises(errors.InvalidRequest, match="user_id: Too long") as raised:
        Api(refused).client().sessions.create("x" * 129)
    assert raised.value.errors == {"user_id": ["Too long."]}


def test_a_start_that_failed_names_its_session():
    with pytest.raises(errors.StartFailed) as raised:
        Api(problem(409, "start_failed", uuid=UUID)).client().sessions.create("ada", wait=9)
    assert raised.value.uuid == UUID


@pytest.mark.parametrize("body", ["<html>Bad gateway</html>", "[]", "x" * 200_000, ""])
def test_an_error_of_a_proxy_is_an_error_too(body):
    with pytest.raises(errors.ServerError, match="502") as raised:
        Api(httpx.Response(502, text=body, headers={"X-Request-Id": "r9"})).client().sessions.get(UUID)
    assert (raised.value.code, raised.value.request_id) == ("http_error", "r9")


def test_every_error_is_one_of_the_package_and_can_be_imported_from_it():
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert all(issubclass(kind, WorkspacesError) for kind in kinds)
    assert {kind.__name__ for kind in kinds} <= set(workspaces.__all__)
    assert set(workspaces.__all__) <= set(dir(workspaces))


# Pages


def page(*uuids, cursor=None):
    row = {"user_id": "ada", "status": "active", "created_at": TIME}
    return answer({"total": 3, "sessions": [{"uuid": uuid, **row} for uuid in uuids], "next_cursor": cursor})


def test_a_list_asks_for_its_pages_as_they_are_needed():
    api = Api(page("a", "b", cursor="c1"), page("c"))
    rows = iter(api.client().sessions.list(user_id="ada", limit=2))
    assert [next(rows).uuid, next(rows).uuid] == ["a", "b"]
    assert len(api.requests) == 1
    assert [row.uuid for row in rows] == ["c"]
    assert [dict(request.url.params) for request in api.requests] == [
        {"user_id": "ada", "limit": "2"},
        {"user_id": "ada", "limit": "2", "cursor": "c1"},
    ]


def test_one_page_says_how_many_there_are():
    first = Api(page("a", cursor="c1")).client().sessions.list(cursor="c0").page()
    assert (first.total, len(first.sessions), first.next_cursor) == (3, 1, "c1")


def test_a_list_that_goes_in_circles_ends():
    with pytest.raises(InvalidAnswer):
        list(Api(page("a", cursor="c1"), page("a", cursor="c1")).client().sessions.list())


def test_an_unhealthy_service_is_an_answer():
    parts = {"redis": "disconnected", "kubernetes": "unknown", "workers": 0, "runtime": "local"}
    body = {"status": "unhealthy", "version": "0.2.0", "timestamp": TIME, **parts}
    health = Api(answer(body, 503, Retry_After="2")).client().system.health()
    assert (health.status, health.redis_memory, health.warnings) == ("unhealthy", None, ())


@pytest.mark.parametrize(("status", "ready"), [(200, True), (503, False)])
def test_readiness_is_an_answer(status, ready):
    assert Api(httpx.Response(status, text="ok\n")).client().system.ready() is ready
