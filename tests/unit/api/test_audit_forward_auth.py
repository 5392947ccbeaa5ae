"""Of the visits of workspaces the audit has who came in by a link, who woke one, and who was refused."""

from __future__ import annotations

from typing import Any

import pytest
from werkzeug.datastructures import Headers

from app.core.access.forwarded_request import client_address
from app.core.composition import Core
from app.core.sessions.model import Status
from app.process.settings import Settings
from tests.unit.api.helpers import ADMIN_KEY, Client, bearer, move
from tests.unit.api.visitors import HANDSHAKE, NAVIGATION, POLL, Visitor, asked_by_nginx, link

THERE = {"X-Forwarded-For": "203.0.113.9"}


def visits(client: Client, by: str = "visitor") -> list[tuple[Any, ...]]:
    """What the audit has of them: action, session, address, status, reason, count."""
    names = ("action", "uuid", "address", "status", "reason", "count")
    return [tuple(entry[name] for name in names) for entry in client.get(f"/audit?key={by}").json["entries"]]


def test_who_follows_a_link_has_an_entry_and_what_they_do_then_has_none(
    client: Client, uuid: str, visitor: Visitor
) -> None:
    visitor.navigate(link(client, uuid), **THERE)
    for _ in range(5):
        visitor.navigate(**THERE)
        visitor.visit(**POLL)
        visitor.visit(**HANDSHAKE, Origin=f"http://{visitor.host}")
    assert visits(client) == [("enter", uuid, "203.0.113.9", 302, None, 1)]
    [entered] = client.get("/audit?key=visitor").json["entries"]
    assert (entered["role"], entered["user_id"], len(entered["request_id"])) == ("visitor", "ada", 32)


def test_behind_nginx_it_is_the_same(client: Client, forward_auth: Client, uuid: str) -> None:
    told = asked_by_nginx(f"vs-code-{uuid}.localhost", link(client, uuid), **(NAVIGATION | THERE))
    assert forward_auth.get("/auth/verify", **told).status_code == 401
    assert visits(client) == [("enter", uuid, "203.0.113.9", 302, None, 1)]


def test_a_wake_by_the_address_or_the_button_has_an_entry(
    client: Client, core: Core, uuid: str, visitor: Visitor
) -> None:
    visitor.navigate(link(client, uuid), **THERE)
    move(core, uuid, Status.SLEEPING)
    for _ in range(3):
        assert visitor.navigate(**THERE).status_code == 503
    move(core, uuid, Status.FAILED)
    visitor.visit("/.session/retry", "POST", Origin=f"http://{visitor.host}", **THERE)
    assert visits(client) == [
        ("wake", uuid, "203.0.113.9", 303, "its button", 1),
        ("wake", uuid, "203.0.113.9", 503, "its address", 1),
        ("enter", uuid, "203.0.113.9", 302, None, 1),
    ]


def test_refusals_at_forward_auth_count_in_one_entry(client: Client, uuid: str, visitor: Visitor) -> None:
    path = link(client, uuid)
    for _ in range(7):
        visitor.visit(**POLL, **THERE)
    visitor.navigate(path, **THERE)
    other = Visitor(visitor.client.application, uuid)
    for _ in range(3):
        other.navigate(path, **THERE)
        visitor.visit(**HANDSHAKE, Origin="https://example.com", **THERE)
    assert visits(client) == [
        ("visit", uuid, "203.0.113.9", 403, "foreign_origin", 3),
        ("visit", uuid, "203.0.113.9", 403, "link_used", 3),
        ("enter", uuid, "203.0.113.9", 302, None, 1),
        ("visit", uuid, "203.0.113.9", 401, "unauthorized", 7),
    ]


def test_a_prompt_straight_to_the_agent_has_an_entry(client: Client, visitor: Visitor, uuid: str) -> None:
    token = client.post(f"/session/{uuid}/token").json["token"]
    for method, path in (("GET", "history"), ("POST", "chat"), ("POST", "chat"), ("POST", "cancel")):
        for shown in (bearer(token), {"X-API-Key": ADMIN_KEY}):
            answer = visitor.visit(f"/chat/{uuid}/{path}", method, host="api.localhost", **shown, **THERE)
            assert answer.status_code == 200
    expected = [
        ("agent_call", uuid, "203.0.113.9", 200, "at its agent", 1),
        ("prompt", uuid, "203.0.113.9", 200, "at its agent", 2),
    ]
    assert visits(client, f"session:{uuid}") == expected
    assert [each for each in visits(client, "api_key") if each[4]] == expected
    visitor.visit(f"/chat/{uuid}/chat", "POST", host="api.localhost", **THERE)
    assert visits(client) == [("visit", uuid, "203.0.113.9", 401, "unauthorized", 1)]


@pytest.mark.parametrize(
    ("told", "proxies", "address"),
    [
        ([], 0, ""),
        (["203.0.113.9"], 0, "203.0.113.9"),
        (["198.51.100.1, 203.0.113.9"], 0, "203.0.113.9"),
        (["198.51.100.1, 203.0.113.9"], 1, "203.0.113.9"),
        (["198.51.100.1, 203.0.113.9, 10.0.0.1"], 2, "203.0.113.9"),
        (["198.51.100.1", "203.0.113.9, 10.0.0.1"], 2, "203.0.113.9"),
        (["203.0.113.9"], 2, "203.0.113.9"),
    ],
)
def test_the_address_is_what_the_ingress_has_seen(told: list[str], proxies: int, address: str) -> None:
    """And not what a visitor says of itself before that."""
    headers = Headers([("X-Forwarded-For", line) for line in told])
    assert client_address(headers, Settings(trusted_proxies=proxies)) == address
