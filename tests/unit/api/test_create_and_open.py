"""`"open": true` when a session is created: a link into it in the same answer."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest
from flask import Flask

from app.core.access.login_links import LoginLinks
from app.core.composition import Core
from app.core.errors import StateUnavailable
from app.core.redis import keys
from app.core.service import SessionService
from app.core.sessions.model import Record, Status
from tests.unit.api.helpers import ONCE, Client, check_problem, create, move
from tests.unit.api.visitors import Visitor


def follow(app: Flask, made: Any) -> tuple[Visitor, Any]:
    """A browser that has followed the link of a creation, and what it was told."""
    visitor = Visitor(app, made["uuid"])
    return visitor, visitor.navigate("/" + str(made["open_url"]).partition("localhost/")[2])


def test_the_link_of_a_creation_shows_how_far_it_is_and_then_the_workspace(
    app: Flask, client: Client, core: Core
) -> None:
    """Followed at once it is used, and its time matters no more: the cookie waits for the start."""
    answer = create(client, open=True)
    assert answer.status_code == 201
    visitor, entered = follow(app, answer.json)
    assert entered.status_code == 302
    assert visitor.navigate().status_code == 503
    move(core, answer.json["uuid"], Status.ACTIVE)
    assert visitor.navigate().status_code == 200
    assert follow(app, answer.json)[1].status_code == 403, "it works once"


def test_the_links_time_begins_with_the_answer(client: Client, core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with the call, which may wait for longer than a link lasts."""
    steps: list[str] = []
    made, waited, created = LoginLinks.make, SessionService.wait, SessionService.create

    def making(*args: Any) -> str:
        steps.append("link")
        return made(*args)

    def waiting(*args: Any) -> Record:
        steps.append("wait")
        return waited(*args)

    def creating(*args: Any, **options: Any) -> Record:
        record = created(*args, **options)
        move(core, record.uuid, Status.ACTIVE)
        return record

    monkeypatch.setattr(LoginLinks, "make", making)
    monkeypatch.setattr(SessionService, "wait", waiting)
    monkeypatch.setattr(SessionService, "create", creating)
    answer = create(client, {"Prefer": "wait=5"}, open=True)
    assert (answer.status_code, answer.json["status"]) == (201, "active")
    assert steps == ["wait", "link"]


def test_the_same_call_again_makes_another_link_to_the_same_session(app: Flask, client: Client, core: Core) -> None:
    first, again = (create(client, ONCE, open=True) for _ in range(2))
    assert first.json["uuid"] == again.json["uuid"]
    assert first.json["open_url"] != again.json["open_url"]
    assert core.sessions.page(user_id="ada").total == 1
    secret = first.json["open_url"].partition("workspace-link=")[2]
    kept = [str(core.redis.get(name)) for name in core.redis.keys(keys.IDEMPOTENCY.format(digest="*"))]
    assert len(kept) == 1
    assert secret not in kept[0]
    assert follow(app, again.json)[1].status_code == 302
    check_problem(create(client, ONCE, open=False), 422, "idempotency_key_reused")


def test_a_creation_has_a_link_only_when_it_is_asked_for(client: Client) -> None:
    for answer in (create(client), create(client, open=False)):
        assert "open_url" not in answer.json
    for bad in ("true", 1, None):
        problem = check_problem(create(client, open=bad), 400, "invalid_request")
        assert "open" in dict(problem["errors"])  # type: ignore[call-overload]


def test_a_link_that_could_not_be_made_leaves_a_session_that_is_named(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LoginLinks, "make", Mock(side_effect=StateUnavailable("Redis went away.")))
    answer = create(client, open=True)
    problem = check_problem(answer, 503, "state_unavailable")
    assert answer.headers["Location"] == f"/session/{problem['uuid']}"
    assert client.get(f"/session/{problem['uuid']}").status_code == 200


def test_open_takes_a_path_or_nothing(client: Client, uuid: str) -> None:
    for body, begin in (
        (None, "/?"),
        ({}, "/?"),
        ({"path": "/"}, "/?"),
        ({"path": "/x"}, "/x?"),
        ({"path": "/?folder=/a"}, "/?folder=/a&"),
    ):
        url = client.post(f"/session/{uuid}/open", json=body).json["url"]
        assert url.startswith(f"http://vs-code-{uuid}.localhost{begin}workspace-link=")
    check_problem(client.post(f"/session/{uuid}/open", json={"path": "/x", "host": "x"}), 400, "invalid_request")
